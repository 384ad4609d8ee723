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

"""Brings the DHCP servers to what the list wants.

The list holds the intent, written before anything is done. A worker takes
what is not done yet, does it, and marks it done. Any number of workers in any
number of processes may do the same work: every step may be repeated, and a
step that was overtaken by a newer intent is noticed when it is marked.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import operator
from typing import Protocol

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.dhcp import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records
from vmip_plugin import types

LOG = logging.getLogger(__name__)

#: Tries after which a port that Neutron still has counts as not deleted.
KEEP_AFTER = 10
#: Longest time in seconds between two looks whether a lease is gone.
LEASE_WAIT = 15.0


class Agents(Protocol):
    """Whoever can end a lease on the wire (vmip_plugin.agent.rpc)."""

    def release_lease(self, address: str, mac: str, server_id: str | None,
                      port_id: str | None, dhcp_server: str | None) -> None:
        """Ask every agent to look after a lease; they decide themselves."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where a DHCP server is not as the list wants it.

    :param wanted: the MAC that has to have the address; None: nobody.
    :param found: the entry that the server has, None where it has none.
    """

    address: types.Address
    wanted: str | None
    found: base.HostEntry | None


def differences(inventory: api.Inventory, driver: base.DHCPDriver
                ) -> list[Difference]:
    """Compare a server with the list, in both directions.

    :raises DHCPServerUnavailable: its entries cannot be read.
    :raises InventoryUnavailable: the list cannot be read.
    """
    # The server first: an intent is in the list before it is on the server,
    # so that what is found here without one is really nobody's.
    found = {entry.address: entry for entry in driver.entries()}
    wanted = inventory.expected(driver.name)
    return [
        Difference(address, wanted.get(address), found.get(address))
        for address in sorted(wanted.keys() | found.keys(),
                              key=lambda a: (a.version, int(a)))
        if (entry := found.get(address)) is None
        or entry.mac != wanted.get(address)]


class Worker:
    """Does what is to do on the DHCP servers.

    :param drivers: the driver of each server of ``[dhcp] servers``.
    :param agents: None where there are none.
    """

    def __init__(self, conf: cfg.ConfigOpts, inventory: api.Inventory,
                 drivers: Mapping[str, base.DHCPDriver],
                 cloud: vmip_cloud.Cloud, agents: Agents | None) -> None:
        self._conf = conf
        self._inventory = inventory
        self._drivers = drivers
        self._cloud = cloud
        self._agents = agents

    def run(self, port_ids: Sequence[str] | None = None) -> int:
        """Do what is due.

        :param port_ids: what these ports need, due or not.
        :returns: how many entries are as they should be now.
        :raises InventoryUnavailable: the list cannot be read.
        """
        by_server = operator.attrgetter('server')
        work = sorted(self._inventory.work(port_ids=port_ids), key=by_server)
        return sum(self._serve(server, list(items))
                   for server, items in itertools.groupby(work, by_server))

    def mend(self) -> int:
        """Have differences between the servers and the list mended.

        What a server has and nobody wants, such as a write that was overtaken
        by a kill, is removed; what it lost is written again. Entries without
        our mark are not looked at.

        :returns: how many there were.
        """
        count = 0
        for name, driver in self._drivers.items():
            try:
                found = differences(self._inventory, driver)
                stray = [d.found for d in found if d.found is not None
                         and not self._inventory.wants(
                             name, d.address, d.found.mac)]
                if stray:
                    driver.remove(stray)
            except exceptions.DHCPError as exc:
                LOG.warning('DHCP server %s: %s', name, exc)
                continue
            lost = [d.address for d in found if d.wanted is not None]
            if found:
                LOG.warning('DHCP server %s: %d host entries were wanted by '
                            'nobody, %d had to be written again', name,
                            len(stray), len(lost))
                self._inventory.redo(name, lost, only_done=True)
            count += len(found)
        return count

    def _serve(self, server: str, work: list[records.Work]) -> int:
        driver = self._drivers.get(server)
        if driver is None:
            for item in work:
                self._failed(item, f'[dhcp] servers does not name {server}')
            return 0
        try:
            # What has to go goes first: a new holder may be waiting for it.
            leases = self._leases(driver)
            return (self._remove(driver, [w for w in work if not w.present],
                                 leases)
                    + self._put(driver, [w for w in work if w.present],
                                leases))
        except exceptions.DHCPError as exc:
            LOG.warning('DHCP server %s: %s', server, exc)
            error = str(exc)
        except exceptions.VmipError:
            raise
        except Exception as exc:
            # One driver's fault must not keep the other servers waiting.
            LOG.exception('DHCP server %s', server)
            error = f'{type(exc).__name__}: see the log'
        for item in work:
            self._failed(item, error)
        return 0

    def _put(self, driver: base.DHCPDriver, work: list[records.Work],
             leases: Mapping[types.Address, base.Lease]) -> int:
        entries = {}
        for item in work:
            lease = leases.get(item.address)
            if lease is not None and lease.mac not in (None, item.mac):
                # The server would keep the address for the one who has the
                # lease, and give the new holder nothing.
                self._end_lease(driver, item, lease)
            else:
                entries[_entry(item)] = item
        if not entries:
            return 0
        failures = driver.put(list(entries))
        for entry, item in entries.items():
            if entry in failures:
                self._failed(item, str(failures[entry]))
            elif not self._inventory.work_done(item):
                self._overtaken(driver, entry, item)
        LOG.info('DHCP server %s has %d more host entries', driver.name,
                 len(entries) - len(failures))
        return len(entries) - len(failures)

    def _remove(self, driver: base.DHCPDriver, work: list[records.Work],
                leases: Mapping[types.Address, base.Lease]) -> int:
        entries = {_entry(item): item for item in work if self._is_gone(item)}
        if not entries:
            return 0
        failures = driver.remove(list(entries))
        done = 0
        for entry, item in entries.items():
            lease = leases.get(entry.address)
            if entry in failures:
                self._failed(item, str(failures[entry]))
            elif lease is not None and lease.mac in (None, entry.mac):
                self._end_lease(driver, item, lease)
            elif self._inventory.work_done(item):
                done += 1
        return done

    def _is_gone(self, item: records.Work) -> bool:
        """Ask Neutron whether a released address's port is really gone."""
        if not item.port_id:
            return True
        try:
            port = self._cloud.port(item.port_id)
        except exceptions.CloudUnavailable as exc:
            self._failed(item, str(exc))
            return False
        if port is None or item.address not in {
                address for _, address in port.addresses}:
            return True
        if item.attempts >= KEEP_AFTER:
            LOG.warning('Port %s still has %s: its release is taken back',
                        item.port_id, item.address)
            self._inventory.keep(item)
        else:
            self._inventory.work_failed(
                item, 'Neutron still has the port', delay=2)
        return False

    def _leases(self, driver: base.DHCPDriver
                ) -> dict[types.Address, base.Lease]:
        if base.Capability.LEASE_LIST not in driver.capabilities:
            return {}
        return {lease.address: lease for lease in driver.leases()}

    def _end_lease(self, driver: base.DHCPDriver, item: records.Work,
                   lease: base.Lease) -> None:
        """Have a lease ended that stands in the way; look again soon."""
        whose = lease.mac or item.mac
        ours = whose == item.mac
        error = f'{whose} still has a lease of {item.address}'
        if ours and base.Capability.LEASE_RELEASE in driver.capabilities:
            try:
                driver.release(lease)
                delay = 0.0
            except exceptions.DHCPError as exc:
                self._failed(item, str(exc))
                return
        else:
            holder: records.Work | records.Change | None = item
            if not ours:
                # Only the agent can find out whether its owner is gone.
                holder = self._inventory.last_holder(item.address, whose)
            if holder is None or not (holder.server_id or holder.port_id):
                error += ', and the list knows no server that had it'
            else:
                self._hint(driver, item.address, whose, holder)
            delay = min(1.0 + item.attempts / 2, LEASE_WAIT)
        self._inventory.work_failed(item, error, delay)

    def _hint(self, driver: base.DHCPDriver, address: types.Address,
              mac: str, holder: records.Work | records.Change) -> None:
        if self._agents is None:
            return
        try:
            self._agents.release_lease(
                str(address), mac, holder.server_id, holder.port_id,
                str(driver.server_id) if driver.server_id else None)
        except Exception as exc:
            # It is but a hint, and comes again with the next try.
            LOG.warning('The agents cannot be told of the lease of %s: %s',
                        address, exc)

    def _overtaken(self, driver: base.DHCPDriver, entry: base.HostEntry,
                   item: records.Work) -> None:
        """Undo a write that was no longer wanted when it was done."""
        if not self._inventory.wants(item.server, entry.address, entry.mac):
            driver.remove([entry])
        self._inventory.redo(item.server, [entry.address])

    def _failed(self, item: records.Work, error: str) -> None:
        options = self._conf.dhcp
        delay = min(options.retry_min * 2.0 ** min(item.attempts, 20),
                    options.retry_max)
        LOG.warning('Host entry %s on DHCP server %s: %s; next try in %d s',
                    item.address, item.server, error, delay)
        self._inventory.work_failed(item, error, delay)


def _entry(item: records.Work) -> base.HostEntry:
    return base.HostEntry(item.mac, item.address, item.hostname)
