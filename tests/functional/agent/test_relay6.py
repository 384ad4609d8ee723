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

"""The DHCPv6 server is behind a relay (RFC 8415 section 9): dnsmasq, too."""

import sqlite3
import time
from typing import Any

from tests.functional.agent import lab
from tests.functional.agent import test_six

_RELAY, _UPLINK, _SERVER = (
    '2001:db8:66::fe', '2001:db8:67::fe', '2001:db8:67::1')


class Relay6Test(test_six.Six):
    def _serve(self) -> None:
        relay, server = self.namespace('relay'), self.namespace('dhcp')
        self.dhcp_namespace = server
        for name, peer, namespace, address in (
                ('eth0', 'tap-relay', self.host, _RELAY),
                ('eth1', 'eth0', server, _UPLINK)):
            lab.run('ip', 'link', 'add', name, 'netns', relay, 'type',
                    'veth', 'peer', 'name', peer, 'netns', namespace)
            lab.run('ip', '-n', relay, 'addr', 'add', f'{address}/64', 'dev',
                    name, 'nodad')
            lab.run('ip', '-n', relay, 'link', 'set', name, 'up')
            lab.run('ip', '-n', namespace, 'link', 'set', peer, 'up')
        lab.run('ip', '-n', self.host, 'link', 'set', 'tap-relay', 'master',
                'br0')
        lab.run('ip', '-n', server, 'addr', 'add', f'{_SERVER}/64', 'dev',
                'eth0', 'nodad')
        lab.run('ip', '-n', server, 'route', 'add', '2001:db8:66::/64', 'via',
                _UPLINK)
        self._ready(relay, 'eth0')
        self._ready(server, 'eth0')
        common = ('dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null',
                  '--port=0', '--user=root', '--log-facility=-',
                  '--log-dhcp')
        self.start(*common, f'--dhcp-relay={_RELAY},{_SERVER}',
                   f'--pid-file={self.path}/relay.pid', namespace=relay,
                   log='relay.log')
        self.start(
            *common, '--interface=eth0',
            f'--pid-file={self.path}/dnsmasq.pid',
            f'--dhcp-leasefile={self.path}/dnsmasq.leases',
            f'--dhcp-range={test_six.POOL[0]},{test_six.POOL[-1]},64,'
            f'{lab.LEASE_SECONDS}', namespace=server, log='dnsmasq.log')
        lab.wait_for((self.path / 'dnsmasq.leases').exists)

    def _dead(self, beside_it: bool) -> tuple[str, str]:
        guest = self.guest('g0')
        address = self.dhclient(guest)
        if beside_it:
            self.identified(guest)
        guest.destroy()
        self.forget(guest)
        return address, guest.mac

    def test_agent_beside_the_guests(self) -> None:
        self.agent()
        address, _ = self._dead(True)
        lab.wait_for(lambda: address not in self.leased())

    def test_agent_beside_the_server(self) -> None:
        # It sees nothing of the guest itself, so that it cannot be sure.
        self.agent_namespace = self.dhcp_namespace
        self.agent(interfaces='eth0')
        address, mac = self._dead(False)
        time.sleep(5)
        self.assertIn(address, self.leased())
        self.assertEqual(0, self.released(address))
        with sqlite3.connect(self.path / 'agent.sqlite') as store:
            found: list[Any] = store.execute(
                'SELECT address, mac, remote, confirmed, dhcp_server,'
                ' port_id IS NOT NULL FROM lease').fetchall()
        store.close()
        self.assertEqual([(address, mac, 1, 1, _SERVER, 0)], found)
