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

"""Ethernet frames: DHCP taken out of them and put into them; ARP and NDP.

ARP is RFC 826, NDP RFC 4861, IPv4 RFC 791, IPv6 RFC 8200, UDP RFC 768, VLAN
tags IEEE 802.1Q.
"""

import dataclasses
import ipaddress
import struct
from typing import NamedTuple

from vmip_plugin.dhcp import packet
from vmip_plugin import types

ETH_IPV4 = 0x0800
ETH_ARP = 0x0806
ETH_IPV6 = 0x86dd
ETH_VLAN = 0x8100
ETH_QINQ = 0x88a8
BROADCAST = 'ff:ff:ff:ff:ff:ff'

_TAG = struct.Struct('!HH')
_IPV4 = struct.Struct('!BBHHHBBH4s4s')
_IPV6 = struct.Struct('!IHBB16s16s')
_UDP = struct.Struct('!HHHH')
_ARP = struct.Struct('!HHBBH6s4s6s4s')
_MIN_FRAME = 60     # without the check sequence
_PROTOCOL_UDP, _PROTOCOL_ICMPV6 = 17, 58
_TTL = 64
#: that no router has passed it on (RFC 4861 section 7.1)
_NDP_TTL = 255
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOLICITED = 0x40
_SOLICITED_NODE = bytes.fromhex('ff0200000000000000000001ff')
_SOURCE_MAC, _TARGET_MAC = 1, 2
_REQUEST, _REPLY = 1, 2


class FrameError(ValueError):
    """The frame is not of the kind that was asked for."""


class Datagram(NamedTuple):
    """A UDP datagram over IPv4 or IPv6 in an Ethernet frame.

    :param source: Ethernet source address.
    :param vlan: VLAN id of the tag, None without one.
    """

    source: str
    destination: str
    vlan: int | None
    source_ip: types.Address
    destination_ip: types.Address
    source_port: int
    destination_port: int
    payload: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Who answered, and for which address."""

    mac: str
    address: types.Address


def parse_datagram(frame: bytes, vlan: int | None = None) -> Datagram:
    """Return the UDP datagram in a frame.

    Checksums are not looked at: between guests of one host they are often
    left to a network card that the frame never meets.

    :param vlan: id of a tag that the kernel has already taken off.
    :raises FrameError: it is something else, a fragment, or cut off.
    """
    kind, at, vlan = _ethernet(frame, vlan)
    if kind == ETH_IPV6:
        return _datagram6(frame, at, vlan)
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
        vlan=vlan, source_ip=packet.unpack(source),
        destination_ip=packet.unpack(destination),
        source_port=source_port, destination_port=destination_port,
        payload=frame[start:at + header + length])


def build_datagram(datagram: Datagram) -> bytes:
    """Return the frame of a UDP datagram, with its checksums."""
    if datagram.source_ip.version == 6:
        return _build_datagram6(datagram)
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


def parse_arp_reply(frame: bytes) -> Answer:
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
    return Answer(mac.hex(':'), ipaddress.IPv4Address(address))


def link_local(mac: str) -> ipaddress.IPv6Address:
    """Return the address of RFC 4291 appendix A for a MAC."""
    raw = _packed(mac)
    return ipaddress.IPv6Address(
        b'\xfe\x80' + bytes(6) + bytes((raw[0] ^ 2,)) + raw[1:3]
        + b'\xff\xfe' + raw[3:])


def link_local_mac(address: ipaddress.IPv6Address) -> str | None:
    """Return the MAC that a link-local address was made of, if it was."""
    raw = address.packed
    if raw[:8] != b'\xfe\x80' + bytes(6) or raw[11:13] != b'\xff\xfe':
        return None
    return (bytes((raw[8] ^ 2,)) + raw[9:11] + raw[13:]).hex(':')


def build_solicitation(source: str, destination: str | None,
                       target: ipaddress.IPv6Address,
                       vlan: int | None = None) -> bytes:
    """Return a neighbour solicitation (RFC 4861 section 4.3).

    :param destination: Ethernet destination; None asks all, at the target's
        solicited-node multicast address (RFC 4291 section 2.7.1).

    It comes from the link-local address of the source's MAC: one from the
    unspecified address would be answered to all (section 7.2.4).
    """
    payload = (bytes((_SOLICITATION,)) + bytes(7) + target.packed
               + bytes((_SOURCE_MAC, 1)) + _packed(source))
    to = target.packed
    if destination is None:
        to = _SOLICITED_NODE + to[-3:]
        destination = (b'\x33\x33' + to[-4:]).hex(':')
    return _frame(destination, source, vlan, ETH_IPV6, _ipv6(
        _PROTOCOL_ICMPV6, _NDP_TTL, link_local(source).packed, to, payload,
        2))


def parse_advertisement(frame: bytes) -> Answer:
    """Return what a neighbour advertisement says that somebody asked for.

    :raises FrameError: it is something else, came through a router, or names
        another MAC than the frame's.
    """
    kind, at, _ = _ethernet(frame, None)
    start = at + _IPV6.size
    if kind != ETH_IPV6 or len(frame) < start + 24:
        raise FrameError('not NDP')
    first, length, header, limit, _, _ = _IPV6.unpack_from(frame, at)
    end = start + length
    if (first >> 28 != 6 or header != _PROTOCOL_ICMPV6 or length < 24
            or len(frame) < end or limit != _NDP_TTL
            or frame[start:start + 2] != bytes((_ADVERTISEMENT, 0))
            or not frame[start + 4] & _SOLICITED):
        raise FrameError('not a neighbour advertisement')
    at = start + 24
    while at + 8 <= end:
        size = frame[at + 1] * 8
        if not size:
            raise FrameError('an option without a length')
        if frame[at] == _TARGET_MAC and frame[at + 2:at + 8] != frame[6:12]:
            raise FrameError('an answer in somebody else\'s name')
        at += size
    return Answer(frame[6:12].hex(':'), ipaddress.IPv6Address(
        frame[start + 8:start + 24]))


def parse_answer(frame: bytes) -> Answer:
    """Return what answers a probe: ARP or NDP.

    :raises FrameError: it is something else.
    """
    if _ethernet(frame, None)[0] == ETH_IPV6:
        return parse_advertisement(frame)
    return parse_arp_reply(frame)


def _datagram6(frame: bytes, at: int, vlan: int | None) -> Datagram:
    start = at + _IPV6.size
    if len(frame) < start + _UDP.size:
        raise FrameError('cut off')
    first, length, header, _, source, destination = _IPV6.unpack_from(
        frame, at)
    if (first >> 28 != 6 or header != _PROTOCOL_UDP
            or len(frame) < start + length):
        raise FrameError('not UDP, or cut off')
    source_port, destination_port, size, _ = _UDP.unpack_from(frame, start)
    if not _UDP.size <= size <= length:
        raise FrameError('UDP header does not fit')
    return Datagram(
        source=frame[6:12].hex(':'), destination=frame[:6].hex(':'),
        vlan=vlan, source_ip=ipaddress.IPv6Address(source),
        destination_ip=ipaddress.IPv6Address(destination),
        source_port=source_port, destination_port=destination_port,
        payload=frame[start + _UDP.size:start + size])


def _build_datagram6(datagram: Datagram) -> bytes:
    udp = _UDP.pack(datagram.source_port, datagram.destination_port,
                    _UDP.size + len(datagram.payload), 0) + datagram.payload
    return _frame(
        datagram.destination, datagram.source, datagram.vlan, ETH_IPV6,
        _ipv6(_PROTOCOL_UDP, _TTL, datagram.source_ip.packed,
              datagram.destination_ip.packed, udp, 6))


def _ipv6(protocol: int, limit: int, source: bytes, destination: bytes,
          payload: bytes, checksum_at: int) -> bytes:
    """Return a packet; its payload gets a checksum (RFC 8200 section 8.1)."""
    check = _checksum(
        source + destination + struct.pack('!II', len(payload), protocol)
        + payload) or 0xffff
    return (_IPV6.pack(6 << 28, len(payload), protocol, limit, source,
                       destination)
            + payload[:checksum_at] + check.to_bytes(2, 'big')
            + payload[checksum_at + 2:])


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
