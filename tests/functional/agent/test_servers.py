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

"""The agent's DHCPRELEASE and the servers that may get it."""

import testtools

from tests.functional.agent import pools
from tests import lab
from tests.unit.agent import test_guests
from vmip_plugin.agent import release

_MACS = tuple(f'fa:16:3e:66:01:0{number}' for number in range(1, 4))


class DnsmasqTest(testtools.TestCase):
    server = 'dnsmasq'

    def setUp(self) -> None:
        super().setUp()
        self.bridge = self._enter(lab.Bridge())
        folder = self._enter(lab.Folder()).path
        self._enter(pools.SERVERS[self.server](self.bridge, folder, 120))
        self.prober = self._enter(lab.Prober(self.bridge))

    def _enter(self, one: lab.ManagedT) -> lab.ManagedT:
        one.__enter__()
        self.addCleanup(one.__exit__, None, None, None)
        return one

    def _release(self, host: lab.Bridge) -> None:
        """See a full pool get an address back by what this host sends."""
        dead, _ = leased = [
            self.prober.acquire(mac) for mac in _MACS[:2]]
        assert dead is not None
        self.assertEqual(sorted(pools.POOL), sorted(map(str, leased)))
        self.assertIsNone(self.prober.acquire(_MACS[2], 0.5))
        lease = test_guests.lease(_MACS[0], address=dead,
                                  dhcp_server=self.bridge.address.ip)
        host.inside(lambda: release.Releaser(
            ['br0'], 'guest', 0.3).release(lease, None))
        # Kea 3.0 takes up to a second
        self.assertEqual(dead, lab.wait_for(
            lambda: self.prober.acquire(_MACS[2], 0.2)))

    def test_on_the_agents_host(self) -> None:
        self._release(self.bridge)

    def test_on_another_host(self) -> None:
        other = self._enter(lab.Bridge('10.66.255.253/16'))
        self.bridge.join(other)
        self._release(other)


class Kea22Test(DnsmasqTest):
    server = 'Kea 2.2'


class Kea30Test(DnsmasqTest):
    server = 'Kea 3.0'


class DhcpdTest(DnsmasqTest):
    server = 'dhcpd'
