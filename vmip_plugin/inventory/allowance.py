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


"""How much of a pool a project may hold in advance, unclaimed."""

from collections.abc import Sequence
import zlib

import sqlalchemy as sa
from sqlalchemy import orm

from vmip_plugin.inventory import clock
from vmip_plugin.inventory import models
from vmip_plugin.inventory import picking
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

Row = models.AddressRow
State = states.State

#: Projects share so many rows to queue at; each is held for one transaction.
_QUEUES = 256


def queue(session: orm.Session, project_id: str) -> None:
    """Let the requests of a project reserve one after the other.

    What one of them may reserve depends on what the others hold: two that
    look at the same moment would each take the whole allowance. They meet in
    the update of one row, which the database makes wait, or fail and be tried
    again (SQLite, Galera), until the other transaction has ended.
    """
    row = zlib.crc32(project_id.encode()) % _QUEUES
    changed = session.execute(
        sa.update(models.QueueRow).where(models.QueueRow.id == row)
        .values(turns=models.QueueRow.turns + 1),
        execution_options={'synchronize_session': False})
    if changed.rowcount != 1:  # type: ignore[attr-defined]
        session.execute(sa.insert(models.QueueRow), [{'id': row, 'turns': 1}])


class Room:
    """How many addresses of each pool a request may still reserve.

    :param count: how many it wants at most.
    :param allowance: None: as many as there are.
    """

    def __init__(self, session: orm.Session, candidates: Sequence[models.Pool],
                 project_id: str, count: int,
                 allowance: records.Allowance | None) -> None:
        self._left: dict[str, int] | None = None
        if allowance is None:
            return
        self._own = _unclaimed(session, candidates, project_id)
        self._least = min(1, allowance.most)
        self._left = {}
        for pool in candidates:
            own = self._own[pool.id]
            # so many would do: more need not be counted
            enough = -(-100 * (own + count) // allowance.share)
            free = own + available(session, pool, enough - own,
                                   [Row.state == State.FREE])
            self._left[pool.id] = min(
                allowance.most, allowance.share * free // 100) - own

    @property
    def is_full(self) -> bool:
        """Whether the project may hold no address more, whichever it is."""
        return self._left is not None and all(
            left < 1 and self._own[pool_id] >= self._least
            for pool_id, left in self._left.items())

    def take(self, pool_id: str, named: bool = False) -> bool:
        """Count one more address of a pool, if the project may hold it.

        :param named: no other address would do: a project that holds none
            in advance may always have one.
        """
        if self._left is None:
            return True
        if self._left[pool_id] < 1 and not (
                named and self._own[pool_id] < self._least):
            return False
        self._left[pool_id] -= 1
        self._own[pool_id] += 1
        return True


def _unclaimed(session: orm.Session, candidates: Sequence[models.Pool],
               project_id: str) -> dict[str, int]:
    """Return how many addresses of each pool a project holds in advance."""
    found = dict.fromkeys((pool.id for pool in candidates), 0)
    found.update(session.execute(
        sa.select(Row.pool_id, sa.func.count()).where(
            Row.project_id == project_id, Row.state == State.RESERVED,
            Row.pool_id.in_(list(found)), Row.request_id.is_not(None),
            Row.hold_name.is_(None)).group_by(Row.pool_id)).tuples().all())
    return found


def is_enough(session: orm.Session, candidates: Sequence[models.Pool],
              count: int) -> bool:
    """Tell whether so many ports may find an address when they are made.

    Also in what rests no longer, and in what only the DHCP servers have still
    to forget: a port may get that at once.
    """
    for pool in candidates:
        count -= available(session, pool, count, [
            Row.state == State.FREE,
            sa.and_(Row.state == State.QUARANTINED,
                    Row.expires_at <= clock.now()),
            *([picking.IS_RELEASING] if not pool.reuse_delay else [])])
        if count <= 0:
            return True
    return count <= 0


def available(session: orm.Session, pool: models.Pool, enough: int,
              where: Sequence[sa.ColumnElement[bool]]) -> int:
    """Return how many addresses of a pool are such, or never had a row.

    :param enough: no more are counted.
    """
    found = pools.fresh(session, pool)
    for condition in where:
        if found >= enough:
            break
        found += session.scalar(sa.select(sa.func.count()).select_from(
            sa.select(Row.id).where(
                Row.pool_id == pool.id, Row.pick_key >= 0, condition)
            .limit(enough - found).subquery())) or 0
    return min(found, max(enough, 0))
