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

"""Host entries: what the DHCP servers have to have, and how far they are."""

from collections.abc import Sequence
import datetime
import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import attributes

from vmip_plugin.inventory import clock
from vmip_plugin.inventory import models
from vmip_plugin.inventory import moves
from vmip_plugin.inventory import records
from vmip_plugin.inventory import serving
from vmip_plugin.inventory import states
from vmip_plugin.inventory import transactions
from vmip_plugin import types

Row = models.AddressRow


class Entries(transactions.Transactions):
    """The part of the list that the DHCP servers are brought to."""

    def work(self, limit: int | None = 500,
             port_ids: Sequence[str] | None = None,
             server: str | None = None, present: bool | None = None,
             unserved: bool = False) -> list[records.Work]:
        """Return host entries that a server does not have as it should.

        Where another server is to serve a holder instead, the old one goes on
        until the new one has the entry.

        :param limit: most of them; None: all.
        :param port_ids: those of these ports, due or not; otherwise those
            whose next try is due.
        :param server: only this one's.
        :param present: only what has to be there, or only what has to go.
        :param unserved: only of addresses that no server serves yet.
        """
        entry, other = models.HostEntryRow, orm.aliased(models.HostEntryRow)
        query = sa.select(entry, Row).join(
            Row, Row.id == entry.address_id).where(
                entry.done.is_(False),
                sa.or_(entry.present.is_(True),
                       Row.state.not_in(states.IN_USE),
                       ~sa.exists().where(
                           other.address_id == entry.address_id,
                           other.present.is_(True), other.done.is_(False)))
            ).order_by(entry.next_try_at)
        if port_ids is None:
            query = query.where(entry.next_try_at <= clock.now())
        else:
            query = query.where(Row.port_id.in_(port_ids))
        if server is not None:
            query = query.where(entry.server == server)
        if present is not None:
            query = query.where(entry.present.is_(present))
        if unserved:
            query = query.where(~sa.exists().where(
                other.address_id == entry.address_id,
                other.present.is_(True), other.done.is_(True)))
        with self.database.read() as session:
            return [_work(e, a) for e, a in
                    session.execute(query.limit(limit)).tuples()]

    def undone(self) -> list[records.Undone]:
        """Return how much is to do on each DHCP server, due or not."""
        entry = models.HostEntryRow
        with self.database.read() as session:
            return [records.Undone(*row) for row in session.execute(
                sa.select(entry.server, entry.present, sa.func.count(),
                          sa.func.min(entry.wanted_at)).where(
                    entry.done.is_(False)).group_by(
                        entry.server, entry.present)).tuples()]

    def waiting(self) -> list[records.Waiting]:
        """Return how many host entries wait, by DHCP server and reason."""
        entry = models.HostEntryRow
        with self.database.read() as session:
            found = session.execute(
                sa.select(entry.server, entry.waiting_for, sa.func.count())
                .where(entry.done.is_(False), entry.waiting_for.is_not(None))
                .group_by(entry.server, entry.waiting_for)).tuples()
            return [records.Waiting(server, states.WaitingFor(reason), count)
                    for server, reason, count in found if reason]

    def waiting_addresses(self) -> dict[int, set[states.WaitingFor]]:
        """Return what the host entries of addresses wait for, by their id."""
        entry = models.HostEntryRow
        found: dict[int, set[states.WaitingFor]] = {}
        with self.database.read() as session:
            for address_id, reason in session.execute(
                    sa.select(entry.address_id, entry.waiting_for).where(
                        entry.done.is_(False),
                        entry.waiting_for.is_not(None))).tuples():
                if reason:
                    found.setdefault(address_id, set()).add(
                        states.WaitingFor(reason))
        return found

    def due(self) -> list[tuple[str, bool]]:
        """Return the DHCP servers on which something is due.

        :returns: each with whether it has to be there or has to go.
        """
        entry = models.HostEntryRow
        with self.database.read() as session:
            return sorted((server, present) for server, present in
                          session.execute(sa.select(
                              entry.server, entry.present).distinct().where(
                                  entry.done.is_(False),
                                  entry.next_try_at <= clock.now())).tuples())

    def work_done(self, work: records.Work) -> bool:
        """Note that a server has an entry as it should.

        :returns: False where something else is wanted by now, as
            :meth:`work_done_all` says.
        """
        return not self.work_done_all([work])

    @transactions.write
    def work_done_all(self, session: orm.Session,
                      work: Sequence[records.Work]) -> list[records.Work]:
        """Note that servers have entries as they should.

        The last entry of an address that is being released frees it.

        :returns: those for which something else is wanted by now: the server
            may have just been given the wrong thing, so ask for the work
            again (:meth:`redo`).
        """
        written = [item for item in work if item.present]
        overtaken = _written(session, written) if written else []
        gone = [item for item in work if not item.present]
        if gone:
            overtaken += _removed(session, gone)
        return overtaken

    @transactions.write
    def work_failed(self, session: orm.Session, work: records.Work,
                    error: str, delay: float, port_gone: bool = False,
                    ) -> None:
        """Note that a try failed for a reason of this entry's own.

        :param delay: seconds until the next try.
        :param port_gone: Neutron has said that the address's port is gone.
        """
        entry = session.get(models.HostEntryRow, work.id)
        if (entry is None or entry.generation != work.generation
                or entry.done):
            return
        entry.error = error[:1000]
        entry.attempts = work.attempts + 1
        entry.next_try_at = clock.after(delay)
        entry.waiting_for = entry.waiting_since = None
        if port_gone:
            _note_port_gone(session, [entry.address_id])

    @transactions.write
    def wait(self, session: orm.Session, work: Sequence[records.Work],
             waiting_for: states.WaitingFor, error: str, delay: float,
             port_gone: bool = False) -> None:
        """Note what these wait for. That is no failed try of theirs.

        :param error: the same as a sentence.
        :param delay: seconds until the next look. What waits for a party
            that was away is due before that when the party is back
            (:meth:`expedite`).
        :param port_gone: Neutron has said that the addresses' ports are gone.
        """
        entry = models.HostEntryRow
        now = sa.literal(clock.now(), models.HostEntryRow.waiting_since.type)
        session.execute(
            sa.update(entry).where(
                _as_read(work), entry.done.is_(False)).ordered_values(
                    # first: MySQL lets an assignment see those before it
                    (entry.waiting_since, sa.case(
                        (entry.waiting_for == waiting_for.value,
                         sa.func.coalesce(entry.waiting_since, now)),
                        else_=now)),
                    (entry.waiting_for, waiting_for.value),
                    (entry.error, error[:1000]),
                    (entry.next_try_at, clock.after(delay)))
            .execution_options(synchronize_session=False))
        if port_gone:
            _note_port_gone(session, [item.address_id for item in work])

    @transactions.write
    def note_answers(self, session: orm.Session,
                     answering: Sequence[records.Work],
                     silent: Sequence[records.Work]) -> None:
        """Note which addresses that are released answer on the wire."""
        for at, work, was in (
                (clock.now(), answering, sa.true()),
                (None, silent, Row.answered_at.is_not(None))):
            if ids := sorted({item.address_id for item in work
                              if item.releasing}):
                session.execute(
                    sa.update(Row).where(
                        Row.id.in_(ids), was,
                        Row.state == states.State.RELEASING)
                    .values(answered_at=at)
                    .execution_options(synchronize_session=False))

    @transactions.write
    def expedite(self, session: orm.Session, waiting_for: states.WaitingFor,
                 server: str | None = None) -> None:
        """Make due now what waits for a party that is back.

        :param server: only on this DHCP server; None: on all.
        """
        entry = models.HostEntryRow
        session.execute(
            sa.update(entry).where(
                entry.done.is_(False), entry.next_try_at > clock.now(),
                entry.waiting_for == waiting_for.value,
                entry.server == server if server is not None else sa.true())
            .values(next_try_at=clock.now())
            .execution_options(synchronize_session=False))

    @transactions.write
    def hurry(self, session: orm.Session, server: str) -> None:
        """Make all that is to do on a server due now."""
        entry = models.HostEntryRow
        session.execute(
            sa.update(entry).where(
                entry.server == server, entry.done.is_(False))
            .values(next_try_at=clock.now())
            .execution_options(synchronize_session=False))

    @transactions.write
    def redo(self, session: orm.Session, server: str,
             addresses: Sequence[types.Address],
             only_done: bool = False) -> None:
        """Have a server's entries for these addresses written anew.

        What has to go is to be done anyway, and whoever is at it would be
        overtaken for nothing.

        :param only_done: what is still to be done is left as it is.
        """
        entry = models.HostEntryRow
        # read first: InnoDB locks what an UPDATE reads of another table
        ids = session.scalars(
            sa.select(entry.id).join(Row, Row.id == entry.address_id).where(
                entry.server == server, Row.address.in_(addresses))).all()
        session.execute(
            sa.update(entry).where(
                entry.id.in_(ids), entry.present.is_(True),
                entry.done.is_(True) if only_done else sa.true()).values(
                done=False, generation=entry.generation + 1, attempts=0,
                error=None, next_try_at=clock.now(), wanted_at=clock.now(),
                waiting_for=None, waiting_since=None)
            .execution_options(synchronize_session=False))

    def entries(self, pending: bool = False) -> list[records.EntryStatus]:
        """Return what the DHCP servers have to have, and how far they are.

        :param pending: only what is still to be done.
        """
        entry = models.HostEntryRow
        query = sa.select(entry, Row.address).join(
            Row, Row.id == entry.address_id).order_by(
                entry.server, Row.address)
        if pending:
            query = query.where(entry.done.is_(False))
        with self.database.read() as session:
            return [records.EntryStatus(
                server=e.server, address=address, mac=e.mac,
                hostname=e.hostname, present=e.present, done=e.done,
                done_at=e.done_at, attempts=e.attempts,
                next_try_at=e.next_try_at, error=e.error,
                waiting_for=_waiting_for(e), waiting_since=e.waiting_since)
                for e, address in session.execute(query)]

    def wants(self, server: str, address: types.Address, mac: str) -> bool:
        """Tell whether a server has to have this entry."""
        entry = models.HostEntryRow
        with self.database.read() as session:
            return session.scalars(
                sa.select(entry.id).join(
                    Row, Row.id == entry.address_id).where(
                        entry.server == server, entry.mac == mac,
                        entry.present.is_(True),
                        Row.address == address)).first() is not None

    def intents(self, server: str,
                addresses: Sequence[types.Address] | None = None,
                ) -> dict[types.Address, records.Intent]:
        """Return what one DHCP server has to have.

        :param addresses: only of these.
        """
        entry = models.HostEntryRow
        query = sa.select(
            Row.address, entry.mac, entry.present, entry.done).join(
                Row, Row.id == entry.address_id).where(
                    entry.server == server)
        if addresses is not None:
            query = query.where(Row.address.in_(addresses))
        with self.database.read() as session:
            return {address: records.Intent(mac, present, done)
                    for address, mac, present, done
                    in session.execute(query).tuples()}


def _work(entry: models.HostEntryRow, row: Row) -> records.Work:
    # a former holder's, or on a server that serves this one no more
    left = not entry.present and row.state in states.IN_USE
    releasing = not entry.present and row.state == states.State.RELEASING
    return records.Work(
        id=entry.id, address_id=entry.address_id,
        generation=entry.generation, server=entry.server,
        pool_id=row.pool_id, address=row.address, mac=entry.mac,
        hostname=entry.hostname, present=entry.present,
        withdrawn=left and entry.mac == row.mac, attempts=entry.attempts,
        server_id=None if left else row.server_id,
        port_id=None if left else row.port_id, error=entry.error,
        wanted_at=entry.wanted_at, releasing=releasing,
        evidence=(states.Evidence(row.evidence)
                  if releasing and row.evidence else None),
        waiting_for=_waiting_for(entry), waiting_since=entry.waiting_since)


def _waiting_for(entry: models.HostEntryRow) -> states.WaitingFor | None:
    return (None if entry.waiting_for is None
            else states.WaitingFor(entry.waiting_for))


def _note_port_gone(session: orm.Session, address_ids: Sequence[int]) -> None:
    session.execute(sa.update(Row).where(
        Row.id.in_(address_ids), Row.gone_since.is_(None),
        Row.state == states.State.RELEASING,
    ).values(gone_since=clock.now())
        .execution_options(synchronize_session=False))


def _as_read(work: Sequence[records.Work]) -> Any:
    """Return the condition that an entry still is as this work found it."""
    entry = models.HostEntryRow
    return sa.tuple_(entry.id, entry.generation).in_(
        [(item.id, item.generation) for item in work])


def _written(session: orm.Session, work: Sequence[records.Work],
             ) -> list[records.Work]:
    """Mark entries done that a server has now; return those overtaken."""
    entry = models.HostEntryRow
    as_read = _as_read(work)
    changed: Any = session.execute(
        sa.update(entry).where(as_read).values(
            done=True, done_at=clock.now(), error=None, attempts=0,
            wanted_at=None, waiting_for=None, waiting_since=None)
        .execution_options(synchronize_session=False))
    if changed.rowcount == len(work):
        return []
    current = set(session.execute(
        sa.select(entry.id, entry.generation).where(as_read)).tuples())
    return [item for item in work
            if (item.id, item.generation) not in current]


def _removed(session: orm.Session, work: Sequence[records.Work],
             ) -> list[records.Work]:
    """Drop entries that a server no longer has; return those overtaken."""
    entry = models.HostEntryRow
    as_read = _as_read(work)
    # in one order, so that two workers do not wait for each other
    current = {e.id: row for e, row in session.execute(
        sa.select(entry, Row).join(Row, Row.id == entry.address_id)
        .where(as_read).order_by(Row.id)).tuples()}
    if not current:
        return list(work)
    rows = {row.id: row for row in current.values()}
    left = {id: [e for e in found if e.id not in current]
            for id, found in moves.entries_of(session, list(rows)).items()}
    changed: Any = session.execute(
        sa.delete(entry).where(as_read)
        .execution_options(synchronize_session=False))
    if changed.rowcount != len(current):
        raise moves.Overtaken('an entry changed meanwhile')
    for id, row in rows.items():
        # Two workers may each be about to take out the last but one: only
        # one of them at a time gets past the swap, and so sees the other's.
        if row.state == states.State.RELEASING and not left[id]:
            moves.vacate(session, row, states.Event.FINISH, '')
        else:
            moves.swap(session, row, {})
    return [item for item in work if item.id not in current]


def want_all(session: orm.Session, pool: models.Pool, row: Row,
             at: datetime.datetime, name: str | None = None,
             anew: bool = False) -> None:
    """Write down that the pool's servers have to have a holder's entry.

    :param at: when the reclaimer may see to it.
    :param name: of the server, where it is certain.
    :param anew: the holder is a new one: what is there names the last one.
    """
    have = {entry.server: entry for entry in moves.entries(session, row.id)}
    assert row.mac is not None
    for server in serving.of_address(json.loads(pool.dhcp_servers),
                                     row.address):
        entry = have.get(server)
        if entry is None:
            entry = models.HostEntryRow(
                address_id=row.id, server=server, generation=0,
                hostname=types.host_label(name))
            session.add(entry)
        elif anew:
            entry.hostname = types.host_label(name)
        entry.mac = row.mac
        want(entry, present=True, at=at)
    session.flush()


def want(entry: models.HostEntryRow, present: bool,
         at: datetime.datetime) -> None:
    """Write down what a server has to have; nothing is done yet."""
    entry.present = present
    entry.done = False
    entry.generation += 1
    entry.attempts = 0
    entry.error = None
    entry.waiting_for = entry.waiting_since = None
    entry.next_try_at = at
    entry.wanted_at = clock.now()
    # Written even where they are as they were read: another worker may have
    # marked the entry done since, which leaves the generation alone.
    for key in ('present', 'done', 'attempts', 'error', 'next_try_at',
                'waiting_for', 'waiting_since'):
        attributes.flag_modified(entry, key)
