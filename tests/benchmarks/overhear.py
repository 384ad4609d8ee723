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

"""How many DHCP frames an agent overhears, and what that costs it.

Each figure is of so many DHCP frames in a second, half of them REQUESTs, half
ACKs, alone and beside 60,000 UDP frames in a second that are no DHCP. A large
cloud is the case of few beside many.
"""

import argparse
import ipaddress
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

from tests.benchmarks import base
from tests import lab
from tests.unit.agent import test_guests
from tests.unit.agent import test_tracker
from vmip_plugin.agent import link
from vmip_plugin.agent import service
from vmip_plugin.agent import tracker
from vmip_plugin import conf as conf_
from vmip_plugin.dhcp import packet

_RATES = (1000, 20000, 60000)
_GUESTS = 1000
_BURST = 50


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--listen', type=int, default=10,
                        metavar='SECONDS',
                        help='overhear: time of each rate '
                             '(default: %(default)s)')


def run(args: argparse.Namespace) -> None:
    """Overhear with a whole agent; the cloud knows none of the guests."""
    report = base.Report('overhear')
    for rate in _RATES:
        for other in (0, 60000):
            _measure(report, rate, other, args.listen)
    report.end()


def _measure(report: base.Report, rate: int, other: int, seconds: int
             ) -> None:
    with (lab.Bridge() as bridge, lab.Namespace() as guest,
          tempfile.TemporaryDirectory() as folder):
        bridge.attach(guest)
        here = [sys.executable, '-m', 'tests.benchmarks.overhear']
        agent = _start(bridge, *here, 'agent', folder)
        assert agent.stdout is not None
        agent.stdout.readline()
        senders = [_start(guest, *here, kind, str(wanted), str(seconds))
                   for kind, wanted in (('dhcp', rate), ('other', other))
                   if wanted]
        sent = [int(one.communicate()[0]) for one in senders]
        time.sleep(0.5)
        agent.send_signal(signal.SIGTERM)
        found = json.loads(agent.communicate()[0])
    title = f'{rate} DHCP pps' + (
        f' beside {other} others' if other else '')
    heard, stored = found['heard'] / sent[0], found['stored'] / sent[0]
    base.say(f'overhear: {title}: sent {sent} in {seconds} s, '
             f'{heard:.2%} heard, {stored:.2%} stored, '
             f'{found["cpu"] / seconds:.1%} of a CPU')
    report.add(f'{title}, really sent', sent[0] / seconds, 'pps')
    if other:
        report.add(f'{title}, others really sent', sent[1] / seconds, 'pps')
    report.add(f'{title}, heard', heard, 'share')
    report.add(f'{title}, stored', stored, 'share')
    report.add(f'{title}, CPU', found['cpu'] / seconds, 'CPUs')


def _start(where: lab.Namespace, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        where.command('env', f'PYTHONPATH={os.pathsep.join(sys.path)}',
                      *command), stdout=subprocess.PIPE)


def _agent(folder: str) -> None:
    """Be the agent; tell at the end what it heard and how long it took."""
    conf = conf_.new()
    conf([], default_config_files=[], default_config_dirs=[])
    for name, value in {'interfaces': ['br0'], 'sweep_interval': 3600,
                        'store': str(pathlib.Path(folder, 'x'))}.items():
        conf.set_override(name, value, 'agent')
    heard = 0
    agent = service.Agent(
        conf, test_guests.FakeCloud())  # type: ignore[arg-type]
    put = agent._heard.put_nowait

    def count(one: tracker.Overheard) -> None:
        nonlocal heard
        heard += 1
        put(one)

    agent._heard.put_nowait = count  # type: ignore[method-assign]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    agent.start()
    time.sleep(1)
    before = time.process_time()
    print('ready', flush=True)
    stop.wait()
    end = time.monotonic() + 60
    while agent._heard.unfinished_tasks and time.monotonic() < end:
        time.sleep(0.01)
    cpu = time.process_time() - before
    print(json.dumps({'heard': heard, 'stored': heard - agent._lost,
                      'cpu': cpu}), flush=True)
    agent.stop()
    os._exit(0)


def _frames(kind: str) -> list[bytes]:
    """Return what guests and server send, or something else."""
    frames = []
    for number in range(_GUESTS):
        mac = f'02:00:00:00:{number >> 8:02x}:{number & 255:02x}'
        address = str(ipaddress.IPv4Address('10.66.1.0') + number)
        said = {'xid': number, 'server': '10.66.0.1'}
        frames += [
            test_tracker.frame(mac, packet.MessageType.REQUEST, mac,
                               requested=address, client_id=b'\x01x', **said),
            test_tracker.frame(test_tracker.SERVER_MAC,
                               packet.MessageType.ACK, mac, op=2,
                               yiaddr=address, seconds=3600, **said)]
    if kind == 'other':
        # the same, from and to another port
        frames = [frame[:34] + b'\x13\x88\x13\x89' + frame[38:]
                  for frame in frames]
    return frames


def _send(kind: str, rate: int, seconds: int) -> None:
    """Send for some time, and tell how many."""
    frames = itertools.cycle(_frames(kind))
    sent = 0
    with link.Link('eth0', link.NOTHING) as opened:
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            if sent > (now - began) * rate:
                time.sleep(_BURST / rate)
                continue
            for frame in itertools.islice(frames, _BURST):
                opened.send(frame)
            sent += _BURST
    print(sent)


if __name__ == '__main__':
    if sys.argv[1] == 'agent':
        _agent(sys.argv[2])
    else:
        _send(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
