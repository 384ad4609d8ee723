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

"""Finds the address that a server gets: one step down an index each."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from vmip_plugin.allocation import manager as allocators
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import models
from vmip_plugin.inventory import moves
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import states
from vmip_plugin import types

Event = states.Event
State = states.State
Row = models.AddressRow

# Each of many workers gets another row at once, where the database can skip
# locked rows. That none has two holders does not depend on it.
_FREE = sa.select(Row).where(
    Row.pool_id == sa.bindparam('pool_id'), Row.state == State.FREE,
    Row.pick_key >= sa.bindparam('since'),
).order_by(Row.pick_key).limit(1).with_for_update(skip_locked=True)


def pick(session: orm.Session, pool: models.Pool, name: str, event: Event,
         state: State, reason: str, **values: Any) -> Row | None:
    """Move one free address of a pool on.

    :param name: of the server, '' where it is not known.
    :param values: columns of the new holder.
    :returns: None where no address is free.
    :raises Overtaken: others are just taking the last ones.
    """
    how = allocators.load(pool.allocator)
    start = how.start(values['project_id'] or '', name)
    while True:
        row = _first(session, pool.id, start)
        if row is None or how.fresh_first(pool.fresh_index, row.pick_key):
            if pools.freshen(session, pool):
                continue
        if row is None:
            if _is_any_free(session, pool.id):
                raise moves.Overtaken('the last free addresses are being '
                                      'taken')
            if moves.rest(session, Row.pool_id == pool.id, limit=64):
                continue
            return None
        moves.move(session, row, event, state, reason, **values)
        return row


def _first(session: orm.Session, pool_id: str, start: int) -> Row | None:
    for since in (start, 0) if start else (0,):
        row = session.scalars(
            _FREE, {'pool_id': pool_id, 'since': since}).first()
        if row is not None:
            return row
    return None


def _is_any_free(session: orm.Session, pool_id: str) -> bool:
    return session.scalars(sa.select(Row.id).where(
        Row.pool_id == pool_id, Row.state == State.FREE,
        Row.pick_key >= 0).limit(1)).first() is not None


# Only the id: for nearly every server nothing is held, and columns that are
# described and not there take time too.
_HELD = sa.select(Row.id).where(
    Row.pool_id.in_(sa.bindparam('pools', expanding=True)),
    Row.state == State.RESERVED, Row.request_id.is_(None),
    sa.or_(
        sa.and_(Row.hold_name == sa.bindparam('name'), Row.hold_name != '',
                sa.or_(Row.hold_project.is_(None),
                       Row.hold_project == sa.bindparam('project_id'))),
        sa.and_(Row.hold_name == '',
                Row.hold_project == sa.bindparam('project_id'))),
    sa.or_(Row.hold_until.is_(None), Row.hold_until > sa.bindparam('now')),
).order_by(
    Row.hold_name.desc(), Row.hold_project.is_(None), Row.pick_key,
).limit(1).with_for_update(skip_locked=True)


def held(session: orm.Session, candidates: Sequence[models.Pool],
         project_id: str, name: str) -> Row | None:
    """Return the address that is reserved by hand for a server.

    One for this name goes before one for any server of the project, and one
    for this very project before one for any.
    """
    id = session.scalars(_HELD, {
        'pools': [pool.id for pool in candidates], 'name': name,
        'project_id': project_id, 'now': clock.now()}).first()
    row = None if id is None else session.get(Row, id)
    # to MySQL, names are alike if but blanks at the end differ
    return row if row and is_held_for(row, project_id, name) else None


def is_held_for(row: Row, project_id: str, name: str) -> bool:
    """Tell whether an address is reserved by hand for a server."""
    if row.hold_name == '':
        return row.hold_project == project_id
    return (row.hold_name == name
            and row.hold_project in (None, project_id))


def former(session: orm.Session, candidates: Sequence[models.Pool],
           project_id: str, name: str) -> Row | None:
    """Return the address that a server of this name had last, if it is free.

    Also one that rests, and one of which only the DHCP servers have still to
    forget the old MAC, silent so far: what is in their way is the same
    server's.
    """
    remembering = [pool.id for pool in candidates
                   if allocators.load(pool.allocator).remembers]
    if not remembering:
        return None
    row = session.scalars(
        sa.select(Row).where(
            Row.pool_id.in_(remembering), Row.pick_key >= 0,
            Row.former_name == name, Row.former_project == project_id,
            Row.hold_name.is_(None),
            sa.or_(Row.state.in_([State.FREE, State.QUARANTINED]),
                   sa.and_(Row.state == State.RELEASING,
                           Row.answered_at.is_(None),
                           sa.or_(Row.gone_since.is_not(None),
                                  Row.evidence.in_(states.PROOF)))))
        .order_by(Row.changed_at.desc())
        .limit(1).with_for_update(skip_locked=True)).first()
    return row if row and row.former_name == name else None


#: What may be given to the next holder before its release is done, if it is
#: silent on the wire.
IS_RELEASING: sa.ColumnElement[bool] = sa.and_(
    Row.state == State.RELEASING, Row.evidence.in_(states.PROOF),
    Row.answered_at.is_(None), Row.hold_name.is_(None))


def releasing(session: orm.Session, candidates: Sequence[models.Pool],
              skip: Sequence[types.Address] = (), limit: int = 1,
              ) -> Sequence[Row]:
    """Return addresses whose holders are gone for sure, silent ones only.

    For where nothing is free; the one that has been silent longest is first.
    What would have to rest before anybody gets it is not among them.
    """
    return session.scalars(
        sa.select(Row).where(
            Row.pool_id.in_([pool.id for pool in candidates
                             if not pool.reuse_delay]),
            IS_RELEASING, Row.pick_key >= 0, Row.address.not_in(skip))
        .order_by(Row.changed_at, Row.id)
        .limit(limit).with_for_update(skip_locked=True)).all()
