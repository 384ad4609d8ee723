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

"""Who held which address when, and why it changed."""

from collections.abc import Iterator, Mapping, Sequence
import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from vmip_plugin.allocation import manager as allocators
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import models
from vmip_plugin.inventory import moves
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin.inventory import transactions
from vmip_plugin import types

#: Clocks of several hosts may differ by so much.
CLOCK_TOLERANCE = datetime.timedelta(seconds=60)

#: Size of a pool up to which it is remembered for ever which server had an
#: address last: it has a row for each of its addresses in the end anyway.
REMEMBERED = 2 ** 16

Change = models.HistoryRow
Row = models.AddressRow


class History(transactions.Transactions):
    """The part of the list that answers for the past."""

    def history(self, address: types.Address, pool: str | None = None,
                ) -> list[records.Change]:
        """Return every change of an address, oldest first.

        :param pool: only in this pool; the same address may be in several.
        :raises PoolNotFound: there is no such pool.
        """
        with self.database.read() as session:
            query = _of(session, address, pool)
            return [records.Change.of(row) for row in session.scalars(
                query.order_by(Change.at, Change.id))]

    def standing(self, address: types.Address, at: datetime.datetime,
                 pool: str | None = None) -> list[records.Standing]:
        """Return how an address stood at a moment, in each of its pools.

        An address that nobody had had yet was free.

        :raises PoolNotFound: there is no such pool.
        :raises AddressNotFound: the list never had the address.
        """
        with self.database.read() as session:
            query = _of(session, address, pool)
            pool_ids = set(session.scalars(
                query.with_only_columns(Change.pool_id).distinct()))
            for row in session.scalars(sa.select(models.Pool)):
                if (pool is None or row.id == pools.find(session, pool).id
                        ) and pools.ranges(session, row.id).position(
                            address) is not None:
                    pool_ids.add(row.id)
            if not pool_ids:
                raise exceptions.AddressNotFound(
                    f'{address} is in no pool and never was')
            found = []
            for pool_id in sorted(pool_ids):
                last = session.scalars(
                    sa.select(Change).where(
                        Change.address == address, Change.at <= at,
                        Change.pool_id == pool_id)
                    .order_by(Change.at.desc(), Change.id.desc())
                    .limit(1)).first()
                found.append(
                    records.Standing(pool_id, address, states.State.FREE)
                    if last is None else records.Change.of(last).standing())
            return found

    def changes(self, page: int = 1000) -> Iterator[records.Change]:
        """Yield every change of every address, by address and time."""
        after: tuple[Any, ...] | None = None
        order = (Change.address, Change.at, Change.id)
        while True:
            query = sa.select(Change).order_by(*order).limit(page)
            if after is not None:
                query = query.where(transactions.beyond(order, after))
            with self.database.read() as session:
                rows = session.scalars(query).all()
                found = [records.Change.of(row) for row in rows]
            yield from found
            if len(rows) < page:
                return
            after = tuple(getattr(rows[-1], column.key) for column in order)

    def last_holder(self, address: types.Address, mac: str,
                    ) -> records.Change | None:
        """Return the last change that tells whose this MAC was there."""
        with self.database.read() as session:
            row = session.scalars(
                sa.select(Change).where(
                    Change.address == address, Change.mac == mac,
                    sa.or_(Change.server_id.is_not(None),
                           Change.port_id.is_not(None)))
                .order_by(Change.at.desc(), Change.id.desc()).limit(1)
            ).first()
            return None if row is None else records.Change.of(row)

    def has_lost(self, pool_id: str, address: types.Address, mac: str,
                 ) -> bool:
        """Tell whether Neutron took an address from the MAC that had it.

        That is so where the release of its last holder with this MAC is
        finished, or where the next one was let in, which both need proof
        that the port is gone; or where the port got another MAC. Of a MAC
        that the list never knew there nothing is known.
        """
        of = sa.select(Change).where(Change.pool_id == pool_id,
                                     Change.address == address)
        order = (Change.at, Change.id)
        with self.database.read() as session:
            last = session.scalars(of.where(Change.mac == mac).order_by(
                *(column.desc() for column in order)).limit(1)).first()
            if last is None:
                return False
            if last.event == states.Event.FINISH:
                return True
            after = session.scalars(
                of.where(transactions.beyond(order, (last.at, last.id)))
                .order_by(*order).limit(1)).first()
            if after is None:
                return False
            if last.new_state == states.State.RELEASING:
                return after.event in (states.Event.RESERVE,
                                       states.Event.CLAIM)
            return (after.event == states.Event.CHANGE
                    and after.port_id == last.port_id is not None)

    def trim(self, before: datetime.datetime, page: int = 1000,
             ) -> Iterator[tuple[int, int]]:
        """Forget what was over at a moment, a page at a time.

        Of each address the last line before that moment stays: it tells who
        had it then. So all that is asked of any later moment is answered as
        before.

        :returns: how many lines of each page were over, and how many of
            them this call has deleted.
        """
        newer = orm.aliased(Change)
        over = sa.exists().where(
            newer.address == Change.address, newer.pool_id == Change.pool_id,
            newer.at <= before,
            sa.or_(newer.at > Change.at,
                   sa.and_(newer.at == Change.at, newer.id > Change.id)))
        # in the order of time: what is kept is not even looked at
        order = (Change.at, Change.id)
        after: tuple[Any, ...] | None = None
        while True:
            # found outside of a write: others wait for that on SQLite
            query = sa.select(*order, over).where(
                Change.at < before).order_by(*order).limit(page)
            if after is not None:
                query = query.where(transactions.beyond(order, after))
            with self.database.read() as session:
                lines = session.execute(query).tuples().all()
            ids = [line[1] for line in lines if line[2]]
            yield len(ids), self._forget(ids) if ids else 0
            if len(lines) < page:
                return
            after = tuple(lines[-1][:2])

    @transactions.write
    def _forget(self, session: orm.Session, ids: Sequence[int]) -> int:
        deleted: Any = session.execute(
            sa.delete(Change).where(Change.id.in_(ids))
            .execution_options(synchronize_session=False))
        found: int = deleted.rowcount
        return found


    def forget_names(self, before: datetime.datetime, page: int = 500,
                     ) -> Iterator[tuple[int, int]]:
        """Forget which server had an address last, a page at a time.

        Only of what has been free since before a moment, in a pool so large
        that addresses nobody had yet would be taken for ever instead. Such an
        address is then like one of these, and the next to be taken.

        :returns: how many addresses each page found, and how many of them
            this call has changed.
        """
        with self.database.read() as session:
            large = [
                (pool.id, keys) for pool in session.scalars(
                    sa.select(models.Pool))
                if (keys := allocators.load(pool.allocator).freed_keys(before))
                and pools.ranges(session, pool.id).size > REMEMBERED]
        for pool_id, (first, last) in large:
            while True:
                query = sa.select(Row.id, Row.generation, Row.pick_key).where(
                    Row.pool_id == pool_id, Row.state == states.State.FREE,
                    Row.pick_key >= first, Row.pick_key < last).order_by(
                        Row.pick_key).limit(page)
                with self.database.read() as session:
                    found = session.execute(query).tuples().all()
                if found:
                    yield len(found), self._forget_names(pool_id, {
                        id: generation for id, generation, _ in found})
                if len(found) < page:
                    break
                # what was freed in that very microsecond waits for the next
                first = found[-1][2] + 1

    @transactions.write
    def _forget_names(self, session: orm.Session, pool_id: str,
                      seen: Mapping[int, int]) -> int:
        pool = session.get_one(models.Pool, pool_id)
        how = allocators.load(pool.allocator)
        within = pools.ranges(session, pool.id)
        done = 0
        for row in session.scalars(sa.select(Row).where(
                Row.id.in_(seen), Row.state == states.State.FREE)):
            position = within.position(row.address)
            if row.generation == seen[row.id] and position is not None:
                moves.swap(session, row, {
                    'pick_key': how.key(pool.id, position),
                    'former_name': None, 'former_project': None})
                done += 1
        return done


def check_clock(session: orm.Session) -> None:
    """See that this host's clock is not behind what the list was told.

    :raises ClockSetBack: it is, so that no time is known to be over.
    """
    newest = session.scalars(sa.select(Change.at).order_by(
        Change.id.desc()).limit(1)).first()
    if newest is not None and newest - clock.now() > CLOCK_TOLERANCE:
        raise exceptions.ClockSetBack(
            f'This host\'s clock says {clock.now():%Y-%m-%d %H:%M:%S} UTC, '
            f'but the list was changed at {newest:%Y-%m-%d %H:%M:%S}: nothing '
            f'is ended by time until the clocks of all hosts agree (NTP)')


def _of(session: orm.Session, address: types.Address, pool: str | None
        ) -> Any:
    query = sa.select(Change).where(Change.address == address)
    if pool is not None:
        query = query.where(
            Change.pool_id == pools.find(session, pool).id)
    return query
