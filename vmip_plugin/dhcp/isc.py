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

"""The driver of ISC dhcpd's OMAPI.

An entry is a host object, which dhcpd keeps in memory and in its lease file.
Its name is made of its address: ``vmip-192-0-2-7``. OMAPI takes an address
for any number of hosts, but a name only once and, when it is told to, a MAC
only once: the create of a host is at once the check that neither is taken.
Hosts with other names are the operator's own and are not touched.

OMAPI cannot list anything. What is listed comes from the lease file, which
is on the disk when dhcpd answers. It is a journal: the last declaration of a
host or lease holds.
"""

import base64
from collections.abc import (
    Callable, Collection, Iterable, Iterator, Sequence)
import contextlib
import dataclasses
import datetime
import functools
import hmac
import ipaddress
import re
import struct
import time
from typing import Any, ClassVar

from oslo_config import cfg
import pypureomapi

from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import dhcpdconf
from vmip_plugin import exceptions
from vmip_plugin import types

#: how the names of our hosts begin
MARK = 'vmip-'

_ALGORITHMS = ('hmac-md5', 'hmac-sha1', 'hmac-sha224', 'hmac-sha256',
               'hmac-sha384', 'hmac-sha512')
# isc_result_t: isc/result.h and omapip/result.h
_SUCCESS, _EXISTS, _NOT_FOUND, _IO_ERROR = 0, 18, 23, 26
_KEY_CONFLICT = (6 << 16) + 7
_ONE = struct.pack('!I', 1)
_ETHERNET = (b'hardware-type', _ONE)

_CHUNK = 1 << 20
_LEASE_END = b'\n}\n'
# dhcpd indents what is in a block, and writes no newline within a string.
_BLOCK = re.compile(
    rb'^(host|lease) ([^\s{};"]{1,255}) \{\n((?:[ \t][^\n]*\n)*)\}\n',
    re.M)
_HARDWARE = re.compile(
    r'^\s+hardware ethernet ((?:[0-9a-f]{2}:){5}[0-9a-f]{2});$', re.M)
_FIXED = re.compile(r'^\s+fixed-address ([0-9.]{7,15});$', re.M)
_HOST_NAME = re.compile(r'^\s+supersede host-name = "([a-z0-9-]{1,63})";$',
                        re.M)
_DELETED = re.compile(r'^\s+deleted;$', re.M)
_ACTIVE = re.compile(r'^\s+binding state active;$', re.M)
_ENDS = re.compile(
    r'^\s+ends (?:(?P<never>never)|epoch (?P<epoch>[0-9]{1,11})'
    r'|[0-6] (?P<date>[0-9]{4}/[0-9]{2}/[0-9]{2}'
    r' [0-9]{2}:[0-9]{2}:[0-9]{2}));', re.M)
_UID = re.compile(
    r'^\s+uid (?:"(?P<text>(?:[ -!#-\[\]-~]|\\[0-3][0-7]{2}|\\["\\])*)"'
    r'|(?P<hex>[0-9a-f]{1,2}(?::[0-9a-f]{1,2})*));$', re.M)
_ESCAPE = re.compile(r'\\([0-7]{3}|.)')


@dataclasses.dataclass(frozen=True)
class _Host:
    """A host object, with None for what it has not.

    :param handle: OMAPI's, 0 of one from the lease file.
    """

    name: str
    mac: str | None
    address: types.Address | None
    hostname: str | None = None
    handle: int = 0

    @property
    def ours(self) -> bool:
        return self.name.startswith(MARK)

    def entry(self) -> base.HostEntry | None:
        """Return the entry for which we made this host, None for another."""
        if (self.mac is None or self.address is None
                or self.name != _name(self.address)):
            return None
        return base.HostEntry(self.mac, self.address, self.hostname)


class IscDriver(base.DHCPDriver):
    """Host objects of an ISC dhcpd.

    The process must reach the OMAPI port and read the lease file, so that it
    runs on dhcpd's host.
    """

    OPTS: ClassVar[Sequence[cfg.Opt]] = (
        cfg.HostAddressOpt(
            'host', default='127.0.0.1',
            help='Where dhcpd listens for OMAPI.'),
        cfg.PortOpt('port', default=7911, help='dhcpd\'s omapi-port.'),
        cfg.StrOpt('key_name', help='The name of dhcpd\'s omapi-key. Needed.'),
        cfg.StrOpt(
            'key', secret=True,
            help='The secret of that key as it is in dhcpd.conf, in base64. '
                 'Needed.'),
        cfg.StrOpt(
            'key_algorithm', default='hmac-md5', choices=_ALGORITHMS,
            help='The algorithm of that key. Before 4.4.3 dhcpd can do only '
                 'hmac-md5.'),
        cfg.StrOpt(
            'lease_file',
            help='dhcpd\'s lease file (-lf or lease-file-name). Needed, as '
                 'OMAPI lists neither entries nor leases.'),
        cfg.StrOpt(
            'config_file',
            help='dhcpd.conf. With it no entry gets an address that is a '
                 'host\'s in that file, and the check of the server looks at '
                 'its settings.'),
        cfg.IPOpt(
            'server_id', version=4,
            help='The address by which dhcpd names itself in its answers '
                 '(option 54). A release that is sent to it must carry it.'),
        cfg.IntOpt(
            'timeout', default=10, min=1,
            help='Longest time in seconds to wait for an answer of dhcpd.'),
    )
    capabilities = (base.Capability.LIVE_ADD | base.Capability.LIVE_REMOVE
                    | base.Capability.LEASE_LIST)

    def __init__(self, name: str, options: cfg.ConfigOpts.GroupAttr) -> None:
        super().__init__(name, options)
        for option, value in (
                ('key_name', 'the name of its omapi-key'),
                ('key', 'the secret of its omapi-key'),
                ('lease_file', 'the file that it is started with (-lf)')):
            if not getattr(options, option):
                raise exceptions.ConfigError(
                    f'[dhcp:{name}] {option} is not set: set it as dhcpd has '
                    f'it: {value}')
        try:
            base64.b64decode(options.key, validate=True)
            options.key_name.encode('ascii')
        except ValueError:
            # without the cause, which may tell the secret
            raise exceptions.ConfigError(
                f'[dhcp:{name}] key is not base64, or key_name not ASCII: '
                'set both as they are in dhcpd.conf') from None
        self._conf: dhcpdconf.Conf | None = None

    @property
    def server_id(self) -> ipaddress.IPv4Address | None:
        """What a DHCPRELEASE carries as option 54 (RFC 2132, 9.7)."""
        text = self.options.server_id
        return ipaddress.IPv4Address(text) if text else None

    def put(self, entries: Sequence[base.HostEntry]) -> base.Failures:
        failures: base.Failures = {}
        parsed = {}
        for entry in entries:
            try:
                parsed[entry] = _parse(entry)
            except ValueError as exc:
                failures[entry] = exceptions.DHCPError(
                    f'dhcpd {self.name}: {entry.address}: {exc}')
        wanted = _last(parsed[entry] for entry in entries if entry in parsed)
        if not wanted:
            return failures
        declared = self._configuration().addresses
        held = functools.cache(lambda: self._listed(wanted))
        errors: base.Failures = {}
        with self._server() as server:
            for entry in wanted:
                with _noted(errors, entry):
                    if entry.address in declared:
                        raise self._in_the_way(declared[entry.address])
                    self._put(server, entry, held)
        return failures | {entry: errors[same] for entry, same
                           in parsed.items() if same in errors}

    def _put(self, server: '_Server', entry: base.HostEntry,
             held: Callable[[], set[base.HostEntry]]) -> None:
        """Create a host, and delete what is ours and in its way.

        :param held: what the lease file listed when it was first called.
        """
        end = time.monotonic() + self.options.timeout
        while not server.create(entry):
            if time.monotonic() > end:
                raise exceptions.DHCPError(
                    f'dhcpd {self.name}: the host of {entry.address} is made '
                    'by somebody else time and again: see who else uses '
                    'OMAPI.')
            for key in 'hardware-address', 'name':
                host = server.find(key, entry)
                if host is None:
                    continue
                if not host.ours:
                    raise self._in_the_way(host.name)
                # OMAPI does not tell the hostname
                if (host.mac, host.address) == (entry.mac, entry.address) \
                        and entry in held():
                    return
                server.delete(host)

    def remove(self, entries: Iterable[base.HostEntry]) -> base.Failures:
        failures: base.Failures = {}
        gone = list(entries)
        if not gone:
            return failures
        with self._server() as server:
            for entry in gone:
                with _noted(failures, entry):
                    host = server.find('name', entry)
                    if host is not None and host.mac == entry.mac:
                        server.delete(host)
            # dhcpd does not say when it could not write that to the file,
            # from which it would have the host again after a restart.
            if kept := self._kept(server, gone):
                for entry in kept:
                    with _noted(failures, entry):
                        server.delete_again(entry)
                kept = self._kept(server, kept)
        for entry in kept:
            failures.setdefault(entry, exceptions.DHCPError(
                f'dhcpd {self.name} keeps {entry.address} in '
                f'{self.options.lease_file}: see that it can write that '
                'file, and that the file is its own.'))
        return failures

    def _kept(self, server: '_Server', gone: Iterable[base.HostEntry],
              ) -> list[base.HostEntry]:
        """Return what is gone from dhcpd but not from the lease file."""
        listed = {(entry.mac, entry.address) for entry in self._listed(gone)}
        hosts = ((entry, server.find('name', entry)) for entry in gone
                 if (entry.mac, entry.address) in listed)
        return [entry for entry, host in hosts
                if host is None or host.mac is None]

    def entries(self) -> Iterator[base.HostEntry]:
        return filter(None, (host.entry() for host in self._hosts(
            lambda name: name.startswith(MARK))))

    def _listed(self, entries: Iterable[base.HostEntry],
                ) -> set[base.HostEntry]:
        """Return what the lease file lists for some addresses."""
        names = {_name(entry.address) for entry in entries}
        return set(filter(None, (
            host.entry() for host in self._hosts(names.__contains__))))

    def leases(self) -> Iterator[base.Lease]:
        return self._leases(lambda name: True)

    def leases_of(self, addresses: Collection[types.Address],
                  ) -> Iterator[base.Lease]:
        return self._leases({str(address) for address in addresses
                             }.__contains__)

    def _leases(self, wanted: Callable[[str], bool]) -> Iterator[base.Lease]:
        found = {name: body for kind, name, body in self._blocks()
                 if kind == 'lease' and wanted(name)}
        now = datetime.datetime.now(datetime.UTC)
        for name, body in found.items():
            lease = _lease(name, body)
            if lease is not None and (
                    lease.expires is None or lease.expires > now):
                yield lease

    def check(self) -> list[str]:
        wrong = []
        try:
            for sentence in self._check():
                wrong.append(sentence)
        except exceptions.DHCPError as exc:
            wrong.append(str(exc))
        return wrong

    def _check(self) -> Iterator[str]:
        with self._server() as server:
            first = next(self.entries(), None)
            # What dhcpd does not have may have been removed just now.
            if first is None:
                server.ping()
            elif (server.find('name', first) is None
                    and first in self._listed([first])):
                yield (f'{self.options.lease_file} lists {first.address}, '
                       f'which dhcpd at {self._where} does not have: set '
                       'lease_file to the file of that dhcpd.')
        conf = self._configuration()
        yield from conf.complaints
        foreign = dict(conf.addresses)
        hosts = list(self._hosts(lambda name: True))
        for host in hosts:
            if not host.ours and host.address is not None:
                foreign[host.address] = host.name
        outside: list[types.Address] = []
        for host in hosts:
            if not host.ours:
                continue
            entry = host.entry()
            if entry is None:
                yield (f'The host {host.name} is not as vmip makes it and is '
                       'not used: delete it by OMAPI.')
                continue
            for name in {foreign.get(entry.address),
                         conf.macs.get(entry.mac)} - {None}:
                yield (f'{entry.address} of {entry.mac} has an entry, and '
                       f'the host {name} has that address or MAC too: remove '
                       'that host.')
            if conf.subnets and not any(entry.address in subnet
                                        for subnet in conf.subnets):
                outside.append(entry.address)
        if outside:
            yield (f'{len(outside)} entries, {min(outside)} for one, are in '
                   f'no subnet of {self.options.config_file}, so that dhcpd '
                   'does not give them out: declare the subnet.')

    def _configuration(self) -> dhcpdconf.Conf:
        """Return what dhcpd.conf says, nothing where it is not configured.

        :raises DHCPServerUnavailable: it cannot be read.
        """
        path = self.options.config_file
        if self._conf is None or not self._conf.is_current():
            try:
                self._conf = dhcpdconf.read(path) if path \
                    else dhcpdconf.Conf()
            except OSError as exc:
                raise exceptions.DHCPServerUnavailable(
                    f'dhcpd {self.name}: {exc.filename or path}: '
                    f'{exc.strerror}: set config_file to dhcpd.conf, and let '
                    'this process read it and what it includes.') from exc
        return self._conf

    def _in_the_way(self, name: str) -> exceptions.DHCPError:
        return exceptions.DHCPError(
            f'dhcpd {self.name}: the host {name}, which is not vmip\'s, has '
            'this address or MAC: remove that host.')

    def _hosts(self, wanted: Callable[[str], bool]) -> Iterator[_Host]:
        """Yield the hosts in the lease file whose names are wanted."""
        found = {name: body for kind, name, body in self._blocks()
                 if kind == 'host' and wanted(name)}
        for name, body in found.items():
            if not _DELETED.search(body):
                yield _host(name, body)

    def _blocks(self) -> Iterator[tuple[str, str, str]]:
        """Yield kind, name and inside of the lease file's hosts and leases.

        Only a part of the file, however long, is in memory.
        """
        path = self.options.lease_file
        try:
            with open(path, 'rb') as file:
                rest = b''
                while chunk := file.read(_CHUNK):
                    rest += chunk
                    end = rest.rfind(_LEASE_END) + len(_LEASE_END)
                    if end < len(_LEASE_END):
                        # no block is as long as that
                        rest = rest[-_CHUNK:]
                        continue
                    for kind, name, body in _BLOCK.findall(rest[:end]):
                        yield (kind.decode(), name.decode('ascii', 'replace'),
                               body.decode('ascii', 'replace'))
                    rest = rest[end:]
        except OSError as exc:
            raise exceptions.DHCPServerUnavailable(
                f'dhcpd {self.name}: {path}: {exc.strerror}: set lease_file '
                'to the file that dhcpd is started with (-lf), and let this '
                'process read it.') from exc

    @property
    def _where(self) -> str:
        return f'{self.options.host}:{self.options.port}'

    @contextlib.contextmanager
    def _server(self) -> Iterator['_Server']:
        """Connect to dhcpd.

        :raises DHCPServerUnavailable: instead of every error in between.
        """
        options = self.options
        secret = f'key {options.key_name} ({options.key_algorithm})'
        try:
            with contextlib.closing(pypureomapi.Omapi(
                    options.host, options.port,
                    timeout=options.timeout)) as omapi:
                try:
                    omapi.initialize_authenticator(_Authenticator(
                        options.key_name.encode(), options.key.encode(),
                        options.key_algorithm))
                except pypureomapi.OmapiError as exc:
                    raise exceptions.DHCPServerUnavailable(
                        f'dhcpd {self.name}: {self._where} does not take the '
                        f'{secret}: set key_name and key_algorithm as '
                        'dhcpd.conf has them, and name the key as omapi-key '
                        'there.') from exc
                yield _Server(self.name, omapi)
        except OSError as exc:
            raise exceptions.DHCPServerUnavailable(
                f'dhcpd {self.name}: {self._where}: {exc}: start dhcpd with '
                'omapi-port in dhcpd.conf, or set host and port.') from exc
        except pypureomapi.OmapiError as exc:
            if 'sign' in str(exc):
                raise exceptions.DHCPServerUnavailable(
                    f'dhcpd {self.name}: {self._where} has another secret '
                    f'for the {secret}: set key as dhcpd.conf has it.'
                ) from exc
            raise exceptions.DHCPServerUnavailable(
                f'dhcpd {self.name}: {self._where}: {exc}: see whether that '
                'is dhcpd\'s omapi-port, and look at dhcpd\'s log.') from exc


class _Server:
    """dhcpd at the other end of a connection."""

    def __init__(self, name: str, omapi: Any) -> None:
        self._name = name
        self._omapi = omapi

    def ping(self) -> None:
        """See that dhcpd knows the key."""
        message = pypureomapi.OmapiMessage.open(b'host')
        message.obj = [(b'name', MARK.encode())]
        self._ask(message, _NOT_FOUND)

    def create(self, entry: base.HostEntry) -> bool:
        """Make a host, unless its name or its MAC is taken.

        :returns: False where one of them is.
        :raises DHCPError: dhcpd does not want it.
        """
        assert entry.address.version == 4
        message = pypureomapi.OmapiMessage.open(b'host')
        message.message += [(b'create', _ONE), (b'exclusive', _ONE)]
        message.obj = [
            (b'name', _name(entry.address).encode()),
            (b'hardware-address', _packed(entry.mac)), _ETHERNET,
            (b'ip-address', entry.address.packed)]
        if entry.hostname is not None:
            # It has no quote and no backslash, see _parse.
            message.obj.append((
                b'statements',
                f'supersede host-name "{entry.hostname}";'.encode()))
        return self._ask(message, _EXISTS, _KEY_CONFLICT) is not None

    def find(self, key: str, entry: base.HostEntry) -> _Host | None:
        """Return the host with the name or the MAC of an entry's host.

        :param key: ``name`` or ``hardware-address``.
        """
        message = pypureomapi.OmapiMessage.open(b'host')
        message.obj = [(b'name', _name(entry.address).encode())] \
            if key == 'name' \
            else [(b'hardware-address', _packed(entry.mac)), _ETHERNET]
        answer = self._ask(message, _NOT_FOUND)
        if answer is None:
            return None
        values = dict(answer.obj)
        mac = values.get(b'hardware-address', b'')
        address = values.get(b'ip-address', b'')
        return _Host(
            values.get(b'name', b'').decode('ascii', 'backslashreplace'),
            mac.hex(':') if len(mac) == 6 else None,
            ipaddress.IPv4Address(address) if len(address) == 4 else None,
            handle=answer.handle)

    def delete(self, host: _Host) -> None:
        """Delete a host; one that was made meanwhile stays."""
        self._ask(pypureomapi.OmapiMessage.delete(host.handle), _NOT_FOUND)

    def delete_again(self, entry: base.HostEntry) -> None:
        """Make dhcpd write once more that a host is deleted.

        The host that is made for it serves nobody.
        """
        message = pypureomapi.OmapiMessage.open(b'host')
        message.message += [(b'create', _ONE), (b'exclusive', _ONE)]
        name = _name(entry.address).encode()
        message.obj = [(b'name', name), (b'dhcp-client-identifier', name)]
        # it may be there from a try before
        self._ask(message, _EXISTS, _KEY_CONFLICT, _IO_ERROR)
        host = self.find('name', entry)
        if host is not None and host.mac is None:
            self.delete(host)

    def _ask(self, message: Any, *no: int) -> Any:
        """Return the answer, None for one of the results in ``no``.

        :raises DHCPError: another result than success.
        """
        answer = self._omapi.query_server(message)
        if answer.opcode == pypureomapi.OMAPI_OP_UPDATE:
            return answer
        values = dict(answer.message)
        result = int.from_bytes(values.get(b'result', b'\xff'), 'big')
        if result in no:
            return None
        if result == _IO_ERROR:
            raise exceptions.DHCPError(
                f'dhcpd {self._name} cannot write its lease file: free some '
                'space there, and look at its log.')
        if result != _SUCCESS:
            text = values.get(b'message', b'no reason').decode(
                'ascii', 'backslashreplace')
            raise exceptions.DHCPError(
                f'dhcpd {self._name} refuses: {text} (result {result}): look '
                'at its log.')
        return answer


class _Authenticator(pypureomapi.OmapiHMACMD5Authenticator):
    """With the algorithms that pypureomapi lacks."""

    def __init__(self, user: bytes, key: bytes, algorithm: str) -> None:
        super().__init__(user, key)
        self._digest = algorithm.removeprefix('hmac-')
        # dhcpd puts this behind a name in dhcpd.conf that has no dot
        self.algorithm = f'{algorithm}.SIG-ALG.REG.INT.'.encode()
        self.authlen = len(self.sign(b''))

    def sign(self, message: bytes) -> bytes:
        return hmac.digest(self.key, message, self._digest)


@contextlib.contextmanager
def _noted(failures: base.Failures, entry: base.HostEntry) -> Iterator[None]:
    """Note an error that is one entry's alone."""
    try:
        yield
    except exceptions.DHCPServerUnavailable:
        raise
    except exceptions.DHCPError as exc:
        failures[entry] = exc


def _name(address: types.Address) -> str:
    return MARK + str(address).replace('.', '-')


def _packed(mac: str) -> bytes:
    return bytes.fromhex(types.parse_mac(mac).replace(':', ''))


def _parse(entry: base.HostEntry) -> base.HostEntry:
    """Return an entry of values that are parsed once more.

    :raises ValueError: for what is no MAC or no IPv4 address.
    """
    if entry.address.version != 4:
        raise ValueError('only IPv4 entries are supported')
    return base.HostEntry(
        types.parse_mac(entry.mac), ipaddress.IPv4Address(str(entry.address)),
        types.host_label(entry.hostname))


def _last(entries: Iterable[base.HostEntry]) -> Iterable[base.HostEntry]:
    """Leave out entries whose MAC or address a later one has."""
    by_address: dict[types.Address, base.HostEntry] = {}
    by_mac: dict[str, base.HostEntry] = {}
    for entry in entries:
        for old in (by_address.get(entry.address), by_mac.get(entry.mac)):
            if old is not None:
                by_address.pop(old.address, None)
                by_mac.pop(old.mac, None)
        by_address[entry.address] = by_mac[entry.mac] = entry
    return by_address.values()


def _host(name: str, body: str) -> _Host:
    mac, fixed = _HARDWARE.search(body), _FIXED.search(body)
    address = None
    if fixed:
        with contextlib.suppress(ValueError):
            address = ipaddress.IPv4Address(fixed[1])
    hostname = _HOST_NAME.search(body)
    return _Host(name, types.parse_mac(mac[1]) if mac else None, address,
                 types.host_label(hostname[1]) if hostname else None)


def _lease(name: str, body: str) -> base.Lease | None:
    """Return a lease, None for one that is not running (dhcpd.leases(5))."""
    ends = _ENDS.search(body)
    if not _ACTIVE.search(body) or ends is None:
        return None
    expires = None
    try:
        address = ipaddress.IPv4Address(name)
        if ends['date']:
            expires = datetime.datetime.fromisoformat(
                ends['date'].replace('/', '-') + '+00:00')
        elif ends['epoch']:
            expires = datetime.datetime.fromtimestamp(
                int(ends['epoch']), datetime.UTC)
    except (ValueError, OverflowError):
        return None
    mac, uid = _HARDWARE.search(body), _UID.search(body)
    client_id = None
    if uid and uid['hex']:
        client_id = bytes(int(byte, 16) for byte in uid['hex'].split(':'))
    elif uid:
        client_id = _ESCAPE.sub(
            lambda m: chr(int(m[1], 8)) if len(m[1]) == 3 else m[1],
            uid['text']).encode('latin-1')
    return base.Lease(address, types.parse_mac(mac[1]) if mac else None,
                      client_id, expires)
