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

"""Two long lists side by side."""

from collections.abc import Iterator

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.reclaim import compare


def merged(ours: str, theirs: Iterator[str] | str) -> list[str]:
    """Return each of ours with what was found for it."""
    return [one + (other or '-') for one, other in compare.merge(
        ours, str, theirs, str)]


class TestMerge(base.TestCase):

    def test_each_of_ours(self) -> None:
        for ours, theirs, found in (
                ('', '', []), ('a', '', ['a-']), ('abc', 'abc', [
                    'aa', 'bb', 'cc']),
                ('bd', 'abcde', ['bb', 'dd']), ('abe', 'cd', [
                    'a-', 'b-', 'e-']),
                ('aabb', 'b', ['a-', 'a-', 'bb', 'bb']),
                ('xy', 'abc', ['x-', 'y-']), ('ab', 'xyz', ['a-', 'b-'])):
            self.assertEqual(found, merged(ours, theirs))

    def test_not_in_order(self) -> None:
        for ours, theirs in (('ba', 'ab'), ('ab', 'ba'), ('ab', 'aa'),
                             ('a', 'abcb')):
            self.assertRaises(exceptions.CloudUnavailable, merged, ours,
                              theirs)

    def test_theirs_breaks_off_after_all_of_ours(self) -> None:
        def theirs() -> Iterator[str]:
            yield from 'abc'
            raise exceptions.CloudUnavailable('page 2')

        self.assertRaises(exceptions.CloudUnavailable, merged, 'a', theirs())

    def test_theirs_is_not_asked_for_nothing(self) -> None:
        def theirs() -> Iterator[str]:
            raise AssertionError
            yield

        self.assertEqual([], merged('', theirs()))
