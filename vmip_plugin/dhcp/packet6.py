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

"""DHCPv6 messages on the wire (RFC 8415), read and written with struct.

Read strictly, like those of :mod:`vmip_plugin.dhcp.packet`. Of all options
only those are looked at that tell of addresses (IA_NA), and of those of relays
(section 9) what they wrap up, and the client's MAC (RFC 6939).
"""

from collections.abc import Iterator
import dataclasses
import enum
import ipaddress
import os
import struct

from vmip_plugin.dhcp import packet

CLIENT_PORT = 546
SERVER_PORT = 547
#: All_DHCP_Relay_Agents_and_Servers
SERVERS = ipaddress.IPv6Address('ff02::1:2')

_OPTION = struct.Struct('!HH')
_IA = struct.Struct('!III')
_IAADDR = struct.Struct('!16sII')
# msg-type, hop-count, link-address, peer-address
_RELAYED = struct.Struct('!BB16s16s')
_RELAY_FORW, _RELAY_REPL = 12, 13
_ETHERNET = b'\0\1'
_CLIENT_ID, _SERVER_ID, _IA_NA, _IA_ADDRESS, _ELAPSED, _STATUS = (
    1, 2, 3, 5, 8, 13)
_RELAY_MESSAGE, _CLIENT_MAC = 9, 79
_MAX_DUID = 130     # section 11.1
_HOP_COUNT_LIMIT = 8    # section 7.6
_MAX_SIZE = 8952    # the UDP payload of a jumbo frame


class MessageType(enum.IntEnum):
    """Section 7.3, without those of relays."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    RECONFIGURE = 10
    INFORMATION_REQUEST = 11


_FROM_SERVER = frozenset((MessageType.ADVERTISE, MessageType.REPLY,
                          MessageType.RECONFIGURE))


@dataclasses.dataclass(frozen=True, slots=True)
class Assigned:
    """An address in an IA_NA.

    :param valid: the valid lifetime in seconds, 0xffffffff for ever.
    """

    iaid: int
    address: ipaddress.IPv6Address
    valid: int


@dataclasses.dataclass(frozen=True, slots=True)
class Message:
    """A DHCPv6 message, as far as addresses go.

    :param assigned: without those that the server refused (status code).
    """

    message_type: MessageType
    xid: int
    client_duid: bytes | None
    server_duid: bytes | None
    assigned: tuple[Assigned, ...]


def parse(payload: bytes) -> Message:
    """Return the message in the payload of a UDP datagram.

    :raises PacketError: and nothing else, whatever the bytes.
    """
    if not 4 <= len(payload) <= _MAX_SIZE:
        raise packet.PacketError(f'{len(payload)} bytes are no message')
    try:
        message_type = MessageType(payload[0])
    except ValueError as exc:
        raise packet.PacketError(str(exc)) from exc
    duids: dict[int, bytes] = {}
    assigned: list[Assigned] = []
    for code, value in _walk(payload[4:]):
        if code in (_CLIENT_ID, _SERVER_ID):
            if code in duids or not 1 <= len(value) <= _MAX_DUID:
                raise packet.PacketError(f'senseless option {code}')
            duids[code] = value
        elif code == _IA_NA:
            assigned += _association(value)
    return Message(message_type, int.from_bytes(payload[1:4], 'big'),
                   duids.get(_CLIENT_ID), duids.get(_SERVER_ID),
                   tuple(assigned))


@dataclasses.dataclass(frozen=True, slots=True)
class Relayed:
    """A message of a client or a server that relays have wrapped up.

    :param peer: the client's address on its own link.
    :param mac: the client's, where its relay tells it.
    """

    message: Message
    peer: ipaddress.IPv6Address
    mac: str | None


def unwrap(payload: bytes) -> Relayed | None:
    """Return what relays have wrapped up, or None of a message by itself.

    :raises PacketError: and nothing else, whatever the bytes.
    """
    if not payload or payload[0] not in (_RELAY_FORW, _RELAY_REPL):
        return None
    if len(payload) > _MAX_SIZE:
        raise packet.PacketError(f'{len(payload)} bytes are no message')
    kind = payload[0]
    # The first relay says 0 (section 19.1.1), each further one 1 more.
    for _ in range(_HOP_COUNT_LIMIT + 1):
        if len(payload) < _RELAYED.size or payload[1] > _HOP_COUNT_LIMIT:
            raise packet.PacketError('relayed too often, or cut off')
        peer = ipaddress.IPv6Address(_RELAYED.unpack_from(payload)[3])
        options: dict[int, bytes] = {}
        for code, value in _walk(payload[_RELAYED.size:]):
            if code in options:
                raise packet.PacketError(f'two options {code}')
            if code in (_RELAY_MESSAGE, _CLIENT_MAC):
                options[code] = value
        payload = options.get(_RELAY_MESSAGE, b'')
        if payload[:1] != bytes((kind,)):
            break
    message = parse(payload)
    if (kind == _RELAY_REPL) != (message.message_type in _FROM_SERVER):
        raise packet.PacketError(f'{message.message_type.name} went the '
                                 'wrong way')
    mac = options.get(_CLIENT_MAC, b'')
    return Relayed(message, peer, (
        mac[2:].hex(':') if len(mac) == 8 and mac[:2] == _ETHERNET else None))


def build_release(address: ipaddress.IPv6Address, iaid: int,
                  client_duid: bytes, server_duid: bytes) -> bytes:
    """Return a RELEASE (section 18.2.7), for a UDP datagram."""
    ia = _IA.pack(iaid, 0, 0) + _option(
        _IA_ADDRESS, _IAADDR.pack(address.packed, 0, 0))
    return (bytes((MessageType.RELEASE,)) + os.urandom(3)
            + _option(_CLIENT_ID, client_duid)
            + _option(_SERVER_ID, server_duid)
            + _option(_ELAPSED, bytes(2)) + _option(_IA_NA, ia))


def _association(value: bytes) -> list[Assigned]:
    if len(value) < _IA.size:
        raise packet.PacketError('IA_NA is cut off')
    iaid = _IA.unpack_from(value)[0]
    found = []
    for code, inner in _walk(value[_IA.size:]):
        if code == _STATUS and inner[:2] != b'\0\0':
            return []
        if code == _IA_ADDRESS:
            if len(inner) < _IAADDR.size:
                raise packet.PacketError('IA address is cut off')
            address, _, valid = _IAADDR.unpack_from(inner)
            if all(code != _STATUS or status[:2] == b'\0\0'
                   for code, status in _walk(inner[_IAADDR.size:])):
                found.append(Assigned(
                    iaid, ipaddress.IPv6Address(address), valid))
    return found


def _option(code: int, value: bytes) -> bytes:
    return _OPTION.pack(code, len(value)) + value


def _walk(field: bytes) -> Iterator[tuple[int, bytes]]:
    at, end = 0, len(field)
    while at < end:
        if at + _OPTION.size > end:
            raise packet.PacketError('an option is cut off')
        code, size = _OPTION.unpack_from(field, at)
        start, at = at + _OPTION.size, at + _OPTION.size + size
        if at > end:
            raise packet.PacketError(f'option {code} is cut off')
        yield code, field[start:at]
