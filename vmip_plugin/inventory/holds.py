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

"""Reservations by hand: one at a time, or a plan of many."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
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

_REASON = 'reservation by hand'


class Holds(transactions.Transactions):
    """The part of the list that people write."""

    @transactions.write
    def hold(self, session: orm.Session, wanted: records.Hold,
             ) -> records.Address:
        """Reserve an address by hand; a server that has it keeps it.

        :raises PoolNotFound: there is no such pool.
        :raises AddressNotFound: the address is in none of its ranges.
        :raises AddressInUse: somebody has it, or the name has another.
        :raises PoolExhausted: no address was named and none is free.
        :raises VmipError: the reservation makes no sense.
        """
        return _hold(session, wanted)

    @transactions.write
    def hold_all(self, session: orm.Session,
                 plan: Mapping[int, records.Hold],
                 ) -> dict[int, records.Address]:
        """Reserve all that a plan says, or nothing at all.

        :param plan: reservations by number of the line.
        :returns: the address of each.
        :raises PlanRefused: with what is wrong with every line that cannot
            be; those that name their address are seen to first.
        """
        held = {}
        errors = {}
        for number, wanted in sorted(
                plan.items(), key=lambda item: (item[1].address is None,
                                                item[0])):
            try:
                held[number] = _hold(session, wanted)
            except exceptions.VmipError as exc:
                errors[number] = str(exc)
        if errors:
            raise exceptions.PlanRefused(errors)
        return held

    @transactions.write
    def unhold(self, session: orm.Session, pool_name: str,
               address: types.Address) -> None:
        """Give up a reservation by hand; a server that uses it keeps it.

        :raises PoolNotFound: there is no such pool.
        :raises AddressNotFound: there is no such reservation.
        """
        pool = pools.find(session, pool_name)
        row = pools.existing(session, pool, address)
        if row is None or row.hold_name is None:
            raise exceptions.AddressNotFound(
                f'{address} is not reserved by hand in pool {pool.name}')
        state = State(row.state)
        values: dict[str, Any] = dict(moves.NO_HOLD)
        if state is State.RESERVED and row.request_id is None:
            state = State.FREE
            values.update(moves.NOBODY)
        moves.move(session, row, Event.UNHOLD, state,
                   'reservation given up', **values)


def _hold(session: orm.Session, wanted: records.Hold) -> records.Address:
    name = wanted.server_name or ''
    if wanted.until is not None and wanted.until <= clock.now():
        raise exceptions.VmipError(
            f'The reservation would have ended already, at '
            f'{wanted.until.isoformat(" ", "seconds")}')
    if wanted.any_project == bool(wanted.project_id) and (
            name or wanted.any_project):
        raise exceptions.VmipError(
            'Say whose server of that name it is for: of one project, or of '
            'any')
    if wanted.any_project and not name:
        raise exceptions.VmipError(
            'Say for which server of any project: its name is missing')
    pool = pools.find(session, wanted.pool)
    _check_name(session, pool, wanted)
    values = {'hold_name': name, 'hold_project': wanted.project_id,
              'hold_until': wanted.until}
    reserved = {**moves.NOBODY, **values, 'expires_at': wanted.until}
    row: Row | None
    if wanted.address is None:
        if not (name or wanted.project_id):
            raise exceptions.VmipError(
                'Say for whom: a server name, a project or an address')
        # what the server would get if it were created now
        row = (name and picking.former(session, [pool],
                                       wanted.project_id or '', name) or None)
        if row is None or row.state not in states.VACANT:
            row = picking.pick(
                session, pool, name, Event.HOLD, State.RESERVED, _REASON,
                **reserved)
            if row is None:
                raise exceptions.PoolExhausted(
                    f'No free address is left in pool {pool.name}')
            return records.Address.of(row)
    else:
        row = pools.row(session, pool, wanted.address)
        if row is None:
            raise exceptions.AddressNotFound(
                f'{wanted.address} is in no range of pool {pool.name}')
    if row.state in states.VACANT:
        moves.move(session, row, Event.HOLD, State.RESERVED, _REASON,
                   **reserved)
    elif _has_it(row, wanted):
        moves.move(session, row, Event.HOLD, State(row.state), _REASON,
                   **values)
    else:
        whose = row.hold_name or row.server_name
        raise exceptions.AddressInUse(
            f'{row.address} is {row.state}'
            + (f' for {whose}' if whose else ''))
    return records.Address.of(row)


def _check_name(session: orm.Session, pool: models.Pool,
                wanted: records.Hold) -> None:
    """See that no two addresses are reserved for one server.

    :raises AddressInUse: there is one already.
    """
    if not wanted.server_name:
        return
    other = session.scalars(sa.select(Row).where(
        Row.pool_id == pool.id, Row.hold_name == wanted.server_name,
        Row.hold_project.is_(None) if wanted.project_id is None
        else Row.hold_project == wanted.project_id)).first()
    if other is not None and other.address != wanted.address:
        raise exceptions.AddressInUse(
            f'{wanted.server_name} has {other.address} in pool {pool.name} '
            f'already: delete that reservation first')


def _has_it(row: Row, wanted: records.Hold) -> bool:
    """Tell whether who shall have an address is the one who has it."""
    if row.hold_name is not None:
        return ((row.hold_name, row.hold_project)
                == (wanted.server_name or '', wanted.project_id))
    return (State(row.state) in (State.RESERVED, State.CLAIMED, State.ACTIVE)
            and bool(wanted.server_name or wanted.project_id)
            and wanted.server_name in (None, row.server_name)
            and wanted.project_id in (None, row.project_id))
