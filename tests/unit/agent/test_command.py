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

"""vmip-agent's ways not to start."""

import contextlib
import io
import pathlib
import tempfile
from unittest import mock

import fixtures
import testtools

from vmip_plugin.agent import dhcp
from vmip_plugin.agent import service
from vmip_plugin.cmd import agent

CLOUD = '[cloud]\nauth_type = password\n'


class MainTestCase(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        # or Python writes to stderr what no logger takes
        self.useFixture(fixtures.FakeLogger())
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = pathlib.Path(directory.name)
        self.store = f'store = {self.path}/agent.sqlite\n'
        patch = mock.patch('oslo_log.log.setup')
        patch.start()
        self.addCleanup(patch.stop)

    def main(self, text: str) -> tuple[int, str]:
        path = self.path / 'vmip.conf'
        path.write_text(text)
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            code = agent.main(['--config-file', str(path)])
        return code, errors.getvalue()


class MainTest(MainTestCase):

    def test_no_file(self) -> None:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            self.assertEqual(1, agent.main(['--config-file', '/none']))
        self.assertIn('/none', errors.getvalue())

    def test_wrong_value(self) -> None:
        code, errors = self.main('[agent]\nsource = x\n' + CLOUD)
        self.assertEqual(1, code)
        self.assertIn('source', errors)

    def test_no_cloud(self) -> None:
        code, errors = self.main('[agent]\ninterfaces = lo\n')
        self.assertEqual(1, code)
        self.assertIn('[cloud] auth_type', errors)

    def test_no_interface(self) -> None:
        code, errors = self.main(CLOUD)
        self.assertEqual(1, code)
        self.assertIn('[agent] interfaces is empty', errors)

    def test_unknown_namespace(self) -> None:
        for name in ('vmip-none/lo', '../x/lo', '../lo'):
            code, errors = self.main(
                CLOUD + f'[agent]\ninterfaces = {name}\n')
            self.assertEqual(1, code)
            self.assertIn(f'[agent] interfaces: {name}: ', errors)

    def test_no_permission(self) -> None:
        with mock.patch('socket.socket', side_effect=(
                PermissionError(1, 'Operation not permitted'))):
            code, errors = self.main(CLOUD + '[agent]\ninterfaces = lo\n')
        self.assertEqual(2, code)
        self.assertIn('CAP_NET_RAW', errors)

    def test_store_not_writable(self) -> None:
        with mock.patch.object(service, 'check_interfaces'):
            code, errors = self.main(
                CLOUD + '[agent]\ninterfaces = lo\nstore = /none/x\n')
        self.assertEqual(1, code)
        self.assertIn('[agent] store /none/x cannot be used', errors)

    def test_senseless_bus(self) -> None:
        code, errors = self.main(
            '[DEFAULT]\ntransport_url = nonsense://\n' + CLOUD)
        self.assertEqual(1, code)
        self.assertIn('transport_url', errors)

    def test_starts_without_dhcp_servers(self) -> None:
        with mock.patch.object(service, 'check_interfaces'), \
                mock.patch.object(agent, 'run') as run, \
                self.assertLogs(dhcp.LOG.logger, 'ERROR') as logs:
            code, errors = self.main(
                CLOUD + '[dhcp]\nservers = a\n[dhcp:a]\ndriver = none-such\n'
                '[agent]\ninterfaces = lo\n' + self.store)
        self.assertEqual((0, ''), (code, errors))
        self.assertIn('none-such', logs.output[0])
        run.call_args.args[0]._store.close()

    def test_starts_without_bus(self) -> None:
        with mock.patch.object(service, 'check_interfaces'), \
                mock.patch.object(agent, 'run') as run, \
                self.assertLogs(agent.LOG.logger, 'WARNING') as logs:
            code, errors = self.main(
                CLOUD + '[agent]\ninterfaces = lo\n' + self.store)
        self.assertEqual((0, ''), (code, errors))
        self.assertIn('no hints', logs.output[0])
        run.call_args.args[0]._store.close()
