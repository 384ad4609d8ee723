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

import os
import pathlib
import shutil
from typing import Any

import fixtures
from neutron_lib import context as n_context
from neutron_lib.plugins import directory
from oslo_config import cfg
from oslo_db import exception as db_exc
import testtools

from tests.unit import base
from tests.unit.neutron import harness
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records
from vmip_plugin.neutron import ipam

State = base.State
ip = base.ip

SERVER = base.server_id(1)


class IpamTestCase(testtools.TestCase):
    """A Neutron without a network, and an empty list."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.FakeLogger())
        harness.api()
        self.addCleanup(harness.empty)
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.file = path / 'vmip.sqlite'
        shutil.copyfile(base.template(), self.file)
        config = path / 'vmip.conf'
        config.write_text(f'[database]\nconnection = sqlite:///{self.file}\n')
        self.useFixture(fixtures.EnvironmentVariable(
            'VMIP_CONFIG', str(config)))
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.neutron.ipam._shared', None))
        self.inventory = api.Inventory(
            base.new_conf(f'sqlite:///{self.file}'), 'test')
        self.addCleanup(lambda: self.inventory.database.engine.dispose())

    def driver(self, name: str) -> None:
        """Let Neutron have another IPAM driver."""
        cfg.CONF.set_override('ipam_driver', name)
        self.addCleanup(cfg.CONF.clear_override, 'ipam_driver')

    def away(self) -> None:
        if ipam._shared is not None:
            ipam._shared.database.engine.dispose()
        os.rename(self.file, self.file.with_suffix('.away'))

    def subnet(self, network: str, cidr: str, first: str | None = None,
               last: str | None = None) -> str:
        """Make a subnet, and a pool in it where it has a range."""
        subnet = harness.subnet(network, cidr)
        if first is not None and last is not None:
            self.inventory.create_pool(
                name=subnet, network_id=network, subnet_id=subnet, cidr=cidr,
                ranges=[(ip(first), ip(last))], dhcp_servers=['a'])
        return subnet

    def one(self) -> tuple[str, str]:
        """Make a network with one subnet and a pool in it."""
        network = harness.network()
        return network, self.subnet(network, '10.0.0.0/24', '10.0.0.100',
                                    '10.0.0.103')

    def reserve(self, network: str, *names: str, request: str = 'req-1',
                project: str = base.PROJECT) -> list[records.Address]:
        return self.inventory.reserve(
            records.Requester(request, project),
            [records.Wanted(network, names or ('web',))], 600)

    def post(self, network: str, request: str | None = 'req-1',
             admin: bool = False, **values: Any) -> tuple[int, Any]:
        """Make a port as nova-compute does for a plain user."""
        return harness.call(
            'POST', 'ports', {'port': {
                'network_id': network, 'device_id': SERVER,
                'admin_state_up': True, **values}},
            admin=admin, request=request)

    def got(self, network: str, request: str | None = 'req-1',
            **values: Any) -> list[str]:
        """Return the addresses of a port made so, lowest first."""
        status, body = self.post(network, request, **values)
        self.assertEqual(201, status, body)
        return sorted(each['ip_address']
                      for each in body['port']['fixed_ips'])

    def row(self, address: str) -> records.Address:
        (_, row), = self.inventory.addresses(address=ip(address))
        return row


class TestCreate(IpamTestCase):

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
            (State.CLAIMED, port['id'], port['mac_address'], SERVER,
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
        self.assertEqual([], self.inventory.addresses(
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

    def test_subnet_without_pool(self) -> None:
        network = harness.network()
        self.subnet(network, '10.9.0.0/29')
        for _ in range(5):
            self.assertEqual(201, self.post(network)[0])
        self.assertEqual(409, self.post(network)[0])
        self.assertEqual([], self.inventory.addresses())

    def test_reserved_in_another_subnet_than_the_first(self) -> None:
        """Neutron's order of a network's subnets is not ours."""
        network = harness.network()
        for number in range(2):
            net = f'10.{number}.0'
            pool = self.subnet(network, f'{net}.0/24', f'{net}.100',
                               f'{net}.109')
            self.inventory.hold(pool, ip(f'{net}.105'), net, None, None)
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
        self.got(network, 'req-2', admin=True, device_id=SERVER,
                 device_owner='network:router_interface')
        self.assertEqual([], self.inventory.entries())
        for address in ('10.0.0.100', '10.0.0.101'):
            self.assertEqual((State.CLAIMED, None), (
                self.row(address).state, self.row(address).server_id))

    def test_device_is_any_text(self) -> None:
        network, _ = self.one()
        self.got(network, device_id="'; DROP TABLE addresses")
        self.assertIsNone(self.row('10.0.0.100').server_id)


class TestDelete(IpamTestCase):

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
            'vmip_plugin.neutron.ipam._shared', None))
        self.useFixture(fixtures.EnvironmentVariable(
            'VMIP_CONFIG', '/nowhere/vmip.conf'))
        self.assertRaises(exceptions.ConfigError, ipam._inventory)
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
        self.assertEqual(State.RELEASING, self.row('10.0.0.100').state)
        work, = self.inventory.work(port_ids=[body['port']['id']])
        # the worker asks Neutron, which has it still
        self.inventory.keep(work)
        self.assertEqual(State.CLAIMED, self.row('10.0.0.100').state)

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


class TestAway(IpamTestCase):

    def test_pool_is_known(self) -> None:
        network, _ = self.one()
        other = harness.network()
        self.subnet(other, '10.9.0.0/24')
        self.got(network)
        self.away()
        status, body = self.post(network, 'req-2')
        self.assertEqual(503, status)
        self.assertEqual('ServiceUnavailable', body['NeutronError']['type'])
        # and nobody else suffers
        self.assertEqual(201, self.post(other)[0])

    def test_never_seen(self) -> None:
        network, _ = self.one()
        self.away()
        self.assertEqual(503, self.post(network)[0])


class TestDriver(IpamTestCase):

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

    def test_is_installed(self) -> None:
        cls = ipam.internal.NeutronDbPool
        self.one()
        found = ipam.subnet_alloc.driver.Pool.get_instance(
            None, n_context.get_admin_context())
        self.assertIsInstance(found, ipam.VmipPool)
        self.assertIsInstance(found, cls)
        self.assertTrue(found.needs_rollback())
