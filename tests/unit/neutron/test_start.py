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

"""No process of Neutron starts that could not make a port."""

import os
import pathlib
import subprocess
import sys

import fixtures
from oslo_config import cfg
import testtools

from tests.unit.neutron import case
from tests.unit.neutron import harness
from vmip_plugin import conf as vmip_conf
from vmip_plugin.neutron import plugin

#: Neutron's programs, as its wrappers call them
PROGRAMS = {
    'neutron-api': 'import neutron.wsgi.api',
    'neutron-rpc-server':
        'from neutron.cmd import server; server.main_rpc()',
    'neutron-periodic-workers':
        'from neutron.cmd import server; server.main_periodic()',
    'manager': 'from neutron import manager, server; server.boot_server('
               'manager.init); print("all plugins are loaded")'}

PASTE = """
[composite:neutron]
use = egg:Paste#urlmap
/v2.0: api

[app:api]
paste.app_factory = neutron.api.v2.router:APIRouter.factory
"""


class TestPrograms(testtools.TestCase):
    """Real processes of Neutron, begun one at a time."""

    def setUp(self) -> None:
        super().setUp()
        self.path = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (self.path / 'api-paste.ini').write_text(PASTE)
        (self.path / 'policy.yaml').write_text('{}\n')
        (self.path / 'neutron.conf').write_text(harness.CONF.format(
            path=self.path).replace(
                'service_plugins =',
                f'api_paste_config = {self.path}/api-paste.ini\n'
                'service_plugins = vmip'))

    def start(self, program: str) -> tuple[int, str]:
        """Begin a program that is to end by itself; return what it said."""
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', PROGRAMS[program]],
            env={**os.environ, 'VMIP_CONFIG': str(self.path / 'vmip.conf'),
                 'OS_NEUTRON_CONFIG_DIR': str(self.path),
                 'OS_NEUTRON_CONFIG_FILES': 'neutron.conf'},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=300)
        return done.returncode, done.stdout

    def test_with_a_file(self) -> None:
        """What they have in common goes through."""
        (self.path / 'vmip.conf').write_text('[reserve]\nttl = 60\n')
        status, said = self.start('manager')
        self.assertEqual(0, status, said)
        self.assertIn('all plugins are loaded', said)

    def test_without_a_file(self) -> None:
        for program in sorted(PROGRAMS):
            with self.subTest(program):
                status, said = self.start(program)
                self.assertNotEqual(0, status)
                self.assertIn(f'{self.path}/vmip.conf is not there', said)
                self.assertNotIn('Traceback', said)


class TestPlugin(case.NeutronTestCase):

    def refused(self) -> str:
        error = self.assertRaises(SystemExit, plugin.VmipPlugin)
        self.assertIn(str(error), self.log.output.replace(
            'keeps this process from starting: ', 'ERROR: '))
        return str(error)

    def test_good_file(self) -> None:
        found = plugin.VmipPlugin()
        self.assertEqual('VMIP', found.get_plugin_type())
        self.assertIn('vmip', found.get_plugin_description())

    def set_file(self, path: str) -> None:
        vmip_conf.load.cache_clear()
        self.useFixture(fixtures.EnvironmentVariable('VMIP_CONFIG', path))

    def write(self, text: str) -> None:
        path = self.file.with_suffix('.conf')
        path.write_text(text)
        self.set_file(str(path))

    def test_wrong_values(self) -> None:
        for text, option in (
                ('[reserve]\nttl = soon\n', 'ttl'),
                ('[database]\nconnection = oracle://h/d\n', 'connection'),
                ('[database]\nconnection = postgres://u:p@q@h/d\n',
                 'connection'),
                ('[database]\nconnection hunter2\n', ':2, No')):
            with self.subTest(option):
                self.write(text)
                said = self.refused()
                self.assertIn(option, said)
                self.assertIn('vmip.conf', said)
                self.assertNotIn('hunter2', said)

    def test_not_readable(self) -> None:
        self.set_file('/nowhere/vmip.conf')
        said = self.refused()
        self.assertIn('/nowhere/vmip.conf', said)
        self.assertIn('root' if os.geteuid() == 0 else 'user', said)

    def test_another_ipam_driver(self) -> None:
        cfg.CONF.set_override('ipam_driver', 'internal')
        self.addCleanup(cfg.CONF.clear_override, 'ipam_driver')
        self.assertIn('ipam_driver', self.refused())
