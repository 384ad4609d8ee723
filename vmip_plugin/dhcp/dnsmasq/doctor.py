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

"""What is wrong with a dnsmasq, a sentence each that says what to do."""

from collections.abc import Iterator, Sequence
import dataclasses
import errno
import ipaddress
import os
import re

from vmip_plugin.dhcp import base
from vmip_plugin.dhcp.dnsmasq import folder as files
from vmip_plugin.dhcp.dnsmasq import process
from vmip_plugin import types

#: Entries that all have leases, up to which a removal stops dnsmasq for less
#: than a second (2.90; doc/source/dnsmasq.rst has the figures).
MOST = 8000

_MODES = {'static', 'proxy', 'ra-only', 'ra-stateless', 'ra-names',
          'ra-advrouter', 'slaac', 'off-link'}
_KNOWN = re.compile(r'tag:[!#]known|#known')


def check_files(folder: files.Folder, lease_file: str | None
                ) -> Iterator[str]:
    """Yield what is wrong with the files that this process uses."""
    if not os.access(folder.path, os.W_OK | os.X_OK):
        yield (f'{folder.path} cannot be written: '
               f'{files.REMEDIES[errno.EACCES]}.')
    for path in folder.torn():
        yield (f'{path} is not as vmip writes it, and what is not is not '
               'used: compare the entries with the list (vmip-manage dhcp '
               'check); the next change writes it again.')
    if lease_file and not os.access(lease_file, os.R_OK):
        yield (f'{lease_file} cannot be read: set lease_file to the value of '
               'dhcp-leasefile, and let this process read it.')


def check_server(pid: int, path: str, entries: Sequence[base.HostEntry],
                 dbus: bool) -> Iterator[str]:
    """Yield what is wrong with the settings of a process.

    :param path: the hostsdir.
    :param entries: what it serves.
    :param dbus: whether it is told by D-Bus to end leases.
    """
    settings, unreadable = process.settings(pid)
    for name in unreadable:
        yield (f'{name} cannot be read, so dnsmasq\'s settings are not '
               'known: run the check as root.')
    watched = process.watches(pid, path)
    if watched is None:
        watched = any(os.path.realpath(value) == os.path.realpath(path)
                      for value in settings['dhcp-hostsdir'])
    if not watched:
        yield (f'dnsmasq (process {pid}) does not watch {path}: start it '
               f'with --dhcp-hostsdir={path} when the folder is there.')
    if len(entries) > MOST:
        yield (f'dnsmasq has {len(entries)} entries and may answer nobody '
               'for more than a second when one is removed: split the pool '
               f'over several dnsmasqs, of {MOST} entries at most '
               '(vmip-manage pool set --dhcp-server NAME=FIRST-LAST).')
    if unreadable:
        return
    if not settings['dhcp-authoritative']:
        yield ('dnsmasq runs without dhcp-authoritative and refuses a guest '
               'whose lease it has lost: add the option.')
    # 1000 is dnsmasq's own default
    most = (settings['dhcp-lease-max'] or ['1000'])[-1]
    if most.isdecimal() and len(entries) >= int(most):
        yield (f'dnsmasq gives out {most} leases at most and has '
               f'{len(entries)} entries: raise dhcp-lease-max.')
    if dbus and not settings['enable-dbus']:
        yield ('dnsmasq runs without enable-dbus, and dbus_service is set: '
               'add the option, or take dbus_service away.')
    known_only = any(_KNOWN.fullmatch(value)
                     for value in settings['dhcp-ignore'])
    if settings['dhcp-authoritative'] and not known_only:
        yield ('dnsmasq is authoritative and refuses guests without an entry '
               'what another DHCP server gave to them: add '
               'dhcp-ignore=tag:!known.')
    yield from _check_ranges(settings['dhcp-range'], entries, known_only)


@dataclasses.dataclass(frozen=True)
class _Range:
    """A --dhcp-range.

    :param network: None: dnsmasq takes it from an interface.
    :param pool: whether it has addresses for guests without an entry.
    """

    version: int
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None
    pool: bool


def _parse_range(text: str) -> _Range | None:
    """Read a --dhcp-range (dnsmasq(8)); None: for no guest or not a range."""
    words = [word for word in re.split(r'\s*,\s*', text.strip())
             if not word.startswith(('tag:', 'set:', 'net:'))]
    addresses: list[types.Address] = []
    modes: set[str] = set()
    rest: list[str] = []
    for word in words:
        try:
            addresses.append(types.parse_address(word))
        except ValueError:
            (modes.add if word in _MODES else rest.append)(word)
    if not addresses or modes & {'proxy', 'ra-only', 'ra-stateless'}:
        return None
    start = addresses[0]
    dynamic = any(word.startswith('constructor:') for word in rest)
    if start.version == 6:
        size = next((w for w in rest if re.fullmatch('[0-9]{1,3}', w)), '64')
    else:
        # after the start, or the end of a range that is no static one
        masks = addresses[1 if 'static' in modes else 2:]
        size = str(masks[0]) if masks else ''
    try:
        network = None if dynamic or not size else ipaddress.ip_network(
            f'{start}/{size}', strict=False)
    except ValueError:
        network = None
    return _Range(start.version, network, 'static' not in modes)


def _check_ranges(texts: Sequence[str], entries: Sequence[base.HostEntry],
                  known_only: bool) -> Iterator[str]:
    ranges = []
    for text in texts:
        found = _parse_range(text)
        if found is None:
            continue
        ranges.append(found)
        if found.pool and not known_only:
            yield (f'dnsmasq gives addresses of dhcp-range={text} to guests '
                   'without an entry: add dhcp-ignore=tag:!known.')
    for version in 4, 6:
        ours = [r for r in ranges if r.version == version]
        networks = {r.network for r in ours}
        if None in networks:
            continue    # nobody but dnsmasq knows
        outside = [e.address for e in entries if e.address.version == version
                   and not any(e.address in network for network in networks
                               if network is not None)]
        if outside:
            more = f' and {len(outside) - 1} more' if outside[1:] else ''
            yield (f'dnsmasq has no dhcp-range for {outside[0]}{more} and '
                   'does not serve it: add one, such as '
                   + ('dhcp-range=192.0.2.0,static,255.255.255.0.'
                      if version == 4 else
                      'dhcp-range=2001:db8::,static,64.'))
