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

from collections.abc import Callable, Iterable, Iterator, Sequence
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
#: Most addresses of which one pass notes that their port is missing.
MOST_NOTED = 1000
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
            'mend': self.mend, 'work': self.work, 'history': self.trim}
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
        """Do what is due on the DHCP servers, and end what is over."""
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
        for reservation in self._inventory.expired():
            self._expire(reservation, found)
        return found

    def _expire(self, reservation: records.Address, found: Findings) -> None:
        if reservation.server_id is not None:
            try:
                status = self._cloud.server_status(reservation.server_id)
            except exceptions.CloudUnavailable as exc:
                LOG.warning('Reservation of %s is kept: %s',
                            reservation.address, exc)
                self._spare(found, 'work', reservation.address, 'give up',
                            str(exc))
                return
            if status in _BUILDING:
                # A busy cloud may take longer than we think.
                self._inventory.extend(reservation, self._conf.reserve.ttl)
                self._spare(found, 'work', reservation.address, 'give up',
                            f'server {reservation.server_id} is still being '
                            'built')
                return
        if self._inventory.expire(reservation, 'no port claimed it in time'):
            if not self._rehearse:
                metrics.RELEASES.labels('expired').inc()
            LOG.info('Reservation of %s (request %s) is over',
                     reservation.address, reservation.request_id)
            self._did(found, 'work', reservation.address, 'give up',
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

        :raises CloudUnavailable: Nova gave no usable answer.
        """
        options = self._conf.reclaimer
        found = Findings()
        for _, held in self._going(self._inventory.addresses(
                state=[State.RESERVED])):
            age = (clock.now() - held.changed_at).total_seconds()
            if held.server_id is None or age < options.confirm_delay:
                continue
            found.checked += 1
            status = self._cloud.server_status(held.server_id)
            if status not in (None, 'ERROR', *vmip_cloud.GONE):
                continue
            if self._concluded.cancel([held], 'the server is gone'):
                self._released('server deleted')
                self._did(found, 'reservations', held.address, 'give up',
                          f'server {held.server_id} is '
                          + ('gone' if status is None else status))
        return found

    def check_deletes(self) -> Findings:
        """Find the servers that Nova has deleted since the last look.

        :raises CloudUnavailable: Nova or Neutron gave no usable answer.
        :raises ConfigError: our credentials do not show all there is.
        """
        self._see_all()
        before = self._inventory.looked_at('deletes')
        since = (before or clock.now() - FIRST_LOOK) - OVERLAP
        found = Findings()
        for ids in _batches(self._going(self._cloud.deleted_servers(since))):
            found.checked += len(ids)
            self._bury(found, 'deletes', self._inventory.held_by_servers(ids))
        return found

    def check_servers(self) -> Findings:
        """Find addresses whose server Nova does not list.

        :raises CloudUnavailable: Nova or Neutron gave no usable answer;
            nothing is concluded from a list that was not whole.
        :raises ConfigError: our credentials do not show all there is.
        """
        self._see_all()
        found = Findings()
        dead: dict[str, list[records.Held]] = {}
        for held, listed in self._going(compare.merge(
                self._inventory.held_by_server(clock.now()),
                operator.attrgetter('server_id'),
                self._cloud.all_servers(), str)):
            found.checked += 1
            server_id = held.server_id or ''
            if listed is None and (server_id in dead or len(dead)
                                   < self._conf.reclaimer.max_releases):
                dead.setdefault(server_id, []).append(held)
        for server_id, theirs in self._going(dead.items()):
            # Nova leaves out of its list what is in a cell that is down
            if self._cloud.server_status(server_id) in (
                    None, *vmip_cloud.GONE):
                self._bury(found, 'servers', theirs)
        return found

    def check_ports(self) -> Findings:
        """Find the ports whose delete or change nobody told us of.

        Neutron's lists are read beside our own, and nothing is concluded from
        what is missing in them until all of them have ended as they should.

        :raises CloudUnavailable: Neutron gave no whole list.
        :raises ConfigError: our credentials do not show all there is.
        """
        self._see_all()
        found = Findings()
        missing: list[records.Held] = []
        for held, port in self._going(self._beside_ports(clock.now())):
            found.checked += 1
            if port is None or held.address not in _addresses(port):
                found.found += 1
                if held.gone_since is None and len(missing) < MOST_NOTED:
                    missing.append(held)
                continue
            if held.port_id is not None and _differs(held, port):
                self._follow(held, found, 'ports')
            if held.gone_since is not None:
                self._concluded.note_gone([held], None)
        self._note(found, 'ports', missing)
        return found

    def _beside_ports(self, before: datetime.datetime) -> Iterator[
            tuple[records.Held, vmip_cloud.Port | None]]:
        """Yield the addresses in use, each with the port that has it."""
        # what is claimed while Neutron answers must not look as if its port
        # were missing
        for network_id in sorted({pool.network_id for pool, _ in
                                  self._inventory.pools()}):
            yield from compare.merge(
                self._inventory.held_by_port(network_id, before),
                operator.attrgetter('port_id'),
                self._cloud.all_ports(network_id), operator.attrgetter('id'))
        for batch in _batches(self._inventory.held_without_port(before)):
            by_network = operator.attrgetter('network_id')
            for network_id, some in itertools.groupby(
                    sorted(batch, key=by_network), by_network):
                held = list(some)
                ports = {address: port for port in self._cloud.ports_with(
                    network_id, [h.address for h in held])
                    for address in _addresses(port)}
                yield from ((h, ports.get(h.address)) for h in held)

    def confirm(self) -> Findings:
        """Ask again for the ports that were missing, and release.

        Gone means: missing, and some time later Neutron itself says 404 when
        asked for this one.

        :raises CloudUnavailable: Neutron gave no usable answer.
        :raises ConfigError: our credentials do not show all there is.
        """
        self._see_all()
        options = self._conf.reclaimer
        found = Findings()
        since = clock.now() - datetime.timedelta(seconds=options.confirm_delay)
        for batch in _batches(self._going(
                self._inventory.held_by_nobody(since))):
            found.checked += len(batch)
            if found.done >= options.max_releases:
                there = set()
            else:
                there = self._listed(batch)
                if there:
                    self._concluded.note_gone(
                        [h for h in batch if h.id in there], None)
            for held in batch:
                if held.id in there:
                    continue
                found.found += 1
                if found.done >= options.max_releases:
                    self._spare(found, 'confirm', held.address, 'release',
                                'max_releases are released in this pass')
                elif not self._surely_gone(held):
                    self._spare(found, 'confirm', held.address, 'release',
                                'Neutron lists its port no more, but has it')
                else:
                    self._release(held, found)
        return found

    def _release(self, held: records.Held, found: Findings) -> None:
        if self._concluded.release(held, 'Neutron no longer has the port'):
            self._released('port missing')
            LOG.info('Would release %s: port %s is gone' if self._dry
                     else '%s is released: port %s is gone',
                     held.address, held.port_id)
            self._did(found, 'confirm', held.address, 'release',
                      f'port {held.port_id or "unknown"} is gone')

    def trim(self) -> Findings:
        """Forget what is older than the history is kept."""
        found = Findings()
        self._forget_names(found)
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

    def _bury(self, found: Findings, task: str,
              dead: Sequence[records.Held]) -> None:
        """See to the addresses of servers that Nova says are gone."""
        ports = {port.id: port for port in self._cloud.these_ports(
            sorted({held.port_id for held in dead if held.port_id}))}
        missing = []
        for held in dead:
            port = ports.get(held.port_id or '')
            if port is None or held.address not in _addresses(port):
                found.found += 1
                if held.gone_since is None:
                    missing.append(held)
            elif port.server_id == held.server_id:
                # somebody may keep it for a server to come
                self._spare(
                    found, task, held.address, 'release',
                    f'server {held.server_id} is gone, but Neutron has port '
                    f'{held.port_id}: delete it if nobody needs it')
            else:
                self._follow(held, found, task)
        self._note(found, task, missing)

    def _note(self, found: Findings, task: str,
              missing: Sequence[records.Held]) -> None:
        """Note that ports are missing, for :meth:`confirm`."""
        delay = self._conf.reclaimer.confirm_delay
        for batch in _batches(self._going(missing)):
            self._concluded.note_gone(batch, clock.now())
            for held in batch:
                if self._dry and found.done < (
                        self._conf.reclaimer.max_releases):
                    # it will still be new to the next pass
                    if self._surely_gone(held):
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

    def _listed(self, batch: Sequence[records.Held]) -> set[int]:
        """Return the ids of the addresses that ports listed by id have."""
        ports = {port.id: port for port in self._cloud.these_ports(
            sorted({held.port_id for held in batch if held.port_id}))}
        return {held.id for held in batch if held.address in _addresses(
            ports.get(held.port_id or ''))}

    def _surely_gone(self, held: records.Held) -> bool:
        if held.port_id is not None:
            return held.address not in _addresses(
                self._cloud.port(held.port_id))
        # An empty list is no proof by itself.
        return (not any(self._cloud.ports_with(held.network_id,
                                               [held.address]))
                and self._cloud.has_network(held.network_id))

    def _see_all(self) -> None:
        if not self._cloud.sees_all_projects():
            raise exceptions.ConfigError(
                'The user of [cloud] has not the role admin, so that ports '
                'of other projects would look deleted: nothing is released')

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
