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

"""Remembers that a DHCP server cannot be used, so that nobody waits for it."""

import threading
import time

#: Seconds for which a server must have been of no use until nobody waits for
#: it any more: a restart takes less.
GRACE = 2.0
#: Seconds from one try of a server that is down to the next.
PROBE_INTERVAL = 2.0
#: Seconds after which a failure says nothing any more.
STALE = 60.0


class Breaker:
    """What one process knows of one DHCP server; of any number of threads.

    It is *open* while the server is known to be down. Then one call in
    :data:`PROBE_INTERVAL` is let through as a probe, and the first that
    succeeds closes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._down_since: float | None = None
        self._failed_at = 0.0
        self._open = False
        self._next_probe = 0.0

    @property
    def is_open(self) -> bool:
        """The server is known to be down."""
        return self._open

    @property
    def is_probe_due(self) -> bool:
        """The next call would be let through."""
        return not self._open or now() >= self._next_probe

    def allow(self) -> bool:
        """Tell whether the caller may use the server now."""
        with self._lock:
            if not self.is_probe_due:
                return False
            self._next_probe = now() + PROBE_INTERVAL
            return True

    def failed(self, began: float) -> None:
        """Note that the server could not be used.

        :param began: when that call of it began, as :func:`now` tells it.
        """
        with self._lock:
            if self._down_since is None or (
                    not self._open and began - self._failed_at > STALE):
                self._down_since = began
            self._failed_at = now()
            if now() - self._down_since >= GRACE:
                self._open = True
                self._next_probe = now() + PROBE_INTERVAL

    def succeeded(self) -> bool:
        """Note that the server could be used.

        :returns: whether it could not before.
        """
        with self._lock:
            was_down = self._down_since is not None
            self._down_since, self._open = None, False
            return was_down


def now() -> float:
    """Return seconds on a clock that is never set."""
    return time.monotonic()
