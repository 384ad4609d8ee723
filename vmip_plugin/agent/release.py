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
import ipaddress
import socket
import time

from vmip_plugin.agent import frames
from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import link
from vmip_plugin.agent import probe
from vmip_plugin.dhcp import packet
from vmip_plugin import exceptions

_SO_BINDTODEVICE = 25
_REACHED_AGE = 60.0
_REACHED_LIMIT = 1000


class ReleaseError(exceptions.VmipError):
    """The DHCPRELEASE could not be sent."""


class Releaser:
    """Sends DHCPRELEASE (RFC 2131 section 4.4.6).

    The Ethernet source is always the agent's own: the guest's would move it
    in the switches' tables.

    :param interfaces: those of the agent.
    :param source: ``guest``: the IP source is the lease's address;
        ``agent``: it is the interface's own.
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
            with link.Link(name, link.ARP_FILTER,
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
        assert lease.dhcp_server is not None
        payload = packet.build_release(
            lease.address, lease.mac, lease.dhcp_server, client_id)
        errors = []
        names = probe.where(lease, self._interfaces)
        for name in names:
            try:
                self._send(name, lease, lease.dhcp_server, payload)
            except (OSError, ReleaseError) as exc:
                errors.append(f'{name}: {exc}')
        if len(errors) == len(names):
            raise ReleaseError('; '.join(errors))

    def _send(self, name: str, lease: lease_.Lease,
              server: ipaddress.IPv4Address, payload: bytes) -> None:
        with link.Link(name, link.ARP_FILTER,
                       timeout=self._timeout) as opened:
            mac = self._server_mac(opened, lease, server)
            if mac == opened.mac:
                _send_local(name, server, payload)
                return
            source = (lease.address if self._source == 'guest'
                      else opened.address)
            if source is None:
                raise ReleaseError(
                    'the interface has no address to send from, and [agent] '
                    'source is "agent"')
            opened.send(frames.build_datagram(frames.Datagram(
                source=opened.mac, destination=mac, vlan=lease.vlan,
                source_ip=source, destination_ip=server,
                source_port=packet.CLIENT_PORT,
                destination_port=packet.SERVER_PORT, payload=payload)))

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
                reply = frames.parse_arp_reply(got[0])
            except frames.FrameError:
                continue
            if reply.address == server:
                return reply.mac
        return None


def _send_local(name: str, server: ipaddress.IPv4Address,
                payload: bytes) -> None:
    # A bridge does not hand its own frames up to its own host: a server that
    # runs here gets a plain datagram, for which the source does not matter.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(
            socket.SOL_SOCKET, _SO_BINDTODEVICE, name.encode() + b'\0')
        sock.sendto(payload, (str(server), packet.SERVER_PORT))
