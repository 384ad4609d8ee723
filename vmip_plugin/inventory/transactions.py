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

"""What the parts of the list have in common: their database and actor."""

from collections.abc import Callable, Sequence
import copy
import functools
import time
from typing import Any
from typing import Concatenate
from typing import ParamSpec
from typing import Self
from typing import TypeVar

from oslo_config import cfg
from oslo_db import api as db_api
from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import exc as orm_exc

from vmip_plugin import exceptions
from vmip_plugin.inventory import database
from vmip_plugin.inventory import models

P = ParamSpec('P')
T = TypeVar('T')
Part = TypeVar('Part', bound='Transactions')


class Transactions:
    """Base of the parts of the list.

    :param conf: options with oslo.db's group ``[database]``.
    :param actor: who changes it, for the history (``nova-api``,
        ``vmip-listener``, ...).
    """

    def __init__(self, conf: cfg.ConfigOpts, actor: str) -> None:
        self.database = database.Database(conf)
        self._actor = actor
        self._commit = True
        self._known = _KnownPools()

    def rehearsal(self) -> Self:
        """Return the same list, on which every change is undone at once.

        A call of it answers, or fails, as the same call of this one would
        just now.
        """
        other = copy.copy(self)
        other._commit = False
        return other

    def may_have_pool(self, *, network_id: str | None = None,
                      subnet_id: str | None = None) -> bool:
        """Tell, while the database is away, whether a pool may be there.

        What has nothing to do with vmip must not suffer then. True where
        this process has never seen the list.
        """
        return self._known.may_have(network_id or subnet_id)


def write(method: Callable[Concatenate[Part, orm.Session, P], T]
          ) -> Callable[Concatenate[Part, P], T]:
    """Make a method one transaction, tried again after a deadlock.

    Deadlock is oslo.db's word for all that another try may heal: InnoDB's
    deadlocks, Galera's failed certification, and our own
    :class:`moves.Overtaken`. So may a unique key that another worker took in
    between, and a row that it changed.
    """
    @functools.wraps(method)
    def once(self: Part, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self.database.write(self._actor, self._commit) as session:
            return method(self, session, *args, **kwargs)

    retried = db_api.wrap_db_retry(
        max_retries=10, retry_interval=0.02, max_retry_interval=0.5,
        inc_retry_interval=True, retry_on_deadlock=True,
        jitter=True,
        exception_checker=lambda exc: isinstance(
            exc, (db_exc.DBDuplicateEntry, db_exc.DBReferenceError,
                  orm_exc.StaleDataError)))(once)

    @functools.wraps(method)
    def mapped(self: Part, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            result: T = retried(self, *args, **kwargs)
            return result
        except (db_exc.DBError, orm_exc.StaleDataError) as exc:
            raise exceptions.InventoryUnavailable(
                'The database is too busy, try again') from exc

    return mapped


def beyond(columns: Sequence[Any], values: Sequence[Any]) -> Any:
    """Return the condition that a row comes after these values."""
    if len(columns) == 1:
        return columns[0] > values[0]
    return sa.and_(columns[0] >= values[0], sa.or_(
        columns[0] > values[0], beyond(columns[1:], values[1:])))


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

    def note(self, pool: models.Pool) -> None:
        """Note a pool that may be younger than the last look."""
        if self._ids is not None:
            self._ids |= {pool.network_id, pool.subnet_id}

    def may_have(self, id: str | None) -> bool:
        return self._ids is None or id in self._ids
