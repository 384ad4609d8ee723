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

"""Ethernet frames: DHCP taken out of them and put into them, and ARP.

ARP is RFC 826, IPv4 RFC 791, UDP RFC 768, VLAN tags IEEE 802.1Q.
"""

import dataclasses
import ipaddress
import struct

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_VLAN = 0x8100
ETH_QINQ = 0x88a8
BROADCAST = 'ff:ff:ff:ff:ff:ff'

_TAG = struct.Struct('!HH')
_IPV4 = struct.Struct('!BBHHHBBH4s4s')
_UDP = struct.Struct('!HHHH')
_ARP = struct.Struct('!HHBBH6s4s6s4s')
_MIN_FRAME = 60     # without the check sequence
_PROTOCOL_UDP = 17
_TTL = 64
_REQUEST, _REPLY = 1, 2


class FrameError(ValueError):
    """The frame is not of the kind that was asked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP datagram over IPv4 in an Ethernet frame.

    :param source: Ethernet source address.
    :param vlan: VLAN id of the tag, None without one.
    """

    source: str
    destination: str
    vlan: int | None
    source_ip: ipaddress.IPv4Address
    destination_ip: ipaddress.IPv4Address
    source_port: int
    destination_port: int
    payload: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class ArpReply:
    """Who answered, and for which address."""

    mac: str
    address: ipaddress.IPv4Address


def parse_datagram(frame: bytes, vlan: int | None = None) -> Datagram:
    """Return the UDP datagram in a frame.

    Checksums are not looked at: between guests of one host they are often
    left to a network card that the frame never meets.

    :param vlan: id of a tag that the kernel has already taken off.
    :raises FrameError: it is something else, a fragment, or cut off.
    """
    kind, at, vlan = _ethernet(frame, vlan)
    if kind != ETH_IPV4 or len(frame) < at + _IPV4.size:
        raise FrameError('not IPv4')
    (version, _, total, _, fragment, _, protocol, _, source,
     destination) = _IPV4.unpack_from(frame, at)
    header = (version & 15) * 4
    if (version >> 4 != 4 or header < _IPV4.size
            or total < header + _UDP.size or len(frame) < at + total):
        raise FrameError('IPv4 header does not fit')
    if protocol != _PROTOCOL_UDP or fragment & 0x3fff:
        raise FrameError('not UDP, or a fragment')
    source_port, destination_port, length, _ = _UDP.unpack_from(
        frame, at + header)
    if not _UDP.size <= length <= total - header:
        raise FrameError('UDP header does not fit')
    start = at + header + _UDP.size
    return Datagram(
        source=frame[6:12].hex(':'), destination=frame[:6].hex(':'),
        vlan=vlan, source_ip=ipaddress.IPv4Address(source),
        destination_ip=ipaddress.IPv4Address(destination),
        source_port=source_port, destination_port=destination_port,
        payload=bytes(frame[start:at + header + length]))


def build_datagram(datagram: Datagram) -> bytes:
    """Return the frame of a UDP datagram, with its checksums."""
    source, destination = (datagram.source_ip.packed,
                           datagram.destination_ip.packed)
    length = _UDP.size + len(datagram.payload)
    pseudo = source + destination + struct.pack(
        '!BBH', 0, _PROTOCOL_UDP, length)
    udp = _UDP.pack(datagram.source_port, datagram.destination_port, length,
                    0) + datagram.payload
    # 0 would mean "no checksum" (RFC 768)
    check = _checksum(pseudo + udp) or 0xffff
    udp = udp[:6] + check.to_bytes(2, 'big') + udp[8:]
    header = _IPV4.pack(0x45, 0, _IPV4.size + length, 0, 0, _TTL,
                        _PROTOCOL_UDP, 0, source, destination)
    header = (header[:10] + _checksum(header).to_bytes(2, 'big')
              + header[12:])
    return _frame(datagram.destination, datagram.source, datagram.vlan,
                  ETH_IPV4, header + udp)


def build_arp_request(source: str, destination: str,
                      target: ipaddress.IPv4Address,
                      vlan: int | None = None) -> bytes:
    """Return an ARP probe: a request from 0.0.0.0 (RFC 5227 section 2.1.1).

    :param destination: Ethernet destination; :data:`BROADCAST` asks all.
    """
    return _frame(destination, source, vlan, ETH_ARP, _ARP.pack(
        1, ETH_IPV4, 6, 4, _REQUEST, _packed(source), bytes(4), bytes(6),
        target.packed))


def parse_arp_reply(frame: bytes) -> ArpReply:
    """Return what an ARP reply says.

    :raises FrameError: it is something else, or Ethernet header and reply
        name different senders.
    """
    kind, at, _ = _ethernet(frame, None)
    if kind != ETH_ARP or len(frame) < at + _ARP.size:
        raise FrameError('not ARP')
    hardware, protocol, hlen, plen, operation, mac, address, _, _ = (
        _ARP.unpack_from(frame, at))
    if (hardware, protocol, hlen, plen, operation) != (
            1, ETH_IPV4, 6, 4, _REPLY):
        raise FrameError('not an ARP reply for IPv4')
    if mac != frame[6:12]:
        raise FrameError('a reply in somebody else\'s name')
    return ArpReply(mac.hex(':'), ipaddress.IPv4Address(address))


def _ethernet(frame: bytes, vlan: int | None) -> tuple[int, int, int | None]:
    if len(frame) < 14:
        raise FrameError('cut off')
    kind, at = int.from_bytes(frame[12:14], 'big'), 14
    if kind in (ETH_VLAN, ETH_QINQ):
        if len(frame) < 18:
            raise FrameError('cut off')
        tag, kind = _TAG.unpack_from(frame, 14)
        at = 18
        if vlan is None:
            vlan = tag & 0xfff
    # id 0 is a priority without a VLAN
    return kind, at, vlan or None


def _frame(destination: str, source: str, vlan: int | None, kind: int,
           payload: bytes) -> bytes:
    tag = b'' if vlan is None else _TAG.pack(ETH_VLAN, vlan)
    return (_packed(destination) + _packed(source) + tag
            + kind.to_bytes(2, 'big') + payload).ljust(_MIN_FRAME, b'\0')


def _packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(':', ''))


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b'\0'
    total: int = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
