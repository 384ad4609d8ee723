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

"""Reading frames by the block."""

import errno
import itertools
import time

import testtools

from tests import lab
from tests.unit.agent import test_tracker
from vmip_plugin.agent import frames
from vmip_plugin.agent import link
from vmip_plugin.dhcp import packet

#: frames that no longer fit
_FLOOD = link.BLOCK * link.BLOCKS // 300




def _frame(vlan: int | None = None) -> bytes:
    return test_tracker.frame(
        test_tracker.GUEST, packet.MessageType.REQUEST, vlan=vlan,
        requested='10.66.1.1')


_FRAME = _frame()
_XID = 14 + 20 + 8 + 4


class RingTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.bridge, guest = self._enter(lab.Bridge()), self._enter(
            lab.Namespace())
        self.bridge.attach(guest)
        self.ring = self.bridge.inside(
            lambda: link.Ring('br0', link.DHCP_FILTER, promiscuous=True))
        self.addCleanup(self.ring.close)
        self.sender = guest.inside(lambda: link.Link('eth0', link.NOTHING))
        self.addCleanup(self.sender.close)
        self._xids = itertools.count()

    def _enter(self, one: lab.ManagedT) -> lab.ManagedT:
        one.__enter__()
        self.addCleanup(one.__exit__, None, None, None)
        return one

    def _frame(self) -> bytes:
        return _FRAME[:_XID] + next(self._xids).to_bytes(4) + _FRAME[
            _XID + 4:]

    def _rest(self) -> list[tuple[bytes, int | None]]:
        found = []
        while block := self.ring.receive_all():
            found += block
        return found

    def test_nothing(self) -> None:
        began = time.monotonic()
        self.assertEqual([], self.ring.receive_all())
        self.assertGreater(time.monotonic() - began, 0.4)

    def test_at_once(self) -> None:
        for vlan in (None, 7):
            frame = _frame(vlan)
            self.sender.send(frame)
            # or there would be nothing yet
            (got, tag), = self.ring.receive_all()
            # the kernel may have taken the tag off
            self.assertEqual(vlan, frames.parse_datagram(got, tag).vlan)
            self.assertEqual(frame[-240:], got[-240:])

    def test_once_round(self) -> None:
        """In order, across all blocks and from the first again."""
        sent = 0
        while sent < _FLOOD:
            few = [self._frame() for _ in range(2000)]
            for frame in few:
                self.sender.send(frame)
            got: list[bytes] = []
            while len(got) < len(few) and (block := self.ring.receive_all()):
                got += [frame for frame, _ in block]
            self.assertEqual(few, got)
            sent += len(few)
        self.assertEqual(0, self.ring.count_drops())

    def test_full(self) -> None:
        for _ in range(_FLOOD):
            self.sender.send(self._frame())
        got = len(self._rest())
        self.assertGreater(got, 0)
        self.assertGreater(self.ring.count_drops(), 0)
        self.assertEqual(_FLOOD, got + self.ring.drops)
        frame = self._frame()
        self.sender.send(frame)
        self.assertEqual([(frame, None)], self._rest())

    def test_interface_down(self) -> None:
        self.bridge.run('ip', 'link', 'set', 'br0', 'down')
        raised = self.assertRaises(OSError, self.ring.receive_all)
        self.assertEqual(errno.ENETDOWN, raised.errno)
        self.bridge.run('ip', 'link', 'del', 'br0')
        self.assertFalse(self.ring.current())
