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

"""Host entries in the hosts database of Kea, which looks there itself.

Kea's schema lets two MACs have one address. What keeps them apart here is
that whoever writes first changes one and the same row, :data:`_LOCK`, which
no client and no subnet can match: everybody else waits for the end of the
transaction or, on another node of a Galera cluster, has to do it again. It
has no right to a table of its own to ask for.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import dataclasses
import functools
import ipaddress
import json
import os
import threading
from typing import Any
import uuid

from oslo_db import api as db_api
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import engines
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from vmip_plugin.dhcp import base
from vmip_plugin.dhcp.kea import control
from vmip_plugin.dhcp.kea import host
from vmip_plugin import exceptions
from vmip_plugin.sql import urls
from vmip_plugin import types

#: The least schema: that of Kea 2.2.
SCHEMA = {'mysql': (14, 0), 'postgresql': (13, 0)}
#: Entries of one transaction.
_CHUNK = 1000

_URLS = ('use mysql+pymysql://USER:PASSWORD@HOST/NAME or '
         'postgresql+psycopg2://USER:PASSWORD@HOST/NAME')

_HW_ADDRESS, _FLEX_ID = 0, 4
# Codes of MySQL, and Galera, and PostgreSQL: do it again.
_DEADLOCK = (1213, '40P01', '40001')
_LOCK = {'dhcp_identifier': b'vmip-lock', 'dhcp_identifier_type': _FLEX_ID,
         # more than Kea gives a subnet by itself, and it fits everywhere
         'dhcp4_subnet_id': 2**31 - 1}
_CONTEXT = json.dumps({control.MARK: True})

_META = sa.MetaData()
_VERSION = sa.Table(
    'schema_version', _META, sa.Column('version', sa.Integer),
    sa.Column('minor', sa.Integer))
_HOSTS = sa.Table(
    'hosts', _META,
    sa.Column('host_id', sa.Integer, primary_key=True),
    sa.Column('dhcp_identifier', sa.LargeBinary),
    sa.Column('dhcp_identifier_type', sa.SmallInteger),
    sa.Column('dhcp4_subnet_id', sa.BigInteger),
    sa.Column('dhcp6_subnet_id', sa.BigInteger),
    sa.Column('ipv4_address', sa.BigInteger),
    sa.Column('hostname', sa.String(255)),
    sa.Column('user_context', sa.Text))
_IPV6 = sa.Table(
    'ipv6_reservations', _META,
    sa.Column('reservation_id', sa.Integer, primary_key=True),
    sa.Column('address', sa.types.NullType),
    sa.Column('prefix_len', sa.SmallInteger),
    sa.Column('type', sa.SmallInteger),   # 0: an address, 2: a prefix
    sa.Column('dhcp6_iaid', sa.BigInteger),
    sa.Column('host_id', sa.Integer))


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of ``hosts``; ``address`` is None where it has none."""

    id: int
    identifier: bytes
    kind: int
    subnet: int
    hostname: str
    ours: bool
    address: types.Address | None

    @property
    def mac(self) -> str | None:
        """The MAC that it is for, if it is for one."""
        return self.identifier.hex(':') if self.kind == _HW_ADDRESS else None


class Database:
    """The hosts database of one or several Keas.

    :param name: the server's name, for messages.
    :param url: SQLAlchemy's, of MySQL, MariaDB or PostgreSQL.
    :param timeout: seconds that a connect, a wait or a statement may take.
    :raises ConfigError: the URL or its Python module is of no use.
    """

    def __init__(self, name: str, url: str, timeout: int) -> None:
        self._name = name
        self.url = urls.parse(f'[dhcp:{name}] hosts_database', url)
        self.kind = self.url.get_backend_name()
        if self.kind not in SCHEMA or not self.url.database:
            raise exceptions.ConfigError(
                f'[dhcp:{name}] hosts_database: {_URLS}')
        try:
            self.url.get_dialect().import_dbapi()
        except ImportError as exc:
            raise exceptions.ConfigError(
                f'[dhcp:{name}] hosts_database: {exc}: pip install '
                '"vmip-plugin[mysql]" or "vmip-plugin[postgresql]"') from exc
        self._timeout = timeout
        self._lock = threading.Lock()
        self._pid = 0
        self._engine: sa.Engine
        self._ipv6_type: sa.types.TypeEngine[Any] | None = None

    def put(self, version: int, hosts: Sequence[host.Host]) -> base.Failures:
        """Write entries of one IP version; see :class:`base.DHCPDriver`."""
        failures: base.Failures = {}
        for begin in range(0, len(hosts), _CHUNK):
            chunk = hosts[begin:begin + _CHUNK]
            failures |= self._write(functools.partial(
                self._put, version=version, hosts=chunk))
        return failures

    def remove(self, version: int, entries: Iterable[base.HostEntry]) -> None:
        """Remove entries of one IP version."""
        pairs = list({(e.mac, e.address) for e in entries})
        for begin in range(0, len(pairs), _CHUNK):
            self._write(functools.partial(
                self._remove, version=version,
                pairs=set(pairs[begin:begin + _CHUNK])))

    def entries(self, version: int) -> Iterator[base.HostEntry]:
        """Yield the entries that are ours."""
        with self._errors(), self._connect() as connection:
            for row in self._select(connection, version, _HOSTS.c.user_context
                                    .like(f'%"{control.MARK}"%')):
                if row.ours and row.mac and row.address:
                    yield base.HostEntry(row.mac, row.address,
                                         row.hostname or None)

    def check(self) -> Iterator[str]:
        """Yield what is wrong with the database."""
        try:
            with self._errors(), self._connect() as connection:
                found = tuple(connection.execute(sa.select(
                    _VERSION.c.version, _VERSION.c.minor)).one())
            if found < SCHEMA[self.kind]:
                yield (f'{self.label} has the schema {found[0]}.{found[1]}, '
                       f'older than Kea 2.2\'s: run {self._admin("upgrade")}.')
                return
            # whether we may write is known once we have
            self._write(lambda connection: self._delete(connection, [-1]))
        except exceptions.DHCPError as exc:
            yield str(exc)

    @property
    def label(self) -> str:
        return (f'hosts database {self.url.database} of {self._name} on '
                f'{self.url.host or "this machine"}')

    def _admin(self, what: str) -> str:
        kind = 'pgsql' if self.kind == 'postgresql' else self.kind
        return f'"kea-admin db-{what} {kind} -n {self.url.database} ..."'

    def _put(self, connection: sa.Connection, version: int,
             hosts: Sequence[host.Host]) -> base.Failures:
        """Write some entries, of which the last of a MAC or address holds."""
        wanted: dict[types.Address | None, host.Host] = {}
        by_mac: dict[str, types.Address] = {}
        for item in hosts:
            before = by_mac.get(item.mac)
            if before in wanted and wanted[before].mac == item.mac:
                del wanted[before]
            by_mac[item.mac] = item.address
            wanted[item.address] = item
        by_key: dict[tuple[str | None, int], host.Host] = {
            (item.mac, item.subnet): item for item in wanted.values()}
        rows = self._rows(connection, version, set(by_mac),
                          {item.address for item in hosts})
        failures: base.Failures = {}
        for row in rows:
            for stopped in (wanted.get(row.address),
                            by_key.get((row.mac, row.subnet))):
                if stopped is not None and not row.ours:
                    failures[stopped.entry] = host.in_the_way(
                        f'{self.label}, host_id {row.id}', stopped)
        new = {address: item for address, item in wanted.items()
               if item.entry not in failures}
        # An entry that fails leaves its MAC what it had.
        kept = {entry.mac for entry in failures}
        gone = []
        for row in rows:
            held = new.get(row.address)
            if not row.ours or (row.mac in kept and held is None):
                continue
            if held is not None and (row.mac, row.subnet, row.hostname) == (
                    held.mac, held.subnet, held.hostname):
                del new[row.address]   # it is there as it should be
            else:
                gone.append(row.id)
        self._delete(connection, gone)
        self._insert(connection, version, list(new.values()))
        return failures

    def _remove(self, connection: sa.Connection, version: int,
                pairs: set[tuple[str, types.Address]]) -> None:
        rows = self._rows(connection, version, {mac for mac, _ in pairs},
                          set())
        self._delete(connection, [
            row.id for row in rows
            if row.ours and (row.mac, row.address) in pairs])

    def _insert(self, connection: sa.Connection, version: int,
                hosts: Sequence[host.Host]) -> None:
        if not hosts:
            return
        subnet = f'dhcp{version}_subnet_id'
        connection.execute(sa.insert(_HOSTS), [
            {'dhcp_identifier': _bytes(item.mac),
             'dhcp_identifier_type': _HW_ADDRESS, subnet: item.subnet,
             'ipv4_address': int(item.address) if version == 4 else None,
             'hostname': item.hostname, 'user_context': _CONTEXT}
            for item in hosts])
        if version == 4:
            return
        columns = _HOSTS.c
        ids = {(identifier, where): number for number, identifier, where in
               connection.execute(sa.select(
                   columns.host_id, columns.dhcp_identifier, columns[subnet]
               ).where(columns.dhcp_identifier_type == _HW_ADDRESS,
                       columns.dhcp_identifier.in_(
                           [_bytes(item.mac) for item in hosts]),
                       columns[subnet].is_not(None)))}
        connection.execute(sa.insert(_IPV6), [
            {'address': self._to_ipv6(connection, item.address),
             'prefix_len': 128, 'type': 0,
             'host_id': ids[_bytes(item.mac), item.subnet]}
            for item in hosts])

    def _delete(self, connection: sa.Connection, ids: Sequence[int]) -> None:
        if ids:
            connection.execute(
                sa.delete(_HOSTS).where(_HOSTS.c.host_id.in_(ids)))

    def _rows(self, connection: sa.Connection, version: int,
              macs: set[str], addresses: set[types.Address]) -> list[_Row]:
        """Return the rows with one of these MACs or addresses."""
        found: set[_Row] = set()
        # two statements, each with an index of its own
        if macs:
            found.update(self._select(connection, version, sa.and_(
                _HOSTS.c.dhcp_identifier_type == _HW_ADDRESS,
                _HOSTS.c.dhcp_identifier.in_([_bytes(m) for m in macs]))))
        if addresses:
            column, values = (
                (_HOSTS.c.ipv4_address, [int(a) for a in addresses])
                if version == 4 else
                (_IPV6.c.address,
                 [self._to_ipv6(connection, a) for a in addresses]))
            found.update(self._select(
                connection, version, column.in_(values)))
        return sorted(found, key=lambda row: row.id)

    def _select(self, connection: sa.Connection, version: int,
                condition: sa.ColumnElement[bool]) -> Iterator[_Row]:
        columns = _HOSTS.c
        subnet = columns[f'dhcp{version}_subnet_id']
        source: sa.FromClause = _HOSTS
        address: sa.ColumnElement[Any] = columns.ipv4_address
        if version == 6:
            source = sa.outerjoin(_HOSTS, _IPV6, sa.and_(
                columns.host_id == _IPV6.c.host_id, _IPV6.c.type == 0))
            address = _IPV6.c.address
        for row in connection.execute(
                sa.select(columns.host_id, columns.dhcp_identifier,
                          columns.dhcp_identifier_type, subnet,
                          columns.hostname, columns.user_context, address)
                .select_from(source).where(subnet.is_not(None), condition)):
            number, identifier, kind, where, hostname, context, value = row
            yield _Row(number, identifier, kind, where, hostname or '',
                       _is_ours(context), _address(value, version))

    def _to_ipv6(self, connection: sa.Connection,
                 address: types.Address) -> Any:
        """Return an address as this version of the schema keeps it."""
        if self._ipv6_type is None:
            self._ipv6_type = next(
                column['type'] for column in sa.inspect(connection)
                .get_columns('ipv6_reservations')
                if column['name'] == 'address')
        if isinstance(self._ipv6_type, sa.types._Binary):
            return address.packed
        return str(address)

    def _write(self, work: Callable[[sa.Connection], Any]) -> Any:
        """Do a piece of work alone, and again where others were faster.

        :raises DHCPServerUnavailable: it was not done.
        """
        retried = db_api.wrap_db_retry(
            max_retries=20, retry_interval=0.02, max_retry_interval=0.5,
            inc_retry_interval=True, retry_on_deadlock=True, jitter=True,
            exception_checker=lambda exc: isinstance(
                exc, db_exc.DBDuplicateEntry))(self._write_once)
        try:
            return retried(work)
        except db_exc.DBError as exc:
            raise exceptions.DHCPServerUnavailable(
                f'{self.label} is too busy: try again') from exc

    def _write_once(self, work: Callable[[sa.Connection], Any]) -> Any:
        with self._errors(), self._connect() as connection:
            columns = _HOSTS.c
            if not connection.execute(
                    sa.update(_HOSTS).where(*(
                        columns[name] == value
                        for name, value in _LOCK.items()))
                    # another value each time, or Galera overlooks it
                    .values(hostname=uuid.uuid4().hex)).rowcount:
                connection.execute(sa.insert(_HOSTS).values(
                    user_context=json.dumps({'vmip-lock': True}), **_LOCK))
            result = work(connection)
            connection.commit()
            return result

    def _connect(self) -> sa.Connection:
        with self._lock:
            # A forked worker must not use its parent's connections.
            if self._pid != os.getpid():
                self._engine = self._new_engine()
                self._pid = os.getpid()
        return self._engine.connect()

    def _new_engine(self) -> sa.Engine:
        seconds = self._timeout
        more: dict[str, str] = {'connect_timeout': str(seconds)}
        if self.kind == 'mysql':
            # the server's own word comes first: it says more
            more |= {'read_timeout': str(seconds + 2),
                     'write_timeout': str(seconds)}
            settings = [
                'SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED',
                f'SET SESSION innodb_lock_wait_timeout = {seconds}']
        else:
            more['tcp_user_timeout'] = str(seconds * 1000)
            settings = [
                'SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL '
                'READ COMMITTED',
                f'SET statement_timeout = {seconds * 1000}']
        url = self.url.set(query={**more, **self.url.query})
        engine = engines.create_engine(
            url.render_as_string(hide_password=False), max_retries=0,
            mysql_sql_mode='TRADITIONAL',
            thread_checkin=False)
        if self.kind == 'postgresql':
            from vmip_plugin.sql import postgresql
            # the server itself gives up before that
            postgresql.bound(engine, seconds, seconds + 2)
        # names and MACs are not for the log
        engine.hide_parameters = True

        def connected(connection: Any, record: Any) -> None:
            # Here and not as an option of the engine, which would be set anew
            # for each transaction, and whose errors SQLAlchemy passes on bare.
            # Each statement sees what is committed when the lock is ours.
            with connection.cursor() as cursor:
                for statement in settings:
                    cursor.execute(statement)
            connection.commit()

        sa.event.listen(engine, 'connect', connected)
        return engine

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Name what is wrong, and what to do."""
        try:
            yield
        except db_exc.DBDuplicateEntry:
            raise
        except (db_exc.DBError, sa_exc.DBAPIError, sa_exc.TimeoutError,
                OSError) as exc:
            code, text = _cause(exc)
            # Not by oslo.db's classes: for it, to have waited for a lock is a
            # deadlock, and what Galera says at a commit is none.
            if code in _DEADLOCK:
                raise db_exc.DBDeadlock(exc) from exc
            raise exceptions.DHCPServerUnavailable(
                f'{self.label}: {text}: {self._remedy(code, text)}') from exc

    def _remedy(self, code: str | int | None, text: str) -> str:
        if code in (1146, '42P01', 1054, '42703'):
            return ('it has no schema of Kea\'s: run '
                    f'{self._admin("init")}, or "db-upgrade" for an old one')
        if code in (1049, '3D000') or 'does not exist' in text:
            return f'create it and run {self._admin("init")}'
        if code in (1045, 1698, '28P01', '28000') or (
                'authentication failed' in text):
            return 'correct the user and password in hosts_database'
        if code in (1044, 1142, '42501'):
            return (f'grant {self.url.username} SELECT on schema_version, '
                    'and SELECT, INSERT, UPDATE and DELETE on hosts and '
                    'ipv6_reservations')
        if code in (1205, 3024, 1969, '57014'):
            return 'look what keeps it, or raise timeout'
        return 'start it, or correct hosts_database'


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(':', ''))


def _address(value: Any, version: int) -> types.Address | None:
    if value is None:
        return None
    try:
        if version == 4:
            return ipaddress.IPv4Address(value)
        return ipaddress.IPv6Address(value)
    except ValueError:
        return None


def _is_ours(context: str | None) -> bool:
    try:
        return control.is_ours(json.loads(context or 'null'))
    except ValueError:
        return False


def _cause(exc: BaseException) -> tuple[str | int | None, str]:
    """Return the database's own code (SQLSTATE on PostgreSQL) and text."""
    inner = getattr(exc, 'inner_exception', None) or exc
    orig = getattr(inner, 'orig', None) or inner
    code: str | int | None = getattr(orig, 'pgcode', None)
    text = str(orig)
    if code is None and orig.args and isinstance(orig.args[0], int):
        code, text = orig.args[0], str(orig.args[-1])
    return code, text.partition('\n')[0].strip() or type(orig).__name__
