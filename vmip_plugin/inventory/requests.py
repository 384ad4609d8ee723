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

import sqlalchemy as sa
from sqlalchemy import orm

from vmip_plugin import exceptions
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

Event = states.Event
State = states.State
Row = models.AddressRow


class Requests(transactions.Transactions):
    """The part of the list that nova-api needs."""

    @transactions.write
    def reserve(self, session: orm.Session, requester: records.Requester,
                wanted: Sequence[records.Wanted], ttl: int,
                ) -> list[records.Address]:
        """Reserve an address per server and IP version, or nothing at all.

        An address reserved by hand for the server goes first, then the one
        that it had before (allocator ``sticky``), then what the allocator
        picks. Networks without a pool are left out.

        :param ttl: seconds until an unclaimed reservation ends.
        :raises PoolExhausted: nothing is reserved then.
        :raises AddressNotFound: an address asked for is in no pool of its
            network.
        :raises AddressInUse: an address asked for is somebody else's.
        """
        reserved: list[records.Address] = []
        for want in wanted:
            found = pools.of_network(session, want.network_id)
            if not found:
                continue
            given: dict[int, types.Address] = {
                address.version: address for address in want.addresses}
            versions: dict[int, list[models.Pool]] = {
                version: [] for version in given}
            for pool in found:
                versions.setdefault(pools.version(pool), []).append(pool)
            for version, candidates in versions.items():
                if want.only and version not in given:
                    continue
                reserved += [
                    _reserve(session, candidates, requester, name, ttl,
                             given.get(version))
                    for name in want.server_names]
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


def _reserve(session: orm.Session, candidates: Sequence[models.Pool],
             requester: records.Requester, name: str, ttl: int,
             given: types.Address | None) -> records.Address:
    holder: dict[str, Any] = {
        'request_id': requester.request_id,
        'project_id': requester.project_id, 'server_name': name or None,
        'expires_at': clock.after(ttl)}
    row: Row | None
    if given is not None:
        row = _given(session, candidates, requester, name, given)
        reason = 'asked for by the request'
    else:
        row = picking.held(session, candidates, requester.project_id, name)
        reason = 'reserved by hand for this server'
        if row is None:
            row = picking.former(session, candidates, requester.project_id,
                                 name)
            reason = 'a server of this name had it'
    if row is not None:
        moves.move(session, row, Event.RESERVE, State.RESERVED, reason,
                   **{**moves.NOBODY, **holder})
        return records.Address.of(row)
    for pool in candidates:
        row = picking.pick(session, pool, name, Event.RESERVE,
                           State.RESERVED, 'create request', **holder)
        if row is not None:
            return records.Address.of(row)
    raise exceptions.PoolExhausted(
        'No free address is left in ' + ', '.join(
            f'pool {pool.name}' for pool in candidates))


def _given(session: orm.Session, candidates: Sequence[models.Pool],
           requester: records.Requester, name: str,
           address: types.Address) -> Row:
    for pool in candidates:
        row = pools.row(session, pool, address)
        if row is None:
            continue
        if row.state in states.VACANT or (
                row.state == State.RESERVED and row.request_id is None
                and moves.is_held(row) and picking.is_held_for(
                    row, requester.project_id, name)):
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
