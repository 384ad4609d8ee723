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

"""vmip-listener as a process, with all that it works on."""

import datetime
import pathlib
import signal
import subprocess
import sys

import fixtures
import sqlalchemy as sa

from tests import databases
from tests import lab
from tests.notifications import stream
from tests import stubs
from tests.unit import base as unit
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

ROOT = pathlib.Path(__file__).parents[1]


class Daemon(fixtures.Fixture):
    """A program with a configuration of its own.

    :param name: module of the program.
    """

    def __init__(self, name: str, config: str) -> None:
        self._name = name
        self._config = config

    def _setUp(self) -> None:
        folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.log = folder / 'log'
        path = folder / 'vmip.conf'
        path.write_text(self._config)
        with self.log.open('wb') as log:
            self.process = subprocess.Popen(
                [sys.executable, '-m', self._name, '--config-file', path],
                stdout=log, stderr=log, cwd=ROOT, start_new_session=True)
        self.addCleanup(self.end)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the process, unless it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            try:
                self.process.wait(lab.PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    @property
    def ready(self) -> bool:
        text = self.log.read_text()
        if self.process.poll() is not None:
            raise RuntimeError(text)
        return ' is ready' in text


class Site(fixtures.Fixture):
    """A list with one pool, and the configuration of its daemons.

    :param url: of the list's empty database.
    :param broker: of the message bus.
    :param servers: the section of the DHCP server ``test``.
    """

    def __init__(self, url: str, broker: str, servers: str) -> None:
        self._url = url
        self.broker = broker
        self._servers = servers

    def _setUp(self) -> None:
        self.cloud = self.useFixture(stubs.Cloud())
        self.cloud.networks.add(unit.NETWORK)
        self.inventory = api.Inventory(unit.new_conf(self._url), 'site')
        self.addCleanup(lambda: self.inventory.database.engine.dispose())
        self.inventory.database.upgrade()
        self.inventory.create_pool(
            name='pool', network_id=unit.NETWORK, subnet_id=unit.SUBNET,
            cidr='10.0.0.0/8', dhcp_servers=['test'],
            ranges=[(unit.ip('10.0.0.1'), unit.ip('10.200.255.254'))])

    def config(self, **options: object) -> str:
        """Return a configuration with options of ``[listener]``."""
        lines = '\n'.join(
            f'{key} = {value}'
            for key, value in {'poison_limit': 0, **options}.items())
        return (f'[DEFAULT]\ntransport_url = {self.broker}\n'
                f'[database]\nconnection = {self._url}\n'
                f'{self.cloud.config}[dhcp]\nservers = test\n'
                f'[dhcp:test]\n{self._servers}\n'
                # all of them go at once
                '[reclaimer]\nfuse_percent = 100\n'
                f'[listener]\n{lines}\n')

    def listener(self, **options: object) -> Daemon:
        """Return a vmip-listener, not yet started."""
        return Daemon('vmip_plugin.cmd.listener', self.config(**options))

    def counts(self, server: databases.Databases) -> object:
        """Return what changes with everything that is done."""
        name = sa.make_url(self._url).database
        return [tuple(row) for row in server.execute(
            f'SELECT state, COUNT(*), SUM(generation) FROM {name}.addresses '
            'GROUP BY state')]

    def claim(self, ports: list[stream.Port]) -> None:
        """Have Neutron's IPAM driver claim ports' addresses.

        Their servers and ports are gone by now, as Nova tells. Of a port
        without a server it is the driver that tells.
        """
        for port in ports:
            if port.server_id:
                self.cloud.deleted[port.server_id] = datetime.datetime.now(
                    datetime.UTC)
        for port in ports:
            self.inventory.claim(
                subnet_id=unit.SUBNET, port_id=port.id, mac=port.mac,
                server_id=port.server_id or None,
                address=unit.ip(port.address),
                requester=records.Requester(f'req-{port.id}',
                                            port.project_id))
            if not port.server_id:
                self.inventory.release_address(
                    unit.SUBNET, unit.ip(port.address), 'given back',
                    states.Evidence.COMMITTED)


def section(dnsmasq: lab.Dnsmasq) -> str:
    """Return the section of a DHCP server."""
    return (f'driver = dnsmasq\nhostsdir = {dnsmasq.hostsdir}\n'
            f'pid_file = {dnsmasq.pid_file}\n'
            f'lease_file = {dnsmasq.lease_file}\n')
