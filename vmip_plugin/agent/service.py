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

"""The agent: its threads, and how they begin and end."""

from collections.abc import Collection
import queue
import sqlite3
import threading
import time
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin.agent import dhcp
from vmip_plugin.agent import hear
from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import link
from vmip_plugin.agent import probe
from vmip_plugin.agent import rpc
from vmip_plugin.agent import servers
from vmip_plugin.agent import snoop
from vmip_plugin.agent import store as store_
from vmip_plugin.agent import tracker
from vmip_plugin.agent import worker
from vmip_plugin import cloud as cloud_
from vmip_plugin import exceptions
from vmip_plugin import health
from vmip_plugin import metrics
from vmip_plugin import types

LOG = logging.getLogger(__name__)

#: most things overheard that wait for the store
BACKLOG = 100000
#: most of them in one transaction
BATCH = 20000
#: seconds in which they gather for one
GATHER = 0.1
#: seconds that a check waits for the store to catch up
SETTLE = 2.0
#: most seconds between two turns of who writes
_HUNG = 60.0


class Agent:
    """Overhears, remembers, checks and releases.

    :param conf: parsed options.
    :param cloud: the cloud, or what speaks like it.
    :param transport: of oslo.messaging, for hints; None goes without.
    :raises ConfigError: an interface or the store cannot be used.
    :raises PermissionError: raw sockets are not allowed.
    """

    def __init__(self, conf: cfg.ConfigOpts, cloud: cloud_.Cloud,
                 transport: Any = None, host: str = 'localhost') -> None:
        options = conf.agent
        check_interfaces(options.interfaces)
        self._store = store_.LeaseStore(options.store, options.store_limit)
        self._stop = threading.Event()
        self._heard: queue.Queue[
            tracker.Overheard | threading.Event] = queue.Queue(BACKLOG)
        self._lost = 0
        drivers = dhcp.load_drivers(conf)
        self._worker = worker.Worker(
            conf, cloud, self._store, servers.Servers(drivers), self._settle,
            self._stop)
        self._hearer = hear.Hearer(
            options.interfaces, self._store, probe.Prober(
                options.interfaces, options.probe_count,
                options.probe_timeout))
        self._writer = threading.Thread(
            target=self._write, name='writer', daemon=True)
        self._snoops = [snoop.Snoop(name, self._emit, self._stop)
                        for name in dict.fromkeys(options.interfaces)]
        self._pulse = health.Pulse('writer', _HUNG)
        self._rpc: Any = None
        if transport is not None:
            self._rpc = rpc.server(
                transport, host, self._hint,
                rpc.Questions(transport, host, self), dhcp.Endpoint(drivers))

    def start(self) -> None:
        for thread in (self._writer, *self._snoops, self._worker):
            thread.start()
        if self._rpc is not None:
            # The bus may be away now and come later.
            threading.Thread(target=self._listen, name='rpc',
                             daemon=True).start()

    def health(self) -> health.Health:
        """Return what tells how the agent is."""
        return health.Health(
            metrics.AGENT, [self._pulse, self._worker.pulse,
                            *(one.pulse for one in self._snoops)],
            {'store': self._store.check, 'interfaces': self._deaf_on})

    def _deaf_on(self) -> str | None:
        names = [one.interface for one in self._snoops if not one.listening]
        return f'deaf on {", ".join(names)}: see the log' if names else None

    def stop(self, timeout: float = 1.5) -> None:
        """Stop the threads; one that is in a call to the cloud is left.

        :param timeout: seconds for all of them together.
        """
        deadline = time.monotonic() + timeout
        self._stop.set()
        self._worker.wake()
        if self._rpc is not None:
            ending = threading.Thread(target=self._rpc.stop, daemon=True)
            ending.start()
            ending.join(0.5)
        for thread in (*self._snoops, self._writer, self._worker):
            thread.join(max(0.0, deadline - time.monotonic()))
        if not self._worker.is_alive() and not self._writer.is_alive():
            self._store.close()

    def page(self, after: lease_.Key | None, limit: int
             ) -> list[lease_.Lease]:
        return self._store.page(after, limit)

    def hear(self, addresses: Collection[types.Address]
             ) -> dict[types.Address, bool]:
        return self._hearer.hear(addresses)

    def look(self) -> rpc.Look:
        return self._worker.look()

    def _hint(self, hint: rpc.Hint) -> None:
        try:
            self._worker.hint(hint)
        except sqlite3.Error as exc:
            LOG.error('A hint about %s cannot be stored: %s', hint.address,
                      exc)

    def _listen(self) -> None:
        try:
            self._rpc.start()
            LOG.info('Listening for hints and calls on topic %s', rpc.TOPIC)
        except Exception:
            LOG.exception('Cannot listen for hints and calls; sweeps go on '
                          'without')

    def _emit(self, one: tracker.Overheard) -> None:
        try:
            self._heard.put_nowait(one)
        except queue.Full:
            self._lost += 1
            metrics.LOST.inc()
            if self._lost & (self._lost - 1) == 0:
                LOG.error('The store is too slow: %d things overheard are '
                          'lost', self._lost)

    def _write(self) -> None:
        while not self._stop.is_set() or not self._heard.empty():
            got = self._gather()
            batch = [one for one in got if not isinstance(
                one, threading.Event)]
            self._pulse.beat()
            while batch:
                try:
                    if self._store.record(batch):
                        self._worker.news()
                    metrics.OVERHEARD.inc(len(batch))
                    break
                except Exception as exc:
                    LOG.error('The store cannot be written, trying again: '
                              '%s', exc)
                    self._pulse.beat()
                    if self._stop.wait(1):
                        return
            for one in got:
                if isinstance(one, threading.Event):
                    one.set()
                self._heard.task_done()

    def _gather(self) -> list[tracker.Overheard | threading.Event]:
        batch = []
        try:
            batch.append(self._heard.get(timeout=0.25))
            # A thread that woke for each would be in the snoops' way.
            if self._heard.qsize() < BATCH:
                self._stop.wait(GATHER)
            while len(batch) < BATCH:
                batch.append(self._heard.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _settle(self) -> bool:
        """Wait until what is on the wire now is in the store."""
        time.sleep(link.LATE)
        stored = threading.Event()
        try:
            self._heard.put(stored, timeout=SETTLE)
        except queue.Full:
            return False
        return stored.wait(SETTLE)


def check_interfaces(names: list[str]) -> None:
    """Open each interface once.

    :raises ConfigError: there is none, or one is not there or no Ethernet.
    :raises PermissionError: raw sockets are not allowed.
    """
    if not names:
        raise exceptions.ConfigError(
            '[agent] interfaces is empty: name the bridges on which DHCP is '
            'to be overheard')
    for name in names:
        try:
            with link.Link(name, link.NOTHING) as opened:
                LOG.debug('%s is %s', name, opened.mac)
        except PermissionError:
            raise
        except OSError as exc:
            raise exceptions.ConfigError(
                f'[agent] interfaces: {name}: {exc}') from exc
