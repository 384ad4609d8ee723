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

"""Reserving just what was asked for."""

from tests.unit import base
from vmip_plugin.inventory import records

ip = base.ip

A, B = '10.0.0.15', '2001:db8::15'
NETWORK_2 = '11111111-0000-0000-0000-000000000002'


class TestAsked(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()

    def ask(self, *addresses: str, name: str = 'web', only: bool = False,
            ) -> list[str]:
        return base.addresses(self.inventory.reserve(
            records.Requester('req-1', base.PROJECT),
            [records.Wanted(base.NETWORK, (name,),
                            tuple(map(ip, addresses)), only)], 600))

    def pool6(self) -> None:
        self.pool('2001:db8::10', '2001:db8::20', '2001:db8::/64',
                  name='six', subnet='22222222-0000-0000-0000-000000000006')

    def test_versions(self) -> None:
        self.pool6()
        self.assertEqual([A, '2001:db8::10'], self.ask(A))
        self.assertEqual([B, '10.0.0.10'], self.ask(B))
        self.assertEqual(['10.0.0.16'], self.ask('10.0.0.16', only=True))
        self.assertEqual(['2001:db8::16', '10.0.0.17'],
                         self.ask('2001:db8::16', '10.0.0.17', only=True))

    def test_unknown_name(self) -> None:
        self.ask(A, name='')
        self.assertIsNone(self.row(A).server_name)
        self.hold('10.0.0.17', None, base.PROJECT)
        self.assertEqual(['10.0.0.17'], self.ask(name=''))

    def test_networks_of(self) -> None:
        self.pool6()
        self.pool('10.0.0.12', '10.0.0.30', name='two', network=NETWORK_2,
                  subnet='22222222-0000-0000-0000-000000000002')
        # the digits of an IPv6 address may lie between those of IPv4 ones
        odd = ip('a00:f::')
        self.assertEqual({
            ip('10.0.0.10'): {base.NETWORK},
            ip(A): {base.NETWORK, NETWORK_2},
            ip('10.0.0.30'): {NETWORK_2}, ip('10.0.0.9'): frozenset(),
            ip(B): {base.NETWORK}, odd: frozenset(),
        }, self.inventory.networks_of([ip(text) for text in (
            '10.0.0.10', A, '10.0.0.30', '10.0.0.9', B)] + [odd]))
        self.assertEqual({}, self.inventory.networks_of([]))
