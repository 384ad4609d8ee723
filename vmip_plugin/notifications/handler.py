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

import collections
from collections.abc import Collection, Container, Iterable, Iterator
from collections.abc import Sequence
import contextlib

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin import metrics
from vmip_plugin.notifications import event as vmip_event
from vmip_plugin.openstack import presence

LOG = logging.getLogger(__name__)

Event = vmip_event.Event
Kind = vmip_event.Kind
State = states.State

#: A server with this status runs not yet, or not any more.
_NOT_BUILT = ('BUILD', 'ERROR', *vmip_cloud.GONE)
#: What has a port that may change.
_FOLLOWED = (State.CLAIMED, State.ACTIVE)


class Handler:
    """Turns events into changes of the list and of the DHCP servers."""

    def __init__(self, conf: cfg.ConfigOpts, inventory: api.Inventory,
                 worker: work.Worker, cloud: vmip_cloud.Cloud) -> None:
        self._conf = conf
        self._inventory = inventory
        self._worker = worker
        self._cloud = cloud

    def handle(self, events: Sequence[Event]) -> None:
        """Handle a batch, what is urgent first.

        The order in which events came says nothing anyway. A guest may be
        about to ask for its address; nobody waits for what is given back.

        :raises InventoryUnavailable: give the whole batch again later.
        """
        of = {kind: [event for event in events if event.kind is kind]
              for kind in Kind}
        made = of[Kind.PORT_CREATED] + of[Kind.PORT_UPDATED]
        runs = of[Kind.SERVER_CREATED] + of[Kind.INTERFACE_ATTACHED]
        deleted = of[Kind.SERVER_DELETED]
        failed = of[Kind.SERVER_FAILED] + of[Kind.BUILD_FAILED]
        gone = _port_ids(of[Kind.PORT_DELETED])
        # Most ports and servers of a cloud are in no pool.
        by_port = self._of_ports(gone | _port_ids(made + runs))
        # What is deleted by now would be written only to be removed.
        there = [held for held in by_port if held.port_id not in gone]
        if self._follow(made + runs, there):
            there = self._of_ports(_port_ids(made + runs) - gone)
        # before an address that it had before is finished with
        self._came_later(of[Kind.PORT_UPDATED], there)
        made_ids = _port_ids(made)
        self._work([held for held in there if held.port_id in made_ids])
        by_server = self._of_servers(_server_ids(runs + deleted + failed))
        self._activate(runs, by_server)
        look = presence.Look(self._cloud, self._inventory)
        self._take_back(look, [held for held in by_port
                               if held.port_id in gone], 'port deleted')
        # Neutron mostly tells of a server's ports, too
        self._take_back(look, [held for held in _whose(by_server, deleted)
                               if held.port_id not in gone], 'server deleted')
        self._cancel(look, _whose(by_server, deleted), (presence.DELETED,),
                     'server deleted')
        self._cancel(look, _whose(by_server, failed),
                     ('ERROR', presence.DELETED),
                     'the server could not be built')

    def _of_ports(self, ids: Collection[str]) -> list[records.Address]:
        return self._inventory.of_ports(list(ids)) if ids else []

    def _of_servers(self, ids: Collection[str]) -> list[records.Address]:
        return self._inventory.of_servers(list(ids)) if ids else []

    def _follow(self, events: Iterable[Event],
                addresses: Iterable[records.Address]) -> bool:
        """Note which MAC and which server ports have now.

        What else the IPAM driver knew when it wrote down the claim and its
        host entries. A port that its owner made may be told of late.

        :returns: whether the list was changed.
        """
        told = collections.defaultdict(set)
        for event in events:
            for port in event.ports:
                if port.mac is not None:
                    told[port.port_id].add((port.mac, port.server_id))
        changed = False
        with self._asking('changes of ports'):
            for held in addresses:
                if (held.port_id is None or held.state not in _FOLLOWED
                        or told[held.port_id] <= {(held.mac,
                                                   held.server_id)}):
                    continue
                actual = self._cloud.port(held.port_id)
                if actual is None:
                    continue
                if actual.mac != held.mac:
                    self._inventory.change_mac(held.port_id, actual.mac)
                    changed = True
                if actual.server_id != held.server_id:
                    self._inventory.change_server(held.port_id,
                                                  actual.server_id)
                    changed = True
        return changed

    def _activate(self, events: Iterable[Event],
                  addresses: Iterable[records.Address]) -> None:
        claimed = {held.server_id for held in addresses
                   if held.state is State.CLAIMED}
        running = [
            records.Running(
                event.server_id, event.server_name,
                frozenset(port.mac for port in event.ports if port.mac))
            for event in events
            if event.server_id is not None and event.server_id in claimed]
        if running:
            self._inventory.activate_all(running)

    def _came_later(self, events: Iterable[Event],
                    addresses: Iterable[records.Address]) -> None:
        """Note that a server runs with an address it has not had before.

        Nova tells nothing of an address that was added to a port, and of a
        port that was attached only in its versioned format.
        """
        claimed = {held.port_id for held in addresses
                   if held.state is State.CLAIMED}
        ports = {(port.server_id, port.port_id, port.mac) for event in events
                 for port in event.ports
                 if port.port_id in claimed and port.server_id and port.mac
                 and port.device_owner and port.status == 'ACTIVE'}
        by_server = self._of_servers({server_id for server_id, _, _ in ports
                                      if server_id})
        with self._asking('attached interfaces'):
            for server_id, port_id, mac in sorted(ports, key=str):
                held = [h for h in by_server if h.server_id == server_id]
                # what else it has tells an address that came later from a
                # boot
                before = [h for h in held
                          if h.state in (State.ACTIVE, State.RELEASING)]
                if (server_id and mac and before and any(
                        h.state is State.CLAIMED and h.port_id == port_id
                        for h in held)
                        and self._cloud.server_status(server_id)
                        not in (None, *_NOT_BUILT)):
                    self._inventory.activate(
                        server_id, before[0].server_name, [mac])

    def _take_back(self, look: presence.Look,
                   addresses: Iterable[records.Address], reason: str) -> None:
        """Release addresses whose holders are gone.

        What one look cannot prove is noted, and left to vmip-reclaimer.
        """
        asked = [held for held in self._inventory.held_by_ports(sorted(
            {held.port_id for held in addresses
             if held.port_id is not None and held.state in _FOLLOWED}))
            if held.state in _FOLLOWED]
        if asked:
            with self._asking('deletes'):
                verdicts = look.judge([presence.Holder.of(h) for h in asked])
                gone = [held for held, verdict in zip(
                    asked, verdicts, strict=True) if verdict.certain]
                noted = [held for held, verdict in zip(
                    asked, verdicts, strict=True)
                    if verdict.gone and not verdict.certain]
                gone, kept = self._spare(gone)
                self._inventory.note_gone(
                    [held for held in noted + kept
                     if held.gone_since is None], clock.now())
                count = sum(self._inventory.release(
                    held, reason, presence.Evidence.SERVER_DELETED)
                    for held in gone)
                metrics.RELEASES.labels(reason).inc(count)
        self._work(addresses)

    def _spare(self, gone: Sequence[records.Held],
               ) -> tuple[list[records.Held], list[records.Held]]:
        """Part what may be released from what a blown fuse keeps."""
        if not gone:
            return [], []
        blown = presence.blown(
            self._conf, self._inventory.losses(), collections.Counter(
                held.pool_id for held in gone if held.gone_since is None))
        for loss in blown.values():
            LOG.error('%s', presence.why_blown(loss))
        kept = [held for held in gone if held.pool_id in blown
                and not presence.Holder.of(held).confirmed]
        return [held for held in gone if held not in kept], kept

    def _cancel(self, look: presence.Look,
                addresses: Iterable[records.Address],
                statuses: Container[str], reason: str) -> None:
        """Give up the reservations of servers that will get no port."""
        reserved: dict[str, list[records.Address]] = {}
        for held in addresses:
            if held.state is State.RESERVED and held.server_id is not None:
                reserved.setdefault(held.server_id, []).append(held)
        for server_id, held_by_it in reserved.items():
            # that Nova cannot tell of one says nothing of the next; and what
            # is away is asked but once in this look
            with self._asking('reservations'):
                if look.server_without_port(server_id) in statuses:
                    count = self._inventory.cancel(held_by_it, reason)
                    metrics.RELEASES.labels(reason).inc(count)

    def _work(self, held: Iterable[records.Address]) -> None:
        """Bring the DHCP servers to what the list wants of these."""
        port_ids = sorted({address.port_id for address in held
                           if address.port_id is not None})
        if port_ids:
            self._worker.run(port_ids, patience=work.PATIENCE)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Leave to the reclaimer what the cloud cannot answer.

        It is not asked for the rest of these, either: others would have to
        wait for all its time-outs.
        """
        try:
            yield
        except exceptions.CloudUnavailable as exc:
            LOG.warning('Notifications of %s are left to vmip-reclaimer: %s',
                        what, exc)


def _port_ids(events: Iterable[Event]) -> set[str]:
    return {port.port_id for event in events for port in event.ports
            if port.port_id is not None}


def _server_ids(events: Iterable[Event]) -> set[str]:
    return {event.server_id for event in events
            if event.server_id is not None}


def _whose(addresses: Iterable[records.Address], events: Iterable[Event],
           ) -> list[records.Address]:
    """Return those of the addresses that the events' servers have."""
    ids = _server_ids(events)
    return [held for held in addresses if held.server_id in ids]
