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

"""The addresses in use, in the order of what they are compared with."""

from collections.abc import Callable, Iterable

from tests.unit import base
from vmip_plugin.inventory import ports
from vmip_plugin.inventory import records

OTHER_NETWORK = base.NETWORK[:-1] + '2'
OTHER_SUBNET = base.SUBNET[:-1] + '2'


class TestHeld(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.patch(ports, '_PAGE', 2)
        self.pool()
        self.pool('10.1.0.10', '10.1.0.20', '10.1.0.0/24', name='two',
                  network=OTHER_NETWORK, subnet=OTHER_SUBNET, adopt=[
                      records.InUse(base.ip(f'10.1.0.{n}'), None, None, None,
                                    None) for n in range(15, 20)])
        # ids against the order of the addresses
        for number in (9, 3, 7, 1, 5):
            self.claim(number, server=base.server_id(20 - number))
        self.claim(4, subnet=OTHER_SUBNET)
        self.claim(6, subnet=OTHER_SUBNET, server=None)
        self.reserve('r')
        self.clock.forward(1)

    def ports(self, held: Iterable[records.Held]) -> list[int]:
        return [int(h.port_id[-2:], 16) for h in held if h.port_id]

    def test_by_port(self) -> None:
        now = self.clock.now
        self.assertEqual([1, 3, 5, 7, 9], self.ports(
            self.inventory.held_by_port(base.NETWORK, now)))
        self.assertEqual([4, 6], self.ports(
            self.inventory.held_by_port(OTHER_NETWORK, now)))
        self.assertEqual([], list(self.inventory.held_by_port('x', now)))
        found = next(self.inventory.held_by_port(base.NETWORK, now))
        row = self.row('10.0.0.13')
        self.assertEqual(records.Held(
            id=row.id, generation=row.generation, address=row.address,
            port_id=row.port_id, gone_since=None, state='claimed',
            mac=row.mac, server_id=row.server_id, confirmed_until=None,
            pool_id=row.pool_id, network_id=base.NETWORK), found)

    def test_a_port_with_several(self) -> None:
        for n in range(16, 21):
            self.claim(3, address=base.ip(f'10.0.0.{n}'))
        self.clock.forward(1)
        self.assertEqual([1, 3, 3, 3, 3, 3, 3, 5, 7, 9], self.ports(
            self.inventory.held_by_port(base.NETWORK, self.clock.now)))

    def test_by_server(self) -> None:
        self.assertEqual([4, 9, 7, 5, 3, 1], self.ports(
            self.inventory.held_by_server(self.clock.now)))

    def test_without_port(self) -> None:
        self.assertEqual([f'10.1.0.{n}' for n in range(15, 20)], [
            str(h.address)
            for h in self.inventory.held_without_port(self.clock.now)])

    def test_what_has_changed_since(self) -> None:
        before = self.clock.now
        self.claim(2)
        self.inventory.change_mac(base.port_id(5), base.mac(99))
        for ask, wanted in (
                (lambda when: self.inventory.held_by_port(
                    base.NETWORK, when), [1, 3, 7, 9]),
                (self.inventory.held_by_server, [4, 9, 7, 3, 1])):
            held: Callable[..., Iterable[records.Held]] = ask
            self.assertEqual(wanted, self.ports(held(before)))

    def test_by_servers(self) -> None:
        self.assertEqual([4, 9, 7], self.ports(self.inventory.held_by_servers(
            [base.server_id(n) for n in (4, 11, 13, 77)])))
        self.assertEqual([], self.inventory.held_by_servers([]))

    def test_gone(self) -> None:
        held = list(self.inventory.held_by_port(base.NETWORK,
                                                self.clock.now))
        noted = []
        for one in (held[2], held[0], held[4], held[3]):
            noted.append(self.clock.now)
            self.inventory.note_gone([one], self.clock.now)
            self.clock.forward(1)
        self.assertEqual([5, 1, 9, 7], self.ports(
            self.inventory.held_by_nobody(self.clock.now)))
        self.assertEqual([5, 1], self.ports(
            self.inventory.held_by_nobody(noted[1])))
        self.inventory.change_mac(base.port_id(9), base.mac(99))
        self.inventory.note_gone(held, None)
        # what has changed since it was read is another's matter
        self.assertEqual([9], self.ports(
            self.inventory.held_by_nobody(self.clock.now)))
