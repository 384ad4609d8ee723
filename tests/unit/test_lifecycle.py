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

"""The table of a server's life and its tests are the same."""

import ast
from pathlib import Path
import re

import testtools

TOP = Path(__file__).resolve().parents[2]
TABLE = TOP / 'doc/source/lifecycle.rst'
TESTS = TOP / 'tests/cloud/test_lifecycle.py'


class TestLifecycle(testtools.TestCase):

    def test_each_row_has_its_test(self) -> None:
        rows = re.findall(r'^   \* - ``(\w+)``$', TABLE.read_text(),
                          re.MULTILINE)
        tests = [node.name.removeprefix('test_')
                 for node in ast.walk(ast.parse(TESTS.read_text()))
                 if isinstance(node, ast.FunctionDef)
                 and node.name.startswith('test_')]
        self.assertEqual(sorted(tests), sorted(rows))
