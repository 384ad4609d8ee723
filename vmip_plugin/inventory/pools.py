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

"""Pools: made, found and emptied; addresses get their rows here."""

from collections.abc import Iterable, Sequence
import ipaddress
import json
import uuid

from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm
from stevedore import driver

from vmip_plugin.allocation import base as allocation
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import models
from vmip_plugin.inventory import states
from vmip_plugin import types

#: Addresses that get a row at once when a pool needs fresh ones.
CHUNK = 256

RangeSpec = tuple[types.Address, types.Address]

_allocators: dict[str, allocation.Allocator] = {}


def allocator(name: str) -> allocation.Allocator:
    """Return the allocator of that name.

    :raises ConfigError: there is none.
    """
    if name not in _allocators:
        try:
            _allocators[name] = driver.DriverManager(
                'vmip_plugin.allocators', name, invoke_on_load=True).driver
        except RuntimeError as exc:
            raise exceptions.ConfigError(
                f'There is no allocator {name!r}') from exc
    return _allocators[name]


def create(session: orm.Session, *, name: str, network_id: str,
           subnet_id: str, cidr: str, ranges: Sequence[RangeSpec],
           allocator_name: str, reuse_delay: int,
           dhcp_servers: Sequence[str]) -> models.Pool:
    """Make a pool.

    :param ranges: (first, last) of each run of addresses.
    :raises PoolExists: the subnet or the name has one already.
    :raises VmipError: a range is outside the subnet or meets another.
    """
    allocator(allocator_name)
    network = ipaddress.ip_network(cidr)
    checked = _check_ranges(network, ranges)
    taken = session.scalars(sa.select(models.Pool).where(sa.or_(
        models.Pool.name == name,
        models.Pool.subnet_id == subnet_id))).first()
    if taken is not None:
        raise exceptions.PoolExists(
            f'Pool {taken.name} has that name or serves that subnet already')
    pool = models.Pool(
        id=str(uuid.uuid4()), name=name, network_id=network_id,
        subnet_id=subnet_id, cidr=str(network), allocator=allocator_name,
        reuse_delay=reuse_delay, dhcp_servers=json.dumps(list(dhcp_servers)),
        created_at=clock.now())
    session.add(pool)
    try:
        session.flush()
    except db_exc.DBDuplicateEntry as exc:
        raise exceptions.PoolExists(
            f'Another pool called {name} or for that subnet was made just '
            f'now') from exc
    for first, last in checked:
        session.add(models.Range(pool_id=pool.id, first=first, last=last,
                                 fresh=first))
        session.flush()
    return pool


def _check_ranges(network: ipaddress.IPv4Network | ipaddress.IPv6Network,
                  ranges: Sequence[RangeSpec]) -> list[RangeSpec]:
    if not ranges:
        raise exceptions.VmipError('A pool needs at least one range')
    found: list[RangeSpec] = []
    for first, last in sorted(ranges, key=lambda r: int(r[0])):
        if first not in network or last not in network:
            raise exceptions.VmipError(
                f'Range {first}-{last} is not within {network}')
        if network.num_addresses > 2 and (
                first == network.network_address or network.version == 4
                and last == network.broadcast_address):
            raise exceptions.VmipError(
                f'Range {first}-{last} has the network\'s own address or its '
                f'broadcast address, which Neutron gives to no port')
        if int(first) > int(last):
            raise exceptions.VmipError(
                f'Range {first}-{last} ends before it starts')
        if found and int(first) <= int(found[-1][1]):
            raise exceptions.VmipError(
                f'Ranges {found[-1][0]}-{found[-1][1]} and {first}-{last} '
                f'overlap')
        found.append((first, last))
    return found


def find(session: orm.Session, name_or_id: str) -> models.Pool:
    """Return the pool of that name, id or subnet.

    :raises PoolNotFound: there is none.
    """
    pool = session.scalars(sa.select(models.Pool).where(sa.or_(
        models.Pool.name == name_or_id, models.Pool.id == name_or_id,
        models.Pool.subnet_id == name_or_id))).first()
    if pool is None:
        raise exceptions.PoolNotFound(f'There is no pool {name_or_id}')
    return pool


def of_subnet(session: orm.Session, subnet_id: str) -> models.Pool | None:
    """Return the subnet's pool."""
    return session.scalars(sa.select(models.Pool).where(
        models.Pool.subnet_id == subnet_id)).one_or_none()


def of_network(session: orm.Session, network_id: str) -> list[models.Pool]:
    """Return the network's pools, oldest first."""
    return list(session.scalars(
        sa.select(models.Pool).where(models.Pool.network_id == network_id)
        .order_by(models.Pool.created_at, models.Pool.id)))


def ranges(session: orm.Session, pool_id: str) -> list[models.Range]:
    """Return a pool's ranges in their order."""
    return list(session.scalars(
        sa.select(models.Range).where(models.Range.pool_id == pool_id)
        .order_by(models.Range.first)))


def size(found: Iterable[models.Range]) -> int:
    """Return how many addresses ranges have."""
    return sum(int(r.last) - int(r.first) + 1 for r in found)


def delete(session: orm.Session, pool: models.Pool) -> None:
    """Delete a pool that nobody uses. Its history stays.

    :raises PoolInUse: an address of it is held.
    """
    held = session.scalar(
        sa.select(sa.func.count()).select_from(models.AddressRow).where(
            models.AddressRow.pool_id == pool.id,
            models.AddressRow.state.not_in(
                [states.State.FREE, states.State.QUARANTINED])))
    if held:
        raise exceptions.PoolInUse(
            f'{held} addresses of pool {pool.name} are held')
    # What was taken meanwhile stays, and keeps the pool.
    session.execute(sa.delete(models.AddressRow).where(
        models.AddressRow.pool_id == pool.id,
        models.AddressRow.state.in_(
            [states.State.FREE, states.State.QUARANTINED])))
    session.execute(sa.delete(models.Range).where(
        models.Range.pool_id == pool.id))
    session.delete(pool)


def row(session: orm.Session, pool: models.Pool,
        address: types.Address) -> models.AddressRow | None:
    """Return the row of an address, made if it has none yet.

    None where the address is in no range of the pool.
    """
    found = session.scalars(sa.select(models.AddressRow).where(
        models.AddressRow.pool_id == pool.id,
        models.AddressRow.address == address)).one_or_none()
    if found is not None:
        return found
    position = 0
    for run in ranges(session, pool.id):
        if (run.first.version == address.version
                and int(run.first) <= int(address) <= int(run.last)):
            position += int(address) - int(run.first)
            made = _new_row(pool, address, position)
            session.add(made)
            session.flush()
            return made
        position += int(run.last) - int(run.first) + 1
    return None


def freshen(session: orm.Session, pool: models.Pool) -> bool:
    """Give the next addresses that never had a row a row, in state free.

    :returns: False where every address of the pool has one.
    """
    position = 0
    for run in ranges(session, pool.id):
        if run.fresh is None:
            position += int(run.last) - int(run.first) + 1
            continue
        first = run.fresh
        end = min(int(first) + CHUNK - 1, int(run.last))
        moved = session.execute(
            sa.update(models.Range)
            .where(models.Range.id == run.id, models.Range.fresh == first)
            .values(fresh=(None if end == int(run.last)
                           else type(first)(end + 1))),
            execution_options={'synchronize_session': False})
        session.expire(run)
        if moved.rowcount != 1:  # type: ignore[attr-defined]
            # another worker did it; its rows are there when it commits
            raise db_exc.DBDeadlock('fresh addresses were taken meanwhile')
        # Some may have a row already: they were asked for by name.
        have = {int(a) for a in session.scalars(
            sa.select(models.AddressRow.address).where(
                models.AddressRow.pool_id == pool.id,
                models.AddressRow.address.between(first, type(first)(end))))}
        position += int(first) - int(run.first)
        session.add_all(
            _new_row(pool, type(first)(number),
                     position + number - int(first))
            for number in range(int(first), end + 1) if number not in have)
        session.flush()
        return True
    return False


def _new_row(pool: models.Pool, address: types.Address,
             position: int) -> models.AddressRow:
    return models.AddressRow(
        pool_id=pool.id, address=address, state=states.State.FREE.value,
        pick_key=allocator(pool.allocator).key(position), generation=0,
        changed_at=clock.now())


def usage(session: orm.Session, pool: models.Pool) -> dict[str, int]:
    """Return how many addresses are in each state; the sum is the size."""
    counts = {state.value: 0 for state in states.State}
    counts.update(session.execute(
        sa.select(models.AddressRow.state, sa.func.count())
        .where(models.AddressRow.pool_id == pool.id)
        .group_by(models.AddressRow.state)).tuples().all())
    total = size(ranges(session, pool.id))
    counts['free'] = total - sum(
        count for state, count in counts.items() if state != 'free')
    return counts


