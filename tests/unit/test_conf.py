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

"""Which files the programs read, and what they say of wrong ones."""

import contextlib
import io

import fixtures

from tests.unit import base
from vmip_plugin.cmd import agent
from vmip_plugin.cmd import common
from vmip_plugin.cmd import manage
from vmip_plugin.cmd import status as status_
from vmip_plugin import conf as vmip_conf
from vmip_plugin import exceptions


class TestParse(base.TestCase):

    def test_the_one_file_alone(self) -> None:
        """As the host services do: nobody has options that others miss."""
        self.useFixture(fixtures.EnvironmentVariable(
            'HOME', str(self.directory)))
        folder = self.directory / '.vmip/vmip.conf.d'
        folder.mkdir(parents=True)
        (folder / 'more.conf').write_text('[reserve]\nttl = 1234\n')
        path = self.directory / 'vmip.conf'
        path.write_text('[reserve]\nhook_timeout = 7\n')
        conf = vmip_conf.new()
        vmip_conf.parse(conf, ['--config-file', str(path)], 'vmip')
        self.assertEqual(7, conf.reserve.hook_timeout)
        self.assertNotEqual(1234, conf.reserve.ttl)


class TestWrongFiles(base.TestCase):
    """Each program names what is wrong, in a line, and ends."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.directory / 'vmip.conf'
        # none of them may begin its work
        self.useFixture(fixtures.MockPatch('oslo_log.log.setup'))

    def assertRefused(self, *says: str) -> None:
        file = ['--config-file', str(self.path)]
        for main, status in (
                (lambda: agent.main(file), 1),
                (lambda: common.run('vmip-listener', self.fail, file), 1),
                (lambda: manage.main([*file, 'address', 'list']), 1),
                (lambda: status_.main([*file, 'upgrade', 'check']), 255)):
            out = io.StringIO()
            with contextlib.redirect_stderr(out):
                self.assertEqual(status, main())
            for text in says:
                self.assertIn(text, out.getvalue())
            self.assertEqual(1, out.getvalue().count('\n'), out.getvalue())
        vmip_conf.load.cache_clear()
        error = self.assertRaises(exceptions.ConfigError, vmip_conf.load,
                                  str(self.path))
        self.assertIn(str(self.path), str(error))

    def test_missing(self) -> None:
        self.assertRefused(str(self.path), 'see that the file exists')

    def test_folder(self) -> None:
        self.path.mkdir()
        self.assertRefused(str(self.path), 'Is a directory')

    def test_no_text(self) -> None:
        self.path.write_bytes(b'\xff\xfe\0secret')
        self.assertRefused('not text in UTF-8')

    def test_no_option(self) -> None:
        self.path.write_text('[reserve]\nsecret\n')
        self.assertRefused(f'{self.path}:2')

    def test_value(self) -> None:
        for group, name, value, says in (
                ('agent', 'probe_count', 'many', "'many'"),
                ('reclaimer', 'work_interval', 'soon', "'soon'"),
                ('reserve', 'ttl', '-1', 'greater than or equal to 10')):
            self.path.write_text(f'[{group}]\n{name} = {value}\n')
            error = self.assertRaises(
                exceptions.ConfigError, common.setup, 'vmip',
                ['--config-file', str(self.path)])
            self.assertRegex(str(error), rf'^\[{group}\] {name}: .*{says}$')
