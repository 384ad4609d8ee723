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

"""The files in dnsmasq's ``--dhcp-hostsdir``.

dnsmasq watches the folder: a new file is served at once, but a removed or
changed line stays in its memory, and keeps its address from everybody else,
until a SIGHUP. This is how the folder looks::

    vmip-192.0.2.7      the new entries of one call: one of them,
    vmip-192.0.2.8+4    or this one and four more; served at once
    vmip-hosts          a symbolic link to .vmip-hosts
    .vmip-hosts         many entries: many files make a SIGHUP slow
    .vmip-lock          held while a process changes the folder

Every other file is the operator's own and is neither read nor touched.
dnsmasq skips names with a leading dot and does not watch through links, so
that ``.vmip-hosts`` is replaced in one step and read at the next SIGHUP only
(a watched file that is written again logs a warning for each of its lines).

A change that needs a SIGHUP first writes into the lock file which addresses
dnsmasq does not know as they are now, and empties it when dnsmasq has read
the folder again. Whoever finds something there sends the SIGHUP that is owed:
after a ``kill -9`` in between, and after an error. While dnsmasq is down new
entries are written all the same, as it reads them when it starts; a removal
is done in the folder, but it raises until dnsmasq is back, since a wrong
``pid_file`` looks no different.

Files of one line are not synced to the disk: after a power cut one may be
empty. It is then no entry, and the next comparison with the inventory writes
it again.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
import contextlib
import dataclasses
import errno
import fcntl
import os
import pathlib
import re
import stat
import threading
import time

from oslo_log import log

from vmip_plugin.dhcp.dnsmasq import line as host_line
from vmip_plugin.dhcp.dnsmasq import process as server
from vmip_plugin import exceptions
from vmip_plugin import types

LOG = log.getLogger(__name__)

#: how the names of our files begin
MARK = 'vmip-'

_BULK = MARK + 'hosts'
_LOCK = '.vmip-lock'
_SINGLE = re.compile(MARK + r'(?P<address>[0-9a-f.:]+)(?:\+[0-9]+)?')

#: Seconds within which a file may change again and show the same times.
_YOUNG = 0.1

#: What to do about an error of the file system.
REMEDIES = {
    errno.EACCES: 'give this process write access to the folder',
    errno.EDQUOT: 'raise the quota or free some space',
    errno.ELOOP: 'remove the symbolic link',
    errno.ENOENT: 'create the folder and restart dnsmasq, which looks for it '
                  'only when it starts',
    errno.ENOSPC: 'free some space there',
    errno.ENOTDIR: 'set hostsdir to a folder',
    errno.EPERM: 'give this process write access to the folder',
    errno.EROFS: 'mount it for writing',
}

#: A line for each address.
Lines = dict[types.Address, str]


def _name(addresses: Collection[types.Address]) -> str:
    """Return the name of the file of the new entries of one call."""
    more = f'+{len(addresses) - 1}' if len(addresses) > 1 else ''
    return f'{MARK}{next(iter(addresses))}{more}'


def _is_single(name: str) -> bool:
    match = _SINGLE.fullmatch(name)
    try:
        return match is not None \
            and bool(types.parse_address(match['address']))
    except ValueError:
        return False


@dataclasses.dataclass
class _File:
    """A file as it was read.

    :param state: tells whether it is still the same; None: read it again.
    :param lines: a dict, as sets have no order.
    :param whole: it is as we write it.
    """

    state: tuple[int, ...] | None = None
    lines: dict[str, None] = dataclasses.field(default_factory=dict)
    whole: bool = True


def _state(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_ino, found.st_size, found.st_mtime_ns,
            found.st_ctime_ns)


class _Index:
    """What is in our files, read again only where they have changed.

    :param path: the folder.
    """

    def __init__(self, name: str, path: str) -> None:
        self._name = name
        self._path = path
        self._mutex = threading.Lock()
        self._warned: set[str] = set()
        self._seen: dict[str, None] = {}
        self.files: dict[str, _File] = {}
        self.lines: dict[types.Address, str] = {}
        self.addresses: dict[host_line.Key, types.Address] = {}
        #: files that are not as we write them, or contradict others
        self.torn: set[str] = set()

    def refresh(self) -> None:
        """Look at the files.

        :raises OSError: they cannot be read.
        """
        with self._mutex:
            # Single files first: a line that another process moves meanwhile
            # is then in the other file.
            names = [n for n in os.listdir(self._path) if _is_single(n)]
            if self.has_bulk():
                names.append(_BULK)
            files: dict[str, _File] = {}
            fresh: dict[str, _File] = {}
            for name in names:
                old = self.files.get(name)
                with contextlib.suppress(FileNotFoundError):
                    file = files[name] = self._look(name, old)
                    if old is None or (old.lines, old.whole) != (
                            file.lines, file.whole):
                        fresh[name] = file
            if self.torn:
                self._seen, self.lines, self.addresses = {}, {}, {}
            if self.torn or self.files.keys() & fresh.keys() \
                    or self.files.keys() - files.keys():
                self._follow(files)
            elif fresh:
                self._add(fresh)
            self.files = files

    def has_bulk(self) -> bool:
        """Tell whether the file of many entries is there and ours."""
        try:
            return os.readlink(os.path.join(self._path, _BULK)) == f'.{_BULK}'
        except FileNotFoundError:
            return False
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            return False    # the operator's own file

    def _look(self, name: str, old: _File | None) -> _File:
        path = os.path.join(self._path, name)
        if old is not None and old.state == _state(os.stat(path)):
            return old
        with open(path, 'rb') as file:
            found = os.fstat(file.fileno())
            # dnsmasq serves a wrong address from a line that is cut off
            *lines, rest = file.read().decode('ascii', 'replace').split('\n')
        new = _File(lines=dict.fromkeys(lines), whole=not rest)
        if name != _BULK:
            addresses = [host_line.address_of(line) for line in lines]
            sound = [address for address in addresses if address is not None]
            if rest or not sound or name != _name(sound) \
                    or len(sound) < len(lines):
                new.lines, new.whole = {}, False
        if time.time() - found.st_ctime > _YOUNG:
            new.state = _state(found)
        return new

    def _follow(self, files: Mapping[str, _File]) -> None:
        """Take what is in these files, and nothing else."""
        now = {line for file in files.values() for line in file.lines}
        for line in self._seen.keys() - now:
            address = host_line.address_of(line)
            if address is not None:
                del self.lines[address]
                del self.addresses[host_line.key(line, address)]
            del self._seen[line]
        self.torn = set()
        self._add(files)

    def _add(self, files: Mapping[str, _File]) -> None:
        for name, file in files.items():
            if not file.whole:
                self._warn(name)
            for line in file.lines:
                if line not in self._seen:
                    self._seen[line] = None
                    if not self._add_line(line):
                        self._warn(name)

    def _add_line(self, line: str) -> bool:
        """Take one line; False: it is none, or contradicts another one."""
        address = host_line.address_of(line)
        if address is None:
            return False
        key = host_line.key(line, address)
        if address in self.lines or key in self.addresses:
            return False
        self.lines[address] = line
        self.addresses[key] = address
        return True

    def _warn(self, name: str) -> None:
        self.torn.add(name)
        if name not in self._warned:
            self._warned.add(name)
            LOG.warning('dnsmasq %s: %s is not as vmip writes it; what '
                        'cannot be read of it is not used', self._name,
                        os.path.join(self._path, name))


class Folder:
    """The entries in a hostsdir.

    :param name: the server's name in the configuration.
    :param process: the dnsmasq that reads the folder.
    :param compact_above: number of files above which a change that needs a
        SIGHUP makes one of them.
    :param timeout: longest time in seconds to wait for another process.
    """

    def __init__(self, name: str, path: str, process: server.Process,
                 compact_above: int, timeout: float) -> None:
        self._name = name
        self.path = path
        self._process = process
        self._compact_above = compact_above
        self._timeout = timeout
        self._index = _Index(name, path)

    def lines(self) -> list[str]:
        """Return our lines.

        :raises DHCPServerUnavailable: they cannot be read.
        """
        with self._guard():
            self._index.refresh()
        return list(self._index.lines.values())

    def torn(self) -> list[str]:
        """Return the paths of our files that are not as we write them."""
        return [self._file(name) for name in sorted(self._index.torn)]

    def put(self, lines: Lines, keys: Collection[host_line.Key],
            taken: Collection[types.Address]) -> set[types.Address]:
        """Make dnsmasq serve these lines.

        :param keys: of these only the given lines may be left.
        :param taken: these addresses, too.
        :returns: the addresses whose line it does not know yet.
        :raises DHCPServerUnavailable: it may know none of them.
        """
        def choose() -> tuple[set[types.Address], Lines]:
            held, addresses = self._index.lines, self._index.addresses
            touched = held.keys() & taken
            touched.update(addresses[key] for key in keys if key in addresses)
            return ({a for a in touched if held[a] != lines.get(a)},
                    {a: line for a, line in lines.items()
                     if held.get(a) != line})

        return self._change(lines.keys(), choose)

    def remove(self, gone: Collection[tuple[types.Address, str]],
               ) -> set[types.Address]:
        """Make dnsmasq forget these addresses' lines, with these MACs.

        :returns: the addresses that it has not forgotten yet.
        :raises DHCPServerUnavailable: it may know all of them still.
        """
        def choose() -> tuple[set[types.Address], Lines]:
            lines = self._index.lines
            return {address for address, mac in gone
                    if host_line.mac_of(lines.get(address, '')) == mac}, {}

        return self._change({address for address, _ in gone}, choose)

    def _change(self, asked: Collection[types.Address],
                choose: Callable[[], tuple[set[types.Address], Lines]],
                ) -> set[types.Address]:
        """Make the folder and dnsmasq follow a change.

        :param asked: what the caller wants to know about.
        :param choose: returns the addresses whose lines have to go, and the
            lines that have to come.
        """
        with self._guard(), self.locked() as lock:
            self._index.refresh()
            stale, new = choose()
            owed = _owed(lock)
            late = set(asked) if owed is None else owed & set(asked)
            rest = self._process.rest()
            if not stale and not late and (
                    rest or owed == set() and not self._index.torn):
                if new:
                    self._write_single(new)
                return set()
            if owed is not None:
                owed |= stale if rest else stale | new.keys()
                late = owed & set(asked)
            _owe(lock, owed)
            self._rewrite(stale, {} if rest else new)
            if rest:
                if new:
                    # what is not owed is served at once
                    self._write_single(new)
                return late
            self._process.reload()
            os.ftruncate(lock, 0)
            return set()

    def _rewrite(self, stale: set[types.Address], new: Lines) -> None:
        """Do a change that dnsmasq follows at the next SIGHUP.

        In this order a line that stays is in one of the files at any moment,
        and one that goes is gone before its MAC or address has another.
        """
        lines = self._index.lines
        gone = {lines[address] for address in stale}
        files = dict(self._index.files)
        bulk = files.pop(_BULK, _File())
        cut = not bulk.whole or not gone.isdisjoint(bulk.lines)
        kept = {address: line for address, line in lines.items()
                if address not in stale}
        for name, file in list(files.items()):
            if file.lines.keys() <= gone:
                os.unlink(self._file(name))
                del files[name]
        mixed = [name for name, file in files.items()
                 if not gone.isdisjoint(file.lines)]
        if mixed:
            self._write_bulk(kept)
            cut = False
            for name in mixed:
                os.unlink(self._file(name))
                del files[name]
        if not cut and not new and len(files) <= self._compact_above:
            return
        try:
            self._write_bulk(kept | new)
        except OSError as exc:
            if cut:
                raise
            LOG.warning('dnsmasq %s: %s is not compacted: %s', self._name,
                        self.path, exc.strerror)
            if new:
                self._write_single(new)
            return
        for name in files:
            os.unlink(self._file(name))

    def _write_single(self, lines: Lines) -> None:
        self._write(_name(lines.keys()), lines, sync=len(lines) > 1)

    def _write_bulk(self, lines: Lines) -> None:
        if not self._index.has_bulk():
            os.symlink(f'.{_BULK}', self._file(_BULK))
        self._write(f'.{_BULK}', lines, sync=True)
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, name: str, lines: Lines, sync: bool) -> None:
        # Half of a file after a power cut is a wrong address in its last
        # line; a short one is there or empty.
        temporary = self._file(f'.{name.removeprefix(".")}.tmp')
        try:
            with open(temporary, 'w', encoding='ascii') as file:
                # dnsmasq has given up root when it reads this
                os.fchmod(file.fileno(), 0o644)
                file.writelines(f'{line}\n' for line in lines.values())
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, self._file(name))
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            remedy = REMEDIES.get(exc.errno or 0, 'look at the system\'s log')
            raise exceptions.DHCPServerUnavailable(
                f'dnsmasq {self._name}: {exc.filename or self.path}: '
                f'{exc.strerror}: {remedy}.') from exc

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the folder; the value is the lock file's descriptor.

        :raises DHCPServerUnavailable: another process holds it too long.
        """
        path = self._file(_LOCK)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
                       | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        try:
            found = os.fstat(lock)
            if not stat.S_ISREG(found.st_mode):
                raise exceptions.DHCPServerUnavailable(
                    f'dnsmasq {self._name}: {path} is not a regular file: '
                    'remove it.')
            if found.st_mode & 0o077:
                # whoever can open it can lock it (flock(2))
                os.fchmod(lock, 0o600)

            def lockable() -> bool:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
                return True

            if not server.wait_for(lockable, self._timeout):
                raise exceptions.DHCPServerUnavailable(
                    f'dnsmasq {self._name}: {_holder(found)} holds {path} '
                    f'for more than {self._timeout} s: see why, and end it '
                    'if it is not part of vmip.')
            yield lock
        finally:
            os.close(lock)


def _holder(lock: os.stat_result) -> str:
    """Name the process that holds a lock, as /proc/locks tells it."""
    file = (f'{os.major(lock.st_dev):02x}:{os.minor(lock.st_dev):02x}:'
            f'{lock.st_ino}')
    with contextlib.suppress(OSError, ValueError):
        for line in pathlib.Path('/proc/locks').read_text().splitlines():
            words = line.split()
            if file in words and 'FLOCK' in words and '->' not in words:
                # a process of another namespace has none here
                pid = int(words[words.index(file) - 1])
                if pid > 0:
                    return f'process {pid} ({server.command(pid)})'
    return 'another process (fuser shows which)'


def _owed(lock: int) -> set[types.Address] | None:
    """Return the addresses that dnsmasq does not know as they are.

    :returns: None: any may be among them.
    """
    text = os.pread(lock, os.fstat(lock).st_size, 0).decode('ascii', 'replace')
    try:
        return {types.parse_address(word) for word in text.split('\n')[:-1]} \
            if text.endswith('\n') or not text else None
    except ValueError:
        return None


def _owe(lock: int, addresses: Collection[types.Address] | None) -> None:
    """Write down, first of all, that a SIGHUP is owed, then what for."""
    # A sparse byte: this works on a full disk, where removing must.
    os.ftruncate(lock, os.fstat(lock).st_size + 1)
    if addresses is None:
        return
    data = ''.join(f'{address}\n' for address in addresses).encode('ascii')
    with contextlib.suppress(OSError):
        if os.pwrite(lock, data, 0) == len(data):
            os.ftruncate(lock, len(data))
        else:
            os.ftruncate(lock, os.fstat(lock).st_size + 1)
