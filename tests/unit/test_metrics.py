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

"""What is counted, where it happens."""

import datetime
from typing import Any
import uuid

import ddt
import sqlalchemy as sa

from tests import lab
from tests.unit import base
from tests.unit import fakes
from tests.unit.notifications import test_listener
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import ports
from vmip_plugin.inventory import states
from vmip_plugin import metrics
from vmip_plugin.notifications import handler
from vmip_plugin.notifications import listener
from vmip_plugin.reclaim import statistics
from vmip_plugin.reclaim import tasks

A = '10.0.0.10'


class Counts:
    """How much more is counted than when this was made."""

    def __init__(self, daemon: str) -> None:
        self._daemon = daemon
        self._before = self._now()

    def __call__(self, name: str, **labels: str) -> float:
        """Return the growth of a sample since then."""
        key = name, frozenset(labels.items())
        return self._now().get(key, 0) - self._before.get(key, 0)

    def _now(self) -> dict[Any, float]:
        return {(sample.name, frozenset(sample.labels.items())): sample.value
                for metric in metrics.REGISTRIES[self._daemon].collect()
                for sample in metric.samples}


def samples(found: Any) -> dict[tuple[str, ...], float]:
    """Return what a collector tells, by name and sorted labels' values."""
    return {(sample.name, *(value for _, value in sorted(
        sample.labels.items()))): sample.value
        for metric in found.collect() for sample in metric.samples}


@ddt.ddt
class TestListener(test_listener.ListenerTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.counts = Counts(metrics.LISTENER)

    def message(self, number: int = 1, **values: Any,
                ) -> test_listener.Incoming:
        found = test_listener.deleted(number)
        found.message.update(values)
        return found

    def test_outcomes(self) -> None:
        handler = test_listener.Recorder()
        handler.poison = {3}
        target = self.new(handler)
        target.dispatch([
            *(test_listener.deleted(number) for number in range(5)),
            test_listener.Incoming({'event_type': 'compute.whatever'}),
            test_listener.Incoming({'event_type': 'port.delete.end',
                                    'payload': 'junk'}),
            test_listener.Incoming(None)])
        for count, kind, outcome in (
                (4, 'port-deleted', 'handled'),
                (1, 'port-deleted', 'poisoned'), (2, 'other', 'ignored'),
                (1, 'other', 'poisoned'), (0, 'port-deleted', 'requeued')):
            self.assertEqual(count, self.counts(
                'vmip_events_total', kind=kind, outcome=outcome))

    def test_requeued(self) -> None:
        target = self.new(test_listener.Recorder(
            test_listener.away(), exceptions.CloudUnavailable('x'),
            test_listener.away()), patience=0.15)
        self.assertEqual(2, len(target.dispatch(
            [self.message(1), self.message(2)])))
        self.assertEqual(2, self.counts(
            'vmip_events_total', kind='port-deleted', outcome='requeued'))
        self.assertEqual(1, self.counts(
            'vmip_event_retries_total', away='cloud'))
        self.assertLess(0, self.counts(
            'vmip_event_retries_total', away='database'))

    def test_sum(self) -> None:
        """What is counted by kind is what the listener counts."""
        handler = test_listener.Recorder(ValueError(), ValueError(),
                                         *[test_listener.away()] * 9)
        target = self.new(handler, patience=0.05)
        target.dispatch([self.message(number) for number in range(4)])
        self.assertEqual(target.stats.requeued, self.counts(
            'vmip_events_total', kind='port-deleted', outcome='requeued'))
        self.check_sum(target.stats)

    def test_age(self) -> None:
        sent = datetime.datetime.now(datetime.UTC) - datetime.timedelta(
            seconds=20)
        self.new(test_listener.Recorder()).dispatch(
            [self.message(timestamp=str(sent.replace(tzinfo=None)))])
        self.assertEqual(0, self.counts(
            'vmip_event_age_seconds_bucket', le='10.0'))
        self.assertEqual(1, self.counts(
            'vmip_event_age_seconds_bucket', le='30.0'))

    @ddt.data(
        ('9999-12-31 23:59:59', 1, 0),
        ('0001-01-01 00:00:00', 1, metrics.LONGEST),
        ('0001-01-01T00:00:00+23:59', 0, 0), ('nan', 0, 0), (1e308, 0, 0),
        ({'a': 1}, 0, 0), ('2026-01-01' * 40, 0, 0), (None, 0, 0))
    @ddt.unpack
    def test_forged_age(self, told: Any, count: int, longest: float) -> None:
        target = self.new(test_listener.Recorder())
        target.dispatch([self.message(timestamp=told)])
        self.assertEqual(1, target.stats.handled)
        self.assertEqual(count, self.counts('vmip_event_age_seconds_count'))
        self.assertEqual(longest, self.counts('vmip_event_age_seconds_sum'))

    def test_all_is_seen_at_zero(self) -> None:
        self.new(test_listener.Recorder())
        for kind in listener.event.Kind:
            self.assertIsNotNone(
                metrics.REGISTRIES[metrics.LISTENER].get_sample_value(
                    'vmip_events_total',
                    {'kind': kind.value, 'outcome': 'poisoned'}))

    def test_pulse_and_bus(self) -> None:
        target = self.new(test_listener.Recorder())
        self.assertEqual('the message bus has not been reached yet',
                         target.check_bus())
        target.pulse._at -= 1000
        target.pulse.ask()
        self.assertLess(target.pulse.age, 10)
        target.start()
        self.addCleanup(target.wait)
        self.addCleanup(target.stop)
        target.pulse._at -= 1000
        target.pulse.ask()
        lab.wait_for(lambda: target.pulse.age < 10)
        # the fake driver has no connection
        self.assertIsNone(target.check_bus())


class MetricsTestCase(base.TestCase):

    actor = 'vmip-reclaimer'

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.cloud = fakes.Cloud()
        self.driver = fakes.Server('a')
        self.worker = work.Worker(
            self.conf, self.inventory, {'a': self.driver}, self.cloud, None)
        self.reclaimer = tasks.Reclaimer(
            self.conf, self.inventory, self.worker, self.cloud)
        self.counts = Counts(metrics.RECLAIMER)

    def writes(self, action: str, outcome: str) -> float:
        return self.counts('vmip_host_entry_writes_total', dhcp_server='a',
                           action=action, outcome=outcome)

    def run_task(self, name: str) -> None:
        task, = (t for t in self.reclaimer.tasks() if t.name == name)
        self.reclaimer.run(task)


class TestWorker(MetricsTestCase):

    def test_delay(self) -> None:
        """From the claim to the entry, however often it failed."""
        self.cloud.add(1, self.claim(1))
        self.driver.failing = {A: 'no'}
        self.clock.forward(ports.CLAIM_GRACE)
        self.worker.run()
        self.driver.failing = {}
        self.clock.forward(40)
        self.worker.run()
        self.assertEqual(1, self.writes('write', 'failed'))
        self.assertEqual(1, self.writes('write', 'done'))
        self.assertEqual(ports.CLAIM_GRACE + 40, self.counts(
            'vmip_host_entry_delay_seconds_sum', dhcp_server='a'))
        self.assertEqual(1, self.counts(
            'vmip_host_entry_delay_seconds_count', dhcp_server='a'))

    def test_what_is_written_again_is_wanted_since_then(self) -> None:
        self.cloud.add(1, self.claim(1))
        self.clock.forward(ports.CLAIM_GRACE)
        self.worker.run()
        self.clock.forward(86400)
        self.inventory.redo('a', [base.ip(A)])
        self.clock.forward(1)
        self.worker.run()
        self.assertEqual(ports.CLAIM_GRACE + 1, self.counts(
            'vmip_host_entry_delay_seconds_sum', dhcp_server='a'))

    def test_server_is_away(self) -> None:
        for number in range(3):
            self.cloud.add(number, self.claim(number))
        self.driver.error = exceptions.DHCPServerUnavailable('away')
        self.clock.forward(ports.CLAIM_GRACE)
        self.worker.run()
        self.assertEqual(3, self.writes('write', 'failed'))
        self.assertEqual(0, self.writes('write', 'done'))

    def test_lease_releases(self) -> None:
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        self.cloud.add(1, self.claim(1))
        self.clock.forward(ports.CLAIM_GRACE)
        self.worker.run()
        self.driver.lease(A, base.mac(1))
        self.cloud.delete(1)
        self.inventory.release_ports([base.port_id(1)], 'x')
        self.driver.failing = {'release': 'no'}
        for _ in range(2):
            self.clock.forward(40)
            self.worker.run()
            self.driver.failing = {}
        for outcome in ('failed', 'done'):
            self.assertEqual(1, self.counts(
                'vmip_lease_releases_total', reason='port deleted',
                outcome=outcome))
        self.assertEqual(1, self.writes('remove', 'done'))

    def test_drift(self) -> None:
        self.cloud.add(1, self.claim(1))
        self.clock.forward(ports.CLAIM_GRACE)
        self.worker.run()
        self.driver.have = {base.ip('10.0.0.99'): dhcp.HostEntry(
            base.mac(9), base.ip('10.0.0.99'), None)}
        self.worker.mend()
        registry = metrics.REGISTRIES[metrics.RECLAIMER]

        def drift(kind: str) -> float | None:
            return registry.get_sample_value(
                'vmip_drift_entries', {'dhcp_server': 'a', 'kind': kind})

        self.assertEqual((1, 1), (drift('stray'), drift('lost')))
        self.worker.run()
        self.worker.mend()
        self.assertEqual((0, 0), (drift('stray'), drift('lost')))
        self.assertLess(1e9, registry.get_sample_value(
            'vmip_drift_checked_timestamp_seconds', {'dhcp_server': 'a'}))


class TestTasks(MetricsTestCase):

    def test_runs(self) -> None:
        metrics.TASK_SUCCESS.clear()
        self.run_task('history')
        self.cloud.away = True
        self.run_task('ports')
        for task, outcome in (('history', 'ok'), ('ports', 'error')):
            self.assertEqual(1, self.counts(
                'vmip_task_runs_total', task=task, outcome=outcome))
        registry = metrics.REGISTRIES[metrics.RECLAIMER]
        for task in ('history', 'ports'):
            self.assertEqual(task == 'history', bool(
                registry.get_sample_value(
                    'vmip_task_success_timestamp_seconds', {'task': task})))

    def test_releases(self) -> None:
        """A lost delete, a reservation without a port."""
        self.cloud.add(1, self.claim(1))
        self.reserve('web', request='req-2')
        self.cloud.delete(1)
        self.clock.forward(700)
        for task in ('ports', 'work'):
            self.run_task(task)
        self.clock.forward(60)
        self.run_task('confirm')
        for reason in ('port missing', 'expired'):
            self.assertEqual(1, self.counts(
                'vmip_address_releases_total', reason=reason), reason)
        self.assertEqual(1, self.counts(
            'vmip_task_items_total', task='confirm', result='done'))

    def test_nothing_is_released_in_a_dry_run(self) -> None:
        self.conf.set_override('dry_run', True, 'reclaimer')
        self.cloud.add(1, self.claim(1))
        self.cloud.delete(1)
        for task in ('ports', 'confirm'):
            self.run_task(task)
            self.clock.forward(60)
        self.assertEqual(0, self.counts(
            'vmip_address_releases_total', reason='port missing'))

    def test_released_by_a_notification(self) -> None:
        self.cloud.add(1, self.claim(1))
        self.cloud.delete(1)
        target = handler.Handler(self.inventory, self.worker, self.cloud)
        event = listener.NORMALISERS['port.delete.end'](
            {}, 'network.x', 'port.delete.end',
            {'port_id': base.port_id(1)}, {'message_id': str(uuid.uuid4())})
        for _ in range(2):
            target.handle([event])
        self.assertEqual(1, self.counts(
            'vmip_address_releases_total', reason='port deleted'))


class TestStatistics(MetricsTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.conf.set_override('servers', ['a', 'idle'], 'dhcp')
        self.owner = True
        self.statistics = statistics.Statistics(
            self.conf, self.inventory, lambda: self.owner)

    def test_pools(self) -> None:
        self.pool(name='other', network=str(uuid.uuid4()),
                  subnet=str(uuid.uuid4()), cidr='2001:db8::/64',
                  ranges=[(base.ip('2001:db8::1'), base.ip('2001:db8::ff')),
                          (base.ip('2001:db8::1:0'),
                           base.ip('2001:db8::1:9'))])
        self.cloud.add(1, self.claim(1))
        self.reserve('web', request='req-2')
        self.statistics.look()
        found = samples(self.statistics)
        self.assertEqual(9, found['vmip_pool_addresses', 'pool', 'free'])
        self.assertEqual(1, found['vmip_pool_addresses', 'pool', 'claimed'])
        self.assertEqual(1, found['vmip_pool_addresses', 'pool', 'reserved'])
        self.assertEqual(265, found['vmip_pool_addresses', 'other', 'free'])
        self.assertEqual({pool.name: usage for pool, usage
                          in self.inventory.pools()}, self.inventory.usage())

    def test_usage_is_three_questions(self) -> None:
        for number in range(5):
            self.pool(name=f'p{number}', network=str(uuid.uuid4()),
                      subnet=str(uuid.uuid4()))
        asked: list[str] = []
        sa.event.listen(
            self.inventory.database.engine, 'before_cursor_execute',
            lambda *args: asked.append(args[2]))
        self.inventory.usage()
        self.assertEqual(
            3, len([text for text in asked if text.startswith('SELECT')]))

    def test_lag(self) -> None:
        self.cloud.add(1, self.claim(1))
        self.clock.forward(10)
        self.cloud.add(2, self.claim(2))
        self.clock.forward(5)
        self.statistics.look()
        found = samples(self.statistics)
        lag, undone = 'vmip_host_entry_lag_seconds', 'vmip_host_entries_undone'
        self.assertEqual(15, found[lag, 'write', 'a'])
        self.assertEqual(2, found[undone, 'write', 'a'])
        self.assertEqual(0, found[lag, 'remove', 'a'])
        self.assertEqual(0, found[lag, 'write', 'idle'])
        self.worker.run()
        self.statistics.look()
        found = samples(self.statistics)
        self.assertEqual(0, found[lag, 'write', 'a'])
        self.assertEqual(0, found[undone, 'write', 'a'])

    def test_a_row_of_before(self) -> None:
        """Its age is not known, and it is counted."""
        self.claim(1)
        with self.inventory.database.engine.begin() as connection:
            connection.execute(sa.text(
                'UPDATE host_entries SET wanted_at = NULL'))
        self.statistics.look()
        found = samples(self.statistics)
        self.assertEqual(0, found['vmip_host_entry_lag_seconds', 'write', 'a'])
        self.assertEqual(1, found['vmip_host_entries_undone', 'write', 'a'])

    def test_wanted_again_by_a_worker_of_before(self) -> None:
        """It does not know the column, and must not leave an old moment."""
        self.cloud.add(1, self.claim(1))
        self.clock.forward(15)
        self.assertEqual(1, self.worker.run())
        self.clock.forward(1000)
        with self.inventory.database.engine.begin() as connection:
            connection.execute(sa.text(
                'UPDATE host_entries SET done = FALSE,'
                ' generation = generation + 1'))
        self.statistics.look()
        found = samples(self.statistics)
        self.assertEqual(0, found['vmip_host_entry_lag_seconds', 'write', 'a'])
        self.assertEqual(1, found['vmip_host_entries_undone', 'write', 'a'])

    def test_what_entries_wait_for(self) -> None:
        self.statistics.look()
        name = 'vmip_host_entries_waiting'
        self.assertEqual(0, samples(self.statistics)[name, 'a', 'wire'])
        for number in (7, 8):
            self.claim(number, request=f'req-{number}')
        work = self.inventory.work(port_ids=[base.port_id(7),
                                             base.port_id(8)])
        self.inventory.wait(work, states.WaitingFor.WIRE, 'x', 1)
        self.statistics.look()
        self.assertEqual(2, samples(self.statistics)[name, 'a', 'wire'])
        self.assertEqual(0, samples(self.statistics)[name, 'a', 'cloud'])

    def test_only_the_owner_tells(self) -> None:
        self.worker.mend()
        self.run_task('history')
        self.statistics.look()
        registry = metrics.REGISTRIES[metrics.RECLAIMER]
        self.assertTrue(samples(self.statistics))
        self.assertEqual(1, registry.get_sample_value('vmip_reclaimer_owner'))
        self.owner = False
        self.statistics.look()
        self.assertEqual({}, samples(self.statistics))
        self.assertEqual(0, registry.get_sample_value('vmip_reclaimer_owner'))
        for name in ('vmip_drift_entries', 'vmip_task_success'):
            self.assertFalse([
                sample for metric in registry.collect()
                for sample in metric.samples if sample.name.startswith(name)])

    def test_nothing_old_is_told(self) -> None:
        self.statistics.look()
        self.patch(self.statistics._inventory, 'usage', self._away)
        self.statistics.look()
        self.assertTrue(samples(self.statistics))
        self.statistics._until -= statistics.MAX_AGE
        self.assertEqual({}, samples(self.statistics))

    def _away(self) -> None:
        raise exceptions.InventoryUnavailable('away')
