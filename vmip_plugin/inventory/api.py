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

"""The list of every address and its holder: the one module that changes it.

Every public method is one transaction, holds no lock across a network call
and may be called again after any failure. Whether an address is still as it
was read is said by its generation (compare and swap), never by a lock.
"""

from collections.abc import Callable, Sequence
import datetime
import functools
import json
import time
from typing import Any
from typing import Concatenate
from typing import ParamSpec
from typing import TypeVar

from oslo_config import cfg
from oslo_db import api as db_api
from oslo_db import exception as db_exc
from oslo_log import log as logging
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import attributes
from sqlalchemy.orm import exc as orm_exc

from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import database
from vmip_plugin.inventory import models
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin import types

LOG = logging.getLogger(__name__)

#: Seconds for which the reclaimer leaves a new claim's host entry to the
#: listener, which is told of the port when Neutron has committed it.
CLAIM_GRACE = 5
#: The same for a released address.
RELEASE_GRACE = 2

P = ParamSpec('P')
T = TypeVar('T')

Event = states.Event
State = states.State
Row = models.AddressRow

_HOLDER = ('request_id', 'project_id', 'server_id', 'server_name', 'port_id',
           'mac')
_NOBODY: dict[str, Any] = {
    **dict.fromkeys(_HOLDER), 'expires_at': None, 'gone_since': None}
_NO_HOLD: dict[str, Any] = dict.fromkeys(
    ('hold_name', 'hold_project', 'hold_until'))


class IllegalTransition(exceptions.VmipError):
    """The state machine knows no such change: a bug of the caller."""


def _write(method: Callable[Concatenate['Inventory', orm.Session, P], T]
           ) -> Callable[Concatenate['Inventory', P], T]:
    """Make a method one transaction, tried again after a deadlock.

    Deadlock is oslo.db's word for all that another try may heal: InnoDB's
    deadlocks and Galera's failed certification. So may a unique key that
    another worker took in between, and a row that it changed.
    """
    @functools.wraps(method)
    def once(self: 'Inventory', /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.database.write() as session:
            return method(self, session, *args, **kwargs)

    retried = db_api.wrap_db_retry(
        max_retries=10, retry_interval=0.02, max_retry_interval=0.5,
        inc_retry_interval=True, retry_on_deadlock=True,
        jitter=True,
        exception_checker=lambda exc: isinstance(
            exc, (db_exc.DBDuplicateEntry, db_exc.DBReferenceError,
                  orm_exc.StaleDataError)))(once)

    @functools.wraps(method)
    def mapped(self: 'Inventory', /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            result: T = retried(self, *args, **kwargs)
            return result
        except (db_exc.DBError, orm_exc.StaleDataError) as exc:
            raise exceptions.InventoryUnavailable(
                'The database is too busy, try again') from exc

    return mapped


class Inventory:
    """The list.

    :param conf: options with oslo.db's group ``[database]``.
    :param actor: who changes it, for the history (``nova-api``,
        ``vmip-listener``, ...).
    """

    def __init__(self, conf: cfg.ConfigOpts, actor: str) -> None:
        self.database = database.Database(conf)
        self._actor = actor
        self._known = _KnownPools()

    # -- pools ------------------------------------------------------------

    @_write
    def create_pool(self, session: orm.Session, *, name: str,
                    network_id: str, subnet_id: str, cidr: str,
                    ranges: Sequence[pools.RangeSpec],
                    allocator: str = 'sequential', reuse_delay: int = 0,
                    dhcp_servers: Sequence[str] = (),
                    adopt: Sequence[records.InUse] = (),
                    ) -> records.Pool:
        """Make a pool; see :func:`vmip_plugin.inventory.pools.create`.

        :param adopt: addresses in use already; those outside the ranges are
            left out.
        """
        pool = pools.create(
            session, name=name, network_id=network_id, subnet_id=subnet_id,
            cidr=cidr, ranges=ranges, allocator_name=allocator,
            reuse_delay=reuse_delay, dhcp_servers=dhcp_servers)
        for found in adopt:
            row = pools.row(session, pool, found.address)
            if row is not None:
                self._move(session, row, Event.ADOPT, State.ADOPTED,
                           'in use when the pool was made',
                           project_id=found.project_id, mac=found.mac,
                           server_id=found.server_id, port_id=found.port_id)
        return records.Pool.of(pool)

    @_write
    def delete_pool(self, session: orm.Session, name: str) -> None:
        """Delete a pool that nobody uses.

        :raises PoolNotFound: there is none.
        :raises PoolInUse: an address of it is held.
        """
        pools.delete(session, pools.find(session, name))

    def pools(self) -> list[tuple[records.Pool, dict[str, int]]]:
        """Return every pool with its number of addresses in each state."""
        with self.database.read() as session:
            return [(records.Pool.of(pool), pools.usage(session, pool))
                    for pool in session.scalars(
                        sa.select(models.Pool).order_by(models.Pool.name))]

    def may_have_pool(self, *, network_id: str | None = None,
                      subnet_id: str | None = None) -> bool:
        """Tell, while the database is away, whether a pool may be there.

        What has nothing to do with vmip must not suffer then. True where
        this process has never seen the list.
        """
        return self._known.may_have(network_id or subnet_id)

    # -- requests ---------------------------------------------------------

    @_write
    def reserve(self, session: orm.Session, requester: records.Requester,
                wanted: Sequence[records.Wanted], ttl: int,
                ) -> list[records.Address]:
        """Reserve an address per server and IP version, or nothing at all.

        An address held by hand for a server's name is that server's.
        Networks without a pool are left out.

        :param ttl: seconds until an unclaimed reservation ends.
        :raises PoolExhausted: nothing is reserved then.
        """
        self._known.refresh(session)
        reserved: list[records.Address] = []
        for want in wanted:
            versions: dict[bool, list[models.Pool]] = {}
            for pool in pools.of_network(session, want.network_id):
                versions.setdefault(':' in pool.cidr, []).append(pool)
            for candidates in versions.values():
                reserved += [
                    self._reserve_one(session, candidates, requester, name,
                                      ttl)
                    for name in want.server_names]
        return reserved

    def _reserve_one(self, session: orm.Session,
                     candidates: Sequence[models.Pool],
                     requester: records.Requester, name: str, ttl: int,
                     ) -> records.Address:
        holder = {'request_id': requester.request_id,
                  'project_id': requester.project_id, 'server_name': name,
                  'expires_at': clock.after(ttl)}
        held = session.scalars(
            sa.select(Row).where(
                Row.pool_id.in_([pool.id for pool in candidates]),
                Row.hold_name == name,
                sa.or_(Row.hold_until.is_(None),
                       Row.hold_until > clock.now()),
                sa.or_(Row.hold_project.is_(None),
                       Row.hold_project == requester.project_id),
                Row.state == State.RESERVED, Row.request_id.is_(None))
            # one held for this very project goes before one for any
            .order_by(Row.hold_project.is_(None), Row.pick_key)).all()
        for row in held:
            if self._move(session, row, Event.RESERVE, State.RESERVED,
                          'held for this name', **holder):
                return records.Address.of(row)
        for pool in candidates:
            picked = self._pick(
                session, pool, name, Event.RESERVE, State.RESERVED,
                'create request', **holder)
            if picked is not None:
                return records.Address.of(picked)
        raise exceptions.PoolExhausted(
            'No free address is left in ' + ', '.join(
                f'pool {pool.name}' for pool in candidates))

    def _pick(self, session: orm.Session, pool: models.Pool, name: str,
              event: Event, state: State, reason: str, **values: Any,
              ) -> Row | None:
        """Move one free address of a pool on; None: none is free."""
        start = pools.allocator(pool.allocator).start(
            values['project_id'], name)
        free = sa.select(Row).where(
            Row.pool_id == pool.id,
            Row.state == State.FREE).order_by(Row.pick_key).limit(8)
        while True:
            rows = (session.scalars(free.where(Row.pick_key >= start)).all()
                    or session.scalars(free).all())
            for row in rows:
                if self._move(session, row, event, state, reason, **values):
                    return row
            if rows:
                raise db_exc.DBDeadlock('all candidates were just taken')
            if not pools.freshen(session, pool) and not self._rest(
                    session, Row.pool_id == pool.id, limit=64):
                return None

    @_write
    def bind(self, session: orm.Session,
             reservations: Sequence[records.Address], server_id: str) -> None:
        """Note which server the answer to a create request named."""
        for row in self._unchanged(session, reservations):
            self._move(session, row, Event.BIND, State.RESERVED,
                       'answer of Nova', server_id=server_id)

    @_write
    def extend(self, session: orm.Session,
               reservation: records.Address, ttl: int) -> None:
        """Give a reservation more time."""
        for row in self._unchanged(session, [reservation]):
            self._move(session, row, Event.BIND, State.RESERVED,
                       'the server is still being built',
                       expires_at=clock.after(ttl))

    @_write
    def cancel(self, session: orm.Session,
               reservations: Sequence[records.Address], reason: str) -> int:
        """End reservations that no port has claimed.

        :returns: how many were ended.
        """
        return sum(self._to_free(session, row, Event.CANCEL, reason)
                   for row in self._unchanged(session, reservations))

    def _unchanged(self, session: orm.Session,
                   reservations: Sequence[records.Address]) -> Sequence[Row]:
        """Return the rows that are still the same request's reservation."""
        found = session.scalars(sa.select(Row).where(
            Row.id.in_([r.id for r in reservations]),
            Row.state == State.RESERVED)).all()
        request = {r.id: r.request_id for r in reservations}
        return [row for row in found if row.request_id == request[row.id]]

    def expired(self, limit: int = 500) -> list[records.Address]:
        """Return reservations whose time is over."""
        now = clock.now()
        with self.database.read() as session:
            return [records.Address.of(row) for row in session.scalars(
                sa.select(Row).where(
                    Row.state == State.RESERVED,
                    Row.expires_at <= now).limit(limit))]

    @_write
    def expire(self, session: orm.Session, reservation: records.Address,
               reason: str) -> bool:
        """End a reservation whose time is over."""
        ended = [self._to_free(session, row, Event.EXPIRE, reason)
                 for row in self._unchanged(session, [reservation])
                 if row.generation == reservation.generation]
        return any(ended)

    # -- Neutron ----------------------------------------------------------

    @_write
    def claim(self, session: orm.Session, *, subnet_id: str,
              requester: records.Requester, port_id: str, mac: str | None,
              server_id: str | None, address: types.Address | None = None,
              skip: Sequence[types.Address] = (), serve: bool = True,
              ) -> records.Claim | None:
        """Give a port its address, as Neutron makes the port.

        The request's reservation is taken; where it has none, any free
        address. In the same transaction the host entry becomes work to do.

        :param server_id: the port's device, None where it has none.
        :param address: the address that the caller of Neutron asked for.
        :param skip: addresses that Neutron refused as already given away.
        :param serve: False for ports that no DHCP server shall know.
        :returns: None where the subnet has no pool or ``address`` is in none
            of its ranges: the address is Neutron's business.
        :raises PoolExhausted: no address is free.
        :raises AddressInUse: ``address`` is held by somebody else.
        """
        self._known.refresh(session)
        pool = pools.of_subnet(session, subnet_id)
        if pool is None:
            return None
        values = {'request_id': requester.request_id,
                  'project_id': requester.project_id, 'port_id': port_id,
                  'mac': mac, 'server_id': server_id, 'expires_at': None,
                  'gone_since': None}
        name: str | None = None
        row: Row | None
        if address is not None:
            row = pools.row(session, pool, address)
            if row is None:
                return None
            before = self._claimed_before(session, values, Row.id == row.id)
            if before is not None:
                return records.Claim(before.address, repeated=True)
            self._claim_given(session, row, requester, values)
        else:
            before = self._claimed_before(
                session, values, Row.pool_id == pool.id,
                Row.address.not_in(skip))
            if before is not None:
                return records.Claim(before.address, repeated=True)
            row, name = self._claim_reserved(session, pool, requester,
                                             values)
            if row is None:
                row = self._pick(
                    session, pool, '', Event.CLAIM, State.CLAIMED,
                    'port without a reservation', **values)
        if row is None:
            raise exceptions.PoolExhausted(
                f'No free address is left in pool {pool.name}')
        if serve:
            self._want_entries(session, pool, row, clock.after(CLAIM_GRACE),
                               name)
        return records.Claim(row.address, repeated=False)

    @_write
    def disown(self, session: orm.Session, subnet_id: str,
               address: types.Address) -> None:
        """Give up a claim on an address that Neutron gave to somebody else.

        That happens where Neutron had another IPAM driver for a while. The
        address is adopted: in use, and not by a server of ours.
        """
        pool = pools.of_subnet(session, subnet_id)
        assert pool is not None
        for row in session.scalars(sa.select(Row).where(
                Row.pool_id == pool.id, Row.address == address,
                Row.state == State.CLAIMED)):
            for entry in _entries(session, row.id):
                # a worker may have written it already
                _want(entry, present=False, at=clock.now())
            self._move(session, row, Event.ADOPT, State.ADOPTED,
                       'Neutron had given it away', **_NOBODY)

    def _claimed_before(self, session: orm.Session, values: dict[str, Any],
                        *where: Any) -> Row | None:
        """Return what a try of the port's create claimed before it failed.

        Neutron runs a create again after a deadlock, often with another id
        and MAC for the port; what its database forgot then, the list still
        has. It may be another interface of the same server too: which of
        both it is, Neutron's database tells when it is asked for the address.
        """
        same = Row.port_id == values['port_id']
        if values['server_id'] is not None:
            same = sa.or_(same, sa.and_(
                *(getattr(Row, key) == values[key] for key in
                  ('request_id', 'project_id', 'server_id'))))
        return session.scalars(sa.select(Row).where(
            same, Row.state == State.CLAIMED, *where)).first()

    @_write
    def hand_over(self, session: orm.Session, subnet_id: str,
                  address: types.Address, port_id: str, mac: str | None,
                  serve: bool) -> None:
        """Give a claim to the port that a later try of its create made."""
        pool = pools.of_subnet(session, subnet_id)
        assert pool is not None
        row = session.scalars(sa.select(Row).where(
            Row.pool_id == pool.id, Row.address == address,
            Row.state == State.CLAIMED)).one_or_none()
        if row is None or (row.port_id, row.mac) == (port_id, mac):
            return
        if not self._move(session, row, Event.CHANGE, State.CLAIMED,
                          'Neutron has made the port anew',
                          port_id=port_id, mac=mac):
            raise db_exc.DBDeadlock('the address changed meanwhile')
        if serve:
            self._want_entries(session, pool, row, clock.after(CLAIM_GRACE))

    def _claim_reserved(self, session: orm.Session, pool: models.Pool,
                        requester: records.Requester,
                        values: dict[str, Any],
                        ) -> tuple[Row | None, str | None]:
        """Claim one of the request's addresses.

        :returns: the address, and the server's name where it is certain: of
            several servers in one request any may come for any address.
        """
        rows = session.scalars(
            sa.select(Row).where(
                Row.pool_id == pool.id,
                _is_reserved_for(requester, values['server_id']))
            # the one that Nova's answer tied to this server goes first
            .order_by(Row.server_id.is_(None), Row.pick_key)).all()
        for row in rows:
            name = row.server_name if row.server_id else None
            if self._move(session, row, Event.CLAIM, State.CLAIMED,
                          'port of the request', **values):
                return row, name
        return None, None

    def reserved_subnets(self, requester: records.Requester,
                         server_id: str | None) -> set[str]:
        """Return the subnets in which a claim would find a reservation."""
        with self.database.read() as session:
            return set(session.scalars(
                sa.select(models.Pool.subnet_id).join(
                    Row, Row.pool_id == models.Pool.id).where(
                        _is_reserved_for(requester, server_id))))

    def _claim_given(self, session: orm.Session, row: Row,
                     requester: records.Requester,
                     values: dict[str, Any]) -> None:
        state = State(row.state)
        ours = state in (State.FREE, State.QUARANTINED) or (
            state is State.RESERVED
            and row.project_id == requester.project_id
            and row.request_id == requester.request_id) or (
            state is State.RESERVED and row.request_id is None
            and row.hold_project == requester.project_id)
        if not ours:
            raise exceptions.AddressInUse(f'{row.address} is {state}')
        if not self._move(session, row, Event.CLAIM, State.CLAIMED,
                          'port with this address', **values):
            raise db_exc.DBDeadlock('the address changed meanwhile')

    @_write
    def activate(self, session: orm.Session, server_id: str,
                 server_name: str | None, macs: Sequence[str]) -> None:
        """Note that a server runs. Told twice, it does nothing.

        :param macs: of the interfaces that run with it.
        """
        for row in session.scalars(sa.select(Row).where(
                Row.server_id == server_id, Row.mac.in_(macs),
                Row.state == State.CLAIMED)):
            self._move(session, row, Event.ACTIVATE, State.ACTIVE,
                       'server runs',
                       # one of a request for several may have got another's
                       # reservation: Nova's word goes before the request's
                       server_name=server_name or row.server_name)

    @_write
    def change_mac(self, session: orm.Session, port_id: str,
                   mac: str) -> None:
        """Note that a port has another MAC now; its entries become work."""
        for row in session.scalars(sa.select(Row).where(
                Row.port_id == port_id, Row.mac != mac,
                Row.state.in_([State.CLAIMED, State.ACTIVE]))):
            if not self._move(session, row, Event.CHANGE, State(row.state),
                              'the port has another MAC', mac=mac):
                raise db_exc.DBDeadlock('the address changed meanwhile')
            for entry in _entries(session, row.id):
                entry.mac = mac
                _want(entry, present=True, at=clock.now())

    @_write
    def release_address(self, session: orm.Session, subnet_id: str,
                        address: types.Address, reason: str) -> bool:
        """Start the release of an address whose port is deleted.

        :returns: False where there was nothing to release.
        """
        pool = pools.of_subnet(session, subnet_id)
        if pool is None:
            return False
        row = session.scalars(sa.select(Row).where(
            Row.pool_id == pool.id, Row.address == address)).one_or_none()
        return row is not None and self._release(session, row, reason)

    @_write
    def release(self, session: orm.Session, held: records.Address,
                reason: str) -> bool:
        """Start the release of an address, if its holder is still the same.

        :returns: False where it has changed since it was read.
        """
        row = session.get(Row, held.id)
        return (row is not None and row.generation == held.generation
                and self._release(session, row, reason))

    def _release(self, session: orm.Session, row: Row, reason: str) -> bool:
        if State(row.state) not in states.TRANSITIONS[Event.RELEASE][0]:
            return False
        if not self._move(session, row, Event.RELEASE, State.RELEASING,
                          reason, gone_since=None):
            raise db_exc.DBDeadlock('the address changed meanwhile')
        entries = _entries(session, row.id)
        for entry in entries:
            # The caller may be Neutron in the middle of its transaction;
            # until that is committed, the port can still be seen.
            _want(entry, present=False, at=clock.after(RELEASE_GRACE))
        session.flush()
        if not entries:
            self._finish(session, row)
        return True

    @_write
    def keep(self, session: orm.Session, work: records.Work) -> None:
        """Take a release back: Neutron says that the port is still there.

        Neutron's own transaction failed after it had told us of the delete.
        """
        entry = session.get(models.HostEntryRow, work.id)
        if entry is None or entry.generation != work.generation:
            return
        row = session.get(Row, entry.address_id)
        if row is not None and row.state == State.RELEASING and self._move(
                session, row, Event.KEEP, State.CLAIMED,
                'Neutron still has the port'):
            pool = session.get(models.Pool, row.pool_id)
            assert pool is not None
            # on every server: some may have lost theirs already
            self._want_entries(session, pool, row, clock.now())

    # -- host entries -----------------------------------------------------

    def _want_entries(self, session: orm.Session, pool: models.Pool,
                      row: Row, at: datetime.datetime,
                      name: str | None = None) -> None:
        have = {entry.server: entry for entry in _entries(session, row.id)}
        assert row.mac is not None
        for server in json.loads(pool.dhcp_servers):
            entry = have.get(server)
            if entry is None:
                entry = models.HostEntryRow(
                    address_id=row.id, server=server, generation=0,
                    hostname=types.host_label(name))
                session.add(entry)
            entry.mac = row.mac
            _want(entry, present=True, at=at)
        session.flush()

    def work(self, limit: int = 500, port_ids: Sequence[str] | None = None,
             ) -> list[records.Work]:
        """Return host entries that a server does not have as it should.

        :param port_ids: those of these ports, due or not; otherwise those
            whose next try is due.
        """
        entry = models.HostEntryRow
        query = sa.select(entry, Row).join(
            Row, Row.id == entry.address_id).where(
                entry.done.is_(False)).order_by(entry.next_try_at)
        if port_ids is None:
            query = query.where(entry.next_try_at <= clock.now())
        else:
            query = query.where(Row.port_id.in_(port_ids))
        with self.database.read() as session:
            return [records.Work(
                id=e.id, generation=e.generation, server=e.server,
                address=a.address, mac=e.mac, hostname=e.hostname,
                present=e.present, attempts=e.attempts,
                server_id=a.server_id, port_id=a.port_id)
                for e, a in session.execute(query.limit(limit))]

    @_write
    def work_done(self, session: orm.Session, work: records.Work) -> bool:
        """Note that a server has an entry as it should.

        The last entry of an address that is being released frees it.

        :returns: False where something else is wanted by now: the server
            may have just been given the wrong thing, so ask for the work
            again (:meth:`redo`).
        """
        entry = session.get(models.HostEntryRow, work.id)
        if entry is None or entry.generation != work.generation:
            return False
        if work.present:
            entry.done = True
            entry.done_at = clock.now()
            entry.error = None
            entry.attempts = 0
            return True
        row = session.get(Row, entry.address_id)
        assert row is not None
        # Two workers may each be about to take out the last but one: only
        # one of them at a time gets past the swap, and so sees the other's.
        if not _swap(session, row, {}):
            raise db_exc.DBDeadlock('the address changed meanwhile')
        session.delete(entry)
        session.flush()
        if row.state == State.RELEASING and not _entries(session, row.id):
            self._finish(session, row)
        return True

    @_write
    def work_failed(self, session: orm.Session, work: records.Work,
                    error: str, delay: float) -> None:
        """Note why a server could not be written to.

        :param delay: seconds until the next try.
        """
        entry = session.get(models.HostEntryRow, work.id)
        if (entry is not None and entry.generation == work.generation
                and not entry.done):
            entry.error = error[:1000]
            entry.attempts = work.attempts + 1
            entry.next_try_at = clock.after(delay)

    @_write
    def redo(self, session: orm.Session, server: str,
             addresses: Sequence[types.Address],
             only_done: bool = False) -> None:
        """Have a server's entries for these addresses written anew.

        :param only_done: what is still to be done is left as it is.
        """
        query = sa.select(models.HostEntryRow).join(
            Row, Row.id == models.HostEntryRow.address_id).where(
                models.HostEntryRow.server == server,
                Row.address.in_(addresses))
        if only_done:
            query = query.where(models.HostEntryRow.done.is_(True))
        for entry in session.scalars(query):
            _want(entry, present=entry.present, at=clock.now())

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
                next_try_at=e.next_try_at, error=e.error)
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

    def expected(self, server: str) -> dict[types.Address, str]:
        """Return what one DHCP server has to serve: address to MAC."""
        entry = models.HostEntryRow
        with self.database.read() as session:
            return dict(session.execute(
                sa.select(Row.address, entry.mac).join(
                    Row, Row.id == entry.address_id).where(
                        entry.server == server,
                        entry.present.is_(True))).tuples().all())

    def _finish(self, session: orm.Session, row: Row) -> None:
        pool = session.get(models.Pool, row.pool_id)
        assert pool is not None
        if _is_held(row):
            moved = self._move(session, row, Event.FINISH, State.RESERVED,
                               'held by hand',
                               **{**_NOBODY, 'expires_at': row.hold_until})
        elif pool.reuse_delay:
            moved = self._move(
                session, row, Event.FINISH, State.QUARANTINED, 'reuse delay',
                **{**_NOBODY, **_NO_HOLD,
                   'expires_at': clock.after(pool.reuse_delay)})
        else:
            moved = self._move(session, row, Event.FINISH, State.FREE, '',
                               **_NOBODY, **_NO_HOLD)
        if not moved:
            raise db_exc.DBDeadlock('the address changed meanwhile')

    # -- reclaim ----------------------------------------------------------

    @_write
    def rest_over(self, session: orm.Session, limit: int = 500) -> int:
        """Free the addresses whose quarantine is over.

        :returns: how many.
        """
        return self._rest(session, sa.true(), limit)

    def _rest(self, session: orm.Session, which: Any, limit: int) -> int:
        rows = session.scalars(sa.select(Row).where(
            which, Row.state == State.QUARANTINED,
            Row.expires_at <= clock.now()).limit(limit)).all()
        return sum(self._move(session, row, Event.REST, State.FREE, '',
                              expires_at=None) for row in rows)

    def with_port(self, network_id: str) -> list[records.Address]:
        """Return the network's addresses whose port should exist."""
        with self.database.read() as session:
            return [records.Address.of(row) for row in session.scalars(
                sa.select(Row).join(
                    models.Pool, models.Pool.id == Row.pool_id).where(
                        models.Pool.network_id == network_id,
                        Row.state.in_([State.CLAIMED, State.ACTIVE,
                                       State.ADOPTED])))]

    @_write
    def note_gone(self, session: orm.Session, held: records.Address,
                  since: datetime.datetime | None) -> None:
        """Note since when Neutron has not known an address's port.

        :param since: None: it knows it.
        """
        session.execute(
            sa.update(Row).where(Row.id == held.id,
                                 Row.generation == held.generation)
            .values(gone_since=since))

    # -- by hand ----------------------------------------------------------

    @_write
    def hold(self, session: orm.Session, pool_name: str,
             address: types.Address, server_name: str,
             project_id: str | None, until: datetime.datetime | None,
             ) -> records.Address:
        """Keep an address for the server of that name.

        :param project_id: only for a server of this project; None: of any.
        :param until: end of the reservation; None: until it is given up.
        :raises PoolNotFound: there is no such pool.
        :raises AddressNotFound: the address is in none of its ranges.
        :raises AddressInUse: somebody has it, or the name has another.
        """
        pool = pools.find(session, pool_name)
        row = pools.row(session, pool, address)
        if row is None:
            raise exceptions.AddressNotFound(
                f'{address} is in no range of pool {pool.name}')
        other = session.scalars(sa.select(Row).where(
            Row.pool_id == pool.id, Row.hold_name == server_name,
            Row.hold_project.is_(None) if project_id is None
            else Row.hold_project == project_id)).first()
        if other is not None and other.id != row.id:
            raise exceptions.AddressInUse(
                f'{server_name} has {other.address} in pool {pool.name} '
                f'already: delete that reservation first')
        if State(row.state) not in states.TRANSITIONS[Event.HOLD][0]:
            raise exceptions.AddressInUse(
                f'{address} is {row.state}'
                + (f' for {row.hold_name}' if row.hold_name else ''))
        if not self._move(session, row, Event.HOLD, State.RESERVED,
                          'reservation by hand', **{
                              **_NOBODY, 'hold_name': server_name,
                              'hold_project': project_id,
                              'hold_until': until, 'expires_at': until}):
            raise db_exc.DBDeadlock('the address changed meanwhile')
        return records.Address.of(row)

    @_write
    def unhold(self, session: orm.Session, pool_name: str,
               address: types.Address) -> None:
        """Give up a reservation by hand; a server that uses it keeps it.

        :raises AddressNotFound: there is no such reservation.
        """
        pool = pools.find(session, pool_name)
        row = pools.row(session, pool, address)
        if row is None or row.hold_name is None:
            raise exceptions.AddressNotFound(
                f'{address} is not reserved by hand in pool {pool.name}')
        if row.state == State.RESERVED and row.request_id is None:
            moved = self._move(session, row, Event.UNHOLD, State.FREE,
                               'reservation given up',
                               **_NOBODY, **_NO_HOLD)
        else:
            moved = _swap(session, row, dict(_NO_HOLD))
        if not moved:
            raise db_exc.DBDeadlock('the address changed meanwhile')

    # -- questions --------------------------------------------------------

    def of_ports(self, port_ids: Sequence[str]) -> list[records.Address]:
        """Return the addresses of these ports."""
        return self._of(Row.port_id.in_(port_ids))

    def of_server(self, server_id: str) -> list[records.Address]:
        """Return the addresses of a server."""
        return self._of(Row.server_id == server_id)

    def _of(self, which: Any) -> list[records.Address]:
        with self.database.read() as session:
            return [records.Address.of(row) for row in session.scalars(
                sa.select(Row).where(which))]

    def addresses(self, *, pool: str | None = None,
                  state: Sequence[State] | None = None,
                  address: types.Address | None = None,
                  server: str | None = None,
                  held_by_hand: bool = False) -> list[
                      tuple[records.Pool, records.Address]]:
        """Return addresses in their order; free ones only if asked for.

        :param server: a server's id or name.
        """
        query = sa.select(models.Pool, Row).join(
            Row, Row.pool_id == models.Pool.id).order_by(
                models.Pool.name, Row.address)
        if state:
            query = query.where(Row.state.in_(state))
        elif address is None:
            query = query.where(Row.state != State.FREE)
        if address is not None:
            query = query.where(Row.address == address)
        if server is not None:
            query = query.where(sa.or_(Row.server_id == server,
                                       Row.server_name == server))
        if held_by_hand:
            query = query.where(Row.hold_name.is_not(None))
        with self.database.read() as session:
            if pool is not None:
                query = query.where(
                    models.Pool.id == pools.find(session, pool).id)
            return [(records.Pool.of(p), records.Address.of(a))
                    for p, a in session.execute(query)]

    def history(self, address: types.Address) -> list[records.Change]:
        """Return every change of an address, oldest first."""
        with self.database.read() as session:
            return [records.Change.of(row) for row in session.scalars(
                sa.select(models.HistoryRow)
                .where(models.HistoryRow.address == address)
                .order_by(models.HistoryRow.id))]

    def last_holder(self, address: types.Address, mac: str,
                    ) -> records.Change | None:
        """Return the last change that tells whose this MAC was there."""
        change = models.HistoryRow
        with self.database.read() as session:
            row = session.scalars(
                sa.select(change).where(
                    change.address == address, change.mac == mac,
                    sa.or_(change.server_id.is_not(None),
                           change.port_id.is_not(None)))
                .order_by(change.id.desc()).limit(1)).first()
            return None if row is None else records.Change.of(row)

    # -- the one place where a state changes ------------------------------

    def _to_free(self, session: orm.Session, row: Row, event: Event,
                 reason: str) -> bool:
        if _is_held(row):
            return self._move(session, row, event, State.RESERVED, reason,
                              **{**_NOBODY, 'expires_at': row.hold_until})
        return self._move(session, row, event, State.FREE, reason,
                          **_NOBODY, **_NO_HOLD)

    def _move(self, session: orm.Session, row: Row, event: Event,
              state: State, reason: str, **values: Any) -> bool:
        """Change a state and write it into the history.

        :returns: False where another worker has changed the row meanwhile.
        """
        sources, targets = states.TRANSITIONS[event]
        old = State(row.state)
        if old not in sources or state not in targets:
            raise IllegalTransition(f'{event}: {old} to {state}')
        before = _holder(row)
        now = clock.now()
        if not _swap(session, row,
                     {**values, 'state': state.value, 'changed_at': now}):
            return False
        session.add(models.HistoryRow(
            pool_id=row.pool_id, address=row.address, at=now,
            actor=self._actor, event=event.value, reason=reason[:255],
            old_state=old.value, new_state=state.value,
            # the change that ends a holder names the holder
            **{key: value or before[key]
               for key, value in _holder(row).items()}))
        return True


class _KnownPools:
    """The networks and subnets that had a pool when last looked."""

    #: seconds
    MAX_AGE = 60

    def __init__(self) -> None:
        self._ids: frozenset[str] | None = None
        self._seen = 0.0

    def refresh(self, session: orm.Session) -> None:
        now = time.monotonic()
        if self._ids is None or now - self._seen > self.MAX_AGE:
            self._ids = frozenset(
                id for row in session.execute(sa.select(
                    models.Pool.network_id, models.Pool.subnet_id))
                for id in row)
            self._seen = now

    def may_have(self, id: str | None) -> bool:
        return self._ids is None or id in self._ids


def _swap(session: orm.Session, row: Row, values: dict[str, Any]) -> bool:
    """Change a row if it still is as it was read."""
    values['generation'] = row.generation + 1
    changed = session.execute(
        sa.update(Row).where(Row.id == row.id,
                             Row.generation == row.generation)
        .values(**values), execution_options={'synchronize_session': False})
    if changed.rowcount != 1:  # type: ignore[attr-defined]
        return False
    for key, value in values.items():
        attributes.set_committed_value(row, key, value)
    return True


def _holder(row: Row) -> dict[str, str | None]:
    """Return who has an address; one held by hand is its name's."""
    holder = {key: getattr(row, key) for key in _HOLDER}
    if row.hold_name is not None and not any(holder.values()):
        holder.update(server_name=row.hold_name, project_id=row.hold_project)
    return holder


def _is_reserved_for(requester: records.Requester,
                     server_id: str | None) -> Any:
    return sa.and_(
        Row.state == State.RESERVED,
        Row.request_id == requester.request_id,
        Row.project_id == requester.project_id,
        sa.or_(Row.server_id.is_(None), Row.server_id == server_id))


def _is_held(row: Row) -> bool:
    return row.hold_name is not None and (
        row.hold_until is None or row.hold_until > clock.now())


def _entries(session: orm.Session, address_id: int
             ) -> Sequence[models.HostEntryRow]:
    return session.scalars(sa.select(models.HostEntryRow).where(
        models.HostEntryRow.address_id == address_id)).all()


def _want(entry: models.HostEntryRow, present: bool,
          at: datetime.datetime) -> None:
    """Write down what a server has to have; nothing is done yet."""
    entry.present = present
    entry.done = False
    entry.generation += 1
    entry.attempts = 0
    entry.error = None
    entry.next_try_at = at
    # Written even where they are as they were read: another worker may have
    # marked the entry done since, which leaves the generation alone.
    for key in ('present', 'done', 'attempts', 'error', 'next_try_at'):
        attributes.flag_modified(entry, key)
