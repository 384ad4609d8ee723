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

"""The listener, alone and on oslo.messaging's fake transport."""

from collections.abc import Callable
from collections.abc import Sequence
import json
import os
import pathlib
import threading
import time
from typing import Any
from unittest import mock
import uuid

import fixtures
from oslo_config import cfg
import oslo_messaging
from oslo_messaging._drivers import impl_fake
from oslo_messaging import conffixture
import testtools

from tests import notifications
from vmip_plugin import conf as vmip_conf
from vmip_plugin import exceptions
from vmip_plugin.notifications import aside
from vmip_plugin.notifications import event
from vmip_plugin.notifications import listener

PORT_ID = '712e317c-4a44-4fb9-b53b-23eee9ba77a4'


class Incoming:
    """What oslo.messaging hands to a dispatcher, as far as it is used."""

    def __init__(self, message: Any, ctxt: Any = None) -> None:
        self.message = message
        self.ctxt = ctxt or {}


def deleted(number: int) -> Incoming:
    """Return a message that can be told from others by its port."""
    return Incoming({
        'message_id': f'message-{number}', 'event_type': 'port.delete.end',
        'payload': {'port_id': str(uuid.UUID(int=number))},
        'priority': 'INFO'})


def numbers(events: Sequence[event.Event]) -> list[int]:
    return [uuid.UUID(found.ports[0].port_id).int for found in events]


def nested(depth: int = 200_000) -> Any:
    """Return what JSON of a few kilobytes can be, far deeper than a stack."""
    made: Any = []
    for number in range(depth):
        made = [made] if number % 2 else {'x': made}
    return made


class Unspeakable:
    """Neither text nor JSON can be made of it."""

    def __repr__(self) -> str:
        raise RecursionError


class Recorder:
    """A handler that remembers its calls and can be told to fail."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.tried: list[list[int]] = []
        self.done: list[event.Event] = []
        self.poison: set[int] = set()

    def handle(self, events: Sequence[event.Event]) -> None:
        self.tried.append(numbers(events))
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        if self.poison.intersection(numbers(events)):
            raise KeyError('poison')
        self.done.extend(events)


def away() -> exceptions.InventoryUnavailable:
    return exceptions.InventoryUnavailable('no database')


class ListenerTestCase(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.log = self.useFixture(fixtures.FakeLogger())
        self.conf: cfg.ConfigOpts = vmip_conf.new()
        self.conf([], default_config_files=[], default_config_dirs=[])
        messaging = self.useFixture(conffixture.ConfFixture(self.conf))
        messaging.transport_url = 'fake://'
        # the fake exchanges live as long as the process
        self.exchange = uuid.uuid4().hex
        for option in ('neutron_exchanges', 'nova_exchanges'):
            self.conf.set_override(option, [self.exchange], 'listener')
        self.conf.set_override('control_exchange', self.exchange)
        self.poison = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path) / 'poison'
        self.conf.set_override('poison_dir', str(self.poison), 'listener')

    def new(self, handler: listener.Handler,
            patience: float = 60) -> listener.Listener:
        return listener.Listener(
            self.conf, listener.get_transport(self.conf), handler, patience)

    def check_sum(self, stats: listener.Stats) -> None:
        self.assertEqual(stats.received, stats.ignored + stats.handled
                         + stats.poisoned + stats.requeued)


class DispatchTestCase(ListenerTestCase):
    """One batch at a time, without a transport's threads."""

    def test_order_is_kept(self):
        handler = Recorder()
        target = self.new(handler)
        batch = [deleted(number) for number in range(50)]
        batch[7].message['priority'] = 'ERROR'
        self.assertEqual(set(), target.dispatch(batch))
        self.assertEqual([list(range(50))], handler.tried)
        self.assertEqual(
            listener.Stats(received=50, handled=50), target.stats)

    def test_duplicates_are_passed_on(self):
        handler = Recorder()
        target = self.new(handler)
        target.dispatch([deleted(1), deleted(1)])
        self.assertEqual([[1, 1]], handler.tried)

    def test_nothing_of_concern(self):
        handler = Recorder()
        target = self.new(handler)
        self.assertEqual(set(), target.dispatch([
            Incoming({'event_type': 'port.create.start'}),
            Incoming({'event_type': ['port.create.end']}),
            Incoming({'event_type': None}), Incoming({}), Incoming(['a']),
            Incoming(None)]))
        self.assertEqual([], handler.tried)
        self.assertEqual(listener.Stats(received=6, ignored=6), target.stats)

    def test_malformed_is_put_aside(self):
        handler = Recorder()
        target = self.new(handler)
        bad = deleted(2)
        bad.message['payload'] = {'port_id': 'hunter2', 'port': 'secret'}
        self.assertEqual(set(), target.dispatch([deleted(1), bad,
                                                 deleted(3)]))
        self.assertEqual([[1, 3]], handler.tried)
        self.assertEqual(
            listener.Stats(received=3, handled=2, poisoned=1), target.stats)
        self.assertIn('message-2', self.log.output)
        self.assertIn('port.delete.end', self.log.output)
        self.assertNotIn('secret', self.log.output)

    def test_hostile_envelopes_are_put_aside(self):
        target = self.new(Recorder())
        for change in ({'payload': None}, {'payload': 'x' * 100000},
                       {'message_id': 'a\nb' * 1000, 'payload': []},
                       {'message_id': {}, 'payload': {}}):
            bad = deleted(1)
            bad.message.update(change)
            self.assertEqual(set(), target.dispatch([bad]))
        bad = deleted(1)
        bad.ctxt = 'no mapping'
        self.assertEqual(set(), target.dispatch([bad]))
        self.assertEqual(4, target.stats.poisoned)
        self.assertEqual(5, target.stats.received)
        lines = self.log.output.splitlines()
        self.assertEqual(4, len(lines))
        self.assertLess(max(map(len, lines)), 700)

    def test_error_of_ours_is_put_aside(self):
        target = self.new(Recorder())
        with mock.patch.dict(listener.NORMALISERS, {
                'port.delete.end': mock.Mock(side_effect=TypeError)}):
            self.assertEqual(set(), target.dispatch([deleted(1)]))
        self.assertEqual(1, target.stats.poisoned)

    def test_tried_again_until_the_database_is_back(self):
        handler = Recorder(away(), exceptions.CloudUnavailable(), away())
        target = self.new(handler)
        self.assertEqual(set(), target.dispatch([deleted(1), deleted(2)]))
        self.assertEqual([[1, 2]] * 4, handler.tried)
        self.assertEqual([1, 2], numbers(handler.done))
        self.assertEqual(listener.Stats(received=2, handled=2), target.stats)

    def test_requeued_when_patience_is_out(self):
        handler = Recorder(*(away() for _ in range(100)))
        target = self.new(handler, patience=0.5)
        batch = [deleted(1), Incoming({}), deleted(2)]
        before = time.monotonic()
        self.assertEqual({batch[0], batch[2]}, target.dispatch(batch))
        self.assertGreaterEqual(time.monotonic() - before, 0.5)
        # with pauses, not at full speed
        self.assertLess(len(handler.tried), 8)
        self.assertEqual(listener.Stats(received=3, ignored=1, requeued=2),
                         target.stats)

    def test_poison_takes_no_other_with_it(self):
        handler = Recorder()
        handler.poison = {3}
        target = self.new(handler)
        self.assertEqual(
            set(), target.dispatch([deleted(number) for number in range(6)]))
        self.assertEqual([0, 1, 2, 4, 5], numbers(handler.done))
        self.assertEqual(
            listener.Stats(received=6, handled=5, poisoned=1), target.stats)
        self.assertIn('message-3', self.log.output)
        self.assertNotIn('message-2', self.log.output)

    def test_database_goes_while_poison_is_looked_for(self):
        handler = Recorder(KeyError(), KeyError(), None, away())
        target = self.new(handler, patience=0)
        batch = [deleted(number) for number in range(4)]
        self.assertEqual(set(batch[1:]), target.dispatch(batch))
        # the ones behind are not even tried: order is kept
        self.assertEqual([[0, 1, 2, 3], [0, 1], [0], [1]], handler.tried)
        self.assertEqual(
            listener.Stats(received=4, handled=1, requeued=3), target.stats)

    def test_poison_is_kept_for_a_person_to_look_at(self):
        handler = Recorder()
        handler.poison = {3}
        target = self.new(handler)
        bad = Incoming({**deleted(4).message, 'payload': {'port_id': 'x'}},
                       {'auth_token': 'unguessed'})
        target.dispatch([deleted(3), bad, deleted(5)])
        kept = [json.loads(path.read_text())
                for path in sorted(self.poison.iterdir())]
        self.assertEqual(['message-4', 'message-3'], [
            record['message']['message_id'] for record in kept])
        self.assertIn('port_id', kept[0]['why'])
        self.assertEqual({'port_id': 'x'}, kept[0]['message']['payload'])
        self.assertNotIn('unguessed', str(kept))
        self.assertEqual(0o700, self.poison.stat().st_mode & 0o777)
        self.assertEqual({0o600}, {path.stat().st_mode & 0o777
                                   for path in self.poison.iterdir()})

    def test_only_so_much_poison_is_kept(self):
        self.conf.set_override('poison_limit', 3, 'listener')
        target = self.new(Recorder())
        for number in range(5):
            bad = deleted(number)
            bad.message['payload'] = {'port_id': 'x' * 200000}
            target.dispatch([bad])
        kept = sorted(self.poison.iterdir())
        self.assertEqual(
            ['message-2', 'message-3', 'message-4'],
            [path.read_text().partition('message-')[1]
             + path.read_text().partition('message-')[2][0]
             for path in kept])
        self.assertLess(max(path.stat().st_size for path in kept), 150000)

    def test_poison_that_cannot_be_kept(self):
        self.poison.touch()
        handler = Recorder()
        handler.poison = {1}
        target = self.new(handler)
        self.assertEqual(set(), target.dispatch([deleted(1), deleted(2)]))
        self.assertEqual([2], numbers(handler.done))
        self.assertIn('is not kept', self.log.output)

    def test_whatever_is_in_it(self):
        """It is put aside, counted and acknowledged, and the next one too."""
        circle: list[Any] = []
        circle.append(circle)
        for number, value in enumerate((
                nested(), nested(2000), circle, Unspeakable(), b'\xff',
                '\ud800', {'\ud800': 1, 5: 6, (): [Unspeakable()]},
                10 ** 5000, float('nan'), ['x'] * 10 ** 6, 'x' * 10 ** 7,
                dict.fromkeys(range(10 ** 5), 'y' * 1000))):
            for change in ({'payload': value}, {'message_id': value}):
                with self.subTest(number=number, where=list(change)):
                    handler = Recorder()
                    target = self.new(handler)
                    bad = deleted(1)
                    bad.message.update({'payload': {}, **change})
                    self.assertEqual(set(), target.dispatch(
                        [bad, deleted(2)]))
                    self.assertEqual([2], numbers(handler.done))
                    self.assertEqual(1, target.stats.poisoned)
                    self.check_sum(target.stats)
        kept = [json.loads(path.read_text())
                for path in self.poison.iterdir()]
        self.assertEqual({'Malformed'}, {
            record['why'].partition(':')[0] for record in kept})
        self.assertEqual(24, len(kept))
        self.assertEqual({'port.delete.end'}, {
            record['message']['event_type'] for record in kept})
        self.assertLess(max(path.stat().st_size
                            for path in self.poison.iterdir()), 2_000_000)
        self.assertLess(max(map(len, self.log.output.splitlines())), 700)

    def test_reading_it_takes_the_whole_stack(self):
        """Or the memory: it is that message which is to blame."""
        for error in (RecursionError('too deep'), MemoryError(),
                      ValueError(Unspeakable())):
            handler = Recorder()
            target = self.new(handler)
            with mock.patch.dict(
                    listener.NORMALISERS,
                    {'port.create.end': mock.Mock(side_effect=error)}):
                bad = deleted(1)
                bad.message.update(event_type='port.create.end',
                                   payload=nested())
                self.assertEqual(set(), target.dispatch(
                    [bad, deleted(2)]))
            self.assertEqual([2], numbers(handler.done))
            self.assertEqual(1, target.stats.poisoned)

    def test_no_room_for_it(self):
        """Nothing is left of what could not be written as a whole."""
        self.poison.mkdir()
        real = os.open

        def full(path: Any, *args: Any) -> int:
            os.close(real(path, *args))
            return real('/dev/full', os.O_WRONLY)

        handler = Recorder()
        target = self.new(handler)
        bad = deleted(1)
        bad.message['payload'] = {}
        with mock.patch.object(aside.os, 'open', full):
            self.assertEqual(set(), target.dispatch([bad, deleted(2)]))
        self.assertEqual([2], numbers(handler.done))
        self.assertEqual([], list(self.poison.iterdir()))
        self.assertIn('No space left', self.log.output)

    def test_folder_is_nowhere(self):
        self.conf.set_override(
            'poison_dir', str(self.poison / 'of' / 'nobody'), 'listener')
        for error in (None, MemoryError()):
            handler = Recorder()
            target = self.new(handler)
            bad = deleted(1)
            bad.message['payload'] = {}
            with mock.patch.object(aside.json, 'dumps', side_effect=error,
                                   return_value='{}'):
                self.assertEqual(set(), target.dispatch([bad, deleted(2)]))
            self.assertEqual([2], numbers(handler.done))
        self.assertEqual(2, self.log.output.count('is not kept'))

    def test_poison_is_found_in_few_steps(self):
        handler = Recorder()
        handler.poison = {300}
        self.new(handler).dispatch([deleted(n) for n in range(500)])
        self.assertLess(len(handler.tried), 25)
        self.assertEqual([n for n in range(500) if n != 300],
                         numbers(handler.done))

    def test_every_scenario_in_one_batch(self):
        for scenario in notifications.SCENARIOS:
            handler = mock.Mock()
            target = self.new(handler)
            target.dispatch([
                Incoming(dict(message.body), message.ctxt)
                for message in notifications.messages(scenario)])
            self.assertEqual(len(notifications.expected(scenario)),
                             target.stats.handled)
            self.assertEqual(0, target.stats.poisoned)
            self.check_sum(target.stats)


class FakeTransportTestCase(ListenerTestCase):
    """The whole way through oslo.messaging."""

    def setUp(self):
        super().setUp()
        self.acked = 0
        real = impl_fake.FakeIncomingMessage.acknowledge

        def acknowledge(message: Any) -> None:
            self.acked += 1
            real(message)

        self.useFixture(fixtures.MockPatchObject(
            impl_fake.FakeIncomingMessage, 'acknowledge', acknowledge))

    def started(self, handler: listener.Handler,
                patience: float = 60) -> listener.Listener:
        target = self.new(handler, patience)
        target.start()
        self.addCleanup(target.wait)
        self.addCleanup(target.stop)
        return target

    def send(self, *messages: Incoming, topic: str = 'notifications',
             priority: str = 'info') -> None:
        notifier = oslo_messaging.Notifier(
            oslo_messaging.get_notification_transport(self.conf), 'any',
            driver='messaging', topics=[topic])
        for message in messages:
            getattr(notifier, priority)(
                message.ctxt, message.message['event_type'],
                message.message['payload'])

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_batches(self):
        self.conf.set_override('batch_size', 10, 'listener')
        handler = Recorder()
        target = self.started(handler)
        self.send(*map(deleted, range(35)))
        self.until(lambda: self.acked == 35)
        self.assertEqual(list(range(35)), numbers(handler.done))
        self.assertLessEqual(max(map(len, handler.tried)), 10)
        self.assertEqual(listener.Stats(received=35, handled=35),
                         target.stats)

    def test_batch_of_a_rush_is_filled(self):
        self.conf.set_override('batch_size', 6, 'listener')
        self.conf.set_override('batch_timeout', 0.5, 'listener')
        self.useFixture(fixtures.MockPatchObject(listener, 'RUSH', 6))
        come = threading.Event()
        server = listener._Server
        on_incoming = server._on_incoming

        def tell(self: listener._Server, incoming: Sequence[Any]) -> None:
            on_incoming(self, incoming)
            come.set()

        self.useFixture(fixtures.MockPatchObject(
            server, '_on_incoming', tell))
        handler = Recorder()
        self.started(handler)
        self.send(*map(deleted, range(3)))
        self.assertTrue(come.wait(60))
        self.send(*map(deleted, range(3, 9)))
        self.until(lambda: self.acked == 9)
        self.assertEqual([list(range(9))], handler.tried)

    def test_one_batch_at_a_time(self):
        self.conf.set_override('batch_size', 1, 'listener')
        busy = threading.Lock()

        class Handler(Recorder):
            def handle(inner, events: Sequence[event.Event]) -> None:
                if not busy.acquire(blocking=False):
                    raise AssertionError('two batches at once')
                time.sleep(0.02)
                super().handle(events)
                busy.release()

        handler = Handler()
        self.started(handler)
        self.send(*map(deleted, range(20)))
        self.until(lambda: self.acked == 20)
        self.assertEqual(list(range(20)), numbers(handler.done))

    def test_both_topics_and_priorities(self):
        handler = mock.Mock()
        target = self.started(handler)
        sent = 0
        for message in notifications.messages('spawn-error'):
            topic, _, priority = message.routing_key.rpartition('.')
            self.send(Incoming(message.body, message.ctxt), topic=topic,
                      priority=priority)
            sent += 1
        self.until(lambda: self.acked == sent)
        self.assertEqual(len(notifications.expected('spawn-error')),
                         target.stats.handled)
        self.check_sum(target.stats)

    def test_nothing_is_acknowledged_before_it_is_done(self):
        back = threading.Event()
        acked = []

        class Handler(Recorder):
            def handle(inner, events: Sequence[event.Event]) -> None:
                acked.append(self.acked)
                if not back.is_set():
                    raise away()
                super().handle(events)

        handler = Handler()
        self.started(handler)
        self.send(deleted(1), deleted(2), deleted(3))
        self.until(lambda: len(acked) >= 3)
        back.set()
        self.until(lambda: self.acked == 3)
        self.assertEqual([1, 2, 3], numbers(handler.done))
        self.assertEqual({0}, set(acked[:3]))

    def test_requeued_messages_come_again(self):
        handler = Recorder(away(), away(), away())
        target = self.started(handler, patience=0)
        self.send(deleted(1), deleted(2))
        self.until(lambda: self.acked == 2)
        self.assertEqual({1, 2}, set(numbers(handler.done)))
        self.assertGreaterEqual(target.stats.requeued, 3)
        self.check_sum(target.stats)

    def test_poison_is_acknowledged(self):
        handler = Recorder()
        handler.poison = {2}
        self.started(handler)
        bad = deleted(4)
        bad.message['payload'] = {}
        self.send(deleted(1), deleted(2), deleted(3), bad)
        self.until(lambda: self.acked == 4)
        self.assertEqual([1, 3], numbers(handler.done))

    def test_deep_poison_is_acknowledged(self):
        """It does not come again, before all that come after it."""
        handler = Recorder()
        target = self.started(handler)
        exchange = impl_fake.FakeExchangeManager(None).get_exchange(
            self.exchange)
        for where in ('payload', 'message_id', 'timestamp'):
            exchange.deliver_message('notifications.info', {}, {
                **deleted(1).message, 'payload': {}, where: nested()})
        self.send(deleted(2))
        self.until(lambda: self.acked == 4)
        self.assertEqual([2], numbers(handler.done))
        self.assertEqual(3, target.stats.poisoned)
        self.assertEqual(0, target.stats.requeued)

    def test_forged_priority_stops_nothing(self):
        handler = Recorder()
        target = self.started(handler)
        exchange = impl_fake.FakeExchangeManager(None).get_exchange(
            self.exchange)
        for priority in (5, None, 'none', []):
            forged = {**deleted(1).message, 'priority': priority}
            exchange.deliver_message('notifications.info', {}, forged)
        self.send(deleted(2))
        self.until(lambda: self.acked == 5)
        self.assertEqual([1, 1, 1, 1, 2], numbers(handler.done))
        self.assertEqual(0, target.stats.requeued)

    def test_stop_finishes_the_batch_in_hand(self):
        entered = threading.Event()
        leave = threading.Event()

        class Handler(Recorder):
            def handle(inner, events: Sequence[event.Event]) -> None:
                entered.set()
                leave.wait(60)
                super().handle(events)

        handler = Handler()
        target = self.new(handler)
        target.start()
        self.send(deleted(1))
        self.assertTrue(entered.wait(60))
        target.stop()
        self.assertEqual(0, self.acked)
        leave.set()
        target.wait()
        self.assertEqual(1, self.acked)
        self.assertEqual([1], numbers(handler.done))

    def test_stop_waits_for_no_database(self):
        handler = Recorder(*(away() for _ in range(1000)))
        target = self.new(handler, patience=600)
        target.start()
        self.send(deleted(1))
        self.until(lambda: len(handler.tried) > 4)
        before = time.monotonic()
        target.stop()
        target.wait()
        # and not for its patience, which is longer
        self.assertLess(time.monotonic() - before, target._patience / 2)
        self.assertEqual(0, self.acked)
        self.assertEqual(1, target.stats.requeued)

        after = Recorder()
        self.started(after)
        self.until(lambda: self.acked == 1)
        self.assertEqual([1], numbers(after.done))

    def test_start_after_stop(self):
        handler = Recorder()
        target = self.started(handler)
        target.stop()
        target.wait()
        target.start()
        self.send(deleted(1))
        self.until(lambda: self.acked == 1)


class TransportTestCase(ListenerTestCase):

    def test_prefetch_is_limited(self):
        self.conf.set_override('transport_url', 'rabbit://guest:guest@localhost')
        self.conf.set_override('batch_size', 30, 'listener')
        listener.get_transport(self.conf)
        self.assertEqual(
            60, self.conf.oslo_messaging_rabbit.rabbit_qos_prefetch_count)

    def test_the_operators_prefetch_stays(self):
        self.conf.set_override('rabbit_qos_prefetch_count', 7,
                               'oslo_messaging_rabbit')
        listener.get_transport(self.conf)
        self.assertEqual(
            7, self.conf.oslo_messaging_rabbit.rabbit_qos_prefetch_count)
