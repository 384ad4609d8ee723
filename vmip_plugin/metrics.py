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

"""What the daemons count, for Prometheus.

The names and the labels, in one place. A label has one of a few values that
the code or the configuration knows: never what a tenant or a message said,
and never an address or a server of the cloud.

A program that serves no metrics counts for nobody; that costs about a
microsecond each time.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import prometheus_client
from prometheus_client import registry

LISTENER = 'vmip-listener'
RECLAIMER = 'vmip-reclaimer'
AGENT = 'vmip-agent'
#: who writes to DHCP servers
_WRITERS = (LISTENER, RECLAIMER)
_ALL = (LISTENER, RECLAIMER, AGENT)

Registry = registry.CollectorRegistry
M = TypeVar('M', prometheus_client.Counter, prometheus_client.Gauge,
            prometheus_client.Histogram)

#: Of each daemon: not the library's own one, which its host may serve.
REGISTRIES = {daemon: Registry() for daemon in _ALL}

#: Seconds: from a message that nobody waited for to the longest age counted.
_AGES = (.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)
#: What a forged or stopped clock may add to the sum.
LONGEST = 86400.0


def _made(kind: Callable[..., M], name: str, what: str,
          daemons: Sequence[str], labels: Sequence[str] = (),
          **options: object) -> M:
    metric: M = kind(name, what, labels, registry=None, **options)
    for daemon in daemons:
        REGISTRIES[daemon].register(metric)
    return metric


EVENTS = _made(
    prometheus_client.Counter, 'vmip_events',
    'Notifications by kind and by what became of them.', [LISTENER],
    ['kind', 'outcome'])
EVENT_AGE = _made(
    prometheus_client.Histogram, 'vmip_event_age_seconds',
    'Age of a notification when its handling begins, by its own timestamp.',
    [LISTENER], buckets=_AGES)
EVENT_RETRIES = _made(
    prometheus_client.Counter, 'vmip_event_retries',
    'Tries to handle a batch of notifications that failed, by what was away.',
    [LISTENER], ['away'])

CLOUD_ERRORS = _made(
    prometheus_client.Counter, 'vmip_cloud_errors',
    'Questions to an OpenStack service without a usable answer.', _ALL,
    ['service'])
# What was never seen at 0 is not seen to grow to 1.
for _service in ('keystone', 'neutron', 'nova'):
    CLOUD_ERRORS.labels(_service)

ENTRY_WRITES = _made(
    prometheus_client.Counter, 'vmip_host_entry_writes',
    'Host entries written to a DHCP server or removed from it.', _WRITERS,
    ['dhcp_server', 'action', 'outcome'])
ENTRY_DELAY = _made(
    prometheus_client.Histogram, 'vmip_host_entry_delay_seconds',
    'Time from the moment a host entry is wanted until the server has it.',
    _WRITERS, ['dhcp_server'], buckets=_AGES)
RELEASES = _made(
    prometheus_client.Counter, 'vmip_address_releases',
    'Addresses taken back, by the reason.', _WRITERS, ['reason'])
ADOPTIONS = _made(
    prometheus_client.Counter, 'vmip_ports_adopted',
    'Ports in a pool that the inventory lacked and has now.', [RECLAIMER])
LEASE_RELEASES = _made(
    prometheus_client.Counter, 'vmip_lease_releases',
    'Leases ended before their time, by the reason and the outcome.', _ALL,
    ['reason', 'outcome'])

OWNER = _made(
    prometheus_client.Gauge, 'vmip_reclaimer_owner',
    'Whether this is the one vmip-reclaimer that does the work.',
    [RECLAIMER])
TASK_RUNS = _made(
    prometheus_client.Counter, 'vmip_task_runs',
    'Runs of a periodic task, by outcome.', [RECLAIMER], ['task', 'outcome'])
TASK_ITEMS = _made(
    prometheus_client.Counter, 'vmip_task_items',
    'What a periodic task came upon, by what became of it.', [RECLAIMER],
    ['task', 'result'])
TASK_SUCCESS = _made(
    prometheus_client.Gauge, 'vmip_task_success_timestamp_seconds',
    'When a periodic task last ended without an error.', [RECLAIMER],
    ['task'])
DRIFT = _made(
    prometheus_client.Gauge, 'vmip_drift_entries',
    'Host entries that the last comparison with the list found otherwise.',
    [RECLAIMER], ['dhcp_server', 'kind'])
DRIFT_CHECKED = _made(
    prometheus_client.Gauge, 'vmip_drift_checked_timestamp_seconds',
    'When a DHCP server was last compared with the list.', [RECLAIMER],
    ['dhcp_server'])

OVERHEARD = _made(
    prometheus_client.Counter, 'vmip_agent_overheard',
    'DHCP messages about leases that were overheard and stored.', [AGENT])
LOST = _made(
    prometheus_client.Counter, 'vmip_agent_lost',
    'Messages overheard that the store was too slow for.', [AGENT])
MALFORMED = _made(
    prometheus_client.Counter, 'vmip_agent_malformed',
    'Frames on the DHCP ports that hold no sound DHCP message.', [AGENT])
VERDICTS = _made(
    prometheus_client.Counter, 'vmip_agent_verdicts',
    'Checks of a lease by the verdict.', [AGENT], ['verdict'])

#: Host entries of which the server knows what it should.
DONE = 'done'
FAILED = 'failed'
