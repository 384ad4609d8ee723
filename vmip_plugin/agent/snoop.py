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

"""Overhears DHCP on one interface, for as long as the agent lives."""

from collections.abc import Callable
import errno
import threading
import time

from oslo_log import log as logging

from vmip_plugin.agent import frames
from vmip_plugin.agent import link
from vmip_plugin.agent import tracker
from vmip_plugin.agent import tracker6
from vmip_plugin import health
from vmip_plugin import metrics

LOG = logging.getLogger(__name__)

#: seconds between two tries to open an interface that is not there: the
#: first, and the longest
BACKOFF = (0.25, 4.0)
_COUNT_EVERY = 30.0
#: most seconds between two turns
_HUNG = 60.0


class Listener:
    """Understands the DHCP of both versions on one interface."""

    def __init__(self, interface: str) -> None:
        self._four = tracker.Tracker(interface)
        self._six = tracker6.Tracker6(interface)

    def hear(self, frame: bytes, vlan: int | None = None
             ) -> tracker.Overheard | None:
        """Return what a frame says about a lease, or None.

        :raises ValueError: the frame holds no sound DHCP message.
        """
        datagram = frames.parse_datagram(frame, vlan)
        if datagram.source_ip.version == 6:
            return self._six.take(datagram)
        return self._four.take(datagram)


class Snoop(threading.Thread):
    """One interface's thread.

    An interface that goes away is waited for.

    :param emit: called in this thread with everything overheard.
    """

    def __init__(self, interface: str,
                 emit: Callable[[tracker.Overheard], None],
                 stop: threading.Event) -> None:
        super().__init__(name=f'snoop-{interface}', daemon=True)
        self.interface = interface
        #: frames that were no sound DHCP message
        self.malformed = 0
        #: whether the interface is there and open
        self.listening = False
        self.pulse = health.Pulse(self.name, _HUNG)
        self._emit = emit
        self._halt = stop

    def run(self) -> None:
        delay = BACKOFF[0]
        while not self._halt.is_set():
            began = time.monotonic()
            self.pulse.beat()
            try:
                with link.Ring(self.interface, link.DHCP_FILTER,
                               promiscuous=True) as opened:
                    LOG.info('Listening for DHCP on %s', self.interface)
                    self.listening = True
                    self._listen(opened)
            except OSError as exc:
                self.listening = False
                if time.monotonic() - began > BACKOFF[1]:
                    delay = BACKOFF[0]
                LOG.warning('Cannot listen on %s, trying again in %.2f s: %s',
                            self.interface, delay, exc)
                self._halt.wait(delay)
                delay = min(2 * delay, BACKOFF[1])
            except Exception:
                # A thread that ends is deaf for ever.
                self.listening = False
                LOG.exception('Listening on %s failed', self.interface)
                self._halt.wait(BACKOFF[1])

    def _listen(self, opened: link.Ring) -> None:
        listener = Listener(self.interface)
        drops, count_at = 0, time.monotonic() + _COUNT_EVERY
        while not self._halt.is_set():
            got = opened.receive_all()
            self.pulse.beat()
            for frame, vlan in got:
                self._hear(listener, frame, vlan)
            if not got and not opened.current():
                raise OSError(errno.ENODEV, 'the interface was replaced')
            if time.monotonic() > count_at:
                count_at = time.monotonic() + _COUNT_EVERY
                if opened.count_drops() > drops:
                    LOG.warning(
                        '%d DHCP frames on %s were lost for want of time',
                        opened.drops - drops, self.interface)
                    drops = opened.drops

    def _hear(self, listener: Listener, frame: bytes,
              vlan: int | None) -> None:
        try:
            heard = listener.hear(frame, vlan)
        except ValueError as exc:
            self.malformed += 1
            metrics.MALFORMED.inc()
            LOG.debug('Ignored a frame on %s: %s', self.interface, exc)
            return
        if heard is not None:
            self._emit(heard)
