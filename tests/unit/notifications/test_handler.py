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

"""What notifications change, and what they must not."""

import dataclasses
from typing import Any

from tests.unit import base
from tests.unit import fakes
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.notifications import event
from vmip_plugin.notifications import handler

Kind = event.Kind
State = base.State
A = '10.0.0.10'


def told(kind: Kind, number: int = 1, *, mac: str | None = None,
         ports: bool = True, server: bool = True,
         name: str | None = 'web') -> event.Event:
    """Return an event about port and server ``number``."""
    info = event.PortInfo(port_id=base.port_id(number),
                          mac=mac or base.mac(number),
                          device_id=base.server_id(number))
    return event.Event(
        kind=kind, message_id='m', emitted=None, source='neutron',
        request_id='req-1', project_id=base.PROJECT,
        server_id=base.server_id(number) if server else None,
        server_name=name, ports=(info,) if ports else ())


class HandlerTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.cloud = fakes.Cloud()
        self.driver = fakes.Server('a')
        self.handler = handler.Handler(
            self.inventory, work.Worker(
                self.conf, self.inventory, {'a': self.driver}, self.cloud,
                None), self.cloud)

    def handle(self, *events: event.Event) -> None:
        self.handler.handle(events)

    def port(self, number: int = 1) -> None:
        self.cloud.add(number, self.claim(number))
        self.cloud.servers[base.server_id(number)] = 'ACTIVE'

    def reserved(self) -> None:
        self.inventory.bind(self.reserve('web'), base.server_id(1))

    def gone(self, number: int = 1) -> None:
        del self.cloud.known[base.port_id(number)]
        self.cloud.servers.pop(base.server_id(number), None)


class TestHandler(HandlerTestCase):

    def test_life(self) -> None:
        self.port()
        self.handle(told(Kind.PORT_CREATED))
        self.assertEqual({A: base.mac(1)}, self.driver.served())
        self.handle(told(Kind.SERVER_CREATED))
        self.assertEqual(State.ACTIVE, self.state(A))
        self.gone()
        self.handle(told(Kind.PORT_DELETED))
        self.assertEqual({}, self.driver.served())
        self.assertEqual(State.FREE, self.state(A))

    def test_everything_twice(self) -> None:
        self.port()
        self.handle(*[told(Kind.PORT_CREATED)] * 2)
        self.handle(*[told(Kind.SERVER_CREATED)] * 2)
        self.gone()
        self.handle(*[told(Kind.SERVER_DELETED, ports=False)] * 2)
        self.handle(*[told(Kind.PORT_DELETED)] * 2)
        self.assertEqual(State.FREE, self.state(A))
        self.assertEqual(['claim', 'activate', 'release', 'finish'],
                         self.events(A))
        self.assertEqual([('put', A), ('remove', A)], self.driver.calls)

    def test_delete_before_create(self) -> None:
        self.port()
        self.gone()
        self.handle(told(Kind.PORT_DELETED))
        self.handle(told(Kind.PORT_CREATED))
        self.handle(told(Kind.SERVER_CREATED))
        self.assertEqual({}, self.driver.served())
        self.assertEqual(State.FREE, self.state(A))

    def test_delete_before_create_in_one_batch(self) -> None:
        self.port()
        self.gone()
        self.handle(told(Kind.PORT_DELETED), told(Kind.PORT_CREATED))
        self.assertEqual({}, self.driver.served())
        self.assertEqual(State.FREE, self.state(A))

    def test_old_create_is_nothing_to_the_next_holder(self) -> None:
        self.port()
        self.gone()
        self.handle(told(Kind.PORT_DELETED))
        self.port(2)
        self.handle(told(Kind.PORT_CREATED, 2), told(Kind.PORT_CREATED, 1),
                    told(Kind.PORT_DELETED, 1),
                    told(Kind.SERVER_DELETED, 1))
        self.assertEqual({A: base.mac(2)}, self.driver.served())
        self.assertEqual(State.CLAIMED, self.state(A))

    def test_forged_delete(self) -> None:
        self.port()
        self.handle(told(Kind.PORT_CREATED), told(Kind.SERVER_CREATED))
        before = self.row(A)
        self.handle(told(Kind.PORT_DELETED), told(Kind.SERVER_DELETED),
                    told(Kind.SERVER_FAILED))
        self.assertEqual(before, self.row(A))
        self.assertEqual({A: base.mac(1)}, self.driver.served())

    def test_delete_while_the_cloud_is_away(self) -> None:
        self.port()
        self.handle(told(Kind.PORT_CREATED))
        self.gone()
        self.port(2)
        self.cloud.away = True
        self.handle(told(Kind.PORT_DELETED), told(Kind.SERVER_DELETED),
                    told(Kind.PORT_CREATED, 2))
        self.assertEqual(State.CLAIMED, self.state(A))
        # which keeps nothing else back
        self.assertEqual({A: base.mac(1), '10.0.0.11': base.mac(2)},
                         self.driver.served())
        self.assertIn('port-deleted is left to vmip-reclaimer',
                      self.log.output)

    def test_list_is_away(self) -> None:
        def away(*args: Any) -> None:
            raise exceptions.InventoryUnavailable('away')

        self.patch(self.inventory, 'of_ports', away)
        self.assertRaises(exceptions.InventoryUnavailable, self.handle,
                          told(Kind.PORT_DELETED))

    def test_server_deleted_alone(self) -> None:
        self.port()
        self.gone()
        self.handle(told(Kind.SERVER_DELETED, ports=False))
        self.assertEqual(State.FREE, self.state(A))

    def test_server_deleted_and_its_port_kept(self) -> None:
        self.port()
        del self.cloud.servers[base.server_id(1)]
        self.handle(told(Kind.SERVER_DELETED, ports=False))
        self.assertEqual(State.CLAIMED, self.state(A))

    def test_server_deleted_while_reserved_only(self) -> None:
        self.reserved()
        self.handle(told(Kind.SERVER_DELETED, ports=False))
        self.assertEqual(State.FREE, self.state(A))
        self.assertEqual('server deleted', self.inventory.history(
            base.ip(A))[-1].reason)

    def test_forged_delete_while_reserved_only(self) -> None:
        self.reserved()
        for status in ('BUILD', 'ACTIVE', 'ERROR'):
            self.cloud.servers[base.server_id(1)] = status
            self.handle(told(Kind.SERVER_DELETED, ports=False))
            self.assertEqual(State.RESERVED, self.state(A))

    def test_server_failed(self) -> None:
        for status, state in (('BUILD', State.RESERVED),
                              ('ACTIVE', State.RESERVED),
                              ('ERROR', State.FREE)):
            if status == 'BUILD':
                self.reserved()
            self.cloud.servers[base.server_id(1)] = status
            self.handle(told(Kind.SERVER_FAILED, ports=False))
            self.assertEqual(state, self.state(A))

    def test_reserved_while_the_cloud_is_away(self) -> None:
        self.reserved()
        self.cloud.away = True
        self.handle(told(Kind.SERVER_FAILED), told(Kind.SERVER_DELETED))
        self.assertEqual(State.RESERVED, self.state(A))

    def test_build_failed_alone_frees_nothing(self) -> None:
        """Nova may go on with another host; it says so itself."""
        self.reserved()
        self.port(2)
        self.cloud.servers[base.server_id(1)] = 'BUILD'
        self.cloud.servers[base.server_id(2)] = 'ERROR'
        before = self.inventory.addresses()
        self.handle(told(Kind.BUILD_FAILED), told(Kind.BUILD_FAILED, 2))
        self.assertEqual(before, self.inventory.addresses())

    def test_without_a_server(self) -> None:
        """One reservation has no server yet: it is nobody's to cancel."""
        self.reserve()
        for kind in (Kind.SERVER_DELETED, Kind.SERVER_FAILED,
                     Kind.SERVER_CREATED):
            self.handle(told(kind, server=False))
        self.assertEqual(State.RESERVED, self.state(A))

    def test_without_a_port(self) -> None:
        nameless = event.PortInfo(mac=base.mac(1))
        for kind in Kind:
            self.handle(dataclasses.replace(
                told(kind), ports=(nameless, event.PortInfo())))

    def test_strangers(self) -> None:
        for kind in Kind:
            self.handle(told(kind, 9))
        self.assertEqual([], self.cloud.asked)
        self.assertEqual([], self.driver.calls)

    def test_adopted_is_left_to_the_reclaimer(self) -> None:
        self.port()
        self.inventory.disown(base.SUBNET, base.ip(A))
        self.gone()
        self.handle(told(Kind.PORT_DELETED), told(Kind.SERVER_DELETED))
        self.assertEqual(State.ADOPTED, self.state(A))


class TestMac(HandlerTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.port()
        self.handle(told(Kind.PORT_CREATED))
        self.cloud.asked.clear()

    def test_changed(self) -> None:
        self.cloud.add(1, A, mac=base.mac(7))
        self.handle(*[told(Kind.PORT_UPDATED, mac=base.mac(7))] * 2)
        self.assertEqual({A: base.mac(7)}, self.driver.served())
        self.assertEqual(base.mac(7), self.row(A).mac)
        self.assertEqual(1, self.events(A).count('change'))

    def test_forged(self) -> None:
        self.handle(told(Kind.PORT_UPDATED, mac=base.mac(8)))
        self.assertEqual({A: base.mac(1)}, self.driver.served())
        self.assertEqual([f'port {base.port_id(1)}'], self.cloud.asked)

    def test_the_api_knows_better(self) -> None:
        self.cloud.add(1, A, mac=base.mac(7))
        self.handle(told(Kind.PORT_UPDATED, mac=base.mac(8)))
        self.assertEqual({A: base.mac(7)}, self.driver.served())

    def test_same(self) -> None:
        self.handle(told(Kind.PORT_UPDATED))
        self.assertEqual([], self.cloud.asked)

    def test_port_is_gone(self) -> None:
        self.gone()
        self.handle(told(Kind.PORT_UPDATED, mac=base.mac(8)))
        self.assertEqual(base.mac(1), self.row(A).mac)

    def test_cloud_is_away(self) -> None:
        self.cloud.away = True
        self.handle(told(Kind.PORT_UPDATED, mac=base.mac(8)))
        self.assertEqual(base.mac(1), self.row(A).mac)
