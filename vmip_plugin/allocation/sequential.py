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

"""The lowest free address of the pool."""

from vmip_plugin.allocation import base


class SequentialAllocator(base.Allocator):
    """Pick the lowest free address."""

    def order(self, pool_id: str, index: int, size: int) -> int:
        return index

    def key(self, pool_id: str, position: int) -> int:
        return min(position, base.MAX_KEY)

    def start(self, project_id: str, server_name: str) -> int:
        return 0
