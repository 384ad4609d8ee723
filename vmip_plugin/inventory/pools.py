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

"""Pools: made, found, changed and emptied; addresses get their rows here."""

from collections.abc import Iterator, Sequence
import ipaddress
import json
from typing import Any
import uuid

from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm

from vmip_plugin.allocation import base as allocation
from vmip_plugin.allocation import manager as allocators
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import entries
from vmip_plugin.inventory import models
from vmip_plugin.inventory import moves
from vmip_plugin.inventory import ranges as vmip_ranges
from vmip_plugin.inventory import records
from vmip_plugin.inventory import serving
from vmip_plugin.inventory import states
from vmip_plugin import types

#: Addresses that get a row at once when a pool needs fresh ones.
CHUNK = 256
#: Pick key of an address that is in no range (any more): it is not picked.
UNPICKED = -1
#: Fresh index of a pool all of whose addresses have a row.
_ALL = allocation.MAX_KEY
#: Size of a pool up to which its rows are counted for a request.
_COUNTED = 4096
#: Addresses that are looked up at a time.
_PAGE = 500

_OF_NETWORK = sa.select(models.Pool).where(
    models.Pool.network_id == sa.bindparam('network_id')
).order_by(models.Pool.created_at, models.Pool.id)
_OF_SUBNET = sa.select(models.Pool).where(
    models.Pool.subnet_id == sa.bindparam('subnet_id'))

Row = models.AddressRow
State = states.State


def create(session: orm.Session, *, name: str, network_id: str,
           subnet_id: str, cidr: str, ranges: Sequence[vmip_ranges.Run],
           allocator_name: str, reuse_delay: int,
           dhcp_servers: Sequence[str]) -> models.Pool:
    """Make a pool.

    :param ranges: (first, last) of each run of addresses.
    :param dhcp_servers: as :mod:`vmip_plugin.inventory.serving` reads them.
    :raises PoolExists: the subnet or the name has one already.
    :raises ConfigError: there is no such allocator.
    :raises VmipError: a range is outside the subnet or meets another, or no
        server serves a part of them.
    """
    allocators.load(allocator_name)
    network = ipaddress.ip_network(cidr)
    checked = vmip_ranges.check(network, ranges)
    serving.check(dhcp_servers, checked, cidr)
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
        created_at=clock.now(), fresh_index=0)
    session.add(pool)
    try:
        session.flush()
    except db_exc.DBDuplicateEntry as exc:
        raise exceptions.PoolExists(
            f'Another pool called {name} or for that subnet was made just '
            f'now') from exc
    _set_ranges(session, pool, checked)
    return pool


def change(session: orm.Session, pool: models.Pool, *,
           ranges: Sequence[vmip_ranges.Run] | None,
           allocator_name: str | None, reuse_delay: int | None,
           dhcp_servers: Sequence[str] | None) -> None:
    """Change what is not None.

    Who has an address keeps it, also where it is in no range any more. Where
    the DHCP servers change, host entries become work to do.

    :raises ConfigError: there is no such allocator.
    :raises VmipError: a range is outside the subnet or meets another, or no
        server serves an address.
    """
    if reuse_delay is not None:
        pool.reuse_delay = reuse_delay
    if allocator_name is not None:
        allocators.load(allocator_name)
        pool.allocator = allocator_name
    if ranges is not None:
        checked = vmip_ranges.check(ipaddress.ip_network(pool.cidr), ranges)
        session.execute(sa.delete(models.Range).where(
            models.Range.pool_id == pool.id))
        _set_ranges(session, pool, checked)
    if ranges is not None or allocator_name is not None:
        _sort_anew(session, pool)
    if dhcp_servers is not None:
        pool.dhcp_servers = json.dumps(list(dhcp_servers))
    if ranges is not None or dhcp_servers is not None:
        now = record(session, pool)
        serving.check(now.dhcp_servers, vmip_ranges.Ranges(now.ranges),
                      now.cidr)
    if dhcp_servers is not None:
        _serve_anew(session, pool, dhcp_servers)


def _set_ranges(session: orm.Session, pool: models.Pool,
                found: vmip_ranges.Ranges) -> None:
    session.add_all(models.Range(pool_id=pool.id, first=first, last=last,
                                 fresh=first) for first, last in found.runs)
    session.flush()


def _sort_anew(session: orm.Session, pool: models.Pool) -> None:
    """Give every row of a pool its place in the allocator's order."""
    how = allocators.load(pool.allocator)
    within = ranges(session, pool.id)
    # begins anew: what has a row is passed over
    pool.fresh_index = 0
    keys = []
    for id, address in session.execute(sa.select(Row.id, Row.address).where(
            Row.pool_id == pool.id)):
        position = within.position(address)
        keys.append({'id': id, 'pick_key': UNPICKED if position is None
                     else how.key(pool.id, position)})
    if keys:
        session.execute(sa.update(Row), keys)


def _serve_anew(session: orm.Session, pool: models.Pool,
                servers: Sequence[str]) -> None:
    session.flush()
    for row in session.scalars(sa.select(Row).where(
            Row.pool_id == pool.id,
            Row.state.in_([State.CLAIMED, State.ACTIVE]),
            # others are for no DHCP server to know
            Row.id.in_(sa.select(models.HostEntryRow.address_id)))).all():
        # also where it has come out of the ranges
        its = serving.of_address(servers, row.address)
        if servers and not its:
            raise exceptions.VmipError(
                f'None of the DHCP servers serves {row.address}, which is '
                'in use')
        for entry in moves.entries(session, row.id):
            if entry.server not in its:
                entries.want(entry, present=False, at=clock.now())
        entries.want_all(session, pool, row, clock.now())


def adopt(session: orm.Session, pool: models.Pool,
          found: Sequence[records.InUse]) -> None:
    """Take addresses that Neutron says are in use into the list.

    Those in no range of the pool are left out. Neutron's word goes before the
    list's: one that it has as another's, because an older list was put back,
    is taken from that holder.

    :raises AddressInUse: the list has changed since it was compared.
    """
    how = allocators.load(pool.allocator)
    within = ranges(session, pool.id)
    made, served = [], []
    for one, row in _with_rows(session, pool, found):
        position = within.position(one.address)
        if position is None:
            continue
        state = State.CLAIMED if one.serve else State.ADOPTED
        values = {'project_id': one.project_id, 'mac': one.mac,
                  'server_id': one.server_id, 'port_id': one.port_id}
        if row is None:
            made.append({
                **moves.NOBODY, **moves.NO_HOLD, **values,
                'state': state.value, 'pool_id': pool.id,
                'address': one.address,
                'pick_key': how.key(pool.id, position)})
        else:
            _adopt_known(session, row, one, state, values)
        if one.serve:
            served.append(one)
    moves.adopt_all(session, made, 'in use when it came into the pool')
    for _, row in _with_rows(session, pool, served):
        assert row is not None
        entries.want_all(session, pool, row, clock.now())
    if 2 * len(made) >= within.size:
        # The few that are free would be found one by one among the others.
        while freshen(session, pool):
            pass


def _with_rows(session: orm.Session, pool: models.Pool,
               found: Sequence[records.InUse],
               ) -> Iterator[tuple[records.InUse, Row | None]]:
    """Yield each with its row, None where nobody wanted the address yet."""
    for start in range(0, len(found), _PAGE):
        page = found[start:start + _PAGE]
        rows = {row.address: row for row in session.scalars(
            sa.select(Row).where(
                Row.pool_id == pool.id,
                Row.address.in_([one.address for one in page])))}
        for one in page:
            yield one, rows.get(one.address)


def _adopt_known(session: orm.Session, row: Row, one: records.InUse,
                 state: State, values: dict[str, Any]) -> None:
    old = State(row.state)
    if row.port_id == one.port_id and old in states.IN_USE and not (
            one.serve and old is State.ADOPTED):
        return      # it has come into the list meanwhile
    if old not in states.VACANT and row.generation != one.generation:
        raise exceptions.AddressInUse(
            f'{row.address} is {old}, and has changed just now: try again')
    for entry in moves.entries(session, row.id):
        # of who had it before
        entries.want(entry, present=False, at=clock.now())
    moves.move(session, row, states.Event.ADOPT, state,
               'Neutron says whose it is', **{**moves.NOBODY, **values})


def find(session: orm.Session, name_or_id: str) -> models.Pool:
    """Return the pool of that name, id or subnet.

    :raises PoolNotFound: there is none.
    """
    pool = session.scalars(sa.select(models.Pool).where(sa.or_(
        models.Pool.name == name_or_id, models.Pool.id == name_or_id,
        models.Pool.subnet_id == name_or_id))).first()
    if pool is None:
        raise exceptions.PoolNotFound(
            f'There is no pool {name_or_id}: see "vmip-manage pool list"')
    return pool


def record(session: orm.Session, pool: models.Pool) -> records.Pool:
    """Return a pool as a plain value."""
    return records.Pool.of(pool, ranges(session, pool.id).runs)


def version(pool: models.Pool) -> int:
    """Return 4 or 6."""
    return 6 if ':' in pool.cidr else 4


def of_subnet(session: orm.Session, subnet_id: str) -> models.Pool | None:
    """Return the subnet's pool."""
    return session.scalars(
        _OF_SUBNET, {'subnet_id': subnet_id}).one_or_none()


def of_network(session: orm.Session, network_id: str) -> list[models.Pool]:
    """Return the network's pools, oldest first."""
    return list(session.scalars(_OF_NETWORK, {'network_id': network_id}))


def ranges(session: orm.Session, pool_id: str) -> vmip_ranges.Ranges:
    """Return a pool's ranges."""
    return vmip_ranges.Ranges(session.execute(
        sa.select(models.Range.first, models.Range.last).where(
            models.Range.pool_id == pool_id)).tuples())


def delete(session: orm.Session, pool: models.Pool) -> None:
    """Delete a pool that nobody uses. Its history stays.

    :raises PoolInUse: an address of it is held.
    """
    held = session.scalar(
        sa.select(sa.func.count()).select_from(Row).where(
            Row.pool_id == pool.id, Row.state.not_in(states.VACANT)))
    if held:
        raise exceptions.PoolInUse(
            f'{held} addresses of pool {pool.name} are held')
    # What was taken meanwhile stays, and keeps the pool.
    session.execute(sa.delete(Row).where(
        Row.pool_id == pool.id, Row.state.in_(states.VACANT)))
    session.execute(sa.delete(models.Range).where(
        models.Range.pool_id == pool.id))
    session.delete(pool)


def existing(session: orm.Session, pool: models.Pool,
             address: types.Address) -> Row | None:
    """Return the row of an address, None where nobody wanted it yet."""
    return session.scalars(sa.select(Row).where(
        Row.pool_id == pool.id, Row.address == address)).one_or_none()


def row(session: orm.Session, pool: models.Pool,
        address: types.Address) -> Row | None:
    """Return the row of an address, made if it has none yet.

    None where the address is in no range of the pool.
    """
    found = existing(session, pool, address)
    if found is not None:
        return found if found.pick_key != UNPICKED else None
    position = ranges(session, pool.id).position(address)
    if position is None:
        return None
    made = Row(**_new(pool, address, position))
    session.add(made)
    session.flush()
    return made


def freshen(session: orm.Session, pool: models.Pool) -> bool:
    """Give the next addresses that never had a row a row, in state free.

    :returns: False where every address of the pool has one.
    :raises Overtaken: another worker did it just now.
    """
    if pool.fresh_index == _ALL:
        return False
    how = allocators.load(pool.allocator)
    within = ranges(session, pool.id)
    since = pool.fresh_index
    while since < within.size:
        until = min(since + CHUNK, within.size)
        positions = [how.order(pool.id, index, within.size)
                     for index in range(since, until)]
        wanted = {within.at(position): position for position in positions}
        # Some may have a row already: they were asked for by name.
        for have in session.scalars(sa.select(Row.address).where(
                Row.pool_id == pool.id, Row.address.in_(wanted))):
            del wanted[have]
        since = until
        if wanted:
            _set_fresh(session, pool, _ALL if until == within.size else until)
            session.execute(sa.insert(Row), [
                _new(pool, address, position)
                for address, position in wanted.items()])
            return True
    _set_fresh(session, pool, _ALL)
    return False


def fresh(session: orm.Session, pool: models.Pool) -> int:
    """Return how many addresses nobody wanted yet.

    Of a large pool those that were asked for by name are counted too, until
    their turn comes: it would take too long to count them.
    """
    if pool.fresh_index == _ALL:
        return 0
    size = ranges(session, pool.id).size
    if size > _COUNTED:
        return size - pool.fresh_index
    return size - (session.scalar(
        sa.select(sa.func.count()).select_from(Row).where(
            Row.pool_id == pool.id, Row.pick_key >= 0)) or 0)


def _set_fresh(session: orm.Session, pool: models.Pool, index: int) -> None:
    changed = session.execute(
        sa.update(models.Pool).where(
            models.Pool.id == pool.id,
            models.Pool.fresh_index == pool.fresh_index)
        .values(fresh_index=index),
        execution_options={'synchronize_session': False})
    if changed.rowcount != 1:  # type: ignore[attr-defined]
        raise moves.Overtaken('fresh addresses were taken meanwhile')
    orm.attributes.set_committed_value(pool, 'fresh_index', index)


def _new(pool: models.Pool, address: types.Address, position: int,
         ) -> dict[str, object]:
    return {'pool_id': pool.id, 'address': address,
            'state': State.FREE.value, 'generation': 0,
            'pick_key': allocators.load(pool.allocator).key(pool.id,
                                                            position),
            'changed_at': clock.now()}


def usage(session: orm.Session, pool: models.Pool) -> dict[str, int]:
    """Return how many addresses are in each state; the sum is the size.

    ``outside`` are those of them that are in no range any more.
    """
    return usages(session, pool.id)[pool.id]


def usages(session: orm.Session, pool_id: str | None = None,
           ) -> dict[str, dict[str, int]]:
    """Return the same for each pool, by its id, in two questions.

    :param pool_id: only of this one.
    """
    runs = sa.select(models.Range.pool_id, models.Range.first,
                     models.Range.last)
    rows = sa.select(Row.pool_id, Row.state, Row.pick_key == UNPICKED,
                     sa.func.count())
    if pool_id is not None:
        runs = runs.where(models.Range.pool_id == pool_id)
        rows = rows.where(Row.pool_id == pool_id)
    # what is not taken is free, whether it has a row or not
    none = {**{state.value: 0 for state in State}, 'outside': 0}
    found = {} if pool_id is None else {pool_id: none.copy()}
    for id, first, last in session.execute(runs).tuples():
        found.setdefault(id, none.copy())['free'] += (
            int(last) - int(first) + 1)
    for id, state, outside, count in session.execute(rows.group_by(
            Row.pool_id, Row.state, Row.pick_key == UNPICKED)).tuples():
        if state != State.FREE and id in found:
            found[id]['outside' if outside else state] += count
            found[id]['free'] -= 0 if outside else count
    return found
