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

"""The filter inside a service that eventlet has patched."""

import json
import pathlib
import subprocess
import sys

from tests.unit import base
from tests.unit.nova import harness

SCRIPT = pathlib.Path(__file__).parent / 'green.py'


class TestEventlet(base.TestCase):

    def test_hangs_nobody_else(self) -> None:
        self.pool(last='10.0.0.40')
        path = self.directory / 'vmip.conf'
        path.write_text(f'[database]\nconnection = {self.connection}\n'
                        '[reserve]\nhooks = hanging, reserve\n'
                        'hook_timeout = 600\n')
        done = subprocess.run(
            [sys.executable, '-m', 'tests.unit.nova.green', str(path)],
            capture_output=True, text=True, check=False, timeout=120,
            cwd=SCRIPT.parents[3])
        self.assertEqual(0, done.returncode, done.stderr)
        told = json.loads(done.stdout)
        slow = [told for told in told['seen'] if told[0] == 'slow']
        fast = [told for told in told['seen'] if told[0] != 'slow']
        # none of them waited for the hook, which ended after their answers
        self.assertEqual([503] * 3, [status for _, status, _ in slow])
        self.assertEqual([(202, True)] * 9,
                         [(status, same) for _, status, same in fast])
        self.assertEqual([202] * 9 + [503] * 3, sorted(told['settled']))
        self.assertEqual(9, len(self.found()))
        self.assertEqual('req-1', self.row(harness.A).request_id)
