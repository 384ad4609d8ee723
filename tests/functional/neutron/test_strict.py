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


"""Strict mode with a real Neutron and a real dnsmasq.

No listener and no reclaimer runs: what a guest gets, the create of its port
has seen to.
"""

import contextlib
import fcntl
import os
import pathlib
import socket
import threading
import time
from typing import Any

import fixtures
from neutron_lib.plugins import directory
from stevedore import extension

from tests.functional.dhcp import releasing
from tests import lab
from tests.unit import base
from tests.unit import fakes
from tests.unit.neutron import case
from tests.unit.neutron import harness
from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.dhcp import manager
from vmip_plugin.dhcp import packet
from vmip_plugin.dhcp import work
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records
from vmip_plugin.neutron import mechanism
from vmip_plugin.neutron import shared

State = base.State
ip = base.ip

CIDR = '10.66.0.0/16'
SERVER = '10.66.255.254'
#: shorter than what dnsmasq's driver waits for the folder
STRICT_TIMEOUT = 20


class Agents(fakes.Agents):
    """An agent that has made sure already that the guest is gone."""

    def __init__(self, bridge: lab.Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self.works = False

    def release_lease(self, address: str, mac: str, *args: Any) -> None:
        super().release_lease(address, mac, *args)
        if self.works:
            with self._bridge.inside(lambda: socket.socket(
                    socket.AF_INET, socket.SOCK_DGRAM)) as sender:
                sender.sendto(packet.build_release(
                    ip(address), mac, ip(SERVER), None),
                    (SERVER, packet.SERVER_PORT))


class StrictTestCase(case.NeutronTestCase):

    #: the names of the pool's DHCP servers
    servers = 'a'
    strict_servers = 'all'

    def setUp(self) -> None:
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.bridge = stack.enter_context(lab.Bridge(f'{SERVER}/16'))
        self.options = (
            f'[DEFAULT]\ntransport_url = fake://\n'
            f'[dhcp]\nservers = {", ".join(self.servers)}\n'
            f'strict_timeout = {STRICT_TIMEOUT}\n'
            f'strict_servers = {self.strict_servers}\n')
        self.all: dict[str, lab.Dnsmasq] = {}
        for number, name in enumerate(self.servers):
            bridge = self.bridge
            if number:
                bridge = stack.enter_context(lab.Bridge(
                    f'{ip(SERVER) - number}/16'))
                self.bridge.join(bridge)
            one = self.all[name] = stack.enter_context(lab.Dnsmasq(
                bridge, stack.enter_context(lab.Folder()).path))
            self.options += (
                f'[dhcp:{name}]\ndriver = dnsmasq\n'
                f'hostsdir = {one.hostsdir}\npid_file = {one.pid_file}\n'
                f'lease_file = {one.lease_file}\n'
                f'server_id = {bridge.address.ip}\n')
        self.dnsmasq = self.all['a']
        self.guests = stack.enter_context(lab.Prober(self.bridge))
        super().setUp()
        self.agents = Agents(self.bridge)
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.agent.rpc.AgentClient',
            lambda transport: self.agents))
        driver = mechanism.VmipMechanismDriver()
        driver.initialize()
        self.assertNotIn('as seen from this host', self.log.output)
        self.useFixture(fixtures.MockPatchObject(
            directory.get_plugin().mechanism_manager, 'ordered_mech_drivers',
            [extension.Extension('vmip', None, None, driver)]))
        self.network = harness.network()
        self.subnet_id = self.subnet(
            self.network, CIDR, '10.66.1.1', '10.66.1.200', self.servers)

    def create(self, number: int, **values: Any) -> Any:
        status, body = self.post(
            self.network, f'req-{number}', device_id=base.server_id(number),
            **values)
        self.assertEqual(201, status, body)
        return body['port']

    def work_off(self) -> None:
        """Do once what vmip-reclaimer does, a while later."""
        worker = work.Worker(
            shared.configuration(), self.inventory,
            manager.load_drivers(shared.configuration()), fakes.Cloud(),
            self.agents)
        later = clock.after(300)
        with fixtures.MonkeyPatch('vmip_plugin.inventory.clock.now',
                                  lambda: later):
            worker.run()

    def files(self) -> list[pathlib.Path]:
        return [path for path in self.dnsmasq.hostsdir.iterdir()
                if not path.name.startswith('.')]

    def refused(self, number: int, says: str, **values: Any) -> None:
        status, body = self.post(self.network, f'req-{number}',
                                 device_id=base.server_id(number), **values)
        self.assertEqual((503, 'HostEntryMissing'),
                         (status, body['NeutronError']['type']))
        self.assertIn(says, body['NeutronError']['message'])


class TestStrict(StrictTestCase):

    def test_first_discover(self) -> None:
        """However early the guest asks, it gets its address."""
        for number in range(1, 31):
            port = self.create(number)
            self.assertEqual(
                port['fixed_ips'][0]['ip_address'],
                str(self.guests.discover(port['mac_address'])))

    def test_another_address_and_mac(self) -> None:
        port = self.create(1)
        self.assertEqual('10.66.1.1', str(self.guests.discover(
            port['mac_address'])))
        for change, mac, address in (
                ({'mac_address': 'fa:16:3e:99:99:99'},
                 'fa:16:3e:99:99:99', '10.66.1.1'),
                ({'fixed_ips': [{'subnet_id': self.subnet_id,
                                 'ip_address': '10.66.1.77'}]},
                 'fa:16:3e:99:99:99', '10.66.1.77')):
            self.assertEqual(200, harness.call(
                'PUT', f'ports/{port["id"]}', {'port': change})[0])
            self.assertEqual(address, str(self.guests.discover(mac)))

    def test_folder_is_held(self) -> None:
        """The driver waits longer for it than the create may."""
        reserved, = self.reserve(self.network, request='req-1')
        before = threading.active_count()
        lock = os.open(self.dnsmasq.hostsdir / '.vmip-lock',
                       os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.refused(1, 'it has not answered in time')
        finally:
            os.close(lock)
        self.assertEqual([], harness.call('GET', 'ports')[1]['ports'])
        self.assertEqual(State.RESERVED, self.row(str(reserved.address)).state)
        # what was waiting for the folder writes, and takes it back
        lab.wait_for(lambda: threading.active_count() <= before)
        self.assertEqual([], self.files())
        self.work_off()
        self.assertEqual([], self.files())
        self.assertEqual([], self.inventory.entries())
        port = self.create(1)
        self.assertEqual(str(reserved.address), str(
            self.guests.discover(port['mac_address'])))

    def test_folder_is_gone(self) -> None:
        self.dnsmasq.hostsdir.rename(self.dnsmasq.hostsdir.with_name('gone'))
        self.refused(1, 'the log of Neutron says why')
        self.assertIn('create the folder', self.log.output)

    def leased_by_a_dead_guest(self) -> str:
        """Return an address that is free but for a lease."""
        port = self.create(1)
        mac = port['mac_address']
        address = str(self.guests.acquire(mac))
        harness.call('DELETE', f'ports/{port["id"]}')
        for item in self.inventory.work(port_ids=[port['id']]):
            manager.load_drivers(shared.configuration())['a'].remove(
                [work._entry(item)])
            self.inventory.work_done(item)
        self.inventory.reserve(
            records.Requester('req-2', base.PROJECT),
            [records.Wanted(self.network, ('web',), (ip(address),))], 600)
        return address

    def test_lease_in_the_way(self) -> None:
        address = self.leased_by_a_dead_guest()
        self.refused(2, 'the lease of a guest that had it before')
        self.assertEqual(address, self.agents.hints[0][0])
        self.assertEqual(State.RESERVED, self.row(address).state)
        # once an agent has seen to it, the next try succeeds
        self.agents.works = True
        port = self.create(2)
        self.assertEqual(address, str(
            self.guests.discover(port['mac_address'])))

    def test_lease_in_the_way_of_a_server_that_ends_leases(self) -> None:
        """The first DISCOVER has its answer, without an agent and a wait."""
        load = manager.load_drivers
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.dhcp.manager.load_drivers', lambda conf: {
                name: releasing.made(driver, self.bridge)
                for name, driver in load(conf).items()}))
        address = self.leased_by_a_dead_guest()
        started = time.monotonic()
        port = self.create(2)
        self.assertLess(time.monotonic() - started, STRICT_TIMEOUT)
        self.assertEqual(address, str(
            self.guests.discover(port['mac_address'])))
        self.assertEqual([], self.agents.hints)

    def deleted_just_now(self) -> dict[str, Any]:
        """Return what asks for the address of a deleted port again.

        The DHCP server has its host entry and lease still.
        """
        port = self.create(1)
        address = str(self.guests.acquire(port['mac_address']))
        harness.call('DELETE', f'ports/{port["id"]}')
        self.assertEqual(State.RELEASING, self.row(address).state)
        return {'admin': True, 'fixed_ips': [
            {'subnet_id': self.subnet_id, 'ip_address': address}]}

    def test_made_again(self) -> None:
        again = self.deleted_just_now()
        before = self.row('10.66.1.1')
        self.refused(2, 'the lease of a guest that had it before', **again)
        after = self.row('10.66.1.1')
        self.assertEqual(
            (before.state, before.evidence, before.port_id, before.mac),
            (after.state, after.evidence, after.port_id, after.mac))
        # the create waits for the agent that ends the lease
        self.agents.works = True
        port = self.create(2, **again)
        self.assertEqual(before.mac, self.agents.hints[-1][1])
        self.assertEqual('10.66.1.1', str(
            self.guests.discover(port['mac_address'])))
        self.work_off()
        self.assertEqual([port['mac_address']], [
            entry.mac for entry in manager.load_drivers(
                shared.configuration())['a'].entries()])

    def test_made_again_where_the_server_ends_leases(self) -> None:
        load = manager.load_drivers
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.dhcp.manager.load_drivers', lambda conf: {
                name: releasing.made(driver, self.bridge)
                for name, driver in load(conf).items()}))
        again = self.deleted_just_now()
        port = self.create(2, **again)
        self.assertEqual('10.66.1.1', str(
            self.guests.discover(port['mac_address'])))
        self.assertEqual([], self.agents.hints)

    def test_nothing_of_neutron_is_asked(self) -> None:
        """A web server's only process must not wait for its own answer."""
        self.useFixture(fixtures.MockPatchObject(
            vmip_cloud.Cloud, '_ask', ZeroDivisionError))
        port = self.create(1)
        harness.call('PUT', f'ports/{port["id"]}', {'port': {'fixed_ips': [
            {'subnet_id': self.subnet_id, 'ip_address': '10.66.1.9'}]}})
        self.assertEqual('10.66.1.9', str(
            self.guests.discover(port['mac_address'])))


class TestPair(StrictTestCase):
    """Two servers, each of which must have the entry."""

    servers = 'ab'

    def test_first_discover_at_each(self) -> None:
        port = self.create(1)
        for one in self.all.values():
            one.end()
            self.assertEqual('10.66.1.1', str(
                self.guests.discover(port['mac_address'])))
            one.up()

    def test_one_cannot_be_written_to(self) -> None:
        self.all['b'].hostsdir.rename(self.all['b'].folder / 'gone')
        self.refused(1, 'server b does not serve')


class TestEitherOfPair(StrictTestCase):
    """Two servers, of which one may lag."""

    servers = 'ab'
    strict_servers = 'any'

    def test_one_cannot_be_written_to(self) -> None:
        one = self.all['b']
        one.hostsdir.rename(one.folder / 'gone')
        macs = []
        for number in range(1, 6):
            port = self.create(number)
            macs.append(port['mac_address'])
            self.assertEqual(f'10.66.1.{number}', str(
                self.guests.discover(macs[-1])))
        one.end()
        (one.folder / 'gone').rename(one.hostsdir)
        one.up()
        self.work_off()
        self.dnsmasq.end()
        self.assertEqual(
            [f'10.66.1.{number}' for number in range(1, 6)],
            [str(self.guests.discover(mac)) for mac in macs])

    def test_one_hangs(self) -> None:
        lock = os.open(self.all['b'].hostsdir / '.vmip-lock',
                       os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            port = self.create(1)
            self.assertEqual('10.66.1.1', str(
                self.guests.discover(port['mac_address'])))
        finally:
            os.close(lock)
        lab.wait_for(lambda: all(e.done for e in self.inventory.entries()))
        self.dnsmasq.end()
        self.assertEqual('10.66.1.1', str(
            self.guests.discover(port['mac_address'])))
