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

"""What the list tells of the present."""

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from vmip_plugin.inventory import models
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin.inventory import transactions
from vmip_plugin import types

Row = models.AddressRow


class Questions(transactions.Transactions):
    """The part of the list that only answers."""

    def pools(self) -> list[tuple[records.Pool, dict[str, int]]]:
        """Return every pool with its number of addresses in each state."""
        with self.database.read() as session:
            return [(pools.record(session, pool), pools.usage(session, pool))
                    for pool in session.scalars(
                        sa.select(models.Pool).order_by(models.Pool.name))]

    def usage(self) -> dict[str, dict[str, int]]:
        """Return how many addresses of each pool are in each state.

        By the pool's name; the rest as in
        :func:`vmip_plugin.inventory.pools.usage`.
        """
        with self.database.read() as session:
            names = dict(session.execute(
                sa.select(models.Pool.id, models.Pool.name)).tuples().all())
            counts = pools.usages(session)
        return {name: counts[id] for id, name in names.items()
                if id in counts}

    def pool(self, name: str) -> records.Pool:
        """Return the pool of that name, id or subnet.

        :raises PoolNotFound: there is none.
        """
        with self.database.read() as session:
            return pools.record(session, pools.find(session, name))

    def networks_of(self, addresses: Sequence[types.Address],
                    ) -> dict[types.Address, frozenset[str]]:
        """Return the networks that have each address in one of their pools."""
        if not addresses:
            return {}
        with self.database.read() as session:
            runs = session.execute(
                sa.select(models.Pool.network_id, models.Range.first,
                          models.Range.last).join(
                    models.Range, models.Range.pool_id == models.Pool.id)
            ).tuples().all()
        return {address: frozenset(
            network for network, first, last in runs
            if first.version == address.version
            and int(first) <= int(address) <= int(last))
            for address in addresses}

    def of_ports(self, port_ids: Sequence[str]) -> list[records.Address]:
        """Return the addresses of these ports."""
        return self._of(Row.port_id.in_(port_ids))

    def at(self, addresses: Sequence[types.Address],
           ) -> list[records.Address]:
        """Return how these addresses stand, in each of their pools."""
        return self._of(Row.address.in_(addresses))

    def of_server(self, server_id: str) -> list[records.Address]:
        """Return the addresses of a server."""
        return self.of_servers([server_id])

    def of_servers(self, server_ids: Sequence[str]) -> list[records.Address]:
        """Return the addresses of these servers."""
        return self._of(Row.server_id.in_(server_ids))

    def _of(self, which: Any) -> list[records.Address]:
        with self.database.read() as session:
            return [records.Address.of(row) for row in session.scalars(
                sa.select(Row).where(which))]

    def addresses(self, *, pool: str | None = None,
                  state: Sequence[states.State] | None = None,
                  address: types.Address | None = None,
                  server: str | None = None,
                  project: str | None = None,
                  held_by_hand: bool = False, page: int = 1000) -> Iterator[
                      tuple[records.Pool, records.Address]]:
        """Return addresses in their order; free ones only if asked for.

        :param server: a server's id or name.
        :param page: how many are read at a time.
        :raises PoolNotFound: there is no such pool.
        """
        query = sa.select(Row).order_by(Row.address).limit(page)
        if state:
            query = query.where(Row.state.in_(state))
        elif address is None:
            query = query.where(Row.state != states.State.FREE)
        if address is not None:
            query = query.where(Row.address == address)
        if server is not None:
            query = query.where(sa.or_(Row.server_id == server,
                                       Row.server_name == server,
                                       Row.hold_name == server))
        if project is not None:
            query = query.where(sa.or_(Row.project_id == project,
                                       Row.hold_project == project))
        if held_by_hand:
            query = query.where(Row.hold_name.is_not(None))
        with self.database.read() as session:
            found = ([pools.find(session, pool)] if pool is not None else
                     session.scalars(sa.select(models.Pool).order_by(
                         models.Pool.name)).all())
            of = [pools.record(session, one) for one in found]
        return self._pages(of, query, page)

    def _pages(self, of: Sequence[records.Pool], query: Any, page: int,
               ) -> Iterator[tuple[records.Pool, records.Address]]:
        for record in of:
            last: types.Address | None = None
            while True:
                part = query.where(Row.pool_id == record.id)
                if last is not None:
                    part = part.where(Row.address > last)
                with self.database.read() as session:
                    rows = [records.Address.of(row)
                            for row in session.scalars(part)]
                for row in rows:
                    yield record, row
                if len(rows) < page:
                    break
                last = rows[-1].address
