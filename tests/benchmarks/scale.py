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

"""A list of 100 000 addresses: made, listed, exported.

Each is done by a process of its own, so that its memory is its own.
"""

import argparse
from collections.abc import Callable
import multiprocessing
import os
import pathlib
import tempfile
import time
from typing import Any

from tests.benchmarks import base
from tests import databases
from tests.unit import base as unit
from vmip_plugin.cmd import manage
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records

FIRST = int(unit.ip('10.0.0.1'))


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--addresses', type=int, default=100000,
                        help='scale: addresses in the list (default and '
                             'most: %(default)s)')


def run(args: argparse.Namespace) -> None:
    """Measure on SQLite and MariaDB."""
    report = base.Report('scale')
    with tempfile.TemporaryDirectory() as folder, databases.MariaDB() as maria:
        for name, url in (('SQLite', f'sqlite:///{folder}/vmip'),
                          ('MariaDB', maria.databases.create())):
            began = time.monotonic()
            fill(url, args.addresses)
            report.add(f'{name}, pool create --adopt of {args.addresses}',
                       time.monotonic() - began, 's')
            for what, call in (('list', _list), ('export CSV', _export)):
                seconds, mebibytes = _alone(call, url, folder,
                                            args.addresses)
                base.say(f'scale: {name}, {what}: {seconds:.1f} s, '
                         f'{mebibytes:.0f} MiB more than at its start')
                report.add(f'{name}, {what}, {args.addresses} addresses',
                           seconds, 's')
                report.add(f'{name}, {what}, memory', mebibytes, 'MiB')
    report.end()


def fill(url: str, count: int) -> None:
    """Make a list in which as many servers have an address."""
    inventory = api.Inventory(unit.new_conf(url), 'bench')
    inventory.database.upgrade()
    inventory.create_pool(
        name='pool', network_id=unit.NETWORK, subnet_id=unit.SUBNET,
        cidr='10.0.0.0/15', ranges=[
            (unit.ip(FIRST), unit.ip('10.1.255.254'))],
        adopt=[records.InUse(unit.ip(FIRST + n), unit.PROJECT,
                             unit.server_id(n), unit.port_id(n), mac(n))
               for n in range(count)])
    inventory.database.engine.dispose()


def mac(number: int) -> str:
    """Return the MAC of a server's port."""
    return ':'.join(f'{byte:02x}' for byte in (
        0xfa163e000000 + number).to_bytes(6))


def _alone(call: Callable[[str, pathlib.Path, int], None], url: str,
           folder: str, count: int) -> tuple[float, float]:
    """Run it in a new process; return its seconds and mebibytes."""
    context = multiprocessing.get_context('spawn')
    result = context.SimpleQueue()
    process = context.Process(target=_measured, args=(
        call, url, pathlib.Path(folder), count, result))
    process.start()
    process.join()
    assert process.exitcode == 0
    seconds, mebibytes = result.get()
    return seconds, mebibytes


def _measured(call: Callable[[str, pathlib.Path, int], None], url: str,
              folder: pathlib.Path, count: int, result: Any) -> None:
    before = memory('VmRSS')
    began = time.monotonic()
    call(url, folder, count)
    seconds = time.monotonic() - began
    result.put((seconds, memory('VmHWM') - before))


def memory(which: str) -> float:
    """Return a figure of this process's memory, in MiB (proc(5))."""
    # getrusage's would be that of whoever started it, if that is more
    status = pathlib.Path('/proc/self/status').read_text()
    line = next(line for line in status.splitlines()
                if line.startswith(which))
    return int(line.split()[1]) / 1024


def _list(url: str, folder: pathlib.Path, count: int) -> None:
    inventory = api.Inventory(unit.new_conf(url), 'bench')
    assert sum(1 for _ in inventory.addresses()) == count


def _export(url: str, folder: pathlib.Path, count: int) -> None:
    (folder / 'vmip.conf').write_text(f'[database]\nconnection = {url}\n')
    assert manage.main(['--config-file', str(folder / 'vmip.conf'), '-q',
                        'address', 'export', str(folder / 'csv')]) == 0
    with open(folder / 'csv', encoding='utf-8') as file:
        assert sum(1 for _ in file) == count + 1
    os.unlink(folder / 'csv')
