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

"""Sixteen dnsmasqs that share the addresses of one network.

Each is in a network namespace of its own, on one network with the others, and
has the entries of 4,096 addresses.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
import ipaddress

from tests.contract import dnsmasq
from tests import lab
from vmip_plugin.dhcp import base
from vmip_plugin.inventory import serving

SERVERS = [f'{number}={network}' for number, network in enumerate(
    ipaddress.ip_network('10.66.0.0/16').subnets(new_prefix=20))]


class _Drivers(base.DHCPDriver):
    """Sends to each server what the list would have it do."""

    def __init__(self, drivers: Sequence[base.DHCPDriver]) -> None:
        self.name = 'shared'
        self._drivers = drivers
        self.capabilities = drivers[0].capabilities

    def put(self, entries: Sequence[base.HostEntry]) -> base.Failures:
        return self._each(entries, lambda driver, part: driver.put(part))

    def remove(self, entries: Iterable[base.HostEntry]) -> base.Failures:
        return self._each(entries, lambda driver, part: driver.remove(part))

    def _each(self, entries: Iterable[base.HostEntry],
              call: Callable[[base.DHCPDriver, list[base.HostEntry]],
                             base.Failures]) -> base.Failures:
        parts = collections.defaultdict(list)
        for entry in entries:
            name, = serving.of_address(SERVERS, entry.address)
            parts[int(name)].append(entry)
        failures: base.Failures = {}
        for number, part in parts.items():
            failures |= call(self._drivers[number], part)
        return failures

    def entries(self) -> Iterator[base.HostEntry]:
        for driver in self._drivers:
            yield from driver.entries()

    def leases(self) -> Iterator[base.Lease]:
        for driver in self._drivers:
            yield from driver.leases()

    def check(self) -> list[str]:
        return [text for driver in self._drivers for text in driver.check()]


class _Server(dnsmasq.DnsmasqServer):
    """The first of the servers, and the others with it."""

    def __init__(self, servers: Sequence[dnsmasq.DnsmasqServer]) -> None:
        self._servers = servers
        self.bridge = servers[0].bridge

    def driver(self) -> base.DHCPDriver:
        return _Drivers([server.driver() for server in self._servers])


class SharedContract(dnsmasq.DnsmasqContract):
    """Makes the servers."""

    def make_server(self) -> dnsmasq.DnsmasqServer:
        servers: list[dnsmasq.DnsmasqServer] = []
        for number in range(len(SERVERS)):
            folder = self.enter(lab.Folder()).path
            bridge = self.enter(lab.Bridge(
                f'10.66.255.{254 - number}/16',
                f'2001:db8:66::ffff:{0xfffe - number:x}/64'))
            if servers:
                # what asks one of them asks all
                servers[0].bridge.join(bridge)
            servers.append(dnsmasq.DnsmasqServer(self.enter(lab.Dnsmasq(
                bridge, folder, self.make_hostsdir(folder))), self.options))
        return _Server(servers)
