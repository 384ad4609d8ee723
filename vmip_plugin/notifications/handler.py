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

"""What a notification changes in the list.

A notification is a hint. Whatever would take an address from its holder is
asked of Nova and Neutron first; where they cannot be asked, vmip-reclaimer
will find it. Everything may be told twice and in any order.
"""

from collections.abc import Iterable, Sequence

from oslo_log import log as logging

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import states
from vmip_plugin.notifications import event as vmip_event

LOG = logging.getLogger(__name__)

Event = vmip_event.Event
Kind = vmip_event.Kind
State = states.State


class Handler:
    """Turns events into changes of the list and of the DHCP servers."""

    def __init__(self, inventory: api.Inventory, worker: work.Worker,
                 cloud: vmip_cloud.Cloud) -> None:
        self._inventory = inventory
        self._worker = worker
        self._cloud = cloud
        self._actions = {
            Kind.PORT_CREATED: self._port_created,
            Kind.PORT_UPDATED: self._port_updated,
            Kind.PORT_DELETED: self._port_deleted,
            Kind.SERVER_CREATED: self._server_created,
            Kind.BUILD_FAILED: self._server_failed,
            Kind.SERVER_FAILED: self._server_failed,
            Kind.SERVER_DELETED: self._server_deleted,
        }

    def handle(self, events: Sequence[Event]) -> None:
        """Handle a batch, in its order.

        :raises InventoryUnavailable: give the whole batch again later.
        """
        ports: dict[str, None] = {}
        for event in events:
            action = self._actions.get(event.kind)
            if action is None:
                continue
            try:
                ports.update(dict.fromkeys(action(event)))
            except exceptions.CloudUnavailable as exc:
                LOG.warning('%s is left to vmip-reclaimer: %s',
                            event.kind.value, exc)
        if ports:
            self._worker.run(list(ports))

    # Each returns the ports whose host entries shall be looked after now.

    def _port_created(self, event: Event) -> Iterable[str]:
        # The IPAM driver wrote down the claim and its host entries. If the
        # port is deleted by now, what they want is that nothing is there.
        return _port_ids(event)

    def _port_updated(self, event: Event) -> Iterable[str]:
        for port in event.ports:
            if port.port_id is None or port.mac is None:
                continue
            for held in self._inventory.of_ports([port.port_id]):
                if held.mac == port.mac:
                    continue
                actual = self._cloud.port(port.port_id)
                if actual is not None and actual.mac != held.mac:
                    self._inventory.change_mac(port.port_id, actual.mac)
        return _port_ids(event)

    def _port_deleted(self, event: Event) -> Iterable[str]:
        self._release_if_gone(_port_ids(event), 'port deleted')
        return _port_ids(event)

    def _server_created(self, event: Event) -> Iterable[str]:
        if event.server_id is not None:
            self._inventory.activate(
                event.server_id, event.server_name,
                [port.mac for port in event.ports if port.mac])
        return ()

    def _server_failed(self, event: Event) -> Iterable[str]:
        self._cancel(event, ('ERROR', *vmip_cloud.GONE),
                     'the server could not be built')
        return ()

    def _server_deleted(self, event: Event) -> Iterable[str]:
        self._cancel(event, vmip_cloud.GONE, 'server deleted')
        ports = [held.port_id
                 for held in self._inventory.of_server(event.server_id or '')
                 if held.port_id is not None]
        self._release_if_gone(ports, 'server deleted')
        return ports

    def _cancel(self, event: Event, statuses: Iterable[str],
                reason: str) -> None:
        """Give up the reservations of a server that will get no port."""
        reserved = [
            held for held in self._inventory.of_server(event.server_id or '')
            if held.state is State.RESERVED]
        if not reserved or event.server_id is None:
            return
        status = self._cloud.server_status(event.server_id)
        if status is None or status in statuses:
            self._inventory.cancel(reserved, reason)

    def _release_if_gone(self, port_ids: Sequence[str], reason: str) -> None:
        for held in self._inventory.of_ports(port_ids):
            if held.state not in (State.CLAIMED, State.ACTIVE):
                continue
            assert held.port_id is not None
            if self._cloud.port(held.port_id) is None:
                self._inventory.release(held, reason)


def _port_ids(event: Event) -> list[str]:
    return [port.port_id for port in event.ports if port.port_id is not None]
