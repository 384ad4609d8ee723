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
from vmip_plugin.inventory import states
from vmip_plugin import types


@dataclasses.dataclass(frozen=True)
class Pool:
    """The addresses of one Neutron subnet that vmip hands out.

    :param reuse_delay: seconds that an address rests before it is given away
        again.
    """

    id: str
    name: str
    network_id: str
    subnet_id: str
    cidr: str
    allocator: str
    reuse_delay: int
    dhcp_servers: tuple[str, ...]

    @classmethod
    def of(cls, row: models.Pool) -> Self:
        return cls(row.id, row.name, row.network_id, row.subnet_id, row.cidr,
                   row.allocator, row.reuse_delay,
                   tuple(json.loads(row.dhcp_servers)))


@dataclasses.dataclass(frozen=True)
class Address:
    """One address and its holder.

    :param generation: grows with every change of the address.
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
    hold_name: str | None
    hold_project: str | None
    hold_until: datetime.datetime | None

    @classmethod
    def of(cls, row: models.AddressRow) -> Self:
        values = {field.name: getattr(row, field.name)
                  for field in dataclasses.fields(cls)}
        values['state'] = states.State(row.state)
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class InUse:
    """An address that somebody had before the pool was made."""

    address: types.Address
    project_id: str | None
    server_id: str | None
    port_id: str | None
    mac: str | None


@dataclasses.dataclass(frozen=True)
class Claim:
    """An address that a port has.

    :param repeated: an earlier try of the same port's create had claimed it.
    """

    address: types.Address
    repeated: bool


@dataclasses.dataclass(frozen=True)
class Work:
    """One host entry that a DHCP server does not have as it should.

    :param present: it has to be there; otherwise entry and lease must go.
    """

    id: int
    generation: int
    server: str
    address: types.Address
    mac: str
    hostname: str | None
    present: bool
    attempts: int
    server_id: str | None
    port_id: str | None


@dataclasses.dataclass(frozen=True)
class EntryStatus:
    """How far a DHCP server is with an address.

    :param done_at: since when it has the entry.
    :param error: why the last try failed.
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


@dataclasses.dataclass(frozen=True)
class Change:
    """A line of an address's history."""

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

    @classmethod
    def of(cls, row: models.HistoryRow) -> Self:
        return cls(**{field.name: getattr(row, field.name)
                      for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A create request's need of addresses on one network.

    :param server_names: the name of each server: one address each.
    """

    network_id: str
    server_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Requester:
    """Who asks.

    :param request_id: Nova's global request id. Not unique and not secret:
        always matched together with the project.
    """

    request_id: str
    project_id: str
