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

"""Neutron's own API and database, with vmip as its IPAM driver."""

from typing import Any

import fixtures
from neutron.plugins.ml2.common import exceptions as ml2_exc
from neutron_lib import context as n_context
from neutron_lib.db import api as db_api
from neutron_lib import exceptions as n_exc
from neutron_lib.plugins import directory
from oslo_db import exception as db_exc
import testtools

from tests.unit import base
from tests.unit.neutron import case
from tests.unit.neutron import harness
from vmip_plugin import exceptions
from vmip_plugin.inventory import database
from vmip_plugin.inventory import known
from vmip_plugin.inventory import records
from vmip_plugin.neutron import ipam
from vmip_plugin.neutron import shared

State = base.State
ip = base.ip


class TestCreate(case.NeutronTestCase):

    def test_reserved(self) -> None:
        network, _ = self.one()
        self.reserve(network, 'other', request='req-0')
        self.reserve(network, 'web')
        status, body = self.post(network)
        self.assertEqual(201, status)
        port = body['port']
        self.assertEqual('10.0.0.101', port['fixed_ips'][0]['ip_address'])
        row = self.row('10.0.0.101')
        self.assertEqual(
            (State.CLAIMED, port['id'], port['mac_address'], case.SERVER,
             'web', base.PROJECT),
            (row.state, row.port_id, row.mac, row.server_id,
             row.server_name, row.project_id))
        entry, = self.inventory.entries()
        self.assertEqual((port['mac_address'], True),
                         (entry.mac, entry.present))
        self.assertEqual('neutron-server', self.inventory.history(
            ip('10.0.0.101'))[-1].actor)

    def test_same_request_other_project(self) -> None:
        network, _ = self.one()
        self.reserve(network, project='another')
        self.assertEqual(['10.0.0.101'], self.got(network))

    def test_servers_of_one_request(self) -> None:
        network, _ = self.one()
        self.reserve(network, 'a', 'b', 'c')
        self.assertEqual(
            [['10.0.0.100'], ['10.0.0.101'], ['10.0.0.102']],
            [self.got(network) for _ in range(3)])

    def test_without_reservation(self) -> None:
        network, _ = self.one()
        self.assertEqual(['10.0.0.100'], self.got(network, None))
        self.assertEqual(State.CLAIMED, self.row('10.0.0.100').state)

    def test_full(self) -> None:
        network, _ = self.one()
        self.reserve(network, 'a', 'b', 'c', 'd')
        status, body = self.post(network, 'req-2')
        self.assertEqual(409, status)
        self.assertEqual('IpAddressGenerationFailure',
                         body['NeutronError']['type'])

    def test_given(self) -> None:
        network, subnet = self.one()
        self.reserve(network)

        def ask(address: str, request: str) -> int:
            return self.post(network, request, admin=True, fixed_ips=[
                {'subnet_id': subnet,
                 'ip_address': address}])[0]

        self.assertEqual(409, ask('10.0.0.100', 'req-2'))
        self.assertEqual(201, ask('10.0.0.100', 'req-1'))
        self.assertEqual(201, ask('10.0.0.102', 'req-2'))
        self.assertEqual(409, ask('10.0.0.102', 'req-2'))
        # no address of the pool
        self.assertEqual(201, ask('10.0.0.50', 'req-2'))
        self.assertEqual([], self.found(
            address=ip('10.0.0.50')))

    def test_neutron_gave_it_away_before(self) -> None:
        network, _ = self.one()
        self.driver('internal')
        subnet_id = self.inventory.pools()[0][0].subnet_id
        self.assertEqual(201, self.post(
            network, admin=True, fixed_ips=[
                {'subnet_id': subnet_id,
                 'ip_address': '10.0.0.100'}])[0])
        self.driver('vmip')
        self.reserve(network)
        self.assertEqual(['10.0.0.101'], self.got(network))
        self.assertEqual(State.ADOPTED, self.row('10.0.0.100').state)

    def test_given_away_before_and_asked_for(self) -> None:
        network, subnet = self.one()
        given = [{'subnet_id': subnet,
                  'ip_address': '10.0.0.102'}]
        self.driver('internal')
        self.assertEqual(201, self.post(network, admin=True,
                                        fixed_ips=given)[0])
        self.driver('vmip')
        self.assertEqual(409, self.post(network, admin=True,
                                        fixed_ips=given)[0])
        self.assertEqual(State.ADOPTED, self.row('10.0.0.102').state)

    def test_two_addresses_of_one_subnet(self) -> None:
        network, subnet = self.one()
        two = [{'subnet_id': subnet}] * 2
        self.assertEqual(['10.0.0.100', '10.0.0.101'],
                         self.got(network, admin=True, fixed_ips=two))
        self.assertEqual({State.CLAIMED}, {
            row.state for _, row in self.found()})

    def test_neutron_tries_again(self) -> None:
        """A deadlock after the claim: the same port gets the same."""
        network, _ = self.one()
        self.reserve(network)
        backend = directory.get_plugin().ipam
        original = backend.store_ip_allocation_for_port
        tries = []

        def store(*args: Any) -> None:
            tries.append(args)
            original(*args)
            if len(tries) == 1:
                raise db_exc.DBDeadlock

        self.useFixture(fixtures.MockPatchObject(
            backend, 'store_ip_allocation_for_port', store))
        status, body = self.post(network)
        self.assertEqual(201, status)
        self.assertEqual(2, len(tries))
        port = body['port']
        self.assertEqual('10.0.0.100', port['fixed_ips'][0]['ip_address'])
        # with another id and MAC than at first
        row, = (a for _, a in self.inventory.addresses())
        self.assertEqual((port['id'], port['mac_address'], 'web'),
                         (row.port_id, row.mac, row.server_name))
        entry, = self.inventory.entries()
        self.assertEqual(port['mac_address'], entry.mac)

    def test_two_interfaces_of_one_server(self) -> None:
        network, _ = self.one()
        self.inventory.reserve(
            records.Requester('req-1', base.PROJECT),
            [records.Wanted(network, ('web',))] * 2, 600)
        self.reserve(network, 'other', request='req-2')
        found = [self.post(network)[1]['port'] for _ in range(3)]
        self.assertEqual(
            ['10.0.0.100', '10.0.0.101', '10.0.0.103'],
            [port['fixed_ips'][0]['ip_address'] for port in found])
        for port in found:
            row = self.row(port['fixed_ips'][0]['ip_address'])
            self.assertEqual((port['id'], port['mac_address']),
                             (row.port_id, row.mac))

    def test_second_of_two_fails(self) -> None:
        network, subnet = self.one()
        self.reserve(network, 'a', 'b', 'c', request='other')
        two = [{'subnet_id': subnet}] * 2
        self.assertEqual(409, self.post(network, admin=True,
                                        fixed_ips=two)[0])
        self.assertEqual(State.RELEASING, self.row('10.0.0.103').state)

    def test_subnet_of_two(self) -> None:
        """The first can be picked, not asked for: as Neutron has it."""
        network = harness.network()
        status, body = harness.call('POST', 'subnets', {'subnet': {
            'network_id': network, 'cidr': '10.0.0.0/31', 'ip_version': 4,
            'gateway_ip': '10.9.0.1', 'enable_dhcp': False}})
        self.assertEqual(201, status, body)
        subnet = body['subnet']['id']
        ends = ip('10.0.0.0'), ip('10.0.0.1')
        self.inventory.create_pool(
            name='pool', network_id=network, subnet_id=subnet,
            cidr='10.0.0.0/31', ranges=[ends])
        self.assertEqual(400, self.post(network, admin=True, fixed_ips=[
            {'subnet_id': subnet, 'ip_address': '10.0.0.0'}])[0])
        self.assertEqual(['10.0.0.0', '10.0.0.1'],
                         [*self.got(network, 'a'), *self.got(network, 'b')])

    def test_subnet_without_pool(self) -> None:
        network = harness.network()
        self.subnet(network, '10.9.0.0/29')
        for _ in range(5):
            self.assertEqual(201, self.post(network)[0])
        self.assertEqual(409, self.post(network)[0])
        self.assertEqual([], self.found())

    def test_what_neutron_calls_its_own_attributes_is_its_business(
            self) -> None:
        """Up to 2025.2 the project of a subnet was kept as _tenant_id."""
        network, _ = self.one()
        other = harness.network()
        self.subnet(other, '10.9.0.0/24')
        original = ipam.internal.NeutronDbSubnet.__init__

        def older(subnet: Any, *args: Any, **kwargs: Any) -> None:
            original(subnet, *args, **kwargs)
            subnet._tenant_id = vars(subnet).pop('_project_id', None)

        self.useFixture(fixtures.MonkeyPatch(
            'neutron.ipam.drivers.neutrondb_ipam.driver.NeutronDbSubnet.'
            '__init__', older))
        self.assertEqual(['10.0.0.100'], self.got(network))
        self.assertEqual(201, self.post(other)[0])

    def test_reserved_in_another_subnet_than_the_first(self) -> None:
        """Neutron's order of a network's subnets is not ours."""
        network = harness.network()
        for number in range(2):
            net = f'10.{number}.0'
            pool = self.subnet(network, f'{net}.0/24', f'{net}.100',
                               f'{net}.109')
            self.inventory.hold(records.Hold(
                pool, ip(f'{net}.105'), net, any_project=True))
        for number in range(2):
            net = f'10.{number}.0'
            self.reserve(network, net, request=net)
            self.assertEqual([f'{net}.105'], self.got(network, net))

    def test_reserved_where_not_every_subnet_has_a_pool(self) -> None:
        network = harness.network()
        self.subnet(network, '10.1.0.0/24')
        self.subnet(network, '10.2.0.0/24', '10.2.0.100', '10.2.0.101')
        self.subnet(network, '10.3.0.0/24')
        self.reserve(network)
        self.assertEqual(['10.2.0.100'], self.got(network))

    def test_next_subnet_where_one_is_full(self) -> None:
        network = harness.network()
        self.subnet(network, '10.1.0.0/24', '10.1.0.100', '10.1.0.100')
        self.subnet(network, '10.2.0.0/24', '10.2.0.100', '10.2.0.100')
        found = [*self.got(network, 'a'), *self.got(network, 'b')]
        self.assertEqual(['10.1.0.100', '10.2.0.100'], sorted(found))
        self.assertEqual(409, self.post(network, 'c')[0])

    def test_both_versions(self) -> None:
        network = harness.network()
        self.subnet(network, '10.1.0.0/24', '10.1.0.100', '10.1.0.101')
        self.subnet(network, '2001:db8::/64', '2001:db8::100',
                    '2001:db8::101')
        self.reserve(network, 'a', request='req-0')
        self.reserve(network, 'b')
        self.assertEqual(['10.1.0.101', '2001:db8::101'], self.got(network))

    def test_neutrons_own_ports_are_not_served(self) -> None:
        network, _ = self.one()
        self.got(network, admin=True, device_owner='network:dhcp',
                 device_id='dhcp-host')
        self.got(network, 'req-2', admin=True, device_id=case.SERVER,
                 device_owner='network:router_interface')
        self.assertEqual([], self.inventory.entries())
        for address in ('10.0.0.100', '10.0.0.101'):
            self.assertEqual((State.CLAIMED, None), (
                self.row(address).state, self.row(address).server_id))

    def test_device_is_any_text(self) -> None:
        network, _ = self.one()
        self.got(network, device_id="'; DROP TABLE addresses")
        self.assertIsNone(self.row('10.0.0.100').server_id)


class TestFails(case.NeutronTestCase):
    """The create fails after the claim: as if nobody had claimed."""

    def fail(self, where: Any, name: str, times: int = 1,
             error: Exception | None = None) -> None:
        """Let a method of Neutron's fail after it has done its work."""
        original = getattr(where, name)
        left = [times]

        def failing(*args: Any, **kwargs: Any) -> Any:
            done = original(*args, **kwargs)
            if left[0]:
                left[0] -= 1
                raise error or n_exc.InvalidInput(error_message='no')
            return done

        self.useFixture(fixtures.MockPatchObject(where, name, failing))

    def test_in_the_transaction(self) -> None:
        """Of this no IPAM driver is told."""
        network, _ = self.one()
        self.bound(network)
        self.fail(directory.get_plugin().mechanism_manager,
                  'create_port_precommit')
        self.assertEqual(400, self.post(network)[0])
        self.assert_reserved()
        self.assert_next_try(network)

    def test_as_the_address_is_stored(self) -> None:
        network, _ = self.one()
        self.bound(network)
        self.fail(directory.get_plugin().ipam, 'store_ip_allocation_for_port')
        self.assertEqual(400, self.post(network)[0])
        self.assert_reserved()
        self.assert_next_try(network)

    def test_after_the_transaction(self) -> None:
        """Another mechanism driver refuses the port: ML2 deletes it."""
        network, _ = self.one()
        self.bound(network)
        self.fail(directory.get_plugin().mechanism_manager,
                  'create_port_postcommit',
                  error=ml2_exc.MechanismDriverError('create', [
                      n_exc.ServiceUnavailable()]))
        self.assertEqual(503, self.post(network)[0])
        self.assert_reserved()
        self.assert_next_try(network)

    def test_every_try_meets_a_deadlock(self) -> None:
        network, _ = self.one()
        self.bound(network)
        self.fail(directory.get_plugin().mechanism_manager,
                  'create_port_precommit', 2, db_exc.DBDeadlock())
        self.assert_next_try(network)
        self.assertEqual(
            ['reserve', 'bind', *['claim', 'release', 'reserve'] * 2, 'claim'],
            [c.event for c in self.inventory.history(ip('10.0.0.100'))])

    def test_without_reservation(self) -> None:
        network, _ = self.one()
        self.fail(directory.get_plugin().mechanism_manager,
                  'create_port_precommit')
        self.assertEqual(400, self.post(network)[0])
        self.assertEqual(State.RELEASING, self.row('10.0.0.100').state)

    def test_in_bulk(self) -> None:
        network, _ = self.one()
        self.bound(network, 'a', 'b')
        self.fail(directory.get_plugin().mechanism_manager,
                  'create_port_precommit')
        status, _ = harness.call('POST', 'ports', {'ports': [
            {'network_id': network, 'device_id': base.server_id(number),
             'admin_state_up': True} for number in (1, 2)]}, request='req-1')
        self.assertEqual(400, status)
        self.assertEqual(
            [(State.RESERVED, base.server_id(1)),
             (State.RESERVED, None)],
            [(row.state, row.server_id) for _, row in self.found()])

    def test_update(self) -> None:
        """The port keeps what it had; what it should get is nobody's."""
        network, subnet = self.one()
        _, body = self.post(network)
        self.fail(directory.get_plugin().mechanism_manager,
                  'update_port_precommit')
        self.assertEqual(400, harness.call(
            'PUT', f'ports/{body["port"]["id"]}', {'port': {'fixed_ips': [
                {'subnet_id': subnet, 'ip_address': '10.0.0.100'},
                {'subnet_id': subnet, 'ip_address': '10.0.0.103'}]}})[0])
        self.assertEqual(
            [State.CLAIMED, State.RELEASING],
            [self.row(a).state for a in ('10.0.0.100', '10.0.0.103')])

    def test_list_is_away(self) -> None:
        network, _ = self.one()
        self.bound(network)
        plugin = directory.get_plugin()

        def away(*args: Any) -> None:
            self.away()
            raise n_exc.InvalidInput(error_message='no')

        self.useFixture(fixtures.MockPatchObject(
            plugin.mechanism_manager, 'create_port_precommit', away))
        self.assertEqual(400, self.post(network)[0])

    def test_a_later_transaction_of_the_call(self) -> None:
        """Only the one in which an address was claimed undoes its claim."""
        network, subnet = self.one()
        context = n_context.Context('user', base.PROJECT)
        pool = ipam.VmipPool(None, context)
        with db_api.CONTEXT_WRITER.using(context):
            pool.get_subnet(subnet).allocate(ipam.ipam_req.AnyAddressRequest())
        with testtools.ExpectedException(ZeroDivisionError), \
                db_api.CONTEXT_WRITER.using(context):
            context.session.connection()
            raise ZeroDivisionError
        self.assertEqual(State.CLAIMED, self.row('10.0.0.100').state)


class TestDelete(case.NeutronTestCase):

    def delete(self, port_id: str) -> int:
        return harness.call('DELETE', f'ports/{port_id}')[0]

    def test_delete(self) -> None:
        network, _ = self.one()
        _, body = self.post(network)
        self.assertEqual(204, self.delete(body['port']['id']))
        row = self.row('10.0.0.100')
        self.assertEqual((State.RELEASING, body['port']['id']),
                         (row.state, row.port_id))
        entry, = self.inventory.entries()
        self.assertFalse(entry.present)
        # not given to anybody until the DHCP server is done with it
        self.assertEqual(['10.0.0.101'], self.got(network, 'req-2'))

    def test_list_is_away(self) -> None:
        network, _ = self.one()
        _, body = self.post(network)
        self.away()
        self.assertEqual(204, self.delete(body['port']['id']))

    def test_configuration_is_broken(self) -> None:
        network, _ = self.one()
        _, body = self.post(network)
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.neutron.shared._list', None))
        self.useFixture(fixtures.EnvironmentVariable(
            'VMIP_CONFIG', '/nowhere/vmip.conf'))
        self.assertRaises(exceptions.ConfigError, shared.inventory)
        self.assertEqual(204, self.delete(body['port']['id']))

    def test_rolled_back(self) -> None:
        """Neutron's transaction fails after it has told us."""
        network, _ = self.one()
        _, body = self.post(network)
        plugin = directory.get_plugin()
        original = plugin.ipam._ipam_deallocate_ips

        def fail(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            raise ZeroDivisionError

        self.useFixture(fixtures.MockPatchObject(
            plugin.ipam, '_ipam_deallocate_ips', fail))
        self.assertEqual(500, self.delete(body['port']['id']))
        self.assertEqual(State.CLAIMED, self.row('10.0.0.100').state)
        self.assertEqual(['claim'], [
            c.event for c in self.inventory.history(ip('10.0.0.100'))])

    def test_update(self) -> None:
        network, subnet = self.one()
        _, body = self.post(network)
        self.assertEqual(200, harness.call(
            'PUT', f'ports/{body["port"]["id"]}', {'port': {'fixed_ips': [
                {'subnet_id': subnet, 'ip_address': '10.0.0.103'}]}})[0])
        self.assertEqual(State.RELEASING, self.row('10.0.0.100').state)
        row = self.row('10.0.0.103')
        self.assertEqual((State.CLAIMED, body['port']['id']),
                         (row.state, row.port_id))


class TestAway(case.NeutronTestCase):

    def test_pool_is_known(self) -> None:
        network, _ = self.one()
        other = harness.network()
        self.subnet(other, '10.9.0.0/24')
        self.got(network)
        self.away()
        status, body = self.post(network, 'req-2')
        self.assertEqual(503, status)
        self.assertEqual('InventoryAway', body['NeutronError']['type'])
        # and nobody else suffers
        self.assertEqual(201, self.post(other)[0])

    def test_never_seen(self) -> None:
        network, _ = self.one()
        self.away()
        self.assertEqual(503, self.post(network)[0])


class TestDriver(case.NeutronTestCase):

    def test_bulk(self) -> None:
        _, subnet = self.one()
        context = n_context.get_admin_context()
        driver = ipam.VmipPool(None, context)
        bulk = driver.get_subnet(subnet).bulk_allocate
        self.assertEqual(['10.0.0.100', '10.0.0.101'], [
            *bulk(ipam.ipam_req.BulkAddressRequest(2))])
        self.assertEqual(['10.0.0.102'], [
            *bulk(ipam.ipam_req.AnyAddressRequest())])
        self.assertEqual([], self.inventory.entries())

    def test_bulk_without_pool(self) -> None:
        subnet = harness.subnet(harness.network(), '10.9.0.0/24')
        ours = ipam.VmipPool(None, n_context.get_admin_context())
        self.useFixture(fixtures.MockPatchObject(
            ipam.VmipSubnet, 'allocate', ZeroDivisionError))
        self.assertEqual(2, len(ours.get_subnet(subnet).bulk_allocate(
            ipam.ipam_req.BulkAddressRequest(2))))

    def test_network_without_pool_asks_nothing(self) -> None:
        """So it waits for nothing where the database is silent."""
        self.one()
        other = harness.network()
        self.subnet(other, '10.9.0.0/24')
        self.subnet(other, '10.9.1.0/24')
        self.got(other)
        asked: list[object] = []

        def guarded(database: object) -> Any:
            asked.append(database)
            raise exceptions.InventoryUnavailable

        for where, name, value in ((database.Database, '_guarded', guarded),
                                   (known, 'MAX_AGE', 10 ** 6)):
            self.useFixture(fixtures.MockPatchObject(where, name, value))
        status, body = self.post(other)
        self.assertEqual(201, status)
        port = body['port']['id']
        self.assertEqual(200, harness.call('PUT', f'ports/{port}', {'port': {
            'fixed_ips': [{'ip_address': '10.9.0.77'}]}})[0])
        self.assertEqual(204, harness.call('DELETE', f'ports/{port}')[0])
        self.assertEqual([], asked)

    def test_bulk_while_the_list_is_away(self) -> None:
        _, subnet = self.one()
        ours = ipam.VmipPool(None, n_context.get_admin_context())
        self.away()
        self.assertRaises(
            n_exc.ServiceUnavailable, ours.get_subnet(subnet).bulk_allocate,
            ipam.ipam_req.BulkAddressRequest(2))

    def test_is_installed(self) -> None:
        cls = ipam.internal.NeutronDbPool
        self.one()
        found = ipam.subnet_alloc.driver.Pool.get_instance(
            None, n_context.get_admin_context())
        self.assertIsInstance(found, ipam.VmipPool)
        self.assertIsInstance(found, cls)
