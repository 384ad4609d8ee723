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

"""Events a second through one vmip-listener, beside designate-sink.

Both get the same recorded stream through the same RabbitMQ, into a queue each,
while they stand still; then one after the other works its queue off. Each has
a database on the same MariaDB. Ours asks Neutron over HTTP (a stub) about
every deleted port and serves a real dnsmasq; the peer has a real
designate-central behind it, but no worker and no DNS server.
"""

import argparse
from collections.abc import Callable
import os
import signal
import time

from tests.benchmarks import base
from tests.benchmarks import designate
from tests import daemon
from tests import databases
from tests import lab
from tests.notifications import stream
from tests import rabbit

#: seconds without a change after which nothing more will come
QUIET = 3


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--copies', type=int, default=10,
                        help='events: how often the recorded stream of 776 '
                             'messages is sent (default: %(default)s)')


def run(args: argparse.Namespace) -> None:
    """Beside the peer with one thread, as ours has one, and with its own."""
    report = base.Report('events')
    for threads in (1, 64):
        _beside(threads, args.copies, report)
    report.end()


def _beside(threads: int, copies: int, report: base.Report) -> None:
    """Let both stand still, send, and let one after the other go on."""
    with databases.MariaDB() as maria, rabbit.RabbitMQ() as broker, \
            lab.Bridge('10.255.255.254/8') as bridge, \
            lab.Folder() as folder, \
            lab.Dnsmasq(bridge, folder.path) as dnsmasq, \
            daemon.Site(maria.databases.create(), broker.url,
                        daemon.section(dnsmasq)) as site, \
            designate.Sink(broker, maria.databases.create(),
                           threads) as sink, \
            site.listener() as ours:
        lab.wait_for(lambda: ours.ready, 60)
        messages = [message for copy in range(1, copies + 1)
                    for message in stream.messages(copy)]
        site.claim(stream.ports(messages))
        groups = {'vmip': ours.process.pid, designate.POOL: sink.process.pid}
        for pid in groups.values():
            os.killpg(pid, signal.SIGSTOP)
        broker.publish(messages)
        seconds = {}
        for pool, counts in (
                ('vmip', lambda: site.counts(maria.databases)),
                (designate.POOL, lambda: sink.counts(maria.databases))):
            def busy(pool: str = pool,
                     counts: Callable[[], object] = counts) -> object:
                return broker.waiting(pool), counts()

            seconds[pool] = _work_off(groups[pool], busy)
            base.say(f'events: {pool}: {len(messages)} messages in '
                     f'{seconds[pool]:.1f} s; {counts()}')
            os.killpg(groups[pool], signal.SIGSTOP)
        rate, peer = (len(messages) / seconds[pool] for pool in groups)
        base.say(f'events: {rate:.0f} a second, designate-sink with {threads} '
                 f'threads {peer:.0f}: {rate / peer:.1f} times as many')
        report.add('events through one worker', rate, 'events/s',
                   f'designate-sink, threads: {threads}', peer)


def _work_off(group: int, busy: Callable[[], object]) -> float:
    """Let processes go on; return the seconds until the last change."""
    last = busy()
    began = changed = time.monotonic()
    os.killpg(group, signal.SIGCONT)
    while (now := time.monotonic()) - changed < QUIET:
        seen = busy()
        if seen != last:
            last, changed = seen, now
        time.sleep(0.05)
    return changed - began
