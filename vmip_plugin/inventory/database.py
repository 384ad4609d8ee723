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

from collections.abc import Iterator
import contextlib
import os
import pathlib
import threading
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

from vmip_plugin import exceptions

#: Seconds that a writer waits for another one on SQLite.
SQLITE_BUSY_TIMEOUT = 30


class Database:
    """One database, used from any number of threads and processes.

    :param conf: options with oslo.db's group ``[database]``.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._options = dict(conf.database)
        # oslo.db waits for a database that is away; an API request must not.
        self._options.update(sqlite_fk=True, max_retries=1, retry_interval=1)
        self._lock = threading.Lock()
        self._pid = 0
        self._engine: sa.Engine

    @property
    def engine(self) -> sa.Engine:
        """The engine of this process, made at its first use.

        :raises InventoryUnavailable: the database cannot be reached.
        """
        with self._lock:
            # A forked worker must not use its parent's connections.
            if self._pid != os.getpid():
                self._engine = self._new_engine()
                self._pid = os.getpid()
            return self._engine

    def _new_engine(self) -> sa.Engine:
        context = enginefacade.transaction_context()
        context.configure(**self._options)
        try:
            with _unavailable():
                engine = context.writer.get_engine()
        except (sa_exc.ArgumentError, ImportError,
                db_exc.CantStartEngineError) as exc:
            raise exceptions.ConfigError(
                f'[database] connection: {_first_line(exc)}') from exc
        # Names in them are tenants' text: not for the log.
        engine.hide_parameters = True
        if engine.dialect.name == 'sqlite':
            sa.event.listen(engine, 'connect', _sqlite_connect)
            sa.event.listen(engine, 'before_cursor_execute', _sqlite_begin,
                            retval=True)
        return engine

    @contextlib.contextmanager
    def read(self) -> Iterator[orm.Session]:
        """A session that only reads.

        :raises InventoryUnavailable: the database is away or has no schema.
        """
        with _unavailable(), orm.Session(self.engine) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[orm.Session]:
        """A session in a transaction that is committed at the end.

        :raises InventoryUnavailable: as for :meth:`read`.
        :raises oslo_db.exception.DBDeadlock: try the whole again.
        """
        # On SQLite a transaction that first reads and then writes would be
        # refused, not queued, once another writer came between.
        engine = self.engine.execution_options(vmip_write=True)
        with _unavailable(), orm.Session(
                engine, expire_on_commit=False) as session, session.begin():
            yield session

    def upgrade(self, revision: str = 'head') -> None:
        """Bring the schema up to a revision."""
        with _unavailable():
            command.upgrade(self._alembic(), revision)

    def revision(self) -> str | None:
        """Return the revision of the schema, None where there is no table."""
        with _unavailable(), self.engine.connect() as connection:
            return migration.MigrationContext.configure(
                connection).get_current_revision()

    def head(self) -> str:
        """Return the revision that this version of vmip needs."""
        head = script.ScriptDirectory.from_config(
            self._alembic()).get_current_head()
        assert head is not None
        return head

    def _alembic(self) -> alembic_config.Config:
        config = alembic_config.Config()
        config.set_main_option(
            'script_location',
            str(pathlib.Path(__file__).parent / 'migrations'))
        config.attributes['engine'] = self.engine
        return config


@contextlib.contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (db_exc.DBDeadlock, db_exc.DBDuplicateEntry,
            db_exc.DBReferenceError):
        raise
    except db_exc.DBNonExistentTable as exc:
        raise exceptions.InventoryUnavailable(
            'The database has no schema: run "vmip-manage db upgrade"'
        ) from exc
    except (db_exc.DBError, sa_exc.DBAPIError, sa_exc.TimeoutError,
            OSError) as exc:
        raise exceptions.InventoryUnavailable(
            f'The database cannot be used: {_first_line(exc)}') from exc


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


def _sqlite_begin(connection: sa.Connection, cursor: Any, statement: str,
                  parameters: Any, context: Any, executemany: bool
                  ) -> tuple[str, Any]:
    # oslo.db begins every transaction itself, whatever else listens.
    if (statement == 'BEGIN'
            and connection.get_execution_options().get('vmip_write')):
        statement = 'BEGIN IMMEDIATE'
    return statement, parameters
