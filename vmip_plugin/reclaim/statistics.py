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

"""What the list tells Prometheus: how full the pools are, what is undone.

Only the vmip-reclaimer that does the work tells it, so that a sum over all of
them counts nothing twice.
"""

from collections.abc import Callable, Iterable
import threading
import time

from oslo_config import cfg
from oslo_log import log as logging
from prometheus_client import core
from prometheus_client import registry

from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import states
from vmip_plugin import metrics

LOG = logging.getLogger(__name__)

#: Seconds between two looks at the list.
INTERVAL = 15.0
#: Seconds after which a look is too old to be told.
MAX_AGE = 120.0


class Statistics(registry.Collector):
    """Reads the list in its own thread, however often Prometheus asks.

    :param is_owner: tells whether this process does the work.
    """

    def __init__(self, conf: cfg.ConfigOpts, inventory: api.Inventory,
                 is_owner: Callable[[], bool]) -> None:
        self._servers: list[str] = conf.dhcp.servers
        self._inventory = inventory
        self._is_owner = is_owner
        self._found: list[core.Metric] = []
        self._until = 0.0

    def keep(self, stop: threading.Event) -> None:
        """Look again and again until told to stop."""
        while not stop.is_set():
            self.look()
            stop.wait(INTERVAL)

    def look(self) -> None:
        """Read the list, where this process does the work."""
        metrics.OWNER.set(self._is_owner())
        if not self._is_owner():
            # another one tells it now
            metrics.DRIFT.clear()
            metrics.DRIFT_CHECKED.clear()
            metrics.TASK_SUCCESS.clear()
            self._until = 0.0
            return
        try:
            self._found = [self._addresses(), *self._undone(),
                           self._waiting()]
            self._until = time.monotonic() + MAX_AGE
        except exceptions.VmipError as exc:
            LOG.debug('The list cannot be told: %s', exc)
        except Exception:
            LOG.exception('The list cannot be told')

    def collect(self) -> Iterable[core.Metric]:
        """Return what the last look found; nothing where that is too old."""
        return self._found if time.monotonic() < self._until else []

    def _addresses(self) -> core.Metric:
        found = core.GaugeMetricFamily(
            'vmip_pool_addresses', 'Addresses of a pool in each state.',
            labels=['pool', 'state'])
        for pool, counts in self._inventory.usage().items():
            for state, count in counts.items():
                found.add_metric([pool, state], count)
        return found

    def _waiting(self) -> core.Metric:
        found = core.GaugeMetricFamily(
            'vmip_host_entries_waiting',
            'Host entries that are to be written or removed and wait, by '
            'what they wait for.', labels=['dhcp_server', 'waiting_for'])
        counts = {(one.server, one.waiting_for): one.count
                  for one in self._inventory.waiting()}
        for server in sorted({*self._servers, *(s for s, _ in counts)}):
            for reason in states.WaitingFor:
                found.add_metric([server, reason],
                                 counts.get((server, reason), 0))
        return found

    def _undone(self) -> Iterable[core.Metric]:
        """Return how much is undone and how old the oldest of it is."""
        undone = {(one.server, one.present): one
                  for one in self._inventory.undone()}
        counts = core.GaugeMetricFamily(
            'vmip_host_entries_undone',
            'Host entries that a DHCP server does not have as it should.',
            labels=['dhcp_server', 'action'])
        ages = core.GaugeMetricFamily(
            'vmip_host_entry_lag_seconds',
            'Age of the oldest intent that is not done.',
            labels=['dhcp_server', 'action'])
        now = clock.now()
        for server in sorted({*self._servers, *(s for s, _ in undone)}):
            for present, action in ((True, 'write'), (False, 'remove')):
                one = undone.get((server, present))
                counts.add_metric([server, action], one.count if one else 0)
                ages.add_metric([server, action], max(
                    0, (now - one.since).total_seconds())
                    if one and one.since else 0)
        return counts, ages
