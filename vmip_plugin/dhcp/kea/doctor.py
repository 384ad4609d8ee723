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

"""What a Kea needs to be set to, and is not."""

from collections.abc import Iterable, Iterator, Mapping
import pathlib
import re
from typing import Any

from vmip_plugin.dhcp import base
from vmip_plugin.dhcp.kea import daemon
from vmip_plugin.dhcp.kea import database

# Commands that are needed, and the hook library that brings them.
_HOOKS = {'lease_cmds': ('get', 'get-page', 'del'),
          'host_cmds': ('add', 'del', 'get-by-id', 'get-by-address',
                        'get-page')}
# As Kea calls what is in a URL of SQLAlchemy's, and the hook libraries.
_BACKENDS = {'mysql': 'mysql', 'postgresql': 'pgsql'}


def check(which: daemon.Daemon, settings: daemon.Settings,
          store: database.Database | None) -> Iterator[str]:
    """Yield what is wrong with a daemon, a sentence each.

    :param store: the hosts database that is written; None: host_cmds.
    :raises DHCPError: the daemon does not answer.
    """
    # such as "3.0.4 (3.0.4 (tarball))"
    version = tuple(map(int, re.findall(
        r'\d+', str(which.ask('version-get').get('extended')))[:2]))
    known = which.commands()
    yield from _hooks(which, known, store is None)
    if store is not None:
        yield from _store(which, settings, store, version)
    yield from _globals(which, settings, version)
    if not settings.subnets:
        yield f'{which.label} has no subnet: add those of the pools.'
    for subnet in settings.subnets:
        yield from _subnet(which, subnet)
    if which.version == 4:
        yield from _strangers(which, settings)
    for network, number in which.given.items():
        if settings.ids.get(network) != number:
            yield (f'{which.label} has the id {settings.ids.get(network)} '
                   f'for the subnet {network}, not {number}: correct subnets.')


def check_entries(label: str, known: daemon.Known,
                  held: Iterable[base.HostEntry]) -> Iterator[str]:
    """Yield which entries a daemon cannot serve."""
    lost = [entry.address for entry in held
            if known.subnet_of(entry.address) is None]
    if lost:
        yield (f'{label} has no subnet with {lost[0]}, and so for '
               f'{len(lost)} entries: add it to the daemon\'s configuration.')


def _hooks(which: daemon.Daemon, known: set[str], host_cmds: bool
           ) -> Iterator[str]:
    for name in ('lease_cmds', *(('host_cmds',) if host_cmds else ())):
        prefix = ('reservation' if name == 'host_cmds'
                  else f'lease{which.version}')
        if not known >= {f'{prefix}-{verb}' for verb in _HOOKS[name]}:
            yield (f'{which.label} has not loaded the hook library '
                   f'libdhcp_{name}.so: add it to hooks-libraries'
                   + (' (Kea 3.0 or newer has it), or set hosts_database.'
                      if name == 'host_cmds' else '.'))


def _store(which: daemon.Daemon, settings: daemon.Settings,
           store: database.Database, version: tuple[int, ...]
           ) -> Iterator[str]:
    if not any(found['type'] == store.kind
               and found.get('name') == store.url.database
               for found in settings.databases):
        yield (f'{which.label} does not look for hosts in the {store.label}:'
               f' set "hosts-database": {{"type": "{store.kind}", "name": '
               f'"{store.url.database}", ...}}.')
    library = f'libdhcp_{_BACKENDS[store.kind]}.so'
    loaded = {pathlib.PurePath(item.get('library', '')).name
              for item in settings.all.get('hooks-libraries', ())}
    if version >= (3,) and library not in loaded:
        yield (f'{which.label} has not loaded the hook library {library}: '
               'add it to hooks-libraries.')
    if 'libdhcp_host_cache.so' in loaded:
        yield (f'{which.label} has the hook library libdhcp_host_cache.so, '
               'and does not see what is changed in the database: remove it.')


def _globals(which: daemon.Daemon, settings: daemon.Settings,
             version: tuple[int, ...]) -> Iterator[str]:
    if 'hw-address' not in settings.all.get(
            'host-reservation-identifiers', ('hw-address',)):
        yield (f'{which.label} does not look for reservations by MAC: add '
               '"hw-address" to host-reservation-identifiers.')
    leftover = settings.all.get('expired-leases-processing', {})
    # Kea 2.2 deletes a lease as soon as its client gives it back.
    if version >= (2, 4) and 0 not in (
            leftover.get('hold-reclaimed-time'),
            leftover.get('flush-reclaimed-timer-wait-time')):
        yield (f'{which.label} keeps an address for a while that its client '
               'has given back: set hold-reclaimed-time in '
               'expired-leases-processing to 0.')


def _subnet(which: daemon.Daemon, subnet: daemon.Subnet) -> Iterator[str]:
    where = f'{which.label}, subnet {subnet.network}'
    own = subnet.settings
    if not own.get('reservations-in-subnet', True):
        yield (f'{where}: reservations are not looked for: set '
               'reservations-in-subnet to true.')
    if which.version == 4:
        if own.get('match-client-id', True):
            yield (f'{where}: a guest that changes its client identifier is '
                   'refused its address: set match-client-id to false.')
        if not own.get('authoritative', False):
            yield (f'{where}: a guest whose lease is lost, or that comes '
                   'from another network, is not answered: set authoritative '
                   'to true.')
    if _has_pool_for_all(own):
        yield (f'{where}: guests without an entry get addresses of a pool: '
               'remove the pools, or give them the client class KNOWN.')


def _strangers(which: daemon.Daemon, settings: daemon.Settings
               ) -> Iterator[str]:
    silent = any(found.get('name') == 'DROP'
                 and 'KNOWN' in found.get('test', '')
                 for found in settings.all.get('client-classes', ()))
    if not silent and any(
            subnet.settings.get('authoritative', False)
            and not _has_pool_for_all(subnet.settings)
            for subnet in settings.subnets):
        yield (f'{which.label} is authoritative and refuses guests without '
               'an entry what another DHCP server gave to them: add the '
               'client class DROP with the test "pkt4.msgtype == 3 and not '
               'member(\'KNOWN\')".')


def _has_pool_for_all(subnet: Mapping[str, Any]) -> bool:
    return not _known_only(subnet) and not all(
        map(_known_only, subnet.get('pools', ())))


def _known_only(place: Mapping[str, Any]) -> bool:
    return 'KNOWN' in (place.get('client-class'),
                       *place.get('client-classes', ()))
