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

"""A guest that floods answers, without a network."""

import ipaddress
import os
import selectors
from unittest import mock

import testtools

from tests.unit.agent import test_guests
from vmip_plugin.agent import decide
from vmip_plugin.agent import frames
from vmip_plugin.agent import link
from vmip_plugin.agent import probe

_FLOODER = 'fa:16:3e:00:00:66'
_WANTED = ipaddress.ip_address('10.66.1.1')


class Flooded:
    """A link whose frames never end."""

    mac = '52:00:00:00:00:01'
    name = 'br0'

    def __init__(self) -> None:
        self.read, write = os.pipe()
        os.write(write, b'x')
        os.close(write)
        # an ARP reply: of a request, operation 2 and the flooder's address
        one = bytearray(frames.build_arp_request(
            _FLOODER, self.mac, ipaddress.IPv4Address(1)))
        one[21] = 2
        one[28:32] = bytes((10, 66, 1, 250))
        self.frame = bytes(one)

    def __enter__(self) -> 'Flooded':
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self.read)

    def fileno(self) -> int:
        return self.read

    def send(self, frame: bytes) -> None:
        pass

    def receive(self) -> tuple[bytes, None]:
        return self.frame, None


class FloodTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(
            link, 'Link', side_effect=lambda *args, **options: Flooded())
        patch.start()
        self.addCleanup(patch.stop)
        self.prober = probe.Prober(['br0'], 3, 0.05)

    def test_probe(self) -> None:
        """It ends, and the others count as silent."""
        leases = [test_guests.lease(address=_WANTED + n) for n in range(200)]
        self.assertEqual(
            {one.key: decide.Probe.SILENT for one in leases},
            self.prober.probe(leases))

    def test_hear(self) -> None:
        flooded = ipaddress.ip_address('10.66.1.250')
        self.assertEqual(
            {_WANTED: set(), flooded: {_FLOODER}},
            self.prober.hear({one: [('br0', None)]
                              for one in (_WANTED, flooded)}))

    def test_cannot_be_asked(self) -> None:
        self.assertEqual({_WANTED: None},
                         self.prober.hear({_WANTED: [('br9', None)]}))

    def test_bounded_part(self) -> None:
        with Flooded() as flooded, selectors.DefaultSelector() as selector:
            selector.register(flooded, selectors.EVENT_READ, flooded)
            self.assertEqual(probe._DRAIN_LIMIT, len(list(
                self.prober._answers(selector, 0))))
