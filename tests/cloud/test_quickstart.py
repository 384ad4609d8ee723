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

"""The way of doc/source/quickstart.rst, there and back, on a real cloud."""

from collections.abc import Iterator
from concurrent import futures
import contextlib
from pathlib import Path
import subprocess
import time
from typing import Any
import unittest

import kombu
from minicloud import config
from minicloud import netns_guest
from minicloud import services
from minicloud import settings

from tests.cloud import harness
from tests.cloud import story

EXAMPLE = settings.CHECKOUT / 'doc/examples/site/vmip.conf'
PASTE = settings.MORE / 'api-paste.ini'
PASSWORD = 'quickstart'
NEUTRON = ('neutron-api', 'neutron-rpc')
NOVA = ('nova-api', 'nova-conductor', 'nova-scheduler', 'nova-compute')
DAEMONS = ('vmip-listener', 'vmip-reclaimer', 'vmip-agent')


def vmip_conf() -> str:
    """Return the docs' vmip.conf with the values of this cloud."""
    values = settings.values()
    text = EXAMPLE.read_text()
    for old, new in {
            'rabbit://openstack:PASSWORD@controller/':
                values['transport_url'],
            'vmip:PASSWORD@controller/vmip':
                f'vmip:{PASSWORD}@127.0.0.1:{values["port_mariadb"]}/vmip',
            'https://controller:5000/v3': values['keystone_url'],
            'password = PASSWORD': f'password = {values["password_vmip"]}',
            '/var/lib/vmip-dnsmasq': str(harness.HOSTS),
            '/var/lib/misc/dnsmasq.leases': str(harness.LEASES),
            '/run/dnsmasq/dnsmasq.pid': str(settings.DHCP1 / 'dnsmasq.pid'),
            'br-provider': values['bridge_physnet1'],
    }.items():
        assert text.count(old) == 1, f'{EXAMPLE} has no {old}'
        text = text.replace(old, new)
    return f'{text}store = {settings.STATE}/vmip/quickstart.sqlite\n'


def operators(name: str) -> str:
    """Return what the docs tell the operator to put into a file."""
    return config.render(config.OPERATOR / name, settings.values())


def forget_list() -> None:
    services.sql('DROP DATABASE IF EXISTS vmip; DROP USER IF EXISTS vmip')


def forget_entries() -> None:
    for path in harness.HOSTS.iterdir():
        if path.name.startswith(('vmip-', '.vmip-')):
            path.unlink()


@contextlib.contextmanager
def running(*names: str) -> Iterator[None]:
    """Run the plugin's services, of which this cloud knows nothing."""
    started = []
    try:
        for name in names:
            with open(settings.LOG / f'quickstart-{name}.log', 'wb') as log:
                started.append(subprocess.Popen(
                    [harness.BIN / name, '--config-file', settings.VMIP_CONF],
                    stdout=log, stderr=log))
        yield
        assert [p.poll() for p in started] == [None] * len(names)
    finally:
        for one in started:
            one.terminate()
        for one in started:
            one.wait(30)


class TestQuickstart(unittest.TestCase):
    """Fake compute; a namespace with a real DHCP client plays the guest."""

    def setUp(self) -> None:
        harness.minicloud.up('fake', vmip=False)
        self.addCleanup(forget_list)
        self.addCleanup(PASTE.unlink, missing_ok=True)
        settings.write_private(settings.VMIP_CONF, vmip_conf())
        self.cloud = harness.Cloud()
        self.story = story.Story(self.cloud, lambda line: None)
        self.delete()
        forget_entries()
        self.began = time.monotonic()

    def say(self, what: str) -> None:
        print(f'quickstart: {what} after '
              f'{time.monotonic() - self.began:.0f} s', flush=True)

    def create(self, name: str) -> Any:
        self.story.create(name)
        return self.cloud.port(self.story.active(name).id)

    def delete(self) -> None:
        compute = self.cloud.sdk().compute
        for server in compute.servers():
            compute.delete_server(server.id)
        harness.wait_for('the servers are gone',
                         lambda: not list(compute.servers()))

    def test_there_and_back(self) -> None:
        old = self.create('quick-old')
        stock = (settings.ETC / 'nova/api-paste.ini').read_bytes()
        self.say('a cloud without the plugin has a server')
        with contextlib.ExitStack() as there:
            self.to_the_list()
            self.to_neutron_and_nova(there, stock)
            there.enter_context(running(*DAEMONS))
            self.to_the_pool(old)
            self.to_the_guest()
            self.to_the_doctor()
            self.to_the_end_of_the_lease()
            self.manage('address', 'export', settings.STATE / 'list.csv')
            self.manage('disable', PASTE)
            self.assertEqual(stock, PASTE.read_bytes())
            self.assertEqual([PASTE], list(settings.MORE.glob('api-paste*')))
            harness.minicloud.start('nova-api')
        self.wake_neutron()
        self.forget_queue()
        forget_entries()
        forget_list()
        self.say('disabled')
        self.assertEqual(old.fixed_ips, self.cloud.port(
            self.cloud.server('quick-old').id).fixed_ips)
        self.assertTrue(self.create('quick-new').fixed_ips)
        self.delete()
        self.assertEqual([], list(self.cloud.sdk('admin').network.ports(
            device_owner='compute:nova')))
        self.say('the cloud works as before')

    def manage(self, *words: str | Path) -> str:
        return subprocess.run(
            [harness.BIN / 'vmip-manage', '--config-file', settings.VMIP_CONF,
             *words], check=True, capture_output=True, text=True).stdout

    def to_the_list(self) -> None:
        forget_list()
        services.sql(f"CREATE DATABASE vmip; CREATE USER vmip IDENTIFIED BY "
                     f"'{PASSWORD}'; GRANT ALL ON vmip.* TO vmip")
        self.manage('db', 'upgrade')
        check = subprocess.run(
            [harness.BIN / 'vmip-status', '--config-file', settings.VMIP_CONF,
             'upgrade', 'check'], capture_output=True, text=True, check=False)
        # it warns that there is no pool, and of nothing else
        self.assertEqual(1, check.returncode, check.stdout + check.stderr)
        self.assertEqual(1, check.stdout.count('Warning'), check.stdout)
        self.say('the list is there')

    def to_neutron_and_nova(self, there: contextlib.ExitStack,
                            stock: bytes) -> None:
        there.enter_context(harness.configured(
            'neutron.conf', operators('neutron.conf'), *NEUTRON))
        self.cloud.openstack('subnet', 'set', '--no-dhcp', 'provider1-v4',
                             user='admin')
        self.wake_neutron()
        self.say('Neutron has the driver')
        PASTE.write_bytes(stock)
        self.assertIn('+keystone = ', self.manage(
            'enable', '--dry-run', PASTE))
        self.assertEqual(stock, PASTE.read_bytes())
        self.manage('enable', PASTE)
        there.enter_context(harness.configured(
            'nova.conf', operators('nova.conf'), *NOVA))
        self.assertIn(b'vmip', (settings.ETC / 'nova/api-paste.ini'
                                ).read_bytes())
        self.say('Nova has the filter')

    def wake_neutron(self) -> None:
        """Ask each process, which fails if its first question is for ports.

        As many at a time as keep all of them busy.
        """
        network = self.cloud.sdk('admin').network
        with futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: list(network.networks()), range(40)))

    def to_the_pool(self, old: Any) -> None:
        words = ('pool', 'create', 'provider1', '--subnet', 'provider1-v4',
                 '--dhcp-server', 'site1', '--adopt')
        self.cloud.manage(*words, '--dry-run')
        self.assertEqual([], list(self.cloud.inventory.pools()))
        self.cloud.manage(*words)
        self.assertNotEqual('free', self.cloud.address_state(
            old.fixed_ips[0]['ip_address']))
        harness.wait_for('dhcp check finds nothing', lambda: subprocess.run(
            [harness.BIN / 'vmip-manage', '--config-file', settings.VMIP_CONF,
             'dhcp', 'check'], capture_output=True, check=False,
            ).returncode == 0, 30)
        self.say('the pool is there')

    def to_the_guest(self) -> None:
        predicted, = self.cloud.manage(
            'address', 'predict', 'quick-guest', '--pool', 'provider1',
            '--project', self.cloud.sdk().current_project_id)
        port = self.create('quick-guest')
        address = port.fixed_ips[0]['ip_address']
        self.assertEqual(predicted['address'], address)
        harness.wait_for(
            'the host entry is there',
            lambda: harness.host_entries().get(address) == port.mac_address,
            30)
        with netns_guest.NetnsGuest(port.mac_address) as guest:
            lease = guest.wait_lease(harness.PATIENCE)
            self.assertIsNotNone(lease)
            self.assertEqual(address, lease.address)
        self.say(f'a guest has the predicted address {address}')

    def to_the_doctor(self) -> None:
        """No point fails, and none is left out."""
        found = self.cloud.manage(
            'doctor', *(word for option, path in {
                '--paste-file': 'nova/api-paste.ini',
                '--nova-conf': 'nova/nova.conf',
                '--neutron-conf': 'neutron/neutron.conf',
                '--ml2-conf': 'neutron/ml2_conf.ini'}.items()
                for word in (option, str(settings.ETC / path))))
        self.assertEqual([], [row for row in found
                              if row['result'] == 'NOT CHECKED'])
        self.say(f'the doctor has seen {len(found)} points')

    def to_the_end_of_the_lease(self) -> None:
        server = self.cloud.server('quick-guest')
        address = self.cloud.port(server.id).fixed_ips[0]['ip_address']
        self.assertIn(address, harness.leases())
        self.cloud.openstack('server', 'delete', 'quick-guest')
        harness.wait_for('the lease is gone',
                         lambda: address not in harness.leases())
        self.say('the guest and its lease are gone')

    def forget_queue(self) -> None:
        url = settings.values()['transport_url']
        with kombu.Connection(url.replace('rabbit:', 'amqp:', 1)) as broker:
            broker.default_channel.queue_declare('vmip', passive=True)
            broker.default_channel.queue_delete('vmip')
