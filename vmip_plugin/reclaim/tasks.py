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

"""What vmip-reclaimer does again and again.

Notifications are a speed-up; this is what makes sure. Each task compares what
the list says with what Nova, Neutron and the DHCP servers say, and may be run
at any time, by any number of processes.
"""

import dataclasses

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records

LOG = logging.getLogger(__name__)

#: Servers in these states may still get their port.
_BUILDING = frozenset({'BUILD'})


@dataclasses.dataclass
class Findings:
    """What one comparison with Neutron found, in addresses."""

    checked: int = 0
    missing: int = 0
    released: int = 0
    spared: int = 0


class Reclaimer:
    """The periodic tasks."""

    def __init__(self, conf: cfg.ConfigOpts, inventory: api.Inventory,
                 worker: work.Worker, cloud: vmip_cloud.Cloud) -> None:
        self._conf = conf
        self._inventory = inventory
        self._worker = worker
        self._cloud = cloud

    def work(self) -> None:
        """Do what is due on the DHCP servers, and end what is over."""
        self._worker.run()
        rested = self._inventory.rest_over()
        if rested:
            LOG.info('%d addresses are free after their reuse delay', rested)
        for reservation in self._inventory.expired():
            self._expire(reservation)

    def _expire(self, reservation: records.Address) -> None:
        if reservation.server_id is not None:
            try:
                status = self._cloud.server_status(reservation.server_id)
            except exceptions.CloudUnavailable as exc:
                LOG.warning('Reservation of %s is kept: %s',
                            reservation.address, exc)
                return
            if status in _BUILDING:
                # A busy cloud may take longer than we think.
                self._inventory.extend(reservation, self._conf.reserve.ttl)
                return
        if self._inventory.expire(reservation, 'no port claimed it in time'):
            LOG.info('Reservation of %s (request %s) is over',
                     reservation.address, reservation.request_id)

    def mend(self) -> None:
        """Mend what the DHCP servers have otherwise than the list."""
        self._worker.mend()

    def check(self) -> Findings:
        """Find the ports whose delete nobody told us of.

        Gone means: not in Neutron's whole list, twice, some time apart, and
        then 404 when asked for by itself.

        :raises CloudUnavailable: Neutron gave no whole list; nothing was
            released because of what was missing in it.
        :raises ConfigError: our credentials do not show all there is.
        """
        if not self._cloud.sees_all_projects():
            raise exceptions.ConfigError(
                'The user of [cloud] has not the role admin, so that ports '
                'of other projects would look deleted: nothing is released')
        options = self._conf.reclaimer
        findings = Findings()
        for network_id in sorted({pool.network_id for pool, _ in
                                  self._inventory.pools()}):
            held = self._inventory.with_port(network_id)
            if not held:
                continue
            # The list first: what is claimed while Neutron answers must not
            # look as if its port were missing.
            ports = {}
            used = set()
            for port in self._cloud.ports(network_id=network_id):
                ports[port.id] = {a for _, a in port.addresses}
                used.update(ports[port.id])
            for address in held:
                findings.checked += 1
                there = (address.address in used if address.port_id is None
                         else address.address in ports.get(
                             address.port_id, ()))
                if there:
                    if address.gone_since is not None:
                        self._inventory.note_gone(address, None)
                    continue
                findings.missing += 1
                if address.gone_since is None:
                    self._inventory.note_gone(address, clock.now())
                elif ((clock.now() - address.gone_since).total_seconds()
                        < options.confirm_delay):
                    continue
                elif options.dry_run:
                    LOG.info('Would release %s: port %s is gone',
                             address.address, address.port_id)
                elif (findings.released >= options.max_releases
                      or not self._surely_gone(address)):
                    findings.spared += 1
                elif self._inventory.release(
                        address, 'Neutron no longer has the port'):
                    findings.released += 1
                    LOG.info('%s is released: port %s is gone',
                             address.address, address.port_id)
        return findings

    def _surely_gone(self, address: records.Address) -> bool:
        if address.port_id is None:
            return True
        port = self._cloud.port(address.port_id)
        return port is None or address.address not in {
            a for _, a in port.addresses}
