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

"""vmip-agent on a bridge, with a real DHCP server and real clients."""

import signal
import time
from typing import Any

from tests.functional.agent import lab
from tests.unit.agent import test_tracker
from vmip_plugin.dhcp import packet


class ReleaseTest(lab.Lab):
    def test_next_guest_gets_address_of_gone_one(self) -> None:
        self.agent()
        dead, live, late = (self.guest(f'g{n}') for n in range(3))
        dead.udhcpc()
        live.dhclient()
        addresses = {dead.wait_address(), live.wait_address()}
        self.assertEqual(set(lab.POOL), addresses)
        address = dead.address
        assert address is not None
        self.identified(dead)
        self.identified(live)
        dead.destroy()
        self.forget(dead)
        late.udhcpc()
        self.assertEqual(address, late.wait_address())
        time.sleep(3)
        self.assertEqual(address, late.address)
        self.assertEqual(late.mac, self.leases()[address])
        self.assertEqual(0, self.released(str(live.address)))

    def test_client_without_client_id(self) -> None:
        self._one('dhclient')

    def test_source_agent(self) -> None:
        lab.run('ip', '-n', self.host, 'addr', 'add', '10.9.8.2/24', 'dev',
                'br0')
        self._one('udhcpc', source='agent')

    def _one(self, client: str, **options: Any) -> None:
        self.agent(**options)
        guest = self.guest('g0')
        getattr(guest, client)()
        address = guest.wait_address()
        self.identified(guest)
        guest.destroy()
        self.forget(guest)
        lab.wait_for(lambda: address not in self.leases())

    def test_three_tries_at_most(self) -> None:
        self.agent()
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        guest.destroy()
        self.forget(guest)
        lab.wait_for(lambda: self.released(address) == 3)
        time.sleep(3)
        self.assertEqual(3, self.released(address))

    def test_survives_kill(self) -> None:
        agent = self.agent()
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        guest.destroy()
        self.forget(guest)
        self.agent()
        lab.wait_for(lambda: address not in self.leases())

    def test_stops(self) -> None:
        agent = self.agent()
        agent.terminate()
        self.assertEqual(0, agent.wait(lab.PATIENCE))

    def test_interface_comes_back(self) -> None:
        self.agent()
        lab.run('ip', '-n', self.host, 'link', 'del', 'br0')
        lab.wait_for(lambda: 'Cannot listen on br0' in self.log())
        lab.run('ip', '-n', self.host, 'link', 'add', 'br0', 'type',
                'bridge')
        lab.run('ip', '-n', self.host, 'link', 'set', 'br0', 'up')
        lab.run('ip', '-n', self.host, 'link', 'set', 'tap-dhcp', 'master',
                'br0')
        lab.wait_for(
            lambda: self.log().count('Listening for DHCP on br0') == 2)
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        guest.destroy()
        self.forget(guest)
        lab.wait_for(lambda: address not in self.leases())


class ServerOnBridgeTest(lab.Lab):
    server_on_bridge = True

    def test_release(self) -> None:
        self.agent()
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        guest.destroy()
        self.forget(guest)
        lab.wait_for(lambda: address not in self.leases())


class WireTest(lab.Lab):
    """What a release looks like to the server."""

    def _released(self, vlan: int | None, **options: Any) -> list[str]:
        self.seen = watched = self.watch()
        self.agent(**options)
        guest = self.guest('g0')
        tag = b'' if vlan is None else b'\x81\0' + vlan.to_bytes(2, 'big')
        guest.send(*(frame[:12] + tag + frame[12:] for frame in (
            test_tracker.frame(
                guest.mac, packet.MessageType.REQUEST, guest.mac,
                requested=lab.POOL[0], server=lab.SERVER),
            test_tracker.frame(
                self.server_mac, packet.MessageType.ACK, guest.mac, op=2,
                yiaddr=lab.POOL[0], server=lab.SERVER))))
        self.identified(guest)
        self.forget(guest)
        mac = guest.mac

        def found() -> list[str]:
            return [line for line in watched()
                    if line.startswith('RELEASE') and line.endswith(mac)]
        line: str = lab.wait_for(found)[0]
        return line.split()[1:]

    def test_guest_is_source(self) -> None:
        seen = self._released(None)[:-1]
        # a bridge's MAC may change with its ports
        self.assertEqual(['None', self.bridge_mac, lab.POOL[0]], seen)

    def test_agent_is_source(self) -> None:
        lab.run('ip', '-n', self.host, 'addr', 'add', '10.9.8.2/24', 'dev',
                'br0')
        source = self._released(None, source='agent')[2]
        self.assertEqual('10.9.8.2', source)

    def test_other_source_at_a_later_try(self) -> None:
        lab.run('ip', '-n', self.host, 'addr', 'add', '10.9.8.2/24', 'dev',
                'br0')
        self._released(None)

        def sources() -> list[str]:
            return [line.split()[3] for line in self.seen()
                    if line.startswith('RELEASE')]

        # what watches may be slower than the agent's log
        lab.wait_for(lambda: len(sources()) >= 3)
        self.assertEqual([lab.POOL[0], '10.9.8.2', '10.9.8.2'], sources())

    def test_vlan(self) -> None:
        seen = self._released(7)[:-1]
        # a bridge's MAC may change with its ports
        self.assertEqual(['7', self.bridge_mac, lab.POOL[0]], seen)


class HintTest(lab.Lab):
    def _hint(self, before: bool, **hint: Any) -> str:
        """Return the address of a guest whose end the agent is told.

        :param before: the agent is there before the guest.
        """
        guest = self.guest('g0')
        options: dict[str, Any] = {
            'transport_url': 'fake://', 'sweep_interval': 1000}
        if before:
            agent = self.agent(**options)
        guest.udhcpc()
        address = guest.wait_address()
        if before:
            self.identified(guest)
        else:
            agent = self.agent(**options)
        guest.destroy()
        self.forget(guest)
        time.sleep(2)
        self.assertEqual(0, self.released(address))
        self.said['hint'] = {
            'address': address, 'mac': guest.mac, 'port_id': guest.port_id,
            'server_id': guest.server_id, **hint}
        self.say()
        agent.send_signal(signal.SIGUSR1)
        return address

    def test_overheard(self) -> None:
        address = self._hint(True)
        lab.wait_for(lambda: address not in self.leases())

    def test_not_overheard(self) -> None:
        address = self._hint(False, dhcp_server=lab.SERVER)
        lab.wait_for(lambda: address not in self.leases())

    def test_not_overheard_and_no_server(self) -> None:
        address = self._hint(False)
        lab.wait_for(lambda: 'never overheard' in self.log())
        time.sleep(3)
        self.assertIn(address, self.leases())

    def test_bus_is_away(self) -> None:
        agent = self.agent(transport_url='rabbit://a:b@127.0.0.1:1/')
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        guest.destroy()
        self.forget(guest)
        lab.wait_for(lambda: address not in self.leases())
        agent.terminate()
        self.assertEqual(0, agent.wait(lab.PATIENCE))


class VerifyTest(lab.Lab):
    """The agent can read the server's leases."""

    ask_server = True

    def _gone(self) -> lab.Guest:
        guest = self.guest('g0')
        guest.udhcpc()
        guest.wait_address()
        self.identified(guest)
        guest.destroy()
        self.forget(guest)
        return guest

    def test_once(self) -> None:
        self.agent()
        guest = self._gone()
        lab.wait_for(lambda: 'has no lease of' in self.log())
        self.assertNotIn(guest.mac, self.leases().values())
        time.sleep(3)
        self.assertEqual(1, self.log().count('Released '))

    def _deaf(self, *how: str) -> None:
        lab.run('ip', '-n', self.host, 'link', 'set', 'tap-dhcp', *how)

    def test_again_until_it_is_done(self) -> None:
        self.agent()
        guest = self._gone()
        self._deaf('nomaster')
        lab.wait_for(lambda: self.log().count('Released ') == 2)
        self.assertIn(guest.mac, self.leases().values())
        self._deaf('master', 'br0')
        lab.wait_for(lambda: 'has no lease of' in self.log())
        self.assertEqual(3, self.log().count('Released '))

    def test_server_keeps_it(self) -> None:
        self.agent()
        guest = self._gone()
        self._deaf('nomaster')
        lab.wait_for(lambda: 'keeps the lease' in self.log())
        self.assertIn(guest.mac, self.leases().values())
        self.assertEqual(3, self.log().count('Released '))


class SpareTest(lab.Lab):
    """What must never be released, watched over several sweeps."""

    SWEEPS = 6.0

    def test_paused_guest(self) -> None:
        self.agent()
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        guest.pause()
        self._spared(address)
        self.said['up'] = False
        self.say()
        lab.wait_for(lambda: 'cannot be asked' in self.log())
        self._spared(address)
        guest.resume()
        self.said['up'] = True
        self.forget(guest)
        # gone from the cloud, but it answers
        self._spared(address)

    def test_cloud_unavailable(self) -> None:
        self.agent()
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        guest.destroy()
        self.said['up'] = False
        self.forget(guest)
        self._spared(address)

    def test_stranger(self) -> None:
        self.agent()
        printer = self.guest('g0', known=False)
        printer.udhcpc()
        address = printer.wait_address()
        time.sleep(1.5)
        printer.destroy()
        self._spared(address)

    def test_forged_request_for_a_victims_address(self) -> None:
        # A guest asks for its victim's address with the victim's client id,
        # answers itself in the server's name, and is deleted. The server
        # must see none of it: it would be taken in without our help.
        self.agent()
        victim, villain = self.guest('g0'), self.guest('g1')
        victim.udhcpc()
        address = victim.wait_address()
        self.identified(victim)
        victim.pause()
        client_id = b'\x01' + bytes.fromhex(victim.mac.replace(':', ''))
        nobody = bytes.fromhex('020000000099')
        villain.send(
            nobody + test_tracker.frame(
                villain.mac, packet.MessageType.REQUEST, villain.mac,
                requested=address, server=lab.SERVER,
                client_id=client_id)[6:],
            nobody + test_tracker.frame(
                self.server_mac, packet.MessageType.ACK, villain.mac, op=2,
                yiaddr=address, server=lab.SERVER)[6:])
        self.identified(villain)
        villain.destroy()
        self.forget(villain)
        lab.wait_for(lambda: self.released(address) == 3)
        self.assertEqual(
            3, self.log().count(f'Released {address} of {villain.mac}'))
        self.assertEqual(victim.mac, self.leases().get(address))

    def test_forged_release(self) -> None:
        # In a victim's name, but not from its MAC: the lease is remembered.
        self.agent()
        victim, villain = self.guest('g0'), self.guest('g1')
        victim.udhcpc()
        address = victim.wait_address()
        self.identified(victim)
        villain.send(bytes.fromhex('020000000099') + test_tracker.frame(
            villain.mac, packet.MessageType.RELEASE, victim.mac,
            ciaddr=address, server=lab.SERVER)[6:])
        time.sleep(0.5)
        victim.destroy()
        self.forget(victim)
        lab.wait_for(lambda: address not in self.leases())

    def test_dry_run(self) -> None:
        self.agent(dry_run=True)
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        guest.destroy()
        self.forget(guest)
        says = f'Would release {address} of'
        lab.wait_for(lambda: says in self.log())
        self._spared(address)
        self.assertEqual(1, self.log().count(says))

    def _spared(self, address: str) -> None:
        time.sleep(self.SWEEPS)
        self.assertEqual(0, self.released(address), self.log())
        self.assertIn(address, self.leases())


class NamespaceTest(lab.Lab):
    """The bridge is in another namespace than the agent."""

    def setUp(self) -> None:
        super().setUp()
        self.agent_namespace = self.namespace('agent')
        self.options = {'interfaces': f'{self.host}/br0'}

    def test_release(self) -> None:
        self.agent(**self.options)
        self._release('g0')

    def _release(self, name: str) -> None:
        guest = self.guest(name)
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        guest.destroy()
        self.forget(guest)
        lab.wait_for(lambda: address not in self.leases())

    def test_namespace_is_made_anew(self) -> None:
        # The old one lives on as long as the agent has a socket in it.
        other = self.namespace('other')
        lab.run('ip', '-n', other, 'link', 'add', 'br0', 'type', 'bridge')
        lab.run('ip', '-n', other, 'link', 'set', 'br0', 'up')
        self.agent(interfaces=f'{other}/br0')
        lab.run('ip', 'netns', 'del', other)
        lab.run('ip', 'netns', 'add', other)
        lab.wait_for(lambda: f'Cannot listen on {other}/br0' in self.log())
        lab.run('ip', '-n', other, 'link', 'add', 'br0', 'type', 'bridge')
        lab.run('ip', '-n', other, 'link', 'set', 'br0', 'up')
        lab.wait_for(lambda: self.log().count(
            f'Listening for DHCP on {other}/br0') == 2)


class ServerOnBridgeInNamespaceTest(NamespaceTest):
    server_on_bridge = True


class DocumentedTest(lab.Lab):
    """The configuration of the documentation, all of it but its folder."""

    def test_release(self) -> None:
        text = (lab.ROOT / 'doc/examples/agent.conf').read_text()
        (self.path / 'vmip.conf').write_text(
            text.replace('/var/lib/vmip', str(self.path)))
        self.daemon()
        lab.wait_for(lambda: 'Listening for DHCP on br0' in self.log())
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        guest.destroy()
        self.forget(guest)
        lab.wait_for(lambda: address not in self.leases())
