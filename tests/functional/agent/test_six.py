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

"""vmip-agent and DHCPv6: a real dnsmasq, real clients, real NDP."""

import re
import signal
import time

from tests.functional.agent import lab

_SERVER = '2001:db8:66::1'
#: the whole pool
POOL = ('2001:db8:66::10', '2001:db8:66::11')
_SCRIPT = """#!/bin/sh
case "$reason" in
BOUND6|RENEW6|REBIND6)
    ip -6 addr replace "$new_ip6_address/64" dev "$interface" nodad ;;
esac
"""


class Six(lab.Lab):
    def _serve(self) -> None:
        if self.server_on_bridge:
            namespace, interface = self.host, 'br0'
        else:
            namespace, interface = self.namespace('dhcp'), 'eth0'
            lab.run('ip', 'link', 'add', 'tap-dhcp', 'netns', self.host,
                    'type', 'veth', 'peer', 'name', 'eth0', 'netns',
                    namespace)
            lab.run('ip', '-n', self.host, 'link', 'set', 'tap-dhcp',
                    'master', 'br0', 'up')
            lab.run('ip', '-n', namespace, 'link', 'set', 'eth0', 'up')
        lab.run('ip', '-n', namespace, 'addr', 'add', f'{_SERVER}/64', 'dev',
                interface, 'nodad')
        self.dhcp_namespace = namespace
        self._ready(namespace, interface)
        self.start(
            'dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null',
            '--port=0', '--user=root', f'--interface={interface}',
            '--bind-interfaces', '--log-dhcp', '--log-facility=-',
            f'--pid-file={self.path}/dnsmasq.pid',
            f'--dhcp-leasefile={self.path}/dnsmasq.leases',
            f'--dhcp-range={POOL[0]},{POOL[-1]},64,{lab.LEASE_SECONDS}',
            namespace=namespace, log='dnsmasq.log')
        lab.wait_for((self.path / 'dnsmasq.leases').exists)

    def _ready(self, namespace: str, interface: str) -> None:
        """Wait until the link-local address may be used."""
        def usable() -> bool:
            found = lab.run('ip', '-n', namespace, '-6', 'addr', 'show',
                            interface, 'scope', 'link')
            return 'fe80' in found and 'tentative' not in found
        if namespace != self.host:
            lab.wait_for(usable)

    def dhclient(self, guest: lab.Guest) -> str:
        self._ready(guest.namespace, 'eth0')
        base = self.path / guest.name
        self.start(
            'dhclient', '-6', '-d', '-sf', self.script('dhclient6', _SCRIPT),
            '-cf', '/dev/null', '-lf', f'{base}.leases6', '-pf',
            f'{base}.pid6', 'eth0', namespace=guest.namespace)

        def address() -> str | None:
            found = re.search(r'inet6 (2001\S+)/', lab.run(
                'ip', '-n', guest.namespace, '-6', 'addr', 'show', 'eth0'))
            return found[1] if found else None
        return str(lab.wait_for(address))

    def leased(self) -> set[str]:
        text = (self.path / 'dnsmasq.leases').read_text()
        return {address for address in POOL if f' {address} ' in text}

    def _release(self) -> None:
        self.agent()
        dead, live = self.guest('g0'), self.guest('g1')
        address, other = self.dhclient(dead), self.dhclient(live)
        self.assertEqual({address, other}, self.leased())
        self.identified(dead)
        self.identified(live)
        dead.destroy()
        self.forget(dead)
        # the cloud has the other one neither, but it answers
        self.forget(live)
        time.sleep(3)
        self.assertEqual({address, other}, self.leased(), self.log())
        # Neutron is believed again when it knows somebody who answers
        self.said['ports'].append([live.port_id, live.mac, live.server_id])
        self.say()
        lab.wait_for(lambda: address not in self.leased())
        time.sleep(3)
        self.assertEqual({other}, self.leased())
        self.assertEqual(0, self.released(other))


class SixTest(Six):
    def test_release(self) -> None:
        self._release()

    def test_paused_guest(self) -> None:
        self.agent()
        guest = self.guest('g0')
        address = self.dhclient(guest)
        self.identified(guest)
        guest.pause()
        time.sleep(5)
        self.assertEqual({address}, self.leased())
        self.forget(guest)
        guest.resume()
        time.sleep(3)
        self.assertEqual({address}, self.leased())
        self.assertEqual(0, self.released(address))

    def test_hint(self) -> None:
        agent = self.agent(transport_url='fake://', sweep_interval=1000)
        guest = self.guest('g0')
        address = self.dhclient(guest)
        self.identified(guest)
        guest.destroy()
        self.forget(guest)
        self.said['hint'] = {
            'address': address, 'mac': guest.mac, 'port_id': guest.port_id,
            'server_id': guest.server_id}
        self.say()
        agent.send_signal(signal.SIGUSR1)
        lab.wait_for(lambda: address not in self.leased())


class SixOnBridgeTest(Six):
    server_on_bridge = True

    def test_release(self) -> None:
        self._release()
