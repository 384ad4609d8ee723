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

"""Host entries by the hook library host_cmds (free from Kea 3.0 on).

Kea itself refuses a second MAC for an address, and a command is done before
the next one begins, but no two of them are one transaction: where two workers
change the same MAC at the same moment, what one wrote may be missing until
the next comparison with the inventory.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import functools
import random
import time
from typing import Any

from vmip_plugin.dhcp import base
from vmip_plugin.dhcp.kea import control
from vmip_plugin.dhcp.kea import daemon
from vmip_plugin.dhcp.kea import host
from vmip_plugin import exceptions
from vmip_plugin import types

#: Tries to write an entry whose address or MAC others write as well.
_TRIES = 10


class Commands:
    """The reservations of one daemon.

    :param save: whether the daemon writes its configuration file after each
        change that would not outlive it.
    """

    def __init__(self, which: daemon.Daemon, save: bool) -> None:
        self._daemon = which
        self._save = save

    @functools.cached_property
    def _target(self) -> str:
        """Where Kea is to keep reservations: ``database`` or ``memory``.

        It says so when it has nothing to delete, and need not tell its whole
        configuration.
        """
        try:
            self._daemon.ask(
                'reservation-del', subnet_id=1, identifier_type='flex-id',
                identifier="'vmip-none'", operation_target='database')
            return 'database'
        except control.Refused:
            return 'memory'

    def put(self, hosts: Sequence[host.Host]) -> base.Failures:
        """Write entries, the last of a MAC or address for good."""
        failures: base.Failures = {}
        for item in hosts:
            try:
                with control.understood(self._daemon.label):
                    self._put(item)
            except exceptions.DHCPServerUnavailable:
                raise
            except exceptions.DHCPError as exc:
                failures[item.entry] = exc
        self._keep()
        return failures

    def remove(self, entries: Iterable[base.HostEntry]) -> base.Failures:
        """Remove entries."""
        failures: base.Failures = {}
        for entry in entries:
            try:
                with control.understood(self._daemon.label):
                    self._remove(entry.mac, entry.address)
            except exceptions.DHCPServerUnavailable:
                raise
            except exceptions.DHCPError as exc:
                failures[entry] = exc
        self._keep()
        return failures

    def entries(self) -> Iterator[base.HostEntry]:
        """Yield the reservations that are ours, a page at a time."""
        where: Mapping[str, Any] = {}
        while True:
            try:
                page = self._daemon.ask('reservation-get-page',
                                        limit=daemon.PAGE, **where)
            except control.Refused as exc:
                raise exceptions.DHCPServerUnavailable(str(exc)) from exc
            with control.understood(self._daemon.label):
                found = page.get('hosts', ())
                yield from self._ours(found)
                if not found or not page.get('next'):
                    return
                where = {key.replace('-', '_'): value
                         for key, value in page['next'].items()}

    def _ours(self, found: Iterable[Mapping[str, Any]]
              ) -> Iterator[base.HostEntry]:
        for item in found:
            if (control.is_ours(item.get('user-context'))
                    and 'hw-address' in item):
                mac = types.parse_mac(item['hw-address'])
                for address in daemon.addresses_of(item):
                    yield base.HostEntry(mac, address,
                                         item.get('hostname') or None)

    def check(self) -> Iterator[str]:
        """Yield what is wrong with how the reservations are kept."""
        if not self._save and self._target == 'memory':
            yield (f'{self._daemon.label} keeps reservations in its memory '
                   'only and loses them when it is restarted: give it a '
                   'hosts-database, or set config_write.')

    def _remove(self, mac: str, address: types.Address) -> None:
        for found in self._of_mac(mac):
            if (control.is_ours(found.get('user-context'))
                    and address in daemon.addresses_of(found)):
                self._delete(found)

    def _put(self, item: host.Host) -> None:
        for attempt in range(_TRIES):
            if self._clear(item):
                return
            reservation: dict[str, Any] = {
                'subnet-id': item.subnet, 'hw-address': item.mac,
                'user-context': {control.MARK: True}}
            if item.address.version == 4:
                reservation['ip-address'] = str(item.address)
            else:
                reservation['ip-addresses'] = [str(item.address)]
            if item.hostname:
                reservation['hostname'] = item.hostname
            try:
                self._daemon.ask('reservation-add', reservation=reservation,
                                 operation_target=self._target)
                return
            except control.Refused:
                if item.address.version == 6:
                    # Kea 3.0.4 keeps, and serves, what it says that it has
                    # refused, where it has it in memory.
                    self._remove(item.mac, item.address)
                # Another worker may have come between, or the operator.
                if attempt == _TRIES - 1:
                    self._daemon.forget()
                    raise
            time.sleep(random.uniform(0, 0.01 * attempt))

    def _clear(self, item: host.Host) -> bool:
        """Remove what is in the way; True where the entry is there already.

        :raises DHCPError: the operator's reservation is in the way.
        """
        same_mac = self._of_mac(item.mac)
        same_address = self._find('address', ip_address=str(item.address))
        for found in *same_mac, *same_address:
            if not control.is_ours(found.get('user-context')) and (
                    found in same_address
                    or found['subnet-id'] == item.subnet):
                raise host.in_the_way(self._daemon.label, item)
        there = False
        for found in same_mac:
            if (found['subnet-id'], daemon.addresses_of(found),
                    found.get('hostname', '')) == (
                        item.subnet, {item.address}, item.hostname):
                there = True
            elif control.is_ours(found.get('user-context')):
                self._delete(found)
        for found in same_address:
            if found not in same_mac:
                self._delete(found)
        return there

    def _of_mac(self, mac: str) -> Sequence[Mapping[str, Any]]:
        return self._find('id', identifier_type='hw-address', identifier=mac)

    def _find(self, key: str, **arguments: str
              ) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self._daemon.ask(
            f'reservation-get-by-{key}', **arguments).get('hosts', ())
        return found

    def _delete(self, found: Mapping[str, Any]) -> None:
        self._daemon.ask(
            'reservation-del', subnet_id=found['subnet-id'],
            identifier_type='hw-address', identifier=found['hw-address'],
            operation_target=self._target)

    def _keep(self) -> None:
        # Also where nothing was to be changed: whoever did it before may have
        # been killed before this.
        if self._save and self._target == 'memory':
            self._daemon.ask('config-write')
