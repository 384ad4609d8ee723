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

"""The driver of ISC Kea.

Host entries are written into the hosts database that Kea itself looks into
(any version), or by the commands of the hook library host_cmds (3.0 or
newer). Everything else goes through the control channel of the daemons.
DHCPv4 and DHCPv6 are two daemons, and an entry is one's or the other's.
"""

import collections
from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import ipaddress
from typing import ClassVar

from oslo_config import cfg

from vmip_plugin.dhcp import base
from vmip_plugin.dhcp.kea import commands
from vmip_plugin.dhcp.kea import control
from vmip_plugin.dhcp.kea import daemon
from vmip_plugin.dhcp.kea import database
from vmip_plugin.dhcp.kea import doctor
from vmip_plugin.dhcp.kea import host
from vmip_plugin import exceptions
from vmip_plugin import types


class KeaDriver(base.DHCPDriver):
    """A kea-dhcp4, a kea-dhcp6, or both."""

    OPTS: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt(
            'control',
            help='The control channel of kea-dhcp4: the path of its unix '
                 'socket; or http[s]://HOST:PORT/ of kea-ctrl-agent or, from '
                 'Kea 3.0 on, of the daemon itself. Without it leases are '
                 'neither listed nor ended, and hosts_database and subnets '
                 'are needed.'),
        cfg.StrOpt(
            'control6',
            help='The same for kea-dhcp6.'),
        cfg.StrOpt(
            'control_user',
            help='User of the control channel, for HTTP.'),
        cfg.StrOpt(
            'control_password', secret=True,
            help='Password of control_user.'),
        cfg.StrOpt(
            'control_ca',
            help='File with the certificate of the CA of an https channel. '
                 'Without it the CAs of the system are trusted.'),
        cfg.StrOpt(
            'hosts_database', secret=True,
            help='SQLAlchemy URL of the hosts database of Kea, on MySQL, '
                 'MariaDB or PostgreSQL. Without it host entries are written '
                 'by the hook library host_cmds, which Kea has from 3.0 on.'),
        cfg.ListOpt(
            'subnets', default=[],
            help='Subnets with their ids in the configuration of Kea, such '
                 'as 192.0.2.0/24=1. Needed without a control channel; with '
                 'one, they let entries be written while Kea is down.'),
        cfg.BoolOpt(
            'config_write', default=False,
            help='Where host_cmds keeps reservations in memory, since Kea '
                 'has no hosts-database: let Kea write them to its '
                 'configuration file after each change. Kea writes the whole '
                 'file, without the comments.'),
        cfg.IPOpt(
            'server_id', version=4,
            help='The address by which Kea names itself in its answers '
                 '(option 54).'),
        cfg.IntOpt(
            'timeout', default=10, min=1,
            help='Longest time in seconds for one answer of Kea or of the '
                 'database.'),
    )
    capabilities = base.Capability.LIVE_ADD | base.Capability.LIVE_REMOVE

    def __init__(self, name: str, options: cfg.ConfigOpts.GroupAttr) -> None:
        super().__init__(name, options)
        if not options.hosts_database and not (
                options.control or options.control6):
            raise exceptions.ConfigError(
                f'[dhcp:{name}] set hosts_database to the hosts database of '
                'Kea, or control to the control channel of a Kea 3.0 with '
                'the hook library host_cmds')
        subnets = self._subnets()
        self._daemons = [
            which for version, target in (
                (4, options.control), (6, options.control6))
            if (which := daemon.Daemon(
                name, version, target, {
                    network: number for network, number in subnets.items()
                    if network.version == version}, options)).served]
        self._database = database.Database(
            name, options.hosts_database, options.timeout) \
            if options.hosts_database else None
        if not self._daemons:
            raise exceptions.ConfigError(
                f'[dhcp:{name}] without control and control6 set subnets, '
                'such as 192.0.2.0/24=1')
        if self._database:
            self.capabilities |= base.Capability.SHARED_STORE
        if all(which.control for which in self._daemons):
            self.capabilities |= (base.Capability.LEASE_LIST
                                  | base.Capability.LEASE_RELEASE)
        if self._daemons[-1].version == 6:
            self.capabilities |= base.Capability.IPV6

    def _subnets(self) -> dict[daemon.Network, int]:
        subnets: dict[daemon.Network, int] = {}
        for text in self.options.subnets:
            network, _, number = text.partition('=')
            try:
                subnets[ipaddress.ip_network(network.strip())] = int(number)
            except ValueError as exc:
                raise exceptions.ConfigError(
                    f'[dhcp:{self.name}] subnets: {text!r} does not look '
                    'like 192.0.2.0/24=1') from exc
        return subnets

    @property
    def server_id(self) -> ipaddress.IPv4Address | None:
        """What a DHCPRELEASE carries as option 54 (RFC 2132, 9.7)."""
        text = self.options.server_id
        return ipaddress.IPv4Address(text) if text else None

    def put(self, entries: Sequence[base.HostEntry]) -> base.Failures:
        failures: base.Failures = {
            entry: exceptions.DHCPError(
                f'Kea {self.name}: no IPv{entry.address.version} is '
                f'configured: set control{"6" * (entry.address.version == 6)}'
                f' or subnets')
            for entry in entries if not any(
                which.version == entry.address.version
                for which in self._daemons)}
        return failures | self._each(self._put, entries)

    def _each(self, change: Callable[[daemon.Daemon, list[base.HostEntry]],
                                     base.Failures],
              entries: Iterable[base.HostEntry]) -> base.Failures:
        """Have each daemon's entries changed, whatever becomes of others.

        :raises DHCPServerUnavailable: none of them could be.
        """
        failures: base.Failures = {}
        errors = []
        by_version: dict[int, list[base.HostEntry]] = (
            collections.defaultdict(list))
        for entry in entries:
            by_version[entry.address.version].append(entry)
        daemons = [which for which in self._daemons
                   if which.version in by_version]
        for which in daemons:
            mine = by_version[which.version]
            try:
                failures |= change(which, mine)
            except exceptions.DHCPServerUnavailable as exc:
                failures |= dict.fromkeys(mine, exc)
                errors.append(exc)
        if errors and len(errors) == len(daemons):
            raise errors[0]
        return failures

    def _put(self, which: daemon.Daemon, entries: list[base.HostEntry],
             ) -> base.Failures:
        failures: base.Failures = {}
        hosts = []
        known = which.known([entry.address for entry in entries],
                            whole=self._database is not None)
        for entry in entries:
            subnet = known.subnet_of(entry.address)
            if subnet is None:
                failures[entry] = exceptions.DHCPError(
                    f'{which.label} has no subnet with {entry.address}: add '
                    'it to the daemon\'s configuration, or to the option '
                    'subnets')
                continue
            try:
                item = host.parse(entry, subnet)
            except ValueError as exc:
                failures[entry] = exceptions.DHCPError(
                    f'Kea {self.name}: {entry.address}: {exc}')
                continue
            if known.operators.isdisjoint(
                    {item.address, (item.subnet, item.mac)}):
                hosts.append(item)
            else:
                failures[entry] = host.in_the_way(which.label, item)
        if self._database:
            return failures | self._database.put(which.version, hosts)
        return failures | self._commands(which).put(hosts)

    def _commands(self, which: daemon.Daemon) -> commands.Commands:
        return commands.Commands(which, self.options.config_write)

    def remove(self, entries: Iterable[base.HostEntry]) -> base.Failures:
        return self._each(self._remove, entries)

    def _remove(self, which: daemon.Daemon, entries: list[base.HostEntry],
                ) -> base.Failures:
        valid = []
        for entry in entries:
            with contextlib.suppress(ValueError):   # such a one is not there
                valid.append(dataclasses.replace(
                    entry, mac=types.parse_mac(entry.mac)))
        if self._database:
            self._database.remove(which.version, valid)
            return {}
        return self._commands(which).remove(valid)

    def entries(self) -> Iterator[base.HostEntry]:
        for which in self._daemons:
            if self._database:
                yield from self._database.entries(which.version)
            else:
                yield from self._commands(which).entries()

    def leases(self) -> Iterator[base.Lease]:
        if base.Capability.LEASE_LIST not in self.capabilities:
            yield from super().leases()
        for which in self._daemons:
            yield from which.leases()

    def leases_of(self, addresses: Collection[types.Address]
                  ) -> Iterator[base.Lease]:
        """Yield the running leases of these addresses.

        :raises DHCPServerUnavailable: they cannot be read.
        """
        if len(addresses) > daemon.PAGE:
            wanted = frozenset(addresses)
            yield from (lease for lease in self.leases()
                        if lease.address in wanted)
            return
        for which in self._daemons:
            if which.control:
                yield from which.leases_of([
                    address for address in addresses
                    if address.version == which.version])

    def release(self, lease: base.Lease) -> None:
        for which in self._daemons:
            if which.version == lease.address.version and which.control:
                return which.release(lease)
        return super().release(lease)

    def check(self) -> list[str]:
        wrong: list[str] = []
        if self._database:
            wrong += self._database.check()
        for which in self._daemons:
            try:
                known = daemon.Known(which.given)
                if which.control:
                    settings = which.settings()
                    known = daemon.Known(settings.ids)
                    with control.understood(which.label):
                        wrong += doctor.check(which, settings, self._database)
                if self._database:
                    held = self._database.entries(which.version)
                else:
                    wrong += self._commands(which).check()
                    held = self._commands(which).entries()
                wrong += doctor.check_entries(which.label, known, held)
            except exceptions.DHCPError as exc:
                wrong.append(str(exc))
        return list(dict.fromkeys(wrong))
