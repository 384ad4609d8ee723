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

"""Frames that nobody should send: mutated captures, forged ones, noise."""

from collections.abc import Iterator
import ipaddress
import random

from tests.unit.agent import pcap
from tests.unit.agent import test_tracker
from tests.unit.dhcp import test_packet6
from vmip_plugin.agent import frames as frames_
from vmip_plugin.dhcp import packet
from vmip_plugin.dhcp import packet6

#: where nobody is: a bridge takes such a frame to every port
NOBODY = bytes.fromhex('020000000099')
_DHCP = bytes(12) + b'\x08\0\x45\0'


def frames(seed: int, count: int) -> Iterator[bytes]:
    """Yield frames, the same ones for the same seed."""
    chance = random.Random(seed)
    real = [frame for name in pcap.NAMES for frame in pcap.frames(name)]
    kinds = (_noise, _cut, _flipped, _overlong, _forged, _forged, _forged6)
    for _ in range(count):
        frame = chance.choice(kinds)(chance, bytearray(chance.choice(real)))
        yield NOBODY + bytes(frame[6:])


def _noise(chance: random.Random, frame: bytearray) -> bytes:
    return _DHCP + chance.randbytes(chance.randrange(1400))


def _cut(chance: random.Random, frame: bytearray) -> bytes:
    return bytes(frame[:chance.randrange(14, len(frame))])


def _flipped(chance: random.Random, frame: bytearray) -> bytes:
    for _ in range(chance.randrange(1, 20)):
        frame[chance.randrange(12, len(frame))] = chance.randrange(256)
    return bytes(frame)


def _overlong(chance: random.Random, frame: bytearray) -> bytes:
    """Let an option say that it is longer than the message, or many."""
    options = 14 + 20 + 8 + 240
    if chance.random() < 0.5:
        at = chance.randrange(options, max(options + 1, len(frame) - 1))
        frame[at:at + 2] = bytes((chance.choice((12, 50, 61, 82)), 255))
        return bytes(frame)
    return bytes(frame[:options]) + chance.choice((
        b'\x3d\xff' + bytes(255), b'\x34\x01\x03', b'\x3d\0', b'\0')) * 4


def _forged6(chance: random.Random, frame: bytearray) -> bytes:
    """A DHCPv6 message whose options are sound, noise or cut off."""
    mac = f'02:00:06:00:{chance.randrange(256):02x}:01'
    address = ipaddress.IPv6Address(chance.randbytes(16))
    payload = test_packet6.message(
        chance.choice(list(packet6.MessageType)),
        test_packet6.ia((address, chance.getrandbits(32))),
        # few, so that what waits for an answer is soon as much as ever
        xid=chance.randrange(10), client=bytes((chance.randrange(64),)) * 40,
        server=b'server')
    if chance.random() < 0.3:
        payload = payload[:chance.randrange(len(payload))]
    elif chance.random() < 0.3:
        payload = payload[:4] + chance.randbytes(chance.randrange(200))
    if chance.random() < 0.3:
        for hops in range(chance.choice((1, 1, 2, 9, 10, 20))):
            payload = test_packet6.relayed(
                payload, test_packet6.option(79, b'\0\1' + bytes.fromhex(
                    mac.replace(':', ''))), hops=min(hops, 8),
                kind=chance.choice((12, 12, 12, 13)))
    return frames_.build_datagram(frames_.Datagram(
        mac, '33:33:00:01:00:02', None, frames_.link_local(mac),
        packet6.SERVERS, 546, 547, payload))


def _forged(chance: random.Random, frame: bytearray) -> bytes:
    """A sound message of a guest or a server that does not exist."""
    mac = f'02:00:00:{chance.randrange(4):02x}:{chance.randrange(256):02x}:01'
    address = f'10.{chance.randrange(256)}.{chance.randrange(256)}.1'
    kind = chance.choice(list(packet.MessageType))
    server = kind in (packet.MessageType.OFFER, packet.MessageType.ACK,
                      packet.MessageType.NAK)
    return test_tracker.frame(
        '02:00:00:00:00:02' if server else mac, kind, mac,
        op=2 if server else 1, xid=chance.randrange(50), requested=address,
        yiaddr=address, server='10.0.0.2',
        client_id=chance.randbytes(chance.randrange(1, 60)),
        giaddr=chance.choice(('0.0.0.0', '0.0.0.0', '10.0.0.3')))
