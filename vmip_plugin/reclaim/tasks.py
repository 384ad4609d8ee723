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

from collections.abc import Callable, Collection, Iterable, Iterator
from collections.abc import Sequence
import dataclasses
import datetime
import itertools
import operator
import os
import socket
import threading
from typing import TypeVar

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
from vmip_plugin.openstack import presence
from vmip_plugin.reclaim import compare
from vmip_plugin import types

LOG = logging.getLogger(__name__)

State = states.State
T = TypeVar('T')

#: Servers in these states may still get their port.
_BUILDING = frozenset({'BUILD'})
#: Nova's clock may be behind ours by so much.
OVERLAP = datetime.timedelta(minutes=5)
#: What the first look at Nova's deletes goes back; the rest finds a full pass.
FIRST_LOOK = datetime.timedelta(hours=1)
#: Most addresses of which one pass notes that their port is missing; enough
#: for a whole cloud, so that the fuse counts all of them.
MOST_NOTED = 100_000
#: Ports that the inventory is asked about in one go.
_PORTS = 500
#: Addresses or servers that are asked about in one go.
_BATCH = 50
#: Seconds for which the next run is not written down if it went alike.
_QUIET = 10.0
#: For so long a large pool remembers which server had an address.
MEMORY = datetime.timedelta(days=30)
#: Seconds between two trims of the history.
_TRIM_INTERVAL = 3600.0

DONE = 'done'
NOTED = 'noted'
SPARED = 'spared'
WOULD = 'would be done'


class Stopped(exceptions.VmipError):
    """The program has to end; the next run begins anew."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that a task came upon.

    :param subject: an address or a DHCP server.
    :param action: what there is to do.
    :param outcome: :data:`DONE`, :data:`NOTED` (it is looked at again before
        anything is done), :data:`SPARED` or, in a dry run, :data:`WOULD`.
    """

    task: str
    subject: str
    action: str
    outcome: str
    reason: str


@dataclasses.dataclass
class Findings:
    """How much a task came upon; as in :class:`records.Run`.

    In a dry run ``done`` is what would have been done.
    """

    checked: int = 0
    found: int = 0
    done: int = 0
    spared: int = 0


@dataclasses.dataclass(frozen=True)
class Task:
    """What is done again and again.

    :param interval: seconds from its end to its next start.
    """

    name: str
    interval: float
    call: Callable[[], Findings]


class Reclaimer:
    """The periodic tasks.

    :param patience: longest time in seconds to wait for DHCP servers, as for
        :meth:`work.Worker.run`.
    :param rehearse: change nothing at all, and tell what would be done.
    :param tell: is told each finding.
    :param stop: when it is set, a task ends with :class:`Stopped`.
    :param me: who does it; default: :func:`this_process`.
    """

    def __init__(self, conf: cfg.ConfigOpts, inventory: api.Inventory,
                 worker: work.Worker, cloud: vmip_cloud.Cloud, *,
                 patience: float | None = work.PATIENCE,
                 rehearse: bool = False,
                 tell: Callable[[Finding], object] = lambda finding: None,
                 stop: threading.Event | None = None,
                 me: str | None = None) -> None:
        self._conf = conf
        self._worker = worker
        self._cloud = cloud
        self._patience = patience
        self._rehearse = rehearse
        self._tell = tell
        self._stop = stop or threading.Event()
        self._me = me or this_process()
        self._inventory = inventory.rehearsal() if rehearse else inventory
        self._noted: dict[str, records.Run] = {}
        #: ports that the inventory lacked, and when that was first seen
        self._unknown: dict[tuple[str, types.Address, str],
                            datetime.datetime] = {}

    @property
    def _dry(self) -> bool:
        """Nothing is done of what the tasks themselves conclude."""
        return self._rehearse or self._conf.reclaimer.dry_run

    @property
    def _concluded(self) -> api.Inventory:
        """The list for what the tasks themselves conclude."""
        return self._inventory.rehearsal() if self._dry else self._inventory

    def tasks(self) -> list[Task]:
        """Return all tasks, in the order of one pass."""
        calls = {
            'reservations': self.check_reservations,
            'deletes': self.check_deletes, 'servers': self.check_servers,
            'ports': self.check_ports, 'confirm': self.confirm,
            'mend': self.mend, 'work': self.work, 'expiry': self.expire,
            'history': self.trim}
        return [Task(name, interval, calls[name])
                for name, interval in intervals(self._conf).items()]

    def run(self, task: Task) -> records.Run:
        """Do a task once, and write down how it went."""
        started = clock.now()
        found, error = Findings(), None
        try:
            found = task.call()
        except Stopped as exc:
            error = str(exc)
        except exceptions.VmipError as exc:
            LOG.warning('Task %s will be tried again: %s', task.name, exc)
            error = str(exc)
        except Exception as exc:
            LOG.exception('Task %s', task.name)
            error = f'{type(exc).__name__}: see the log'
        run = records.Run(
            task.name, self._me, started, clock.now(),
            **dataclasses.asdict(found), error=error)
        _count(run)
        before = self._noted.get(task.name)
        if (task.interval >= _QUIET or before is None
                or _news(run) != _news(before)
                or (run.ended_at - before.ended_at).total_seconds() >= _QUIET):
            self._note_run(run)
        return run

    def _note_run(self, run: records.Run) -> None:
        try:
            self._inventory.note_run(run)
            self._noted[run.name] = run
        except exceptions.VmipError as exc:
            LOG.warning('Task %s: %s', run.name, exc)

    def work(self) -> Findings:
        """Do what is due on the DHCP servers, and end what only rests.

        Neither Nova nor Neutron is asked for that, so that nobody waits for
        them here.
        """
        found = Findings()
        if self._rehearse:
            for item in self._inventory.work():
                self._did(found, 'work', item.address,
                          'write' if item.present else 'remove',
                          f'{item.mac} on DHCP server {item.server}')
        else:
            found.done = found.found = self._worker.run(
                patience=self._patience)
        rested = self._inventory.rest_over()
        if rested:
            found.done += rested
            found.found += rested
            LOG.info('%d addresses are free after their reuse delay', rested)
            self._tell(Finding('work', f'{rested} addresses', 'free',
                               self._outcome(),
                               'their reuse delay is over'))
        return found

    def expire(self) -> Findings:
        """End the reservations that no port has claimed in time.

        Nova may still be building a server. After the first question that it
        leaves without an answer it is asked nothing more in this pass.
        """
        found = Findings()
        away: exceptions.CloudUnavailable | None = None
        for reservation in self._going(self._inventory.expired()):
            found.checked += 1
            try:
                if away is not None and reservation.server_id is not None:
                    raise away
                self._expire(reservation, found)
            except exceptions.CloudUnavailable as exc:
                if away is None:
                    LOG.warning('Reservation of %s is kept: %s',
                                reservation.address, exc)
                    if not isinstance(exc, exceptions.QuestionFailed):
                        away = exc
                self._spare(found, 'expiry', reservation.address, 'give up',
                            str(exc))
        return found

    def _expire(self, reservation: records.Address, found: Findings) -> None:
        if reservation.server_id is not None:
            status = self._cloud.server_status(reservation.server_id)
            if status in _BUILDING:
                # A busy cloud may take longer than we think.
                self._inventory.extend(reservation, self._conf.reserve.ttl)
                self._spare(found, 'expiry', reservation.address, 'give up',
                            f'server {reservation.server_id} is still being '
                            'built')
                return
        if self._inventory.expire(reservation, 'no port claimed it in time'):
            if not self._rehearse:
                metrics.RELEASES.labels('expired').inc()
            LOG.info('Reservation of %s (request %s) is over',
                     reservation.address, reservation.request_id)
            self._did(found, 'expiry', reservation.address, 'give up',
                      'no port claimed it in time')

    def mend(self) -> Findings:
        """Mend what the DHCP servers have otherwise than the list."""
        found = Findings()
        if not self._dry:
            found.done = found.found = self._worker.mend(
                patience=self._patience)
            return found
        for name, driver in self._worker.drivers.items():
            try:
                for d in work.differences(self._inventory, driver):
                    if not d.pending:
                        self._did(found, 'mend', d.address,
                                  'write' if d.wanted else 'remove',
                                  f'DHCP server {name} has '
                                  f'{d.found.mac if d.found else "nothing"}')
            except exceptions.DHCPError as exc:
                found.spared += 1
                self._tell(Finding('mend', name, 'compare', SPARED, str(exc)))
        return found

    def check_reservations(self) -> Findings:
        """Find the servers that were gone before they had a port.

        Nova tells nobody of a delete that comes right after the create. It
        is asked about servers only that have had time to get their port.

        Where Nova cannot tell of one, its reservation waits.
        """
        options = self._conf.reclaimer
        found = Findings()
        look = self._look()
        for _, held in self._going(self._inventory.addresses(
                state=[State.RESERVED])):
            age = (clock.now() - held.changed_at).total_seconds()
            if held.server_id is None or age < options.confirm_delay:
                continue
            found.checked += 1
            try:
                status = look.server_without_port(held.server_id)
            except exceptions.CloudUnavailable as exc:
                self._spare(found, 'reservations', held.address, 'give up',
                            str(exc))
                continue
            if status not in ('ERROR', presence.DELETED):
                continue
            if self._concluded.cancel([held], 'the server is gone'):
                self._released('server deleted')
                self._did(found, 'reservations', held.address, 'give up',
                          f'server {held.server_id} is '
                          + ('gone' if status == presence.DELETED
                             else status))
        return found

    def check_deletes(self) -> Findings:
        """Find the servers that Nova has deleted since the last look.

        :raises CloudUnavailable: Nova or Neutron gave no usable answer, or
            does not show all there is.
        """
        look = self._look()
        look.see_all()
        before = self._inventory.looked_at('deletes')
        since = (before or clock.now() - FIRST_LOOK) - OVERLAP
        found = Findings()
        for ids in _batches(self._going(self._cloud.deleted_servers(since))):
            found.checked += len(ids)
            self._bury(look, found, 'deletes',
                       self._inventory.held_by_servers(ids))
        return found

    def check_servers(self) -> Findings:
        """Find addresses whose server Nova does not list.

        Nova leaves out what is in a cell that is down, so that only those
        whose port is missing, too, are noted.

        :raises CloudUnavailable: Nova or Neutron gave no usable answer, or
            does not show all there is; nothing is concluded from a list that
            was not whole.
        """
        look = self._look()
        look.see_all()
        before = clock.now()
        held = self._going(self._inventory.held_by_server(before))
        first = list(itertools.islice(held, 1))
        found = Findings()
        if not first:
            return found
        # not in order: creates in flight come first, and then once more
        listed = set(self._going(self._cloud.all_servers()))
        unlisted = []
        for one in itertools.chain(first, held):
            found.checked += 1
            if one.server_id not in listed:
                unlisted.append(one)
        for batch in _batches(unlisted):
            self._bury(look, found, 'servers', batch)
        return found

    def check_ports(self) -> Findings:
        """Find the ports whose delete or change nobody told us of.

        And the ports in a pool that the inventory lacks: they are adopted
        when they are seen a second time, some time later.

        Neutron's lists are read beside our own, and nothing is concluded from
        what is missing in them until all of them have ended as they should.

        :raises CloudUnavailable: Neutron gave no whole list, or does not show
            all there is.
        """
        look = self._look()
        look.see_all()
        found = Findings()
        missing: list[records.Held] = []
        unknown: list[tuple[str, types.Address, str]] = []
        for held, port in self._going(self._beside_ports(clock.now(),
                                                         unknown)):
            found.checked += 1
            if not presence.has(port, held.address):
                found.found += 1
                if held.gone_since is None and len(missing) < MOST_NOTED:
                    missing.append(held)
                continue
            assert port is not None
            if held.port_id is not None and _differs(held, port):
                self._follow(held, found, 'ports')
            if held.gone_since is not None:
                self._concluded.note_gone([held], None)
        self._note(look, found, 'ports', missing)
        self._adopt(found, unknown)
        return found

    def _beside_ports(self, before: datetime.datetime,
                      unknown: list[tuple[str, types.Address, str]],
                      ) -> Iterator[
            tuple[records.Held, vmip_cloud.Port | None]]:
        """Yield the addresses in use, each with the port that has it.

        :param unknown: is given the ports that the inventory lacks.
        """
        # what is claimed while Neutron answers must not look as if its port
        # were missing
        pools = [pool for pool, _ in self._inventory.pools()]
        for network_id in sorted({pool.network_id for pool in pools}):
            theirs = self._noting_unknown(
                self._cloud.all_ports(network_id),
                {pool.subnet_id for pool in pools}, unknown)
            yield from compare.merge(
                self._inventory.held_by_port(network_id, before),
                operator.attrgetter('port_id'), theirs,
                operator.attrgetter('id'))
            for _ in theirs:
                pass        # what it did not need was not read
        for batch in _batches(self._inventory.held_without_port(before)):
            by_network = operator.attrgetter('network_id')
            for network_id, some in itertools.groupby(
                    sorted(batch, key=by_network), by_network):
                held = list(some)
                ports = {address: port for port in self._cloud.ports_with(
                    network_id, [h.address for h in held])
                    for address in _addresses(port)}
                yield from ((h, ports.get(h.address)) for h in held)

    def _noting_unknown(self, ports: Iterable[vmip_cloud.Port],
                        subnets: Collection[str],
                        unknown: list[tuple[str, types.Address, str]],
                        ) -> Iterator[vmip_cloud.Port]:
        """Yield ports; note those whose addresses the inventory lacks."""
        rest = iter(ports)
        while some := list(itertools.islice(rest, _PORTS)):
            by_subnet: dict[str, list[tuple[types.Address, str]]] = {}
            for port in some:
                for subnet_id, address in port.addresses:
                    if subnet_id in subnets:
                        by_subnet.setdefault(subnet_id, []).append(
                            (address, port.id))
            for subnet_id, its in by_subnet.items():
                unknown.extend((subnet_id, *one) for one in
                               self._inventory.unknown_ports(subnet_id, its))
            yield from some

    def _adopt(self, found: Findings,
               unknown: Iterable[tuple[str, types.Address, str]]) -> None:
        """Take the ports that the inventory lacks, at the second look."""
        now = clock.now()
        delay = self._conf.reclaimer.confirm_delay
        self._unknown = {one: self._unknown.get(one, now) for one in unknown}
        for (subnet_id, address, port_id), since in self._going(
                list(self._unknown.items())):
            reason = f'port {port_id} has it, and the inventory did not know'
            if (now - since).total_seconds() < delay:
                found.found += 1
                self._tell(Finding('ports', str(address), 'adopt', NOTED,
                                   reason))
                continue
            # it may be deleted by now
            port = self._cloud.port(port_id)
            if port is None or (subnet_id, address) not in port.addresses:
                continue
            serve = not port.device_owner.startswith('network:')
            if self._concluded.adopt_port(subnet_id, records.InUse(
                    address, port.project_id or None, port.server_id, port.id,
                    port.mac, serve=serve)):
                LOG.warning('%s: %s', address, reason)
                if not self._dry:
                    metrics.ADOPTIONS.inc()
                self._did(found, 'ports', address, 'adopt', reason)

    def confirm(self) -> Findings:
        """Ask again for the ports that were missing, and release.

        What shows that a holder is gone says
        :mod:`vmip_plugin.openstack.presence`.

        :raises CloudUnavailable: Neutron gave no usable answer, or does not
            show all there is.
        """
        look = self._look()
        options = self._conf.reclaimer
        found = Findings()
        blown = presence.blown(self._conf, self._inventory.losses())
        for loss in blown.values():
            LOG.error('%s', presence.why_blown(loss))
        since = clock.now() - datetime.timedelta(seconds=options.confirm_delay)
        for batch in _batches(self._going(
                self._inventory.held_by_nobody(since))):
            look.see_all()
            found.checked += len(batch)
            if found.done < options.max_releases:
                batch = self._still_missing(batch)
            for held in batch:
                found.found += 1
                holder = presence.Holder.of(held)
                if found.done >= options.max_releases:
                    self._spare(found, 'confirm', held.address, 'release',
                                'max_releases are released in this pass')
                elif held.pool_id in blown and not holder.confirmed:
                    self._spare(found, 'confirm', held.address, 'release',
                                presence.why_blown(blown[held.pool_id]))
                else:
                    verdict = look.judge([holder])[0]
                    if verdict.evidence is None:
                        self._spare(found, 'confirm', held.address, 'release',
                                    verdict.reason)
                    else:
                        self._release(held, verdict, found)
        return found

    def _still_missing(self, batch: Sequence[records.Held],
                       ) -> list[records.Held]:
        """Note which ports are there after all; return the others."""
        ports = {port.id: port for port in self._cloud.these_ports(
            sorted({held.port_id for held in batch if held.port_id}))}
        there = [held for held in batch if presence.has(
            ports.get(held.port_id or ''), held.address)]
        if there:
            self._concluded.note_gone(there, None)
        return [held for held in batch if held not in there]

    def _release(self, held: records.Held, verdict: presence.Verdict,
                 found: Findings) -> None:
        if self._concluded.release(held, 'Neutron no longer has the port',
                                   verdict.evidence):
            self._released('port missing')
            LOG.info('Would release %s: %s' if self._dry
                     else '%s is released: %s', held.address, verdict.reason)
            self._did(found, 'confirm', held.address, 'release',
                      verdict.reason)

    def trim(self) -> Findings:
        """Forget what is older than the history is kept."""
        found = Findings()
        self._forget_names(found)
        if not self._dry:
            self._inventory.trim_losses()
        days = self._conf.reclaimer.history_days
        if not days:
            return found
        lines = Findings()
        for over, deleted in self._going(self._concluded.trim(
                clock.now() - datetime.timedelta(days=days))):
            lines.found += over
            lines.done += deleted
        if lines.found:
            LOG.info('%d lines of history would be forgotten' if self._dry
                     else '%d lines of history were forgotten', lines.done)
            self._tell(Finding('history', f'{lines.found} lines', 'forget',
                               WOULD if self._dry else DONE,
                               f'older than {days} days'))
        found.found += lines.found
        found.done += lines.done
        return found

    def _forget_names(self, found: Findings) -> None:
        """Let large pools forget who had an address long ago."""
        names = Findings()
        for over, done in self._going(self._concluded.forget_names(
                clock.now() - MEMORY)):
            names.found += over
            names.done += done
        if names.found:
            LOG.info('%d addresses would be as if never used' if self._dry
                     else '%d addresses are as if never used', names.done)
            self._tell(Finding('history', f'{names.found} addresses',
                               'forget', WOULD if self._dry else DONE,
                               f'free for more than {MEMORY.days} days'))
        found.found += names.found
        found.done += names.done

    def _bury(self, look: presence.Look, found: Findings, task: str,
              dead: Sequence[records.Held]) -> None:
        """See to the addresses of servers that Nova does not list."""
        ports = {port.id: port for port in self._cloud.these_ports(
            sorted({held.port_id for held in dead if held.port_id}))}
        missing = []
        for held in dead:
            port = ports.get(held.port_id or '')
            if port is None or not presence.has(port, held.address):
                found.found += 1
                if held.gone_since is None:
                    missing.append(held)
            elif port.server_id != held.server_id:
                self._follow(held, found, task)
            elif self._is_deleted(look, held.server_id):
                # somebody may keep it for a server to come
                self._spare(
                    found, task, held.address, 'release',
                    f'server {held.server_id} is gone, but Neutron has port '
                    f'{held.port_id}: delete it if nobody needs it')
        self._note(look, found, task, missing)

    def _is_deleted(self, look: presence.Look, server_id: str | None) -> bool:
        """Tell whether Nova is known to have deleted a server."""
        if (server_id is None
                or look.asked >= self._conf.reclaimer.max_releases):
            return False
        try:
            return look.server(server_id) == presence.DELETED
        except exceptions.CloudUnavailable:
            return False        # such as a cell that is down

    def _note(self, look: presence.Look, found: Findings, task: str,
              missing: Sequence[records.Held]) -> None:
        """Note that ports are missing, for :meth:`confirm`."""
        delay = self._conf.reclaimer.confirm_delay
        for batch in _batches(self._going(missing)):
            self._concluded.note_gone(batch, clock.now())
            for held in batch:
                if self._dry and found.done < (
                        self._conf.reclaimer.max_releases):
                    # it will still be new to the next pass
                    if look.judge([presence.Holder.of(held)])[0].gone:
                        LOG.info('Would release %s: port %s is gone',
                                 held.address, held.port_id)
                        found.done += 1
                        self._tell(Finding(
                            task, str(held.address), 'release', WOULD,
                            f'port {held.port_id or "unknown"} is gone, if '
                            f'it still is in {delay} s'))
                else:
                    self._tell(Finding(
                        task, str(held.address), 'release', NOTED,
                        f'port {held.port_id or "unknown"} is missing; '
                        f'asked for again in {delay} s'))

    def _follow(self, held: records.Held, found: Findings, task: str) -> None:
        """Note the change of a port that nobody told us of."""
        assert held.port_id is not None
        # the whole list may be older than what the listener was told
        port = self._cloud.port(held.port_id)
        if port is None:
            return
        if port.mac != held.mac:
            self._concluded.change_mac(port.id, port.mac)
            self._did(found, task, held.address, 'follow',
                      f'port {port.id} has MAC {port.mac}, not {held.mac}')
        if port.server_id != held.server_id:
            self._concluded.change_server(port.id, port.server_id)
            self._did(found, task, held.address, 'follow',
                      f'port {port.id} is server {port.server_id}\'s, not '
                      f'{held.server_id}\'s')

    def _look(self) -> presence.Look:
        return presence.Look(self._cloud, self._inventory)

    def _going(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            if self._stop.is_set():
                raise Stopped('it was stopped')
            yield item

    def _released(self, reason: str) -> None:
        if not self._dry:
            metrics.RELEASES.labels(reason).inc()

    def _outcome(self) -> str:
        return WOULD if self._rehearse else DONE

    def _did(self, found: Findings, task: str, address: types.Address,
             action: str, reason: str) -> None:
        found.found += 1
        found.done += 1
        self._tell(Finding(task, str(address), action,
                           WOULD if self._dry else DONE, reason))

    def _spare(self, found: Findings, task: str, address: types.Address,
               action: str, reason: str) -> None:
        found.found += 1
        found.spared += 1
        self._tell(Finding(task, str(address), action, SPARED, reason))


def intervals(conf: cfg.ConfigOpts) -> dict[str, float]:
    """Return how often each task is done, in the order of one pass."""
    options = conf.reclaimer
    return {'reservations': options.check_interval,
            'deletes': options.check_interval,
            'servers': options.full_interval,
            'ports': options.full_interval,
            'confirm': options.check_interval,
            'mend': options.check_interval,
            'work': options.work_interval,
            'expiry': options.work_interval,
            'history': _TRIM_INTERVAL}


def this_process() -> str:
    """Return the name under which this process is known to the others."""
    return f'{socket.gethostname()}:{os.getpid()}'


def _count(run: records.Run) -> None:
    metrics.TASK_RUNS.labels(
        run.name, 'ok' if run.error is None else 'error').inc()
    for result in ('found', 'done', 'spared'):
        metrics.TASK_ITEMS.labels(run.name, result).inc(getattr(run, result))
    if run.error is None:
        metrics.TASK_SUCCESS.labels(run.name).set_to_current_time()


def _news(run: records.Run) -> tuple[object, ...]:
    return run.found, run.done, run.spared, run.error


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(itertools.islice(rest, _BATCH)):
        yield batch


def _addresses(port: vmip_cloud.Port | None) -> set[types.Address]:
    return set() if port is None else {a for _, a in port.addresses}


def _differs(held: records.Held, port: vmip_cloud.Port) -> bool:
    return held.state != State.ADOPTED and (
        (held.mac, held.server_id) != (port.mac, port.server_id))
