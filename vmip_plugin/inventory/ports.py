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

"""Neutron's ports: claimed, running, released."""

from collections.abc import Iterator, Sequence
import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import entries
from vmip_plugin.inventory import history
from vmip_plugin.inventory import models
from vmip_plugin.inventory import moves
from vmip_plugin.inventory import picking
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin.inventory import transactions
from vmip_plugin import types

#: Seconds for which the reclaimer leaves a new claim's host entry to the
#: listener, which is told of the port when Neutron has committed it.
CLAIM_GRACE = 5
#: The same for a released address.
RELEASE_GRACE = 2
#: Addresses still being released that are looked at on the wire at a time.
MOST_LOOKED_AT = 8
#: Addresses that are read at a time.
_PAGE = 1000

Event = states.Event
State = states.State
Row = models.AddressRow


class Ports(transactions.Transactions):
    """The part of the list that follows Neutron's ports."""

    @transactions.write
    def claim(self, session: orm.Session, *, subnet_id: str,
              requester: records.Requester, port_id: str, mac: str | None,
              server_id: str | None, address: types.Address | None = None,
              skip: Sequence[types.Address] = (), serve: bool = True,
              silent: Sequence[records.Address] = (),
              ) -> records.Claim | None:
        """Give a port its address, as Neutron makes the port.

        The request's reservation is taken; where it has none, any free
        address; where none is free, one whose holder is gone for sure, though
        the DHCP servers have yet to forget it. In the same transaction the
        host entry becomes work to do.

        :param server_id: the port's device, None where it has none.
        :param address: the address that the caller of Neutron asked for.
        :param skip: addresses that are not to be picked: Neutron refused
            them as already given away, or they answer on the wire.
        :param serve: False for ports that no DHCP server shall know.
        :param silent: addresses of an earlier :exc:`AddressReleasing` that
            are silent on the wire.
        :returns: None where the subnet has no pool or ``address`` is in none
            of its ranges: the address is Neutron's business.
        :raises PoolExhausted: no address is free.
        :raises AddressInUse: ``address`` is held by somebody else.
        :raises AddressReleasing: an address can be had if it is silent on
            the wire: look, and call again.
        """
        pool = pools.of_subnet(session, subnet_id)
        if pool is None:
            return None
        self._known.note(pool.network_id, pool.subnet_id)
        values = {'request_id': requester.request_id,
                  'project_id': requester.project_id, 'port_id': port_id,
                  'mac': mac, 'server_id': server_id, 'expires_at': None,
                  'gone_since': None, 'answered_at': None}
        name: str | None = None
        row: Row | None
        if address is not None:
            row = pools.row(session, pool, address)
            if row is None:
                return None
            before = _claimed_before(session, values, Row.id == row.id)
            if before is not None:
                return records.Claim(before.address, repeated=True,
                                     port_id=before.port_id or '')
            _claim_given(session, row, requester, values, silent)
        else:
            before = _claimed_before(session, values, Row.pool_id == pool.id,
                                     Row.address.not_in(skip))
            if before is not None:
                return records.Claim(before.address, repeated=True,
                                     port_id=before.port_id or '')
            row, name = _claim_reserved(session, pool, requester, values,
                                        skip, silent)
            if row is None:
                row = picking.pick(
                    session, pool, '', Event.CLAIM, State.CLAIMED,
                    'port without a reservation', **values)
            if row is None:
                row = _claim_releasing(session, pool, values, skip, silent)
        if row is None:
            raise exceptions.PoolExhausted(
                f'No free address is left in pool {pool.name}')
        if serve:
            entries.want_all(session, pool, row, clock.after(CLAIM_GRACE),
                             name, anew=True)
        return records.Claim(row.address, repeated=False, port_id=port_id)

    def find_address(self, subnet_id: str, address: types.Address,
                     ) -> records.Address | None:
        """Return how an address stands, None where no pool has it."""
        with self.database.read() as session:
            row = _row(session, subnet_id, address)
            return None if row is None else records.Address.of(row)

    @transactions.write
    def disown(self, session: orm.Session, subnet_id: str,
               address: types.Address) -> None:
        """Give up a claim on an address that Neutron gave to somebody else.

        That happens where Neutron had another IPAM driver for a while. The
        address is adopted: in use, and not by a server of ours.
        """
        row = _claimed(session, subnet_id, address)
        if row is None:
            return
        for entry in moves.entries(session, row.id):
            # a worker may have written it already
            entries.want(entry, present=False, at=clock.now())
        moves.move(session, row, Event.ADOPT, State.ADOPTED,
                   'Neutron had given it away', **moves.NOBODY)

    @transactions.write
    def undo_claim(self, session: orm.Session, subnet_id: str,
                   address: types.Address, port_id: str, ttl: int,
                   evidence: states.Evidence | None = None) -> bool:
        """Give a claim back whose port was not made after all.

        What was reserved is reserved as it was before: Nova tries a failed
        port once more, with the same request. What was still being released
        is being released as before.

        :param port_id: the port: what another has got since stays its own.
        :param ttl: seconds until that reservation ends.
        :param evidence: what shows that the port is not there.
        :returns: False where there was no claim.
        """
        row = _claimed(session, subnet_id, address)
        if row is None or row.port_id != port_id:
            return False
        before = _reservation(session, row)
        former = _former_release(session, row)
        _undo_entries(session, row, former)
        if former is not None:
            evidence = states.Evidence(row.evidence or '')
        elif before is not None:
            # nobody has had it: there is nothing to look at
            evidence = None
        _release(session, row, 'the port was not made', evidence=evidence,
                 holder=former if before is None else None)
        if before is not None:
            moves.move(session, row, Event.RESERVE, State.RESERVED,
                       'for another try of the request', **{
                           **moves.NOBODY, **before,
                           'expires_at': clock.after(ttl)})
        return True

    @transactions.write
    def hand_over(self, session: orm.Session, subnet_id: str,
                  address: types.Address, claimed_by: str, port_id: str,
                  mac: str | None, serve: bool) -> None:
        """Give a claim to the port that a later try of its create made.

        :param claimed_by: the port that has it now.
        :raises ClaimLost: it has it no more.
        """
        row = _claimed(session, subnet_id, address)
        if row is None or row.port_id not in (claimed_by, port_id):
            raise exceptions.ClaimLost(
                f'{address} is not port {claimed_by}\'s any more')
        if (row.port_id, row.mac) == (port_id, mac):
            return
        moves.move(session, row, Event.CHANGE, State.CLAIMED,
                   'Neutron has made the port anew', port_id=port_id, mac=mac)
        if serve:
            entries.want_all(
                session, session.get_one(models.Pool, row.pool_id), row,
                clock.after(CLAIM_GRACE))

    def reserved_subnets(self, requester: records.Requester,
                         server_id: str | None) -> set[str]:
        """Return the subnets in which a claim would find a reservation."""
        with self.database.read() as session:
            return set(session.scalars(
                sa.select(models.Pool.subnet_id).join(
                    Row, Row.pool_id == models.Pool.id).where(
                        _is_reserved_for(requester, server_id))))

    def activate(self, server_id: str, server_name: str | None,
                 macs: Sequence[str]) -> None:
        """Note that a server runs, as :meth:`activate_all` does."""
        self.activate_all([records.Running(server_id, server_name,
                                           frozenset(macs))])

    @transactions.write
    def activate_all(self, session: orm.Session,
                     running: Sequence[records.Running]) -> None:
        """Note that servers run. Told twice, it does nothing."""
        macs: dict[str, set[str]] = {}
        for server in running:
            macs.setdefault(server.server_id, set()).update(server.macs)
        names = {server.server_id: server.name for server in running}
        # in one order, so that two workers do not wait for each other
        for row in session.scalars(sa.select(Row).where(
                Row.server_id.in_(macs), Row.state == State.CLAIMED)
                .order_by(Row.id)).all():
            server_id = row.server_id or ''
            if row.mac in macs[server_id]:
                moves.move(session, row, Event.ACTIVATE, State.ACTIVE,
                           'server runs',
                           # one of a request for several may have got
                           # another's reservation: Nova's word goes before
                           # the request's
                           server_name=names[server_id] or row.server_name,
                           evidence=None)

    @transactions.write
    def change_mac(self, session: orm.Session, port_id: str,
                   mac: str) -> None:
        """Note that a port has another MAC now; its entries become work."""
        for row in session.scalars(sa.select(Row).where(
                Row.port_id == port_id, Row.mac != mac,
                Row.state.in_([State.CLAIMED, State.ACTIVE]))).all():
            moves.move(session, row, Event.CHANGE, State(row.state),
                       'the port has another MAC', mac=mac)
            for entry in moves.entries(session, row.id):
                # a server that the pool is leaving has to forget the MAC
                # that it knows
                if entry.present:
                    entry.mac = mac
                    entries.want(entry, present=True, at=clock.now())

    @transactions.write
    def change_server(self, session: orm.Session, port_id: str,
                      server_id: str | None) -> None:
        """Note that a port is another server's now, or no server's.

        Its address is only claimed then, until that server is told to run.
        """
        for row in session.scalars(sa.select(Row).where(
                Row.port_id == port_id,
                Row.state.in_([State.CLAIMED, State.ACTIVE]))).all():
            if row.server_id != server_id:
                moves.move(session, row, Event.CHANGE, State.CLAIMED,
                           'the port is another server\'s' if server_id
                           else 'no server has the port any more',
                           server_id=server_id, server_name=None)

    @transactions.write
    def release_address(self, session: orm.Session, subnet_id: str,
                        address: types.Address, reason: str,
                        evidence: states.Evidence | None = None,
                        port_id: str | None = None) -> bool:
        """Start the release of an address whose port is deleted.

        Where that has begun on weaker evidence, this goes for it too.

        :param evidence: what shows that its holder is gone.
        :param port_id: only if this port has it.
        :returns: False where there was nothing to release.
        """
        row = _row(session, subnet_id, address)
        if row is None or port_id is not None and row.port_id != port_id:
            return False
        if row.state == State.RELEASING and evidence is not None and (
                row.evidence is None
                or evidence.rank < states.Evidence(row.evidence).rank):
            moves.swap(session, row, {'evidence': evidence.value})
            for entry in moves.entries(session, row.id):
                if not entry.done:
                    entry.next_try_at = clock.now()
            return False
        return _release(session, row, reason, evidence=evidence)

    @transactions.write
    def release(self, session: orm.Session,
                held: records.Address | records.Held, reason: str,
                evidence: states.Evidence | None = None) -> bool:
        """Start the release of an address, if its holder is still the same.

        :param evidence: what shows that its holder is gone.
        :returns: False where it has changed since it was read.
        """
        row = session.get(Row, held.id)
        return (row is not None and row.generation == held.generation
                and _release(session, row, reason, evidence=evidence))

    @transactions.write
    def release_ports(self, session: orm.Session, port_ids: Sequence[str],
                      reason: str,
                      evidence: states.Evidence | None = None) -> int:
        """Start the release of what the ports had that Neutron deleted.

        An adopted address is left alone, as its port may not be its own.

        :param evidence: what shows that they are gone.
        :returns: how many addresses.
        """
        # in one order, so that two workers do not wait for each other
        rows = session.scalars(sa.select(Row).where(
            Row.port_id.in_(port_ids),
            Row.state.in_([State.CLAIMED, State.ACTIVE]))
            .order_by(Row.id)).all()
        entries_of = moves.entries_of(session, [row.id for row in rows])
        return sum(_release(session, row, reason, entries_of[row.id], evidence)
                   for row in rows)

    @transactions.write
    def keep(self, session: orm.Session, work: records.Work) -> None:
        """Take a release back: Neutron says that the port is still there.

        It had begun on less than Neutron's own commit.
        """
        entry = session.get(models.HostEntryRow, work.id)
        if entry is None or entry.generation != work.generation:
            return
        row = session.get(Row, entry.address_id)
        if row is not None and row.state == State.RELEASING:
            moves.move(session, row, Event.KEEP, State.CLAIMED,
                       'Neutron still has the port', gone_since=None,
                       evidence=None, answered_at=None)
            # on every server: some may have lost theirs already
            entries.want_all(
                session, session.get_one(models.Pool, row.pool_id), row,
                clock.now())

    @transactions.write
    def rest_over(self, session: orm.Session, limit: int = 500) -> int:
        """Free the addresses whose quarantine is over.

        :returns: how many.
        :raises ClockSetBack: this host's clock is no measure of that.
        """
        history.check_clock(session)
        return moves.rest(session, sa.true(), limit)

    def held_by_port(self, network_id: str, before: datetime.datetime,
                     ) -> Iterator[records.Held]:
        """Yield a network's addresses that a port has, by the port's id.

        :param before: only what has not changed since.
        """
        with self.database.read() as session:
            pool_ids = session.scalars(sa.select(models.Pool.id).where(
                models.Pool.network_id == network_id)).all()
        return self._held(Row.port_id, Row.port_id.is_not(None),
                          Row.pool_id.in_(pool_ids), Row.changed_at < before)

    def held_by_server(self, before: datetime.datetime,
                       ) -> Iterator[records.Held]:
        """Yield the addresses that a server's ports have, by its id.

        :param before: only what has not changed since.
        """
        return self._held(Row.server_id, Row.server_id.is_not(None),
                          Row.port_id.is_not(None), Row.changed_at < before)

    def held_without_port(self, before: datetime.datetime,
                          ) -> Iterator[records.Held]:
        """Yield the addresses in use of which no port is known.

        :param before: only what has not changed since.
        """
        return self._held(None, Row.port_id.is_(None),
                          Row.changed_at < before)

    def held_by_servers(self, server_ids: Sequence[str],
                        ) -> list[records.Held]:
        """Return the addresses that ports of these servers have."""
        return list(self._held(Row.server_id, Row.server_id.in_(server_ids),
                               Row.port_id.is_not(None)))

    def held_by_nobody(self, since: datetime.datetime,
                       ) -> Iterator[records.Held]:
        """Yield the addresses in use whose port has not been found lately.

        :param since: not found at that time already.
        """
        return self._held(Row.gone_since, Row.gone_since <= since)

    def _held(self, by: Any, *where: Any) -> Iterator[records.Held]:
        """Yield addresses that Neutron should know, a page at a time.

        :param by: a column with an index, whose order they have; None: any.
        """
        order = (Row.id,) if by is None else (by, Row.id)
        query: Any = sa.select(
            Row.id, Row.generation, Row.address, Row.port_id, Row.gone_since,
            Row.state, Row.mac, Row.server_id, Row.pool_id).where(
                Row.state.in_(states.IN_USE), *where).order_by(
                    *order).limit(_PAGE)
        if by is not None:
            # MySQL would rather sort the whole pool for each page
            query = query.with_hint(
                Row, f'FORCE INDEX (ix_addresses_{by.key})', 'mysql')
        with self.database.read() as session:
            networks = dict(session.execute(sa.select(
                models.Pool.id, models.Pool.network_id)).tuples().all())
        after: list[Any] | None = None
        while True:
            page = query if after is None else query.where(
                transactions.beyond(order, after))
            with self.database.read() as session:
                # a pool may be younger than the look at all of them
                found = [records.Held(*(*values, networks.get(pool_id, '')))
                         for *values, pool_id in session.execute(page)]
            yield from found
            if len(found) < _PAGE:
                return
            after = [getattr(found[-1], column.key) for column in order]

    @transactions.write
    def note_gone(self, session: orm.Session, held: Sequence[records.Held],
                  since: datetime.datetime | None) -> None:
        """Note since when Neutron has not known the ports of addresses.

        :param since: None: it knows them.
        """
        session.execute(
            sa.update(Row).where(sa.tuple_(Row.id, Row.generation).in_(
                [(h.id, h.generation) for h in held]))
            .values(gone_since=since)
            .execution_options(synchronize_session=False))

    @transactions.write
    def note_answered(self, session: orm.Session,
                      held: records.Address | records.Held | records.Work,
                      at: datetime.datetime | None) -> bool:
        """Note when an address whose holder is gone answered on the wire.

        It is handed over to nobody until it was probed again and is silent.

        :param held: the address, or the host entry's work, as it was read.
        :param at: None: it is silent.
        :returns: False where it has changed since.
        """
        entry = models.HostEntryRow
        which: sa.ColumnElement[bool]
        if isinstance(held, records.Work):
            # read first: InnoDB locks what an UPDATE reads of another table
            which = Row.id.in_(session.scalars(sa.select(
                entry.address_id).where(
                    entry.id == held.id,
                    entry.generation == held.generation)).all())
        else:
            which = sa.and_(Row.id == held.id,
                            Row.generation == held.generation)
        changed: Any = session.execute(
            sa.update(Row).where(which).values(answered_at=at)
            .execution_options(synchronize_session=False))
        return bool(changed.rowcount)


def _row(session: orm.Session, subnet_id: str, address: types.Address,
         ) -> Row | None:
    return session.scalars(sa.select(Row).join(
        models.Pool, models.Pool.id == Row.pool_id).where(
            models.Pool.subnet_id == subnet_id, Row.address == address,
    )).one_or_none()


def _claimed(session: orm.Session, subnet_id: str, address: types.Address,
             ) -> Row | None:
    row = _row(session, subnet_id, address)
    return row if row is not None and row.state == State.CLAIMED else None


def _reservation(session: orm.Session, row: Row) -> dict[str, Any] | None:
    """Return for whom a claimed address had been reserved, if it had been.

    Only the history knows whether for this very server: of several in one
    request any may have come for it.
    """
    if not row.request_id:
        return None
    line = models.HistoryRow
    found = session.scalars(sa.select(line).where(
        line.pool_id == row.pool_id, line.address == row.address,
        line.new_state == State.RESERVED, line.request_id == row.request_id,
        line.project_id == row.project_id,
        line.server_name == row.server_name)
        .order_by(line.at.desc(), line.id.desc()).limit(1)).first()
    return None if found is None else {
        key: getattr(found, key) for key in (
            'request_id', 'project_id', 'server_id', 'server_name')}


def _former_release(session: orm.Session, row: Row,
                    ) -> dict[str, Any] | None:
    """Return whose release the claim of an address did not wait for."""
    if row.evidence is None:
        return None
    line = models.HistoryRow
    found = session.scalars(sa.select(line).where(
        line.pool_id == row.pool_id, line.address == row.address,
        line.new_state == State.RELEASING)
        .order_by(line.at.desc(), line.id.desc()).limit(1)).first()
    if found is None:
        return dict.fromkeys(states.HOLDER)
    standing = records.Change.of(found).standing()
    return {key: getattr(standing, key) for key in states.HOLDER}


def _undo_entries(session: orm.Session, row: Row,
                  former: dict[str, Any] | None) -> None:
    """Let entries name again whom the DHCP servers know.

    That is the former holder, unless the new one's is written already.
    """
    if former and former['mac']:
        for entry in moves.entries(session, row.id):
            if not entry.done:
                entry.mac = former['mac']


def _claimed_before(session: orm.Session, values: dict[str, Any],
                    *where: Any) -> Row | None:
    """Return what a try of the port's create claimed before it failed.

    Neutron runs a create again after a deadlock, often with another id and
    MAC for the port; what its database forgot then, the list still has. It
    may be another interface of the same server too: which of both it is,
    Neutron's database tells when it is asked for the address.
    """
    same = Row.port_id == values['port_id']
    if values['server_id'] is not None:
        same = sa.or_(same, sa.and_(
            *(getattr(Row, key) == values[key] for key in
              ('request_id', 'project_id', 'server_id'))))
    return session.scalars(sa.select(Row).where(
        same, Row.state == State.CLAIMED, *where)).first()


def _claim_reserved(session: orm.Session, pool: models.Pool,
                    requester: records.Requester, values: dict[str, Any],
                    skip: Sequence[types.Address],
                    silent: Sequence[records.Address],
                    ) -> tuple[Row | None, str | None]:
    """Claim one of the request's addresses.

    :returns: the address, and the server's name where it is certain: of
        several servers in one request any may come for any address.
    """
    ours = sa.select(Row).where(
        Row.pool_id == pool.id, Row.address.not_in(skip),
        _is_reserved_for(requester, values['server_id'])
        # the one that Nova's answer tied to this server goes first
    ).order_by(Row.server_id.is_(None), Row.pick_key).limit(1)
    row = session.scalars(ours.with_for_update(skip_locked=True)).first()
    if row is None:
        if session.scalars(ours).first() is not None:
            raise moves.Overtaken('the reservation is just being changed')
        return None, None
    _check_wire(session, row, silent)
    name = row.server_name if row.server_id else None
    moves.move(session, row, Event.CLAIM, State.CLAIMED,
               'port of the request', **values)
    return row, name


def _is_reserved_for(requester: records.Requester,
                     server_id: str | None) -> Any:
    return sa.and_(
        Row.state == State.RESERVED,
        Row.request_id == requester.request_id,
        Row.project_id == requester.project_id,
        sa.or_(Row.server_id.is_(None), Row.server_id == server_id))


def _claim_given(session: orm.Session, row: Row,
                 requester: records.Requester, values: dict[str, Any],
                 silent: Sequence[records.Address]) -> None:
    state = State(row.state)
    kept_for_it = (row.hold_project == requester.project_id
                   # kept back for whoever asks for it
                   or row.hold_name == '' and row.hold_project is None)
    ours = state in states.VACANT or (
        state is State.RESERVED
        and row.project_id == requester.project_id
        and row.request_id == requester.request_id) or (
        state is State.RESERVED and row.request_id is None
        and kept_for_it) or (
        state is State.RELEASING
        and (kept_for_it or not moves.is_held(row))
        and (_is_its_own(row, values) or row.evidence in states.PROOF))
    if not ours:
        raise exceptions.AddressInUse(f'{row.address} is {state}')
    if state is State.RELEASING and not _is_its_own(row, values):
        # whose name that is, is not this port's
        values = {**values, 'server_name': None}
    if not _is_its_own(row, values):
        _check_wire(session, row, silent)
    moves.move(session, row, Event.CLAIM, State.CLAIMED,
               'port with this address', **values)


def _is_its_own(row: Row, values: dict[str, Any]) -> bool:
    """Tell whether the port had the address: it answers there itself."""
    return bool(row.port_id) and row.port_id == values['port_id']


def _claim_releasing(session: orm.Session, pool: models.Pool,
                     values: dict[str, Any], skip: Sequence[types.Address],
                     silent: Sequence[records.Address]) -> Row | None:
    """Claim what has been silent longest of what is being released."""
    rows = picking.releasing(session, [pool], skip, limit=MOST_LOOKED_AT)
    for row in rows:
        if _is_among(row, silent):
            moves.move(session, row, Event.CLAIM, State.CLAIMED,
                       'nothing else is free',
                       **{**values, 'server_name': None})
            return row
    if rows:
        raise exceptions.AddressReleasing(
            [records.Address.of(row) for row in rows])
    return None


def _check_wire(session: orm.Session, row: Row,
                silent: Sequence[records.Address]) -> None:
    """Let nobody have what DHCP servers still know, unless it is silent.

    :raises AddressReleasing: that was not looked at.
    """
    if (row.evidence is not None and not _is_among(row, silent)
            and moves.entries(session, row.id)):
        raise exceptions.AddressReleasing([records.Address.of(row)])


def _is_among(row: Row, silent: Sequence[records.Address]) -> bool:
    return (row.id, row.generation) in {
        (held.id, held.generation) for held in silent}


def _release(session: orm.Session, row: Row, reason: str,
             found: Sequence[models.HostEntryRow] | None = None,
             evidence: states.Evidence | None = None,
             holder: dict[str, Any] | None = None) -> bool:
    if State(row.state) not in states.IN_USE:
        return False
    values: dict[str, Any] = {
        'gone_since': None, 'answered_at': None,
        'evidence': evidence and evidence.value, **(holder or {})}
    if row.server_name is not None:
        values.update(former_name=row.server_name,
                      former_project=row.project_id)
    moves.move(session, row, Event.RELEASE, State.RELEASING, reason, **values)
    if found is None:
        found = moves.entries(session, row.id)
    # Neutron may tell of a delete before others can see it.
    grace = 0 if evidence is states.Evidence.COMMITTED else RELEASE_GRACE
    for entry in found:
        entries.want(entry, present=False, at=clock.after(grace))
    if not found:
        moves.vacate(session, row, Event.FINISH, '')
    return True
