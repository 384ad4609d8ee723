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

Every free address of a pool has a place on a line, its *pick key*. A pick
takes the one with the smallest key at or after a start, and goes round at the
end: one step down an index, however full the pool is. Addresses that nobody
ever wanted have no row yet; they join the line a chunk at a time, in the
allocator's *order*, so that a /64 costs nothing until it is used.

An allocator is a stevedore plugin of the namespace
``vmip_plugin.allocators``. It keeps no state and asks nobody: the same
question has the same answer in every process, which is what makes an address
predictable.
"""

import abc
import datetime
import hashlib
from typing import ClassVar

#: Keys are 0 ... MAX_KEY (a signed 64-bit column).
MAX_KEY = 2**63 - 1


class Allocator(abc.ABC):
    """Base of the allocators."""

    #: The server that had an address last gets it again, if it is free.
    remembers: ClassVar[bool] = False

    @abc.abstractmethod
    def order(self, pool_id: str, index: int, size: int) -> int:
        """Return which address comes into use as the ``index``-th.

        :param index: 0 ... ``size`` - 1.
        :param size: how many addresses the pool has.
        :returns: its place in the pool's ranges, from 0; each just once.
        """

    @abc.abstractmethod
    def key(self, pool_id: str, position: int) -> int:
        """Return the pick key of an address that was never used.

        :param position: its place in the pool's ranges, counted from 0.
        """

    @abc.abstractmethod
    def start(self, project_id: str, server_name: str) -> int:
        """Return the pick key from which the search for this server starts."""

    def freed_key(self, key: int, at: datetime.datetime) -> int:
        """Return the pick key of an address whose holder is gone.

        :param key: the one it had till then.
        :param at: when it was given back.
        """
        return key

    def freed_keys(self, before: datetime.datetime) -> tuple[int, int] | None:
        """Return the pick keys of addresses freed before a moment.

        For an allocator under which addresses that were used come after all
        that were not, so that one row more is needed for each server.

        :returns: the first of these keys and the first after them; None: an
            address that was freed is taken again before others are.
        """
        return None

    def fresh_first(self, index: int, key: int) -> bool:
        """Tell whether a never used address goes before a free one.

        :param index: how many addresses were ever used.
        :param key: pick key of the first free one.
        """
        return index < key


def digest(*words: object) -> int:
    """Return a key that follows from these words and looks like chance."""
    text = '\0'.join(map(str, words)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
