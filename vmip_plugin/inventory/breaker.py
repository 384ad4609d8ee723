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

"""Keeps calls away from a database that does not answer."""

from collections.abc import Callable, Iterator
import logging as python_logging
import os
import threading
import time

from oslo_log import log as logging

from vmip_plugin import exceptions

LOG = logging.getLogger(__name__)

#: Seconds between two probes.
INTERVAL = 1.0


class Breaker:
    """Open after a time-out, closed again once a probe is answered.

    While it is open calls fail at once, and one thread asks the database
    again and again.

    :param probe: asks the database, and raises if it does not answer.
    """

    def __init__(self, probe: Callable[[], object]) -> None:
        self._probe = probe
        self._lock = threading.Lock()
        # the process in which it is open, and why: no thread outlives a fork
        self._open: tuple[int, str] | None = None

    @property
    def is_open(self) -> bool:
        return self._open is not None and self._open[0] == os.getpid()

    def check(self) -> None:
        """Let a call through.

        :raises InventoryUnavailable: it is open.
        """
        found = self._open
        if found is not None and found[0] == os.getpid():
            raise exceptions.InventoryUnavailable(found[1])

    def trip(self, exc: BaseException) -> None:
        """Open it because of an error, where that is a time-out."""
        # libpq has only words for a connect that took too long
        if not any(isinstance(each, TimeoutError)
                   or 'timeout expired' in str(each)
                   for each in _causes(exc)):
            return
        with self._lock:
            if self.is_open:
                return
            self._open = (os.getpid(), str(exc))
            LOG.error('The database does not answer. What needs it fails '
                      'until it does: %s', exc)
            threading.Thread(target=self._ask, daemon=True,
                             name='database-probe').start()

    def _ask(self) -> None:
        while True:
            time.sleep(INTERVAL)
            try:
                self._probe()
            except Exception:
                LOG.debug('The database still does not answer',
                          exc_info=LOG.isEnabledFor(python_logging.DEBUG))
                continue
            # whoever sees it closed finds that in the log
            LOG.info('The database answers again')
            self._open = None
            return


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield an error and whatever led to it.

    oslo.db and SQLAlchemy keep the driver's error beside Python's own chain,
    and PyMySQL that of the socket.
    """
    seen: list[BaseException] = []
    waiting: list[object] = [exc]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            yield each
            waiting += [each.__cause__, each.__context__, *(
                getattr(each, name, None) for name in (
                    'inner_exception', 'orig', 'original_exception'))]
