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

"""What the filter adds to POST /servers.

Several nova-api serve the same cloud in the same run and get the same requests
in turns: one with the filter, one with the filter and no hook in it, and two
without, which tell by how much two that are alike differ here. nova-conductor
is stopped meanwhile, so that what is measured is the API and not the builds
behind it.

The one without a hook tells the work of the hook from what the filter does to
the rest: see :mod:`vmip_plugin.nova.stack`.

The list is in the MariaDB that Nova's own tables are in, as it is where there
are several controllers, or in SQLite, as it is where nothing is configured.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
import concurrent.futures
import contextlib
import os
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import kombu
import requests
import sqlalchemy as sa

from minicloud import services

from tests.benchmarks import base
from tests.cloud import harness
from tests.cloud import story
from vmip_plugin import conf as vmip_conf
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin import types

#: nova-api -> its port
PORTS = {'filter': 18781, 'no hook': 18782,
         'plain': 18783, 'plain too': 18784}
DATABASE = 'vmip_bench'
#: what has the list open
SERVICES = ('nova-api', 'neutron-api', 'neutron-rpc', 'vmip-listener',
            'vmip-reclaimer', 'vmip-agent')
SIZE = 65000
#: how full the pools are, in addresses
USED = {'empty': 0, '99.9 % full': SIZE * 999 // 1000}


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--requests', type=int, default=200,
                        help='latency: requests to each nova-api for each '
                             'number of clients (default: %(default)s)')
    parser.add_argument('--lists', nargs='+', default=['mariadb', 'sqlite'],
                        choices=('mariadb', 'sqlite'),
                        help='latency: where the list is (default: both)')


def run(args: argparse.Namespace) -> None:
    """Measure with an empty and a nearly full pool, and 1 to 32 clients."""
    report = base.Report('latency')
    harness.minicloud.up('fake')
    for kind in args.lists:
        with (_list_in_mariadb() if kind == 'mariadb'
              else contextlib.nullcontext()):
            _run(kind, args.requests, report)
    report.end()


def _run(kind: str, count: int, report: base.Report) -> None:
    cloud = harness.Cloud()
    told = story.Story(cloud, lambda line: None)
    told.prepare()
    cloud.sdk('admin').compute.update_quota_set(
        cloud.sdk().current_project_id, instances=-1, cores=-1, ram=-1)
    networks = {how: _network(cloud, f'bench-{number}', number, used)
                for number, (how, used) in enumerate(USED.items())}
    with contextlib.ExitStack() as stack:
        pids = {name: stack.enter_context(_nova_api(name)) for name in PORTS}
        stack.enter_context(told.without('nova-conductor'))
        for clients in (1, 8, 32):
            for how, network in networks.items():
                _measure(cloud, network, pids, clients, count,
                         f'list in {kind}, pool {how}', report)
                base.say('latency: deleting the servers')
                _delete_all(cloud)
        _forget_builds()


@contextlib.contextmanager
def _list_in_mariadb() -> Iterator[None]:
    """Have the list in the cloud's MariaDB for a while."""
    server = harness.settings.values()['database_url']
    text = f'[database]\nconnection = {server}/{DATABASE}\n'
    engine = sa.create_engine(server, isolation_level='AUTOCOMMIT')
    with engine.connect() as connection, tempfile.NamedTemporaryFile(
            'w', suffix='.conf') as more:
        for statement in ('DROP DATABASE IF EXISTS', 'CREATE DATABASE'):
            connection.execute(sa.text(f'{statement} {DATABASE}'))
        more.write(text)
        more.flush()
        conf = vmip_conf.new()
        vmip_conf.parse(conf, [
            '--config-file', str(harness.settings.VMIP_CONF),
            '--config-file', more.name], 'bench')
        api.Inventory(conf, 'bench').database.upgrade()
    with harness.configured('vmip.conf', text, *SERVICES):
        yield
    with engine.connect() as connection:
        connection.execute(sa.text(f'DROP DATABASE {DATABASE}'))


def _network(cloud: harness.Cloud, name: str, number: int, used: int) -> str:
    """Return the id of a network whose pool has so many addresses in use.

    Neutron does not know those: it is not asked while a server is created.
    """
    admin = cloud.sdk('admin').network
    network = admin.find_network(name) or admin.create_network(
        name=name, shared=True, provider_network_type='local')
    subnet = admin.find_subnet(name) or admin.create_subnet(
        name=name, network_id=network.id, ip_version=4,
        cidr=f'10.{number}.0.0/16', enable_dhcp=False)
    if name not in {pool.name for pool, _ in cloud.inventory.pools()}:
        first = types.parse_address(f'10.{number}.0.10')
        cloud.inventory.create_pool(
            name=name, network_id=network.id, subnet_id=subnet.id,
            cidr=subnet.cidr, dhcp_servers=['dnsmasq1'],
            ranges=[(first, first + SIZE - 1)], adopt=[
                records.InUse(first + n, None, None, None, None)
                for n in range(SIZE) if n * used // SIZE
                != (n + 1) * used // SIZE])
    return str(network.id)


@contextlib.contextmanager
def _nova_api(name: str) -> Iterator[int]:
    """A further nova-api, with the filter or with the stock pipeline.

    The cloud's own is asked for other things meanwhile. Yields the id of its
    process group.
    """
    port = PORTS[name]
    spec = next(s for s in services.table(services.Mode('fake'))
                if s.name == 'nova-api')
    command = [str(word).replace(str(spec.port), str(port))
               for word in spec.command]
    folder = harness.settings.STATE / f'bench-{port}'
    folder.mkdir(exist_ok=True)
    etc = (harness.settings.VENV / 'etc/nova' if name.startswith('plain')
           else harness.settings.ETC / 'nova')
    vmip = folder / 'vmip.conf'
    vmip.write_text(harness.settings.VMIP_CONF.read_text() + (
        '[reserve]\nhooks =\n' if name == 'no hook' else ''))
    (folder / 'nova.conf').write_text(
        (harness.settings.ETC / 'nova/nova.conf').read_text())
    (folder / 'api-paste.ini').write_text(
        (etc / 'api-paste.ini').read_text().replace(
            str(harness.settings.VMIP_CONF), str(vmip)))
    with open(harness.settings.LOG / f'bench-nova-api-{port}.log',
              'ab') as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, **spec.env,
                 'OS_NOVA_CONFIG_DIR': str(folder)})
    try:
        check = services.answers(port)
        harness.wait_for(f'nova-api at {port}', lambda: check(0.0), 90, 0.5)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _measure(cloud: harness.Cloud, network: str, pids: Mapping[str, int],
             clients: int, count: int, how: str, report: base.Report) -> None:
    sdk = cloud.sdk()
    token = sdk.auth_token
    body = {'server': {
        'name': 'bench', 'imageRef': sdk.image.find_image('guest').id,
        'flavorRef': sdk.compute.find_flavor('tiny').id,
        'networks': [{'uuid': network}]}}
    session = requests.Session()

    def post(name: str) -> float:
        began = time.perf_counter()
        answer = session.post(
            f'http://127.0.0.1:{PORTS[name]}/v2.1/servers', json=body,
            headers={'X-Auth-Token': token,
                     'OpenStack-API-Version': 'compute 2.90'}, timeout=60)
        taken = time.perf_counter() - began
        assert answer.status_code == 202, answer.text
        return taken

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for name in PORTS:
            # Every worker of each is warm, not only the one that a single
            # client meets: the first request loads the hooks.
            list(pool.map(post, [name] * 16))
    _give_back(cloud)
    # Each has all clients for its turn, and none always follows the same.
    # What the machine does meanwhile meets all of them in each round.
    rounds: list[dict[str, list[float]]] = []
    spent: list[dict[str, list[float]]] = []
    turn = max(clients, 10)
    ours, unhooked, one, other = PORTS
    dice = random.Random(1)
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        while turn * len(rounds) < count:
            taken, cpu = {}, {}
            for name in dice.sample(list(PORTS), len(PORTS)):
                before = _cpu(pids[name])
                taken[name] = list(pool.map(post, [name] * turn))
                cpu[name] = [(_cpu(pids[name]) - before) / turn]
                given_back = _give_back(cloud)
                assert (given_back >= turn if name == ours
                        else not given_back), f'{name} reserved {given_back}'
            rounds.append(taken)
            spent.append(cpu)
    for figure, seen, of in (
            ('median', rounds, statistics.median),
            ('mean', rounds, statistics.fmean),
            ('p95', rounds, lambda values: base.percentile(values, 0.95)),
            ('CPU of nova-api', spent, statistics.fmean)):
        on, bare, off = (1000 * of(_all(seen, which))
                         for which in ([ours], [unhooked], [one, other]))
        base.say(f'latency: {how}, {clients} clients, {figure}: '
                 f'{on:.1f} ms with the filter, {off:.1f} ms without '
                 f'({_ratio(seen, of, [ours], [one, other])}), {bare:.1f} ms '
                 'with the filter and no hook '
                 f'({_ratio(seen, of, [ours], [unhooked])}); without it, one '
                 f'to the other: {_ratio(seen, of, [one], [other])}')
        for peer, theirs in (('without the filter', off),
                             ('the filter without a hook', bare)):
            report.add(f'POST /servers, {how}, {clients} clients, {figure}',
                       on, 'ms', peer, theirs)


def _cpu(group: int) -> float:
    """Return the seconds of CPU that a group of processes has taken.

    It differs less from turn to turn than the time does.
    """
    ticks = 0
    for process in pathlib.Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # proc(5): pgrp, utime and stime, counted from behind the name
            fields = process.read_text().rpartition(')')[2].split()
            if int(fields[2]) == group:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf('SC_CLK_TCK')


def _all(rounds: Sequence[dict[str, list[float]]],
         which: Sequence[str]) -> list[float]:
    return [value for taken in rounds for name in which
            for value in taken[name]]


def _ratio(rounds: Sequence[dict[str, list[float]]],
           of: Callable[[list[float]], float],
           ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Tell how a figure of some compares with that of others.

    And between what that is, in 95 of 100 cases: the bootstrap's interval,
    the ratio of as many rounds that are drawn from these again and again.
    """
    dice = random.Random(1)
    found = []
    for drawn in (rounds, *(dice.choices(rounds, k=len(rounds))
                            for _ in range(1000))):
        found.append(of(_all(drawn, ours)) / of(_all(drawn, theirs)) - 1)
    return (f'{found[0]:+.1%}, {base.percentile(found[1:], 0.025):+.1%} to '
            f'{base.percentile(found[1:], 0.975):+.1%}')


def _forget_builds() -> None:
    """Drop what nova-conductor was asked for: those servers are gone."""
    url = harness.settings.values()['transport_url']
    with kombu.Connection(url.replace('rabbit:', 'amqp:', 1)) as connection:
        connection.default_channel.queue_purge('conductor')


def _give_back(cloud: harness.Cloud) -> int:
    """Cancel what is reserved, so that every turn finds the pool alike."""
    reserved = [address for _, address in cloud.inventory.addresses(
        state=[states.State.RESERVED])]
    cloud.inventory.cancel(reserved, 'benchmark')
    return len(reserved)


def _delete_all(cloud: harness.Cloud) -> None:
    compute = cloud.sdk().compute
    servers = [server.id for server in compute.servers(details=False)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(compute.delete_server, servers))
