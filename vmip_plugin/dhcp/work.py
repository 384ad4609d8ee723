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

import collections
from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Mapping, Sequence
from concurrent import futures
import dataclasses
import datetime
import functools
import itertools
import math
import operator
import threading
from typing import Protocol
from typing import TypeVar

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import breaker
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin import metrics
from vmip_plugin import types

LOG = logging.getLogger(__name__)

T = TypeVar('T')
WaitingFor = states.WaitingFor
_Job = futures.Future[int | None]

#: Seconds after which a port that Neutron still has counts as not deleted.
KEEP_AFTER = 20.0
#: Seconds between two looks at a port that Neutron still has.
PORT_WAIT = 2.0
#: Longest time in seconds between two looks whether a lease is gone.
LEASE_WAIT = 15.0
#: The same of an address that answers although its holder is gone.
WIRE_WAIT = 60.0
#: Seconds between two tries of what waits for a DHCP server or for the cloud,
#: where nobody else notices that they are back.
PARTY_WAIT = 5.0
#: Seconds that the agents have to find out whether addresses answer.
PROBE_TIMEOUT = 2.0
#: Seconds that a daemon waits for a server before it goes on without it.
PATIENCE = 1.0
#: Most entries that a server is given, or asked about, at once.
BATCH = 500
#: Times that a server is compared and amended, as the list goes on changing.
ROUNDS = 3
#: Most calls of a driver to find the entries that it trips over.
SIFT = 64


class Agents(Protocol):
    """Whoever can ask the wire (vmip_plugin.agent.rpc)."""

    def probe(self, addresses: Sequence[types.Address],
              timeout: float = PROBE_TIMEOUT,
              ) -> Mapping[types.Address, bool | None]:
        """Tell whether addresses answer on the wire (RFC 826, RFC 4861).

        :param timeout: seconds; it takes no longer than that and a little.
        :returns: True: it answered just now; False: an agent that reaches
            its network heard nothing; None: no agent could ask.
        """

    def release_lease(self, address: str, mac: str, server_id: str | None,
                      port_id: str | None, dhcp_server: str | None) -> None:
        """Ask every agent to look after a lease; they decide themselves."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where a DHCP server is not as the list wants it.

    :param wanted: the MAC that has to have the address; None: nobody.
    :param found: the entry that the server has, None where it has none.
    :param pending: the list knows, and a worker is to see to it.
    """

    address: types.Address
    wanted: str | None
    found: base.HostEntry | None
    pending: bool


def differences(inventory: api.Inventory, driver: base.DHCPDriver
                ) -> list[Difference]:
    """Compare a server with the list, in both directions.

    :raises DHCPServerUnavailable: its entries cannot be read.
    :raises InventoryUnavailable: the list cannot be read.
    """
    # The server first: an intent is in the list before it is on the server,
    # so that what is found here without one is really nobody's.
    found = {entry.address: entry for entry in driver.entries()}
    intents = inventory.intents(driver.name)
    return [difference for address in sorted(
        intents.keys() | found.keys(), key=lambda a: (a.version, int(a)))
        if (difference := _difference(address, intents.get(address),
                                      found.get(address)))]


def _difference(address: types.Address, intent: records.Intent | None,
                found: base.HostEntry | None) -> Difference | None:
    has = found.mac if found else None
    wanted = intent.mac if intent and intent.present else None
    if has == wanted:
        return None
    pending = intent is not None and not intent.done and (
        intent.present or intent.mac == has)
    return Difference(address, wanted, found, pending)


class Worker:
    """Does what is to do on the DHCP servers.

    None of them waits for another, and each gets its own work as fast as it
    takes it.

    :param drivers: the driver of each server of ``[dhcp] servers``.
    :param agents: None where there are none.
    """

    def __init__(self, conf: cfg.ConfigOpts, inventory: api.Inventory,
                 drivers: Mapping[str, base.DHCPDriver],
                 cloud: vmip_cloud.Cloud, agents: Agents | None) -> None:
        self._conf = conf
        self._inventory = inventory
        self.drivers = drivers
        self._cloud = cloud
        self._agents = agents
        self._breakers: dict[str, breaker.Breaker] = (
            collections.defaultdict(breaker.Breaker))
        # what was gone on without, and is still at it
        self._late: dict[str, _Job] = {}

    def run(self, port_ids: Sequence[str] | None = None,
            put_only: bool = False, patience: float | None = None) -> int:
        """Do what is due.

        :param port_ids: what these ports need, due or not.
        :param put_only: leave alone what has to go; Neutron is not asked
            then.
        :param patience: longest time in seconds to wait for the servers; a
            slower one goes on by itself. None: as long as they take.
        :returns: how many entries are as they should be now.
        :raises InventoryUnavailable: the list cannot be read.
        """
        if port_ids is None:
            # apart from each other: what is taken back may have to wait for
            # the cloud and the wire, which is nothing to who needs an entry
            return sum(self._each({
                f'{"write" if present else "remove"} {server}':
                functools.partial(self._catch_up, server, present)
                for server, present in self._inventory.due()
                if present or not put_only}, patience))
        by_server = operator.attrgetter('server')
        work = sorted((
            item for ids in _batches(list(dict.fromkeys(port_ids)))
            for item in self._inventory.work(
                None, port_ids=ids, present=True if put_only else None)),
            key=by_server)
        return sum(_at_once([
            functools.partial(self._serve_all, server, list(items))
            for server, items in itertools.groupby(work, by_server)],
            patience))

    def is_down(self, server: str) -> bool:
        """Tell whether a server is known to be down, and no probe is due.

        What this process knows; :meth:`run` would not try it now.
        """
        known = self._breakers[server]
        return known.is_open and not known.is_probe_due

    def is_suspect(self, server: str) -> bool:
        """Tell whether a server is known to be down, probe due or not."""
        return self._breakers[server].is_open

    def note_down(self, server: str, began: float) -> None:
        """Note that a server did not do in time what was asked of it.

        :param began: when it was asked, as :func:`breaker.now` tells it.
        """
        self._breakers[server].failed(began)

    def mend(self, patience: float | None = None) -> int:
        """Have differences between the servers and the list mended.

        What a server has and nobody wants, such as a write that was overtaken
        by a kill, is removed; what it lost is written again. What the list
        knows of already is left to :meth:`run`; entries without our mark are
        not looked at.

        :param patience: as for :meth:`run`.
        :returns: how many there were.
        """
        return sum(self._each({
            f'mend {name}': functools.partial(self._mend, driver)
            for name, driver in self.drivers.items()}, patience))

    def sync(self, server: str,
             progress: Callable[[int, int], None] = lambda done, of: None,
             ) -> dict[Difference, str]:
        """Bring one server to what the list wants, and wait for that.

        Also what is to do later is done now.

        :param progress: told how many entries of how many were tried.
        :returns: each difference that there was and why it still is there,
            '' where it is not.
        :raises DHCPServerUnavailable: its entries cannot be read.
        """
        driver = self.drivers[server]
        result: dict[Difference, str] = {}
        for _ in range(ROUNDS):
            found = differences(self._inventory, driver)
            errors = self._amend(driver, found)
            self._inventory.hurry(server)
            usable = self._do_all(server, len(found), progress)
            left = differences(self._inventory, driver)
            for entry in self._inventory.entries(pending=True):
                if entry.server == server and entry.error:
                    errors[entry.address] = entry.error
                elif entry.server == server and usable and not entry.present:
                    errors[entry.address] = (
                        'another server has to have it first: see '
                        '"vmip-manage dhcp list --pending"')
            result |= dict.fromkeys(found, '')
            result |= {d: errors.get(d.address, 'not tried: try again when '
                                     'the server is well') for d in left}
            if not usable or all(d.address in errors for d in left):
                break
        return result

    def _do_all(self, server: str, expected: int,
                progress: Callable[[int, int], None]) -> bool:
        """Try all that is due on a server once.

        :returns: False where the server could not be used any more.
        """
        seen: set[int] = set()
        while new := [item for item in self._inventory.work(
                BATCH, server=server) if item.id not in seen]:
            progress(len(seen), max(expected, len(seen) + len(new)))
            seen.update(item.id for item in new)
            if self._serve(server, new) is None:
                return False
        progress(len(seen), len(seen))
        return True

    def _mend(self, driver: base.DHCPDriver) -> int:
        try:
            found = [d for d in differences(self._inventory, driver)
                     if not d.pending]
            strays = sum(d.wanted is None for d in found)
            for kind, count in (('stray', strays),
                                ('lost', len(found) - strays)):
                metrics.DRIFT.labels(driver.name, kind).set(count)
            metrics.DRIFT_CHECKED.labels(driver.name).set_to_current_time()
            if found:
                LOG.warning('DHCP server %s: %d host entries are wanted by '
                            'nobody, %d are lost and will be written again',
                            driver.name, strays, len(found) - strays)
            for error in self._amend(driver, found).values():
                LOG.warning('DHCP server %s: %s', driver.name, error)
            return len(found)
        except exceptions.DHCPError as exc:
            LOG.warning('DHCP server %s: %s', driver.name, exc)
        return 0

    def _amend(self, driver: base.DHCPDriver, found: Iterable[Difference],
               ) -> dict[types.Address, str]:
        """Remove what nobody wants; note as work what has to be written.

        :returns: why some could not be removed.
        """
        # what a call owes that was cut off is due with the next one
        driver.put([])
        news = [d for d in found if not d.pending]
        errors: dict[types.Address, str] = {}
        for batch in _batches([d.found for d in news
                               if d.found and d.wanted is None]):
            failures = self._sift(driver.remove, batch)
            errors.update((entry.address, str(error))
                          for entry, error in failures.items())
            self._wanted_again(driver, batch)
        for lost in _batches([d.address for d in news if d.wanted]):
            self._inventory.redo(driver.name, lost, only_done=True)
        return errors

    def _wanted_again(self, driver: base.DHCPDriver,
                      removed: Sequence[base.HostEntry]) -> None:
        """Have those written anew that were wanted since the list was read.

        A port may get an address back that it has just given up: the same
        MAC, written already and noted as done by the time it is removed.
        """
        intents = self._inventory.intents(
            driver.name, [entry.address for entry in removed])
        if again := [entry.address for entry in removed
                     if (intent := intents.get(entry.address))
                     and intent.present and intent.mac == entry.mac]:
            self._inventory.redo(driver.name, again)

    def _each(self, jobs: Mapping[str, Callable[[], int]],
              patience: float | None) -> list[int]:
        """Do jobs that come again, but none that is still being done."""
        ready = {name: job for name, job in jobs.items()
                 if name not in self._late or self._late[name].done()}
        return _at_once(
            ready.values(), patience, lambda begun: self._late.update(
                zip(ready, begun, strict=True)))

    def _catch_up(self, server: str, present: bool) -> int:
        """Do all that is due on a server, as long as it gets on.

        :param present: what has to be there, or what has to go.
        """
        count = 0
        if not self._breakers[server].allow():
            return 0
        while work := self._inventory.work(BATCH, server=server,
                                           present=present):
            done = self._serve(server, work)
            count += done or 0
            if not done or len(work) < BATCH:
                break
        return count

    def _serve_all(self, server: str, work: Sequence[records.Work]) -> int:
        """Do work on one server, however much it is."""
        if not self._breakers[server].allow():
            for batch in _batches(work):
                self._defer(batch, WaitingFor.DHCP_SERVER,
                            'the DHCP server could not be used just before')
            return 0
        count = 0
        for batch in _batches(work):
            done = self._serve(server, batch)
            if done is None:
                # the rest is still to be done, and due in its time
                break
            count += done
        return count

    def _serve(self, server: str, work: Sequence[records.Work],
               ) -> int | None:
        """Do work on one server.

        :returns: how much of it is done; None where the server as a whole
            cannot be used.
        """
        driver = self.drivers.get(server)
        began = breaker.now()
        if driver is None:
            self._unavailable(server, work,
                              f'[dhcp] servers does not name {server}', began)
            return None
        try:
            # What a guest waits for goes first. A former entry of its MAC or
            # address is out of the way by itself (DHCPDriver.put).
            return (self._put(driver, [w for w in work if w.present])
                    + self._remove(driver, [w for w in work if not w.present]))
        except exceptions.DHCPError as exc:
            self._unavailable(server, work, str(exc), began)
        except exceptions.VmipError:
            raise
        except Exception as exc:
            # One driver's fault must not keep the other servers waiting.
            LOG.exception('DHCP server %s', server)
            self._unavailable(server, work,
                              f'{type(exc).__name__}: see the log', began)
        return None

    def _put(self, driver: base.DHCPDriver, work: Sequence[records.Work],
             ) -> int:
        # The server would keep the address for another who has the lease,
        # and give the new holder nothing.
        entries = {_entry(item): item for item in self._without_leases(
            driver, work, lambda item, mac: mac not in (None, item.mac))}
        if not entries:
            if work:
                self._used(driver.name, [], {})
            return 0
        failures = self._sift(driver.put, list(entries))
        now = clock.now()
        self._failed_some(driver.name, entries, failures)
        done = [item for entry, item in entries.items()
                if entry not in failures]
        for item in self._inventory.work_done_all(done):
            self._overtaken(driver, _entry(item), item)
        self._used(driver.name, done, failures)
        _count(driver, 'write', len(done))
        _time(driver, done, now)
        LOG.info('DHCP server %s has %d more host entries', driver.name,
                 len(entries) - len(failures))
        return len(entries) - len(failures)

    def _remove(self, driver: base.DHCPDriver, work: Sequence[records.Work],
                ) -> int:
        entries = {_entry(item): item for item in self._gone(work)}
        if not entries:
            return 0
        failures = self._sift(driver.remove, list(entries))
        self._failed_some(driver.name, entries, failures)
        removed = [item for entry, item in entries.items()
                   if entry not in failures]
        self._used(driver.name, removed, failures)
        self._wanted_again(driver, [entry for entry in entries
                                    if entry not in failures])
        done = self._without_leases(
            driver, removed, lambda item, mac: (
                not item.withdrawn and mac in (None, item.mac)))
        _count(driver, 'remove', len(done))
        return len(done) - len(self._inventory.work_done_all(done))

    def _sift(self, call: Callable[[Sequence[base.HostEntry]], base.Failures],
              entries: Sequence[base.HostEntry]) -> base.Failures:
        """Call a driver, and once more without what it trips over."""
        calls = itertools.count(1)

        def sift(some: Sequence[base.HostEntry]) -> base.Failures:
            try:
                return call(some)
            except exceptions.DHCPServerUnavailable:
                raise
            except exceptions.DHCPError as exc:
                error = exc
            except exceptions.VmipError:
                raise
            except Exception as exc:
                LOG.exception('A DHCP driver failed')
                error = exceptions.DHCPError(
                    f'{type(exc).__name__}: see the log')
            if len(some) == 1 or next(calls) > SIFT:
                return dict.fromkeys(some, error)
            half = len(some) // 2
            return sift(some[:half]) | sift(some[half:])

        return sift(entries)

    def _gone(self, work: Sequence[records.Work]) -> list[records.Work]:
        """Ask Neutron which released addresses' ports are really gone."""
        asked = [item for item in work if item.port_id
                 # Neutron itself gave the address back
                 and item.evidence is not states.Evidence.COMMITTED]
        port_ids = sorted({item.port_id for item in asked if item.port_id})
        try:
            there = ({(port.id, address)
                      for port in self._cloud.these_ports(port_ids)
                      for _, address in port.addresses}
                     if port_ids else set())
        except exceptions.CloudUnavailable as exc:
            LOG.warning('%d released addresses have to wait: %s',
                        len(asked), exc)
            self._defer(asked, WaitingFor.CLOUD, str(exc))
            return [item for item in work if item not in asked]
        if any(item.waiting_for is WaitingFor.CLOUD for item in asked):
            self._inventory.expedite(WaitingFor.CLOUD)
        gone = []
        for item in work:
            if item not in asked or (item.port_id, item.address) not in there:
                gone.append(item)
            elif _waited(item, WaitingFor.PORT) >= KEEP_AFTER:
                LOG.warning('Port %s still has %s: its release is taken back',
                            item.port_id, item.address)
                self._inventory.keep(item)
            else:
                self._inventory.wait(
                    [item], WaitingFor.PORT, 'Neutron still has the port',
                    PORT_WAIT)
        return gone

    def _without_leases(
            self, driver: base.DHCPDriver, work: Sequence[records.Work],
            in_the_way: Callable[[records.Work, str | None], bool],
    ) -> list[records.Work]:
        """Have the leases ended that are in the way.

        The wire is asked before one is ended by the server's own control
        channel, and before an address is free: whoever answers there keeps
        it.

        :param in_the_way: tells whether the lease of such a MAC is.
        :returns: the work that none is in the way of; the rest waits.
        """
        addresses = {item.address for item in work}
        can_list = base.Capability.LEASE_LIST in driver.capabilities

        def find() -> dict[records.Work, base.Lease]:
            leases = {lease.address: lease
                      for lease in driver.leases_of(addresses)
                      } if can_list and addresses else {}
            return {item: lease for item in work
                    if (lease := leases.get(item.address))
                    and in_the_way(item, lease.mac)}

        found = find()
        over = {item: lease for item, lease in found.items()
                if self._is_over(item, lease)
                } if base.Capability.LEASE_RELEASE in driver.capabilities \
            else {}
        refused = self._answering([
            item for item in work if item in over
            or item.releasing and not item.withdrawn and item not in found])
        over = {item: lease for item, lease in over.items()
                if item not in refused}
        if over:
            for item, lease in over.items():
                count = metrics.LEASE_RELEASES.labels
                reason = ('the next holder waits' if item.present
                          else 'port deleted')
                try:
                    driver.release(lease)
                    count(reason, metrics.DONE).inc()
                except exceptions.DHCPServerUnavailable:
                    raise
                except exceptions.DHCPError as exc:
                    count(reason, metrics.FAILED).inc()
                    refused.add(item)
                    self._failed(item, str(exc), port_gone=not item.present)
            # that it is over is looked at, not believed
            found = find()
        for item, lease in found.items():
            if item not in refused:
                self._wait_for_agents(driver, item, lease)
        return [item for item in work
                if item not in found and item not in refused]

    def _answering(self, work: Sequence[records.Work]) -> set[records.Work]:
        """Return what has to wait because its address answers on the wire.

        Whatever says that the holder is gone, somebody uses the address. Of
        what no agent can ask, nothing is known: that goes on.
        """
        if self._agents is None:
            # nothing is known but what the last look has found
            return {item for item in work
                    if item.waiting_for is WaitingFor.WIRE}
        if not work:
            return set()
        answers = self._agents.probe(
            sorted({item.address for item in work},
                   key=lambda a: (a.version, int(a))), PROBE_TIMEOUT)
        answering = [item for item in work if answers.get(item.address)]
        self._inventory.note_answers(answering, [
            item for item in work if answers.get(item.address) is False])
        for item in answering:
            LOG.log(logging.DEBUG if item.waiting_for is WaitingFor.WIRE
                    else logging.WARNING,
                    '%s answers on the wire although its holder is gone: '
                    'it is given to nobody', item.address)
            self._inventory.wait(
                [item], WaitingFor.WIRE,
                f'{item.address} answers on the wire although its holder is '
                'gone', _pause(item, WaitingFor.WIRE, WIRE_WAIT),
                port_gone=item.releasing)
        return set(answering)

    def _is_over(self, item: records.Work, lease: base.Lease) -> bool:
        """Tell whether the list proves that a lease's owner is gone."""
        if not item.present:
            # Neutron has just said so of the only one it can be in the way of
            return True
        return lease.mac is not None and self._inventory.has_lost(
            item.pool_id, item.address, lease.mac)

    def _wait_for_agents(self, driver: base.DHCPDriver, item: records.Work,
                         lease: base.Lease) -> None:
        """Ask the agents to end a lease; look again soon.

        Only they can find out whether its owner is gone.
        """
        whose = lease.mac or item.mac
        error = f'{whose} still has a lease of {item.address}'
        # the address may be another's by now
        holder: records.Work | records.Change | None = (
            self._inventory.last_holder(item.address, whose))
        if holder is None and whose == item.mac:
            holder = item
        if holder is None or not (holder.server_id or holder.port_id):
            error += (', and the list knows no server that had it: end it on '
                      'the DHCP server, if it is nobody\'s')
        else:
            self._hint(driver, item.address, whose, holder)
        self._inventory.wait(
            [item], WaitingFor.LEASE, error,
            _pause(item, WaitingFor.LEASE, LEASE_WAIT),
            port_gone=not item.present)

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

    def _used(self, server: str, done: Collection[records.Work],
              failures: base.Failures) -> None:
        """Note that a server could be used; what waits for that is due."""
        if not done and failures and all(
                isinstance(error, exceptions.DHCPServerUnavailable)
                for error in failures.values()):
            return
        if self._breakers[server].succeeded() or any(
                item.waiting_for is WaitingFor.DHCP_SERVER for item in done):
            LOG.info('DHCP server %s can be used again', server)
            self._inventory.expedite(WaitingFor.DHCP_SERVER, server)

    def _failed_some(self, server: str,
                     entries: Mapping[base.HostEntry, records.Work],
                     failures: base.Failures) -> None:
        """Note what a driver could not do, and why."""
        away: dict[str, list[records.Work]] = {}
        for entry, error in failures.items():
            if isinstance(error, exceptions.DHCPServerUnavailable):
                away.setdefault(str(error), []).append(entries[entry])
            else:
                self._failed(entries[entry], str(error))
        for text, items in away.items():
            self._unavailable(server, items, text)

    def _failed(self, item: records.Work, error: str,
                port_gone: bool = False) -> None:
        _failures(item.server, [item])
        delay = self._delay(item.attempts)
        LOG.warning('Host entry %s on DHCP server %s: %s; next try in %d s',
                    item.address, item.server, error, delay)
        self._inventory.work_failed(item, error, delay, port_gone=port_gone)

    def _unavailable(self, server: str, work: Sequence[records.Work],
                     error: str, began: float | None = None) -> None:
        """Have work wait for a server.

        :param began: when the call began that showed that the server as a
            whole cannot be used; None: it can do other work.
        """
        _failures(server, work)
        # it is tried every few seconds
        LOG.log(logging.DEBUG if self._breakers[server].is_open
                else logging.WARNING,
                'DHCP server %s: %s; %d host entries have to wait',
                server, error, len(work))
        if began is not None:
            self._breakers[server].failed(began)
        self._defer(work, WaitingFor.DHCP_SERVER, error)

    def _defer(self, work: Sequence[records.Work], waiting_for: WaitingFor,
               error: str) -> None:
        """Have work wait for a party that is away."""
        if work:
            self._inventory.wait(work, waiting_for, error, min(
                _pause(item, waiting_for, PARTY_WAIT) for item in work))

    def _delay(self, attempts: int) -> float:
        options = self._conf.dhcp
        return float(min(options.retry_min * 2.0 ** min(attempts, 20),
                         options.retry_max))


def _failures(server: str, work: Iterable[records.Work]) -> None:
    for item in work:
        metrics.ENTRY_WRITES.labels(
            server, 'write' if item.present else 'remove',
            metrics.FAILED).inc()


def _count(driver: base.DHCPDriver, action: str, done: int) -> None:
    metrics.ENTRY_WRITES.labels(driver.name, action, metrics.DONE).inc(done)


def _time(driver: base.DHCPDriver, done: Iterable[records.Work],
          now: datetime.datetime) -> None:
    """Note how long it took from the intents to the server."""
    for item in done:
        if item.wanted_at is not None:
            # the clocks of two hosts may differ
            metrics.ENTRY_DELAY.labels(driver.name).observe(
                max(0, (now - item.wanted_at).total_seconds()))


def _entry(item: records.Work) -> base.HostEntry:
    return base.HostEntry(item.mac, item.address, item.hostname)


def _waited(item: records.Work, waiting_for: WaitingFor) -> float:
    """Return for how many seconds this is what an entry has waited for."""
    if item.waiting_for is not waiting_for or item.waiting_since is None:
        return 0.0
    # the clocks of two hosts may differ
    return max(0.0, (clock.now() - item.waiting_since).total_seconds())


def _pause(item: records.Work, waiting_for: WaitingFor, longest: float,
           ) -> float:
    """Return the seconds until the next look: 1 first, then ever more."""
    return min(1.0 + math.sqrt(_waited(item, waiting_for)), longest)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH):
        yield items[start:start + BATCH]


def _at_once(jobs: Iterable[Callable[[], int | None]], patience: float | None,
             note: Callable[[list[_Job]], None] | None = None) -> list[int]:
    """Do jobs side by side; return what those returned that were in time.

    What one raises that was not in time is logged, as nobody else will know.

    :param note: told of all of them as soon as they have begun.
    :raises Exception: what one of those raised.
    """
    jobs = list(jobs)
    if len(jobs) == 1 and patience is None:
        return [jobs[0]() or 0]
    begun = [_begin(job) for job in jobs]
    if note is not None:
        note(begun)
    in_time, late = futures.wait(begun, patience)
    for job in late:
        job.add_done_callback(_log_error)
    errors = [job for job in begun if job in in_time and job.exception()]
    # the caller gets the first
    for job in errors[1:]:
        _log_error(job)
    return [job.result() or 0 for job in begun if job in in_time]


def _log_error(job: _Job) -> None:
    match job.exception():
        case None:
            pass
        case exceptions.VmipError() as exc:
            LOG.warning('Work on a DHCP server will be tried again: %s', exc)
        case exc:
            LOG.error('Work on a DHCP server failed', exc_info=exc)


def _begin(job: Callable[[], int | None]) -> _Job:
    # not an executor's: the end of the program would wait for its threads
    future: _Job = futures.Future()

    def run() -> None:
        try:
            future.set_result(job())
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return future
