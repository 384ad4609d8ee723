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

"""Property tests decide with the same examples each time."""

import os
import pathlib
import subprocess
import sys

import hypothesis
import testtools

import tests

CHECKOUT = pathlib.Path(__file__).parents[2]

#: prints the examples of a property
DRAW = '''
import hypothesis
from hypothesis import strategies
import tests

@hypothesis.given(strategies.integers())
def draw(number):
    print(number)

draw()
'''


class TestExamples(testtools.TestCase):

    def draw(self, **environment: str) -> list[str]:
        # hashes differ from one process to the next, as in a real run
        return subprocess.run(
            [sys.executable, '-c', DRAW], cwd=CHECKOUT, check=True,
            capture_output=True, text=True, env={
                **os.environ, 'VMIP_EXAMPLES': '1', **environment,
            }).stdout.split()

    def test_same_each_time(self) -> None:
        found = self.draw()
        self.assertEqual(100, len(found))
        self.assertEqual(found, self.draw())

    def test_others_and_more_in_a_soak(self) -> None:
        found = self.draw(VMIP_EXAMPLES='3')
        self.assertEqual(300, len(found))
        self.assertNotEqual(found, self.draw(VMIP_EXAMPLES='3'))

    def test_nothing_else_decides(self) -> None:
        """Neither the clock nor what an earlier run has found."""
        settings = hypothesis.settings()
        self.assertIsNone(settings.deadline)
        self.assertIsNone(settings.database)
        self.assertTrue(settings.print_blob)
        self.assertEqual(20 * tests.TIMES, tests.examples(20))
