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

"""DHCPv4 messages on the wire (RFC 2131), read and written with struct.

Read strictly: whatever is truncated, too long or contradicts itself is a
:class:`PacketError`, for it comes from a guest.
"""

import enum
import functools
import ipaddress
import os
import struct
from typing import NamedTuple

CLIENT_PORT = 68
SERVER_PORT = 67
#: seconds; a lease without end (RFC 2131 section 3.3)
INFINITE = 0xffffffff

# op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr, siaddr, giaddr,
# chaddr; sname and file follow, then the magic cookie (RFC 2131 section 2).
_HEADER = struct.Struct('!BBBBIHH4s4s4s4s16s')
_SNAME = slice(_HEADER.size, _HEADER.size + 64)
_FILE = slice(_SNAME.stop, _SNAME.stop + 128)
_COOKIE = slice(_FILE.stop, _FILE.stop + 4)
_MAGIC = b'\x63\x82\x53\x63'
_ETHERNET = 1
_MIN_SIZE = 300     # BOOTP's, which old relays still ask for (RFC 1542 2.1)
_MAX_SIZE = 8972    # the UDP payload of a jumbo frame

_PAD, _END = 0, 255
_REQUESTED, _LEASE_TIME, _OVERLOAD, _TYPE, _SERVER_ID, _CLIENT_ID = (
    50, 51, 52, 53, 54, 61)
_SIZES = {_REQUESTED: 4, _LEASE_TIME: 4, _OVERLOAD: 1, _TYPE: 1,
          _SERVER_ID: 4}
_WANTED = frozenset((*_SIZES, _CLIENT_ID))
_TYPE_FIRST = bytes((_TYPE, 1))


#: bytes to address; the same few come again and again
unpack = functools.lru_cache(4096)(ipaddress.IPv4Address)


class PacketError(ValueError):
    """The bytes are no DHCPv4 message of an Ethernet client."""


class MessageType(enum.IntEnum):
    """Option 53 (RFC 2132 section 9.6)."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


_TYPES = {one.value: one for one in MessageType}
_FROM_SERVER = frozenset(one.value for one in (
    MessageType.OFFER, MessageType.ACK, MessageType.NAK))


# Not a dataclass that is frozen: making one of those takes three times as
# long.
class Message(NamedTuple):
    """A DHCPv4 message, as far as leases go.

    :param op: 1 from a client, 2 from a server.
    :param chaddr: the client's MAC, as :func:`vmip_plugin.types.parse_mac`
        returns it.
    :param requested: option 50.
    :param server_id: option 54.
    :param client_id: option 61 with its type byte, as it was sent.
    :param lease_time: option 51 in seconds, :data:`INFINITE` for ever.
    """

    op: int
    xid: int
    flags: int
    ciaddr: ipaddress.IPv4Address
    yiaddr: ipaddress.IPv4Address
    giaddr: ipaddress.IPv4Address
    chaddr: str
    message_type: MessageType
    requested: ipaddress.IPv4Address | None = None
    server_id: ipaddress.IPv4Address | None = None
    client_id: bytes | None = None
    lease_time: int | None = None


def parse(payload: bytes) -> Message:
    """Return the message in the payload of a UDP datagram.

    :raises PacketError: and nothing else, whatever the bytes.
    """
    if not _COOKIE.stop <= len(payload) <= _MAX_SIZE:
        raise PacketError(f'{len(payload)} bytes are no DHCP message')
    (op, htype, hlen, _, xid, _, flags, ciaddr, yiaddr, _, giaddr,
     chaddr) = _HEADER.unpack_from(payload)
    if op not in (1, 2):
        raise PacketError(f'op is {op}')
    if htype != _ETHERNET or hlen != 6:
        raise PacketError(f'not Ethernet: htype {htype}, hlen {hlen}')
    if payload[_COOKIE] != _MAGIC:
        raise PacketError('no magic cookie')
    options = _options(payload)
    for code, value in options.items():
        if len(value) != _SIZES.get(code, len(value)):
            raise PacketError(f'option {code} has {len(value)} bytes')
    client_id = options.get(_CLIENT_ID)
    if client_id is not None and not 1 <= len(client_id) <= 255:
        raise PacketError(f'option 61 has {len(client_id)} bytes')
    if _TYPE not in options:
        raise PacketError('no option 53: BOOTP')
    number = options[_TYPE][0]
    message_type = _TYPES.get(number)
    if message_type is None:
        raise PacketError(f'{number} is no message type')
    if (op == 2) != (number in _FROM_SERVER):
        raise PacketError(f'{message_type.name} with op {op}')
    lease_time = options.get(_LEASE_TIME)
    return Message(
        op=op, xid=xid, flags=flags,
        ciaddr=unpack(ciaddr), yiaddr=unpack(yiaddr), giaddr=unpack(giaddr),
        chaddr=chaddr[:6].hex(':'), message_type=message_type,
        requested=_address(options.get(_REQUESTED)),
        server_id=_address(options.get(_SERVER_ID)),
        client_id=client_id,
        lease_time=(None if lease_time is None
                    else int.from_bytes(lease_time, 'big')))


def first_type(payload: bytes) -> int | None:
    """Return option 53 if it is the first, where most put it, or None."""
    at = _COOKIE.stop
    if payload[at:at + 2] != _TYPE_FIRST:
        return None
    return payload[at + 2] if len(payload) > at + 2 else None


def build_release(
        address: ipaddress.IPv4Address, mac: str,
        server_id: ipaddress.IPv4Address,
        client_id: bytes | None = None) -> bytes:
    """Return a DHCPRELEASE (RFC 2131 section 4.4.6), for a UDP datagram.

    Its address stands in ciaddr, never in option 50 (RFC 2131 table 5).

    :param mac: of the lease's holder.
    :param server_id: what the server calls itself in option 54.
    :param client_id: the holder's option 61; None leaves it out. A wrong one
        makes a server refuse the message.
    """
    options = bytes((_TYPE, 1, MessageType.RELEASE,
                     _SERVER_ID, 4)) + server_id.packed
    if client_id is not None:
        options += bytes((_CLIENT_ID, len(client_id))) + client_id
    none = bytes(4)
    payload = _HEADER.pack(
        1, _ETHERNET, 6, 0, int.from_bytes(os.urandom(4), 'big'), 0, 0,
        address.packed, none, none, none,
        bytes.fromhex(mac.replace(':', '')))
    payload += bytes(64 + 128) + _MAGIC + options + bytes((_END,))
    return payload.ljust(_MIN_SIZE, b'\0')


def _address(data: bytes | None) -> ipaddress.IPv4Address | None:
    return None if data is None else unpack(data)


def _options(payload: bytes) -> dict[int, bytes]:
    # An option that comes several times is one that was split: the parts
    # are put together in the order options, file, sname (RFC 3396 section 5).
    options: dict[int, bytes] = {}
    _collect(options, payload[_COOKIE.stop:])
    overload = options.get(_OVERLOAD, b'\0')
    if len(overload) != 1 or overload[0] > 3:
        raise PacketError('senseless option 52')
    if overload[0] & 1:
        _collect(options, payload[_FILE])
    if overload[0] & 2:
        _collect(options, payload[_SNAME])
    return options


def _collect(options: dict[int, bytes], field: bytes) -> None:
    at, end = 0, len(field)
    while at < end:
        code = field[at]
        if code == _END:
            return
        if code == _PAD:
            at += 1
            continue
        if at + 2 > end or at + 2 + field[at + 1] > end:
            raise PacketError(f'option {code} is cut off')
        start, at = at + 2, at + 2 + field[at + 1]
        if code in _WANTED:
            options[code] = options.get(code, b'') + field[start:at]
    raise PacketError('the options have no end')
