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

"""vmip-agent as it is, called by the driver ``remote`` over RabbitMQ."""

import os
import pathlib
import socket

import fixtures
import testtools

from tests.contract import base
from tests.contract import remote
from tests import daemon
from tests import lab
from tests import rabbit
from vmip_plugin import exceptions

entry = base.entry


class RemoteTest(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        broker = self.useFixture(rabbit.RabbitMQ())
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        # the agent must reach the broker on the loopback interface
        self.interface = f'vmip{os.getpid()}'
        lab.run('ip', 'link', 'add', self.interface, 'type', 'bridge')
        lab.run('ip', 'link', 'set', self.interface, 'up')
        self.addCleanup(lab.run, 'ip', 'link', 'del', self.interface)
        self.bus = f'[DEFAULT]\ntransport_url = {broker.url}\n'

    def agent(self, servers: str) -> daemon.Daemon:
        agent = self.useFixture(daemon.Daemon(
            'vmip_plugin.cmd.agent', f'{self.bus}'
            f'[agent]\ninterfaces = {self.interface}\n'
            f'store = {self.folder}/agent.sqlite\n'
            f'[cloud]\nauth_type = password\n{servers}'))
        lab.wait_for(lambda: 'Listening for hints and calls'
                     in agent.log.read_text())
        return agent

    def test_agent(self) -> None:
        agent = self.agent('[dhcp]\nservers = there\n')
        path = self.folder / 'vmip.conf'
        path.write_text(
            f'{self.bus}[dhcp]\nservers = here\n[dhcp:here]\n'
            f'driver = remote\nhost = {socket.gethostname()}\n'
            'server = there\n')
        self.addCleanup(remote.close_buses)
        driver = base.load(path)
        self.assertEqual({}, driver.put([entry(1, hostname='web')]))
        self.assertEqual([entry(1, hostname='web')], list(driver.entries()))
        agent.end()
        self.assertEqual(0, agent.process.returncode)
        self.assertRaises(exceptions.DHCPServerUnavailable, driver.put,
                          [entry(2)])

    def test_drivers_do_not_keep_it_from_its_work(self) -> None:
        agent = self.agent('[dhcp]\nservers = there\n'
                           '[dhcp:there]\ndriver = dnsmasq\n')
        lab.wait_for(lambda: f'Listening for DHCP on {self.interface}'
                     in agent.log.read_text())
        self.assertIn('[dhcp:there] hostsdir is not set',
                      agent.log.read_text())
