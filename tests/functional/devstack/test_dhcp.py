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


"""DHCP servers as they are configured for others, with real clients."""

import ipaddress
import os
import pathlib
import pwd
import shutil
import signal
import sys

import testtools

from tests.functional.devstack import test_plugin
from tests import lab
from vmip_plugin.agent import lease
from vmip_plugin.agent import release
from vmip_plugin import conf as vmip_conf
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import manager

MACS = [f'fa:16:3e:00:00:{number:02x}' for number in range(3)]
ADDRESSES = [ipaddress.IPv4Address(f'192.0.2.{100 + number}')
             for number in range(3)]

#: somebody without rights, as DevStack's user is, of every Debian; dnsmasq's
#: default is "nobody"
USER = 'games'


class Server(lab.Process):

    def __init__(self, bridge: lab.Bridge, command: list[str],
                 pid_file: pathlib.Path) -> None:
        super().__init__()
        self.bridge = bridge
        self.command = command
        self.pid_file = pid_file

    def start(self) -> None:
        self._stack.callback(self.end, signal.SIGKILL)
        self.process = self.bridge.popen(*self.command)
        process = self.process

        def listens() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f'exit code {process.returncode}')
            return self.pid_file.exists()

        lab.wait_for(listens)


class TestDnsmasq(test_plugin.PluginTestCase):

    def setUp(self) -> None:
        super().setUp()
        for path in (self.folder, self.folder / 'data'):
            path.chmod(0o755)
        self.run_(*test_plugin.STACK, STACK_USER=USER, VMIP_BRIDGE='br0')
        state = self.folder / 'data/vmip'
        user = pwd.getpwnam(USER)
        for path in (state, *state.rglob('*')):
            os.chown(path, user.pw_uid, user.pw_gid)
        self.bridge = lab.Bridge('192.0.2.2/24')
        self.enterContext(self.bridge)
        self.bridge.run('ip', 'address', 'add', '192.0.2.1/24', 'dev', 'br0')
        command = self.processes()['vmip-dhcp'].split()
        self.assertEqual('root', command.pop())
        self.enterContext(Server(
            self.bridge, command, state / 'dhcp/dnsmasq.pid'))
        conf = vmip_conf.new()
        conf([], project='vmip', default_config_files=[
            str(self.folder / 'etc/vmip/vmip.conf')])
        self.driver = manager.load_drivers(conf)['vmip']
        self.prober = self.enterContext(lab.Prober(self.bridge))

    def test_way(self) -> None:
        self.assertEqual([], list(self.driver.check()))
        self.assertIsNone(self.prober.discover(MACS[0], 1))
        self.assertEqual({}, self.driver.put([
            base.HostEntry(mac, address) for mac, address in
            zip(MACS[:2], ADDRESSES, strict=False)]))
        for mac, address in zip(MACS[:2], ADDRESSES, strict=False):
            self.assertEqual(address, self.prober.acquire(mac))
        self.assertIsNone(self.prober.discover(MACS[2], 1))
        leases = lab.wait_for(lambda: len(list(self.driver.leases())) == 2)
        self.assertTrue(leases)

    def test_names_itself(self) -> None:
        """By the address that a release has to carry."""
        self.driver.put([base.HostEntry(MACS[0], ADDRESSES[0])])
        offer = self.prober.ask(MACS[0], {53: b'\x01'})
        assert offer is not None
        self.assertEqual(
            ipaddress.IPv4Address('192.0.2.2').packed, offer[1][54])
        self.assertEqual(str(self.driver.server_id), '192.0.2.2')
        self.assertEqual(
            ipaddress.IPv4Address('192.0.2.1').packed, offer[1][3])

    def test_without_rights(self) -> None:
        """The driver as DevStack's user runs it, dnsmasq's own."""
        os.seteuid(pwd.getpwnam(USER).pw_uid)
        try:
            self.assertEqual([], list(self.driver.check()))
            entry = base.HostEntry(MACS[0], ADDRESSES[0])
            self.assertEqual({}, self.driver.put([entry]))
            self.assertEqual({}, self.driver.remove([entry]))
            self.assertEqual({}, self.driver.put([
                base.HostEntry(MACS[1], ADDRESSES[0])]))
        finally:
            os.seteuid(0)
        self.assertEqual(ADDRESSES[0], self.prober.acquire(MACS[1]))

    def test_release_on_the_same_host(self) -> None:
        self.driver.put([base.HostEntry(MACS[0], ADDRESSES[0])])
        self.assertEqual(ADDRESSES[0], self.prober.acquire(MACS[0]))
        lab.wait_for(lambda: list(self.driver.leases()))
        held = lease.Lease(
            address=ADDRESSES[0], mac=MACS[0], interface='br0', vlan=None,
            dhcp_server=ipaddress.IPv4Address('192.0.2.2'),
            dhcp_server_mac=None, client_id=None, lease_seconds=600,
            confirmed=True, first_seen=0, last_seen=0, port_id=None,
            server_id=None, looked_at=None, gone_since=None, tries=0,
            released_at=None, verdict=None, reason=None, decided_at=None,
            network_id=None, remote=False, server_duid=None, iaid=None)
        self.bridge.inside(lambda: release.Releaser(
            ['br0'], 'guest', 0.3).release(held, None))
        lab.wait_for(lambda: not list(self.driver.leases()))

    def test_agent_with_its_one_capability(self) -> None:
        conf = self.folder / 'etc/vmip/vmip.conf'
        shutil.chown(conf, USER)
        agent = Server(self.bridge, [
            'setpriv', '--reuid', USER, '--regid', USER, '--clear-groups',
            '--bounding-set', '-all,+net_raw',
            '--inh-caps', '-all,+net_raw', '--ambient-caps', '-all,+net_raw',
            sys.executable, '-m', 'vmip_plugin.cmd.agent', '--config-file',
            str(conf)], self.folder / 'data/vmip/agent.sqlite')
        with agent:
            lab.wait_for(lambda: len(self.bridge.run(
                'cat', '/proc/net/packet').splitlines()) > 1)
            assert agent.process is not None
            self.assertIsNone(agent.process.poll())

    def test_a_client(self) -> None:
        self.driver.put([base.HostEntry(MACS[0], ADDRESSES[0])])
        assert shutil.which('udhcpc')
        with lab.Client(self.bridge, MACS[0]) as client:
            self.assertEqual(ADDRESSES[0], client.obtain())


class TestExample(testtools.TestCase):
    """The files of the documentation, with other paths."""

    EXAMPLES = pathlib.Path(__file__).parents[3] / 'doc/examples/site'

    def setUp(self) -> None:
        super().setUp()
        self.folder = self.enterContext(lab.Folder()).path
        self.hosts = self.folder / 'hosts'
        self.hosts.mkdir()
        self.bridge = self.enterContext(lab.Bridge('192.0.2.2/24'))
        changes = {
            '/var/lib/vmip-dnsmasq': str(self.hosts),
            '/var/lib/misc/dnsmasq.leases': str(self.folder / 'leases'),
            '/run/dnsmasq/dnsmasq.pid': str(self.folder / 'pid'),
            'interface=eth1': 'interface=br0'}
        for path in self.EXAMPLES.iterdir():
            text = path.read_text()
            for old, new in changes.items():
                text = text.replace(old, new)
            (self.folder / path.name).write_text(text)
        # what the package's service adds
        self.enterContext(Server(self.bridge, [
            'dnsmasq', '--keep-in-foreground', '--port=0',
            f'--conf-file={self.folder}/dnsmasq.conf',
            f'--pid-file={self.folder}/pid',
            f'--dhcp-leasefile={self.folder}/leases'], self.folder / 'pid'))
        self.driver = manager.load_drivers(
            vmip_conf.load(str(self.folder / 'vmip.conf')))['site1']
        self.prober = self.enterContext(lab.Prober(self.bridge))

    def test_way(self) -> None:
        self.assertEqual([], list(self.driver.check()))
        self.assertEqual({}, self.driver.put([
            base.HostEntry(mac, address) for mac, address in
            zip(MACS[:2], ADDRESSES, strict=False)]))
        self.assertEqual(ADDRESSES[0], self.prober.acquire(MACS[0]))
        self.assertIsNone(self.prober.discover(MACS[2], 1))
        # once more for another guest, as dnsmasq runs for somebody else
        self.assertEqual({}, self.driver.remove([
            base.HostEntry(MACS[1], ADDRESSES[1])]))
        self.assertEqual({}, self.driver.put([
            base.HostEntry(MACS[2], ADDRESSES[1])]))
        self.assertEqual(ADDRESSES[1], self.prober.acquire(MACS[2]))

    def test_nothing_is_left(self) -> None:
        """By what the documentation removes."""
        many = [base.HostEntry(f'fa:16:3e:00:{n >> 8:02x}:{n & 255:02x}',
                               ipaddress.IPv4Address('192.0.2.3') + n)
                for n in range(100)]
        self.driver.put(many)
        self.driver.remove(many[:1])
        for pattern in 'vmip-*', '.vmip-*':
            for path in self.hosts.glob(pattern):
                path.unlink()
        self.assertEqual([], os.listdir(self.hosts))
