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

"""Several real dnsmasqs share the addresses of one pool."""

import contextlib
import os
import pathlib

import testtools

from tests.functional.dhcp import test_agreement
from tests import lab
from tests.unit import base
from vmip_plugin import conf as vmip_conf
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin.dhcp import manager

EXAMPLES = pathlib.Path(__file__).parents[3] / 'doc/examples/dnsmasq'
#: What each of the servers has of 10.66.1.1 to 10.66.1.200.
SHARES = ('a=10.66.1.0/30', 'b=10.66.1.4-10.66.1.5',
          'c=10.66.1.6-10.66.1.200')
ACK = 5


class TestShared(test_agreement.AgreementTestCase):
    """Three servers in one network, each for a part of the pool."""

    servers = 'abc'
    dhcp_servers = SHARES

    def setUp(self) -> None:
        super().setUp()
        self.addresses = [self.serve(number) for number in range(1, 8)]

    def who_has(self) -> dict[str, list[str]]:
        return {name: list(self.held(name)) for name in self.servers}

    def test_each_has_its_own(self) -> None:
        self.assertEqual({'a': self.addresses[:3], 'b': self.addresses[3:5],
                          'c': self.addresses[5:]}, self.who_has())
        self.assertEqual(self.addresses, [
            self.offered(number) for number in range(1, 8)])
        self.assertEqual([], self.manage('dhcp', 'check'))
        self.assertEqual({'1', '2', '3'}, {
            row['port_id'][-1] for row in self.manage('address', 'list')
            if row['address'] in self.held('a')})

    def test_nobody_is_refused_by_the_others(self) -> None:
        """Three authoritative servers on one network."""
        for number, address in enumerate(self.addresses, 1):
            self.assertEqual([ACK], self.guests.reboot(
                base.mac(number), address, 1))

    def test_real_clients(self) -> None:
        for number, kind in (1, 'dhclient'), (4, 'udhcpc'), (6, 'dhcpcd'):
            with lab.Client(self.bridges[1], base.mac(number), kind) as guest:
                # at the second time it asks for what it had
                for _ in range(2):
                    self.assertEqual(self.addresses[number - 1],
                                     str(guest.obtain()))

    def test_reuse(self) -> None:
        self.delete(4)
        self.reclaim()
        again = self.claim(9, request='req-9',
                           address=base.ip(self.addresses[3]))
        self.cloud.add(9, again)
        self.worker.run([base.port_id(9)])
        self.assertEqual(self.addresses[3], self.offered(9))
        self.assertEqual(self.addresses[3:5], list(self.held('b')))

    def test_one_is_down(self) -> None:
        """Who is another's notices nothing; who is its own waits."""
        self.dnsmasq['b'].end()
        self.delete(1)
        self.delete(4)
        self.reclaim()
        self.assertEqual(base.State.FREE, self.state(self.addresses[0]))
        self.assertEqual({('b', self.addresses[3])}, {*self.pending()})
        self.assertEqual(self.addresses[1:3] + self.addresses[5:], [
            self.offered(number) for number in (2, 3, 6, 7)])
        self.dnsmasq['b'].up()
        self.reclaim()
        self.assertEqual({}, self.pending())
        self.assertEqual(base.State.FREE, self.state(self.addresses[3]))

    def test_shared_anew(self) -> None:
        """What changes hands is served all the time."""
        self.manage('pool', 'set', 'pool', '--dhcp-server', 'a=10.66.1.0/30',
                    '--dhcp-server', 'b=10.66.1.4-10.66.1.200')
        self.assertEqual(self.addresses, [
            self.offered(number) for number in range(1, 8)])
        folder = self.dnsmasq['b'].hostsdir
        folder.rename(folder.with_name('away'))
        self.reclaim()
        self.reclaim()
        # while the new one cannot be written to the old one goes on
        self.assertEqual(self.addresses[5:], list(self.held('c')))
        folder.with_name('away').rename(folder)
        self.reclaim()
        self.reclaim()
        self.assertEqual({'a': self.addresses[:3], 'b': self.addresses[3:],
                          'c': []}, self.who_has())
        self.assertEqual({}, self.pending())
        self.dnsmasq['c'].end()
        self.assertEqual(self.addresses, [
            self.offered(number) for number in range(1, 8)])

    def test_a_pair_of_each(self) -> None:
        """Each part may have several servers, as a whole pool may."""
        self.manage('pool', 'set', 'pool', '--dhcp-server', 'a=10.66.1.0/30',
                    '--dhcp-server', 'b=10.66.1.4-10.66.1.200',
                    '--dhcp-server', 'c')
        self.reclaim()
        self.assertEqual({'a': self.addresses[:3], 'b': self.addresses[3:],
                          'c': self.addresses}, self.who_has())
        for name in 'ab', 'c':
            with contextlib.ExitStack() as stack:
                for one in name:
                    self.dnsmasq[one].end()
                    stack.callback(self.dnsmasq[one].up)
                self.assertEqual(self.addresses, [
                    self.offered(number) for number in range(1, 8)])


class Namespaced(lab.Process):
    """A dnsmasq that the script of the documentation starts."""

    def __init__(self, bridge: lab.Bridge, bus: lab.Bus, conf: pathlib.Path,
                 number: int) -> None:
        super().__init__()
        self.bridge = bridge
        self.bus = bus
        self.conf = conf
        self.name = f'd{number}_{os.getpid()}'
        self.address = f'192.0.2.{number}/24'

    def start(self) -> None:
        folder = self.conf.parent / self.name
        # made in the namespace of the bridge, which goes with the processes
        self._stack.callback(pathlib.Path(f'/run/netns/{self.name}').unlink,
                             missing_ok=True)
        self._stack.callback(self.end)
        self.process = self.bridge.popen(
            'env', f'CONF={self.conf}', f'FOLDER={folder}',
            f'DBUS_SYSTEM_BUS_ADDRESS={self.bus.address}',
            str(EXAMPLES / 'namespace.sh'), self.name, self.address, 'br0')
        lab.wait_for((folder / 'pid').exists)
        self.section = (
            f'[dhcp:{self.name}]\ndriver = dnsmasq\n'
            f'hostsdir = {folder}/hosts\npid_file = {folder}/pid\n'
            f'lease_file = {folder}/leases\n'
            f'dbus_service = uk.org.thekelleys.dnsmasq.{self.name}\n'
            f'dbus_address = {self.bus.address}\n')


class TestNamespaces(testtools.TestCase):
    """Two on one machine, started as the documentation says."""

    def setUp(self) -> None:
        super().setUp()
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        folder = stack.enter_context(lab.Folder()).path
        # each has a name of its own there
        (folder / 'policy.conf').write_text(
            '<busconfig><policy user="root"><allow own="*"/>'
            '<allow send_destination="*"/></policy></busconfig>')
        bus = stack.enter_context(lab.Bus(folder))
        bridge = stack.enter_context(lab.Bridge('192.0.2.254/24'))
        self.prober = stack.enter_context(lab.Prober(bridge))
        conf = folder / 'dnsmasq.conf'
        conf.write_text(''.join(
            f'{line}\n' for line in (EXAMPLES / 'dnsmasq.conf').read_text()
            .replace('br-provider', 'br0').splitlines()
            if not line.startswith(('dhcp-hostsdir', 'dhcp-leasefile',
                                    'pid-file', 'enable-dbus'))))
        servers = [stack.enter_context(Namespaced(bridge, bus, conf, number))
                   for number in (1, 2)]
        config = folder / 'vmip.conf'
        config.write_text(
            f'[dhcp]\nservers = {", ".join(one.name for one in servers)}\n'
            + ''.join(one.section for one in servers))
        options = vmip_conf.new()
        options(['--config-file', str(config)], project='vmip')
        self.drivers = manager.load_drivers(options)

    def test_both_serve(self) -> None:
        entries = [dhcp.HostEntry(base.mac(number),
                                  base.ip(f'192.0.2.{10 + number}'))
                   for number in (1, 2)]
        for entry, driver in zip(entries, self.drivers.values(), strict=True):
            self.assertEqual([], driver.check())
            self.assertEqual({}, driver.put([entry]))
        for entry in entries:
            self.assertEqual(entry.address, lab.wait_for(
                lambda entry=entry: self.prober.acquire(entry.mac, 1)))
            self.assertEqual([ACK], self.prober.reboot(
                entry.mac, entry.address, 1))
        for entry, driver in zip(entries, self.drivers.values(), strict=True):
            lease, = driver.leases()
            self.assertEqual(entry.mac, lease.mac)
            driver.release(lease)
            self.assertEqual([], list(driver.leases()))
