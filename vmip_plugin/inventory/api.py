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

"""The list of every address and its holder.

Every public method is one transaction, holds no lock across a network call
and may be called again after any failure. Methods that yield read a page at a
time.
"""

from collections.abc import Sequence

from sqlalchemy import orm

from vmip_plugin.inventory import entries
from vmip_plugin.inventory import history
from vmip_plugin.inventory import holds
from vmip_plugin.inventory import losses
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import ports
from vmip_plugin.inventory import questions
from vmip_plugin.inventory import ranges as vmip_ranges
from vmip_plugin.inventory import records
from vmip_plugin.inventory import requests
from vmip_plugin.inventory import runs
from vmip_plugin.inventory import transactions


class Inventory(requests.Requests, ports.Ports, entries.Entries, holds.Holds,
                questions.Questions, history.History, runs.Runs,
                losses.Losses):
    """The list: pools here, the rest in its parts."""

    @transactions.write
    def create_pool(self, session: orm.Session, *, name: str,
                    network_id: str, subnet_id: str, cidr: str,
                    ranges: Sequence[vmip_ranges.Run],
                    allocator: str = 'sequential', reuse_delay: int = 0,
                    dhcp_servers: Sequence[str] = (),
                    adopt: Sequence[records.InUse] = (),
                    ) -> records.Pool:
        """Make a pool; see :func:`vmip_plugin.inventory.pools.create`.

        :param adopt: addresses in use already; those outside the ranges are
            left out.
        """
        pool = pools.create(
            session, name=name, network_id=network_id, subnet_id=subnet_id,
            cidr=cidr, ranges=ranges, allocator_name=allocator,
            reuse_delay=reuse_delay, dhcp_servers=dhcp_servers)
        pools.adopt(session, pool, adopt)
        self._known.note(network_id, subnet_id)
        return pools.record(session, pool)

    @transactions.write
    def change_pool(self, session: orm.Session, name: str, *,
                    ranges: Sequence[vmip_ranges.Run] | None = None,
                    allocator: str | None = None,
                    reuse_delay: int | None = None,
                    dhcp_servers: Sequence[str] | None = None,
                    adopt: Sequence[records.InUse] = (),
                    ) -> records.Pool:
        """Change a pool; see :func:`vmip_plugin.inventory.pools.change`.

        :param adopt: addresses in use already that come into the ranges.
        """
        pool = pools.find(session, name)
        pools.change(session, pool, ranges=ranges, allocator_name=allocator,
                     reuse_delay=reuse_delay, dhcp_servers=dhcp_servers)
        pools.adopt(session, pool, adopt)
        return pools.record(session, pool)

    @transactions.write
    def delete_pool(self, session: orm.Session, name: str) -> None:
        """Delete a pool that nobody uses.

        :raises PoolNotFound: there is none.
        :raises PoolInUse: an address of it is held.
        """
        pools.delete(session, pools.find(session, name))
