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

"""What the list tells: plain values, valid after the session is closed."""

import dataclasses
import datetime
import json
from typing import Self

from vmip_plugin.inventory import models
from vmip_plugin.inventory import ranges as vmip_ranges
from vmip_plugin.inventory import states
from vmip_plugin import types


@dataclasses.dataclass(frozen=True)
class Pool:
    """The addresses of one Neutron subnet that vmip hands out.

    :param reuse_delay: seconds that an address rests before it is given away
        again.
    :param dhcp_servers: as :mod:`vmip_plugin.inventory.serving` reads them.
    :param ranges: (first, last) of each run of addresses.
    """

    id: str
    name: str
    network_id: str
    subnet_id: str
    cidr: str
    allocator: str
    reuse_delay: int
    dhcp_servers: tuple[str, ...]
    ranges: tuple[vmip_ranges.Run, ...]

    @classmethod
    def of(cls, row: models.Pool, runs: tuple[vmip_ranges.Run, ...]) -> Self:
        return cls(row.id, row.name, row.network_id, row.subnet_id, row.cidr,
                   row.allocator, row.reuse_delay,
                   tuple(json.loads(row.dhcp_servers)), runs)


@dataclasses.dataclass(frozen=True)
class Address:
    """One address and its holder.

    :param generation: grows with every change of the address.
    :param evidence: while it is ``releasing``, what shows that its holder is
        gone (:class:`vmip_plugin.inventory.states.Evidence`). The next holder,
        if it did not wait for the release, keeps that until it runs.
    :param answered_at: when it last answered on the wire although its holder
        is gone.
    :param hold_name: the server for which it is reserved by hand; '': any
        of the project; None: it is not.
    :param former_name: the server that had it last.
    """

    id: int
    pool_id: str
    address: types.Address
    state: states.State
    generation: int
    changed_at: datetime.datetime
    expires_at: datetime.datetime | None
    request_id: str | None
    project_id: str | None
    server_id: str | None
    server_name: str | None
    port_id: str | None
    mac: str | None
    gone_since: datetime.datetime | None
    evidence: str | None
    answered_at: datetime.datetime | None
    hold_name: str | None
    hold_project: str | None
    hold_until: datetime.datetime | None
    former_name: str | None
    former_project: str | None

    @classmethod
    def of(cls, row: models.AddressRow) -> Self:
        values = {field.name: getattr(row, field.name)
                  for field in dataclasses.fields(cls)}
        values['state'] = states.State(row.state)
        return cls(**values)

    def row(self) -> models.AddressRow:
        """Return the row as it was read, in no session."""
        return models.AddressRow(**{
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)})


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """As much of an address as is compared with Neutron's ports."""

    id: int
    generation: int
    address: types.Address
    port_id: str | None
    gone_since: datetime.datetime | None
    state: str
    mac: str | None
    server_id: str | None
    network_id: str


@dataclasses.dataclass(frozen=True)
class InUse:
    """An address that somebody had before the list knew of it.

    :param serve: the DHCP servers are to have its host entry.
    :param generation: of what the list says of it, None where it says
        nothing.
    """

    address: types.Address
    project_id: str | None
    server_id: str | None
    port_id: str | None
    mac: str | None
    serve: bool = False
    generation: int | None = None


@dataclasses.dataclass(frozen=True)
class Claim:
    """An address that a port has.

    :param repeated: it was claimed already, by an earlier try of the port's
        create, or by the create of another of the server's ports.
    :param port_id: the port that has it: of a repeated one, the earlier.
    """

    address: types.Address
    repeated: bool
    port_id: str


@dataclasses.dataclass(frozen=True)
class Work:
    """One host entry that a DHCP server does not have as it should.

    :param present: it has to be there; otherwise entry and lease must go.
    :param withdrawn: the holder keeps the address and its lease; only this
        server is not to serve it any more.
    :param server_id: the server whose entry it is, as far as is known.
    :param port_id: the same of the port.
    :param error: why the last try failed.
    :param wanted_at: since when that is wanted; None: not known.
    :param releasing: its removal is part of the address's release.
    :param evidence: of a release, what shows that the holder is gone.
    :param waiting_for: what it waited for at the last look; None: it has not
        been looked at yet, or failed.
    :param waiting_since: since when.
    """

    id: int
    address_id: int
    generation: int
    server: str
    pool_id: str
    address: types.Address
    mac: str
    hostname: str | None
    present: bool
    withdrawn: bool
    attempts: int
    server_id: str | None
    port_id: str | None
    error: str | None
    wanted_at: datetime.datetime | None = None
    releasing: bool = False
    evidence: states.Evidence | None = None
    waiting_for: states.WaitingFor | None = None
    waiting_since: datetime.datetime | None = None


@dataclasses.dataclass(frozen=True)
class Undone:
    """Host entries that a DHCP server does not have as it should.

    :param present: they have to be there; otherwise they must go.
    :param since: when the oldest of them was wanted; None: not known.
    """

    server: str
    present: bool
    count: int
    since: datetime.datetime | None


@dataclasses.dataclass(frozen=True)
class Waiting:
    """Pending host entries of one DHCP server that wait for the same."""

    server: str
    waiting_for: states.WaitingFor
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class Intent:
    """What a DHCP server has to have for an address.

    :param present: False: nothing; this MAC's entry has to go.
    :param done: it is known to be so.
    """

    mac: str
    present: bool
    done: bool


@dataclasses.dataclass(frozen=True)
class EntryStatus:
    """How far a DHCP server is with an address.

    :param done_at: since when it has the entry.
    :param attempts: how many tries failed; waiting is not failing.
    :param error: why the last try failed, or what it waits for.
    :param waiting_for: what it waits for; None: for nothing.
    :param waiting_since: since when.
    """

    server: str
    address: types.Address
    mac: str
    hostname: str | None
    present: bool
    done: bool
    done_at: datetime.datetime | None
    attempts: int
    next_try_at: datetime.datetime
    error: str | None
    waiting_for: states.WaitingFor | None = None
    waiting_since: datetime.datetime | None = None


@dataclasses.dataclass(frozen=True)
class Standing:
    """How an address stood at some moment.

    :param since: when it came to stand so; None: it was never used till then.
    """

    pool_id: str
    address: types.Address
    state: states.State
    since: datetime.datetime | None = None
    expires_at: datetime.datetime | None = None
    request_id: str | None = None
    project_id: str | None = None
    server_id: str | None = None
    server_name: str | None = None
    port_id: str | None = None
    mac: str | None = None
    hold_name: str | None = None
    hold_project: str | None = None
    hold_until: datetime.datetime | None = None

    @classmethod
    def of(cls, held: Address) -> Self:
        """Return how an address of the list stands now."""
        return cls(since=held.changed_at, **{
            field.name: getattr(held, field.name)
            for field in dataclasses.fields(cls) if field.name != 'since'})


@dataclasses.dataclass(frozen=True)
class Change:
    """A line of an address's history.

    The change that ends a holder names that holder.

    :param hold_name: with the two after it, the reservation by hand after
        the change.
    """

    pool_id: str
    at: datetime.datetime
    address: types.Address
    event: str
    old_state: str
    new_state: str
    actor: str
    reason: str
    project_id: str | None
    server_id: str | None
    server_name: str | None
    port_id: str | None
    mac: str | None
    request_id: str | None
    expires_at: datetime.datetime | None
    hold_name: str | None
    hold_project: str | None
    hold_until: datetime.datetime | None

    @classmethod
    def of(cls, row: models.HistoryRow) -> Self:
        return cls(**{field.name: getattr(row, field.name)
                      for field in dataclasses.fields(cls)})

    def standing(self) -> Standing:
        """Return how the address stood after this change."""
        state = states.State(self.new_state)
        kept = {field.name: getattr(self, field.name)
                for field in dataclasses.fields(Standing)
                if field.name not in ('state', 'since')}
        if (state in states.VACANT or self.event in states.ENDING
                # only by hand: the line names whom it is kept for
                or state is states.State.RESERVED and self.request_id is None):
            kept.update(dict.fromkeys(states.HOLDER))
        return Standing(state=state, since=self.at, **kept)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A create request's need of addresses on one network.

    :param server_names: the name of each server: one address each; '' where
        the name is not known.
    :param addresses: these very ones, at most one of each IP version, for
        the one server of the request.
    :param only: nothing of the IP versions that ``addresses`` leave out.
    :param certain: how many of the servers, from the first name on, get
        theirs in advance; None: all. The others get in advance only what is
        reserved by hand for their name, which nobody else can have.
    """

    network_id: str
    server_names: tuple[str, ...]
    addresses: tuple[types.Address, ...] = ()
    only: bool = False
    certain: int | None = None


@dataclasses.dataclass(frozen=True)
class Allowance:
    """What a project may hold of a pool in advance, unclaimed.

    What is reserved by hand does not count: it is nobody else's anyway.

    :param most: addresses.
    :param share: percent of the addresses that it finds free; the smaller of
        both counts.
    """

    most: int
    share: int


@dataclasses.dataclass(frozen=True)
class Hold:
    """A reservation by hand.

    :param pool: name of the pool.
    :param address: None: whatever the allocator picks.
    :param server_name: for the server of this name; None: for any server of
        the project or, without one, for whoever asks for the very address.
    :param project_id: only for this project.
    :param until: its end; None: until it is given up.
    :param any_project: for the server of this name in whatever project. Names
        are the projects' own to choose: a name needs a project, or this.
    """

    pool: str
    address: types.Address | None = None
    server_name: str | None = None
    project_id: str | None = None
    until: datetime.datetime | None = None
    any_project: bool = False


@dataclasses.dataclass(frozen=True)
class Requester:
    """Who asks.

    :param request_id: Nova's global request id. Not unique and not secret:
        always matched together with the project.
    """

    request_id: str
    project_id: str


@dataclasses.dataclass(frozen=True)
class Running:
    """A server that runs.

    :param macs: of the interfaces that run with it.
    """

    server_id: str
    name: str | None
    macs: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of a task of vmip-reclaimer.

    :param host: host and process that ran it.
    :param checked: how many things were looked at.
    :param found: how many of them were not as they should be.
    :param done: how many were freed, ended, mended or forgotten.
    :param spared: how many were left alone for now.
    :param error: why it failed; what it did till then is done.
    """

    name: str
    host: str
    started_at: datetime.datetime
    ended_at: datetime.datetime
    checked: int = 0
    found: int = 0
    done: int = 0
    spared: int = 0
    error: str | None = None
