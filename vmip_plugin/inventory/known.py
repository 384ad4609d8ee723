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

"""What a process knows about pools without asking the database."""

from collections.abc import Callable
import os
import threading
import time

from oslo_log import log as logging

from vmip_plugin import exceptions

LOG = logging.getLogger(__name__)

#: Seconds after which the pools are read again, for whoever asks next.
MAX_AGE = 1.0
#: Seconds that those who ask wait for that.
PATIENCE = 1.0


class KnownPools:
    """The networks and subnets with a pool, as last read.

    While they cannot be read, what was read last is what is known, however
    long ago that was: without the database nobody makes a pool either.

    :param read: reads them from the database.
    """

    def __init__(self, read: Callable[[], frozenset[str]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._ids: frozenset[str] | None = None
        # since the last read began
        self._noted: frozenset[str] = frozenset()
        self._tried_at = -float('inf')
        self._pid = 0
        self._reading: threading.Event | None = None

    def note(self, *ids: str) -> None:
        """Note a pool that may be younger than what was read."""
        with self._lock:
            self._noted = self._noted.union(ids)

    def may_have(self, id: str | None) -> bool:
        """Tell whether it may have a pool; True if none was ever read."""
        self._refresh()
        with self._lock:
            return (self._ids is None or id in self._ids
                    or id in self._noted)

    def _refresh(self) -> None:
        """Have the pools read if that is due, and wait for it, not long.

        One thread reads for all who ask meanwhile. A database that does not
        answer so holds none of them up for longer than PATIENCE, and those
        that come later not at all.
        """
        now = time.monotonic()
        with self._lock:
            if self._pid != os.getpid():
                # no thread outlives a fork
                self._pid, self._reading = os.getpid(), None
            if self._reading is None:
                if now - self._tried_at <= MAX_AGE:
                    return
                self._tried_at = now
                self._reading = threading.Event()
                threading.Thread(target=self._run, args=(self._reading,),
                                 name='known-pools', daemon=True).start()
            reading, until = self._reading, self._tried_at + PATIENCE
        reading.wait(max(0.0, until - now))

    def _run(self, done: threading.Event) -> None:
        try:
            with self._lock:
                before = self._noted
            ids = self._read()
            with self._lock:
                self._ids = ids
                self._noted -= before
        except exceptions.VmipError as exc:
            LOG.debug('The pools cannot be read: %s', exc)
        except Exception:
            LOG.exception('The pools cannot be read')
        finally:
            with self._lock:
                self._reading = None
            done.set()
