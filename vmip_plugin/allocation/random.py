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

"""Any free address."""

import datetime

from vmip_plugin.allocation import base

_ROUNDS = 4


class RandomAllocator(base.Allocator):
    """Pick an address that does not follow from those before it.

    Where it falls follows from the server's name, the project and what is
    free: asked in advance, the answer is the same.
    """

    def order(self, pool_id: str, index: int, size: int) -> int:
        # A Feistel network is a permutation of the powers of four; what
        # falls outside is sent round again until it falls inside, which
        # makes it one of the pool's size (M. Luby, C. Rackoff; J. Black,
        # P. Rogaway, "Ciphers with Arbitrary Finite Domains").
        half = ((size - 1).bit_length() + 1) // 2
        mask = (1 << half) - 1
        while True:
            left, right = index >> half, index & mask
            for number in range(_ROUNDS):
                left, right = right, left ^ (
                    base.digest(pool_id, number, right) & mask)
            index = left << half | right
            if index < size:
                return index

    def key(self, pool_id: str, position: int) -> int:
        return base.digest(pool_id, position)

    def start(self, project_id: str, server_name: str) -> int:
        return base.digest(project_id, server_name)

    def freed_key(self, key: int, at: datetime.datetime) -> int:
        return base.digest(key, at)

    def fresh_first(self, index: int, key: int) -> bool:
        return False
