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

"""The listener on a real RabbitMQ."""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import json
import subprocess
import sys
import threading
import time
from typing import Any

from amqp import exceptions as amqp_exc
import fixtures
import kombu
from kombu import exceptions as kombu_exc
from oslo_config import cfg
import oslo_messaging
import testtools

from tests.functional.notifications import victim
from tests import lab
from tests import notifications
from tests import rabbit
from vmip_plugin import exceptions
from vmip_plugin.notifications import event
from vmip_plugin.notifications import listener

SCENARIO = 'early-deletes'


class Recorder:
    """A handler that remembers, and works only while ``open`` is set."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Event()
        self.done: list[event.Event] = []

    def handle(self, events: Sequence[event.Event]) -> None:
        self.entered.set()
        if not self.open.is_set():
            raise exceptions.InventoryUnavailable('no database')
        self.done.extend(events)

    def ids(self) -> list[str]:
        return [found.message_id for found in self.done]


class RabbitMQTestCase(testtools.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.FakeLogger())
        self.broker = self.useFixture(rabbit.RabbitMQ())

    def config(self, **options: Any) -> cfg.ConfigOpts:
        conf = victim.config(self.broker.url, **options)
        self.addCleanup(conf.reset)
        return conf

    def started(self, handler: listener.Handler,
                **options: Any) -> listener.Listener:
        conf = self.config(**options)
        target = listener.Listener(conf, listener.get_transport(conf),
                                   handler)
        target.start()
        self.addCleanup(target.wait)
        self.addCleanup(target.stop)
        return target

    def publish(self, bodies: Iterable[tuple[str, str, Any]]) -> None:
        """Send (exchange, routing key, body) as they are."""
        with self.broker.connection() as connection:
            producer = connection.Producer()
            for exchange, routing_key, body in bodies:
                raw = {} if not isinstance(body, bytes) else {
                    'content_type': 'application/json',
                    'content_encoding': 'utf-8'}
                producer.publish(
                    body, routing_key=routing_key, serializer=None if raw
                    else 'json', exchange=kombu.Exchange(
                        exchange, 'topic', durable=False), **raw)

    def publish_scenario(self) -> list[str]:
        """Send the scenario, and return the ids of what concerns us."""
        messages = notifications.messages(SCENARIO)
        self.publish((message.exchange, message.routing_key, message.envelope)
                     for message in messages)
        return [message.body['message_id'] for message in messages
                if message.body['event_type'] in listener.NORMALISERS]

    def test_everything_once_and_in_order(self):
        handler = Recorder()
        target = self.started(handler)
        sent = self.publish_scenario()
        total = len(notifications.messages(SCENARIO))
        lab.wait_for(lambda: target.stats.received == total)
        target.stop()
        target.wait()
        self.assertEqual(sent, handler.ids())
        self.assertEqual(
            listener.Stats(received=total, handled=len(sent),
                           ignored=total - len(sent)), target.stats)
        self.assertEqual(0, self.broker.waiting('vmip'))

    def test_rights(self):
        """Its account can read what Nova tells, and tell Nova nothing."""
        handler = Recorder()
        self.started(handler)
        sent = self.publish_scenario()
        lab.wait_for(lambda: len(handler.done) >= len(sent))
        for exchange in 'nova', 'neutron':
            with self.broker.connection(True, self.broker.url) as connection:
                self.assertRaises(
                    amqp_exc.AccessRefused, connection.Producer(
                        auto_declare=False).publish, {}, retry=False,
                    exchange=exchange, routing_key='conductor')

    def test_a_pool_takes_nothing_from_others(self):
        class Endpoint:
            seen: list[str] = []

            def info(self, ctxt: Any, publisher_id: str, event_type: str,
                     payload: Any, metadata: dict[str, str]) -> None:
                self.seen.append(metadata['message_id'])

            error = info

        conf = self.config()
        other = oslo_messaging.get_notification_listener(
            oslo_messaging.get_notification_transport(
                conf, url=self.broker.owner_url),
            [oslo_messaging.Target(exchange=exchange, topic=topic)
             for exchange, topic in (('neutron', 'notifications'),
                                     ('nova', 'notifications'),
                                     ('nova', 'versioned_notifications'))],
            [Endpoint()], executor='threading')
        other.start()
        self.addCleanup(other.wait)
        self.addCleanup(other.stop)
        # two of one pool share, one of another pool gets all
        handlers = [Recorder(), Recorder(), Recorder()]
        self.started(handlers[0], batch_size=5)
        self.started(handlers[1], batch_size=5)
        self.started(handlers[2], pool='vmip-second')
        sent = self.publish_scenario()
        total = len(notifications.messages(SCENARIO))
        lab.wait_for(lambda: len(Endpoint.seen) >= total)
        lab.wait_for(lambda: len(handlers[0].done) + len(handlers[1].done)
                   >= len(sent))
        lab.wait_for(lambda: len(handlers[2].done) >= len(sent))
        self.assertEqual(total, len(set(Endpoint.seen)))
        self.assertCountEqual(sent, handlers[0].ids() + handlers[1].ids())
        self.assertNotIn([], [handlers[0].done, handlers[1].done])
        self.assertEqual(sent, handlers[2].ids())

    def test_killed_in_the_middle_of_a_batch(self):
        process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-m', victim.__name__,
             self.broker.url], stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual('ready\n', process.stdout.readline())
        sent = self.publish_scenario()
        self.assertGreater(int(process.stdout.readline()), 0)
        process.kill()
        process.wait()

        handler = Recorder()
        self.started(handler)
        lab.wait_for(lambda: len(handler.done) >= len(sent))
        self.assertCountEqual(sent, handler.ids())

    def test_sent_while_no_listener_runs(self):
        target = self.started(Recorder())
        target.stop()
        target.wait()
        sent = self.publish_scenario()
        self.assertEqual(len(notifications.messages(SCENARIO)),
                         self.broker.waiting('vmip'))
        handler = Recorder()
        self.started(handler)
        lab.wait_for(lambda: len(handler.done) >= len(sent))
        self.assertEqual(sent, handler.ids())

    def test_stopped_while_the_database_is_away(self):
        handler = Recorder()
        handler.open.clear()
        target = self.started(handler)
        sent = self.publish_scenario()
        self.assertTrue(handler.entered.wait(lab.PATIENCE))
        target.stop()
        target.wait()
        # apart from what is of no concern, all is back in the queue
        self.assertGreaterEqual(self.broker.waiting('vmip'), len(sent))

        after = Recorder()
        self.started(after)
        lab.wait_for(lambda: len(after.done) >= len(sent))
        self.assertCountEqual(sent, after.ids())

    def test_backlog_stays_in_the_broker(self):
        handler = Recorder()
        handler.open.clear()
        self.started(handler, batch_size=10)
        message = notifications.messages('boot-delete')[19]
        self.publish((message.exchange, message.routing_key,
                      {**message.envelope, 'oslo.message': json.dumps(
                          {**message.body, '_unique_id': str(number)})})
                     for number in range(1000))
        self.assertTrue(handler.entered.wait(lab.PATIENCE))
        lab.wait_for(lambda: self.broker.waiting('vmip') == 1000 - 20)
        time.sleep(1)
        self.assertEqual(1000 - 20, self.broker.waiting('vmip'))
        handler.open.set()
        lab.wait_for(lambda: len(handler.done) == 1000)

    def test_forged_messages_stop_nothing(self):
        handler = Recorder()
        target = self.started(handler)
        good = notifications.messages('boot-delete')[19]
        forged = [b'', b'{', b'[]', b'5', b'null', b'"text"', b'{}',
                  {'oslo.version': '2.0', 'oslo.message': '{'},
                  {'oslo.version': '2.0', 'oslo.message': '[]'},
                  {'oslo.version': '9.0', 'oslo.message': '{}'},
                  {'oslo.version': 5, 'oslo.message': 5}]
        forged += [
            {'oslo.version': '2.0', 'oslo.message': json.dumps(
                {**good.body, '_unique_id': f'forged-{number}', **change})}
            for number, change in enumerate((
                {'priority': 5}, {'priority': None}, {'event_type': []},
                {'payload': None}, {'payload': {'port': {'id': 'x'}}},
                {'message_id': {}, 'payload': []}, {'_context_roles': 5},
                {'_context_global_request_id': {}}))]
        self.publish(('neutron', 'notifications.info', body)
                     for body in [*forged, good.envelope])
        lab.wait_for(lambda: good.body['message_id'] in handler.ids()
                   and len(handler.done) == 5)
        self.assertEqual(3, target.stats.poisoned)
        self.assertEqual(0, target.stats.requeued)
        target.stop()
        target.wait()
        self.assertEqual(0, self.broker.waiting('vmip'))

    def test_broker_comes_back(self):
        handler = Recorder()
        target = self.started(handler)
        self.broker.kill()
        self.broker.start()
        # the queue went with the broker until the listener declares it again
        lab.wait_for(lambda: self._published() and handler.done)
        self.assertEqual(0, target.stats.poisoned)

    def test_restarted_under_load(self):
        """What a durable RabbitMQ has confirmed outlives its crash."""
        conf = self.config(batch_size=20)
        handler = Recorder()
        transport = listener.get_transport(conf)
        conf.set_override('amqp_durable_queues', True,
                          'oslo_messaging_rabbit')
        target = listener.Listener(conf, transport, handler)
        target.start()
        self.addCleanup(target.wait)
        self.addCleanup(target.stop)
        example = notifications.messages('boot-delete')[19]
        kept: list[str] = []
        stop = threading.Event()

        def send() -> None:
            while not stop.is_set():
                try:
                    with self.broker.connection(confirm=True) as connection:
                        producer = connection.Producer(auto_declare=False)
                        while not stop.is_set():
                            number = f'm-{time.monotonic_ns()}'
                            body = {**example.body, 'message_id': number,
                                    '_unique_id': number}
                            producer.publish(
                                dataclasses.replace(
                                    example, body=body).envelope,
                                exchange=example.exchange, serializer='json',
                                routing_key=example.routing_key,
                                delivery_mode=2)
                            kept.append(number)
                except (OSError, amqp_exc.AMQPError,
                        kombu_exc.OperationalError):
                    time.sleep(0.1)

        sender = threading.Thread(target=send)
        sender.start()
        self.addCleanup(sender.join)
        self.addCleanup(stop.set)
        for _ in range(2):
            before = len(kept)
            lab.wait_for(lambda before=before: len(kept) > before + 200)
            self.broker.kill()
            self.broker.start()
        lab.wait_for(lambda: len(kept) > before + 400)
        stop.set()
        sender.join()
        lab.wait_for(lambda: not set(kept) - set(handler.ids()))
        self.assertEqual(0, target.stats.poisoned)

    def _published(self) -> bool:
        message = notifications.messages('boot-delete')[19]
        self.publish([(message.exchange, message.routing_key,
                       message.envelope)])
        time.sleep(0.5)
        return True
