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

"""What the life of real clients tells, and what forged frames do not."""

import ipaddress
import time
from typing import Any
from unittest import mock

import testtools

from tests.unit.agent import hostile
from tests.unit.agent import pcap
from vmip_plugin.agent import frames
from vmip_plugin.agent import snoop
from vmip_plugin.agent import tracker
from vmip_plugin.dhcp import packet

SERVER = ipaddress.IPv4Address('10.66.0.1')
SERVER_MAC = '52:66:9d:24:bf:56'
GUEST, OTHER = 'fa:16:3e:00:00:01', 'fa:16:3e:00:00:02'
ADDRESS = ipaddress.IPv4Address('10.66.1.1')


def hear(name: str) -> list[tracker.Overheard]:
    listener = tracker.Tracker('br0')
    heard = []
    for frame in pcap.frames(name):
        try:
            heard.append(listener.hear(frame))
        except frames.FrameError:
            continue
    return [one for one in heard if one is not None]


def leases(name: str) -> set[tuple[str, str, bytes | None]]:
    return {(str(one.address), one.mac, one.client_id)
            for one in hear(name) if one.kind is tracker.Kind.GRANTED}


def frame(source: str, message_type: packet.MessageType, mac: str = GUEST,
          *, op: int = 1, ciaddr: str = '0.0.0.0', yiaddr: str = '0.0.0.0',
          xid: int = 5, requested: str | None = None,
          server: str | None = None, client_id: bytes | None = None,
          giaddr: str = '0.0.0.0', source_ip: str = '0.0.0.0',
          vlan: int | None = None, seconds: int | None = None) -> bytes:
    """Return a frame with any DHCP message."""
    def packed(text: str) -> bytes:
        return ipaddress.IPv4Address(text).packed
    options = bytes((53, 1, message_type))
    if requested is not None:
        options += b'\x32\x04' + packed(requested)
    if server is not None:
        options += b'\x36\x04' + packed(server)
    if seconds is not None:
        options += b'\x33\x04' + seconds.to_bytes(4, 'big')
    if giaddr != '0.0.0.0':
        # a relay's circuit and remote id (RFC 3046)
        options += b'\x52\x0a\x01\x02if\x02\x04host'
    if client_id is not None:
        options += bytes((61, len(client_id))) + client_id
    payload = (bytes((op, 1, 6, 0)) + xid.to_bytes(4, 'big') + bytes(4)
               + packed(ciaddr) + packed(yiaddr) + bytes(4) + packed(giaddr)
               + bytes.fromhex(mac.replace(':', '')) + bytes(10 + 192)
               + b'\x63\x82\x53\x63' + options + b'\xff')
    ports = (68, 67) if op == 1 else (67, 68)
    if giaddr != '0.0.0.0':
        ports = 67, 67
    return frames.build_datagram(frames.Datagram(
        source, frames.BROADCAST, vlan, ipaddress.IPv4Address(source_ip),
        ipaddress.IPv4Address('255.255.255.255'), *ports, payload))


class ClientTest(testtools.TestCase):
    def test_dhclient(self) -> None:
        self.assertEqual({('10.66.1.1', 'ba:b4:5b:7c:b1:a6', None)},
                         leases('dhclient'))
        heard = hear('dhclient')
        self.assertEqual(tracker.Kind.ENDED, heard[-1].kind)
        granted = [one for one in heard
                   if one.kind is tracker.Kind.GRANTED]
        # SELECTING, RENEWING (twice), REBINDING, INIT-REBOOT
        self.assertEqual(5, len(granted))
        self.assertEqual({(SERVER, SERVER_MAC)}, {
            (one.dhcp_server, one.dhcp_server_mac) for one in granted})

    def test_udhcpc(self) -> None:
        mac = '1e:2d:20:55:c6:af'
        client_id = b'\x01' + bytes.fromhex(mac.replace(':', ''))
        self.assertEqual({('10.66.1.2', mac, client_id)}, leases('udhcpc'))
        self.assertEqual(tracker.Kind.ENDED, hear('udhcpc')[-1].kind)

    def test_dhcpcd(self) -> None:
        (address, mac, client_id), = leases('dhcpcd')
        self.assertEqual(('10.66.1.3', 'be:d6:08:43:c5:fd'), (address, mac))
        assert client_id is not None
        self.assertEqual(0xff, client_id[0])

    def test_networkd(self) -> None:
        (address, mac, client_id), = leases('networkd')
        self.assertEqual(('10.66.1.1', 'ba:b4:5b:7c:b1:a6'), (address, mac))
        assert client_id is not None
        self.assertEqual(0xff, client_id[0])
        last = hear('networkd')[-1]
        self.assertEqual((tracker.Kind.ENDED, None),
                         (last.kind, last.dhcp_server))

    def test_rebinding_from_no_address(self) -> None:
        asked = [one for one in hear('networkd')
                 if one.kind is tracker.Kind.REQUESTED]
        self.assertEqual({ADDRESS}, {one.address for one in asked})

    def test_nak(self) -> None:
        kinds = [one.kind for one in hear('dhclient-initreboot-nak')]
        self.assertEqual([
            tracker.Kind.REQUESTED, tracker.Kind.REFUSED,
            tracker.Kind.REQUESTED, tracker.Kind.GRANTED], kinds)

    def test_decline(self) -> None:
        kinds = [one.kind for one in hear('dhcpcd-decline')]
        self.assertEqual([
            tracker.Kind.REQUESTED, tracker.Kind.GRANTED,
            tracker.Kind.ENDED], kinds)

    def test_third_party_release_is_not_the_clients(self) -> None:
        for name in ('headline-dnsmasq', 'headline-isc', 'headline-kea2.2'):
            heard = [one for one in hear(name) if not one.remote]
            self.assertNotIn(tracker.Kind.ENDED,
                             {one.kind for one in heard})
            self.assertEqual(
                {'52:54:00:00:00:10', '52:54:00:00:00:20',
                 '52:54:00:00:00:30'}, {one.mac for one in heard})

    def test_lease_time(self) -> None:
        self.assertEqual({3600}, {
            one.lease_seconds for one in hear('headline-dnsmasq')
            if one.kind is tracker.Kind.GRANTED})


class RelayTest(testtools.TestCase):
    RELAY = '52:54:00:00:00:99'

    def setUp(self) -> None:
        super().setUp()
        self.tracker = tracker.Tracker('br0')

    def hear(self, source: str, message_type: packet.MessageType,
             **options: Any) -> tracker.Overheard | None:
        return self.tracker.hear(frame(source, message_type, **options))

    def granted(self, **options: Any) -> tracker.Overheard:
        found = self.hear(
            SERVER_MAC, packet.MessageType.ACK, op=2, yiaddr=str(ADDRESS),
            server=str(SERVER), **options)
        assert found is not None
        return found

    def test_on_the_servers_side(self) -> None:
        for vlan in (None, 7):
            asked = self.hear(
                self.RELAY, packet.MessageType.REQUEST, vlan=vlan,
                requested=str(ADDRESS), giaddr='10.66.1.254',
                source_ip='10.66.1.254', client_id=b'\0x')
            granted = self.granted(giaddr='10.66.1.254', vlan=vlan)
            assert asked is not None
            for one in (asked, granted):
                self.assertEqual(
                    (ADDRESS, GUEST, True, vlan, b'\0x'),
                    (one.address, one.mac, one.remote, one.vlan,
                     one.client_id))
            self.assertEqual((SERVER, SERVER_MAC),
                             (granted.dhcp_server, granted.dhcp_server_mac))

    def test_on_the_guests_side(self) -> None:
        self.hear(GUEST, packet.MessageType.REQUEST, requested=str(ADDRESS))
        # the relay leaves giaddr in the answer
        self.assertFalse(self.granted(giaddr='10.66.1.254').remote)

    def test_on_both(self) -> None:
        self.hear(GUEST, packet.MessageType.REQUEST, requested=str(ADDRESS))
        self.hear(self.RELAY, packet.MessageType.REQUEST,
                  requested=str(ADDRESS), giaddr='10.66.1.254')
        self.assertFalse(self.granted().remote)

    def test_made_up_before(self) -> None:
        self.hear(OTHER, packet.MessageType.REQUEST, requested=str(ADDRESS),
                  giaddr='10.66.1.254')
        self.hear(GUEST, packet.MessageType.REQUEST, requested=str(ADDRESS))
        self.assertFalse(self.granted().remote)

    def test_routed(self) -> None:
        asked = self.hear(self.RELAY, packet.MessageType.REQUEST,
                          ciaddr=str(ADDRESS), source_ip=str(ADDRESS))
        assert asked is not None
        self.assertTrue(asked.remote and self.granted().remote)
        ended = self.hear(self.RELAY, packet.MessageType.RELEASE,
                          ciaddr=str(ADDRESS), source_ip=str(ADDRESS))
        assert ended is not None
        self.assertEqual((tracker.Kind.ENDED, True),
                         (ended.kind, ended.remote))


class ForgedTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.tracker = tracker.Tracker('br0')

    def ask(self, **options: Any) -> tracker.Overheard | None:
        return self.tracker.hear(frame(
            GUEST, packet.MessageType.REQUEST, requested=str(ADDRESS),
            **options))

    def grant(self, **options: Any) -> tracker.Overheard | None:
        return self.tracker.hear(frame(
            SERVER_MAC, packet.MessageType.ACK, **{
                'op': 2, 'yiaddr': str(ADDRESS), 'server': str(SERVER),
                **options}))

    def test_pair(self) -> None:
        asked, granted = self.ask(), self.grant()
        assert asked is not None and granted is not None
        self.assertEqual((tracker.Kind.REQUESTED, tracker.Kind.GRANTED),
                         (asked.kind, granted.kind))

    def test_in_anothers_name(self) -> None:
        for message_type in (packet.MessageType.REQUEST,
                             packet.MessageType.RELEASE,
                             packet.MessageType.DECLINE):
            self.assertIsNone(self.tracker.hear(frame(
                OTHER, message_type, GUEST, ciaddr=str(ADDRESS),
                requested=str(ADDRESS))))
        self.assertIsNone(self.grant())

    def test_answer_to_nobody(self) -> None:
        self.assertIsNone(self.grant())
        self.ask()
        self.assertIsNone(self.grant(xid=6))
        self.assertIsNone(self.grant(mac=OTHER))

    def test_answer_too_late(self) -> None:
        self.ask()
        with mock.patch.object(time, 'monotonic',
                               return_value=time.monotonic() + 61):
            self.assertIsNone(self.grant())

    def test_answer_without_server(self) -> None:
        self.ask()
        self.assertIsNone(self.grant(server=None))
        self.assertIsNone(self.grant(server='0.0.0.0'))
        self.assertIsNone(self.grant(server='255.255.255.255'))

    def test_senseless_addresses(self) -> None:
        for address in ('0.0.0.0', '224.0.0.1', '127.0.0.1',
                        '255.255.255.255'):
            self.assertIsNone(self.tracker.hear(frame(
                GUEST, packet.MessageType.REQUEST, requested=address)))
        group = '01:00:5e:00:00:01'
        self.assertIsNone(self.tracker.hear(frame(
            group, packet.MessageType.REQUEST, group,
            requested=str(ADDRESS))))

    def test_pending_is_bounded(self) -> None:
        with mock.patch.object(tracker, 'PENDING_LIMIT', 3):
            for xid in range(10):
                self.ask(xid=xid)
        self.assertIsNone(self.grant(xid=6))
        self.assertIsNotNone(self.grant(xid=7))

    def test_pending_ages(self) -> None:
        self.ask(xid=1)
        with mock.patch.object(time, 'monotonic',
                               return_value=time.monotonic() + 61):
            self.ask(xid=2)
        self.assertEqual(1, len(self.tracker._pending))


class HostileTest(testtools.TestCase):
    def test_100000_frames(self) -> None:
        listener = snoop.Listener('br0')
        heard, refused = 0, 0
        for one in hostile.frames(seed=6, count=100000):
            try:
                heard += listener.hear(one) is not None
            except (frames.FrameError, packet.PacketError):
                refused += 1
        # neither all noise nor all sound
        self.assertGreater(heard, 5000)
        self.assertGreater(refused, 20000)
        for one in (listener._four, listener._six):
            self.assertTrue(one._pending)
            self.assertLessEqual(len(one._pending), tracker.PENDING_LIMIT)
