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

"""Who answers for an address now."""

from collections.abc import Collection, Mapping
import ipaddress
import pathlib
import tempfile
from typing import Any

import testtools

from vmip_plugin.agent import frames
from vmip_plugin.agent import hear
from vmip_plugin.agent import probe
from vmip_plugin.agent import store
from vmip_plugin.agent import tracker
from vmip_plugin import types

MAC, OTHER = 'fa:16:3e:00:00:01', 'fa:16:3e:00:00:02'
SERVER = ipaddress.ip_address('10.66.0.1')


class FakeProber:
    """MACs answer for addresses."""

    def __init__(self) -> None:
        self.wire: dict[str, set[str]] = {}
        self.places: Mapping[types.Address, Collection[probe.Place]] = {}

    def hear(self, places: Mapping[types.Address, Collection[probe.Place]]
             ) -> dict[types.Address, set[str] | None]:
        self.places = places
        return {one: self.wire.get(str(one), set()) for one in places}


class HearerTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.store = store.LeaseStore(
            str(pathlib.Path(directory.name) / 'agent.sqlite'), 1000)
        self.addCleanup(self.store.close)
        self.prober: Any = FakeProber()
        self.hearer = hear.Hearer(['br0', 'br1'], self.store, self.prober)

    def grant(self, address: str, mac: str = MAC, **changes: Any) -> None:
        self.store.record([tracker.Overheard(**{
            'kind': tracker.Kind.GRANTED,
            'address': ipaddress.ip_address(address), 'mac': mac,
            'interface': 'br0', 'seen': 1.0, 'dhcp_server': SERVER,
            'lease_seconds': 60, **changes})])

    def hear(self, *addresses: str) -> dict[str, bool]:
        return {str(one): found for one, found in self.hearer.hear(
            [ipaddress.ip_address(one) for one in addresses]).items()}

    def test_another_network(self) -> None:
        """Silence says something only where the network is."""
        self.grant('10.66.1.9', vlan=7)
        self.grant('2001:db8::9')
        self.assertEqual(
            {'10.66.1.1': False, '2001:db8::1': False},
            self.hear('10.66.1.1', '10.66.11.1', '2001:db8::1',
                      '2001:db8:0:1::1'))
        self.assertEqual(
            {('br0', None), ('br1', None), ('br0', 7)},
            self.prober.places[ipaddress.ip_address('10.66.1.1')])

    def test_who_answers_anywhere(self) -> None:
        self.prober.wire = {'10.77.1.1': {OTHER}}
        self.assertEqual({'10.77.1.1': True}, self.hear('10.77.1.1'))

    def test_what_shows_no_network(self) -> None:
        """What was only asked for, or beyond a relay, proves nothing."""
        self.grant('10.66.1.9', remote=True)
        self.grant('10.66.2.9', kind=tracker.Kind.REQUESTED)
        self.grant('10.66.3.9', interface='gone')
        self.assertEqual({}, self.hear('10.66.1.1', '10.66.2.1',
                                       '10.66.3.1'))

    def test_a_guest_that_answers_for_all(self) -> None:
        addresses = [f'10.66.1.{n}' for n in range(1, 100)]
        self.grant(addresses[0])
        self.grant(addresses[1], OTHER)
        self.prober.wire = {one: {MAC} for one in addresses}
        self.prober.wire[addresses[1]].add(OTHER)
        found = self.hear(*addresses)
        self.assertEqual(addresses[:2],
                         [one for one in addresses if found[one]])
        self.assertEqual({addresses[5]: False}, self.hear(addresses[5]))

    def test_solicitation_to_all(self) -> None:
        """RFC 4291 section 2.7.1."""
        address = ipaddress.IPv6Address('2001:db8::1:2345')
        frame = frames.build_solicitation(MAC, None, address)
        self.assertEqual('33:33:ff:01:23:45', frame[:6].hex(':'))
        self.assertEqual(ipaddress.IPv6Address('ff02::1:ff01:2345').packed,
                         frame[14 + 24:14 + 40])
