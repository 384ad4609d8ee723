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

"""How fast each DHCP server follows the list, and what its guests feel.

Every server is the real one, on a bridge of its own, and is asked on the wire.
Its peer in the same run is what scripts around dnsmasq do: for each change
they write the whole file anew and send SIGHUP.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
import contextlib
import functools
import ipaddress
import multiprocessing
from multiprocessing import connection
import pathlib
import signal
import statistics
import tempfile
import time

import sqlalchemy as sa

from tests.benchmarks import base
from tests.benchmarks import shared
from tests.contract import base as contract
from tests.contract import dnsmasq
from tests.contract import isc
from tests.contract import kea
from tests.contract import remote
from tests import lab
from tests.unit import base as unit
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin.dhcp import work
from vmip_plugin.inventory import api
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import models

BURST = 1000
DRIFT = 100
#: longest time in seconds for a server to do anything
PATIENCE = 600.0
NAIVE = 'rewrite and SIGHUP'
#: the address of the guest that is watched
WATCHED = 65300


class _Dnsmasq(dnsmasq.DnsmasqContract):

    options = f'timeout = {PATIENCE:.0f}'


class _Shared(shared.SharedContract):

    options = _Dnsmasq.options


class _Kea22(kea.KeaContract):

    version, kind = '2.2', 'mariadb'
    options = _Dnsmasq.options


class _Kea30(_Kea22):

    version, kind = '3.0', 'postgresql'


class _KeaHostCmds(_Kea22):

    version, kind, host_cmds = '3.0', None, True
    options = f'{_Dnsmasq.options}\nconfig_write = false'


class _Remote(remote.RemoteContract):

    options = f'timeout = {PATIENCE:.0f}'

    def make_server(self) -> remote.RemoteServer:
        type(self).site = self.useFixture(remote.Site())
        return super().make_server()


#: what makes each driver's server
SERVERS: dict[str, type[contract.WireContract]] = {
    'dnsmasq': _Dnsmasq,
    'dnsmasq-shared': _Shared,
    'isc': isc.IscContract,
    'kea-mariadb': _Kea22,
    'kea-postgresql': _Kea30,
    'kea-host_cmds': _KeaHostCmds,
    'remote': _Remote,
}


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--driver', action='append', choices=sorted(SERVERS),
                        help='dhcp: only this driver (repeatable)')
    parser.add_argument('--sizes', type=int, nargs='+', metavar='N',
                        default=[1000, 10000, 65000],
                        help='dhcp: entries on the server, at least and at '
                             f'most {BURST} and 65000 (default: '
                             '1000 10000 65000)')
    parser.add_argument('--changes', type=int, default=20,
                        help='dhcp: single changes that are measured; fewer '
                             'of the slow ones (default: %(default)s)')


def run(args: argparse.Namespace) -> None:
    """Measure each driver, and its peer, at each size."""
    report = base.Report('dhcp')
    for size in args.sizes:
        peer = _naive(size, args.changes)
        for kind in args.driver or sorted(SERVERS):
            for figure, value in _driver(kind, size, args.changes).items():
                report.add(f'{kind}, {size} entries, {figure}', value, 's',
                           NAIVE if figure in peer else None,
                           peer.get(figure))
    report.end()


def _entry(number: int, host: int | None = None) -> dhcp.HostEntry:
    return dhcp.HostEntry(
        ':'.join(f'{byte:02x}' for byte in (
            0xfa1640000000 + number).to_bytes(6)),
        ipaddress.IPv4Address('10.66.0.1')
        + (number if host is None else host))


class Watch:
    """Asks for one guest's address all the time, in a process of its own."""

    def __init__(self, bridge: lab.Bridge) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._prober = lab.Prober(bridge)
        self._process = multiprocessing.get_context('fork').Process(
            target=_watch, args=(self._prober, theirs))

    def __enter__(self) -> 'Watch':
        self._prober.__enter__()
        self._process.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.join()
        self._prober.__exit__(None, None, None)

    def longest(self) -> float:
        """Return the longest time without an answer since the last call."""
        self._pipe.send(None)
        seconds: float = self._pipe.recv()
        return seconds


def _watch(prober: lab.Prober, pipe: connection.Connection) -> None:
    longest, last = 0.0, time.monotonic()
    while True:
        answered = prober.discover(_entry(WATCHED).mac, 0.1) is not None
        now = time.monotonic()
        longest = max(longest, now - last)
        if answered:
            last = now
        if pipe.poll():
            pipe.recv()
            pipe.send(longest)
            longest, last = 0.0, now
        time.sleep(0.002)


def _until_offered(prober: lab.Prober, *wanted: dhcp.HostEntry) -> None:
    end = time.monotonic() + PATIENCE
    for item in wanted:
        while prober.discover(item.mac, 0.02) != item.address:
            if time.monotonic() > end:
                raise TimeoutError(f'{item} is not offered')


def _timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def _changes(size: int, wanted: int, put: Callable[[dhcp.HostEntry], object],
             replace: Callable[[dhcp.HostEntry, dhcp.HostEntry], object],
             prober: lab.Prober) -> dict[str, float]:
    """Return the figures of single changes, as many as there is time for.

    :param replace: gives the first entry's address to the second's MAC.
    """
    def put_one(number: int) -> None:
        new = _entry(100000 + number, size + number)
        put(new)
        _until_offered(prober, new)

    def replace_one(number: int) -> None:
        old = _entry(100000 + number, size + number)
        new = _entry(200000 + number, size + number)
        replace(old, new)
        _until_offered(prober, new)

    figures: dict[str, float] = {}
    for figure, change in (('put to OFFER', put_one),
                           ('remove to OFFER for another MAC', replace_one)):
        taken: list[float] = []
        while len(taken) < wanted and (len(taken) < 3 or sum(taken) < 60):
            taken.append(_timed(functools.partial(change, len(taken))))
        figures[f'{figure}, median'] = statistics.median(taken)
        figures[f'{figure}, max'] = max(taken)
    return figures


def _driver(kind: str, size: int, changes: int) -> dict[str, float]:
    figures = {}
    case = SERVERS[kind]('test_round_trip')
    try:
        server = case.make_server()
        driver = server.driver()
        prober = case.enter(lab.Prober(server.bridge))
        watched = _entry(WATCHED)
        _put(driver, [watched])
        _until_offered(prober, watched)
        held = [_entry(number) for number in range(size)]
        with Watch(server.bridge) as watch:
            base.say(f'dhcp: {kind}, {size} entries: filling')
            filled, burst = held[:-BURST], held[-BURST:]
            silence = {}
            if filled:
                figures[f'{len(filled)} in one call'] = _timed(lambda: (
                    _put(driver, filled), _until_offered(prober, filled[-1])))
                silence[f'{len(filled)} in one call'] = watch.longest()
            figures[f'{BURST} in a burst'] = _timed(lambda: (
                [_put(driver, batch) for batch in work._batches(burst)],
                _until_offered(prober, *burst)))
            silence['a burst'] = watch.longest()
            base.say(f'dhcp: {kind}, {size} entries: single changes')
            figures |= _changes(
                size, changes, lambda new: _put(driver, [new]),
                lambda old, new: (_done(driver.remove([old])),
                                  _put(driver, [new])), prober)
            silence['single changes'] = watch.longest()
            base.say(f'dhcp: {kind}, {size} entries: comparison')
            # in this order the guest that is watched is not among the lost
            figures |= _sync(driver, sorted(driver.entries()), watch)
            silence['sync'] = watch.longest()
    finally:
        case.doCleanups()
    return figures | {f'longest silence, {what}': seconds
                      for what, seconds in silence.items()} | {
                          'longest silence': max(silence.values())}


def _put(driver: dhcp.DHCPDriver, entries: Sequence[dhcp.HostEntry]) -> None:
    _done(driver.put(entries))


def _done(failures: dhcp.Failures) -> None:
    assert not failures, next(iter(failures.items()))


def _sync(driver: dhcp.DHCPDriver, held: Sequence[dhcp.HostEntry],
          watch: Watch) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        conf = unit.new_conf(f'sqlite:///{folder}/vmip')
        inventory = api.Inventory(conf, 'bench')
        inventory.database.upgrade()
        _list(inventory, driver.name, held)
        worker = work.Worker(conf, inventory, {driver.name: driver},
                             None, None)  # type: ignore[arg-type]
        found: list[object] = []
        compared = _timed(lambda: found.extend(
            work.differences(inventory, driver)))
        assert not found
        _done(driver.remove(held[:DRIFT]))
        _put(driver, [_entry(300000 + number, 65000 + number)
                      for number in range(DRIFT)])
        watch.longest()     # what made the drift does not count
        mended = _timed(lambda: found.extend(
            worker.sync(driver.name).values()))
        assert found == [''] * (2 * DRIFT), found
        inventory.database.engine.dispose()
    return {'comparison with the list': compared,
            f'sync of {DRIFT} lost and {DRIFT} strays': mended}


def _list(inventory: api.Inventory, server: str,
          held: Sequence[dhcp.HostEntry]) -> None:
    """Fill a list with what a server has."""
    pool = inventory.create_pool(
        name='pool', network_id=unit.NETWORK, subnet_id=unit.SUBNET,
        cidr='10.66.0.0/16', dhcp_servers=[server],
        ranges=[(unit.ip('10.66.0.1'), unit.ip('10.66.255.250'))])
    now = clock.now()
    with inventory.database.write('bench') as session:
        session.execute(sa.insert(models.AddressRow), [{
            'id': number, 'pool_id': pool.id, 'address': item.address,
            'pick_key': number, 'state': 'claimed', 'generation': 1,
            'changed_at': now, 'mac': item.mac,
            'port_id': unit.port_id(number)}
            for number, item in enumerate(held, 1)])
        session.execute(sa.insert(models.HostEntryRow), [{
            'address_id': number, 'server': server, 'mac': item.mac,
            'present': True, 'done': True, 'next_try_at': now}
            for number, item in enumerate(held, 1)])


def _naive(size: int, changes: int) -> dict[str, float]:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(lab.Folder()).path
        bridge = stack.enter_context(lab.Bridge())
        path = folder / 'naive'
        path.touch()
        server = stack.enter_context(lab.Dnsmasq(
            bridge, folder, extra=['--dhcp-authoritative',
                                   f'--dhcp-hostsfile={path}']))
        prober = stack.enter_context(lab.Prober(bridge))
        held = {item.address: item for item in
                [_entry(number) for number in range(size)]
                + [_entry(WATCHED)]}

        def put(new: dhcp.HostEntry) -> None:
            held[new.address] = new
            _rewrite(path, held.values())
            assert server.process is not None
            server.process.send_signal(signal.SIGHUP)

        base.say(f'dhcp: {NAIVE}, {size} entries')
        put(_entry(WATCHED))
        _until_offered(prober, _entry(WATCHED))
        watch = stack.enter_context(Watch(bridge))
        figures = _changes(size, changes, put, lambda old, new: put(new),
                           prober)
        figures['longest silence'] = watch.longest()
        # so many one after the other would take hours
        figures[f'{BURST} in a burst'] = (
            BURST * figures['put to OFFER, median'])
    return figures


def _rewrite(path: pathlib.Path, held: Iterable[dhcp.HostEntry]) -> None:
    path.write_text(''.join(f'{item.mac},{item.address}\n'
                            for item in held))
