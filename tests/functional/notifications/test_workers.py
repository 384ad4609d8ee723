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

"""Several vmip-listener at once, as on several hosts; one of them dies."""

import signal

import fixtures
import testtools

from tests import daemon
from tests import databases
from tests.functional.notifications import victim
from tests import lab
from tests.notifications import stream
from tests import rabbit
from tests.unit import base
from vmip_plugin.notifications import event
from vmip_plugin.notifications import listener


class Everything:
    """A consumer with a pool of its own."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def handle(self, events: list[event.Event]) -> None:
        self.ids += [found.message_id for found in events]


class WorkersTestCase(testtools.TestCase):

    def test_one_of_three_is_killed(self):
        self.useFixture(fixtures.FakeLogger())
        maria = self.useFixture(databases.MariaDB(durable=False))
        broker = self.useFixture(rabbit.RabbitMQ())
        site = self.useFixture(daemon.Site(
            maria.databases.create(), broker.url, 'driver = none'))
        workers = [self.useFixture(site.listener(batch_size=20))
                   for _ in range(3)]
        for worker in workers:
            lab.wait_for(lambda worker=worker: worker.ready)
        # what a listener cannot ask just then is left to it
        self.useFixture(daemon.Daemon(
            'vmip_plugin.cmd.reclaimer', site.config()
            + '[reclaimer]\nwork_interval = 0.5\ncheck_interval = 1\n'
              'full_interval = 5\nconfirm_delay = 2\n'))
        conf = victim.config(broker.url, pool='vmip-second')
        other = Everything()
        consumer = listener.Listener(conf, listener.get_transport(conf),
                                     other)
        consumer.start()
        self.addCleanup(consumer.wait)
        self.addCleanup(consumer.stop)

        messages = [message for copy in range(1, 5)
                    for message in stream.messages(copy)]
        ports = stream.ports(messages)
        site.claim(ports)
        broker.publish(messages[:len(messages) // 2])
        workers[0].end(signal.SIGKILL)
        broker.publish(messages[len(messages) // 2:])

        def over() -> bool:
            (_, usage), = site.inventory.pools()
            return not sum(count for state, count in usage.items()
                           if state != 'free')

        lab.wait_for(over)
        lab.wait_for(lambda: not broker.waiting('vmip'))
        for port in ports:
            history = site.inventory.history(base.ip(port.address))
            # nobody did anything twice
            told = [change.event for change in history]
            self.assertEqual(len(told), len(set(told)), told)
            self.assertEqual(('claim', 'finish'), (told[0], told[-1]))
        wanted = {message.body['message_id'] for message in messages
                  if message.body['event_type'] in listener.NORMALISERS}
        lab.wait_for(lambda: wanted <= set(other.ids))
        self.assertEqual(len(wanted), len(other.ids))
        for worker in workers[1:]:
            worker.end()
            self.assertEqual(0, worker.process.returncode)
            text = worker.log.read_text()
            self.assertNotIn('ERROR', text)
            self.assertNotIn('Traceback', text)
