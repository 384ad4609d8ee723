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

"""What runs the stages of "make test"."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import fixtures
import testtools

CHECKOUT = pathlib.Path(__file__).parents[2]
STAGES = CHECKOUT / 'tools/stages'

#: seconds for a process to end on a busy machine
PATIENCE = 120

#: what stestr adds to a test that failed
FAILURE = '''
Captured traceback:
~~~~~~~~~~~~~~~~~~~
    Traceback (most recent call last):

      File "/a/b/tests/unit/test_it.py", line 42, in test_it
    self.assertEqual(

      File "/a/.venv/lib/site-packages/testtools/testcase.py", line 9, in one
    raise mismatch_error

    testtools.matchers._impl.MismatchError: 1 != 2

Captured stderr:
~~~~~~~~~~~~~~~~
    and what it said

{0} tests.unit.TestIt.test_good [0.1s] ... ok
    Captured by nobody: no part of it
'''

#: stands for make; each target ends as its name says
MAKE = f'FAILURE = {FAILURE!r}' + '''
import os, sys, time
name = sys.argv[1]
with open('began', 'a') as began:
    began.write(name + '\\n')
print('the output of', name, flush=True)
if name.startswith('tests'):
    print(' - Passed: 7')
    print(' - Skipped: 1')
    print(' - Failed: ' + name[-1])
    for number in range(int(name[-1])):
        print('{1} tests.unit.TestIt.test_%d [0.5s] ... FAILED' % number)
        print(FAILURE)
    sys.exit(name[-1] != '0')
if name == 'meets':
    # until the other lane has begun as well
    while 'other' not in open('began').read():
        time.sleep(0.01)
if name == 'leaves':
    os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '30')
if name == 'hangs':
    time.sleep(600)
if name.startswith('ends'):
    sys.exit(int(name[4:]))
'''


class TestStages(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.make = self.folder / 'make.py'
        self.make.write_text(MAKE)

    def start(self, *lanes: str) -> 'subprocess.Popen[str]':
        return subprocess.Popen(
            [sys.executable, str(STAGES), *lanes], cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, 'VMIP_MAKE': f'{sys.executable} {self.make}'})

    def stages(self, *lanes: str, status: int = 0) -> str:
        process = self.start(*lanes)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(status, process.returncode, out + err)
        return out

    def began(self) -> list[str]:
        return (self.folder / 'began').read_text().split()

    def results(self, out: str) -> dict[str, str]:
        """Return each stage's result in the table."""
        table = out[out.index('\nSTAGE ') + 1:].split('\n\n')[0]
        return {line.split()[0]: re.split('  +', line)[1]
                for line in table.splitlines()[1:]}

    def test_later_stages_run(self) -> None:
        out = self.stages('ends1,ends3,ends2,ends0', status=3)
        self.assertEqual(['ends1', 'ends3', 'ends2', 'ends0'], self.began())
        self.assertEqual({
            'ends1': 'FAILED (1)', 'ends3': 'FAILED (3)',
            'ends2': 'FAILED (2)', 'ends0': 'ok'}, self.results(out))

    def test_counts(self) -> None:
        out = self.stages('tests0,tests2', 'ends0', status=1)
        self.assertEqual('14 passed, 2 failed, 2 skipped',
                         out.splitlines()[-1])
        why = ('tests/unit/test_it.py:42 | '
               'testtools.matchers._impl.MismatchError: 1 != 2')
        self.assertEqual([f'FAILED tests.unit.TestIt.test_0 | {why}',
                          f'FAILED tests.unit.TestIt.test_1 | {why}'],
                         out.splitlines()[-3:-1])
        self.assertIn('tests2 | the output of tests2\n', out)

    def test_failed_without_a_test(self) -> None:
        out = self.stages('tests0,ends1', status=1)
        self.assertEqual('7 passed, 1 failed, 1 skipped',
                         out.splitlines()[-1])

    def test_lanes_run_side_by_side(self) -> None:
        self.stages('meets', 'other')

    def test_stage_that_leaves_a_process(self) -> None:
        """It keeps the output open, and holds up nobody."""
        self.stages('leaves,ends0')

    def test_interrupted(self) -> None:
        process = self.start('hangs,ends0')
        assert process.stdout is not None
        for line in process.stdout:
            if 'the output of hangs' in line:
                break
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(128 + signal.SIGTERM, process.returncode, err)
        self.assertEqual({'hangs': 'FAILED (143)', 'ends0': 'not run'},
                         self.results(out))
        self.assertEqual(['hangs'], self.began())

    def test_usage(self) -> None:
        for words in ((), ('--help',), ('a,', 'b', '')):
            process = self.start(*words)
            _, err = process.communicate(timeout=PATIENCE)
            self.assertEqual(2, process.returncode)
            self.assertIn('Usage: tools/stages', err)
