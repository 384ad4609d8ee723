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


"""What the tests on a real Neutron have in common."""

from collections.abc import Sequence
import os
import pathlib
import shutil
from typing import Any

import fixtures
from oslo_config import cfg
import testtools

from tests.unit import base
from tests.unit.neutron import harness
from vmip_plugin.inventory import api
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records
from vmip_plugin.neutron import shared
from vmip_plugin import types

ip = base.ip

SERVER = base.server_id(1)


class Wire:
    """Agents that look at addresses."""

    def __init__(self) -> None:
        #: by address; None: no agent can tell
        self.answers: dict[str, bool | None] = {}
        self.asked: list[list[str]] = []
        self.error: Exception | None = None

    def probe(self, addresses: Sequence[types.Address], timeout: float = 2.0,
              ) -> dict[types.Address, bool | None]:
        self.asked.append([str(address) for address in addresses])
        if self.error is not None:
            raise self.error
        return {address: self.answers.get(str(address), False)
                for address in addresses}


class NeutronTestCase(testtools.TestCase):
    """A Neutron without a network, and an empty list."""

    #: further lines of vmip.conf
    options = ''

    def setUp(self) -> None:
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        harness.api()
        self.addCleanup(harness.empty)
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.file = path / 'vmip.sqlite'
        shutil.copyfile(base.template(), self.file)
        config = path / 'vmip.conf'
        config.write_text(f'[database]\nconnection = sqlite:///{self.file}\n'
                          f'{self.options}')
        self.useFixture(fixtures.EnvironmentVariable(
            'VMIP_CONFIG', str(config)))
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.neutron.shared._list', None))
        self.wire = Wire()
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.neutron.shared._prober', self.wire))
        self.inventory = api.Inventory(
            base.new_conf(f'sqlite:///{self.file}'), 'test')
        self.addCleanup(lambda: self.inventory.database.engine.dispose())

    def driver(self, name: str) -> None:
        """Let Neutron have another IPAM driver."""
        cfg.CONF.set_override('ipam_driver', name)
        self.addCleanup(cfg.CONF.clear_override, 'ipam_driver')

    def away(self) -> None:
        if shared._list is not None:
            shared._list.database.engine.dispose()
        os.rename(self.file, self.file.with_suffix('.away'))

    def subnet(self, network: str, cidr: str, first: str | None = None,
               last: str | None = None,
               servers: Sequence[str] = ('a',)) -> str:
        """Make a subnet, and a pool in it where it has a range."""
        subnet = harness.subnet(network, cidr)
        if first is not None and last is not None:
            self.inventory.create_pool(
                name=subnet, network_id=network, subnet_id=subnet, cidr=cidr,
                ranges=[(ip(first), ip(last))], dhcp_servers=servers)
        return subnet

    def one(self, *servers: str) -> tuple[str, str]:
        """Make a network with one subnet and a pool in it."""
        network = harness.network()
        return network, self.subnet(network, '10.0.0.0/24', '10.0.0.100',
                                    '10.0.0.103', servers or ('a',))

    def reserve(self, network: str, *names: str, request: str = 'req-1',
                project: str = base.PROJECT) -> list[records.Address]:
        return self.inventory.reserve(
            records.Requester(request, project),
            [records.Wanted(network, names or ('web',))], 600)

    def bound(self, network: str, *names: str) -> None:
        """Reserve, and tie the first address to the server."""
        self.inventory.bind(self.reserve(network, *names)[:1], SERVER)

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

    def found(self, **filters: Any) -> list[Any]:
        return list(self.inventory.addresses(**filters))

    def row(self, address: str) -> records.Address:
        (_, row), = self.inventory.addresses(address=ip(address))
        return row

    def assert_reserved(self) -> None:
        """The create has left nothing but the reservation that was there."""
        row = self.row('10.0.0.100')
        self.assertEqual(
            (base.State.RESERVED, 'req-1', base.PROJECT, SERVER, 'web', None,
             None),
            (row.state, row.request_id, row.project_id, row.server_id,
             row.server_name, row.port_id, row.mac))
        left = (row.expires_at - clock.now()).total_seconds()
        self.assertAlmostEqual(600, left, delta=60)
        self.assertEqual([False], [
            e.present for e in self.inventory.entries()])
        self.assertEqual([], harness.call('GET', 'ports')[1]['ports'])

    def assert_next_try(self, network: str) -> None:
        """Nova tries again, for the same server."""
        status, body = self.post(network)
        self.assertEqual(201, status)
        port = body['port']
        self.assertEqual('10.0.0.100', port['fixed_ips'][0]['ip_address'])
        entry, = self.inventory.entries()
        self.assertEqual((port['mac_address'], True),
                         (entry.mac, entry.present))
