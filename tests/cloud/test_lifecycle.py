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

"""All that may happen to a server, on the real OpenStack.

Each test is a row of the table in doc/source/lifecycle.rst.
"""

from collections.abc import Iterator
import contextlib
import time
from typing import Any

from tests.cloud import base
from tests.cloud import harness
from vmip_plugin import exceptions
from vmip_plugin.inventory import records

COMPUTES = {'mini-fake': 'nova-compute', 'mini-fake2': 'nova-compute2'}
#: seconds in which whatever was told has been heard
SETTLED = 1.5
SPARE, OTHER_MAC = '192.0.2.115', 'fa:16:3e:00:be:ef'


class LifecycleTestCase(base.CloudTestCase):
    """Fake compute: no guest, hence no lease; the list and host entries."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.compute = cls.cloud.sdk('admin').compute
        cls.network = cls.cloud.sdk('admin').network

    def tearDown(self) -> None:
        if self.keeps_server:
            return
        self.forget()

    keeps_server = False

    @classmethod
    def forget(cls) -> None:
        """Delete every server, and the ports that their owner made."""
        user = cls.cloud.sdk()
        for server in list(user.compute.servers()):
            user.compute.delete_server(server.id)
        harness.wait_for('servers are deleted',
                         lambda: not list(user.compute.servers()))
        for port in list(user.network.ports(
                project_id=user.current_project_id)):
            user.network.delete_port(port.id)
        cls.cloud.forget_servers()

    # -- what users do -----------------------------------------------------

    def ask(self, name: str, **values: Any) -> Any:
        """Send a create request; return the server of its answer."""
        return self.cloud.sdk().compute.create_server(
            name=name, **{**self.wanted, **values})

    def create(self, name: str, **values: Any) -> tuple[Any, str]:
        """Create a server; return it, ACTIVE, and its address."""
        server = self.ask(name, **values)
        self.reaches(server, 'ACTIVE')
        [address] = self.addresses(server)
        self.runs(address, server)
        return server, address

    def reaches(self, server: Any, *statuses: str) -> Any:
        """Wait until a server has one of these statuses, and no task."""
        def check() -> Any:
            found = self.compute.get_server(server.id)
            if found.task_state or found.status not in statuses:
                self.assertNotIn('ERROR', {found.status} - {*statuses},
                                 found.fault)
                return None
            return found
        return harness.wait_for(f'{server.name} is {statuses}', check, 90,
                                0.2)

    def addresses(self, server: Any) -> list[str]:
        """Return the addresses that Neutron says a server has."""
        return sorted(ip['ip_address'] for port in self.network.ports(
            device_id=server.id) for ip in port.fixed_ips)

    def vanishes(self, server: Any) -> None:
        """Wait until Nova says that there is no such server."""
        harness.wait_for(
            f'{server.name} is gone',
            lambda: server.id not in {s.id for s in self.compute.servers(
                all_projects=True)}, every=0.2)

    # -- what there is to see ----------------------------------------------

    def held(self, address: str) -> Any:
        """Return what the list has of an address."""
        found = list(self.cloud.inventory.addresses(
            address=harness.address(address)))
        return found[0][1] if found else None

    def has(self, address: str, state: str, server_id: str | None,
            port: Any) -> None:
        """Assert what the list says and what the DHCP server has."""
        def seen() -> tuple[Any, ...]:
            held = self.held(address)
            return (held.state.value, held.server_id, held.port_id, held.mac,
                    harness.host_entries().get(address))
        expected = (state, server_id, port.id, port.mac_address,
                    port.mac_address)
        with contextlib.suppress(harness.TooLate):
            harness.wait_for(address, lambda: seen() == expected)
        self.assertEqual(expected, seen())

    def runs(self, address: str, server: Any) -> None:
        """Assert that an address is a running server's."""
        [port] = self.network.ports(
            device_id=server.id, fixed_ips=f'ip_address={address}')
        self.has(address, 'active', server.id, port)
        self.assertEqual(server.name, self.held(address).server_name)

    def free(self, address: str) -> None:
        """Assert that an address is nobody's, and nobody is served it."""
        def seen() -> tuple[str, bool]:
            return (self.cloud.address_state(address),
                    address in harness.host_entries())
        with contextlib.suppress(harness.TooLate):
            harness.wait_for(address, lambda: seen() == ('free', False))
        self.assertEqual(('free', False), seen())

    def events(self, address: str) -> list[tuple[str, str]]:
        """Return who changed an address how, since it was last free."""
        found: list[tuple[str, str]] = []
        for change in self.cloud.inventory.history(harness.address(address)):
            if change.old_state == 'free':
                found.clear()
            found.append((change.actor, change.event))
        return found

    @contextlib.contextmanager
    def unchanged(self, address: str) -> Iterator[None]:
        """Assert that neither the list nor the DHCP server changes."""
        def seen() -> tuple[Any, ...]:
            return (self.held(address), harness.host_entries().get(address),
                    [(e.done, e.done_at)
                     for e in self.cloud.inventory.entries()
                     if str(e.address) == address])
        before = seen()
        yield
        time.sleep(SETTLED)
        self.assertEqual(before, seen())


class TestRunning(LifecycleTestCase):
    """One server that keeps its address, whatever is done to it."""

    keeps_server = True

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server, cls.address = cls('forget').create('running')

    @classmethod
    def tearDownClass(cls) -> None:
        cls.forget()

    def keeps(self, action: str, status: str, *args: Any, **values: Any,
              ) -> None:
        """Do something to the server that its address must not feel."""
        with self.unchanged(self.address):
            getattr(self.compute, action)(self.server.id, *args, **values)
            # it is not at once that Nova has begun
            time.sleep(0.3)
            self.reaches(self.server, status)

    def test_stop_start(self) -> None:
        self.keeps('stop_server', 'SHUTOFF')
        self.keeps('start_server', 'ACTIVE')

    def test_pause(self) -> None:
        self.keeps('pause_server', 'PAUSED')
        self.keeps('unpause_server', 'ACTIVE')

    def test_suspend(self) -> None:
        self.keeps('suspend_server', 'SUSPENDED')
        self.keeps('resume_server', 'ACTIVE')

    def test_reboot(self) -> None:
        self.keeps('reboot_server', 'ACTIVE', 'SOFT')
        self.keeps('reboot_server', 'ACTIVE', 'HARD')

    def test_rebuild(self) -> None:
        self.keeps('rebuild_server', 'ACTIVE',
                   image=self.wanted['imageRef'])

    def test_shelve(self) -> None:
        self.keeps('shelve_server', 'SHELVED')
        self.keeps('unshelve_server', 'ACTIVE')

    def test_offload(self) -> None:
        self.keeps('shelve_server', 'SHELVED')
        self.keeps('shelve_offload_server', 'SHELVED_OFFLOADED')
        self.keeps('unshelve_server', 'ACTIVE')

    def test_allowed_address_pairs(self) -> None:
        [port] = self.network.ports(device_id=self.server.id)
        for pairs in ([{'ip_address': SPARE, 'mac_address': OTHER_MAC}], []):
            with self.unchanged(self.address):
                self.network.update_port(port.id,
                                         allowed_address_pairs=pairs)
            self.assertEqual('free', self.cloud.address_state(SPARE))
            self.assertEqual([self.address], [*harness.host_entries()])


class TestPorts(LifecycleTestCase):
    """Interfaces and ports that come, change and go."""

    def test_attach(self) -> None:
        server, address = self.create('attach')
        self.cloud.sdk().compute.create_server_interface(
            server.id, net_id=self.network_id)
        both = self.addresses(server)
        self.assertEqual(2, len(both))
        for each in both:
            self.runs(each, server)

    def test_detach(self) -> None:
        server, address = self.create('detach')
        [port] = self.network.ports(device_id=server.id)
        self.cloud.sdk().compute.delete_server_interface(port.id, server.id)
        self.free(address)

    def own_port(self) -> tuple[Any, str]:
        """Make a port as a plain user."""
        port = self.cloud.sdk().network.create_port(
            network_id=self.network_id)
        address: str = port.fixed_ips[0]['ip_address']
        self.has(address, 'claimed', None, port)
        return port, address

    def test_own_port(self) -> None:
        port, address = self.own_port()
        for name in ('first', 'second'):
            server, same = self.create(name, networks=[{'port': port.id}])
            self.assertEqual(address, same)
            self.cloud.sdk().compute.delete_server(server.id)
            self.vanishes(server)
            self.has(address, 'claimed', None, port)
            self.assertIsNone(self.held(address).server_name)
        self.cloud.sdk().network.delete_port(port.id)
        self.free(address)

    def test_own_port_attached(self) -> None:
        port, address = self.own_port()
        server, _ = self.create('attached')
        compute = self.cloud.sdk().compute
        compute.create_server_interface(server.id, port_id=port.id)
        self.runs(address, server)
        compute.delete_server_interface(port.id, server.id)
        self.has(address, 'claimed', None, port)

    def test_address_update(self) -> None:
        server, address = self.create('address')
        [port] = self.network.ports(device_id=server.id)
        subnet = port.fixed_ips[0]['subnet_id']
        self.network.update_port(port.id, fixed_ips=[
            {'subnet_id': subnet, 'ip_address': SPARE}])
        self.free(address)
        self.runs(SPARE, server)
        # a second one, and the first no more
        self.network.update_port(port.id, fixed_ips=[
            {'subnet_id': subnet, 'ip_address': SPARE},
            {'subnet_id': subnet, 'ip_address': address}])
        self.runs(SPARE, server)
        self.runs(address, server)
        self.network.update_port(port.id, fixed_ips=[
            {'subnet_id': subnet, 'ip_address': address}])
        self.free(SPARE)
        self.runs(address, server)

    def test_address_update_and_back(self) -> None:
        server, address = self.create('back')
        [port] = self.network.ports(device_id=server.id)
        subnet = port.fixed_ips[0]['subnet_id']
        for each in (SPARE, address, SPARE, address):
            self.network.update_port(port.id, fixed_ips=[
                {'subnet_id': subnet, 'ip_address': each}])
        self.runs(address, server)
        self.free(SPARE)

    def test_addresses_swapped(self) -> None:
        one, two = (self.network.create_port(network_id=self.network_id)
                    for _ in range(2))
        (first, subnet), (second, _) = (
            (port.fixed_ips[0]['ip_address'], port.fixed_ips[0]['subnet_id'])
            for port in (one, two))
        try:
            for port, address in ((one, SPARE), (two, first), (one, second)):
                self.network.update_port(port.id, fixed_ips=[
                    {'subnet_id': subnet, 'ip_address': address}])
            self.has(first, 'claimed', None, two)
            self.has(second, 'claimed', None, one)
            self.free(SPARE)
        finally:
            # they are not the user's, whose own are deleted after the test
            for port in (one, two):
                self.network.delete_port(port.id)

    def test_own_port_made_again(self) -> None:
        port, address = self.own_port()
        fixed = [{'subnet_id': port.fixed_ips[0]['subnet_id'],
                  'ip_address': address}]
        for _ in range(3):
            self.network.delete_port(port.id)
            # it has to be the first try: an error is raised here
            port = self.network.create_port(
                network_id=self.network_id, fixed_ips=fixed)
            self.has(address, 'claimed', None, port)
        self.network.delete_port(port.id)
        self.free(address)

    def test_mac_update(self) -> None:
        port, address = self.own_port()
        # Neutron changes no MAC of a port that a host has
        port = self.network.update_port(port.id, mac_address=OTHER_MAC)
        self.has(address, 'claimed', None, port)
        server, _ = self.create('mac', networks=[{'port': port.id}])
        self.assertEqual(OTHER_MAC, self.held(address).mac)


class TestEnds(LifecycleTestCase):
    """How servers end, and some before they began."""

    def test_delete(self) -> None:
        server, address = self.create('delete')
        self.cloud.sdk().compute.delete_server(server.id)
        self.free(address)

    def test_delete_and_make_again(self) -> None:
        """As Terraform replaces a server: at the first try."""
        server, address = self.create('again')
        for _ in range(2):
            self.compute.delete_server(server.id)
            self.vanishes(server)
            # a plain user may not ask for an address
            server = self.compute.create_server(name='again', **{
                **self.wanted, 'networks': [
                    {'uuid': self.network_id, 'fixed_ip': address}]})
            self.reaches(server, 'ACTIVE')
            self.assertEqual([address], self.addresses(server))
            self.runs(address, server)
        self.compute.delete_server(server.id)
        self.vanishes(server)
        self.free(address)

    def test_last_address(self) -> None:
        """Every other address of the pool is reserved by hand."""
        server, address = self.create('last')
        inventory = self.cloud.inventory
        pool, _ = next(iter(inventory.pools()))
        held = []
        self.addCleanup(lambda: [inventory.unhold(pool.name, each)
                                 for each in held])
        with contextlib.suppress(exceptions.PoolExhausted):
            while True:
                held.append(inventory.hold(records.Hold(
                    pool.name, project_id='nobody')).address)
        self.cloud.sdk().compute.delete_server(server.id)
        self.vanishes(server)
        server, same = self.create('next')
        self.assertEqual(address, same)

    def test_delete_offloaded(self) -> None:
        """No nova-compute has the server: nova-api deletes it."""
        server, address = self.create('offloaded')
        self.compute.shelve_server(server.id)
        self.reaches(server, 'SHELVED')
        self.compute.shelve_offload_server(server.id)
        self.reaches(server, 'SHELVED_OFFLOADED')
        self.cloud.sdk().compute.delete_server(server.id)
        self.free(address)

    def test_no_valid_host(self) -> None:
        flavor = self.cloud.sdk().compute.find_flavor('huge')
        server = self.ask('huge', flavorRef=flavor.id)
        [address] = self.reserved('huge')
        self.reaches(server, 'ERROR')
        self.free(address)

    def reserved(self, name: str) -> list[str]:
        """Return the addresses that are reserved for a server's name."""
        return [str(held.address) for _, held in
                self.cloud.inventory.addresses(server=name)]

    def test_delete_while_building(self) -> None:
        """nova-compute has not begun to build it."""
        with self.story.without('nova-compute'):
            server = self.ask('early')
            [address] = self.reserved('early')
            harness.wait_for(
                'the scheduler has chosen a host and cell',
                lambda: self.compute.get_server(
                    server.id).instance_name.startswith('instance-'))
            self.assertEqual('reserved', self.cloud.address_state(address))
            self.cloud.sdk().compute.delete_server(server.id)
            self.free(address)
        self.vanishes(server)
        time.sleep(SETTLED)
        self.free(address)

    def test_delete_at_any_moment(self) -> None:
        addresses = []
        for tenths in range(0, 16, 3):
            server = self.ask(f'moment-{tenths}')
            addresses += self.reserved(server.name)
            time.sleep(tenths / 10)
            self.cloud.sdk().compute.delete_server(server.id)
        for address in addresses:
            # of those that Nova told nothing of, vmip-reclaimer asks it
            self.free(address)

    def test_soft_delete(self) -> None:
        with harness.configured('nova.conf', '[DEFAULT]\n'
                                'reclaim_instance_interval = 3600\n',
                                'nova-api'):
            server, address = self.create('soft')
            user = self.cloud.sdk().compute
            with self.unchanged(address):
                user.delete_server(server.id)
                self.reaches(server, 'SOFT_DELETED')
            with self.unchanged(address):
                self.compute.restore_server(server.id)
                self.reaches(server, 'ACTIVE')
            user.delete_server(server.id)
            self.reaches(server, 'SOFT_DELETED')
            user.delete_server(server.id, force=True)
            self.free(address)


class TestTwoHosts(LifecycleTestCase):
    """Servers that go from one host to another, and hosts that fail."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        harness.minicloud.start('nova-compute2')
        cls.stack.callback(harness.minicloud.stop, 'nova-compute2')
        cls.stack.callback(cls.forget)
        cls.host2(disabled=False)
        cls.stack.callback(cls.host2, disabled=True)

    @classmethod
    def host2(cls, disabled: bool) -> None:
        """Let the scheduler take the second host, or not."""
        for service in cls.compute.services(host='mini-fake2'):
            if disabled:
                cls.compute.disable_service(service)
            else:
                cls.compute.enable_service(service)

    def host(self, server: Any) -> str:
        """Return where a server is."""
        name: str = self.compute.get_server(server.id).compute_host
        return name

    @contextlib.contextmanager
    def down(self, host: str) -> Iterator[None]:
        """Stop a host's nova-compute, and let Nova know."""
        [service] = self.compute.services(host=host, binary='nova-compute')
        try:
            with self.story.without(COMPUTES[host]):
                self.compute.update_service_forced_down(service, forced=True)
                yield
        finally:
            # Nova takes it only once the host has seen what it has lost
            self.compute.update_service_forced_down(service, forced=False)

    def other(self, server: Any, before: str) -> None:
        self.assertNotEqual(before, self.host(server))

    def test_cold_migration(self) -> None:
        server, address = self.create('cold')
        for end in ('confirm_server_resize', 'revert_server_resize'):
            before = self.host(server)
            with self.unchanged(address):
                self.compute.migrate_server(server.id)
                self.reaches(server, 'VERIFY_RESIZE')
                self.other(server, before)
                getattr(self.compute, end)(server.id)
                self.reaches(server, 'ACTIVE')

    def resized(self, name: str, end: str) -> None:
        server, address = self.create(name)
        flavor = (self.compute.find_flavor('larger')
                  or self.compute.create_flavor(
                      name='larger', ram=256, vcpus=1, disk=1))
        with self.unchanged(address):
            self.compute.resize_server(server.id, flavor.id)
            self.reaches(server, 'VERIFY_RESIZE')
        with self.unchanged(address):
            getattr(self.compute, end)(server.id)
            self.reaches(server, 'ACTIVE')

    def test_resize_confirm(self) -> None:
        self.resized('confirm', 'confirm_server_resize')

    def test_resize_revert(self) -> None:
        self.resized('revert', 'revert_server_resize')

    def test_live_migration(self) -> None:
        server, address = self.create('live')
        before = self.host(server)
        with self.unchanged(address):
            self.compute.live_migrate_server(server.id, block_migration='auto')
            harness.wait_for('it is on the other host',
                             lambda: self.host(server) != before, every=0.2)
            self.reaches(server, 'ACTIVE')

    def test_evacuate(self) -> None:
        server, address = self.create('evacuate')
        before = self.host(server)
        # the host comes back, and removes what is no longer its own
        with self.unchanged(address), self.down(before):
            self.compute.evacuate_server(server.id)
            harness.wait_for('it is on the other host',
                             lambda: self.host(server) != before, every=0.2)
            # from 2.95 on it is not started there
            self.reaches(server, 'SHUTOFF')

    def test_nova_compute_down(self) -> None:
        """nova-api deletes the server itself, and tells it."""
        server, address = self.create('down')
        with self.down(self.host(server)):
            self.cloud.sdk().compute.delete_server(server.id)
            self.vanishes(server)
            self.free(address)

    def test_reschedule(self) -> None:
        server, address = self.create('reschedule')
        self.assertEqual('mini-fake', self.host(server))
        [create] = self.compute.server_actions(server)
        tries = self.compute.get_server_action(create.request_id, server)
        self.assertLessEqual({'mini-fake2', 'mini-fake'},
                             {event.host for event in tries.events})

    def test_spawn_error(self) -> None:
        server = self.ask('spawn-error')
        [address] = [str(held.address) for _, held in
                     self.cloud.inventory.addresses(server='spawn-error')]
        self.reaches(server, 'ERROR')
        self.free(address)

    def test_cells(self) -> None:
        """A cell's nova-compute has topics of its own."""
        def ready() -> int:
            log = harness.settings.LOG / 'vmip-listener.log'
            return log.read_text().count('vmip-listener is ready')

        before = ready()
        with harness.configured(
                'nova-compute-fake2.conf', '[notifications]\n'
                'versioned_notifications_topics = cell2_versioned\n'
                '[oslo_messaging_notifications]\ntopics = cell2\n',
                'nova-compute2'), harness.configured(
                'vmip.conf', '[listener]\n'
                'topics = notifications,cell2\n'
                'versioned_topics = versioned_notifications,cell2_versioned\n',
                'vmip-listener'):
            # RabbitMQ keeps nothing of topics that nobody asked for yet
            harness.wait_for('vmip-listener', lambda: ready() > before)
            server, address = self.create('cell')
            self.assertEqual('mini-fake2', self.host(server))
            self.cloud.sdk().compute.delete_server(server.id)
            self.free(address)
