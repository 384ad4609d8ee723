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

Two nova-api serve the same cloud in the same run, one with the filter and one
without, and get the same requests in turns. nova-conductor is stopped
meanwhile, so that what is measured is the API and not the builds behind it.
"""

import argparse
from collections.abc import Iterator
import concurrent.futures
import contextlib
import itertools
import os
import statistics
import subprocess
import time

import requests

from minicloud import services

from tests.benchmarks import base
from tests.cloud import harness
from tests.cloud import story

PLAIN_PORT = 18775
NETWORK = 'bench'


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--requests', type=int, default=200,
                        help='latency: requests with and without the filter '
                             'for each number of clients '
                             '(default: %(default)s each)')


def run(args: argparse.Namespace) -> None:
    """Measure with 1 and with 8 clients."""
    report = base.Report('latency')
    harness.minicloud.up('fake')
    cloud = harness.Cloud()
    told = story.Story(cloud, lambda line: None)
    told.prepare()
    network = _network(cloud)
    cloud.sdk('admin').compute.update_quota_set(
        cloud.sdk().current_project_id, instances=-1, cores=-1, ram=-1)
    with _plain_api(), told.without('nova-conductor'):
        for clients in (1, 8):
            _measure(cloud, network, clients, args.requests, report)
            base.say('latency: deleting the servers')
            _delete_all(cloud)
    cloud.forget_servers()
    report.end()


def _network(cloud: harness.Cloud) -> str:
    """Return the id of a network with a pool large enough."""
    admin = cloud.sdk('admin').network
    network = admin.find_network(NETWORK) or admin.create_network(
        name=NETWORK, shared=True, provider_network_type='local')
    if admin.find_subnet(NETWORK) is None:
        admin.create_subnet(
            name=NETWORK, network_id=network.id, ip_version=4,
            cidr='198.18.0.0/16', enable_dhcp=False)
    cloud.pool(NETWORK, NETWORK, '198.18.1.0', '198.18.200.255')
    return str(network.id)


@contextlib.contextmanager
def _plain_api() -> Iterator[None]:
    """A second nova-api, like the first but with the stock pipeline."""
    spec = next(s for s in services.table(services.Mode('fake'))
                if s.name == 'nova-api')
    port = str(spec.port)
    command = [str(word).replace(port, str(PLAIN_PORT))
               for word in spec.command]
    folder = harness.settings.STATE / 'bench'
    folder.mkdir(exist_ok=True)
    (folder / 'nova.conf').write_text(
        (harness.settings.ETC / 'nova/nova.conf').read_text())
    (folder / 'api-paste.ini').write_text(
        (harness.settings.VENV / 'etc/nova/api-paste.ini').read_text())
    with open(harness.settings.LOG / 'bench-nova-api.log', 'ab') as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log,
            env={**os.environ, **spec.env,
                 'OS_NOVA_CONFIG_DIR': str(folder)})
    try:
        check = services.answers(PLAIN_PORT)
        harness.wait_for('a nova-api without the filter',
                         lambda: check(0.0), 90, 0.5)
        yield
    finally:
        process.terminate()
        process.wait(30)


def _measure(cloud: harness.Cloud, network: str, clients: int, count: int,
             report: base.Report) -> None:
    sdk = cloud.sdk()
    token = sdk.auth_token
    body = {'server': {
        'name': 'bench', 'imageRef': sdk.image.find_image('guest').id,
        'flavorRef': sdk.compute.find_flavor('tiny').id,
        'networks': [{'uuid': network}]}}
    urls = {'on': harness.settings.PORTS['nova'], 'off': PLAIN_PORT}
    session = requests.Session()

    def post(mode: str) -> float:
        began = time.perf_counter()
        answer = session.post(
            f'http://127.0.0.1:{urls[mode]}/v2.1/servers', json=body,
            headers={'X-Auth-Token': token,
                     'OpenStack-API-Version': 'compute 2.90'}, timeout=60)
        taken = time.perf_counter() - began
        assert answer.status_code == 202, answer.text
        return taken

    taken: dict[str, list[float]] = {'on': [], 'off': []}
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        for mode in ('on', 'off'):
            list(pool.map(post, [mode] * 8))    # both are warm
        # In turns, and each turn has all clients at one of the two.
        turn = max(clients * 2, 10)
        for mode in itertools.cycle(('on', 'off')):
            taken[mode] += pool.map(post, [mode] * turn)
            if min(map(len, taken.values())) >= count:
                break
    rows = [a for _, a in cloud.inventory.addresses(pool=NETWORK)]
    assert len(rows) == len(taken['on']) + 8, 'not every request reserved'
    for figure, of in (
            ('median', statistics.median),
            ('p95', lambda values: base.percentile(values, 0.95))):
        on, off = (1000 * of(taken[mode]) for mode in ('on', 'off'))
        base.say(f'latency: {clients} clients, {figure}: {on:.1f} ms with '
                 f'the filter, {off:.1f} ms without')
        report.add(f'POST /servers, {clients} clients, {figure}', on, 'ms',
                   'without the filter', off)
        report.add(f'added by the filter, {clients} clients, {figure}',
                   on - off, 'ms')


def _delete_all(cloud: harness.Cloud) -> None:
    compute = cloud.sdk().compute
    servers = [server.id for server in compute.servers(details=False)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(compute.delete_server, servers))
    reserved = [a for _, a in cloud.inventory.addresses(pool=NETWORK)]
    cloud.inventory.cancel(reserved, 'benchmark')
