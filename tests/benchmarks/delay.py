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

"""From port.create.end on the bus to the host entry being live.

A real RabbitMQ, MariaDB and dnsmasq. Live is an entry when its file is in
place: dnsmasq reads it within a millisecond, and the contract tests see to it
that the next DISCOVER is answered. In each run one is also asked for on the
wire.
"""

import argparse
from collections.abc import Iterator
import itertools
import os
import pathlib
import re
import signal
import statistics
import time

from tests.benchmarks import base
from tests import daemon
from tests import databases
from tests import lab
from tests import notifications
from tests.notifications import stream
from tests import rabbit

#: events that stand before it in the queue
QUEUED = 5000


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--delays', type=int, default=100,
                        help='delay: ports that are made while the listener '
                             'is idle (default: %(default)s)')
    parser.add_argument('--backlogs', type=int, default=10,
                        help='delay: ports that are made with 5000 events '
                             'queued ahead (default: %(default)s)')


class Bench:
    """A site whose listener is ready."""

    def __init__(self, site: daemon.Site, broker: rabbit.RabbitMQ,
                 dnsmasq: lab.Dnsmasq) -> None:
        self._site = site
        self._broker = broker
        self._dnsmasq = dnsmasq
        self._ports = self._made()

    def _made(self) -> Iterator[tuple[notifications.Message, stream.Port]]:
        for copy in itertools.count(1):
            messages = stream.messages(copy, 'boot-delete')
            port, = stream.ports(messages)
            for message in messages:
                if message.body['event_type'] == 'port.create.end':
                    yield message, port

    def delay(self, waiting: daemon.Daemon | None = None) -> float:
        """Return the seconds until one port's entry is in place.

        :param waiting: a listener that stands still until the port's event
            is on the bus.
        """
        message, port = next(self._ports)
        self._site.claim([port])
        self._site.cloud.add(port.id, port.mac, port.address, 'subnet',
                             'network', port.server_id)
        folder = self._dnsmasq.hostsdir

        def is_there() -> bool:
            # in a file of its own, or of several that came at once
            return (folder / f'vmip-{port.address}').exists() or any(
                f',{port.address}' in re.split(r'(?=,)|\n', _text(path))
                for path in folder.glob('vmip-*+*'))

        assert not is_there()
        began = time.monotonic()
        self._broker.publish([message])
        if waiting is not None:
            began = time.monotonic()
            os.killpg(waiting.process.pid, signal.SIGCONT)
        lab.wait_for(is_there, 120)
        return time.monotonic() - began

    def ask(self, prober: lab.Prober) -> float:
        """Return the seconds until one port is served on the wire."""
        message, port = next(self._ports)
        self._site.claim([port])
        began = time.monotonic()
        self._broker.publish([message])
        lab.wait_for(lambda: prober.discover(port.mac, 0.02), 10)
        return time.monotonic() - began


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        # compacted meanwhile
        return ''


def run(args: argparse.Namespace) -> None:
    """Measure idle and behind a backlog."""
    report = base.Report('delay')
    with databases.MariaDB() as maria, rabbit.RabbitMQ() as broker, \
            lab.Bridge('10.255.255.254/8') as bridge, \
            lab.Folder() as folder, \
            lab.Dnsmasq(bridge, folder.path) as dnsmasq, \
            lab.Prober(bridge) as prober, \
            daemon.Site(maria.databases.create(), broker.url,
                        daemon.section(dnsmasq)) as site, \
            site.listener() as ours:
        lab.wait_for(lambda: ours.ready, 60)
        bench = Bench(site, broker, dnsmasq)
        for _ in range(5):
            bench.delay()
        report.add('idle, on the wire', bench.ask(prober), 's')
        _report(report, 'idle', [bench.delay()
                                 for _ in range(args.delays)])
        taken = []
        for number in range(args.backlogs):
            ahead = _backlog(number)
            site.claim(stream.ports(ahead))
            os.killpg(ours.process.pid, signal.SIGSTOP)
            broker.publish(ahead)
            taken.append(bench.delay(ours))
            lab.wait_for(lambda: not broker.waiting('vmip'), 60)
        _report(report, f'{QUEUED} events ahead', taken)
    report.end()


def _backlog(number: int) -> list[notifications.Message]:
    found: list[notifications.Message] = []
    for copy in itertools.count(1000 + number * 10):
        found += stream.messages(copy)
        if len(found) >= QUEUED:
            return found[:QUEUED]
    raise AssertionError


def _report(report: base.Report, title: str, taken: list[float]) -> None:
    for name, value in (('median', statistics.median(taken)),
                        ('p99', base.percentile(taken, 0.99))):
        base.say(f'delay: {title}: {name} {value * 1000:.0f} ms')
        report.add(f'{title}, {name}', value, 's')
