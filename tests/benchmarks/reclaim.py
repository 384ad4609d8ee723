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

"""One pass of vmip-reclaimer over a large cloud, in time and memory.

The pass is done by a process of its own, so that its memory is its own. The
cloud is simulated: it answers over HTTP, in pages, from another process, and
costs less than Nova and Neutron do. There is no DHCP server.
"""

import argparse
import contextlib
import multiprocessing
import pathlib
import tempfile
import time
from typing import Any

from tests.benchmarks import base
from tests.benchmarks import scale
from tests import databases
from tests import stubs
from tests.unit import base as unit
from vmip_plugin import cloud as vmip_cloud
from vmip_plugin import conf as vmip_conf
from vmip_plugin.inventory import api
from vmip_plugin.reclaim import tasks

#: deletes that nobody told of
DELETED = 50


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--servers', type=int, nargs='+',
                        default=[10000, 100000],
                        help='reclaim: servers in the cloud and addresses in '
                             'the list (default: %(default)s)')


def run(args: argparse.Namespace) -> None:
    """Measure on SQLite and MariaDB."""
    report = base.Report('reclaim')
    with tempfile.TemporaryDirectory() as folder, databases.MariaDB() as maria:
        for count in args.servers:
            for name, url in (
                    ('SQLite', f'sqlite:///{folder}/vmip-{count}'),
                    ('MariaDB', maria.databases.create())):
                scale.fill(url, count)
                with _simulated(count) as config:
                    found, memory = _alone(url, config, folder)
                seconds = sum(found.values())
                base.say(f'reclaim: {name}, {count} servers: {seconds:.1f} s '
                         f'(simulated API), {memory:.0f} MiB more than at '
                         'its start')
                for task, took in found.items():
                    report.add(f'{name}, {count} servers, simulated API, '
                               f'task {task}', took, 's')
                report.add(f'{name}, {count} servers, simulated API, one '
                           'pass', seconds, 's')
                report.add(f'{name}, {count} servers, simulated API, peak '
                           'memory', memory, 'MiB')
    report.end()


@contextlib.contextmanager
def _simulated(count: int) -> Any:
    """Run a cloud in another process; give its section."""
    context = multiprocessing.get_context('spawn')
    config, stop = context.SimpleQueue(), context.Event()
    process = context.Process(target=_serve, args=(count, config, stop))
    process.start()
    try:
        yield config.get()
    finally:
        stop.set()
        process.join()


def _serve(count: int, config: Any, stop: Any) -> None:
    with stubs.Cloud() as cloud:
        for n in range(count):
            cloud.add(unit.port_id(n), scale.mac(n),
                      str(unit.ip(scale.FIRST + n)), unit.SUBNET,
                      unit.NETWORK, unit.server_id(n))
        for n in range(0, count, count // DELETED):
            cloud.delete(unit.port_id(n))
        config.put(cloud.config)
        stop.wait()


def _alone(url: str, config: str, folder: str,
           ) -> tuple[dict[str, float], float]:
    """Do a pass in a new process; return its seconds and mebibytes."""
    path = pathlib.Path(folder) / 'reclaim.conf'
    path.write_text(f'[database]\nconnection = {url}\n{config}')
    context = multiprocessing.get_context('spawn')
    result = context.SimpleQueue()
    process = context.Process(target=_pass, args=(str(path), result))
    process.start()
    process.join()
    assert process.exitcode == 0
    found: tuple[dict[str, float], float] = result.get()
    return found


def _pass(path: str, result: Any) -> None:
    conf = vmip_conf.load(path)
    inventory = api.Inventory(conf, 'bench')
    cloud = vmip_cloud.Cloud(conf)
    # what is loaded at the first question is no matter of size
    assert cloud.port(unit.port_id(0)) is None
    assert len(inventory.pools()) == 1
    reclaimer = tasks.Reclaimer(
        conf, inventory, None, cloud)  # type: ignore[arg-type]
    before = scale.memory('VmRSS')
    seconds = {}
    noted = 0
    for task in reclaimer.tasks():
        if task.name in ('mend', 'work'):
            # there is no DHCP server
            continue
        began = time.monotonic()
        found = reclaimer.run(task)
        seconds[task.name] = time.monotonic() - began
        assert found.error is None, found
        noted += found.found
    assert noted >= DELETED, noted
    result.put((seconds, scale.memory('VmHWM') - before))
