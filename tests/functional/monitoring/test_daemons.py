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

"""The daemons as processes, scraped while things go wrong."""

import json
import pathlib
import urllib.error
import urllib.request

import fixtures
from prometheus_client import parser
import testtools

from tests import daemon
from tests import lab
from tests.notifications import stream
from tests import rabbit


class Asked:
    """One daemon's HTTP.

    :ivar port: to be configured.
    """

    def __init__(self) -> None:
        self.port = rabbit._free_port()

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(
                    f'http://127.0.0.1:{self.port}{path}', timeout=60,
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()
        except OSError:
            return 0, ''

    def checks(self) -> dict[str, str]:
        return dict(json.loads(self.get('/ready')[1])['checks'])

    def is_ready(self) -> bool:
        return self.get('/ready')[0] == 200

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        return sum(
            sample.value
            for family in parser.text_string_to_metric_families(
                self.get('/metrics')[1])
            for sample in family.samples
            if sample.name == name and labels.items()
            <= sample.labels.items())


class DaemonsTestCase(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.FakeLogger())
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)


class TestControllers(DaemonsTestCase):

    def test_listener_and_reclaimer(self) -> None:
        broker = self.useFixture(rabbit.RabbitMQ())
        site = self.useFixture(daemon.Site(
            f'sqlite:///{self.folder}/vmip.sqlite', broker.url,
            'driver = none'))
        listener, reclaimer = Asked(), Asked()
        config = site.config() + (
            '[reclaimer]\nwork_interval = 0.5\ncheck_interval = 1\n'
            f'[monitoring]\nlistener_port = {listener.port}\n'
            f'reclaimer_port = {reclaimer.port}\n')
        processes = [self.useFixture(daemon.Daemon(
            f'vmip_plugin.cmd.{name}', config))
            for name in ('listener', 'reclaimer')]
        for process, asked in zip(processes, (listener, reclaimer),
                                  strict=True):
            lab.wait_for(lambda process=process: process.ready)
            lab.wait_for(asked.is_ready)
            self.assertEqual(200, asked.get('/live')[0])
        self.assertEqual({'database': 'ok', 'bus': 'ok'}, listener.checks())

        messages = stream.messages(1)
        ports = stream.ports(messages)
        site.claim(ports)
        broker.publish(messages)
        lab.wait_for(lambda: listener.value(
            'vmip_events_total') == len(messages))
        self.assertLess(0, listener.value(
            'vmip_events_total', kind='port-deleted', outcome='handled'))
        self.assertLess(0, listener.value(
            'vmip_events_total', kind='other', outcome='ignored'))
        self.assertEqual(0, listener.value(
            'vmip_events_total', outcome='poisoned'))
        # they were recorded long ago
        self.assertEqual(0, listener.value(
            'vmip_event_age_seconds_bucket', le='3600.0'))
        self.assertLess(0, listener.value('vmip_event_age_seconds_count'))
        lab.wait_for(lambda: reclaimer.value(
            'vmip_pool_addresses', pool='pool', state='free') == sum(
                site.inventory.usage()['pool'].values()))
        self.assertEqual(1, reclaimer.value('vmip_reclaimer_owner'))
        self.assertLess(0, reclaimer.value(
            'vmip_task_runs_total', task='work', outcome='ok'))
        self.assertLess(0, reclaimer.value(
            'vmip_drift_checked_timestamp_seconds', dhcp_server='test'))

        broker.kill()
        lab.wait_for(lambda: not listener.is_ready())
        self.assertEqual({'database': 'ok',
                          'bus': 'the message bus cannot be reached'},
                         listener.checks())
        self.assertEqual(200, listener.get('/live')[0])
        self.assertTrue(reclaimer.is_ready())
        broker.start()
        lab.wait_for(listener.is_ready)

        processes[1].end()
        self.assertEqual(0, processes[1].process.returncode)
        self.assertEqual(0, reclaimer.get('/live')[0])

    def test_listener_without_bus(self) -> None:
        """It tells so before it has ever reached one."""
        site = self.useFixture(daemon.Site(
            f'sqlite:///{self.folder}/vmip.sqlite',
            f'rabbit://vmip:secret@127.0.0.1:{rabbit._free_port()}//',
            'driver = none'))
        listener = Asked()
        process = self.useFixture(daemon.Daemon(
            'vmip_plugin.cmd.listener', site.config()
            + f'[monitoring]\nlistener_port = {listener.port}\n'))
        lab.wait_for(lambda: listener.get('/live')[0] == 200)
        lab.wait_for(lambda: listener.checks() == {
            'database': 'ok',
            'bus': 'the message bus has not been reached yet'})
        self.assertNotIn('secret', listener.get('/ready')[1])
        self.assertFalse(process.ready)

    def test_port_is_taken(self) -> None:
        site = self.useFixture(daemon.Site(
            f'sqlite:///{self.folder}/vmip.sqlite', 'fake:',
            'driver = none'))
        taken = self.useFixture(daemon.stubs.Cloud()).url.rpartition(':')[2]
        for name in ('listener', 'reclaimer'):
            process = self.useFixture(daemon.Daemon(
                f'vmip_plugin.cmd.{name}', site.config()
                + f'[monitoring]\n{name}_port = {taken}\n'))
            self.assertEqual(1, process.process.wait(lab.PATIENCE))
            self.assertIn(f'port {taken}: Address already in use',
                          process.log.read_text())


class TestAgent(DaemonsTestCase):

    def test_agent(self) -> None:
        cloud = self.useFixture(daemon.stubs.Cloud())
        agent = Asked()
        store = self.folder / 'agent.sqlite'
        network = self.enterContext(lab.Namespace())
        network.run('ip', 'link', 'add', 'br0', 'type', 'bridge')
        network.run('ip', 'link', 'set', 'br0', 'up')
        name = f'{network.name}/br0'
        process = self.useFixture(daemon.Daemon(
            'vmip_plugin.cmd.agent', f'{cloud.config}'
            f'[agent]\ninterfaces = {name}\nstore = {store}\n'
            f'sweep_interval = 1\n'
            f'[monitoring]\nagent_port = {agent.port}\n'))
        lab.wait_for(agent.is_ready)
        self.assertEqual({'store': 'ok', 'interfaces': 'ok'}, agent.checks())
        live = json.loads(agent.get('/live')[1])
        self.assertEqual({'writer', 'worker', f'snoop-{name}'},
                         live['checks'].keys())
        network.run('ip', 'link', 'delete', 'br0')
        lab.wait_for(lambda: agent.checks()['interfaces']
                     == f'deaf on {name}: see the log')
        self.assertEqual(200, agent.get('/live')[0])
        # it goes on turning
        lab.wait_for(lambda: agent.value('vmip_loop_age_seconds',
                                         loop='worker') < 2)
        process.end()
        self.assertEqual(0, process.process.returncode)
