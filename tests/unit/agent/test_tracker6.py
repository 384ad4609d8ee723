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

"""What DHCPv6 on a link tells."""

import ipaddress
import time
from unittest import mock

import testtools

from tests.unit.agent import pcap
from tests.unit.dhcp import test_packet6
from vmip_plugin.agent import frames
from vmip_plugin.agent import snoop
from vmip_plugin.agent import tracker
from vmip_plugin.dhcp import packet6

GUEST, OTHER = 'fa:16:3e:00:00:01', 'fa:16:3e:00:00:02'
SERVER_MAC = '52:00:00:00:00:01'
ADDRESS, DUID, SERVER = (test_packet6.ADDRESS, test_packet6.CLIENT,
                         test_packet6.SERVER)
Type, Kind = packet6.MessageType, tracker.Kind


def frame(source: str, payload: bytes, vlan: int | None = None) -> bytes:
    ports = (547, 546) if source == SERVER_MAC else (546, 547)
    return frames.build_datagram(frames.Datagram(
        source, '33:33:00:01:00:02', vlan, frames.link_local(source),
        packet6.SERVERS, *ports, payload))


class Base(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.listener = snoop.Listener('br0')

    def ask(self, kind: packet6.MessageType, source: str = GUEST,
            xid: int = 5, vlan: int | None = None
            ) -> tracker.Overheard | None:
        return self.listener.hear(frame(source, test_packet6.message(
            kind, test_packet6.ia((ADDRESS, 0)), xid=xid), vlan))

    def answer(self, valid: int = 60, xid: int = 5,
               server: bytes | None = SERVER, vlan: int | None = None
               ) -> tracker.Overheard | None:
        return self.listener.hear(frame(SERVER_MAC, test_packet6.message(
            Type.REPLY, test_packet6.ia((ADDRESS, valid)), xid=xid,
            server=server), vlan))


class ListenerTest(Base):
    def test_granted(self) -> None:
        for kind in (Type.SOLICIT, Type.REQUEST, Type.RENEW, Type.REBIND):
            for vlan in (None, 7):
                asked = self.ask(kind, vlan=vlan)
                granted = self.answer(vlan=vlan)
                assert asked is not None and granted is not None
                self.assertEqual((Kind.REQUESTED, None, GUEST, ADDRESS), (
                    asked.kind, asked.dhcp_server, asked.mac, asked.address))
                self.assertEqual(
                    tracker.Overheard(
                        Kind.GRANTED, ADDRESS, GUEST, 'br0', granted.seen,
                        vlan, frames.link_local(SERVER_MAC), SERVER_MAC,
                        DUID, 60, False, SERVER, 7), granted)

    def test_ended(self) -> None:
        for kind in (Type.RELEASE, Type.DECLINE):
            found = self.ask(kind)
            assert found is not None
            self.assertEqual((Kind.ENDED, GUEST, ADDRESS),
                             (found.kind, found.mac, found.address))

    def test_answer_to_nobody(self) -> None:
        self.assertIsNone(self.answer())
        self.ask(Type.REQUEST)
        self.assertIsNone(self.answer(xid=6))
        self.assertIsNone(self.answer(server=None))
        self.assertIsNone(self.answer(valid=0))
        self.assertIsNotNone(self.answer())
        with mock.patch.object(time, 'monotonic',
                               return_value=time.monotonic() + 61):
            self.assertIsNone(self.answer())

    def test_others(self) -> None:
        for kind in (Type.CONFIRM, Type.ADVERTISE, Type.RECONFIGURE,
                     Type.INFORMATION_REQUEST):
            self.assertIsNone(self.ask(kind))
            self.assertIsNone(self.answer())

    def test_pending_is_bounded(self) -> None:
        with mock.patch.object(tracker, 'PENDING_LIMIT', 3):
            for xid in range(10):
                self.ask(Type.REQUEST, xid=xid)
        self.assertIsNone(self.answer(xid=6))
        self.assertIsNotNone(self.answer(xid=7))

    def test_senseless_addresses(self) -> None:
        for text in ('::', '::1', 'ff02::1', 'fe80::1'):
            self.assertFalse(tracker.usable_address(
                ipaddress.ip_address(text)), text)


class RelayTest(Base):
    """As :class:`tests.unit.agent.test_tracker.RelayTest`."""

    RELAY = '52:00:00:00:00:02'

    def relayed(self, kind: packet6.MessageType, peer: str = 'fe80::1',
                mac: str | None = GUEST) -> tracker.Overheard | None:
        options = [] if mac is None else [test_packet6.option(
            79, b'\0\1' + bytes.fromhex(mac.replace(':', '')))]
        return self.listener.hear(frame(self.RELAY, test_packet6.relayed(
            test_packet6.message(kind, test_packet6.ia((ADDRESS, 0))),
            *options, peer=peer)))

    def relayed_answer(self) -> tracker.Overheard | None:
        return self.listener.hear(frame(SERVER_MAC, test_packet6.relayed(
            test_packet6.message(
                Type.REPLY, test_packet6.ia((ADDRESS, 60)), server=SERVER),
            kind=13)))

    def test_captures(self) -> None:
        """What real relays made of a real client's messages.

        One does not tell the MAC: it is that which the client had when its
        link-local address was made.
        """
        for name, mac in {'relay-dnsmasq': GUEST, 'relays': GUEST,
                          'relay-dhcrelay': '76:7d:ba:b2:de:ec'}.items():
            listener = snoop.Listener('br0')
            heard = [one for each in pcap.frames(f'six/{name}')
                     if (one := listener.hear(each)) is not None]
            self.assertEqual(
                [Kind.REQUESTED, Kind.GRANTED, Kind.ENDED],
                [one.kind for one in heard if one.address
                 == ipaddress.IPv6Address('2001:db8:66::11')], name)
            self.assertEqual({(mac, True)},
                             {(one.mac, one.remote) for one in heard}, name)
            granted = heard[1]
            self.assertEqual(
                (ipaddress.IPv6Address('2001:db8:68::1'), SERVER_MAC, 120),
                (granted.dhcp_server, granted.dhcp_server_mac,
                 granted.lease_seconds))
            self.assertEqual(granted.client_id, heard[0].client_id)
            self.assertIsNotNone(granted.server_duid)

    def test_relayed(self) -> None:
        for kind in (Type.SOLICIT, Type.REQUEST, Type.RENEW, Type.REBIND):
            asked, granted = self.relayed(kind), self.relayed_answer()
            assert asked is not None and granted is not None
            self.assertEqual((GUEST, True), (asked.mac, asked.remote))
            self.assertEqual(
                (Kind.GRANTED, GUEST, True, SERVER, SERVER_MAC),
                (granted.kind, granted.mac, granted.remote,
                 granted.server_duid, granted.dhcp_server_mac))
        for kind in (Type.RELEASE, Type.DECLINE):
            ended = self.relayed(kind)
            assert ended is not None
            self.assertEqual((Kind.ENDED, GUEST, True),
                             (ended.kind, ended.mac, ended.remote))

    def test_mac_of_the_address(self) -> None:
        peer = str(frames.link_local(OTHER))
        for mac, expected in ((None, OTHER), (GUEST, GUEST)):
            asked = self.relayed(Type.REQUEST, peer, mac)
            assert asked is not None
            self.assertEqual(expected, asked.mac)

    def test_no_mac(self) -> None:
        for peer in ('fe80::1', '2001:db8::f816:3eff:fe00:1', '::'):
            self.assertIsNone(self.relayed(Type.REQUEST, peer, None))
            self.assertIsNone(self.relayed_answer())
        self.assertIsNone(self.relayed(Type.REQUEST,
                                       mac='33:33:00:00:00:01'))
        self.assertIsNone(self.relayed_answer())

    def test_on_both(self) -> None:
        self.ask(Type.REQUEST)
        self.relayed(Type.REQUEST, mac=OTHER)
        for granted in (self.answer(), self.relayed_answer()):
            assert granted is not None
            self.assertEqual((GUEST, False), (granted.mac, granted.remote))

    def test_made_up_before(self) -> None:
        self.relayed(Type.REQUEST, mac=OTHER)
        self.ask(Type.REQUEST)
        granted = self.answer()
        assert granted is not None
        self.assertEqual((GUEST, False), (granted.mac, granted.remote))
