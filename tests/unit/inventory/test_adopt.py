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

"""Addresses that Neutron gave away without the list."""

from collections.abc import Callable
from typing import Any

from tests.unit import base
from tests.unit.base import ip
from vmip_plugin import exceptions
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

State = states.State
ADDRESS = '10.0.0.10'


class TestAdopt(base.TestCase):
    """Port 9 has, says Neutron, what the list has as another's."""

    def setUp(self) -> None:
        super().setUp()
        self.pool(reuse_delay=60)

    def in_use(self, **more: Any) -> records.InUse:
        held = [held for _, held in self.found(address=ip(ADDRESS))]
        return records.InUse(**{
            'address': ip(ADDRESS), 'project_id': base.PROJECT,
            'server_id': base.server_id(9), 'port_id': base.port_id(9),
            'mac': base.mac(9),
            'generation': held[0].generation if held else None, **more})

    def adopt(self, **more: Any) -> None:
        self.inventory.change_pool('pool', adopt=[self.in_use(**more)])

    def reserved(self) -> None:
        self.reserve()

    def by_hand(self) -> None:
        self.hold(ADDRESS)

    def claimed(self) -> None:
        self.claim(1)
        self.serve()

    def active(self) -> None:
        self.claimed()
        self.inventory.activate(base.server_id(1), 'web', [base.mac(1)])

    def releasing(self) -> None:
        self.claimed()
        self.inventory.release(self.row(ADDRESS), '')

    def quarantined(self) -> None:
        self.releasing()
        self.finish(ADDRESS)

    def free(self) -> None:
        self.quarantined()
        self.clock.forward(61)
        self.inventory.rest_over()

    def adopted(self) -> None:
        self.adopt(port_id=base.port_id(1))

    def unknown(self) -> None:
        pass

    def serve(self) -> None:
        for work in self.inventory.work(limit=10):
            self.assertTrue(self.inventory.work_done(work))

    HOW: tuple[Callable[['TestAdopt'], None], ...] = (
        unknown, free, reserved, by_hand, claimed, active, releasing,
        quarantined, adopted)

    def test_from_each_state(self) -> None:
        """The old holder's entry goes; the new one's comes if wanted."""
        for serve in False, True:
            for how in self.HOW:
                with self.subTest(how=how.__name__, serve=serve):
                    how(self)
                    had = [entry[2] for entry in self.entries()]
                    self.adopt(serve=serve)
                    row = self.row(ADDRESS)
                    self.assertEqual(
                        (State.CLAIMED if serve else State.ADOPTED,
                         base.port_id(9), base.server_id(9), base.mac(9)),
                        (row.state, row.port_id, row.server_id, row.mac))
                    self.assertIsNone(row.request_id)
                    self.assertEqual(
                        [('a', ADDRESS, base.mac(9), True, False)] if serve
                        else [('a', ADDRESS, mac, False, False)
                              for mac in had], self.entries())
                    self.serve()
                    self.assertEqual((row.state, row.port_id), (
                        self.state(ADDRESS), self.row(ADDRESS).port_id))
                    self.assertEqual(
                        [('a', ADDRESS, base.mac(9), True, True)] if serve
                        else [], self.entries())
                    self.forget()

    def forget(self) -> None:
        """Leave nothing to the next one."""
        self.inventory.release(self.row(ADDRESS), '')
        self.finish(ADDRESS)
        for _, held in self.found(held_by_hand=True):
            self.inventory.unhold('pool', held.address)
        self.clock.forward(61)
        self.inventory.rest_over()
        self.inventory.delete_pool('pool')
        self.pool(reuse_delay=60)

    def test_known_already(self) -> None:
        """Its port has come into the list since Neutron was asked."""
        stale = self.in_use()
        self.claim(9)
        row = self.row(ADDRESS)
        self.inventory.change_pool('pool', adopt=[stale])
        self.assertEqual(row, self.row(ADDRESS))

    def test_changed_since(self) -> None:
        """Neutron's word may be older than the list: nothing is done."""
        stale = self.in_use()
        self.claim(1)
        row = self.row(ADDRESS)
        error = self.assertRaises(
            exceptions.AddressInUse, self.inventory.change_pool, 'pool',
            reuse_delay=7, adopt=[stale])
        self.assertIn('try again', str(error))
        self.assertEqual(row, self.row(ADDRESS))
        self.assertEqual(60, self.inventory.pool('pool').reuse_delay)

    def test_keeps_what_is_held_by_hand(self) -> None:
        self.hold(ADDRESS)
        self.adopt()
        self.inventory.release(self.row(ADDRESS), '')
        self.finish(ADDRESS)
        self.assertEqual((State.RESERVED, 'web'), (
            self.state(ADDRESS), self.row(ADDRESS).hold_name))

    def test_many(self) -> None:
        """More than are looked up at a time."""
        self.pool('10.1.0.1', '10.1.3.255', '10.1.0.0/16', name='large',
                  network=base.server_id(1), subnet=base.server_id(2))
        self.inventory.change_pool('large', adopt=[
            records.InUse(ip('10.1.0.1') + n, base.PROJECT,
                          base.server_id(n), base.port_id(n), base.mac(n),
                          serve=n % 2 == 0)
            for n in range(1020)])
        self.assertEqual(510, len(self.entries()))
        self.assertEqual(
            [510, 510], [len(self.found(pool='large', state=[state]))
                         for state in (State.CLAIMED, State.ADOPTED)])
