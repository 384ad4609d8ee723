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

"""Which of several vmip-reclaimers does the work: one at a time.

Every task may be done by several at once, so nothing goes wrong where two
take themselves for the owner for a while; only work is done twice.
"""

import hashlib
import pathlib
import threading
import time
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging
import tooz
from tooz import coordination

from vmip_plugin.conf import urls as conf_urls
from vmip_plugin import exceptions
from vmip_plugin import health
from vmip_plugin.sql import urls

LOG = logging.getLogger(__name__)

#: Seconds between two tries to become the owner, and two signs of life.
BEAT = 5.0
#: Seconds without a sign of life after which an owner is none any more.
LIMIT = 30.0
#: Seconds after which an owner whose backend cannot tell whether it still is
#: one lets go of the lock and takes it again.
TERM = 15.0

#: Seconds after which a backend that hangs has this process restarted.
HUNG = 300.0

#: What of a database's URL means the same to tooz.
_OPTIONS = ('unix_socket', 'ssl_ca', 'ssl_cert', 'ssl_key')


def url(conf: cfg.ConfigOpts) -> str:
    """Return the URL of the backend: the configured one or the default.

    The default is a lock in the list's own database; for SQLite, which is on
    one host, in a file beside it.

    :raises ConfigError: the database's URL cannot be said in tooz's words,
        or the configured one can be read in two ways.
    """
    configured: str | None = conf.reclaimer.coordination_url
    if configured:
        conf_urls.check_coordination('[reclaimer] coordination_url',
                                     configured)
        return configured
    found = urls.parse('[database] connection', conf.database.connection)
    kind = found.get_backend_name()
    if kind == 'sqlite':
        folder = pathlib.Path(found.database or '').absolute().parent
        return f'file://{folder}/coordination'
    # tooz takes each part as it is written, and not as a URL means it
    parts = [found.username or '', found.password or '', found.host or '',
             found.database or '']
    if kind not in ('mysql', 'postgresql') or any(
            c in part for part in parts for c in '/?#@[]'):
        raise exceptions.ConfigError(
            'No lock can be had in this [database]: set [reclaimer] '
            'coordination_url')
    user, password, host, database = parts
    port = f':{found.port}' if found.port else ''
    query = '&'.join(f'{key}={found.query[key]}' for key in _OPTIONS
                     if key in found.query)
    return (f'{kind}://{user}:{password}@{host}{port}/{database}'
            + (f'?{query}' if query else ''))


class Owner:
    """Tells whether this process is the one that does the work.

    :param me: this process's name among the others.
    :raises ConfigError: there is no such backend.
    """

    def __init__(self, conf: cfg.ConfigOpts, me: str) -> None:
        self._url = url(conf)
        self._me = me.encode()
        # one backend may serve several clouds
        cloud = f'{conf.cloud.region_name} ' + (
            urls.parse('[database] connection',
                       conf.database.connection).database or '')
        self._name = b'vmip-reclaimer-' + hashlib.sha256(
            cloud.encode()).hexdigest()[:16].encode()
        self._coordinator: Any = None
        self._lock: Any = None
        self._since = 0.0
        self._until = 0.0
        self._error = ''
        self.pulse = health.Pulse('owner', HUNG)
        self._get()

    @property
    def is_owner(self) -> bool:
        return time.monotonic() < self._until

    def check(self) -> str | None:
        """Tell why nobody knows who does the work; None: it is known."""
        # the error itself may be of a URL with a password
        return ('nobody knows who is to do the work: see the log'
                if self._error else None)

    def keep(self, stop: threading.Event) -> None:
        """Be the owner whenever nobody else is, until told to stop."""
        while not stop.is_set():
            self.pulse.beat()
            self.beat()
            stop.wait(BEAT)
        self._until = 0.0
        self._drop()

    def beat(self) -> None:
        """Become the owner, or go on being it, if that can be."""
        began = time.monotonic()
        try:
            mine = self._still() if self._lock else self._take()
        # each backend has failures of its own besides tooz's
        except Exception as exc:
            text = f'{type(exc).__name__}: {exc}'.partition('\n')[0]
            if text != self._error:
                LOG.warning('Nobody knows who is to do the work, so it waits:'
                            ' %s', text)
            self._error = text
            self._until = 0.0
            self._drop()
            return
        if self._error:
            LOG.info('It is known again who is to do the work')
            self._error = ''
        if mine and not self._until:
            LOG.info('This process does the work now')
        elif not mine and self._until:
            LOG.info('Another process does the work now')
        self._until = began + LIMIT if mine else 0.0

    def _get(self) -> Any:
        try:
            return coordination.get_coordinator(self._url, self._me)
        except (ImportError, RuntimeError, ValueError, tooz.ToozError) as exc:
            # the rest of it may be a password
            scheme, separator, _ = self._url.partition('://')
            raise exceptions.ConfigError(
                f'[reclaimer] coordination_url: '
                f'{scheme if separator else "what is no URL"} cannot be used '
                f'({type(exc).__name__}): see that its library is installed'
            ) from exc

    def _take(self) -> bool:
        if self._coordinator is None:
            made = self._get()
            made.start()
            self._coordinator = made
        lock = self._coordinator.get_lock(self._name)
        if not lock.acquire(blocking=False):
            return False
        self._lock = lock
        self._since = time.monotonic()
        return True

    def _still(self) -> bool:
        self._coordinator.heartbeat()
        try:
            if self._lock.is_still_owner():
                return True
        except tooz.NotImplemented:
            if time.monotonic() - self._since < TERM:
                return True
            self._lock.release()
        self._lock = None
        return self._take()

    def _drop(self) -> None:
        """Let go of whatever there is, as far as the backend can be asked."""
        lock, self._lock = self._lock, None
        made, self._coordinator = self._coordinator, None
        for end in (lock and lock.release, made and made.stop):
            try:
                if end:
                    end()
            except Exception as exc:
                LOG.debug('Coordination: %s', type(exc).__name__)
