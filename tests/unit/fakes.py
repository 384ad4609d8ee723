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

"""Stand-ins for what is outside: the cloud's APIs, a DHCP server, agents."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import datetime
from typing import Any

from tests.unit import base
from vmip_plugin import cloud
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin import types


class Cloud(cloud.Cloud):
    """Nova and Neutron as the test wants them."""

    def __init__(self) -> None:
        self.known: dict[str, cloud.Port] = {}
        #: None: gone
        self.servers: dict[str, str] = {}
        self.networks = {base.NETWORK}
        self.deleted: dict[str, datetime.datetime] = {}
        self.subnets: dict[str, cloud.Subnet] = {}
        self.away = False
        #: ports after which a list breaks off
        self.breaks_after: int | None = None
        #: ports and servers that lists leave out
        self.unlisted: set[str] = set()
        self.asked: list[str] = []
        self.blind = False

    def sees_all_projects(self) -> bool:
        self._ask('credentials')
        return not self.blind

    def add(self, number: int, *addresses: str, mac: str | None = None,
            server: int | None = None, network: str = base.NETWORK,
            owner: str = 'compute:nova') -> cloud.Port:
        """Make a port as ``TestCase.claim`` names it."""
        port = cloud.Port(
            id=base.port_id(number), network_id=network,
            project_id=base.PROJECT, mac=mac or base.mac(number),
            addresses=tuple((base.SUBNET, base.ip(a)) for a in addresses),
            device_id=base.server_id(server or number), device_owner=owner,
            status='ACTIVE')
        self.known[port.id] = port
        self.servers.setdefault(port.device_id, 'ACTIVE')
        return port

    def port(self, port_id: str) -> cloud.Port | None:
        self._ask(f'port {port_id}')
        return self.known.get(port_id)

    def ports(self, **query: Any) -> Iterator[cloud.Port]:
        self._ask(f'ports {query}')
        listed = [p for p in self.known.values()
                  if p.id not in self.unlisted
                  and p.network_id == query.get('network_id', p.network_id)
                  and p.id in query.get('id', [p.id])
                  and p.mac == query.get('mac_address', p.mac)
                  and ('fixed_ips' not in query or any(
                      f'ip_address={a}' in query['fixed_ips']
                      for _, a in p.addresses))]
        for count, port in enumerate(listed):
            if count == self.breaks_after:
                raise exceptions.CloudUnavailable('page 2 is missing')
            yield port
        if self.breaks_after is not None:
            raise exceptions.CloudUnavailable('the last page is missing')

    def all_ports(self, network_id: str) -> Iterator[cloud.Port]:
        self.known = dict(sorted(self.known.items()))
        return self.ports(network_id=network_id)

    def all_servers(self) -> Iterator[str]:
        self._ask('servers')
        for count, server_id in enumerate(sorted(self.servers)):
            if count == self.breaks_after:
                raise exceptions.CloudUnavailable('page 2 is missing')
            if server_id not in self.unlisted:
                yield server_id
        if self.breaks_after is not None:
            raise exceptions.CloudUnavailable('the last page is missing')

    def deleted_servers(self, since: datetime.datetime) -> Iterator[str]:
        self._ask(f'deleted since {since:%H:%M:%S}')
        for server_id, when in self.deleted.items():
            if when >= since:
                yield server_id

    def delete(self, number: int) -> None:
        """Delete a server and its port."""
        del self.known[base.port_id(number)]
        del self.servers[base.server_id(number)]
        self.deleted[base.server_id(number)] = clock.now()

    def server_status(self, server_id: str) -> str | None:
        self._ask(f'server {server_id}')
        return self.servers.get(server_id)

    def subnet(self, name_or_id: str) -> cloud.Subnet | None:
        self._ask(f'subnet {name_or_id}')
        return self.subnets.get(name_or_id)

    def has_network(self, network_id: str | None) -> bool:
        self._ask(f'network {network_id}')
        return network_id in self.networks

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise exceptions.CloudUnavailable('the cloud is away')


class Server(dhcp.DHCPDriver):
    """A DHCP server in memory, that tells what was done to it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.capabilities = dhcp.Capability.LEASE_LIST
        self.have: dict[types.Address, dhcp.HostEntry] = {}
        self.leased: dict[types.Address, dhcp.Lease] = {}
        self.calls: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.failing: dict[str, str] = {}
        self.complaints: list[str] = []
        #: called once, when the server has done its write
        self.meanwhile: Callable[[], Any] | None = None

    @property
    def server_id(self) -> types.Address | None:
        return base.ip('10.0.0.2')

    def lease(self, address: str, mac: str | None) -> None:
        self.leased[base.ip(address)] = dhcp.Lease(
            base.ip(address), mac, None, None)

    def put(self, entries: Sequence[dhcp.HostEntry]) -> dhcp.Failures:
        return self._do('put', entries, lambda entry: self.have.update(
            {entry.address: entry}))

    def remove(self, entries: Iterable[dhcp.HostEntry]) -> dhcp.Failures:
        def one(entry: dhcp.HostEntry) -> None:
            held = self.have.get(entry.address)
            if held is not None and held.mac == entry.mac:
                del self.have[entry.address]

        return self._do('remove', entries, one)

    def entries(self) -> Iterator[dhcp.HostEntry]:
        yield from self.have.values()

    def leases(self) -> Iterator[dhcp.Lease]:
        if self.error is not None:
            raise self.error
        yield from self.leased.values()

    def release(self, lease: dhcp.Lease) -> None:
        self.calls.append(('release', str(lease.address)))
        if 'release' in self.failing:
            raise exceptions.DHCPError(self.failing['release'])
        del self.leased[lease.address]

    def check(self) -> list[str]:
        return self.complaints

    def _do(self, what: str, entries: Iterable[dhcp.HostEntry],
            one: Callable[[dhcp.HostEntry], Any]) -> dhcp.Failures:
        failures: dhcp.Failures = {}
        for entry in entries:
            self.calls.append((what, str(entry.address)))
            if self.error is not None:
                raise self.error
            if str(entry.address) in self.failing:
                failures[entry] = exceptions.DHCPError(
                    self.failing[str(entry.address)])
            else:
                one(entry)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return failures

    def served(self) -> dict[str, str]:
        return {str(a): e.mac for a, e in self.have.items()}


class Agents:
    """The agents' end of the message bus."""

    def __init__(self) -> None:
        self.hints: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        #: what they heard on the wire; of any other address nothing is known
        self.heard: dict[types.Address, bool] = {}
        #: the addresses of each question
        self.probed: list[list[str]] = []

    def probe(self, addresses: Sequence[types.Address], timeout: float = 2.0,
              ) -> dict[types.Address, bool | None]:
        self.probed.append([str(address) for address in addresses])
        return {address: self.heard.get(address) for address in addresses}

    def release_lease(self, address: str, mac: str, server_id: str | None,
                      port_id: str | None, dhcp_server: str | None) -> None:
        if self.error is not None:
            raise self.error
        self.hints.append((address, mac, server_id, port_id, dhcp_server))
