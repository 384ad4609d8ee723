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

"""The DHCP servers that can be asked: ``[dhcp] servers`` of the agent.

A server is known by its ``server_id``, which is what it calls itself in
option 54. One that only answers on the wire needs no section.
"""

from collections.abc import Mapping, Sequence

from oslo_log import log as logging

from vmip_plugin.agent import lease as lease_
from vmip_plugin.dhcp import base
from vmip_plugin import exceptions

LOG = logging.getLogger(__name__)


class Servers:
    """Asks servers for leases, and ends them by their control channel.

    :param drivers: by the server's name.
    """

    def __init__(self, drivers: Mapping[str, base.DHCPDriver]) -> None:
        self._drivers = {driver.server_id: driver
                         for driver in drivers.values()
                         if driver.server_id is not None
                         and base.Capability.LEASE_LIST
                         in driver.capabilities}
        self._away: set[str] = set()

    def held(self, leases: Sequence[lease_.Lease]
             ) -> dict[lease_.Key, base.Lease | None]:
        """Return what the servers have of these leases.

        None: the server has no lease of that address for that MAC. A lease
        whose server cannot be asked, or does not tell the MAC, is left out.
        """
        found: dict[lease_.Key, base.Lease | None] = {}
        for server_id, driver in self._drivers.items():
            asked = [lease for lease in leases
                     if lease.dhcp_server == server_id]
            if not asked:
                continue
            try:
                told = {one.address: one for one in driver.leases_of(
                    {lease.address for lease in asked})}
            except exceptions.DHCPError as exc:
                self._failed(driver, exc)
                continue
            self._away.discard(driver.name)
            for lease in asked:
                one = told.get(lease.address)
                if one is None or one.mac is not None:
                    found[lease.key] = (
                        one if one and one.mac == lease.mac else None)
        return found

    def end(self, lease: lease_.Lease) -> bool:
        """End a lease that is this MAC's; False: a packet has to do it."""
        assert lease.dhcp_server is not None
        driver = self._drivers.get(lease.dhcp_server)
        if driver is None or (base.Capability.LEASE_RELEASE
                              not in driver.capabilities):
            return False
        # By its address alone another's lease would be ended as well.
        found = self.held([lease]).get(lease.key)
        if found is None:
            return False
        try:
            driver.release(found)
        except exceptions.DHCPError as exc:
            self._failed(driver, exc)
            return False
        return True

    def _failed(self, driver: base.DHCPDriver, exc: Exception) -> None:
        if driver.name not in self._away:
            self._away.add(driver.name)
            LOG.warning('DHCP server %s cannot be asked, so that releases '
                        'are sent to it unverified: %s', driver.name, exc)
