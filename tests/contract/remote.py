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

"""The driver ``remote`` in front of a dnsmasq, for the contract."""

import os
import shutil
from typing import ClassVar

import fixtures

from tests.contract import base
from tests.contract import dnsmasq
from tests import daemon
from tests import lab
from tests import rabbit
from vmip_plugin.dhcp import remote


def close_buses() -> None:
    """Leave the broker."""
    while remote._BUSES:
        _, (_, bus) = remote._BUSES.popitem()
        bus._client.transport.cleanup()


class Site(fixtures.Fixture):
    """A broker, and a host with an agent and a folder for its dnsmasq."""

    def _setUp(self) -> None:
        self.url = self.useFixture(rabbit.RabbitMQ()).url
        folder = lab.Folder()
        self.folder = folder.__enter__().path
        self.addCleanup(folder.__exit__, None, None, None)
        self.host = f'dhcp-{os.getpid()}'
        self._config = ''

    def run_agent(self, config: str) -> daemon.Daemon:
        """Return an agent that runs with a configuration."""
        if config != self._config or self.agent.process.poll() is not None:
            if self._config:
                self.agent.end()
            self._config = config
            self.agent = self.useFixture(daemon.Daemon(
                'tests.contract.agent', config))
            lab.wait_for(lambda: self.agent.ready)
        return self.agent


class RemoteServer(dnsmasq.DnsmasqServer):
    """dnsmasq, an agent beside it, and the bus to it."""

    def __init__(self, dnsmasq_: lab.Dnsmasq, options: str, site: Site,
                 ) -> None:
        super().__init__(dnsmasq_, options)
        #: the driver on the host
        self.local = base.load(self.config)
        self.site = site
        self.agent_config = (f'[DEFAULT]\ntransport_url = {site.url}\n'
                             f'[test]\nhost = {site.host}\n'
                             + self.config.read_text())
        self.configure(timeout=600)

    def configure(self, **options: object) -> None:
        """Write the configuration, with options other than usual."""
        self.config.write_text(
            f'[DEFAULT]\ntransport_url = {self.site.url}\n'
            '[dhcp]\nservers = test\n[dhcp:test]\n' + ''.join(
                f'{name} = {value}\n' for name, value in {
                    'driver': 'remote', 'host': self.site.host, **options
                }.items()))


class RemoteContract(dnsmasq.DnsmasqContract):
    """With one agent for all tests of a class that leave it in peace."""

    server: RemoteServer
    site: ClassVar[Site]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.site = Site()
        cls.site.setUp()
        cls.addClassCleanup(cls.site.cleanUp)

    def make_server(self) -> RemoteServer:
        folder = self.site.folder
        self.addCleanup(lambda: [
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in folder.iterdir()])
        self.hostsdir = self.make_hostsdir(folder)
        bridge = self.enter(lab.Bridge())
        self.dnsmasq = self.enter(lab.Dnsmasq(bridge, folder, self.hostsdir))
        server = RemoteServer(self.dnsmasq, self.options, self.site)
        self.addCleanup(close_buses)
        self.agent = self.site.run_agent(server.agent_config)
        return server
