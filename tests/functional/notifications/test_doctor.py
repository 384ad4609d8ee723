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

"""vmip-manage doctor on a real RabbitMQ."""

import argparse
import contextlib
import pathlib
from typing import Any

import fixtures
import oslo_messaging
import testtools

from tests import lab
from tests import notifications
from tests import rabbit
from tests.unit.agent import test_rpc
from vmip_plugin.agent import rpc
from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import doctor
from vmip_plugin.cmd.manage.doctor import point
from vmip_plugin.notifications import listener


class _Handler:

    def handle(self, events: Any) -> None:
        pass


class TestDoctor(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.FakeLogger())
        self.broker = self.useFixture(rabbit.RabbitMQ())
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def look(self, url: str) -> dict[tuple[str, str], str]:
        """Return the result of each point and subject."""
        path = self.folder / f'{len(list(self.folder.iterdir()))}.conf'
        path.write_text(f'[DEFAULT]\ntransport_url = {url}\n')
        app = manage.Manage()
        app.options = argparse.Namespace(config_file=str(path))
        context = point.Context(app, argparse.Namespace(timeout=30))
        self.conf = context.conf
        self.found = list(point.examine(
            doctor.POINTS, context, {'bus', 'listener', 'agents'}, True))
        self.assertNotIn('wrong-word', str(self.found))
        return {(name, found.subject): str(found.level)
                for name, found in self.found}

    def wait_for(self, expected: dict[tuple[str, str], str]) -> None:
        """Look until everybody has answered in time, as on an idle machine."""
        with contextlib.suppress(TimeoutError):
            lab.wait_for(lambda: self.look(self.broker.url) == expected)
        self.assertEqual(expected, self.look(self.broker.url))

    def test_bus(self) -> None:
        url = self.broker.url
        here = f'127.0.0.1:{self.broker.port}'
        self.wait_for({('bus', here): 'OK', ('listener', 'vmip'): 'FAIL',
                       ('agents', ''): 'WARNING'})

        server = listener.Listener(
            self.conf, listener.get_transport(self.conf), _Handler())
        server.start()
        transport: Any = oslo_messaging.get_rpc_transport(self.conf)
        self.addCleanup(transport.cleanup)
        agent = rpc.server(
            transport, 'dhcp1', lambda hint: None,
            rpc.Questions(transport, 'dhcp1', test_rpc.FakeAgent(1)))
        agent.start()
        self.wait_for({('bus', here): 'OK', ('listener', 'vmip'): 'OK',
                       ('agents', 'dhcp1'): 'OK'})
        agent.stop()
        agent.wait()
        server.stop()
        server.wait()

        # the queue stays and fills
        self.broker.publish(notifications.messages('boot-delete'))
        found = self.look(url)
        self.assertEqual('FAIL', found['listener', 'vmip'])
        text = ' '.join(f.text for _, f in self.found)
        self.assertRegex(text, r'no vmip-listener reads it; [1-9]\d* mess')

        # one of two brokers is enough
        two = url.replace('rabbit://', 'rabbit://vmip:vmip@127.0.0.1:1,')
        found = self.look(two)
        self.assertEqual('WARNING', found['bus', '127.0.0.1:1'])
        self.assertEqual('OK', found['bus', here])
        self.assertEqual('FAIL', found['listener', 'vmip'])

        self.assertEqual(
            {('bus', here): 'FAIL', ('listener', ''): 'NOT CHECKED',
             ('agents', ''): 'NOT CHECKED'},
            self.look(url.replace('vmip:vmip', 'vmip:wrong-word')))
        self.broker.kill()
        self.assertEqual('FAIL', self.look(url)['bus', here])
