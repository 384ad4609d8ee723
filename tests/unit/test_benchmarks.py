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

"""The benchmarks' command: each has options of its own."""

import contextlib
import io
from unittest import mock

from tests.benchmarks import __main__ as command
from tests.unit import base


class TestCommand(base.TestCase):

    def test_help(self) -> None:
        out = io.StringIO()
        with mock.patch('sys.argv', ['bench', '--help']), \
                contextlib.redirect_stdout(out):
            error = self.assertRaises(SystemExit, command.main)
        self.assertEqual(0, error.code)
        for name in command.BENCHES:
            self.assertIn(name, out.getvalue())

    def test_unknown(self) -> None:
        err = io.StringIO()
        with mock.patch('sys.argv', ['bench', 'no-such']), \
                contextlib.redirect_stderr(err):
            error = self.assertRaises(SystemExit, command.main)
        self.assertEqual(2, error.code)
        self.assertIn('no benchmark no-such', err.getvalue())
