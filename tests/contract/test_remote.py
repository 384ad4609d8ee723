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

"""The contract of the remote driver: RabbitMQ, an agent and dnsmasq."""

import fcntl
import pathlib
import signal
import threading
import time

import fixtures
import testtools

from tests.contract import base
from tests.contract import remote as server
from tests import daemon
from tests import lab
from tests import rabbit
from vmip_plugin.dhcp import wire
from vmip_plugin import exceptions

entry = base.entry


class TestRemote(server.RemoteContract):

    def test_capabilities(self) -> None:
        self.assertEqual(self.server.local.capabilities,
                         self.driver.capabilities)
        self.assertEqual(self.server.local.server_id, self.driver.server_id)

    def test_is_the_driver_there(self) -> None:
        self.driver.put([entry(1, hostname='web')])
        self.assertIn('vmip-10.66.0.1', self.names())
        self.assertEqual([entry(1, hostname='web')],
                         list(self.server.local.entries()))

    def test_agent_is_dead(self) -> None:
        self.agent.end()
        started = time.monotonic()
        # an agent that is dead keeps nobody from starting
        self.driver = self.server.driver()
        self.assertRaises(exceptions.DHCPServerUnavailable,
                          lambda: self.driver.capabilities)
        self.assertLess(time.monotonic() - started, lab.PATIENCE)
        text = f'no vmip-agent on {self.site.host} answers: start it'
        for call in (lambda: self.driver.put([entry(1)]),
                     lambda: self.driver.remove([entry(1)]),
                     lambda: list(self.driver.entries())):
            error = self.assertRaises(exceptions.DHCPServerUnavailable, call)
            self.assertIn(text, str(error))
        self.assertIn(text, self.driver.check()[0])
        self.agent = self.site.run_agent(self.server.agent_config)
        self.assertEqual({}, self.driver.put([entry(2)]))
        # nothing of what the dead one was to do is done now
        self.assertHeld(entry(2))
        self.assertServed(entry(2))

    def test_agent_dies_in_the_middle(self) -> None:
        many = [entry(number) for number in range(1, 3001)]
        errors: list[exceptions.DHCPError] = []

        def put() -> None:
            try:
                for first in range(0, 3000, 10):
                    self.driver.put(many[first:first + 10])
            except exceptions.DHCPServerUnavailable as exc:
                errors.append(exc)

        thread = threading.Thread(target=put)
        thread.start()
        lab.wait_for(lambda: len(self.names()) > 100)
        self.agent.end(signal.SIGKILL)
        thread.join()
        self.assertIn('start it', str(errors[0]))
        held = list(self.server.local.entries())
        self.assertTrue(100 <= len(held) < 3000, len(held))
        self.agent = self.site.run_agent(self.server.agent_config)
        self.assertEqual({}, self.driver.put(many[:len(held) + 20]))
        self.assertEqual({}, self.driver.remove(many[:10]))
        self.assertHeld(*many[10:len(held) + 20])
        self.assertServed(*many[10:len(held) + 20])

    def test_longer_than_a_dead_agent_is_waited_for(self) -> None:
        self.driver.put([entry(1)])
        with open(self.hostsdir / '.vmip-lock', 'rb') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            timer = threading.Timer(
                wire.ALIVE + 2, fcntl.flock, (lock, fcntl.LOCK_UN))
            timer.start()
            self.assertEqual({}, self.driver.put([entry(2)]))
            timer.join()
        self.assertServed(entry(1), entry(2))

    def test_errors_of_the_driver_there(self) -> None:
        self.driver.put([entry(1)])
        self.server.stop()
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver.remove, [entry(1)])
        self.assertIn(f'vmip-agent on {self.site.host}: dnsmasq test: ',
                      str(error))
        self.assertIn('start dnsmasq', str(error))
        lab.run('mount', '-t', 'tmpfs', '-o', 'ro', 'none',
                str(self.hostsdir))
        self.addCleanup(lab.run, 'umount', '-l', str(self.hostsdir))
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver.put, [entry(1)])
        self.assertIn('mount it for writing', str(error))
        self.assertIn(f'vmip-agent on {self.site.host}: ',
                      self.driver.check()[0])

    def test_unknown_server(self) -> None:
        self.server.configure(server='other')
        error = self.assertRaises(exceptions.DHCPError,
                                  self.server.driver().put, [entry(1)])
        self.assertIn(f'vmip-agent on {self.site.host}: there is no DHCP '
                      "server 'other'", str(error))

    def test_no_circles(self) -> None:
        """The agent's configuration is that of everybody else."""
        self.agent.end()
        self.server.agent_config = self.server.config.read_text() + (
            f'[test]\nhost = {self.site.host}\n')
        self.agent = self.site.run_agent(self.server.agent_config)
        error = self.assertRaises(exceptions.DHCPError,
                                  self.driver.put, [entry(1)])
        self.assertIn('with the driver that works here', str(error))

    def test_agent_without_drivers(self) -> None:
        self.agent.end()
        self.server.agent_config = self.server.agent_config.replace(
            'pid_file', '# pid_file')
        self.agent = self.site.run_agent(self.server.agent_config)
        error = self.assertRaises(exceptions.DHCPError,
                                  self.driver.put, [entry(1)])
        self.assertIn('look at its log', str(error))
        self.assertIn('[dhcp:test] pid_file is not set',
                      self.agent.log.read_text())

    def test_pages(self) -> None:
        many = [entry(number) for number in range(1, wire.PAGE + 100)]
        self.assertEqual({}, self.driver.put(many))
        self.assertHeld(*many)
        self.assertServed(many[0], many[-1])
        self.assertEqual({}, self.driver.remove(many))
        self.assertHeld()


class TestBroker(testtools.TestCase):
    """What becomes of the calls when the broker is away."""

    def setUp(self) -> None:
        super().setUp()
        self.broker = self.useFixture(rabbit.RabbitMQ())
        agent = self.useFixture(daemon.Daemon(
            'tests.contract.agent',
            f'[DEFAULT]\ntransport_url = {self.broker.url}\n'
            '[dhcp]\nservers = test\n[test]\nhost = there\n'))
        lab.wait_for(lambda: agent.ready)
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / 'conf'
        path.write_text(
            f'[DEFAULT]\ntransport_url = {self.broker.url}\n'
            '[dhcp]\nservers = test\n'
            '[dhcp:test]\ndriver = remote\nhost = there\n')
        self.driver = base.load(path)
        self.addCleanup(server.close_buses)

    def _puts(self) -> bool:
        try:
            return self.driver.put([entry(1)]) == {}
        except exceptions.DHCPServerUnavailable:
            return False

    def _away(self) -> None:
        for _ in range(2):
            started = time.monotonic()
            error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                      self.driver.put, [entry(1)])
            self.assertIn('the message bus cannot be used', str(error))
            self.assertLess(time.monotonic() - started, lab.PATIENCE)
        self.broker.start()
        lab.wait_for(self._puts)
        self.assertEqual([entry(1)], list(self.driver.entries()))

    def test_from_the_first_call_on(self) -> None:
        self.broker.kill()
        self._away()

    def test_later(self) -> None:
        self.assertEqual({}, self.driver.put([entry(2)]))
        self.assertEqual({}, self.driver.remove([entry(2)]))
        self.broker.kill()
        self._away()
