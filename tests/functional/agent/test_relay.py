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

"""The DHCP server is behind a relay (RFC 3046), which is dnsmasq, too."""

import sqlite3
import time
from typing import Any

from tests.functional.agent import lab

_RELAY, _UPLINK, _SERVER = '10.9.8.254', '10.9.9.254', '10.9.9.1'


class RelayTest(lab.Lab):
    def _serve(self) -> None:
        relay, server = self.namespace('relay'), self.namespace('dhcp')
        self.dhcp_namespace = server
        for name, other, address in (('eth0', None, f'{_RELAY}/24'),
                                     ('eth1', server, f'{_UPLINK}/24')):
            peer = ('tap-relay', self.host) if other is None else (
                'eth0', other)
            lab.run('ip', 'link', 'add', name, 'netns', relay, 'type',
                    'veth', 'peer', 'name', peer[0], 'netns', peer[1])
            lab.run('ip', '-n', relay, 'addr', 'add', address, 'dev', name)
            lab.run('ip', '-n', relay, 'link', 'set', name, 'up')
            lab.run('ip', '-n', peer[1], 'link', 'set', peer[0], 'up')
        lab.run('ip', '-n', self.host, 'link', 'set', 'tap-relay', 'master',
                'br0')
        lab.run('ip', 'netns', 'exec', relay, 'sysctl', '-q', '-w',
                'net.ipv4.ip_forward=1')
        lab.run('ip', '-n', server, 'addr', 'add', f'{_SERVER}/24', 'dev',
                'eth0')
        lab.run('ip', '-n', server, 'route', 'add', '10.9.8.0/24', 'via',
                _UPLINK)
        common = ('dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null',
                  '--port=0', '--user=root', '--log-facility=-',
                  '--log-dhcp')
        self.start(*common, f'--dhcp-relay={_RELAY},{_SERVER}',
                   f'--pid-file={self.path}/relay.pid', namespace=relay)
        self.start(
            *common, '--no-ping', '--dhcp-authoritative', '--interface=eth0',
            f'--pid-file={self.path}/dnsmasq.pid',
            f'--dhcp-leasefile={self.path}/dnsmasq.leases',
            f'--dhcp-range={lab.POOL[0]},{lab.POOL[-1]},255.255.255.0,'
            f'{lab.LEASE_SECONDS}', namespace=server, log='dnsmasq.log')
        lab.wait_for((self.path / 'dnsmasq.leases').exists)

    def _dead(self, beside_it: bool) -> str:
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        if beside_it:
            self.identified(guest)
        guest.destroy()
        self.forget(guest)
        return address

    def test_agent_beside_the_guests(self) -> None:
        self.agent()
        address = self._dead(True)
        lab.wait_for(lambda: address not in self.leases())

    def test_agent_beside_the_server(self) -> None:
        # It sees nothing of the guest itself, so that it cannot be sure.
        self.agent_namespace = self.dhcp_namespace
        self.agent(interfaces='eth0')
        address = self._dead(False)
        time.sleep(5)
        self.assertIn(address, self.leases())
        self.assertEqual(0, self.released(address))
        with sqlite3.connect(self.path / 'agent.sqlite') as store:
            found: list[Any] = store.execute(
                'SELECT address, remote, confirmed, dhcp_server,'
                ' port_id IS NOT NULL FROM lease').fetchall()
        store.close()
        self.assertEqual([(address, 1, 1, _SERVER, 0)], found)
