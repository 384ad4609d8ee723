# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Calls that may take only so long.

Nothing can stop a thread from outside. So a call runs in a thread of its own,
and whoever waits for it stops waiting when the time is over. In a service
that eventlet has patched the thread is a green one: there a call that blocks
without yielding blocks the whole process, time limit or not.
"""

from collections.abc import Callable
from concurrent import futures
import threading
from typing import Any
from typing import TypeVar

from oslo_context import context as oslo_context
from oslo_log import log as logging

from vmip_plugin import exceptions

LOG = logging.getLogger(__name__)

T = TypeVar('T')


class TimeUp(exceptions.VmipError):
    """A call took longer than it may."""


class Limit:
    """Runs calls of one kind.

    :param name: what is called, for the log.
    :param seconds: longest time of a call; 0: as long as it takes.
    """

    #: Most calls that are over their time and still run. What hangs must not
    #: fill the process with threads.
    MAX_LATE = 16

    def __init__(self, name: str, seconds: float) -> None:
        self.seconds = seconds
        self._name = name
        self._lock = threading.Lock()
        self._late = 0

    def run(self, call: Callable[[], T],
            late: Callable[[T], object] = lambda result: None) -> T:
        """Return what a call returns, or raise what it raises.

        :param late: gets the result of a call that ended after its time.
        :raises TimeUp: the call goes on, and nobody waits for it.
        """
        if not self.seconds:
            return call()
        with self._lock:
            if self._late >= self.MAX_LATE:
                raise TimeUp(f'{self._name}: {self._late} earlier calls are '
                             f'over their time and have not ended')
        future: futures.Future[T] = futures.Future()
        # Not an executor's thread: it would keep the process from ending.
        threading.Thread(
            target=_call, args=(future, call, oslo_context.get_current()),
            name=self._name, daemon=True).start()
        if futures.wait([future], self.seconds).not_done:
            with self._lock:
                self._late += 1
            future.add_done_callback(lambda done: self._ended(done, late))
            raise TimeUp(f'{self._name}: not done within {self.seconds:g} s')
        return future.result()

    def _ended(self, done: 'futures.Future[T]',
               late: Callable[[T], object]) -> None:
        with self._lock:
            self._late -= 1
        try:
            late(done.result())
            LOG.warning('%s has ended after its time', self._name)
        except Exception as exc:
            LOG.warning('%s has failed after its time: %s', self._name,
                        type(exc).__name__)


def _call(future: 'futures.Future[T]', call: Callable[[], T],
          context: Any) -> None:
    if context is not None:
        # the request id in what the call logs
        context.update_store()
    try:
        future.set_result(call())
    except BaseException as exc:
        future.set_exception(exc)
