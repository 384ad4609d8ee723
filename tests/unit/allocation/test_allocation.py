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

"""Allocators: which free address is next."""

import testtools

from tests.unit import base
from vmip_plugin.allocation import base as allocation
from vmip_plugin import exceptions
from vmip_plugin.inventory import pools


class Descending(allocation.Allocator):
    """The highest position first, from a start of the server's own."""

    begin = 0

    def key(self, position: int) -> int:
        return 1000 - position

    def start(self, project_id: str, server_name: str) -> int:
        return self.begin


class TestSequential(testtools.TestCase):

    def test_is_installed(self) -> None:
        allocator = pools.allocator('sequential')
        self.assertIs(allocator, pools.allocator('sequential'))
        self.assertEqual([0, 1, 2], [allocator.key(n) for n in range(3)])
        self.assertEqual(0, allocator.start('p', 'name'))

    def test_keys_have_room_in_their_column(self) -> None:
        allocator = pools.allocator('sequential')
        self.assertEqual(allocation.MAX_KEY, allocator.key(2 ** 128))

    def test_unknown(self) -> None:
        error = self.assertRaises(exceptions.ConfigError, pools.allocator,
                                  'dice')
        self.assertIn('dice', str(error))


class TestContract(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.allocator = Descending()
        self.patch(pools, '_allocators', {'sequential': self.allocator})
        self.pool('10.0.0.10', '10.0.0.12')

    def test_smallest_key_first(self) -> None:
        self.assertEqual(['10.0.0.12', '10.0.0.11'],
                         base.addresses(self.reserve('a', 'b')))

    def test_from_the_start_and_round(self) -> None:
        self.allocator.begin = 999
        self.assertEqual(['10.0.0.11', '10.0.0.10', '10.0.0.12'],
                         base.addresses(self.reserve('a', 'b', 'c')))
