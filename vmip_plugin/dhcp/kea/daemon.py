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

"""A Kea daemon: its subnets, its settings and its leases."""

import collections
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Sequence, Set
import dataclasses
import datetime
import ipaddress
import time
from typing import Any

from oslo_config import cfg

from vmip_plugin.dhcp import base
from vmip_plugin.dhcp.kea import control
from vmip_plugin import exceptions
from vmip_plugin import types

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Leases or reservations that are asked for at once.
PAGE = 1000
#: Kea's valid-lft of a lease that never ends.
_INFINITE = 0xffffffff
#: States of a lease that a client has, and of one that it has declined.
_RUNNING = (0, 1)


@dataclasses.dataclass(frozen=True)
class Subnet:
    """A subnet as the daemon has it.

    :param settings: those of the subnet, of its shared network, and the
        global ones, in this order.
    """

    id: int
    network: Network
    settings: Mapping[str, Any]


class Settings:
    """What a daemon's config-get tells.

    :ivar operators: the operator's reservations in the configuration, by
        subnet and MAC, and by address.
    """

    def __init__(self, version: int, found: Mapping[str, Any]) -> None:
        self.all: Mapping[str, Any] = found[f'Dhcp{version}']
        key = f'subnet{version}'
        self.subnets: list[Subnet] = []
        self.operators: set[tuple[int, str] | types.Address] = set()
        for network in [{key: self.all.get(key, ())},
                        *self.all.get('shared-networks', ())]:
            for subnet in network.get(key, ()):
                self.subnets.append(Subnet(
                    subnet['id'], ipaddress.ip_network(subnet['subnet']),
                    collections.ChainMap(subnet, network, self.all)))
                self._learn(subnet['id'], subnet.get('reservations', ()))
        self._learn(0, self.all.get('reservations', ()))

    def _learn(self, subnet: int, reservations: Sequence[Mapping[str, Any]],
               ) -> None:
        for item in reservations:
            if control.is_ours(item.get('user-context')):
                continue
            if 'hw-address' in item:
                self.operators.add((subnet, item['hw-address'].lower()))
            self.operators.update(addresses_of(item))

    @property
    def databases(self) -> Sequence[Mapping[str, Any]]:
        """Where the daemon looks for hosts, beside its configuration."""
        single = self.all.get('hosts-database')
        found = [*([single] if single else ()),
                 *(self.all.get('hosts-databases') or ())]
        return [item for item in found if item.get('type')]

    @property
    def ids(self) -> dict[Network, int]:
        """The ids of the subnets."""
        return {subnet.network: subnet.id for subnet in self.subnets}


def addresses_of(reservation: Mapping[str, Any]) -> set[types.Address]:
    """Return the addresses of a reservation as Kea writes it in JSON."""
    return {ipaddress.ip_address(text) for text in
            [reservation.get('ip-address'),
             *reservation.get('ip-addresses', ())] if text}


@dataclasses.dataclass(frozen=True)
class Known:
    """What has to be known of a daemon to write entries.

    :param operators: see :class:`Settings`.
    """

    subnets: Mapping[Network, int]
    operators: Set[tuple[int, str] | types.Address] = frozenset()

    def subnet_of(self, address: types.Address) -> int | None:
        """Return the id of the subnet that has an address."""
        fitting = [network for network in self.subnets if address in network]
        return self.subnets[max(fitting, key=lambda network: network.prefixlen)
                            ] if fitting else None

    def have(self, addresses: Iterable[types.Address]) -> bool:
        """Tell whether all addresses are in these subnets."""
        return None not in map(self.subnet_of, addresses)


class Daemon:
    """A kea-dhcp4 or kea-dhcp6.

    :param version: 4 or 6.
    :param given: ids of subnets that the configuration of vmip tells.
    """

    #: Seconds for which what the daemon told is believed, and for which it
    #: is not asked again for a subnet that it did not have.
    MAX_AGE, MIN_AGE = 60, 1

    def __init__(self, name: str, version: int, target: str | None,
                 given: Mapping[Network, int],
                 options: cfg.ConfigOpts.GroupAttr) -> None:
        self.version = version
        self.label = f'kea-dhcp{version} of {name}'
        self.control = control.Control(
            self.label, f'dhcp{version}', target, options) if target else None
        self.given = given
        self._known: Known | None = None
        self._read = float('-inf')

    @property
    def served(self) -> bool:
        """Whether vmip has anything to do with it."""
        return bool(self.control or self.given)

    def ask(self, command: str, **arguments: Any) -> Mapping[str, Any]:
        """See :meth:`control.Control.ask`.

        :raises DHCPError: there is no control channel.
        """
        if self.control is None:
            raise exceptions.DHCPError(
                f'{self.label}: set control{"6" * (self.version == 6)} to '
                'its control channel')
        return self.control.ask(command, **arguments)

    def commands(self) -> set[str]:
        """Return the commands that the daemon knows.

        :raises DHCPError: it does not tell.
        """
        return set(self.ask('list-commands')[''])

    def settings(self) -> Settings:
        """Return the daemon's configuration.

        :raises DHCPServerUnavailable: it cannot be read.
        """
        try:
            found = self.ask('config-get')
        except control.Refused as exc:
            raise exceptions.DHCPServerUnavailable(str(exc)) from exc
        with control.understood(self.label):
            return Settings(self.version, found)

    def known(self, addresses: Collection[types.Address], whole: bool
              ) -> Known:
        """Return what is known, or is to be known, to write entries.

        :param addresses: theirs.
        :param whole: with the operator's reservations. Otherwise Kea itself
            refuses what does not fit, and is asked as little as possible: it
            answers nobody while it tells a big configuration.
        :raises DHCPServerUnavailable: nothing is known.
        """
        given = Known(self.given)
        if self.control is None or not whole and given.have(addresses):
            return given
        age = time.monotonic() - self._read
        if self._known is not None and (age < self.MIN_AGE or (
                self._known.have(addresses)
                and (age < self.MAX_AGE or not whole))):
            return self._known
        read = time.monotonic()
        try:
            if whole:
                settings = self.settings()
                self._known = Known({**settings.ids, **self.given},
                                    settings.operators)
            else:
                self._known = Known({**self._list(), **self.given})
            self._read = read
        except exceptions.DHCPServerUnavailable:
            if self._known is None and not self.given:
                raise
        return self._known or given

    def forget(self) -> None:
        """Ask the daemon again when something is to be known."""
        self._known = None

    def _list(self) -> dict[Network, int]:
        try:
            found = self.ask(f'subnet{self.version}-list')
        except control.Refused:
            # without the hook library subnet_cmds
            return self.settings().ids
        with control.understood(self.label):
            return {ipaddress.ip_network(subnet['subnet']): subnet['id']
                    for subnet in found.get('subnets', ())}

    def leases(self) -> Iterator[base.Lease]:
        """Yield the running leases, a page at a time.

        :raises DHCPServerUnavailable: they cannot be read.
        """
        last = 'start'
        while True:
            found = self._ask_leases('get-page', **{'from': last}, limit=PAGE
                                     ).get('leases', ())
            with control.understood(self.label):
                yield from _running(found)
                if len(found) < PAGE:
                    return
                last = found[-1]['ip-address']

    def leases_of(self, addresses: Collection[types.Address]
                  ) -> Iterator[base.Lease]:
        """Yield the running leases of a few addresses.

        :raises DHCPServerUnavailable: they cannot be read.
        """
        for address in addresses:
            found = self._ask_leases('get', ip_address=str(address))
            with control.understood(self.label):
                yield from _running([found] if found else [])

    def _ask_leases(self, verb: str, **arguments: Any) -> Mapping[str, Any]:
        try:
            return self.ask(f'lease{self.version}-{verb}', **arguments)
        except control.Refused as exc:
            raise exceptions.DHCPServerUnavailable(str(exc)) from exc

    def release(self, lease: base.Lease) -> None:
        """End a lease, unless somebody else has the address by now.

        :raises DHCPError: the daemon did not do it.
        """
        address = str(lease.address)
        held = self.ask(f'lease{self.version}-get', ip_address=address)
        with control.understood(self.label):
            # of who has no MAC that Kea tells, the client id is the name
            ours = held and all(
                now.mac == lease.mac and (
                    now.mac or now.client_id == lease.client_id)
                for now in _running([held]))
        if ours:
            self.ask(f'lease{self.version}-del', ip_address=address)


def _running(found: Iterable[Mapping[str, Any]]) -> Iterator[base.Lease]:
    """Yield the leases that somebody has, of those that Kea tells."""
    now = time.time()
    for item in found:
        end = int(item['cltt']) + int(item['valid-lft'])
        forever = item['valid-lft'] == _INFINITE
        if (item['state'] not in _RUNNING or not (forever or end > now)
                or item.get('type', 'IA_NA') != 'IA_NA'):
            continue
        try:
            mac = types.parse_mac(item.get('hw-address') or '')
        except ValueError:
            mac = None   # declined, or of a network that is not Ethernet
        ident = item.get('client-id') or item.get('duid') or ''
        yield base.Lease(
            ipaddress.ip_address(item['ip-address']), mac,
            bytes.fromhex(ident.replace(':', '')) or None,
            None if forever
            else datetime.datetime.fromtimestamp(end, datetime.UTC))
