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

"""DHCP messages: real ones, hostile ones, and our own."""

import ipaddress
import struct

import hypothesis
from hypothesis import strategies
import testtools

from tests.unit.agent import pcap
from vmip_plugin.agent import frames
from vmip_plugin.dhcp import packet

MAC = 'fa:16:3e:00:00:01'
ADDRESS = ipaddress.IPv4Address('10.66.1.1')
SERVER = ipaddress.IPv4Address('10.66.0.1')


def real() -> list[bytes]:
    """Return the DHCP payloads of all captures."""
    payloads = []
    for name in pcap.NAMES:
        for frame in pcap.frames(name):
            try:
                payloads.append(frames.parse_datagram(frame).payload)
            except frames.FrameError:
                assert frame[12:14] == b'\x08\x06'
    return payloads


def message(*options: bytes, op: int = 1, htype: int = 1, hlen: int = 6,
            sname: bytes = b'', file: bytes = b'', cookie: bytes =
            b'\x63\x82\x53\x63', end: bytes = b'\xff') -> bytes:
    return (struct.pack('!BBBBIHH', op, htype, hlen, 0, 7, 0, 0) + bytes(16)
            + bytes.fromhex('fa163e000001') + bytes(10)
            + sname.ljust(64, b'\0') + file.ljust(128, b'\0') + cookie
            + b''.join(options) + end)


REQUEST = b'\x35\x01\x03'


class ParseTest(testtools.TestCase):
    def test_captures(self) -> None:
        parsed = [packet.parse(payload) for payload in real()]
        self.assertEqual(121, len(parsed))
        self.assertEqual(set(packet.MessageType) - {
            packet.MessageType.INFORM},
            {one.message_type for one in parsed})

    def test_request(self) -> None:
        self.assertEqual(
            packet.Message(
                op=1, xid=7, flags=0, ciaddr=ipaddress.IPv4Address(0),
                yiaddr=ipaddress.IPv4Address(0),
                giaddr=ipaddress.IPv4Address(0), chaddr=MAC,
                message_type=packet.MessageType.REQUEST, requested=ADDRESS,
                server_id=SERVER, client_id=b'\x01abc', lease_time=60),
            packet.parse(message(
                b'\0', REQUEST, b'\x32\x04' + ADDRESS.packed,
                b'\x36\x04' + SERVER.packed, b'\x3d\x04\x01abc',
                b'\x33\x04\0\0\0\x3c')))

    def test_overload(self) -> None:
        parsed = packet.parse(message(
            REQUEST, b'\x34\x01\x03',
            file=b'\x3d\x02ab\xff', sname=b'\x3d\x01c\xff'))
        self.assertEqual(b'abc', parsed.client_id)

    def test_not_overloaded(self) -> None:
        parsed = packet.parse(message(REQUEST, file=b'\x3d\x02ab\xff'))
        self.assertIsNone(parsed.client_id)

    def test_split_option(self) -> None:
        parsed = packet.parse(message(
            REQUEST, b'\x32\x02' + ADDRESS.packed[:2],
            b'\x32\x02' + ADDRESS.packed[2:]))
        self.assertEqual(ADDRESS, parsed.requested)

    def test_wrong(self) -> None:
        for name, payload in {
                'empty': b'',
                'no options': message(REQUEST)[:239],
                'op': message(REQUEST, op=3),
                'token ring': message(REQUEST, htype=6),
                'hlen': message(REQUEST, hlen=16),
                'cookie': message(REQUEST, cookie=b'abcd'),
                'BOOTP': message(),
                'no end': message(REQUEST, end=b''),
                'length cut off': message(REQUEST, end=b'\x32'),
                'value cut off': message(REQUEST, end=b'\x32\x04abc'),
                'type 0': message(b'\x35\x01\0'),
                'type 99': message(b'\x35\x01\x63'),
                'long type': message(b'\x35\x02\x03\x03'),
                'type twice': message(REQUEST, REQUEST),
                'short address': message(REQUEST, b'\x32\x03abc'),
                'address twice': message(
                    REQUEST, b'\x32\x04abcd', b'\x32\x04abcd'),
                'short server': message(REQUEST, b'\x36\0'),
                'long time': message(REQUEST, b'\x33\x05abcde'),
                'empty client id': message(REQUEST, b'\x3d\0'),
                'long client id': message(
                    REQUEST, *[b'\x3d\xc8' + bytes(200)] * 2),
                'overload 4': message(REQUEST, b'\x34\x01\x04'),
                'long overload': message(REQUEST, b'\x34\x02\x01\x01'),
                'overload without end': message(
                    REQUEST, b'\x34\x01\x01', file=b'\x3d\xf0'),
                'ACK by a client': message(b'\x35\x01\x05'),
                'REQUEST by a server': message(REQUEST, op=2),
                'long': message(REQUEST) + bytes(9000)}.items():
            with testtools.ExpectedException(packet.PacketError, msg=name):
                packet.parse(payload)

    @hypothesis.given(strategies.binary(max_size=1500))
    def test_random(self, payload: bytes) -> None:
        self._only_packet_error(payload)

    @hypothesis.given(strategies.binary(max_size=400))
    def test_random_options(self, options: bytes) -> None:
        self._only_packet_error(message(REQUEST, options))

    @hypothesis.given(strategies.sampled_from(real()), strategies.data())
    def test_changed(self, payload: bytes,
                     data: strategies.DataObject) -> None:
        at = data.draw(strategies.integers(0, len(payload) - 1))
        byte = data.draw(strategies.integers(0, 255))
        self._only_packet_error(
            payload[:at] + bytes((byte,)) + payload[at + 1:])

    def test_truncated(self) -> None:
        for payload in real():
            end = payload.rindex(b'\xff')
            for size in range(0, end, 7):
                self._only_packet_error(payload[:size])

    def _only_packet_error(self, payload: bytes) -> None:
        try:
            packet.parse(payload)
        except packet.PacketError:
            pass


class BuildTest(testtools.TestCase):
    def test_release(self) -> None:
        payload = packet.build_release(ADDRESS, MAC, SERVER, b'\x01abc')
        self.assertEqual(300, len(payload))
        parsed = packet.parse(payload)
        self.assertEqual(packet.MessageType.RELEASE, parsed.message_type)
        self.assertEqual((1, ADDRESS, MAC, SERVER, b'\x01abc'), (
            parsed.op, parsed.ciaddr, parsed.chaddr, parsed.server_id,
            parsed.client_id))
        self.assertIsNone(parsed.requested)
        self.assertEqual('0.0.0.0', str(parsed.giaddr))

    def test_without_client_id(self) -> None:
        self.assertIsNone(packet.parse(
            packet.build_release(ADDRESS, MAC, SERVER)).client_id)

    @hypothesis.given(strategies.binary(min_size=1, max_size=255))
    def test_any_client_id(self, client_id: bytes) -> None:
        self.assertEqual(client_id, packet.parse(packet.build_release(
            ADDRESS, MAC, SERVER, client_id)).client_id)
