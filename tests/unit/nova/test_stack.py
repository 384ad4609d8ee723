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

"""The room that the filter leaves to Nova on the interpreter's stack."""

from collections.abc import Callable
import resource

from tests.unit import base
from vmip_plugin.nova import stack


def _nothing() -> None:
    pass


def _loop() -> None:
    for _ in range(200):
        _nothing()


def _at(depth: int, function: Callable[[], None]) -> None:
    if depth:
        _at(depth - 1, function)
    else:
        function()


def _loops() -> None:
    for depth in range(200):
        _at(depth, _loop)


class TestStack(base.TestCase):

    def test_no_call_maps_memory(self) -> None:
        """However deep the filter is, and however deep Nova goes."""
        for depth in range(200):
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            _at(depth, stack.roomy(_loops))
            after = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            # a page that was just mapped is missed once it is written to
            self.assertLess(after - before, 100, depth)

    def test_answers_and_errors(self) -> None:
        self.assertEqual(
            ((1,), {'a': 2}),
            stack.roomy(lambda *args, **kwargs: (args, kwargs))(1, a=2))
        self.assertRaises(ZeroDivisionError, stack.roomy(divmod), 1, 0)
