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

"""The one place where an address changes its state or its holder.

Every change is compare and swap on the row's generation, never a lock that is
trusted: it holds on SQLite, InnoDB, Galera and PostgreSQL alike. Every change
leaves a line in the history, in the same transaction.
"""

from collections.abc import Sequence
import datetime
from typing import Any

from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import attributes

from vmip_plugin.allocation import manager as allocators
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import models
from vmip_plugin.inventory import states

Event = states.Event
State = states.State
Row = models.AddressRow

NOBODY: dict[str, Any] = {
    **dict.fromkeys(states.HOLDER), 'expires_at': None, 'gone_since': None,
    'evidence': None, 'answered_at': None, 'loss_confirmed_until': None}
HOLD = ('hold_name', 'hold_project', 'hold_until')
NO_HOLD: dict[str, Any] = dict.fromkeys(HOLD)

_TICK = datetime.timedelta(microseconds=1)

# Made once: every request executes them.
_ADDRESSES: Any = Row.__table__
_SWAP = sa.update(_ADDRESSES).where(
    _ADDRESSES.c.id == sa.bindparam('row_id'),
    _ADDRESSES.c.generation == sa.bindparam('seen'))
_HISTORY: Any = models.HistoryRow.__table__
_RECORD = sa.insert(_HISTORY)


class IllegalTransition(exceptions.VmipError):
    """The state machine knows no such change: a bug of the caller."""


class Overtaken(db_exc.DBDeadlock):
    """Another worker has changed it meanwhile: try the whole again."""


def move(session: orm.Session, row: Row, event: Event, state: State,
         reason: str, **values: Any) -> None:
    """Change an address and write the change into the history.

    :param values: columns that change with the state.
    :raises IllegalTransition: the state machine does not allow it.
    :raises Overtaken: the row is not as it was read.
    """
    old = State(row.state)
    if not states.is_legal(event, old, state):
        raise IllegalTransition(f'{event}: {old} to {state}')
    if event is Event.RESERVE and old is State.RELEASING:
        # the DHCP servers know the last holder still
        values['evidence'] = row.evidence
    before = _holder(row)
    # A clock that was set back must not turn the history upside down.
    now = max(clock.now(), row.changed_at + _TICK)
    swap(session, row, {**values, 'state': state.value, 'changed_at': now})
    ended = state in states.VACANT or event in states.ENDING
    session.connection().execute(_RECORD, [{
        **_line(session, row, event, reason, old),
        # the change that ends a holder names the holder
        **(before if ended else _holder(row))}])


def swap(session: orm.Session, row: Row, values: dict[str, Any]) -> None:
    """Change a row if it still is as it was read.

    :raises Overtaken: it is not.
    """
    values['generation'] = row.generation + 1
    changed = session.connection().execute(
        _SWAP, {**values, 'row_id': row.id, 'seen': row.generation})
    if changed.rowcount != 1:
        raise Overtaken(f'{row.address} changed meanwhile')
    for key, value in values.items():
        attributes.set_committed_value(row, key, value)


def adopt_all(session: orm.Session, rows: Sequence[dict[str, Any]],
              reason: str) -> None:
    """Make rows of addresses that are in use and have none yet.

    :param rows: the columns of each, without ``generation`` and
        ``changed_at``.
    """
    now = clock.now()
    made = [{**row, 'generation': 1, 'changed_at': now} for row in rows]
    if made:
        session.execute(sa.insert(Row), made)
        session.connection().execute(_RECORD, [
            {**_line(session, Row(**row), Event.ADOPT, reason, State.FREE),
             **_holder(Row(**row))} for row in made])


def vacate(session: orm.Session, row: Row, event: Event, reason: str) -> None:
    """End a holder: the address is free, rests, or is the next one's.

    :param event: CANCEL, EXPIRE or FINISH.
    :raises Overtaken: the row is not as it was read.
    """
    pool = session.get_one(models.Pool, row.pool_id)
    used = event is Event.FINISH
    if used:
        key = allocators.load(pool.allocator).freed_key(
            row.pick_key, clock.now()) if row.pick_key >= 0 else row.pick_key
        values = {**NOBODY, 'pick_key': key}
    else:
        values = dict(NOBODY)
        if entries(session, row.id):
            # taken back before the DHCP servers had forgotten it
            move(session, row, event, State.RELEASING, reason,
                 **{**values, 'gone_since': clock.now(),
                    'evidence': row.evidence,
                    'answered_at': row.answered_at})
            return
        # taken back while it rested
        used = (row.former_name is not None
                and (row.former_project, row.former_name)
                == (row.project_id, row.server_name))
    if is_held(row):
        move(session, row, event, State.RESERVED, reason,
             **{**values, 'expires_at': row.hold_until})
    elif used and pool.reuse_delay:
        move(session, row, event, State.QUARANTINED, reason,
             **{**values, **NO_HOLD,
                'expires_at': clock.after(pool.reuse_delay)})
    else:
        move(session, row, event, State.FREE, reason, **values, **NO_HOLD)


def take_back(session: orm.Session, row: Row) -> bool:
    """Make it as if a reservation had never been made.

    :returns: False where it cannot be told how the address stood before.
    :raises Overtaken: the row is not as it was read.
    """
    line = models.HistoryRow
    last, before = [*session.scalars(sa.select(line).where(
        line.pool_id == row.pool_id, line.address == row.address)
        .order_by(line.at.desc(), line.id.desc()).limit(2)), None, None][:2]
    if last is None or last.event != Event.RESERVE or (
            last.at != row.changed_at):
        return False
    state = State(last.old_state)
    values = {**NOBODY, 'state': state.value}
    if state is State.RESERVED and is_held(row):
        values['expires_at'] = row.hold_until
    elif state is State.QUARANTINED and before is not None:
        values['expires_at'] = before.expires_at
    elif state is not State.FREE or row.hold_name is not None:
        return False
    if before is not None:
        values['changed_at'] = before.at
    swap(session, row, values)
    session.delete(last)
    return True


def rest(session: orm.Session, which: Any, limit: int) -> int:
    """Free addresses whose quarantine is over.

    :returns: how many.
    """
    rows = session.scalars(sa.select(Row).where(
        which, Row.state == State.QUARANTINED,
        Row.expires_at <= clock.now()).order_by(Row.expires_at).limit(limit)
        # another worker may be at it
        .with_for_update(skip_locked=True)).all()
    for row in rows:
        move(session, row, Event.REST, State.FREE, '', expires_at=None)
    return len(rows)


def is_held(row: Row) -> bool:
    """Tell whether an address is reserved by hand now."""
    return row.hold_name is not None and (
        row.hold_until is None or row.hold_until > clock.now())


def entries(session: orm.Session, address_id: int
            ) -> Sequence[models.HostEntryRow]:
    """Return an address's host entries."""
    return session.scalars(sa.select(models.HostEntryRow).where(
        models.HostEntryRow.address_id == address_id)).all()


def entries_of(session: orm.Session, address_ids: Sequence[int],
               ) -> dict[int, list[models.HostEntryRow]]:
    """Return the host entries of each address."""
    found: dict[int, list[models.HostEntryRow]] = {
        id: [] for id in address_ids}
    if address_ids:
        for entry in session.scalars(sa.select(models.HostEntryRow).where(
                models.HostEntryRow.address_id.in_(address_ids))):
            found[entry.address_id].append(entry)
    return found


def _holder(row: Row) -> dict[str, str | None]:
    """Return who has an address; one held by hand is its name's."""
    holder = {key: getattr(row, key) for key in states.HOLDER}
    if row.hold_name is not None and not any(holder.values()):
        holder.update(server_name=row.hold_name or None,
                      project_id=row.hold_project)
    return holder


def _line(session: orm.Session, row: Row, event: Event, reason: str,
          old: State) -> dict[str, Any]:
    return {
        'pool_id': row.pool_id, 'address': row.address, 'at': row.changed_at,
        'actor': session.info['actor'], 'event': event.value,
        'reason': reason[:255], 'old_state': old.value,
        'new_state': row.state, 'expires_at': row.expires_at,
        **{key: getattr(row, key) for key in HOLD}}
