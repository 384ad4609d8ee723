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

"""One of many processes that use the list at random, and what it saw.

It writes down from when to when it was told that an address is its own: from
the return of the call that said so to the start of the one that gives it up,
so that two that overlap are two holders of one address, whatever the database
says afterwards.
"""

import collections
from collections.abc import Callable
import contextlib
import dataclasses
import pathlib
import pickle
import random
import signal
import time
from typing import Any
import uuid

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records

#: network id -> allocator and subnet id of its pool
NETWORKS = {
    str(uuid.UUID(int=number)): (allocator, str(uuid.UUID(int=100 + number)))
    for number, allocator in enumerate(
        ('sequential', 'random', 'sticky'), 1)}
#: seconds of a reservation
TTL = 2
#: what is answered to somebody who asks for what is not to be had
REFUSALS = (exceptions.PoolExhausted, exceptions.AddressInUse,
            exceptions.AddressNotFound)

#: (pool id, address)
Where = tuple[str, str]


@dataclasses.dataclass
class Seen:
    """What one worker saw.

    :ivar tenures: (address, from, to) in seconds since 1970.
    :ivar held: its ports at the end: address to port id.
    :ivar counts: of calls by their outcome.
    :ivar errors: what must not be.
    """

    tenures: list[tuple[Where, float, float]] = dataclasses.field(
        default_factory=list)
    held: dict[Where, str] = dataclasses.field(default_factory=dict)
    counts: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter)
    errors: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Port:
    where: Where
    id: str
    mac: str
    server_id: str
    since: float


#: calls that a worker makes at least
LEAST_CALLS = 100


class Worker:
    """A nova-api, a neutron-server and a vmip-listener in one.

    :param urls: of the database, one a node; each call goes to any of them.
    """

    def __init__(self, urls: list[str], number: int) -> None:
        self._random = random.Random(number)
        self._number = number
        self._count = 0
        self._nodes = []
        for url in urls:
            conf = base.new_conf(url)
            if len(urls) > 1:
                # what one node has told is read on the other
                conf.set_override('mysql_wsrep_sync_wait', 1, 'database')
            self._nodes.append(api.Inventory(conf, f'worker {number}'))
        self._reserved: list[tuple[records.Requester, str, str | None,
                                   list[records.Address], float]] = []
        self._ports: list[_Port] = []
        self.seen = Seen()

    @property
    def _list(self) -> api.Inventory:
        return self._random.choice(self._nodes)

    def run(self, seconds: float, barrier: Any) -> None:
        """Act for so long, once all are ready."""
        actions: list[tuple[Callable[[], None], int]] = [
            (self.reserve, 4), (self.claim_reserved, 4), (self.claim_any, 1),
            (self.claim_given, 1), (self.cancel, 1), (self.bind, 1),
            (self.activate, 1), (self.change_mac, 1), (self.release, 5),
            (self.work, 4), (self.expire, 1), (self.rest, 1),
            (self.hold, 1), (self.rehearse, 1)]
        calls, weights = zip(*actions, strict=True)
        # what is made at the first call only is made now
        for action in calls:
            self._try(action)
        barrier.wait()
        until = time.time() + seconds
        # a busy machine has made each kind of call, too
        while (time.time() < until
               or sum(self.seen.counts.values()) < LEAST_CALLS):
            action, = self._random.choices(calls, weights)
            self._try(action)
        for port in self._ports:
            self._over(port.where, port.since, time.time())
            self.seen.held[port.where] = port.id

    def _try(self, action: Callable[[], None]) -> None:
        name = action.__name__
        try:
            action()
            self.seen.counts[name] += 1
        except REFUSALS as exc:
            self.seen.counts[f'{name}: {type(exc).__name__}'] += 1
        except exceptions.InventoryUnavailable as exc:
            if 'too busy' not in str(exc):
                raise
            self.seen.counts['too busy'] += 1

    def _over(self, where: Where, since: float, end: float) -> None:
        self.seen.tenures.append((where, since, end))

    def _requester(self) -> records.Requester:
        self._count += 1
        return records.Requester(f'req-{self._number}-{self._count}',
                                 f'project-{self._number % 3}')

    def _network(self) -> tuple[str, str]:
        network = self._random.choice(list(NETWORKS))
        return network, NETWORKS[network][1]

    def reserve(self) -> None:
        network, subnet = self._network()
        requester = self._requester()
        names = tuple(f'vm-{self._random.randrange(50)}'
                      for _ in range(self._random.choice((1, 1, 1, 3))))
        began = time.time()
        found = self._list.reserve(
            requester, [records.Wanted(network, names)], TTL)
        for held in found:
            # somebody may end it as soon as its time is over
            self._over(_where(held), time.time(), began + TTL)
        self._reserved.append((requester, subnet, None, found, began))

    def _take(self) -> tuple[records.Requester, str, str | None,
                             list[records.Address], float] | None:
        if not self._reserved:
            return None
        return self._reserved.pop(
            self._random.randrange(len(self._reserved)))

    def bind(self) -> None:
        taken = self._take()
        if taken is None:
            return
        requester, subnet, server_id, found, since = taken
        if len(found) == 1:
            server_id = str(uuid.uuid4())
            self._list.bind(found, server_id)
        self._reserved.append((requester, subnet, server_id, found, since))

    def cancel(self) -> None:
        taken = self._take()
        if taken is None:
            return
        # from now on it is not its own
        self._shorten(taken[3], time.time())
        self._list.cancel(taken[3], 'worker')

    def _shorten(self, found: list[records.Address], end: float) -> None:
        wanted = {_where(held) for held in found}
        for index in range(len(self.seen.tenures) - 1, -1, -1):
            where, since, until = self.seen.tenures[index]
            if where in wanted:
                wanted.discard(where)
                self.seen.tenures[index] = (where, since, min(until, end))
            if not wanted:
                return

    def claim_reserved(self) -> None:
        taken = self._take()
        if taken is None:
            return
        requester, subnet, server_id, found, _ = taken
        # the reservation's own tenure goes on as the port's
        self._shorten(found, time.time())
        began = time.time()
        in_time = began < taken[4] + TTL - 1
        for _ in found:
            port = self._claim(requester, subnet,
                               server_id or str(uuid.uuid4()))
            if in_time and time.time() < taken[4] + TTL and port.where not in {
                    _where(held) for held in found}:
                self.seen.errors.append(
                    f'{requester} got {port.where} instead of '
                    f'{[_where(held) for held in found]}')

    def claim_any(self) -> None:
        self._claim(self._requester(), self._network()[1], None)

    def claim_given(self) -> None:
        _, subnet = self._network()
        self._claim(self._requester(), subnet, None, address=base.ip(
            f'10.0.0.{self._random.randrange(1, 70)}'))

    def _claim(self, requester: records.Requester, subnet: str,
               server_id: str | None, address: object = None) -> _Port:
        server_id = server_id or str(uuid.uuid4())
        self._count += 1
        port = _Port(('', ''), str(uuid.uuid4()),
                     base.mac(self._random.randrange(65536)), server_id, 0)
        claim = self._list.claim(
            subnet_id=subnet, requester=requester, port_id=port.id,
            mac=port.mac, server_id=server_id,
            address=address)  # type: ignore[arg-type]
        if claim is None:
            raise exceptions.AddressNotFound('in no range')
        port.since = time.time()
        port.where = (subnet, str(claim.address))
        self._ports.append(port)
        return port

    def _any_port(self) -> _Port | None:
        return self._random.choice(self._ports) if self._ports else None

    def activate(self) -> None:
        port = self._any_port()
        if port is not None:
            self._list.activate(port.server_id, None, [port.mac])

    def change_mac(self) -> None:
        port = self._any_port()
        if port is not None:
            port.mac = base.mac(self._random.randrange(65536))
            self._list.change_mac(port.id, port.mac)

    def release(self) -> None:
        if not self._ports:
            return
        port = self._ports.pop(self._random.randrange(len(self._ports)))
        self._over(port.where, port.since, time.time())
        while True:
            with contextlib.suppress(exceptions.InventoryUnavailable):
                if not self._list.release_address(
                        port.where[0], base.ip(port.where[1]), 'worker'):
                    self.seen.errors.append(f'{port} was no longer there')
                return

    def work(self) -> None:
        """Do what is to do, for whomever: as the DHCP servers' worker."""
        listed = self._list
        for work in listed.work(limit=20):
            if self._random.random() < 0.1:
                listed.work_failed(work, 'no', 0.1,
                                   port_gone=not work.present)
            elif not listed.work_done(work):
                listed.redo(work.server, [work.address])

    def expire(self) -> None:
        listed = self._list
        for reservation in listed.expired(limit=20):
            listed.expire(reservation, 'no port came')

    def rest(self) -> None:
        self._list.rest_over(limit=20)

    def hold(self) -> None:
        network, _ = self._network()
        pool = NETWORKS[network][0]
        address = base.ip(f'10.0.0.{self._random.randrange(1, 61)}')
        listed = self._list
        if self._random.random() < 0.5:
            listed.unhold(pool, address)
        else:
            until = clock.after(10)
            try:
                listed.hold(records.Hold(
                    pool, address, f'vm-{self._random.randrange(50)}',
                    until=until, any_project=True))
            except exceptions.VmipError:
                # on a slow machine its turn may come after its end
                if clock.now() < until:
                    raise

    def rehearse(self) -> None:
        network, _ = self._network()
        self._list.rehearsal().reserve(
            self._requester(), [records.Wanted(network, ('vm',))], TTL)


def _where(held: records.Address) -> Where:
    return SUBNET_OF[held.pool_id], str(held.address)


#: pool id -> subnet id
SUBNET_OF: dict[str, str] = {}


def run(urls: list[str], pools: dict[str, str], number: int, seconds: float,
        barrier: Any, result: pathlib.Path) -> None:
    """Be one worker; write what it saw into a file."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    SUBNET_OF.update(pools)
    worker = Worker(urls, number)
    worker.run(seconds, barrier)
    result.write_bytes(pickle.dumps(worker.seen))
