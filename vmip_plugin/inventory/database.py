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

"""The database under the list: engine, transactions, schema."""

from collections.abc import Callable, Iterator
import contextlib
import fcntl
import functools
import os
import pathlib
import random
import threading
import time
from typing import Any

from alembic import command
from alembic import config as alembic_config
from alembic.runtime import migration
from alembic import script
from oslo_config import cfg
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import enginefacade
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc
from sqlalchemy import orm

from vmip_plugin.conf import database as options
from vmip_plugin import exceptions
from vmip_plugin.inventory import breaker
from vmip_plugin.inventory import clock
from vmip_plugin.sql import urls

#: How many times as long as a request a daemon or a command waits.
BATCH = 3
#: Seconds that a writer waits for another one on SQLite.
SQLITE_BUSY_TIMEOUT = 30
#: Mean time in seconds between two looks who is next to write on SQLite.
_POLL = 0.005
# not UNIX_TIMESTAMP(), to which an hour of local time may be two
_UNIX_TIME = {
    'mysql': "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', "
             'UTC_TIMESTAMP(6)) / 1e6',
    'postgresql': 'SELECT EXTRACT(EPOCH FROM clock_timestamp())'}
#: How often the server is asked for its clock.
_SAMPLES = 5
_MIGRATIONS = pathlib.Path(__file__).parent / 'migrations'


class Database:
    """One database, used from any number of threads and processes.

    :param conf: options with the group ``[database]``.
    :param in_request: a request of an API waits for the answers. Otherwise
        statements may take longer.
    """

    def __init__(self, conf: cfg.ConfigOpts, in_request: bool = False,
                 ) -> None:
        self._options = dict(conf.database)
        self._connection = self._options.pop('connection')
        self._parameters = self._options.pop('connection_parameters')
        own = {opt.dest: self._options.pop(opt.dest) for opt in options.OPTS}
        self._connect_timeout: int = own['connect_timeout']
        #: seconds that a statement may take
        self.timeout: int = own['statement_timeout'] * (
            1 if in_request else BATCH)
        # oslo.db waits for a database that is away; an API request must not,
        # nor must others wait for it.
        self._options.update(sqlite_fk=True, max_retries=0,
                             thread_checkin=False)
        self._lock = threading.Lock()
        self._pid = 0
        self._engine: sa.Engine
        self.breaker = breaker.Breaker(self._ping)

    @property
    def engine(self) -> sa.Engine:
        """The engine of this process, made at its first use.

        :raises InventoryUnavailable: the database cannot be reached.
        """
        with self._lock:
            # A forked worker must not use its parent's connections.
            if self._pid != os.getpid():
                self._engine = self._new_engine(self.timeout)
                self._pid = os.getpid()
            return self._engine

    def _url(self) -> sa.URL:
        """Return the URL of a connection that has room for every name.

        MySQL's tables have. But oslo.db's default, and the ``charset=utf8``
        in most URLs of OpenStack services, is what it once took for UTF-8.

        :raises ConfigError: it is not a URL of a supported database.
        """
        url = urls.parse('[database] connection', self._connection)
        return url.update_query_string(self._parameters)

    def _new_engine(self, timeout: int | None) -> sa.Engine:
        """Make an engine.

        :param timeout: seconds that a statement may take; None: for ever.
        """
        url = self._url()
        kind = url.get_backend_name()
        if kind == 'mysql':
            url = url.update_query_dict({'charset': 'utf8mb4'})
        limits = {'connect_timeout': str(self._connect_timeout)}
        if kind == 'mysql' and timeout is not None:
            limits.update(dict.fromkeys(('read_timeout', 'write_timeout'),
                                        str(timeout)))
        more = {}
        if kind != 'sqlite':
            url = url.set(query={**limits, **url.query})
            if self._options['pool_timeout'] is None:
                more['pool_timeout'] = self.timeout
        context = enginefacade.transaction_context()
        try:
            context.configure(
                connection=url.render_as_string(hide_password=False),
                **{**self._options, **more})
            engine = context.writer.get_engine()
            if kind == 'postgresql' and timeout is not None:
                from vmip_plugin.sql import postgresql
                postgresql.bound(engine, float(
                    str(url.query['connect_timeout'])), timeout)
        except ImportError as exc:
            raise exceptions.ConfigError(
                f'[database] connection needs what is not installed ({exc}): '
                'pip install "vmip-plugin[mysql]" or '
                '"vmip-plugin[postgresql]"') from exc
        except (sa_exc.ArgumentError, db_exc.CantStartEngineError,
                ValueError):
            # their text may have a part of the password
            raise exceptions.ConfigError(
                '[database] connection: a value after the ? in it is wrong'
            ) from None
        # Names in them are tenants' text: not for the log.
        engine.hide_parameters = True
        if engine.dialect.name == 'sqlite':
            sa.event.listen(engine, 'connect', _sqlite_connect)
            sa.event.listen(engine, 'before_cursor_execute', _sqlite_begin,
                            retval=True)
            # oslo.db pools none, and whoever closes the last connection to
            # the file writes the whole log back: so one stays open
            with _unavailable():
                self._open = engine.connect()
        elif timeout is not None:
            session = {'mysql': _mysql_session,
                       'postgresql': _postgresql_session}[kind]
            sa.event.listen(engine, 'connect', functools.partial(
                session, url, max(1, timeout - 1)))
        if kind == 'mysql':
            sa.event.listen(engine, 'connect', _mysql_connect)
        return engine

    def _ping(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(sa.text('SELECT 1'))

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Let what runs inside use the database, if that answers.

        :raises InventoryUnavailable: it cannot be used, or has not answered
            the one before in time.
        """
        self.breaker.check()
        try:
            with _unavailable():
                yield
        except exceptions.InventoryUnavailable as exc:
            self.breaker.trip(exc)
            raise

    @contextlib.contextmanager
    def read(self) -> Iterator[orm.Session]:
        """A session that only reads.

        :raises InventoryUnavailable: the database is away or has no schema.
        """
        with self._guarded(), orm.Session(self.engine) as session:
            yield session

    @contextlib.contextmanager
    def write(self, actor: str, commit: bool = True) -> Iterator[orm.Session]:
        """A session in a transaction that is committed at the end.

        :param actor: who acts; the session's ``info`` has it.
        :param commit: False: all is undone at the end.
        :raises InventoryUnavailable: as for :meth:`read`.
        :raises oslo_db.exception.DBDeadlock: try the whole again.
        """
        # On SQLite a transaction that first reads and then writes would be
        # refused, not queued, once another writer came between.
        with self._guarded(), orm.Session(
                self.engine.execution_options(vmip_write=True),
                expire_on_commit=False, info={'actor': actor},
        ) as session:
            with self._turn():
                session.connection()
            yield session
            session.flush()
            if commit:
                session.commit()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the next to begin, where only one may write at a time.

        SQLite looks ever more seldom whether it may begin, and so lets those
        wait who have waited long already. Here all have the same chance to be
        next, and only the next one asks SQLite.

        :raises OSError: others have been writing for too long.
        """
        path = self.engine.url.database or ''
        if self.engine.dialect.name != 'sqlite' or not os.path.isfile(path):
            yield
            return
        # The folder's lock: it needs no file and no right to write.
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            end = time.monotonic() + SQLITE_BUSY_TIMEOUT
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as exc:
                    if time.monotonic() > end:
                        raise OSError('others are writing') from exc
                    time.sleep(random.uniform(0, 2 * _POLL))
            yield
        finally:
            os.close(folder)

    def upgrade(self, revision: str = 'head') -> None:
        """Bring the schema up to a revision."""
        self.revision()    # within a time-out, unlike what follows
        try:
            with _unavailable():
                # a large table takes as long as it takes
                engine = self._new_engine(None)
                try:
                    command.upgrade(self._alembic(engine), revision)
                finally:
                    engine.dispose()
        except (NoSchema, sa_exc.NoSuchTableError) as exc:
            raise exceptions.InventoryUnavailable(
                'The schema is not what its version says: a table that this '
                'version made is missing. Restore the database from a '
                'backup, or begin with an empty one '
                f'({_first_line(exc.__cause__ or exc)})') from exc
        with self._lock:
            # what a connection has seen of the old schema is of no use
            if self._pid == os.getpid():
                self._engine.dispose()
            self._pid = 0

    def revision(self) -> str | None:
        """Return the revision of the schema, None where there is no table."""
        with self._guarded(), self.engine.connect() as connection:
            return migration.MigrationContext.configure(
                connection).get_current_revision()

    def skew(self) -> float | None:
        """Return how far the server's clock is from ours, in seconds.

        At least: it may be more by the time that the answer took. None where
        there is no server, and so no other clock.

        :raises InventoryUnavailable: the database is away.
        """
        if self.engine.dialect.name == 'sqlite':
            return None
        query = sa.text(_UNIX_TIME[self.engine.dialect.name])
        with self._guarded(), self.engine.connect() as connection:
            return apart(lambda: float(
                connection.execute(query).scalar_one()))

    def head(self) -> str:
        """Return the revision that this version of vmip needs."""
        return _head()

    def behind(self) -> str | None:
        """Tell what schema is there that this version cannot work with.

        None where it can: also with a later one, for an upgrade only adds.

        :raises InventoryUnavailable: the database is away.
        """
        found = self.revision()
        # they are numbers, and grow
        if found is not None and found >= self.head():
            return None
        return (f'the schema is {found or "none"}, this version needs '
                f'{self.head()}')

    @staticmethod
    def _alembic(engine: sa.Engine) -> alembic_config.Config:
        config = alembic_config.Config()
        config.set_main_option('script_location', str(_MIGRATIONS))
        config.attributes['engine'] = engine
        return config


class NoSchema(exceptions.InventoryUnavailable):
    """The database answers, and a table is not there."""


def apart(ask: Callable[[], float]) -> float:
    """Return how many seconds another clock is from ours, at least.

    Whatever an answer takes and wherever it waits, the other clock was read
    between the two moments that ours shows before and after. Of several
    answers the one that says most counts.

    :param ask: tells the other clock's seconds since 1970.
    """
    found = 0.0
    for _ in range(_SAMPLES):
        before = clock.now().timestamp()
        theirs = ask()
        after = clock.now().timestamp()
        found = max(found, before - theirs, theirs - after)
    return found


@functools.cache
def _head() -> str:
    head = script.ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    assert head is not None
    return head


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (db_exc.DBDeadlock, db_exc.DBDuplicateEntry,
            db_exc.DBReferenceError):
        raise
    except db_exc.DBNonExistentTable as exc:
        raise _no_schema() from exc
    except (db_exc.DBError, sa_exc.DBAPIError, sa_exc.TimeoutError,
            OSError) as exc:
        code = _code(exc)
        # oslo.db does not know these two of PostgreSQL, nor the third, which
        # is MySQL's
        if code == '40001':
            raise db_exc.DBDeadlock(exc) from exc
        if code in ('42P01', 1146):
            raise _no_schema() from exc
        raise exceptions.InventoryUnavailable(
            f'The database cannot be used: {_first_line(exc)}') from exc


def _no_schema() -> NoSchema:
    return NoSchema(
        'The database has no schema: run "vmip-manage db upgrade"')


def _code(exc: BaseException) -> str | int | None:
    """Return the database's own code of an error (SQLSTATE on PostgreSQL)."""
    orig = getattr(getattr(exc, 'inner_exception', exc), 'orig', None)
    found: str | int | None = getattr(orig, 'pgcode', None)
    if found is None and orig is not None and orig.args:
        found = orig.args[0]
    return found


def _first_line(exc: BaseException) -> str:
    # SQLAlchemy's text goes on with the statement and its parameters, which
    # may be a tenant's.
    inner = getattr(exc, 'inner_exception', None) or exc
    text = str(getattr(inner, 'orig', None) or inner)
    return text.partition('\n')[0] or type(inner).__name__


def _sqlite_connect(connection: Any, record: Any) -> None:
    # busy_timeout first: the switch to WAL itself has to wait its turn.
    connection.execute(f'PRAGMA busy_timeout = {SQLITE_BUSY_TIMEOUT * 1000}')
    connection.execute('PRAGMA journal_mode = WAL')
    connection.execute('PRAGMA synchronous = FULL')


def _mysql_session(url: sa.URL, seconds: int, connection: Any,
                   record: Any) -> None:
    """Have the server give up before we do: that costs no connection."""
    limit = (f'max_statement_time = {seconds}'
             if 'MariaDB' in connection.get_server_info()
             # it knows no such limit for statements that write
             else f'max_execution_time = {seconds * 1000}')
    with connection.cursor() as cursor:
        cursor.execute(f'SET SESSION innodb_lock_wait_timeout = {seconds}, '
                       f'{limit}')


def _postgresql_session(url: sa.URL, seconds: int, connection: Any,
                        record: Any) -> None:
    given = str(url.query.get('options', ''))
    with connection.cursor() as cursor:
        for name in ('statement_timeout', 'lock_timeout'):
            if name not in given:
                cursor.execute(f'SET {name} = {seconds * 1000}')
    # a rollback would undo it
    connection.commit()


def _mysql_connect(connection: Any, record: Any) -> None:
    # As on PostgreSQL, each statement sees what is committed: what was
    # overtaken is noticed at once, and no gap between keys is locked.
    with connection.cursor() as cursor:
        cursor.execute(
            'SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED')


def _sqlite_begin(connection: sa.Connection, cursor: Any, statement: str,
                  parameters: Any, context: Any, executemany: bool
                  ) -> tuple[str, Any]:
    # oslo.db begins every transaction itself, whatever else listens.
    if (statement == 'BEGIN'
            and connection.get_execution_options().get('vmip_write')):
        statement = 'BEGIN IMMEDIATE'
    return statement, parameters
