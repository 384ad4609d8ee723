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

"""The programs that the Makefile uses."""

import ast
import importlib
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import fixtures
import testtools

CHECKOUT = pathlib.Path(__file__).parents[2]

#: stands for the one-machine cloud, and notes how it was called
MINICLOUD = '''
import os, sys
with open('calls', 'a') as calls:
    print('minicloud', *sys.argv[1:], file=calls)
if os.environ.get('HELD') and '--purge' in sys.argv:
    sys.exit('the cloud of /elsewhere runs on this machine')
'''


class TestWithCloud(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        for name in 'tools', 'devstack/minicloud':
            (self.folder / name).mkdir(parents=True)
        shutil.copy(CHECKOUT / 'tools/with-cloud', self.folder / 'tools')
        (self.folder / 'devstack/minicloud/__main__.py').write_text(MINICLOUD)

    def run_(self, command: str, **environment: str,
             ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.folder / 'tools/with-cloud', 'bash', '-c', command],
            capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, **environment})

    def calls(self) -> list[str]:
        return (self.folder / 'calls').read_text().splitlines()

    def test_begins_with_nothing(self) -> None:
        """Whatever a command that was killed has left in the cloud."""
        for status in (0, 3):
            done = self.run_(f'echo command >>calls; exit {status}')
            self.assertEqual(status, done.returncode, done.stderr)
            self.assertEqual(['minicloud down --purge', 'command',
                              'minicloud down'], self.calls())
            (self.folder / 'calls').unlink()

    def test_interrupted(self) -> None:
        done = self.run_('kill -TERM $PPID; sleep 60')
        self.assertEqual(130, done.returncode, done.stderr)
        self.assertEqual(['minicloud down --purge', 'minicloud down'],
                         self.calls())

    def test_cloud_of_another_checkout(self) -> None:
        """It is named, and neither used nor stopped."""
        done = self.run_('echo command >>calls', HELD='1')
        self.assertEqual(1, done.returncode)
        self.assertIn('the cloud of /elsewhere runs', done.stderr)
        self.assertEqual(['minicloud down --purge'], self.calls())


class TestBootstrap(testtools.TestCase):

    LISTS = ('requirements.txt', 'test-requirements.txt',
             'doc/requirements.txt')
    MINICLOUD = 'devstack/minicloud/requirements.txt'
    CONSTRAINTS = 'devstack/minicloud/constraints.txt'

    def setUp(self) -> None:
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        for name in (*self.LISTS, self.MINICLOUD, self.CONSTRAINTS,
                     'setup.cfg', 'pyproject.toml', 'tools/bootstrap'):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, self.folder / name)
        (self.folder / 'devstack/minicloud/__main__.py').write_text(MINICLOUD)
        # stands for the environment's Python
        python = self.folder / '.venv/bin/python'
        python.parent.mkdir(parents=True)
        python.write_text('#!/bin/sh\necho "$@" >>calls\n')
        python.chmod(0o755)

    def bootstrap(self, *options: str) -> list[str]:
        """Return what it has called."""
        subprocess.run([self.folder / 'tools/bootstrap', *options],
                       check=True, capture_output=True, timeout=120)
        calls = self.folder / 'calls'
        found = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return found

    def pip(self, *lists: str) -> str:
        return ' '.join((
            '-m pip install -q --disable-pip-version-check -c',
            self.CONSTRAINTS, *(f'-r{name}' for name in lists), '-e .'))

    def test_python_only(self) -> None:
        """Neither Debian's packages nor what is built against them."""
        self.assertEqual([self.pip(*self.LISTS)],
                         self.bootstrap('--python-only'))
        self.assertEqual([], self.bootstrap('--python-only'))
        # what needs them does not take it for complete
        self.assertEqual(
            ['minicloud install', self.pip(*self.LISTS, self.MINICLOUD)],
            [call for call in self.bootstrap() if 'uwsgi' not in call])

    def test_complete(self) -> None:
        _, uwsgi, rest = self.bootstrap()
        # built for this Python, whatever pip has kept
        self.assertRegex(uwsgi, r'--no-cache-dir .* uwsgi==\S+$')
        self.assertEqual(self.pip(*self.LISTS, self.MINICLOUD), rest)
        self.assertEqual(['minicloud install'], self.bootstrap())
        # it has all of the other
        self.assertEqual([], self.bootstrap('--python-only'))
        with open(self.folder / self.LISTS[0], 'a') as file:
            file.write('one-more\n')
        self.assertEqual([self.pip(*self.LISTS)],
                         self.bootstrap('--python-only'))


class TestMinicloud(testtools.TestCase):
    """There is one cloud on a machine, and install needs none."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.useFixture(fixtures.MonkeyPatch(
            'sys.path', [str(CHECKOUT / 'devstack'), *sys.path]))
        cloud = importlib.import_module('minicloud.cloud')
        self.cloud: Any = cloud
        self.useFixture(fixtures.MockPatchObject(
            cloud.settings, 'RUN', self.folder))

    def held_by(self, checkout: pathlib.Path) -> None:
        self.useFixture(fixtures.MockPatchObject(
            self.cloud.process, 'strangers',
            return_value={(str(checkout), '/a/state')}))

    def refused(self) -> str:
        def change() -> None:
            with self.cloud._lock():
                self.fail('two clouds')
        return str(self.assertRaises(self.cloud.process.Failure, change))

    def test_cloud_of_another_checkout(self) -> None:
        program = self.folder / 'devstack/minicloud'
        program.mkdir(parents=True)
        self.held_by(self.folder)
        text = self.refused()
        self.assertIn(f'the cloud of {self.folder} (state in /a/state) runs',
                      text)
        self.assertIn(f'VMIP_STATE=/a/state python3 {program} down', text)

    def test_cloud_of_a_checkout_that_was_removed(self) -> None:
        """This one's program stops it."""
        self.held_by(self.folder / 'removed')
        self.assertIn(f'python3 {CHECKOUT}/devstack/minicloud down',
                      self.refused())

    def test_install_beside_a_cloud(self) -> None:
        self.held_by(self.folder)
        with self.cloud._lock(alone=False):
            pass


class TestCI(testtools.TestCase):
    """One line says how it went, and the exit status agrees with it."""

    def ci(self, recipe: str) -> tuple[int, str]:
        folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (folder / '.ci').mkdir()
        shutil.copy(CHECKOUT / '.ci/run', folder / '.ci')
        (folder / 'Makefile').write_text(f'test:\n\t@{recipe}\n')
        done = subprocess.run(
            [folder / '.ci/run'], stdout=subprocess.PIPE, text=True,
            stderr=subprocess.STDOUT, timeout=120, check=False,
            env={name: value for name, value in os.environ.items()
                 if not name.startswith('MAKE')})
        return done.returncode, done.stdout.splitlines()[-1]

    def test_passed(self) -> None:
        self.assertEqual((0, '3 passed, 0 failed, 1 skipped'), self.ci(
            'echo "3 passed, 0 failed, 1 skipped"'))

    def test_failed(self) -> None:
        self.assertEqual((2, '3 passed, 2 failed, 1 skipped'), self.ci(
            'echo "3 passed, 2 failed, 1 skipped"; exit 1'))

    def test_never_came_to_it(self) -> None:
        for recipe in 'exit 1', 'true':
            self.assertEqual((1, '0 passed, 1 failed, 0 skipped'),
                             self.ci(recipe))


class TestFull(testtools.TestCase):

    def test_each_line_names_tests(self) -> None:
        """What "make test" leaves out has not got another name since."""
        names = set()
        for path in (CHECKOUT / 'tests').rglob('*.py'):
            module = '.'.join(path.relative_to(CHECKOUT).with_suffix('').parts)
            names.add(module)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    names.add(f'{module}.{node.name}')
                elif isinstance(node, ast.FunctionDef):
                    # perhaps of a base
                    names.add(node.name)
        for line in (CHECKOUT / 'tests/full.txt').read_text().splitlines():
            if line and not line.startswith('#'):
                where, _, test = line.rpartition('.test_')
                if where in names:
                    self.assertIn(f'test_{test}', names)
                else:
                    self.assertIn(line, names)
