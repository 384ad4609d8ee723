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

"""The one place that decides that the holder of an address is gone.

Whoever frees an address or ends a lease asks here: vmip-listener, the worker
of the DHCP servers, vmip-reclaimer, ``vmip-manage lease`` and vmip-agent.
What shows that a holder is gone has ranks
(:class:`vmip_plugin.inventory.states.Evidence`), and an API's "there is no
such thing" is believed only of one that shows what has to be there:

* Both APIs show everything to these credentials
  (:meth:`vmip_plugin.cloud.Cloud.sees_all_projects`).
* Neutron has the network, and some of the ports that must be there.
* Nova lists the server among those that it has deleted; or it does not know
  it, and knows one that must be there.
* That Neutron has no port (404) frees nothing while Nova has the server in
  any state but deleted.

What cannot be asked frees nothing.
"""

from collections.abc import Collection, Mapping, Sequence
import dataclasses
from typing import Protocol
from typing import TYPE_CHECKING

from oslo_config import cfg

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import states
from vmip_plugin import types

if TYPE_CHECKING:
    # the agents have no inventory, and need not load its database for this
    from vmip_plugin.inventory import records

Evidence = states.Evidence

#: What :meth:`Look.server` returns of a server that is gone.
DELETED = 'DELETED'
#: Witnesses that are asked for in one look at a network.
_WITNESSES = 20
#: Servers of these that Nova is asked about.
_SERVERS = 5
#: Answers 500 after which Nova is asked nothing more in a look.
_MOST_FAILED = 200


class Unwitnessed(exceptions.QuestionFailed):
    """Nova does not know a server, and nothing shows that it should."""


class Witnesses(Protocol):
    """Whoever knows holders that must be there (the inventory)."""

    def witnesses(self, network_id: str | None, limit: int,
                  without: Collection[str] = (),
                  not_of: str | None = None) -> list[types.Witness]:
        """Return holders of addresses that nobody has missed so far.

        :param network_id: on this network; None: on any.
        :param without: port ids that are none.
        :param not_of: a project whose holders come last.
        """


class Known:
    """Witnesses that somebody knows without an inventory."""

    def __init__(self, found: Sequence[types.Witness] = ()) -> None:
        self._found = found

    def witnesses(self, network_id: str | None, limit: int,
                  without: Collection[str] = (),
                  not_of: str | None = None) -> list[types.Witness]:
        """Return those of any network, as :class:`Witnesses` says."""
        return [one for one in self._found
                if one.port_id not in without][:limit]


@dataclasses.dataclass(frozen=True)
class Holder:
    """Whoever was given an address.

    :param network_id: of the pool.
    :param port_id: None where no port is known.
    :param server_id: None where it is no server's.
    :param confirmed: an operator says that the port is really gone.
    :param reported: Neutron's IPAM driver gave the address back, in a
        transaction of which it is not known that it was committed. If the
        port is gone, it was.
    """

    address: types.Address
    network_id: str
    port_id: str | None
    server_id: str | None
    confirmed: bool = False
    reported: bool = False

    @classmethod
    def of(cls, held: 'records.Held') -> 'Holder':
        """Return the holder of an address of the inventory."""
        until = held.confirmed_until
        return cls(held.address, held.network_id, held.port_id,
                   held.server_id, until is not None and until > clock.now())


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the cloud shows of a holder.

    :param here: Neutron has its port with the address.
    :param evidence: what shows that it is gone; None: it may be there.
    :param reason: why, for people.
    """

    here: bool
    evidence: Evidence | None
    reason: str

    @property
    def gone(self) -> bool:
        """The holder is gone, as far as one look can show."""
        return self.evidence is not None

    @property
    def certain(self) -> bool:
        """One look is enough: Nova itself says that the server is gone."""
        return self.evidence is Evidence.SERVER_DELETED


class Look:
    """One look at the cloud: what is found out is not asked again.

    Make a new one for each pass. After the first question to Nova that it
    leaves without an answer, this look asks Nova nothing more.
    """

    def __init__(self, cloud: vmip_cloud.Cloud, witnesses: Witnesses) -> None:
        self._cloud = cloud
        self._source = witnesses
        self._sees_all = False
        self._project: str | None = None
        self._networks: dict[str, bool] = {}
        self._sound: set[str] = set()
        self._servers: dict[str, str | exceptions.CloudUnavailable] = {}
        self._nova_away: exceptions.CloudUnavailable | None = None
        self._nova_sound = False
        self._failed = 0

    def see_all(self) -> None:
        """See that what the APIs do not show is not there.

        With a new token, as one at hand tells of roles of before.

        :raises CloudUnavailable: they may hide something.
        """
        if self._sees_all:
            return
        self._cloud.renew()
        try:
            self._cloud.check_region()
        except exceptions.ConfigError as exc:
            raise exceptions.CloudUnavailable(str(exc)) from exc
        if not self._cloud.sees_all_projects():
            raise exceptions.CloudUnavailable(
                'Nova and Neutron do not show everything to the [cloud] user: '
                'by their policies it is no admin, and what others own would '
                'look deleted; nothing is released')
        self._sees_all = True

    @property
    def asked(self) -> int:
        """Of how many servers Nova has been asked."""
        return len(self._servers)

    def judge(self, holders: Sequence[Holder]) -> list[Verdict]:
        """Tell of each holder whether it is gone.

        :raises CloudUnavailable: Neutron gave no usable answer, or the APIs
            do not show everything.
        """
        ports = {port.id: port for port in self._cloud.these_ports(
            sorted({one.port_id for one in holders if one.port_id}))}
        listed = [has(ports.get(one.port_id or ''), one.address)
                  for one in holders]
        missing = {one.port_id for one, here in zip(
            holders, listed, strict=True) if one.port_id and not here}
        return [Verdict(True, None, f'Neutron has port {one.port_id}')
                if here else self._missing(one, missing)
                for one, here in zip(holders, listed, strict=True)]

    def server(self, server_id: str) -> str:
        """Return a server's status, :data:`DELETED` where it is gone.

        :raises CloudUnavailable: that cannot be told; of other servers it may
            be.
        """
        if server_id not in self._servers:
            try:
                self._servers[server_id] = self._ask_server(server_id)
            except exceptions.CloudUnavailable as exc:
                self._servers[server_id] = exc
        found = self._servers[server_id]
        if isinstance(found, exceptions.CloudUnavailable):
            raise found
        return found

    def server_without_port(self, server_id: str) -> str:
        """Do the same for a server that has claimed nothing.

        No guest has its address. So Nova's 404 is enough here where no other
        server is in use that could show that this is the right Nova.

        :raises CloudUnavailable: as :meth:`server` does.
        """
        try:
            return self.server(server_id)
        except Unwitnessed:
            return DELETED

    def _missing(self, one: Holder, candidates: Collection[str]) -> Verdict:
        """Judge a holder whose port Neutron does not list."""
        self.see_all()
        if not self._has_network(one.network_id):
            return _unknown(_no_network(one.network_id))
        port = self._cloud.port(one.port_id) if one.port_id else next(
            self._cloud.ports_with(one.network_id, [one.address]), None)
        if has(port, one.address):
            return Verdict(True, None,
                           'Neutron lists its port no more, but has it')
        if port is not None:
            # Neutron itself shows what its port has instead
            return Verdict(False, Evidence.PORT_MISSING,
                           f'port {port.id} does not have the address')
        evidence = Evidence.PORT_MISSING
        what = f'port {one.port_id or "unknown"}'
        if one.reported:
            evidence = Evidence.COMMITTED
        elif one.server_id is not None:
            try:
                status = self.server(one.server_id)
            except exceptions.CloudUnavailable as exc:
                return _unknown(f'{what} is missing, but whether server '
                                f'{one.server_id} is there is not known: '
                                f'{exc}')
            if status != DELETED:
                return _unknown(f'Neutron does not have {what}, but server '
                                f'{one.server_id} is {status}')
            evidence = Evidence.SERVER_DELETED
            what = f'server {one.server_id} is deleted, and {what}'
        doubt = self.doubt(one.network_id, evidence, candidates,
                           one.confirmed)
        return _unknown(doubt) if doubt else Verdict(
            False, evidence, f'{what} is gone')

    def _has_network(self, network_id: str) -> bool:
        if network_id not in self._networks:
            self._networks[network_id] = self._cloud.has_network(network_id)
        return self._networks[network_id]

    def doubt(self, network_id: str, evidence: Evidence,
              candidates: Collection[str] = (),
              confirmed: bool = False) -> str | None:
        """Return why Neutron's 404 of a port is not believed; None: it is.

        :param candidates: ids of ports that are no witnesses.
        :param confirmed: an operator says that the port is really gone.
        :raises CloudUnavailable: Neutron gave no usable answer, or the APIs
            do not show everything.
        """
        self.see_all()
        if network_id in self._sound:
            return None
        if not self._has_network(network_id):
            return _no_network(network_id)
        if self._project is None:
            self._project = self._cloud.project_id()
        found = (self._source.witnesses(network_id, _WITNESSES, candidates,
                                        self._project)
                 or self._source.witnesses(None, _WITNESSES, candidates,
                                           self._project))
        others = [w for w in found if w.project_id != self._project] or found
        if any(self._cloud.these_ports([w.port_id for w in others])):
            self._sound.add(network_id)
            return None
        others = [w for w in others[:_SERVERS] if not self._is_deleted(w)]
        if others:
            return (f'Neutron shows none of {len(others)} other ports that '
                    'must be there: does [cloud] name the right cloud and '
                    'region, and has this Neutron its data?')
        if evidence is not Evidence.PORT_MISSING or confirmed:
            return None
        return ('no other port is left in use that would show that this '
                'Neutron has its data: see "vmip-manage reclaim confirm"')

    def _is_deleted(self, witness: types.Witness) -> bool:
        """Tell whether Nova has deleted a witness's server meanwhile.

        Of servers that are deleted together each would else be a witness
        against the release of the others.
        """
        try:
            return (witness.server_id is not None
                    and self.server(witness.server_id) == DELETED)
        except exceptions.CloudUnavailable:
            return False

    def _ask_server(self, server_id: str) -> str:
        if self._nova_away is not None:
            raise self._nova_away
        try:
            self.see_all()
            status = self._cloud.server_status(server_id)
            if status is not None:
                self._nova_sound = True
                return DELETED if status in vmip_cloud.GONE else status
            if self._cloud.has_deleted(server_id):
                self._nova_sound = True
                return DELETED
            if self._is_nova_sound(server_id):
                return DELETED
        except exceptions.QuestionFailed as exc:
            self._failed += 1
            if self._failed >= _MOST_FAILED:
                self._nova_away = exc
            raise
        except exceptions.CloudUnavailable as exc:
            self._nova_away = exc
            raise
        raise exceptions.QuestionFailed(
            f'Nova knows neither server {server_id} nor one that must be '
            'there: does [cloud] name the right cloud and region?')

    def _is_nova_sound(self, server_id: str) -> bool:
        """Ask for servers that must be there, until Nova knows one.

        :raises Unwitnessed: none must be there.
        """
        if not self._nova_sound:
            servers = {w.server_id for w in self._source.witnesses(
                None, _WITNESSES) if w.server_id} - {server_id}
            if not servers:
                raise Unwitnessed(
                    f'Nova does not know server {server_id}, and no other '
                    'is in use that would show that it is the right Nova')
            for witness in sorted(servers)[:_SERVERS]:
                try:
                    if self._cloud.server_status(witness) is not None:
                        self._nova_sound = True
                        break
                except exceptions.QuestionFailed:
                    continue        # its cell may be down
        return self._nova_sound


def has(port: vmip_cloud.Port | None, address: types.Address) -> bool:
    """Tell whether a port is there and has an address."""
    return port is not None and any(address == a for _, a in port.addresses)


def blown(conf: cfg.ConfigOpts, losses: Sequence['records.Loss'],
          more: Mapping[str, int] | None = None) -> dict[str, 'records.Loss']:
    """Return the pools whose fuse is blown, by id.

    Of these nothing is released without Neutron's own word
    (:attr:`Evidence.COMMITTED`), but what an operator has confirmed. What was
    released lately counts with what is missing now, so that neither a cap on
    each pass nor a loss that comes by and by gets below it.

    :param more: addresses of each pool that are missing, and not noted yet.
    """
    options = conf.reclaimer
    found = {}
    for loss in losses:
        lost = loss.missing - loss.confirmed + loss.released + (
            more or {}).get(loss.pool_id, 0)
        if (lost > options.fuse_addresses and 100 * lost
                > options.fuse_percent * (loss.used + loss.released)):
            found[loss.pool_id] = loss
    return found


def why_blown(loss: 'records.Loss') -> str:
    """Tell people of a blown fuse."""
    return (f'{loss.missing} of {loss.used} addresses in use of pool '
            f'{loss.pool} have lost their ports and {loss.released} more were '
            'released lately, and Neutron reported none of that: nothing of '
            'it is released until "vmip-manage reclaim confirm '
            f'{loss.pool}" says that it is right')


def _no_network(network_id: str) -> str:
    return (f'Neutron does not have network {network_id}: does [cloud] name '
            'the right cloud and region?')


def _unknown(reason: str) -> Verdict:
    return Verdict(False, None, reason)
