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
from vmip_plugin.inventory import records
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
            self.conf, self.inventory, work.Worker(
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
        self.assertIn('deletes are left to vmip-reclaimer',
                      self.log.output)

    def test_delete_that_these_credentials_cannot_see(self) -> None:
        """To who sees only their own ports, all others look deleted."""
        self.port()
        self.handle(told(Kind.PORT_CREATED))
        self.gone()
        self.cloud.blind = True
        self.handle(told(Kind.PORT_DELETED), told(Kind.SERVER_DELETED))
        self.assertEqual(State.CLAIMED, self.state(A))
        self.assertEqual({A: base.mac(1)}, self.driver.served())

    def test_one_question_for_a_batch(self) -> None:
        for number in range(1, 6):
            self.port(number)
        self.handle(*(told(Kind.PORT_CREATED, n) for n in range(1, 6)))
        for number in range(1, 6):
            self.gone(number)
        self.cloud.asked.clear()
        self.handle(*(told(Kind.PORT_DELETED, n) for n in range(1, 6)))
        self.assertEqual({}, self.driver.served())
        # the entries are removed without another question
        self.assertEqual(1, len([asked for asked in self.cloud.asked
                                 if asked.startswith('ports ')]))

    def test_what_is_urgent_goes_first(self) -> None:
        self.port(1)
        self.handle(told(Kind.PORT_CREATED, 1))
        self.port(2)
        self.gone(1)
        self.driver.calls.clear()
        self.handle(told(Kind.SERVER_DELETED, 1), told(Kind.PORT_DELETED, 1),
                    told(Kind.PORT_CREATED, 2))
        self.assertEqual([('put', '10.0.0.11'), ('remove', A)],
                         self.driver.calls)

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

    def test_server_deleted_with_its_port(self) -> None:
        """Neutron is asked before the release."""
        self.port()
        self.handle(told(Kind.PORT_CREATED), told(Kind.SERVER_CREATED))
        for gone in (False, True):
            if gone:
                self.gone()
            self.cloud.asked.clear()
            self.handle(told(Kind.PORT_DELETED), told(Kind.SERVER_DELETED))
            self.assertEqual(1, len([
                asked for asked in self.cloud.asked
                if asked.startswith('ports ')]))
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
        before = self.found()
        self.handle(told(Kind.BUILD_FAILED), told(Kind.BUILD_FAILED, 2))
        self.assertEqual(before, self.found())

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


class TestServer(HandlerTestCase):
    """A port that its owner made goes from one server to another."""

    def setUp(self) -> None:
        super().setUp()
        self.claim(1, server=None)
        self.given(None)
        self.handle(told(Kind.PORT_CREATED))

    def given(self, server: int | None) -> None:
        """Let Neutron say which server has the port."""
        port = self.cloud.add(1, A, server=server)
        if server is None:
            self.cloud.known[port.id] = dataclasses.replace(
                port, device_id='', device_owner='')

    def told(self, kind: Kind, server: int | None) -> event.Event:
        device = '' if server is None else base.server_id(server)
        found = told(kind)
        return dataclasses.replace(
            found, server_id=device or None, server_name=f'web-{server}',
            ports=(dataclasses.replace(found.ports[0], device_id=device),))

    def seen(self) -> tuple[State, str | None, str | None]:
        row = self.row(A)
        return row.state, row.server_id, row.server_name

    def test_life(self) -> None:
        for number in (1, 2):
            self.given(number)
            self.handle(self.told(Kind.PORT_UPDATED, number))
            self.assertEqual((State.CLAIMED, base.server_id(number), None),
                             self.seen())
            self.handle(self.told(Kind.SERVER_CREATED, number))
            self.assertEqual((State.ACTIVE, base.server_id(number),
                              f'web-{number}'), self.seen())
            self.given(None)
            self.handle(self.told(Kind.PORT_UPDATED, None),
                        told(Kind.SERVER_DELETED, number, ports=False))
            self.assertEqual((State.CLAIMED, None, None), self.seen())
        self.assertEqual({A: base.mac(1)}, self.driver.served())
        self.assertEqual([('put', A)], self.driver.calls)

    def test_server_runs_before_the_update_is_told(self) -> None:
        self.given(1)
        for _ in range(2):
            self.handle(self.told(Kind.INTERFACE_ATTACHED, 1),
                        self.told(Kind.PORT_UPDATED, 1))
            self.assertEqual((State.ACTIVE, base.server_id(1), 'web-1'),
                             self.seen())
        self.assertEqual(['claim', 'change', 'activate'], self.events(A))

    def test_forged(self) -> None:
        for kind in (Kind.PORT_UPDATED, Kind.SERVER_CREATED,
                     Kind.INTERFACE_ATTACHED):
            self.handle(self.told(kind, 7))
            self.assertEqual((State.CLAIMED, None, None), self.seen())

    def test_the_api_knows_better(self) -> None:
        self.given(2)
        self.handle(self.told(Kind.PORT_UPDATED, 1))
        self.assertEqual((State.CLAIMED, base.server_id(2), None),
                         self.seen())

    def test_cloud_is_away(self) -> None:
        self.cloud.away = True
        self.handle(self.told(Kind.PORT_UPDATED, 1))
        self.assertEqual((State.CLAIMED, None, None), self.seen())
        self.assertIn('left to vmip-reclaimer', self.log.output)


class TestLater(HandlerTestCase):
    """Addresses that a server gets while it runs."""

    B = '10.0.0.11'

    def setUp(self) -> None:
        super().setUp()
        self.port()
        self.handle(told(Kind.PORT_CREATED), self.bound(1),
                    told(Kind.SERVER_CREATED))
        # a boot asks nothing
        self.assertEqual([], self.cloud.asked)

    def bound(self, number: int, status: str = 'ACTIVE') -> event.Event:
        found = told(Kind.PORT_UPDATED, number)
        return dataclasses.replace(found, ports=(dataclasses.replace(
            found.ports[0], device_id=base.server_id(1), status=status,
            device_owner='compute:nova'),))

    def attach(self) -> None:
        self.inventory.claim(
            subnet_id=base.SUBNET, port_id=base.port_id(2), mac=base.mac(2),
            requester=records.Requester('req-2', base.PROJECT),
            server_id=base.server_id(1))
        self.cloud.add(2, self.B, server=1)
        self.cloud.asked.clear()

    def test_attached_and_only_neutron_tells(self) -> None:
        self.attach()
        for _ in range(2):
            self.handle(self.bound(2))
            self.assertEqual(State.ACTIVE, self.state(self.B))
        self.assertEqual('web', self.row(self.B).server_name)
        self.assertEqual([f'server {base.server_id(1)}'], self.cloud.asked)

    def test_not_bound_yet(self) -> None:
        self.attach()
        self.handle(self.bound(2, 'DOWN'), told(Kind.PORT_UPDATED, 2))
        self.assertEqual(State.CLAIMED, self.state(self.B))

    def test_not_running(self) -> None:
        self.attach()
        for status in ('BUILD', 'ERROR', 'DELETED', None):
            self.cloud.servers[base.server_id(1)] = status
            self.handle(self.bound(2))
            self.assertEqual(State.CLAIMED, self.state(self.B))

    def test_another_address_of_the_port(self) -> None:
        """Neutron gives the old one back and claims the new one."""
        self.inventory.release_address(base.SUBNET, base.ip(A), 'changed')
        self.assertEqual(self.B, self.claim(1, request='req-2'))
        self.cloud.add(1, self.B)
        self.handle(self.bound(1))
        self.assertEqual(State.ACTIVE, self.state(self.B))
        self.assertEqual(State.FREE, self.state(A))
        self.assertEqual({self.B: base.mac(1)}, self.driver.served())

    def test_one_more_address_of_the_port(self) -> None:
        self.assertEqual(self.B, self.claim(1, request='req-2'))
        self.cloud.add(1, A, self.B)
        self.handle(self.bound(1))
        self.assertEqual(State.ACTIVE, self.state(self.B))
        self.assertEqual({A: base.mac(1), self.B: base.mac(1)},
                         self.driver.served())


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
