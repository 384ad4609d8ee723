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

"""Whether the list proves that a MAC no longer has an address."""

import datetime
from typing import Any

import sqlalchemy as sa

from tests.unit import base
from vmip_plugin.inventory import models
from vmip_plugin.inventory import records

State = base.State
A = '10.0.0.10'
ip = base.ip


class TestHasLost(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.made = self.pool(allocator='sticky')
        self.reserve('web')
        self.assertEqual(A, self.claim(1))

    def lost(self, number: int = 1) -> bool:
        return self.inventory.has_lost(self.made.id, ip(A), base.mac(number))

    def release(self, gone: bool = False) -> None:
        """Release it; with ``gone``, Neutron says that the port is gone."""
        self.inventory.release_address(base.SUBNET, ip(A), 'deleted')
        if gone:
            work, = self.inventory.work(port_ids=[base.port_id(1)])
            self.inventory.work_failed(work, 'a lease', 1, port_gone=True)

    def test_never_had_it(self) -> None:
        self.assertFalse(self.lost(9))

    def test_has_it(self) -> None:
        self.assertFalse(self.lost())
        self.inventory.activate(base.server_id(1), 'web', [base.mac(1)])
        self.assertFalse(self.lost())

    def test_released(self) -> None:
        self.release()
        self.assertFalse(self.lost())
        self.finish(A)
        self.assertEqual(State.FREE, self.state(A))
        self.assertTrue(self.lost())

    def test_release_is_taken_back(self) -> None:
        self.release()
        self.inventory.keep(self.inventory.work(
            port_ids=[base.port_id(1)])[0])
        self.assertFalse(self.lost())

    def test_the_next_one_was_let_in(self) -> None:
        """Which is not before Neutron has said that the port is gone."""
        self.release()
        self.assertNotEqual(A, base.addresses(
            self.reserve('web', request='req-2'))[0])
        work, = self.inventory.work(port_ids=[base.port_id(1)])
        self.inventory.work_failed(work, 'a lease', 1, port_gone=True)
        self.assertFalse(self.lost())
        self.assertEqual([A], base.addresses(
            self.reserve('web', request='req-3')))
        self.assertTrue(self.lost())
        self.assertEqual(A, self.claim(2, request='req-3'))
        self.assertTrue(self.lost())
        self.assertFalse(self.lost(2))

    def test_has_it_again(self) -> None:
        self.release()
        self.finish(A)
        self.reserve('web', request='req-2')
        self.assertEqual(A, self.claim(1, request='req-2'))
        self.assertFalse(self.lost())

    def test_port_has_another_mac(self) -> None:
        self.inventory.change_mac(base.port_id(1), base.mac(2))
        self.assertTrue(self.lost())
        self.assertFalse(self.lost(2))
        self.inventory.change_mac(base.port_id(1), base.mac(1))
        self.assertFalse(self.lost())
        self.assertTrue(self.lost(2))

    def test_later_lines_that_prove_nothing(self) -> None:
        """Only who was let in next, or what the same port has, does."""
        self.release()
        for event, port in (('hold', 1), ('unhold', 1), ('keep', 1),
                            ('adopt', 2), ('change', 1), ('activate', 1)):
            with self.inventory.database.engine.begin() as connection:
                connection.execute(
                    sa.delete(models.HistoryRow).where(
                        models.HistoryRow.mac == base.mac(9)))
                self.add_line(connection, event, port)
            self.assertFalse(self.lost(), event)

    def test_only_the_same_ports_mac_proves_it(self) -> None:
        for event, port, expected in (('change', 2, False),
                                      ('change', 1, True),
                                      ('activate', 1, False)):
            with self.inventory.database.engine.begin() as connection:
                connection.execute(
                    sa.delete(models.HistoryRow).where(
                        models.HistoryRow.mac == base.mac(9)))
                self.add_line(connection, event, port)
            self.assertEqual(expected, self.lost(), (event, port))

    def add_line(self, connection: Any, event: str, port: int) -> None:
        """Write a line of the history after all that are there."""
        connection.execute(sa.insert(models.HistoryRow), [{
            'pool_id': self.made.id, 'address': ip(A),
            'at': self.clock.now + datetime.timedelta(seconds=1),
            'actor': 'test', 'event': event, 'reason': '',
            'old_state': 'claimed', 'new_state': 'claimed',
            'port_id': base.port_id(port), 'mac': base.mac(9)}])

    def test_port_has_another_server(self) -> None:
        self.inventory.change_server(base.port_id(1), base.server_id(2))
        self.assertFalse(self.lost())

    def test_neutron_gave_it_away(self) -> None:
        self.inventory.disown(base.SUBNET, ip(A))
        self.assertFalse(self.lost())

    def test_hand_reservation_ends_while_it_is_released(self) -> None:
        self.hold(A)
        self.release(gone=True)
        self.inventory.unhold('pool', ip(A))
        self.assertEqual(State.RELEASING, self.state(A))
        self.assertFalse(self.lost())
        self.reserve('web', request='req-2')
        self.assertTrue(self.lost())

    def test_in_another_pool(self) -> None:
        """MACs are Neutron's only within one network."""
        other = self.pool(name='other', network=base.server_id(7),
                          subnet=base.server_id(8))
        self.release()
        self.finish(A)
        self.assertFalse(self.inventory.has_lost(
            other.id, ip(A), base.mac(1)))
        self.inventory.claim(
            subnet_id=base.server_id(8), address=ip(A),
            requester=records.Requester('', base.PROJECT),
            port_id=base.port_id(8), mac=base.mac(1), server_id=None)
        self.assertTrue(self.lost())
        self.assertFalse(self.inventory.has_lost(
            other.id, ip(A), base.mac(1)))
