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


"""Strict mode on a real OpenStack: no server without its host entry."""

from collections.abc import Iterator
import contextlib
import fcntl
import os
import threading

from minicloud import netns_guest

from tests.cloud import base
from tests.cloud import harness

DAEMONS = ('vmip-listener', 'vmip-reclaimer', 'vmip-agent')
COMPUTE_LOG = harness.settings.LOG / 'nova-compute.log'


@contextlib.contextmanager
def held_folder() -> Iterator[int]:
    """Keep everybody from changing the DHCP server's folder.

    The value is the descriptor that is locked.
    """
    lock = os.open(harness.HOSTS / '.vmip-lock', os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


class TestStrict(base.CloudTestCase):
    """Fake compute; a namespace with a real DHCP client plays the guest."""

    strict = True

    def tearDown(self) -> None:
        harness.minicloud.start(*DAEMONS)
        self.cloud.forget_servers()
        harness.wait_for('no host entry is left',
                         lambda: not harness.host_entries())

    def create(self, name: str) -> None:
        self.cloud.sdk().compute.create_server(name=name, **self.wanted)

    def boot(self, name: str) -> None:
        """Assert that a server's guest gets its address when it asks."""
        port = self.cloud.port(self.story.active(name).id)
        address = port.fixed_ips[0]['ip_address']
        self.assertEqual(port.mac_address, harness.host_entries()[address])
        with netns_guest.NetnsGuest(port.mac_address) as guest:
            lease = guest.wait_lease(harness.PATIENCE)
            self.assertIsNotNone(lease, f'{name} got no lease')
            self.assertEqual(address, lease.address)

    def test_nobody_else_is_there(self) -> None:
        """Neither listener nor reclaimer: Neutron alone has seen to it."""
        with contextlib.ExitStack() as stopped:
            for daemon in DAEMONS:
                stopped.enter_context(self.story.without(daemon))
            self.create('strict')
            self.boot('strict')

    def test_in_time(self) -> None:
        with held_folder() as lock:
            timer = threading.Timer(5, fcntl.flock, (lock, fcntl.LOCK_UN))
            timer.start()
            self.create('strict')
            self.boot('strict')
            timer.join()

    def test_refused(self) -> None:
        """Nothing is left of the server, and the next one gets through."""
        told = COMPUTE_LOG.stat().st_size
        with held_folder():
            self.create('strict')
            reserved = self.story.reserved('strict')['strict']
            server = harness.wait_for(
                'strict is in ERROR',
                lambda: next(iter(self.cloud.sdk().compute.servers(
                    name='^strict$', status='ERROR')), None), every=0.5)
            self.assertIsNone(self.cloud.port(server.id))
            self.assertEqual({}, harness.host_entries())
        self.assertIn(f'does not serve {reserved} yet',
                      COMPUTE_LOG.read_text()[told:])
        harness.wait_for(f'{reserved} is free', lambda:
                         self.cloud.address_state(reserved) == 'free')
        self.assertEqual({}, harness.host_entries())
        self.create('strict-2')
        self.boot('strict-2')

    def test_network_without_pool(self) -> None:
        with held_folder():
            sdk = self.cloud.sdk()
            sdk.compute.create_server(name='other', **{
                **self.wanted, 'networks': [
                    {'uuid': sdk.network.find_network('provider2').id}]})
            self.story.active('other')
