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
from vmip_plugin.inventory import known
from vmip_plugin.inventory import models

P = ParamSpec('P')
T = TypeVar('T')
Part = TypeVar('Part', bound='Transactions')


class Transactions:
    """Base of the parts of the list.

    :param conf: options with the group ``[database]``.
    :param actor: who changes it, for the history (``nova-api``,
        ``vmip-listener``, ...).
    :param in_request: a request of an API waits for what is asked here.
    """

    def __init__(self, conf: cfg.ConfigOpts, actor: str,
                 in_request: bool = False) -> None:
        self.database = database.Database(conf, in_request)
        self._actor = actor
        self._commit = True
        self._known = known.KnownPools(self._read_pools)

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
        """Tell whether a network or a subnet may have a pool.

        To be asked before anything else, so that what has nothing to do with
        vmip never waits for its database. It answers from what this process
        knows, which is at most :attr:`known.MAX_AGE` seconds old while the
        database answers. True where this process has never seen the list.
        """
        return self._known.may_have(network_id or subnet_id)

    def _read_pools(self) -> frozenset[str]:
        with self.database.read() as session:
            return frozenset(
                id for row in session.execute(sa.select(
                    models.Pool.network_id, models.Pool.subnet_id))
                for id in row)


def write(method: Callable[Concatenate[Part, orm.Session, P], T]
          ) -> Callable[Concatenate[Part, P], T]:
    """Make a method one transaction, tried again after a deadlock.

    Deadlock is oslo.db's word for all that another try may heal: InnoDB's
    deadlocks, Galera's failed certification, and our own
    :class:`moves.Overtaken`. So may a unique key that another worker took in
    between, and a row that it changed.
    """
    def once(self: Part, end: float, /, *args: P.args,
             **kwargs: P.kwargs) -> T:
        try:
            with self.database.write(self._actor, self._commit) as session:
                return method(self, session, *args, **kwargs)
        except db_exc.DBDeadlock as exc:
            # a wait for a lock is one too, and each may be a long one
            if time.monotonic() > end:
                raise _busy() from exc
            raise

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
            result: T = retried(
                self, time.monotonic() + self.database.timeout, *args,
                **kwargs)
            return result
        except (db_exc.DBError, orm_exc.StaleDataError) as exc:
            raise _busy() from exc

    return mapped


def _busy() -> exceptions.InventoryUnavailable:
    return exceptions.InventoryUnavailable(
        'The database is too busy, try again')


def beyond(columns: Sequence[Any], values: Sequence[Any]) -> Any:
    """Return the condition that a row comes after these values."""
    if len(columns) == 1:
        return columns[0] > values[0]
    return sa.and_(columns[0] >= values[0], sa.or_(
        columns[0] > values[0], beyond(columns[1:], values[1:])))
