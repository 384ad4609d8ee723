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

"""The documented example of a driver, installed as an operator installs it."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import fixtures
import testtools

ROOT = pathlib.Path(__file__).parents[3]
EXAMPLE = ROOT / 'doc' / 'examples' / 'vmip_example_driver'


class TestExample(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        # a build leaves things behind
        source = folder / 'source'
        shutil.copytree(EXAMPLE, source)
        self.target = folder / 'target'
        # the driver that is tested is the one that was installed
        self.folder = folder / 'tests'
        self.folder.mkdir()
        shutil.copy(EXAMPLE / 'test_contract.py', self.folder)
        done = self.run_('-m', 'pip', '--disable-pip-version-check', 'install',
                         '--no-deps', '--no-build-isolation', '--no-index',
                         '--target', str(self.target), str(source))
        self.assertEqual(0, done.returncode, done.stdout)

    def run_(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run Python where the driver is installed."""
        return subprocess.run(
            [sys.executable, '-W', 'ignore', *args], cwd=self.folder,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, 'PYTHONPATH': f'{self.target}:{ROOT}'})

    def contract(self) -> subprocess.CompletedProcess[str]:
        return self.run_('-m', 'testtools.run', 'test_contract')

    def test_contract(self) -> None:
        done = self.contract()
        self.assertEqual(0, done.returncode, done.stdout)
        found = re.search(r'(?m)^Ran (\d+) tests', done.stdout)
        assert found, done.stdout
        # those of the contract and its own
        self.assertGreater(int(found[1]), 14)

    def test_a_slip_is_seen(self) -> None:
        path = self.target / 'vmip_example_driver.py'
        text = path.read_text()
        slip = text.replace('held.mac == entry.mac', 'True')
        self.assertNotEqual(text, slip)
        path.write_text(slip)
        done = self.contract()
        self.assertEqual(1, done.returncode, done.stdout)
        self.assertIn('FAIL: test_contract.TestEthers.'
                      'test_remove_leaves_new_holder', done.stdout)
