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


"""The driver of dnsmasq's ``--dhcp-hostsdir``.

dnsmasq watches the folder: a new file is served at once, but a removed or
changed line stays in its memory, and keeps its address from everybody else,
until a SIGHUP. This is how the folder looks::

    vmip-192.0.2.7      an entry: one line, one file, served at once
    vmip-hosts          a symbolic link to .vmip-hosts
    .vmip-hosts         many entries: files of one line make a SIGHUP slow
    .vmip-lock          held while a process changes the folder

Every other file is the operator's own and is neither read nor touched.
dnsmasq skips names with a leading dot and does not watch through links, so
that ``.vmip-hosts`` is replaced in one step and read at the next SIGHUP only
(a watched file that is written again logs a warning for each of its lines).

A change that needs a SIGHUP first gives the lock file a length of one byte,
and takes it back when dnsmasq has read the folder again. Whoever finds the
byte there sends the SIGHUP that is owed: after a ``kill -9`` in between, and
after an error. While dnsmasq is down new entries are written all the same,
as it reads them when it starts; a removal is done in the folder, but it
raises until dnsmasq is back, since a wrong ``pid_file`` looks no different.

Single files are not synced to the disk: after a power cut one may be empty.
It is then no entry, and the next comparison with the inventory writes it
again.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import datetime
import errno
import fcntl
import ipaddress
import itertools
import os
import re
import signal
import time
from typing import ClassVar

from oslo_config import cfg
from oslo_log import log

from vmip_plugin.dhcp import base
from vmip_plugin import exceptions
from vmip_plugin import types

LOG = log.getLogger(__name__)

#: how the names of our files begin
MARK = 'vmip-'

_BULK = MARK + 'hosts'
_LOCK = '.vmip-lock'

_TIME = r'[0-9]+[smhdw]?|infinite'
# Labels that dnsmasq (option.c) takes for a lease time or a keyword.
_NO_NAME = rf'{_TIME}|ignore'
_LINE = re.compile(
    r'(?P<mac>(?:[0-9a-f]{2}:){5}[0-9a-f]{2}),(?P<address>[0-9.]{7,15})'
    rf'(?:,(?!(?:{_NO_NAME})(?:,|$))'
    r'(?P<name>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?))?'
    rf'(?:,(?:{_TIME}))?')

_LEASE = re.compile(
    r'(?P<expires>[0-9]{1,11}) (?:[0-9a-f]{2}-)?(?P<mac>[0-9a-f:]+|\*)'
    r' (?P<address>[0-9.]+) \S+ (?P<client_id>[0-9a-f]{2}(?::[0-9a-f]{2})*'
    r'|\*)')

_REMEDIES = {
    errno.EACCES: 'give this process write access to the folder',
    errno.EDQUOT: 'raise the quota or free some space',
    errno.ENOENT: 'create the folder and restart dnsmasq, which looks for it '
                  'only when it starts',
    errno.ENOSPC: 'free some space there',
    errno.ENOTDIR: 'set hostsdir to a folder',
    errno.EPERM: 'give this process write access to the folder',
    errno.EROFS: 'mount it for writing',
}

_Lines = dict[ipaddress.IPv4Address, str]
_Failed = dict[types.Address, OSError]


def _line(entry: base.HostEntry, lease_time: str | None = None) -> str:
    """Compose one dhcp-host line from values that are parsed once more.

    :raises ValueError: for what is no MAC or no IPv4 address.
    """
    if entry.address.version != 4:
        raise ValueError('only IPv4 entries are supported')
    mac = types.parse_mac(entry.mac)
    address = str(ipaddress.IPv4Address(str(entry.address)))
    name = types.host_label(entry.hostname)
    if name is not None and re.fullmatch(_NO_NAME, name):
        name = None
    return ','.join(filter(None, (mac, address, name, lease_time)))


def _parse(line: str) -> tuple[ipaddress.IPv4Address, re.Match[str]] | None:
    """Take apart a line that :func:`_line` wrote; None for any other."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    try:
        return ipaddress.IPv4Address(match['address']), match
    except ValueError:
        return None


def _address_of(name: str) -> ipaddress.IPv4Address | None:
    """Return the address of which this is our file's name, else None."""
    try:
        return ipaddress.IPv4Address(name.removeprefix(MARK)) \
            if name.startswith(MARK) else None
    except ValueError:
        return None


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
        cfg.IntOpt(
            'compact_above', default=500, min=0,
            help='Put the entries into one file when there are more files '
                 'than this: dnsmasq serves nobody while it reads them again '
                 'after a removal, 3 seconds for 10000 files.'),
        cfg.IntOpt(
            'timeout', default=30, min=1,
            help='Longest time in seconds to wait for another process that '
                 'changes the folder, and for dnsmasq to read it again.'),
    )
    capabilities = base.Capability.LIVE_ADD

    def __init__(self, name: str, options: cfg.ConfigOpts.GroupAttr) -> None:
        super().__init__(name, options)
        for option in ('hostsdir', 'pid_file'):
            if not getattr(options, option):
                raise exceptions.ConfigError(
                    f'[dhcp:{name}] {option} is not set: set it to the value '
                    'that dnsmasq is started with')
        if options.lease_time and not re.fullmatch(_TIME, options.lease_time):
            raise exceptions.ConfigError(
                f'[dhcp:{name}] lease_time must look like 3600, 45m, 12h or '
                'infinite')
        self._dir: str = options.hostsdir
        if options.lease_file:
            self.capabilities |= base.Capability.LEASE_LIST
        self._warned: set[str] = set()

    @property
    def server_id(self) -> ipaddress.IPv4Address | None:
        """What a DHCPRELEASE carries as option 54 (RFC 2132, 9.7)."""
        text = self.options.server_id
        return ipaddress.IPv4Address(text) if text else None

    def put(self, entries: Sequence[base.HostEntry]) -> base.Failures:
        failures: base.Failures = {}
        lines: _Lines = {}
        by_mac: dict[str, ipaddress.IPv4Address] = {}
        taken: set[ipaddress.IPv4Address] = set()
        for entry in entries:
            try:
                line = _line(entry, self.options.lease_time)
            except ValueError as exc:
                failures[entry] = exceptions.DHCPError(
                    f'dnsmasq {self.name}: {entry.address}: {exc}')
                continue
            # within one call, too, the last entry of a MAC or address holds
            mac, address = line[:17], ipaddress.IPv4Address(str(entry.address))
            before = by_mac.get(mac)
            if before is not None and lines.get(before, '')[:17] == mac:
                del lines[before]
            by_mac[mac] = address
            lines[address] = line
            taken.add(address)

        def change(held: _Lines) -> _Lines:
            return {address: line for address, line in held.items()
                    if address not in taken and line[:17] not in by_mac
                    } | lines

        failed = self._change(change)
        if failed and len(failed) == len(lines):
            raise self._unavailable(next(iter(failed.values())))
        for entry in entries:
            if entry.address in failed and entry not in failures:
                failures[entry] = self._unavailable(failed[entry.address])
        return failures

    def remove(self, entries: Iterable[base.HostEntry]) -> base.Failures:
        gone = collections.defaultdict(set)
        for entry in entries:
            gone[entry.address].add(entry.mac)

        def change(held: _Lines) -> _Lines:
            # a file without a readable line belongs to no other MAC
            return {address: line for address, line in held.items()
                    if line[:17] not in gone.get(address, ())
                    and (line or address not in gone)}

        self._change(change)
        return {}

    def entries(self) -> Iterator[base.HostEntry]:
        with self._guard():
            singles, bulk = self._read()
        for line in (bulk | singles).values():
            parsed = _parse(line)
            if parsed is not None:
                address, match = parsed
                yield base.HostEntry(match['mac'], address, match['name'])

    def leases(self) -> Iterator[base.Lease]:
        path = self.options.lease_file
        if not path:
            yield from super().leases()
        try:
            text = _read_settled(path)
        except OSError as exc:
            raise exceptions.DHCPServerUnavailable(
                f'dnsmasq {self.name}: {path}: {exc.strerror}: set lease_file '
                'to the value of dnsmasq\'s --dhcp-leasefile, and let this '
                'process read it.') from exc
        now = datetime.datetime.now(datetime.UTC)
        for line in text.split('\n')[:-1]:
            if line.startswith('duid '):
                break   # what follows are DHCPv6 leases
            match = _LEASE.fullmatch(line)
            if match is None:
                continue
            expires = datetime.datetime.fromtimestamp(
                int(match['expires']), datetime.UTC) \
                if match['expires'] != '0' else None
            if expires is not None and expires <= now:
                continue
            try:
                address = ipaddress.IPv4Address(match['address'])
            except ValueError:
                continue
            try:
                mac = types.parse_mac(match['mac'])
            except ValueError:
                mac = None   # of a network that is not Ethernet
            yield base.Lease(
                address, mac,
                None if match['client_id'] == '*'
                else bytes.fromhex(match['client_id'].replace(':', '')),
                expires)

    def check(self) -> list[str]:
        wrong = []
        self._warned.clear()
        try:
            held = sum(1 for _ in self.entries())
        except exceptions.DHCPError as exc:
            return [str(exc)]
        if not os.access(self._dir, os.W_OK | os.X_OK):
            wrong.append(f'{self._dir} cannot be written: '
                         f'{_REMEDIES[errno.EACCES]}.')
        wrong += [f'{path} is not as vmip writes it and is not used: remove '
                  'it.' for path in sorted(self._warned)]
        if self.options.lease_file and not os.access(
                self.options.lease_file, os.R_OK):
            wrong.append(f'{self.options.lease_file} cannot be read: set '
                         'lease_file to the value of dhcp-leasefile, and let '
                         'this process read it.')
        try:
            with self._server() as (pid, _):
                wrong += self._check_server(pid, held)
        except exceptions.DHCPError as exc:
            wrong.append(str(exc))
        return wrong

    def _check_server(self, pid: int, held: int) -> Iterator[str]:
        settings, unreadable = _settings(pid)
        for path in unreadable:
            yield (f'{path} cannot be read, so dnsmasq\'s settings are not '
                   'known: run the check as root.')
        watched = _watches(pid, self._dir)
        if watched is None:
            watched = any(os.path.realpath(value) ==
                          os.path.realpath(self._dir)
                          for value in settings['dhcp-hostsdir'])
        if not watched:
            yield (f'dnsmasq (process {pid}) does not watch {self._dir}: '
                   f'start it with --dhcp-hostsdir={self._dir} when the '
                   'folder is there.')
        if unreadable:
            return
        if not settings['dhcp-authoritative']:
            yield ('dnsmasq runs without dhcp-authoritative and refuses a '
                   'guest whose lease it has lost: add the option.')
        # 1000 is dnsmasq's own default
        most = (settings['dhcp-lease-max'] or ['1000'])[-1]
        if most.isdecimal() and held >= int(most):
            yield (f'dnsmasq gives out {most} leases at most and has {held} '
                   'entries: raise dhcp-lease-max.')

    def _change(self, change: Callable[[_Lines], _Lines],
                ) -> _Failed:
        """Make the folder and dnsmasq follow a change of our lines.

        :param change: gets what is there, a line for each address ('' where
            it cannot be read), and returns what shall be there.
        :returns: the addresses whose file could not be written.
        :raises DHCPServerUnavailable: as soon as anything else goes wrong.
        """
        with self._guard(), self._locked() as lock:
            singles, bulk = self._read()
            held = bulk | singles
            wanted = change(held)
            added = wanted.keys() - held.keys()
            if (all(wanted.get(address) == line
                    for address, line in held.items())
                    and len(added) <= self.options.compact_above
                    and not os.fstat(lock).st_size):
                return self._write_singles(wanted, added)
            # A sparse byte: this works on a full disk, where removing must.
            os.ftruncate(lock, 1)
            failed = self._rewrite(singles, bulk, wanted)
            self._reload()
            os.ftruncate(lock, 0)
            return failed

    def _rewrite(self, singles: _Lines, bulk: _Lines, wanted: _Lines,
                 ) -> _Failed:
        """Do a change that dnsmasq follows at the next SIGHUP.

        In this order a line that stays is in one of the files at any moment,
        and one that goes is gone before its MAC or address has another.
        """
        for address, line in singles.items():
            if wanted.get(address) != line:
                os.unlink(self._path(f'{MARK}{address}'))
        kept = {address: line for address, line in bulk.items()
                if wanted.get(address) == line}
        alone = {address: line for address, line in wanted.items()
                 if address not in kept}
        if len(alone) > self.options.compact_above:
            # a file that cannot be read is not ours to melt down
            merged = kept | {a: line for a, line in alone.items() if line}
            try:
                self._write_bulk(merged)
            except OSError as exc:
                LOG.warning('dnsmasq %s: %s is not compacted: %s', self.name,
                            self._dir, exc.strerror)
            else:
                kept = bulk = merged
                alone = {a: line for a, line in alone.items() if not line}
        if kept != bulk:
            self._write_bulk(kept)
        for address, line in singles.items():
            if address not in alone and wanted.get(address) == line:
                os.unlink(self._path(f'{MARK}{address}'))
        return self._write_singles(alone, [
            address for address, line in alone.items()
            if singles.get(address) != line])

    def _read(self) -> tuple[_Lines, _Lines]:
        """Return the lines of the single files and of the many-line file.

        In this order a line that another process moves meanwhile is not
        missed.
        """
        singles: _Lines = {}
        for name in os.listdir(self._dir):
            address = _address_of(name)
            if address is None:
                continue
            try:
                lines = list(self._lines(name))
            except FileNotFoundError:
                continue
            good = len(lines) == 1 and lines[0][0] == address
            singles[address] = lines[0][1] if good else ''
            if not good:
                self._warn(name)
        try:
            lines = list(self._lines(_BULK))
        except FileNotFoundError:
            lines = []
        bulk = {address: line for address, line in lines if address}
        if len(bulk) < len(lines):
            self._warn(_BULK)
        return singles, bulk

    def _lines(self, name: str,
               ) -> Iterator[tuple[ipaddress.IPv4Address | None, str]]:
        with open(self._path(name), encoding='ascii', errors='replace',
                  newline='\n') as file:
            for line in file:
                # dnsmasq serves a wrong address from a line that is cut off
                parsed = _parse(line[:-1]) if line.endswith('\n') else None
                yield (parsed[0] if parsed else None, line[:-1])

    def _warn(self, name: str) -> None:
        path = self._path(name)
        if path not in self._warned:
            self._warned.add(path)
            LOG.warning('dnsmasq %s: %s is not as vmip writes it; what '
                        'cannot be read of it is not used', self.name, path)

    def _write_singles(self, lines: _Lines,
                       addresses: Iterable[ipaddress.IPv4Address],
                       ) -> _Failed:
        failed: _Failed = {}
        for address in addresses:
            try:
                self._write(f'{MARK}{address}', f'{lines[address]}\n')
            except OSError as exc:
                failed[address] = exc
        return failed

    def _write_bulk(self, lines: _Lines) -> None:
        # Synced, as half of a line after a power cut is a wrong address.
        self._write(f'.{_BULK}',
                    ''.join(f'{line}\n' for line in lines.values()),
                    sync=True)
        try:
            os.symlink(f'.{_BULK}', self._path(_BULK))
        except FileExistsError:
            if os.readlink(self._path(_BULK)) != f'.{_BULK}':
                raise
        folder = os.open(self._dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, name: str, text: str, sync: bool = False) -> None:
        temporary = self._path(f'.{name.removeprefix(".")}.tmp')
        try:
            with open(temporary, 'w', encoding='ascii') as file:
                # dnsmasq has given up root when it reads this
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, self._path(name))
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _path(self, name: str) -> str:
        return os.path.join(self._dir, name)

    def _unavailable(self, exc: OSError) -> exceptions.DHCPServerUnavailable:
        remedy = _REMEDIES.get(exc.errno or 0, 'look at the system\'s log')
        return exceptions.DHCPServerUnavailable(
            f'dnsmasq {self.name}: {exc.filename or self._dir}: '
            f'{exc.strerror}: {remedy}.')

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise self._unavailable(exc) from exc

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Hold the folder; the value is the lock file's descriptor."""
        path = self._path(_LOCK)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            def lockable() -> bool:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                return True

            if not self._wait(lockable):
                raise exceptions.DHCPServerUnavailable(
                    f'dnsmasq {self.name}: another process holds {path} for '
                    f'more than {self.options.timeout} s: see which one '
                    f'(fuser {path}) and why.')
            yield lock
        finally:
            os.close(lock)

    @contextlib.contextmanager
    def _server(self) -> Iterator[tuple[int, int]]:
        """Give dnsmasq's process id and a descriptor of the process.

        The descriptor keeps a signal from whoever inherits the id.

        :raises DHCPServerUnavailable: if it is not running.
        """
        path = self.options.pid_file
        remedy = ('start dnsmasq, or set pid_file to the value of its '
                  '--pid-file')
        try:
            with open(path, encoding='ascii', errors='replace') as file:
                text = file.read(32).strip()
            if not re.fullmatch('[1-9][0-9]{0,8}', text):
                raise exceptions.DHCPServerUnavailable(
                    f'dnsmasq {self.name}: {path} holds no process id: '
                    f'{remedy}.')
            process = os.pidfd_open(int(text))
        except OSError as exc:
            raise exceptions.DHCPServerUnavailable(
                f'dnsmasq {self.name}: {path}: {exc.strerror}: '
                f'{remedy}.') from exc
        try:
            if _proc(int(text), 'comm').strip() != 'dnsmasq':
                raise exceptions.DHCPServerUnavailable(
                    f'dnsmasq {self.name}: process {text} in {path} is not '
                    f'dnsmasq: {remedy}.')
            yield int(text), process
        finally:
            os.close(process)

    def _reload(self) -> None:
        """Make dnsmasq read the folder again and return when it has."""
        started = time.monotonic()
        with self._server() as (pid, process):
            try:
                signal.pidfd_send_signal(process, signal.SIGHUP)
            except PermissionError as exc:
                raise exceptions.DHCPServerUnavailable(
                    f'dnsmasq {self.name}: this process may not signal '
                    f'process {pid}: run as the same user or root, or with '
                    'CAP_KILL.') from exc
            except ProcessLookupError as exc:
                raise exceptions.DHCPServerUnavailable(
                    f'dnsmasq {self.name}: process {pid} is gone: start '
                    'dnsmasq.') from exc
            if not self._wait(lambda: _idle(pid)):
                raise exceptions.DHCPServerUnavailable(
                    f'dnsmasq {self.name}: process {pid} has not read '
                    f'{self._dir} again in {self.options.timeout} s: keep '
                    'fewer entries for each dnsmasq, or raise timeout.')
            if not _proc(pid, 'comm'):
                raise exceptions.DHCPServerUnavailable(
                    f'dnsmasq {self.name}: process {pid} ended while it read '
                    f'{self._dir}: start dnsmasq.')
        LOG.debug('dnsmasq %s has read %s again in %.3f s', self.name,
                  self._dir, time.monotonic() - started)

    def _wait(self, done: Callable[[], bool]) -> bool:
        end = time.monotonic() + self.options.timeout
        while not done():
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True


def _proc(pid: int, name: str) -> str:
    """Return a file of /proc/PID (proc(5)), '' of a process that is gone."""
    try:
        with open(f'/proc/{pid}/{name}', encoding='utf-8',
                  errors='replace') as file:
            return file.read()
    except OSError:
        return ''


def _idle(pid: int) -> bool:
    """Tell whether a process waits for work and has no SIGHUP left to take.

    dnsmasq has one thread and reads the folder without a pause: when it
    sleeps again after the signal, it has read everything.
    """
    status = dict(line.split(':\t', 1) for line
                  in _proc(pid, 'status').splitlines() if ':\t' in line)
    bit = 1 << (signal.SIGHUP - 1)
    return not status or (
        status['State'].startswith('S')
        and not (int(status['SigPnd'], 16) | int(status['ShdPnd'], 16)) & bit)


def _watches(pid: int, path: str) -> bool | None:
    """Tell whether a process has an inotify watch on a folder.

    :returns: None where this process may not see it.
    """
    wanted = f'ino:{os.stat(path).st_ino:x}'
    folder = f'/proc/{pid}/fdinfo'
    try:
        return any(line.startswith('inotify ') and wanted in line.split()
                   for name in os.listdir(folder)
                   for line in _proc(pid, f'fdinfo/{name}').splitlines())
    except OSError:
        return None


def _settings(pid: int) -> tuple[Mapping[str, list[str]], list[str]]:
    """Return a dnsmasq's options, as far as :meth:`check` needs them.

    :returns: the values of each long option on its command line and in its
        files, and the files that cannot be read.
    """
    short = {'-7': '--conf-dir', '-C': '--conf-file',
             '-K': '--dhcp-authoritative', '-X': '--dhcp-lease-max'}
    found = collections.defaultdict(list)
    words = _proc(pid, 'cmdline').split('\0')[1:]
    for word, following in itertools.pairwise([*words, '']):
        if word[:2] in short:
            word = f'{short[word[:2]]}={word[2:]}'
        name, _, value = word.partition('=')
        if name.startswith('--'):
            if not value and not following.startswith('-'):
                value = following
            found[name[2:]].append(value)
    unreadable = []
    files = found['conf-file'] or ['/etc/dnsmasq.conf']
    folders = found['conf-dir']
    seen = set()
    while files or folders:
        if not files:
            folder, *suffixes = folders.pop().split(',')
            only = tuple(s[1:] for s in suffixes if s.startswith('*'))
            never = tuple(s for s in suffixes if not s.startswith('*'))
            try:
                files = [os.path.join(folder, name)
                         for name in os.listdir(folder)
                         if name[0] != '.' and not name.endswith(never)
                         and (not only or name.endswith(only))]
            except OSError:
                unreadable.append(folder)
            continue
        path = files.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            with open(path, encoding='utf-8', errors='replace') as file:
                text = file.read()
        except FileNotFoundError:
            continue
        except OSError:
            unreadable.append(path)
            continue
        for line in text.splitlines():
            name, _, value = line.partition('#')[0].partition('=')
            found[name.strip()].append(value.strip())
            if name.strip() == 'conf-file':
                files.append(value.strip())
            elif name.strip() == 'conf-dir':
                folders.append(value.strip())
    return found, unreadable


def _read_settled(path: str) -> str:
    """Return a file that its owner rewrites in place, at rest if possible.

    dnsmasq empties its lease file and writes it again, in about a
    millisecond. What is cut off then has no last newline.
    """
    for attempt in range(10):
        if attempt:
            time.sleep(0.005)
        with open(path, encoding='ascii', errors='replace',
                  newline='\n') as file:
            before = os.fstat(file.fileno())
            text = file.read()
            after = os.fstat(file.fileno())
        if text.endswith('\n') and before.st_size == after.st_size \
                and before.st_mtime_ns == after.st_mtime_ns:
            break
    return text
