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

"""What a pool loses without Neutron's own word, and who else is there."""

from collections.abc import Collection, Iterator, Sequence
import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from vmip_plugin.inventory import clock
from vmip_plugin.inventory import models
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin.inventory import transactions
from vmip_plugin import types

Row = models.AddressRow
Loss = models.LossRow

#: For how long a release without Neutron's own word counts as one of the same
#: event: long enough for several comparisons with the whole of Neutron.
WINDOW = datetime.timedelta(hours=1)


class Losses(transactions.Transactions):
    """The part of the inventory that the fuse and the witnesses need."""

    def losses(self) -> list[records.Loss]:
        """Return for each pool how much of it is lost at the moment."""
        now = clock.now()
        confirmed = sa.and_(Row.loss_confirmed_until.is_not(None),
                            Row.loss_confirmed_until > now)
        in_use = Row.state.in_(states.IN_USE)
        missing = sa.and_(in_use, Row.gone_since.is_not(None))
        with self.database.read() as session:
            used = _count(session, in_use)
            noted = _count(session, missing)
            approved = _count(session, sa.and_(missing, confirmed))
            released = dict(session.execute(
                sa.select(Loss.pool_id, sa.func.count()).where(
                    Loss.at > now - WINDOW).group_by(Loss.pool_id)
            ).tuples().all())
            return [records.Loss(
                id, name, used.get(id, 0), noted.get(id, 0),
                approved.get(id, 0), released.get(id, 0))
                for id, name in session.execute(sa.select(
                    models.Pool.id, models.Pool.name).order_by(
                        models.Pool.name)).tuples()]

    def missing(self, pool: str) -> list[records.Address]:
        """Return the addresses in use whose ports are missing.

        :raises PoolNotFound: there is no such pool.
        """
        with self.database.read() as session:
            return [records.Address.of(row) for row in session.scalars(
                sa.select(Row).where(
                    Row.pool_id == pools.find(session, pool).id,
                    Row.state.in_(states.IN_USE),
                    Row.gone_since.is_not(None)).order_by(Row.address))]

    @transactions.write
    def confirm_losses(self, session: orm.Session,
                       seen: Sequence[records.Address],
                       until: datetime.datetime) -> int:
        """Note that an operator says that these ports are really gone.

        Only what still is as it was seen; whatever is missing later, or is
        found and missing again, needs another word.

        :param until: the end of that.
        :returns: how many.
        """
        count = 0
        for start in range(0, len(seen), 500):
            changed: Any = session.execute(
                sa.update(Row).where(
                    sa.tuple_(Row.id, Row.generation).in_(
                        [(one.id, one.generation)
                         for one in seen[start:start + 500]]),
                    Row.gone_since.is_not(None))
                .values(loss_confirmed_until=until)
                .execution_options(synchronize_session=False))
            count += changed.rowcount
        return count

    def witnesses(self, network_id: str | None, limit: int,
                  without: Collection[str] = (),
                  not_of: str | None = None) -> list[types.Witness]:
        """Return holders of addresses that nobody has missed so far.

        :param network_id: of the pools; None: of any.
        :param without: port ids that are none.
        :param not_of: a project whose holders come last.
        """
        query = sa.select(Row.port_id, Row.server_id, Row.project_id).join(
            models.Pool, models.Pool.id == Row.pool_id).where(
                Row.state.in_(states.IN_USE), Row.port_id.is_not(None),
                Row.gone_since.is_(None))
        if network_id is not None:
            query = query.where(models.Pool.network_id == network_id)
        # those that have been there for longest are the surest
        if not_of:
            query = query.order_by(sa.case((Row.project_id == not_of, 1),
                                           else_=0))
        query = query.order_by(Row.changed_at, Row.id).limit(
            limit + len(without))
        with self.database.read() as session:
            return [types.Witness(port_id, server_id, project_id)
                    for port_id, server_id, project_id
                    in session.execute(query).tuples()
                    if port_id and port_id not in without][:limit]

    def unknown_ports(self, subnet_id: str,
                      found: Collection[tuple[Any, str]],
                      ) -> Iterator[tuple[Any, str]]:
        """Yield those of (address, port id) that the inventory lacks.

        That is what is in a range of the pool and free there.
        """
        with self.database.read() as session:
            pool = session.scalars(sa.select(models.Pool).where(
                models.Pool.subnet_id == subnet_id)).one_or_none()
            if pool is None:
                return
            within = pools.ranges(session, pool.id)
            inside = [one for one in found
                      if within.position(one[0]) is not None]
            held = set(session.scalars(sa.select(Row.address).where(
                Row.pool_id == pool.id, Row.state.not_in(states.VACANT),
                Row.address.in_([address for address, _ in inside]))))
        yield from (one for one in inside if one[0] not in held)

    @transactions.write
    def adopt_port(self, session: orm.Session, subnet_id: str,
                   found: records.InUse) -> bool:
        """Take an address of a port that the inventory lacks.

        :returns: False where the address is somebody's by now.
        """
        pool = session.scalars(sa.select(models.Pool).where(
            models.Pool.subnet_id == subnet_id)).one_or_none()
        if pool is None:
            return False
        row = session.scalars(sa.select(Row).where(
            Row.pool_id == pool.id,
            Row.address == found.address)).one_or_none()
        if row is not None and row.state not in states.VACANT:
            return False
        pools.adopt(session, pool, [found])
        return True

    @transactions.write
    def trim_losses(self, session: orm.Session) -> None:
        """Forget releases that no longer count."""
        session.execute(sa.delete(Loss).where(
            Loss.at <= clock.now() - WINDOW)
            .execution_options(synchronize_session=False))


def note(session: orm.Session, row: Row,
         evidence: states.Evidence | None) -> None:
    """Note a release that Neutron itself did not report.

    Before the release; what an operator has confirmed does not count.
    """
    if evidence is None or evidence is states.Evidence.COMMITTED:
        return
    until = row.loss_confirmed_until
    if until is None or until <= clock.now():
        session.add(Loss(pool_id=row.pool_id, at=clock.now()))


def _count(session: orm.Session, which: Any) -> dict[str, int]:
    return dict(session.execute(
        sa.select(Row.pool_id, sa.func.count()).where(which)
        .group_by(Row.pool_id)).tuples().all())
