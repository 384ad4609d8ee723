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

"""DHCPv6 messages: sound ones, hostile ones, and our own."""

import ipaddress

import hypothesis
from hypothesis import strategies
import testtools

from vmip_plugin.dhcp import packet
from vmip_plugin.dhcp import packet6

ADDRESS = ipaddress.IPv6Address('2001:db8::10')
LINK = ipaddress.IPv6Address('2001:db8::fe')
CLIENT, SERVER = b'\0\1client', b'\0\1server'


def option(code: int, value: bytes) -> bytes:
    return code.to_bytes(2, 'big') + len(value).to_bytes(2, 'big') + value


def ia(*addresses: tuple[ipaddress.IPv6Address, int], iaid: int = 7,
       status: bytes = b'', inner: bytes = b'') -> bytes:
    return option(3, iaid.to_bytes(4, 'big') + bytes(8) + b''.join(
        option(5, address.packed + bytes(4) + valid.to_bytes(4, 'big')
               + inner) for address, valid in addresses) + status)


def message(kind: packet6.MessageType, *options: bytes, xid: int = 5,
            client: bytes | None = CLIENT, server: bytes | None = None
            ) -> bytes:
    return (bytes((kind,)) + xid.to_bytes(3, 'big')
            + (option(1, client) if client is not None else b'')
            + (option(2, server) if server is not None else b'')
            + b''.join(options))


def relayed(payload: bytes, *options: bytes, kind: int = 12, hops: int = 0,
            peer: str = 'fe80::1') -> bytes:
    """Return what a relay makes of a message (RFC 8415 section 9)."""
    return (bytes((kind, hops)) + LINK.packed
            + ipaddress.IPv6Address(peer).packed + b''.join(options)
            + option(9, payload))


class ParseTest(testtools.TestCase):
    def test_reply(self) -> None:
        other = ADDRESS + 1
        self.assertEqual(
            packet6.Message(packet6.MessageType.REPLY, 5, CLIENT, SERVER, (
                packet6.Assigned(7, ADDRESS, 60),
                packet6.Assigned(8, other, 0xffffffff))),
            packet6.parse(message(
                packet6.MessageType.REPLY, ia((ADDRESS, 60)),
                option(23, bytes(16)), ia((other, 0xffffffff), iaid=8),
                server=SERVER)))

    def test_refused(self) -> None:
        no = option(13, b'\0\2no')
        for refused in (ia((ADDRESS, 60), status=no), ia(status=no),
                        ia((ADDRESS, 60), inner=no)):
            self.assertEqual((), packet6.parse(message(
                packet6.MessageType.REPLY, refused)).assigned)
        fine = option(13, b'\0\0fine')
        self.assertEqual(1, len(packet6.parse(message(
            packet6.MessageType.REPLY,
            ia((ADDRESS, 60), status=fine, inner=fine))).assigned))

    def test_hostile(self) -> None:
        sound = message(packet6.MessageType.REQUEST, ia((ADDRESS, 60)))
        packet6.parse(sound)
        for payload in (
                b'', sound[:3], b'\0' + sound[1:], b'\x0c' + sound[1:],
                b'\xff' + sound[1:], bytes(9000),
                *(sound[:size] for size in range(5, len(sound))
                  if size != 4 + 4 + len(CLIENT)),
                sound + b'\0', sound + option(1, CLIENT),
                message(packet6.MessageType.REQUEST, client=b''),
                message(packet6.MessageType.REQUEST, client=bytes(131)),
                message(packet6.MessageType.REQUEST, option(3, bytes(11)))):
            self.assertRaises(packet.PacketError, packet6.parse, payload)

    @hypothesis.given(strategies.binary(max_size=200))
    def test_random(self, payload: bytes) -> None:
        for start in (b'', b'\7\0\0\5\0\3\0\x30'):
            try:
                packet6.parse(start + payload)
            except packet.PacketError:
                pass


class UnwrapTest(testtools.TestCase):
    request = message(packet6.MessageType.REQUEST, ia((ADDRESS, 60)))
    reply = message(packet6.MessageType.REPLY, ia((ADDRESS, 60)),
                    server=SERVER)

    def refused(self, payload: bytes) -> None:
        self.assertRaises(packet.PacketError, packet6.unwrap, payload)

    def deep(self, levels: int) -> bytes:
        payload = self.request
        for hops in range(levels):
            payload = relayed(payload, hops=min(hops, 8),
                              peer=f'fe80::{hops}')
        return payload

    def test_by_itself(self) -> None:
        for payload in (self.request, self.reply, b''):
            self.assertIsNone(packet6.unwrap(payload))

    def test_one_relay(self) -> None:
        for kind, inner in ((12, self.request), (13, self.reply)):
            self.assertEqual(
                packet6.Relayed(packet6.parse(inner),
                                ipaddress.IPv6Address('fe80::1'), None),
                packet6.unwrap(relayed(inner, kind=kind)))

    def test_mac(self) -> None:
        mac = bytes.fromhex('fa163e000001')
        for value, expected in {
                b'\0\1' + mac: 'fa:16:3e:00:00:01',
                # of another kind, or no Ethernet address
                b'\0\6' + mac: None, b'\0\1' + mac + b'\0': None,
                b'\0\1': None, b'': None}.items():
            found = packet6.unwrap(relayed(self.request, option(79, value)))
            assert found is not None
            self.assertEqual(expected, found.mac)
            # the second relay knows nothing of the client
            found = packet6.unwrap(relayed(relayed(self.request), option(
                79, value), hops=1))
            assert found is not None
            self.assertIsNone(found.mac)

    def test_deep(self) -> None:
        found = packet6.unwrap(self.deep(9))
        assert found is not None
        self.assertEqual(ipaddress.IPv6Address('fe80::'), found.peer)
        self.refused(self.deep(10))
        self.refused(self.deep(200))
        self.refused(relayed(self.request, hops=9))

    def test_hostile(self) -> None:
        sound = relayed(relayed(self.request, option(18, b'eth0')), hops=1)
        packet6.unwrap(sound)
        for payload in (
                *(sound[:size] for size in range(1, len(sound))),
                sound + b'\0', sound + option(9, self.request),
                relayed(b''), relayed(sound[:20]), relayed(bytes(9000)),
                relayed(self.request)[:34],
                relayed(self.request, option(79, bytes(8)),
                        option(79, bytes(8))),
                # the wrong way
                relayed(self.reply), relayed(self.request, kind=13),
                relayed(relayed(self.request), kind=13, hops=1)):
            self.refused(payload)

    @hypothesis.given(strategies.binary(max_size=200))
    def test_random(self, payload: bytes) -> None:
        for start in (b'', b'\x0c', b'\x0d\1', relayed(b'')[:-4]):
            for inner in (start + payload, relayed(start + payload)):
                try:
                    packet6.unwrap(inner)
                except packet.PacketError:
                    pass


class BuildTest(testtools.TestCase):
    def test_release(self) -> None:
        built = packet6.build_release(ADDRESS, 7, CLIENT, SERVER)
        parsed = packet6.parse(built)
        self.assertEqual(
            (packet6.MessageType.RELEASE, CLIENT, SERVER,
             (packet6.Assigned(7, ADDRESS, 0),)),
            (parsed.message_type, parsed.client_duid, parsed.server_duid,
             parsed.assigned))
        # the elapsed time has to be there (section 18.2.7)
        self.assertIn(option(8, b'\0\0'), built)
