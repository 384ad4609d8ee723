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

"""What the DHCP messages on an interface say about leases.

A REQUEST names the address in option 50 or, once the client has it, in
ciaddr; the server it names only in state SELECTING (RFC 2131 table 4). So the
truth is the ACK: it settles server, address and time. Only the client id is
the REQUEST's, for most servers do not repeat it.
"""

import collections
import enum
import ipaddress
import time
from typing import NamedTuple

from vmip_plugin.agent import frames
from vmip_plugin.dhcp import packet
from vmip_plugin import types

#: seconds that a REQUEST waits for its answer
PENDING_AGE = 60.0
#: most REQUESTs that wait for their answer
PENDING_LIMIT = 10000
#: what says nothing of a lease
_OTHERS = frozenset(one.value for one in (
    packet.MessageType.DISCOVER, packet.MessageType.OFFER,
    packet.MessageType.INFORM))


class Kind(enum.Enum):
    """What was overheard."""

    #: a client asked for an address, or for more time
    REQUESTED = 'requested'
    #: the server granted it
    GRANTED = 'granted'
    #: the server refused it
    REFUSED = 'refused'
    #: the client gave it back (DHCPRELEASE, DHCPDECLINE)
    ENDED = 'ended'


class Overheard(NamedTuple):
    """One thing overheard about one lease.

    :param vlan: id of the tag on the interface, None without one.
    :param dhcp_server: what the server calls itself (option 54); of DHCPv6
        the address that it answers from.
    :param dhcp_server_mac: Ethernet source of its answer: the server, or the
        router on the way to it.
    :param lease_seconds: option 51 of the answer.
    :param seen: when, in seconds since the epoch.
    :param client_id: option 61, of DHCPv6 the client's DUID.
    :param server_duid: of a DHCPv6 server.
    :param iaid: of a DHCPv6 client's IA_NA.
    :param remote: a relay or a router passed on what the client said.
    """

    kind: Kind
    address: types.Address
    mac: str
    interface: str
    seen: float
    vlan: int | None = None
    dhcp_server: types.Address | None = None
    dhcp_server_mac: str | None = None
    client_id: bytes | None = None
    lease_seconds: int | None = None
    remote: bool = False
    server_duid: bytes | None = None
    iaid: int | None = None


class Tracker:
    """Puts REQUESTs and answers of one interface together.

    What comes from a client's own MAC is told apart from what does not: that
    is a message which a relay passed on (giaddr is set, RFC 2131 section
    4.1) or a router (what a client with an address sends to its server), or
    one that anybody made up.
    """

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._pending: collections.OrderedDict[
            tuple[int, str], tuple[float, packet.Message, bool]] = (
                collections.OrderedDict())

    def hear(self, frame: bytes, vlan: int | None = None) -> Overheard | None:
        """Return what a frame says about a lease, or None.

        :param vlan: id of a tag that the kernel has already taken off.
        :raises ValueError: the frame holds no sound DHCP message.
        """
        return self.take(frames.parse_datagram(frame, vlan))

    def take(self, datagram: frames.Datagram) -> Overheard | None:
        """Return what an IPv4 datagram says about a lease, or None.

        :raises PacketError: it holds no sound DHCP message.
        """
        if packet.first_type(datagram.payload) in _OTHERS:
            return None
        message = packet.parse(datagram.payload)
        if not usable_mac(message.chaddr):
            return None
        if message.op == 1:
            return self._client(message, datagram)
        return self._server(message, datagram)

    def _client(self, message: packet.Message,
                datagram: frames.Datagram) -> Overheard | None:
        remote = datagram.source != message.chaddr
        if remote and not int(message.giaddr) and (
                not int(message.ciaddr)
                or datagram.source_ip != message.ciaddr):
            return None
        address = message.requested or message.ciaddr
        ended = message.message_type in (
            packet.MessageType.RELEASE, packet.MessageType.DECLINE)
        if message.message_type is packet.MessageType.RELEASE:
            address = message.ciaddr
        elif message.message_type is packet.MessageType.REQUEST:
            self._remember(message, remote)
        elif not ended:
            return None
        if not usable_address(address):
            return None
        return Overheard(
            kind=Kind.ENDED if ended else Kind.REQUESTED, address=address,
            mac=message.chaddr, interface=self._interface,
            vlan=datagram.vlan, seen=time.time(),
            client_id=message.client_id, dhcp_server=_server_id(message),
            remote=remote)

    def _server(self, message: packet.Message,
                datagram: frames.Datagram) -> Overheard | None:
        if message.message_type is packet.MessageType.OFFER:
            return None
        asked = self._pending.get((message.xid, message.chaddr))
        if asked is None or time.monotonic() - asked[0] > PENDING_AGE:
            return None
        _, request, remote = asked
        if message.message_type is packet.MessageType.ACK:
            kind, address = Kind.GRANTED, message.yiaddr
        else:
            kind = Kind.REFUSED
            address = request.requested or request.ciaddr
            del self._pending[message.xid, message.chaddr]
        server = _server_id(message)
        if not usable_address(address) or (
                kind is Kind.GRANTED and server is None):
            return None
        return Overheard(
            kind=kind, address=address, mac=message.chaddr,
            interface=self._interface, vlan=datagram.vlan, seen=time.time(),
            dhcp_server=server, dhcp_server_mac=datagram.source,
            client_id=request.client_id, lease_seconds=message.lease_time,
            remote=remote)

    def _remember(self, message: packet.Message, remote: bool) -> None:
        key, now = (message.xid, message.chaddr), time.monotonic()
        if remote and key in self._pending and not self._pending[key][2]:
            # the relay is on the client's own network
            return
        self._pending[key] = now, message, remote
        self._pending.move_to_end(key)
        while len(self._pending) > PENDING_LIMIT or (
                now - next(iter(self._pending.values()))[0] > PENDING_AGE):
            self._pending.popitem(last=False)


def usable_mac(mac: str) -> bool:
    """Tell whether one station can have this Ethernet address."""
    return not int(mac[:2], 16) & 1 and mac != '00:00:00:00:00:00'


def usable_address(address: types.Address) -> bool:
    """Tell whether one guest or server can have this address."""
    if isinstance(address, ipaddress.IPv6Address):
        return not (address.is_unspecified or address.is_multicast
                    or address.is_loopback or address.is_link_local)
    # ipaddress's own properties take as long as all the parsing. From
    # 224.0.0.0 on: multicast, reserved and the limited broadcast address.
    number = int(address)
    return 0 < number < 0xe0000000 and number >> 24 != 127


def _server_id(message: packet.Message) -> ipaddress.IPv4Address | None:
    server = message.server_id
    return server if server is not None and usable_address(server) else None
