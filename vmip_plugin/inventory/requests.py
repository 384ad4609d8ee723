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

"""Create requests: reserved, bound to a server, given up."""

from collections.abc import Sequence
from typing import Any

from oslo_log import log as logging
import sqlalchemy as sa
from sqlalchemy import orm

from vmip_plugin import exceptions
from vmip_plugin.inventory import allowance as allowances
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import history
from vmip_plugin.inventory import models
from vmip_plugin.inventory import moves
from vmip_plugin.inventory import picking
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin.inventory import transactions
from vmip_plugin import types

LOG = logging.getLogger(__name__)

Event = states.Event
State = states.State
Row = models.AddressRow


class Requests(transactions.Transactions):
    """The part of the list that nova-api needs."""

    @transactions.write
    def reserve(self, session: orm.Session, requester: records.Requester,
                wanted: Sequence[records.Wanted], ttl: int,
                allowance: records.Allowance | None = None,
                ) -> list[records.Address]:
        """Reserve an address per server and IP version, or nothing at all.

        An address reserved by hand for the server goes first, then the one
        that it had before (allocator ``sticky``), then what the allocator
        picks. Networks without a pool are left out, and so are servers for
        which nothing may be reserved in advance.

        :param ttl: seconds until an unclaimed reservation ends.
        :param allowance: what the project may hold in advance.
        :raises PoolExhausted: there are fewer addresses than servers; nothing
            is reserved then.
        :raises TooManyReserved: an address asked for is free, but the project
            may hold no more in advance.
        :raises AddressNotFound: an address asked for is in no pool of its
            network.
        :raises AddressInUse: an address asked for is somebody else's.
        """
        reserved: list[records.Address] = []
        queued = allowance is None
        for want in wanted:
            found = pools.of_network(session, want.network_id)
            if not found:
                continue
            if not queued:
                allowances.queue(session, requester.project_id)
                queued = True
            given: dict[int, types.Address] = {
                address.version: address for address in want.addresses}
            versions: dict[int, list[models.Pool]] = {
                version: [] for version in given}
            for pool in found:
                versions.setdefault(pools.version(pool), []).append(pool)
            for version, candidates in versions.items():
                if want.only and version not in given:
                    continue
                reserved += _reserve_all(
                    session, candidates, requester, want, ttl,
                    given.get(version), allowance)
        return reserved

    @transactions.write
    def bind(self, session: orm.Session,
             reservations: Sequence[records.Address], server_id: str) -> None:
        """Note which server the answer to a create request named."""
        def move(row: Row) -> None:
            moves.move(session, row, Event.BIND, State.RESERVED,
                       'answer of Nova', server_id=server_id)

        for reservation in reservations:
            try:
                # Every create waits for this, and hardly ever has anybody
                # touched the row since: it need not be read again.
                move(reservation.row())
            except moves.Overtaken:
                for row in _unchanged(session, [reservation]):
                    move(row)

    @transactions.write
    def extend(self, session: orm.Session,
               reservation: records.Address, ttl: int) -> None:
        """Give a reservation more time."""
        for row in _unchanged(session, [reservation]):
            moves.move(session, row, Event.BIND, State.RESERVED,
                       'the server is still being built',
                       expires_at=clock.after(ttl))

    @transactions.write
    def withdraw(self, session: orm.Session,
                 reservations: Sequence[records.Address], reason: str) -> int:
        """End the reservations of a request that was refused.

        What nothing else has happened to leaves no history: a client whose
        requests are refused must not be able to fill it.

        :returns: how many were ended.
        """
        seen = {r.id: r.generation for r in reservations}
        rows = _unchanged(session, reservations)
        for row in rows:
            if row.generation != seen[row.id] or not moves.take_back(
                    session, row):
                moves.vacate(session, row, Event.CANCEL, reason)
        return len(rows)

    @transactions.write
    def cancel(self, session: orm.Session,
               reservations: Sequence[records.Address], reason: str) -> int:
        """End reservations that no port has claimed.

        :returns: how many were ended.
        """
        rows = _unchanged(session, reservations)
        for row in rows:
            moves.vacate(session, row, Event.CANCEL, reason)
        return len(rows)

    def expired(self, limit: int = 500) -> list[records.Address]:
        """Return reservations whose time is over.

        :raises ClockSetBack: this host's clock is no measure of that.
        """
        with self.database.read() as session:
            history.check_clock(session)
            return [records.Address.of(row) for row in session.scalars(
                sa.select(Row).where(
                    Row.state == State.RESERVED,
                    Row.expires_at <= clock.now()).limit(limit))]

    @transactions.write
    def expire(self, session: orm.Session, reservation: records.Address,
               reason: str) -> bool:
        """End a reservation whose time is over.

        :returns: False where it has changed since it was read.
        """
        rows = [row for row in _unchanged(session, [reservation])
                if row.generation == reservation.generation]
        for row in rows:
            moves.vacate(session, row, Event.EXPIRE, reason)
        return bool(rows)


def _reserve_all(session: orm.Session, candidates: Sequence[models.Pool],
                 requester: records.Requester, want: records.Wanted, ttl: int,
                 given: types.Address | None,
                 allowance: records.Allowance | None,
                 ) -> list[records.Address]:
    """Reserve an address of one IP version for each server."""
    names = want.server_names
    certain = len(names) if want.certain is None else want.certain
    sure = names[:certain]
    room = allowances.Room(session, candidates, requester.project_id,
                           len(sure), allowance)
    rows: list[Row | None] = []
    while len(rows) < len(sure) and (given is not None or not room.is_full):
        rows.append(_reserve(session, candidates, requester,
                             names[len(rows)], ttl, room, given, want.only))
    if given is None:
        rows += _reserve_by_hand(session, candidates, requester,
                                 names[len(rows):], len(sure) - len(rows),
                                 ttl)
    later = rows[:len(sure)].count(None)
    if later and not want.only and (allowance is None or not (
            allowances.is_enough(session, candidates, later))):
        raise exceptions.PoolExhausted(
            'No free address is left in ' + ', '.join(
                f'pool {pool.name}' for pool in candidates))
    if later:
        LOG.info('%d of %d addresses of request %s are left to the ports: '
                 'project %s holds as many in advance as it may', later,
                 len(sure), requester.request_id, requester.project_id)
    return [records.Address.of(row) for row in rows if row is not None]


def _reserve(session: orm.Session, candidates: Sequence[models.Pool],
             requester: records.Requester, name: str, ttl: int,
             room: allowances.Room, given: types.Address | None, only: bool,
             ) -> Row | None:
    """Reserve an address for a server.

    :param only: the server's port will ask for ``given`` too.
    :returns: None where the pools or the room have none left.
    """
    row: Row | None
    if given is not None:
        row = _given(session, candidates, requester, name, given)
        if row.hold_name is None and not room.take(row.pool_id, named=True):
            if only:
                return None
            raise exceptions.TooManyReserved(
                'The project holds as many addresses in advance as it may')
        return _take(session, row, requester, name, ttl,
                     'asked for by the request')
    row = _reserve_held(session, candidates, requester, name, ttl)
    if row is not None:
        return row
    row = picking.former(session, candidates, requester.project_id, name)
    if row is not None and room.take(row.pool_id, named=True):
        return _take(session, row, requester, name, ttl,
                     'a server of this name had it')
    for pool in candidates:
        if room.take(pool.id):
            row = picking.pick(
                session, pool, name, Event.RESERVE, State.RESERVED,
                'create request', **_holder(requester, name, ttl))
            if row is not None:
                return row
    if any(allowances.available(session, pool, 1, [Row.state == State.FREE])
           for pool in candidates):
        return None
    row = next(iter(picking.releasing(session, candidates)), None)
    if row is not None and room.take(row.pool_id, named=True):
        return _take(session, row, requester, name, ttl,
                     'nothing else is free')
    return None


def _reserve_held(session: orm.Session, candidates: Sequence[models.Pool],
                  requester: records.Requester, name: str, ttl: int,
                  ) -> Row | None:
    """Reserve what is reserved by hand for a server."""
    row = picking.held(session, candidates, requester.project_id, name)
    return None if row is None else _take(
        session, row, requester, name, ttl,
        'reserved by hand for this server')


def _reserve_by_hand(session: orm.Session, candidates: Sequence[models.Pool],
                     requester: records.Requester, names: Sequence[str],
                     certain: int, ttl: int) -> list[Row | None]:
    """Reserve for servers what is reserved by hand for them, and only that.

    However many there are, little is asked where there is nothing for them.

    :param certain: how many of them may have what is for any of the project.
    """
    if not names:
        return []
    named = set(session.scalars(sa.select(Row.hold_name).where(
        Row.pool_id.in_([pool.id for pool in candidates]),
        Row.state == State.RESERVED, Row.hold_name.in_(names),
        sa.or_(Row.hold_project.is_(None),
               Row.hold_project == requester.project_id))))
    rows: list[Row | None] = []
    for number, name in enumerate(names):
        row = None
        if name in named or number < certain:
            row = _reserve_held(session, candidates, requester, name, ttl)
            if row is None and name not in named:
                certain = 0
        rows.append(row)
    return rows


def _holder(requester: records.Requester, name: str, ttl: int,
            ) -> dict[str, Any]:
    return {'request_id': requester.request_id,
            'project_id': requester.project_id, 'server_name': name or None,
            'expires_at': clock.after(ttl)}


def _take(session: orm.Session, row: Row, requester: records.Requester,
          name: str, ttl: int, reason: str) -> Row:
    moves.move(session, row, Event.RESERVE, State.RESERVED, reason,
               **{**moves.NOBODY, **_holder(requester, name, ttl)})
    return row


def _given(session: orm.Session, candidates: Sequence[models.Pool],
           requester: records.Requester, name: str,
           address: types.Address) -> Row:
    for pool in candidates:
        row = pools.row(session, pool, address)
        if row is None:
            continue
        held = moves.is_held(row)
        for_it = held and picking.is_held_for(row, requester.project_id, name)
        if row.state in states.VACANT or (
                row.state == State.RESERVED and row.request_id is None
                and for_it) or (
                row.state == State.RELEASING and row.evidence in states.PROOF
                and (for_it or not held)):
            if row.answered_at is not None:
                raise exceptions.AddressAnswers(f'{address} still answers')
            return row
        raise exceptions.AddressInUse(f'{address} is {row.state}')
    raise exceptions.AddressNotFound(
        f'{address} is in no pool of the network')


def _unchanged(session: orm.Session, reservations: Sequence[records.Address],
               ) -> list[Row]:
    """Return the rows that are still the same request's reservation."""
    request = {r.id: r.request_id for r in reservations}
    return [row for row in session.scalars(sa.select(Row).where(
        Row.id.in_(list(request)), Row.state == State.RESERVED))
        if row.request_id == request[row.id]]
