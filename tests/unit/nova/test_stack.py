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
from tests.unit.nova import harness
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


def _faults() -> int:
    """Return how often a page was missed: once each that was just mapped."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt


class TestStack(base.TestCase):

    def test_no_call_maps_memory(self) -> None:
        """However deep the caller is, and however deep it goes from there."""
        for depth in range(200):
            before = _faults()
            _at(depth, lambda: stack.call(_loops))
            self.assertLess(_faults() - before, 100, depth)

    def test_answers_and_errors(self) -> None:
        self.assertEqual(
            ((1,), {'a': 2}),
            stack.call(lambda *args, **kwargs: (args, kwargs), 1, a=2))
        self.assertRaises(ZeroDivisionError, stack.call, divmod, 1, 0)


class TestFilter(harness.FilterTestCase):

    def _nova(self, *args: object) -> list[bytes]:
        before = _faults()
        _loops()
        self.faults.append(_faults() - before)
        raise ZeroDivisionError

    def _assert_room(self, method: str) -> None:
        self.faults: list[int] = []
        self.app._app = self._nova
        for depth in range(0, 200, 10):
            self.assertRaises(
                ZeroDivisionError, _at, depth,
                lambda: self.call(self.environ(method=method)))
        self.assertEqual(20, len(self.faults))
        self.assertLess(max(self.faults), 100, self.faults)

    def test_create(self) -> None:
        self._assert_room('POST')

    def test_others(self) -> None:
        self._assert_room('GET')
