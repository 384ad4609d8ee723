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

"""What one reservation costs, and how that grows with the pool.

Beside ours stands Neutron's own IPAM driver, neutrondb_ipam, on the same
MariaDB: both are asked in turns for one address, committed.
"""

import argparse
from collections.abc import Callable, Iterator
import itertools
import multiprocessing
import statistics
import tempfile
import time
from typing import Any
import uuid

from tests.benchmarks import base
from tests import databases
from tests.unit import base as unit
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records

SIZE = 2 ** 16 - 2
FIRST = int(unit.ip('10.0.0.1'))
#: addresses in use: the peer's cost grows with each
USED = (0, 3000, 30000, 60000)
CIDR = '10.0.0.0/16'


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--reservations', type=int, default=60,
                        help='allocation: reservations of each kind '
                             '(default and most: %(default)s; the peer, '
                             'which is slow, gets fewer)')
    parser.add_argument('--seconds', type=float, default=10,
                        help='allocation: time for each number of processes '
                             '(default: %(default)s)')


def run(args: argparse.Namespace) -> None:
    """Measure how full, next to the peer, and how many at once."""
    report = base.Report('allocation')
    with tempfile.TemporaryDirectory() as folder, databases.MariaDB() as maria:
        urls = {
            'SQLite': lambda: f'sqlite:///{folder}/{uuid.uuid4()}',
            'MariaDB': maria.databases.create}
        for name, new in urls.items():
            for allocator in ('sequential', 'random', 'sticky'):
                _fill(name, new(), allocator, args.reservations, report)
        _beside(new, args.reservations, report)
        for name, new in urls.items():
            for processes in (1, 8, 32):
                _at_once(name, new(), processes, args.seconds, report)
    report.end()


class Ours:
    """A list with pools, each on a network of its own."""

    def __init__(self, url: str) -> None:
        self._number = 0
        self.inventory = api.Inventory(unit.new_conf(url), 'bench')
        self.inventory.database.upgrade()

    def pool(self, used: int, allocator: str = 'sequential') -> str:
        """Make a /16 pool that is used so far; return its network."""
        network, subnet = str(uuid.uuid4()), str(uuid.uuid4())
        self.inventory.create_pool(
            name=network, network_id=network, subnet_id=subnet, cidr=CIDR,
            ranges=[(unit.ip(FIRST), unit.ip(FIRST + SIZE - 1))],
            allocator=allocator, adopt=[
                records.InUse(unit.ip(FIRST + n), None, None, None, None)
                for n in spread(used)])
        return network

    def reserve(self, network: str) -> None:
        self._number += 1
        found = self.inventory.reserve(
            records.Requester(f'req-{self._number}', 'project'),
            [records.Wanted(network, (f'vm-{self._number}',))], 600)
        assert len(found) == 1


def spread(used: int) -> Iterator[int]:
    """Yield so many places, with what is free all over the pool."""
    return (n for n in range(SIZE) if n * used // SIZE != (n + 1) * used
            // SIZE)


def _time(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _fill(name: str, url: str, allocator: str, rounds: int,
          report: base.Report) -> None:
    """0, 50 and 99.9 % full: in turns, so that noise is the same for all."""
    ours = Ours(url)
    shares = (0, 50, 99.9)
    networks = {share: ours.pool(round(SIZE * share / 100), allocator)
                for share in shares}
    taken: dict[float, list[float]] = {share: [] for share in shares}
    # 65 addresses are free in the fullest one
    for number, (share, network) in itertools.product(
            range(min(rounds, 60) + 3), networks.items()):
        milliseconds = _time(lambda network=network: ours.reserve(network))
        if number >= 3:
            taken[share].append(milliseconds)
    median = {share: statistics.median(values)
              for share, values in taken.items()}
    base.say(f'allocation: {name}, {allocator}: ' + ', '.join(
        f'{share} % full: {value:.2f} ms' for share, value in median.items()))
    for share in shares:
        report.add(f'{name}, {allocator}, {share} % full, p50',
                   median[share], 'ms', 'empty', median[0])
        report.add(f'{name}, {allocator}, {share} % full, p95',
                   base.percentile(taken[share], 0.95), 'ms')


def _beside(new: Callable[[], str], rounds: int, report: base.Report) -> None:
    # Neutron takes long to load, and only this needs it
    from tests.benchmarks import neutrondb

    ours, theirs = Ours(new()), neutrondb.Peer(new())
    for used in USED:
        network, subnet = ours.pool(used), theirs.subnet(used)
        taken: dict[str, list[float]] = {'ours': [], 'theirs': []}
        turns = rounds if used < 10000 else max(rounds // 6, 5)
        for number in range(turns + 3):
            mine = _time(lambda network=network: ours.reserve(network))
            other = _time(lambda subnet=subnet: theirs.allocate(subnet))
            if number >= 3:
                taken['ours'].append(mine)
                taken['theirs'].append(other)
        mine, other = (statistics.median(taken[who])
                       for who in ('ours', 'theirs'))
        base.say(f'allocation: {used} used: {mine:.2f} ms, neutrondb_ipam '
                 f'{other:.2f} ms: {other / mine:.1f} times as long')
        report.add(f'MariaDB, {used} used, p50', mine, 'ms',
                   'neutrondb_ipam', other)


def _at_once(name: str, url: str, processes: int, seconds: float,
             report: base.Report) -> None:
    ours = Ours(url)
    network = ours.pool(0, 'random')
    ours.inventory.database.engine.dispose()
    context = multiprocessing.get_context('fork')
    barrier = context.Barrier(processes)
    counts = context.SimpleQueue()
    started = [context.Process(target=_reserve_for, args=(
        url, network, number, barrier, seconds, counts))
        for number in range(processes)]
    for process in started:
        process.start()
    found = [counts.get() for _ in started]
    for process in started:
        process.join()
    total = sum(count for count, _ in found) / seconds
    slowest = max(longest for _, longest in found)
    base.say(f'allocation: {name}, {processes} processes: {total:.0f} '
             f'reservations a second, longest {slowest:.0f} ms')
    report.add(f'{name}, {processes} processes', total, 'reservations/s')
    report.add(f'{name}, {processes} processes, longest', slowest, 'ms')


def _reserve_for(url: str, network: str, number: int, barrier: Any,
                 seconds: float, counts: Any) -> None:
    inventory = api.Inventory(unit.new_conf(url), f'bench {number}')
    taken: list[float] = []

    def reserve() -> None:
        name = f'{number}-{len(taken)}'
        inventory.reserve(records.Requester(name, 'project'),
                          [records.Wanted(network, (name,))], 600)

    reserve()   # what is made once is made now
    barrier.wait()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        taken.append(_time(reserve))
    counts.put((len(taken), max(taken)))
