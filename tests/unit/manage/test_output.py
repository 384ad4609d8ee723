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


"""What vmip-manage writes: no name is more than text, wherever it goes."""

import csv
import io
import json
import os
import subprocess
import sys

import yaml

from tests.unit import base
from tests.unit.manage import test_manage
from vmip_plugin.cmd.manage import output
from vmip_plugin.inventory import records

A = test_manage.A

#: what tenants may call a server, with what a terminal makes of it
HOSTILE = (
    '\x1b]0;evil\x07', 'two\nlines', 'a\rb', '\ttab', 'nul\x00', '\x9b31m',
    'left\u202eright', 'zero\u200bwidth', '\u2028', '\ufeffbom', '\x7f')
#: what a spreadsheet takes for a formula
FORMULAS = ('=cmd|\' /C calc\'!A0', '+1', '-1+1', '@SUM(1)', '\t=1', '\r=1',
            '\uff1d1', '=1\n=2')
#: what must not be taken for what we write
ODD = ("'", "''", "'=x", "''=x", "'\"x", "'\"x\"", "'quoted'", 'a\\b', '\\n',
       '\\', 'a"b', 'a,b', '"', 'snow \u2603 \U0001f600', 'x=1', '#',
       '$(id)', '`id`', '$HOME', '%s', '\\x1b')
NAMES = (*HOSTILE, *FORMULAS, *ODD)


class OutputTestCase(test_manage.ManageTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool('10.0.0.10', '10.0.0.99')

    def listed(self, *argv: str) -> str:
        self.assertEqual(0, self.run_(*argv), self.err)
        return self.out

    def is_for_a_terminal(self, text: str) -> None:
        for line in text.split('\n'):
            self.assertEqual([], [char for char in line.rstrip('\r')
                                  if not char.isprintable()])


class TestNames(OutputTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.reserve(*NAMES)

    def test_no_name_is_a_command_for_the_terminal(self) -> None:
        for form in ('table', 'value', 'csv', 'json', 'yaml'):
            for command in (('address', 'list'), ('address', 'history', A)):
                self.is_for_a_terminal(self.listed(*command, '-f', form))
        # one line each, whatever is in the name
        self.assertEqual(len(NAMES), len(self.listed(
            'address', 'list', '-f', 'value').splitlines()))
        self.is_for_a_terminal(self.listed('address', 'export', '-'))
        self.is_for_a_terminal(self.listed('address', 'export', '-',
                                           '--format', 'json'))

    def test_machines_read_the_names_as_they_are(self) -> None:
        for text in (self.listed('address', 'list', '-f', 'json'),
                     self.listed('address', 'export', '-', '--format',
                                 'json')):
            self.assertEqual(list(NAMES), [
                line['server_name'] for line in json.loads(text)])
        self.assertEqual(list(NAMES), [
            line['server_name'] for line in yaml.safe_load(self.listed(
                'address', 'list', '-f', 'yaml'))])

    def test_no_name_is_a_formula(self) -> None:
        path = self.directory / 'list.csv'
        self.listed('address', 'export', str(path))
        for text in (path.read_text(), *(self.listed(
                'address', 'list', '-f', 'csv', '--quote', mode)
                for mode in ('all', 'minimal', 'nonnumeric'))):
            rows = list(csv.DictReader(io.StringIO(text, newline='')))
            for row, name in zip(rows, NAMES, strict=True):
                self.assertEqual(name, output.of_cell(row['server_name']))
                for value in row.values():
                    self.assertNotIn(value[:1] or 'x',
                                     '=+-@\t\r\uff1d\uff0b\uff0d\uff20')

    def test_messages(self) -> None:
        """An error may quote the name of who has the address."""
        for number in range(len(HOSTILE)):
            self.run_('reservation', 'create', f'10.0.0.{10 + number}',
                      '--pool', 'pool', '--server-name', 'x',
                      '--project', 'other')
            self.assertIn('is reserved for', self.err)
            self.is_for_a_terminal(self.err)


class TestPlan(OutputTestCase):

    def test_what_list_writes_is_read_unharmed(self) -> None:
        for number, name in enumerate(NAMES):
            self.inventory.hold(records.Hold(
                'pool', base.ip(f'10.0.0.{10 + number}'), name,
                *((None, None, True) if number % 2 else (base.PROJECT,))))
        path = self.directory / 'plan.csv'
        for mode in ('nonnumeric', 'all', 'minimal'):
            before = self.json('reservation', 'list')
            self.assertEqual(list(NAMES), [
                line['server_name'] for line in before])
            path.write_text(self.listed('reservation', 'list', '-f', 'csv',
                                        '--quote', mode), newline='')
            for line in before:
                self.inventory.unhold('pool', base.ip(line['address']))
            self.assertEqual([], self.json('reservation', 'list'))
            self.listed('reservation', 'import', str(path))
            self.assertEqual(before, self.json('reservation', 'list'))


class TestShell(OutputTestCase):

    def test_no_name_is_run(self) -> None:
        for number, name in enumerate((
                '$(touch run)', '`touch run`', 'a"; touch run; "b', '\\',
                '\\"; touch run; "', '$HOME')):
            text = self.listed(
                'reservation', 'create', f'10.0.0.{10 + number}', '--pool',
                'pool', '--project', 'p', '--server-name', name, '-f',
                'shell')
            told = subprocess.run(
                ['sh', '-c', text + 'printf %s "$server_name"'],
                cwd=self.directory, check=True, capture_output=True)
            self.assertEqual(name.encode(), told.stdout)
        self.assertFalse((self.directory / 'run').exists())


class TestEncoding(OutputTestCase):
    """A terminal that has not every character."""

    def program(self, *commands: str, **environment: str) -> list[bytes]:
        """Run commands in one process; return what each of them said."""
        done = subprocess.run(
            [sys.executable, '-c', 'import sys\n'
             'from vmip_plugin.cmd import manage\n'
             'for command in sys.argv[2:]:\n'
             '    status = manage.main(["--config-file", sys.argv[1],\n'
             '                          *command.split()])\n'
             '    print("exits with", status, flush=True)',
             str(self.config), *commands],
            env={**os.environ, 'PYTHONWARNINGS': 'ignore', **environment},
            check=False, capture_output=True)
        said = done.stdout.split(b'exits with 0\n')
        self.assertEqual((0, b''), (done.returncode, said.pop()), done)
        return said

    def test_every_name_is_told(self) -> None:
        name = 'snow \u2603 \U0001f600'
        self.reserve(name)
        for environment in (
                {'PYTHONIOENCODING': 'ascii'},
                {'LC_ALL': 'POSIX', 'PYTHONUTF8': '0',
                 'PYTHONCOERCECLOCALE': '0'}):
            for said in self.program(
                    *(f'address list -f {form}' for form in (
                        'table', 'csv', 'value', 'json')), **environment):
                self.assertIn(b'10.0.0.10', said)
                self.assertIn(b'\\u2603', said)
        said, = self.program('address export -', PYTHONIOENCODING='ascii')
        self.assertIn(b'snow \\u2603', said)
        said, = self.program('address list', PYTHONIOENCODING='utf-8')
        self.assertIn(name.encode(), said)
