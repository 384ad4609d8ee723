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

"""One sweep of an agent over many leases."""

import argparse
import ipaddress
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

from tests.benchmarks import base
from tests import lab
from tests.unit.agent import test_guests
from vmip_plugin.agent import servers
from vmip_plugin.agent import store
from vmip_plugin.agent import tracker
from vmip_plugin.agent import worker
from vmip_plugin import conf as conf_

#: of these guests one does not answer
_SILENT = 10


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--leases', type=int, default=10000,
                        help='sweep: leases (default: %(default)s)')


def run(args: argparse.Namespace) -> None:
    """Real ARP to a process that answers for the guests; simulated cloud."""
    report = base.Report('sweep')
    with lab.Bridge() as bridge, lab.Namespace() as guests:
        bridge.attach(guests)
        guests.run('ip', 'link', 'set', 'eth0', 'promisc', 'on')
        answers = subprocess.Popen(guests.command(
            'env', f'PYTHONPATH={os.pathsep.join(sys.path)}', sys.executable,
            '-m', 'tests.benchmarks.sweep'), stdout=subprocess.PIPE)
        try:
            assert answers.stdout is not None
            answers.stdout.readline()
            bridge.inside(lambda: _sweeps(report, args.leases))
        finally:
            answers.kill()
            answers.wait()
    report.end()


def _sweeps(report: base.Report, count: int) -> None:
    conf = conf_.new()
    conf([], default_config_files=[], default_config_dirs=[])
    conf.set_override('interfaces', ['br0'], 'agent')
    leases = store.LeaseStore(':memory:', 2 * count)
    cloud: Any = test_guests.FakeCloud()
    now = time.time()
    for number in range(count):
        mac = _mac(number)
        address = ipaddress.IPv4Address('10.66.1.0') + number
        leases.record([tracker.Overheard(
            tracker.Kind.GRANTED, address, mac, 'br0', now, dhcp_server=(
                ipaddress.IPv4Address('10.66.0.1')))])
        leases.identify((str(address), mac), str(number), str(number))
        cloud.has.append(test_guests.port(str(number), mac, str(number)))
    by_mac = {port.mac: port for port in cloud.has}
    cloud.ports = lambda mac_address: (by_mac[mac] for mac in mac_address)
    one = worker.Worker(conf, cloud, leases, servers.Servers({}),
                        lambda: True, threading.Event())
    taken, cpu = [], []
    for _ in range(3):
        began, busy = time.monotonic(), time.thread_time()
        one.sweep()
        taken.append(time.monotonic() - began)
        cpu.append(time.thread_time() - busy)
    verdicts = [lease.reason for lease in leases.page(None, 2 * count)]
    alive = verdicts.count('the guest answers')
    assert alive + verdicts.count('the guest exists') == count
    base.say(f'sweep: {count} leases in {taken} s, {alive} answer')
    options = conf.agent
    report.add(f'{count} leases, median', sorted(taken)[1], 's',
               'the waits alone',
               options.probe_count * options.probe_timeout)
    report.add(f'{count} leases, CPU', sorted(cpu)[1], 's')
    report.add('answered', alive / (count - len(range(0, count, _SILENT))),
               'share of those who do')
    leases.close()


def _mac(number: int) -> str:
    return f'02:00:00:00:{number >> 8:02x}:{number & 255:02x}'


def _answer() -> None:
    """Answer ARP for every MAC of ours but each tenth."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        sock.bind(('eth0', 0x0806))
        print('ready', flush=True)
        while True:
            frame = sock.recv(2048)
            mine = frame[:6]
            if (mine[:4] != b'\2\0\0\0' or frame[20:22] != b'\0\1'
                    or int.from_bytes(mine[4:], 'big') % _SILENT == 0):
                continue
            sock.send(frame[6:12] + mine + frame[12:20] + b'\0\2' + mine
                      + frame[38:42] + frame[22:32])


if __name__ == '__main__':
    _answer()
