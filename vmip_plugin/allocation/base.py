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

"""The contract of an allocator: which free address is picked next.

Every address of a pool has a place on a line, its *pick key*, given once when
it is first wanted. A pick takes the free address with the smallest key at or
after a start, and goes round at the end. Both questions are arithmetic, so a
pick costs one step down an index, however full the pool is.

An allocator is a stevedore plugin of the namespace
``vmip_plugin.allocators``.
"""

import abc

#: Keys are 0 ... MAX_KEY (a signed 64-bit column).
MAX_KEY = 2**63 - 1


class Allocator(abc.ABC):
    """Base of the allocators. They keep no state."""

    @abc.abstractmethod
    def key(self, position: int) -> int:
        """Return the pick key of an address.

        :param position: its place in the pool's ranges, counted from 0.
        """

    @abc.abstractmethod
    def start(self, project_id: str, server_name: str) -> int:
        """Return the pick key from which the search for this server starts."""
