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

"""The documented example of a hook, installed as an operator installs it."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from typing import Any

from tests.unit import base

ROOT = pathlib.Path(__file__).parents[3]
EXAMPLE = ROOT / 'doc' / 'examples' / 'vmip_example_hook'

# in a process of its own, which sees the package's entry point
RUN = '''
import json
import sys

from vmip_plugin import conf
from vmip_plugin import exceptions
from vmip_plugin.hooks import base
from vmip_plugin.hooks import manager
from vmip_plugin.inventory import records

path, project, network, *names = sys.argv[1:]
try:
    hooks = manager.Hooks(conf.load(path))
except exceptions.ConfigError as exc:
    sys.exit(f'ConfigError: {exc}')
told = []
for name in names:
    try:
        ran = hooks.before(base.Request(
            records.Requester('req-' + name, project),
            tuple(name.split()), (base.RequestedNetwork(network),)))
        told.append([[str(a.address) for a in done.memo]
                     for done in ran if isinstance(done.memo, list)])
        hooks.after(ran, base.Outcome(202))
    except base.Refused as exc:
        told.append([exc.status, str(exc)])
print(json.dumps(told))
'''


class TestExample(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        # a build leaves things behind
        source = self.directory / 'source'
        shutil.copytree(EXAMPLE, source)
        self.target = self.directory / 'target'
        self.pip('install', '--no-deps', '--no-build-isolation', '--no-index',
                 '--target', str(self.target), str(source))

    def pip(self, *args: str) -> None:
        done = subprocess.run(
            [sys.executable, '-m', 'pip', '--disable-pip-version-check',
             *args], capture_output=True, text=True, check=False)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)

    def run_hooks(self, options: str, *names: str,
                  ) -> subprocess.CompletedProcess[str]:
        path = self.directory / 'vmip.conf'
        path.write_text(
            f'[database]\nconnection = {self.connection}\n'
            f'[reserve]\nhooks = by_number, reserve\n'
            f'[hook:by_number]\n{options}\n')
        return subprocess.run(
            [sys.executable, '-c', RUN, str(path), base.PROJECT, base.NETWORK,
             *names], capture_output=True, text=True, check=False,
            env={**os.environ, 'PYTHONPATH': f'{self.target}:{ROOT}'})

    def told(self, options: str, *names: str) -> Any:
        done = self.run_hooks(options, *names)
        self.assertEqual(0, done.returncode, done.stderr)
        return json.loads(done.stdout)

    def test_runs(self) -> None:
        self.assertEqual([
            [['10.0.0.17']], [['10.0.0.10']],
            [409, 'The requested address is not free.'],
            [403, 'Numbers below 12 are not for servers.'],
            [400, 'There is no address for that number.'],
            [['10.0.0.11', '10.0.0.12']],
        ], self.told('network = 10.0.0.0/24\nfirst = 12', 'web-17', 'web',
                     'db-17', 'web-3', 'web-256', 'a-1 a-2'))

    def test_slip(self) -> None:
        done = self.run_hooks('network = here')
        self.assertEqual(1, done.returncode)
        self.assertIn('ConfigError: Hook by_number cannot be made: ',
                      done.stderr)
