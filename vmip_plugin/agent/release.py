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

"""Gives a lease back to its DHCP server in its holder's name."""

from collections.abc import Collection
import contextlib
import functools
import ipaddress
import time

from vmip_plugin.agent import frames
from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import link
from vmip_plugin.agent import probe
from vmip_plugin.dhcp import packet
from vmip_plugin.dhcp import packet6
from vmip_plugin import exceptions
from vmip_plugin import types

# of packet6.SERVERS (RFC 2464 section 7)
_SERVERS_MAC = '33:33:00:01:00:02'
_REACHED_AGE = 60.0
_REACHED_LIMIT = 1000


class ReleaseError(exceptions.VmipError):
    """The DHCPRELEASE could not be sent."""


class Releaser:
    """Sends DHCPRELEASE (RFC 2131 section 4.4.6) and its like of DHCPv6.

    That is RELEASE (RFC 8415 section 18.2.7).

    The Ethernet source is always the agent's own: the guest's would move it
    in the switches' tables.

    :param interfaces: those of the agent.
    :param source: ``guest``: the IP source is the lease's address, and at a
        later try the interface's own, if it has one; ``agent``: always the
        interface's own.
    :param timeout: seconds waited for the server's answer to ARP.
    """

    def __init__(self, interfaces: Collection[str], source: str,
                 timeout: float) -> None:
        self._interfaces = interfaces
        self._source = source
        self._timeout = timeout
        self._reached: dict[ipaddress.IPv4Address, tuple[float, bool]] = {}

    def reaches(self, server: ipaddress.IPv4Address) -> bool:
        """Tell whether a DHCP server is on one of the agent's networks.

        The answer is a minute old at most; getting one may take ``timeout``
        seconds for each interface.
        """
        until, found = self._reached.get(server, (0.0, False))
        if time.monotonic() > until:
            found = any(self._answers(name, server)
                        for name in self._interfaces)
            if len(self._reached) >= _REACHED_LIMIT:
                self._reached.clear()
            self._reached[server] = time.monotonic() + _REACHED_AGE, found
        return found

    def _answers(self, name: str, server: ipaddress.IPv4Address) -> bool:
        try:
            with link.Link(name, link.ANSWER_FILTER,
                           timeout=self._timeout) as opened:
                return (server == opened.address
                        or self._resolve(opened, server, None) is not None)
        except OSError:
            return False

    def release(self, lease: lease_.Lease, client_id: bytes | None) -> None:
        """Send one DHCPRELEASE. No server ever confirms it.

        :param client_id: what option 61 says; None leaves it out.
        :raises ReleaseError: it could not be sent.
        """
        send = (self._send6 if lease.address.version == 6
                else functools.partial(self._send4, client_id=client_id))
        errors = []
        names = probe.where(lease, self._interfaces)
        for name in names:
            try:
                with link.Link(name, link.ANSWER_FILTER,
                               timeout=self._timeout) as opened:
                    send(opened, lease)
            except (OSError, ReleaseError) as exc:
                errors.append(f'{name}: {exc}')
        if len(errors) == len(names):
            raise ReleaseError('; '.join(errors))

    def _send4(self, opened: link.Link, lease: lease_.Lease,
               client_id: bytes | None) -> None:
        server = lease.dhcp_server
        assert isinstance(lease.address, ipaddress.IPv4Address)
        assert isinstance(server, ipaddress.IPv4Address)
        payload = packet.build_release(lease.address, lease.mac, server,
                                       client_id)
        mac = self._server_mac(opened, lease, server)
        if mac == opened.mac:
            # A bridge does not hand its own frames up to its own host: a
            # server that runs here gets a plain datagram, for which the
            # source does not matter. Kea and dhcpd do not read that, but
            # raw frames, and of those also what goes out.
            opened.send_datagram(payload, server, packet.SERVER_PORT)
        source = self._source_address(opened, lease)
        if source is None:
            raise ReleaseError(
                'the interface has no address to send from, and [agent] '
                'source is "agent"')
        opened.send(frames.build_datagram(frames.Datagram(
            source=opened.mac, destination=mac, vlan=lease.vlan,
            source_ip=source, destination_ip=server,
            source_port=packet.CLIENT_PORT,
            destination_port=packet.SERVER_PORT, payload=payload)))

    def _send6(self, opened: link.Link, lease: lease_.Lease) -> None:
        # To all servers and relays of the link, as the guest would send it:
        # the server's DUID says which one is meant. A DHCPv6 server looks at
        # the interface, and at no source address.
        assert isinstance(lease.address, ipaddress.IPv6Address)
        if lease.client_id is None or lease.server_duid is None or (
                lease.iaid is None):
            raise ReleaseError('its DUIDs were never overheard')
        payload = packet6.build_release(
            lease.address, lease.iaid, lease.client_id, lease.server_duid)
        if lease.vlan is None and (
                lease.dhcp_server_mac == opened.mac or lease.tries):
            # For a server that runs here, see above; a bridge may have
            # another MAC by now than when it answered.
            with contextlib.suppress(OSError):
                opened.send_datagram(payload, packet6.SERVERS,
                                     packet6.SERVER_PORT)
        opened.send(frames.build_datagram(frames.Datagram(
            source=opened.mac, destination=_SERVERS_MAC, vlan=lease.vlan,
            source_ip=frames.link_local(opened.mac),
            destination_ip=packet6.SERVERS,
            source_port=packet6.CLIENT_PORT,
            destination_port=packet6.SERVER_PORT, payload=payload)))

    def _source_address(self, opened: link.Link, lease: lease_.Lease
                        ) -> types.Address | None:
        # What is dropped on the way for its source (rp_filter, the rules of a
        # switch) is not told of, so that a later try has another one.
        if self._source == 'guest':
            return lease.tries and opened.address or lease.address
        return opened.address

    def _server_mac(self, opened: link.Link, lease: lease_.Lease,
                    server: ipaddress.IPv4Address) -> str:
        # The answer that was overheard came from the server or from the
        # router on the way to it; a later try allows for a server that has
        # moved to another machine.
        if lease.dhcp_server_mac is not None and lease.tries == 0:
            return lease.dhcp_server_mac
        if server == opened.address:
            return opened.mac
        mac = (self._resolve(opened, server, lease.vlan)
               or lease.dhcp_server_mac)
        if mac is None:
            raise ReleaseError(
                f'DHCP server {server} does not answer to ARP')
        return mac

    def _resolve(self, opened: link.Link, server: ipaddress.IPv4Address,
                 vlan: int | None) -> str | None:
        opened.send(frames.build_arp_request(
            opened.mac, frames.BROADCAST, server, vlan))
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            got = opened.receive()
            if got is None:
                break
            try:
                reply = frames.parse_answer(got[0])
            except frames.FrameError:
                continue
            if reply.address == server:
                return reply.mac
        return None
