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

"""The address that the server had before."""

import datetime

from vmip_plugin.allocation import base
from vmip_plugin.allocation import sequential

#: Keys of addresses that were used come after those of all others.
_USED = 2**62
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class StickyAllocator(sequential.SequentialAllocator):
    """Give a project's server of the same name its old address again.

    A new name gets the lowest address that nobody had yet and, when there is
    none left, the one that has been free for longest: so what a server had
    stays free for it for as long as can be.
    """

    remembers = True

    def key(self, pool_id: str, position: int) -> int:
        return min(position, _USED - 1)

    def freed_keys(self, before: datetime.datetime) -> tuple[int, int]:
        return _USED, self.freed_key(0, before)

    def freed_key(self, key: int, at: datetime.datetime) -> int:
        return min(_USED + (at - _EPOCH) // datetime.timedelta(microseconds=1),
                   base.MAX_KEY)
