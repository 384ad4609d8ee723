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

"""The hook that the plugin is for: every server gets its address reserved."""

from collections.abc import Collection, Sequence
from typing import Any
from typing import ClassVar

from oslo_config import cfg

from vmip_plugin import exceptions
from vmip_plugin.hooks import base
from vmip_plugin.hooks import networks as usable_networks
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records
from vmip_plugin import policies
from vmip_plugin import types


class ReserveHook(base.PreCreateHook):
    """Reserve an address for each interface on each network with a pool.

    An interface whose port the client made is Neutron's, and so is an address
    that the client chose outside the pools: the IPAM driver sees to them when
    the port is made.
    """

    ACTIONS: ClassVar[Collection[base.Action]] = tuple(base.Action)

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf)
        self._inventory = api.Inventory(conf, 'nova-api', in_request=True)
        self._networks = usable_networks.UsableNetworks(conf)
        self._enforcer = policies.enforcer(conf)
        self._allowance = records.Allowance(conf.reserve.project_limit,
                                            conf.reserve.project_share)

    def before(self, request: base.Request) -> list[records.Address]:
        asked = request.addresses or self._asked(request)
        if asked and len(request.server_names) > 1:
            raise base.Refused(400, 'Addresses can be asked for only by a '
                                    'request for one server.')
        interfaces = self._interfaces(request, bool(asked))
        # one for each IP version; and nobody makes us look up thousands
        if len(asked) > 2 * len(interfaces):
            raise _nowhere()
        if not interfaces or not asked and not self._may_have_pool(interfaces):
            return []
        try:
            wanted = self._wanted(request, interfaces, asked)
            if not wanted:
                return []
            return self._inventory.reserve(
                request.requester, wanted, self.conf.reserve.ttl,
                self._allowance)
        except exceptions.PoolExhausted as exc:
            raise base.Unable(409, 'No more addresses are free on the '
                                   'requested network.') from exc
        except exceptions.AddressAnswers as exc:
            raise base.Refused(
                409, 'The requested address is not free yet: its former '
                     'holder still answers on the wire.') from exc
        except exceptions.TooManyReserved as exc:
            raise base.Refused(
                409, 'The project has reserved too many addresses that no '
                     'server has yet, try again later.') from exc
        except exceptions.AddressInUse as exc:
            raise base.Refused(409, 'The requested address is not free.'
                               ) from exc
        except exceptions.AddressNotFound as exc:
            # the pool was made smaller just now
            raise _nowhere() from exc
        except exceptions.InventoryUnavailable as exc:
            raise base.Unable(503, 'Addresses cannot be reserved at the '
                                   'moment, try again later.') from exc

    def concerns(self, request: base.Request) -> bool:
        """Tell whether a request may get an address of a pool.

        From what this process knows: neither the database nor Neutron is
        asked. Where Nova chooses the network, nothing would have been
        reserved without Neutron's answer either.
        """
        options = self.conf.reserve
        return (bool(request.addresses)
                or options.address_metadata_key in request.metadata
                or options.address_hint_key in request.hints
                or self._may_have_pool(request.networks))

    def _may_have_pool(self, interfaces: Sequence[base.RequestedNetwork],
                       ) -> bool:
        return any(self._inventory.may_have_pool(network_id=i.network_id)
                   for i in interfaces if i.network_id and not i.port_id)

    def after(self, request: base.Request, memo: Any,
              outcome: base.Outcome) -> None:
        if not memo:
            return
        if not outcome.accepted:
            self._inventory.withdraw(memo, f'Nova answered {outcome.status}')
        elif outcome.server_id and len(request.server_names) == 1:
            self._inventory.bind(memo, outcome.server_id)

    # -- what is asked for -------------------------------------------------

    def _asked(self, request: base.Request) -> tuple[types.Address, ...]:
        """Return the addresses in the operator's metadata key and hint."""
        options = self.conf.reserve
        found: dict[types.Address, None] = {}
        for what, key, values in (
                ('metadata', options.address_metadata_key, request.metadata),
                ('scheduler hint', options.address_hint_key, request.hints)):
            if not key or key not in values:
                continue
            try:
                found.update(dict.fromkeys(_addresses(values[key])))
            except ValueError as exc:
                raise base.Refused(
                    400, f'The value of the {what} {key} is not an IP '
                         f'address, or several with commas between them.'
                ) from exc
        if found and not self._may(policies.REQUEST_ADDRESS, request):
            raise base.Refused(403, 'You are not allowed to ask for an '
                                    'address.')
        return tuple(found)

    def _may(self, rule: str, request: base.Request) -> bool:
        return bool(self._enforcer.authorize(
            rule, {key: request.credentials.get(key)
                   for key in ('project_id', 'user_id')},
            dict(request.credentials)))

    def _interfaces(self, request: base.Request, must: bool,
                    ) -> Sequence[base.RequestedNetwork]:
        """Return the interfaces, also where Nova chooses their network.

        :param must: an address is asked for, so there is no going on without
            knowing.
        """
        if request.choice not in (base.Choice.ABSENT, base.Choice.AUTO):
            return request.networks
        try:
            network = self._networks.only(
                request.requester.project_id,
                request.choice is base.Choice.AUTO)
        except exceptions.CloudUnavailable as exc:
            if not must:
                return ()
            raise base.Unable(
                503, 'The address cannot be reserved at the moment: name the '
                     'network, or try again later.') from exc
        return () if network is None else (base.RequestedNetwork(network),)

    def _is_usable(self, request: base.Request, network_id: str,
                   must: bool) -> bool:
        """Tell whether the project may use a network that it names.

        Nova finds that out only later, and holds what is reserved till then.

        :param must: an address is asked for, so there is no going on without
            knowing.
        """
        if not (self._networks.asks
                and self._inventory.may_have_pool(network_id=network_id)
                # of an admin Nova takes any network
                and not self._may(policies.USE_ANY_NETWORK, request)):
            return True
        try:
            return self._networks.has(request.requester.project_id,
                                      network_id)
        except exceptions.CloudUnavailable as exc:
            if not must:
                return False
            raise base.Unable(
                503, 'The address cannot be reserved at the moment, try '
                     'again later.') from exc

    def _wanted(self, request: base.Request,
                interfaces: Sequence[base.RequestedNetwork],
                asked: tuple[types.Address, ...]) -> list[records.Wanted]:
        """Return what to reserve.

        :raises Refused: an address that was asked for is for no interface.
        """
        # Nova refuses an address for several servers
        fixed = {i.fixed_ip for i in interfaces
                 if i.fixed_ip and len(request.server_names) <= 1}
        where = self._inventory.networks_of([*asked, *fixed]) if (
            asked or fixed) else {}
        names = request.server_names or (self._server_name(request),)
        left = list(asked)
        wanted = []
        for interface in interfaces:
            network, address = interface.network_id, interface.fixed_ip
            if network is None or interface.port_id is not None:
                continue
            usable = (not request.networks
                      or self._is_usable(request, network, bool(asked)))
            certain = request.min_count if usable else 0
            if address is None:
                taken = _take(left, network, where) if usable else ()
                wanted.append(records.Wanted(network, names, taken,
                                             certain=certain))
            elif network in where.get(address, ()):
                wanted.append(records.Wanted(network, names, (address,),
                                             only=True, certain=certain))
        if left:
            raise _nowhere()
        return wanted

    def _server_name(self, request: base.Request) -> str:
        """Return what the list calls the server of an attachment."""
        return next((held.server_name for held in self._inventory.of_server(
            request.server_id or '') if held.server_name), '')


def _addresses(value: Any) -> list[types.Address]:
    """Return the addresses in a metadata value or in a scheduler hint.

    :raises ValueError: it is neither text nor a list of texts, or a part of
        it is not an address.
    """
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError('neither text nor a list of texts')
    return [types.parse_address(part.strip())
            for text in texts for part in text.split(',') if part.strip()]


def _take(left: list[types.Address], network_id: str,
          where: dict[types.Address, frozenset[str]],
          ) -> tuple[types.Address, ...]:
    """Take the first address of each IP version that is for a network."""
    taken: dict[int, types.Address] = {}
    for address in left:
        if network_id in where[address]:
            taken.setdefault(address.version, address)
    for address in taken.values():
        left.remove(address)
    return tuple(taken.values())


def _nowhere() -> base.Refused:
    return base.Refused(
        400, 'A requested address is in no pool of the requested networks, '
             'or there are more addresses than network interfaces.')
