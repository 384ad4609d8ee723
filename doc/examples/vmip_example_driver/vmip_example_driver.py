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

"""A DHCP driver: lines of a file as ethers(5) has it, and a command.

The command has the DHCP server read the file again. Our lines end in the
comment ``# vmip``, and with the server's name if it has one.
"""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import fcntl
import ipaddress
import os
import pathlib
import shlex
import subprocess

from oslo_config import cfg

from vmip_plugin.dhcp import base
from vmip_plugin import exceptions
from vmip_plugin import types


class EthersDriver(base.DHCPDriver):
    """For a server that reads its entries from a file when it is told to."""

    OPTS = (
        cfg.StrOpt('file', help='File with the lines "MAC address".'),
        cfg.StrOpt('reload', help='Command that has the server read it.'),
        cfg.IntOpt('timeout', default=10, min=1,
                   help='Seconds for which the command may run.'),
    )
    # No LIVE_ADD, no LIVE_REMOVE: the server reads everything again. No IPV6,
    # and no leases are listed or ended: the file has none.
    capabilities = base.Capability(0)

    def __init__(self, name: str, options: cfg.ConfigOpts.GroupAttr) -> None:
        super().__init__(name, options)
        if not options.file or not options.reload:
            raise exceptions.ConfigError(
                f'[dhcp:{name}]: set file and reload')
        self._file = pathlib.Path(options.file)

    def put(self, entries: Sequence[base.HostEntry]) -> base.Failures:
        failures: base.Failures = {}
        with self._changing() as (ours, foreign):
            for entry in entries:
                if entry.address.version != 4:
                    failures[entry] = exceptions.DHCPError(
                        f'{self.name} has no IPv6')
                elif any(entry.mac in line.lower().split()
                         or str(entry.address) in line.split()
                         for line in foreign):
                    failures[entry] = exceptions.DHCPError(
                        f'{self._file} has a line for {entry.mac} or '
                        f'{entry.address} that is not vmip\'s: remove it')
                else:
                    for old in list(ours.values()):
                        if old.mac == entry.mac:
                            del ours[old.address]
                    ours[entry.address] = entry
        return failures

    def remove(self, entries: Iterable[base.HostEntry]) -> base.Failures:
        with self._changing() as (ours, _):
            for entry in entries:
                held = ours.get(entry.address)
                if held is not None and held.mac == entry.mac:
                    del ours[entry.address]
        return {}

    def entries(self) -> Iterator[base.HostEntry]:
        yield from self._read()[0].values()

    def check(self) -> list[str]:
        if not os.access(self._file, os.R_OK | os.W_OK):
            return [f'{self._file} is not there, or not ours to write: '
                    f'create it for the user of vmip']
        return []

    @contextlib.contextmanager
    def _changing(self) -> Iterator[
            tuple[dict[types.Address, base.HostEntry], list[str]]]:
        """Let one process at a time change the file.

        Whoever is killed on the way has changed nothing, or has not had it
        read: the caller repeats the call, and the command is run each time.
        """
        try:
            with open(f'{self._file}.lock', 'a') as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                ours, foreign = self._read()
                yield ours, foreign
                lines = [*foreign, *(self._line(e) for e in ours.values())]
                new = pathlib.Path(f'{self._file}.new')
                new.write_text(''.join(f'{line}\n' for line in lines))
                os.replace(new, self._file)
                subprocess.run(     # noqa: S603  it is the operator's own
                    shlex.split(self.options.reload), check=True,
                    timeout=self.options.timeout, stdin=subprocess.DEVNULL,
                    capture_output=True)
        except (OSError, subprocess.SubprocessError) as exc:
            raise exceptions.DHCPServerUnavailable(
                f'{self.name}: {exc}: look at file and reload') from exc

    def _read(self) -> tuple[dict[types.Address, base.HostEntry], list[str]]:
        """Return our entries, and the operator's lines."""
        ours: dict[types.Address, base.HostEntry] = {}
        foreign = []
        try:
            lines = self._file.read_text().splitlines()
        except FileNotFoundError:
            lines = []
        except (OSError, UnicodeError) as exc:
            raise exceptions.DHCPServerUnavailable(
                f'{self.name}: {exc}') from exc
        for line in lines:
            match line.split():
                case [mac, address, '#', 'vmip', *name]:
                    entry = base.HostEntry(
                        mac, ipaddress.IPv4Address(address),
                        name[0] if name else None)
                    ours[entry.address] = entry
                case _:
                    foreign.append(line)
        return ours, foreign

    @staticmethod
    def _line(entry: base.HostEntry) -> str:
        # A name is a tenant's text: only one DNS label gets into the file.
        name = types.host_label(entry.hostname)
        return ' '.join([entry.mac, str(entry.address), '# vmip',
                         *([name] if name else [])])
