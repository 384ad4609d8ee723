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

"""What a dhcpd.conf says, as far as host entries need it (dhcpd.conf(5))."""

from collections.abc import Iterator
import contextlib
import dataclasses
import errno
import ipaddress
import os
import re

from vmip_plugin import types

_PART = re.compile(r'#[^\n]*|"(?:[^"\\]|\\.)*"|[{};]|[^\s{};"#]+', re.S)
_NEVER = frozenset(('false', 'off'))

#: words of a statement, and the statements in its braces
_Statement = tuple[list[str], list['_Statement']]
#: what identifies the content of a file
_Signature = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Conf:
    """The settings that matter.

    :param files: the files that were read.
    :param addresses: the name of the host that has a fixed address.
    :param macs: the name of the host that has an Ethernet address.
    :param complaints: what is wrong, a sentence each, with a remedy.
    """

    files: dict[str, _Signature] = dataclasses.field(default_factory=dict)
    addresses: dict[types.Address, str] = dataclasses.field(
        default_factory=dict)
    macs: dict[str, str] = dataclasses.field(default_factory=dict)
    subnets: list[ipaddress.IPv4Network] = dataclasses.field(
        default_factory=list)
    complaints: list[str] = dataclasses.field(default_factory=list)

    def is_current(self) -> bool:
        """Tell whether the files are still as they were."""
        try:
            return all(_signature(os.stat(path)) == signature
                       for path, signature in self.files.items())
        except OSError:
            return False


@dataclasses.dataclass(frozen=True)
class _Scope:
    """What holds in a block, its own or inherited."""

    where: str = 'dhcpd.conf'
    authoritative: bool = False
    unknown_clients: bool = True
    ignore_client_uids: bool = False
    ping_check: bool = True
    use_host_decl_names: bool = False


def read(path: str) -> Conf:
    """Read a file and those that it includes.

    :raises OSError: one of them cannot be read, or cannot even be a file.
    """
    conf = Conf()
    todo = [(_statements(conf, path), _Scope(), False)]
    while todo:
        block, scope, is_subnet = todo.pop()
        for words, _ in block:
            scope = _changed(scope, words)
        if is_subnet:
            conf.complaints.extend(_in_subnet(scope))
        if any(words[:1] == ['range'] for words, _ in block):
            conf.complaints.extend(_in_range(scope))
        for words, inner in block:
            match words:
                case ['subnet', address, 'netmask', mask]:
                    with contextlib.suppress(ValueError):
                        conf.subnets.append(
                            ipaddress.IPv4Network(f'{address}/{mask}'))
                    todo.append((inner, dataclasses.replace(
                        scope, where=f'subnet {address}'), True))
                case ['host', name]:
                    _host(conf, name.strip('"'), inner)
                case _ if inner:
                    todo.append((inner, scope, False))
    return conf


def _statements(conf: Conf, path: str) -> list[_Statement]:
    """Take a file and those that it includes apart."""
    block: list[_Statement] = []
    stack = [block]
    words: list[str] = []
    texts = [_parts(conf, path)]
    while texts:
        part = next(texts[-1], None)
        if part is None:
            texts.pop()
        elif part == '{':
            inner: list[_Statement] = []
            stack[-1].append((words, inner))
            stack.append(inner)
            words = []
        elif part == '}':
            words = []
            if len(stack) > 1:
                stack.pop()
        elif part != ';':
            words.append(part)
        else:
            match words:
                case ['include', quoted]:
                    # one that includes itself is no dhcpd.conf
                    if (included := quoted.strip('"')) not in conf.files:
                        texts.append(_parts(conf, included))
                case _:
                    stack[-1].append((words, []))
            words = []
    return block


def _parts(conf: Conf, path: str) -> Iterator[str]:
    if '\0' in path:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), repr(path))
    with open(path, encoding='utf-8', errors='replace') as file:
        conf.files[path] = _signature(os.fstat(file.fileno()))
        text = file.read()
    for part in _PART.findall(text):
        if part[0] != '#':
            yield part


def _signature(status: os.stat_result) -> _Signature:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _changed(scope: _Scope, words: list[str]) -> _Scope:
    """Return a scope with one more statement in it."""
    match [word.lower() for word in words]:
        case ['authoritative']:
            return dataclasses.replace(scope, authoritative=True)
        case ['not', 'authoritative']:
            return dataclasses.replace(scope, authoritative=False)
        case ['allow' | 'deny' | 'ignore' as verb, 'unknown-clients']:
            return dataclasses.replace(scope,
                                       unknown_clients=verb == 'allow')
        case ['allow', 'known-clients']:
            # of a pool, which then serves these only
            return dataclasses.replace(scope, unknown_clients=False)
        case ['boot-unknown-clients', flag]:
            return dataclasses.replace(scope,
                                       unknown_clients=flag not in _NEVER)
        case ['ignore-client-uids', flag]:
            return dataclasses.replace(scope,
                                       ignore_client_uids=flag not in _NEVER)
        case ['ping-check', flag]:
            return dataclasses.replace(scope, ping_check=flag not in _NEVER)
        case ['use-host-decl-names', flag]:
            return dataclasses.replace(
                scope, use_host_decl_names=flag not in _NEVER)
    return scope


def _in_subnet(scope: _Scope) -> Iterator[str]:
    if not scope.authoritative:
        yield (f'dhcpd is not authoritative in {scope.where} and leaves a '
               'guest without an answer that asks for an address of another '
               'net: add "authoritative;".')
    if scope.use_host_decl_names:
        yield (f'A guest in {scope.where} whose server has no usable name is '
               'told the name of its host entry: remove '
               '"use-host-decl-names".')


def _in_range(scope: _Scope) -> Iterator[str]:
    if scope.unknown_clients:
        yield (f'A range in {scope.where} serves guests that have no entry, '
               'with addresses that may be another\'s: add '
               '"deny unknown-clients;", or remove the range.')
    if not scope.ignore_client_uids:
        yield (f'A guest in {scope.where} that asks with two client '
               'identifiers takes two addresses of a range: add '
               '"ignore-client-uids true;".')
    if not scope.ping_check:
        yield (f'dhcpd gives out a range in {scope.where} without a look '
               'whether an address still answers: remove "ping-check".')


def _host(conf: Conf, name: str, inner: list[_Statement]) -> None:
    for words, _ in inner:
        match words:
            case ['hardware', 'ethernet', mac]:
                with contextlib.suppress(ValueError):
                    conf.macs[types.parse_mac(':'.join(
                        byte.zfill(2) for byte in mac.split(':')))] = name
            case ['fixed-address', *addresses]:
                for text in ' '.join(addresses).replace(',', ' ').split():
                    # it may be a name
                    with contextlib.suppress(ValueError):
                        conf.addresses[types.parse_address(text)] = name
