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

"""What the contract of a driver asks for (:mod:`vmip_plugin.dhcp.base`)."""

from collections.abc import Collection, Iterable, Iterator, Sequence
import ipaddress
import re
from typing import ClassVar

from oslo_config import cfg

from vmip_plugin.dhcp import base
from vmip_plugin.dhcp.dnsmasq import doctor
from vmip_plugin.dhcp.dnsmasq import folder
from vmip_plugin.dhcp.dnsmasq import lease as lease_file
from vmip_plugin.dhcp.dnsmasq import line as host_line
from vmip_plugin.dhcp.dnsmasq import process
from vmip_plugin import exceptions
from vmip_plugin import types


class DnsmasqDriver(base.DHCPDriver):
    """Host files in the folder of a dnsmasq on this machine.

    The process must be allowed to write the folder and to signal dnsmasq:
    the same user, root, or CAP_KILL. All processes of vmip that use one
    folder run as the same user.
    """

    OPTS: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt(
            'hostsdir',
            help='The folder of dnsmasq\'s --dhcp-hostsdir. It must be there '
                 'when dnsmasq starts. Needed.'),
        cfg.StrOpt(
            'pid_file',
            help='The file of dnsmasq\'s --pid-file. Needed, to make dnsmasq '
                 'forget a removed entry.'),
        cfg.StrOpt(
            'lease_file',
            help='The file of dnsmasq\'s --dhcp-leasefile. Without it the '
                 'leases of this server cannot be listed.'),
        cfg.StrOpt(
            'lease_time',
            help='Lease time of the entries as dnsmasq writes it: 3600, 45m, '
                 '12h or infinite; it takes less than two minutes for two '
                 'minutes. Without it the time of the range holds.'),
        cfg.IPOpt(
            'server_id', version=4,
            help='The address by which dnsmasq names itself in its answers '
                 '(option 54). A release that is sent to it must carry it.'),
        cfg.StrOpt(
            'dbus_service',
            help='The name that dnsmasq has on D-Bus by --enable-dbus; '
                 'uk.org.thekelleys.dnsmasq is what it takes by itself. '
                 'With it, leases are ended by D-Bus. It needs lease_file.'),
        cfg.StrOpt(
            'dbus_address', default='SYSTEM',
            help='The bus of dbus_service: unix:path=/run/... for another '
                 'one than the system\'s.'),
        cfg.IntOpt(
            'compact_above', default=500, min=0,
            help='Put the entries into one file when an entry is removed and '
                 'there are more files than this: dnsmasq serves nobody '
                 'while it reads them again, 3 seconds for 10000 files.'),
        cfg.FloatOpt(
            'max_pause', default=1.0, min=0.0,
            help='Longest time in seconds that dnsmasq may need to read its '
                 'files again, which it does for a removed entry and answers '
                 'nobody meanwhile. Where it needs more, removals are '
                 'gathered, and their addresses are not given out again '
                 'until the next reading, after nine times as long.'),
        cfg.IntOpt(
            'timeout', default=30, min=1,
            help='Longest time in seconds to wait for another process that '
                 'changes the folder, for dnsmasq to read it again, and for '
                 'an answer by D-Bus.'),
    )
    capabilities = base.Capability.LIVE_ADD | base.Capability.IPV6

    def __init__(self, name: str, options: cfg.ConfigOpts.GroupAttr) -> None:
        super().__init__(name, options)
        for option in ('hostsdir', 'pid_file'):
            if not getattr(options, option):
                raise exceptions.ConfigError(
                    f'[dhcp:{name}] {option} is not set: set it to the value '
                    'that dnsmasq is started with')
        if options.lease_time and not re.fullmatch(
                host_line.TIME, options.lease_time):
            raise exceptions.ConfigError(
                f'[dhcp:{name}] lease_time must look like 3600, 45m, 12h or '
                'infinite')
        self._process = process.Process(
            name, options.pid_file, options.timeout, options.max_pause)
        self._folder = folder.Folder(
            name, options.hostsdir, self._process, options.compact_above,
            options.timeout)
        if options.lease_file:
            self.capabilities |= base.Capability.LEASE_LIST
        self._bus = None
        if options.dbus_service:
            if not options.lease_file:
                raise exceptions.ConfigError(
                    f'[dhcp:{name}] dbus_service needs lease_file: set it to '
                    'the value of dnsmasq\'s --dhcp-leasefile')
            try:
                from vmip_plugin.dhcp.dnsmasq import bus
            except ImportError as exc:
                raise exceptions.ConfigError(
                    f'[dhcp:{name}] dbus_service needs what is not installed '
                    f'({exc}): pip install "vmip-plugin[dnsmasq]"') from exc
            self._bus = bus.Bus(name, options.dbus_service,
                                options.dbus_address, options.timeout)
            self.capabilities |= base.Capability.LEASE_RELEASE

    @property
    def server_id(self) -> ipaddress.IPv4Address | None:
        """What a DHCPRELEASE carries as option 54 (RFC 2132, 9.7)."""
        text = self.options.server_id
        return ipaddress.IPv4Address(text) if text else None

    def put(self, entries: Sequence[base.HostEntry]) -> base.Failures:
        failures: base.Failures = {}
        lines: dict[types.Address, str] = {}
        by_mac: dict[host_line.Key, types.Address] = {}
        taken = set()
        for entry in entries:
            try:
                line = host_line.compose(entry, self.options.lease_time)
            except ValueError as exc:
                failures[entry] = exceptions.DHCPError(
                    f'dnsmasq {self.name}: {entry.address}: {exc}')
                continue
            # within one call, too, the last entry of a MAC or address holds
            key = host_line.mac_of(line), entry.address.version
            before = by_mac.get(key)
            if before is not None and \
                    host_line.mac_of(lines.get(before, '')) == key[0]:
                del lines[before]
            by_mac[key] = entry.address
            lines[entry.address] = line
            taken.add(entry.address)
        return failures | self._late(
            [entry for entry in entries if entry not in failures],
            self._folder.put(lines, by_mac.keys(), taken))

    def remove(self, entries: Iterable[base.HostEntry]) -> base.Failures:
        gone = list(entries)
        return self._late(gone, self._folder.remove(
            {(entry.address, entry.mac) for entry in gone}))

    def _late(self, entries: Iterable[base.HostEntry],
              late: Collection[types.Address]) -> base.Failures:
        error = exceptions.DHCPServerUnavailable(
            f'dnsmasq {self.name} needs {self._process.pause:.1f} s to read '
            f'its files again and will do so in {self._process.rest():.0f} s '
            'at the earliest: split the pool over several dnsmasqs.')
        return {entry: error for entry in entries if entry.address in late}

    def entries(self) -> Iterator[base.HostEntry]:
        for line in self._folder.lines():
            entry = host_line.parse(line)
            if entry is not None:
                yield entry

    def leases(self) -> Iterator[base.Lease]:
        return self._leases(None)

    def leases_of(self, addresses: Collection[types.Address],
                  ) -> Iterator[base.Lease]:
        """Yield the running leases of these addresses."""
        return self._leases(addresses)

    def _leases(self, addresses: Collection[types.Address] | None,
                ) -> Iterator[base.Lease]:
        path = self.options.lease_file
        if not path:
            yield from super().leases()
        try:
            yield from lease_file.leases(path, addresses)
        except OSError as exc:
            if isinstance(exc, FileNotFoundError) and self._is_down():
                # It begins without any: its host keeps the file in memory,
                # or it has never run. One that runs has made its file.
                return
            raise exceptions.DHCPServerUnavailable(
                f'dnsmasq {self.name}: {path}: {exc.strerror}: set lease_file '
                'to the value of dnsmasq\'s --dhcp-leasefile, and let this '
                'process read it.') from exc

    def _is_down(self) -> bool:
        try:
            with self._process.running():
                return False
        except exceptions.DHCPServerUnavailable:
            return True

    def release(self, lease: base.Lease) -> None:
        """End a lease; one that has another owner meanwhile is left alone.

        :raises DHCPServerUnavailable: it is not known to be ended.
        """
        if self._bus is None:
            super().release(lease)
            return
        for found in self.leases_of([lease.address]):
            if (found.mac, found.client_id) == (lease.mac, lease.client_id):
                self._bus.delete_lease(lease.address)

    def check(self) -> list[str]:
        try:
            entries = list(self.entries())
        except exceptions.DHCPError as exc:
            return [str(exc)]
        wrong = list(doctor.check_files(self._folder, self.options.lease_file))
        try:
            with self._process.running() as (pid, _):
                wrong += doctor.check_server(
                    pid, self._folder.path, entries,
                    bool(self.options.dbus_service))
            if self._bus is not None:
                self._bus.version()
        except exceptions.DHCPError as exc:
            wrong.append(str(exc))
        return wrong
