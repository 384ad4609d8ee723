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

"""Releases wait for their leases, and what they need is killed or lies.

Whatever it was: who lives keeps what is theirs, and within one reclaim
period after the end of it nothing of the dead is left.
"""

from collections.abc import Iterator
import configparser
import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from typing import Any

import kombu
from minicloud import netns_guest

from tests.cloud import base
from tests.cloud import harness

#: Servers of which the first lives through it and the others are deleted.
SERVERS = 4
#: Seconds for which a service is away.
AWAY = 20
#: Seconds from the end of a storm until nothing of it is left: the longest
#: interval of vmip-reclaimer there, both looks at a port, the agent's two
#: looks at a guest, and the time of a busy machine.
SETTLED = 90
#: What may die while a release waits.
SERVICES = ('neutron-api', 'nova-api', 'dnsmasq1', 'rabbitmq', 'mariadb')
#: Part of the notifications that each kind of harm is done to.
SHARE = 0.05


class StormTestCase(base.CloudTestCase):
    """Fake compute; namespaces with a real DHCP client play the guests."""

    def setUp(self) -> None:
        self.guests: dict[str, contextlib.ExitStack] = {}
        self.addCleanup(lambda: self.silence(*self.guests))
        self.addCleanup(self.cloud.forget_servers)
        self.addCleanup(harness.minicloud.start, *SERVICES, 'vmip-listener',
                        'vmip-reclaimer', 'vmip-agent')

    def boot(self, *names: str) -> dict[str, tuple[str, str]]:
        """Boot servers with guests; return their addresses and MACs."""
        found = {}
        for name in names:
            self.cloud.sdk().compute.create_server(name=name, **self.wanted)
        for name in names:
            port = self.cloud.port(self.story.active(name).id)
            stack = self.guests[name] = contextlib.ExitStack()
            guest = stack.enter_context(
                netns_guest.NetnsGuest(port.mac_address))
            lease = guest.wait_lease(60)
            self.assertIsNotNone(lease, f'{name} got no lease')
            found[name] = lease.address, port.mac_address
        return found

    def silence(self, *names: str) -> None:
        """Stop servers' guests, as their hypervisor does."""
        for name in names:
            self.guests[name].close()

    def delete(self, *names: str) -> None:
        for name in names:
            self.cloud.sdk().compute.delete_server(
                self.cloud.server(name).id)

    def assert_lives(self, address: str, mac: str) -> None:
        """Assert that a guest still has all that is its."""
        self.assertEqual(mac, harness.host_entries().get(address))
        self.assertIn(self.cloud.address_state(address),
                      ('claimed', 'active'))

    def assert_settles(self, living: dict[str, str]) -> float:
        """Wait until only what lives is left; return the seconds."""
        began = time.monotonic()
        harness.wait_for(
            'only what lives is left',
            lambda: (harness.host_entries() == living
                     and set(harness.leases()) <= set(living)
                     and not self.cloud.inventory.entries(pending=True)
                     and {str(held.address) for _, held in
                          self.cloud.inventory.addresses()} == set(living)),
            SETTLED, 0.5)
        return time.monotonic() - began


class TestAway(StormTestCase):
    """A service is away while releases wait for their leases."""

    def storm(self, service: str, stop: bool) -> None:
        names = [f'storm-{number}' for number in range(SERVERS)]
        guests = self.boot(*names)
        address, mac = guests[names[0]]
        # the leases are still there while all of these are deleted
        with self.story.without('vmip-agent'):
            self.delete(*names[1:])
            harness.wait_for(
                'the ports are gone', lambda: {
                    self.cloud.address_state(guests[name][0])
                    for name in names[1:]} <= {'releasing', 'free'}, 60, 0.5)
            self.silence(*names[1:])
            if stop:
                self.hang(service)
            else:
                harness.minicloud.kill(service)
                time.sleep(AWAY)
                harness.minicloud.start(service)
        self.assert_lives(address, mac)
        seconds = self.assert_settles({address: mac})
        print(f'{service} {"hung" if stop else "killed"}: settled after '
              f'{seconds:.1f} s', file=sys.stderr)
        self.silence(names[0])
        self.cloud.forget_servers()

    def hang(self, service: str) -> None:
        """Stop a service's processes for a while: up, but silent."""
        members = harness.process.members()[service]
        for member in members:
            os.kill(member.pid, signal.SIGSTOP)
        try:
            time.sleep(AWAY)
        finally:
            for member in members:
                os.kill(member.pid, signal.SIGCONT)

    def test_killed(self) -> None:
        for service in SERVICES:
            with self.subTest(service):
                self.storm(service, stop=False)

    def test_stopped(self) -> None:
        for service in ('neutron-api', 'nova-api', 'dnsmasq1', 'mariadb'):
            with self.subTest(service):
                self.storm(service, stop=True)


class Gossip(threading.Thread):
    """Hands notifications on, and does harm to some of them.

    It drops, doubles and delays them, and forges deletes of ports that live.
    The seed makes it the same each time for the same messages.

    :param url: of RabbitMQ.
    :param topic: of what it sends; it listens to the usual ones.
    """

    def __init__(self, url: str, topic: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._connection = kombu.Connection(url)
        self._topic = topic
        self._random = random.Random(seed)
        self._late: list[tuple[float, kombu.Exchange, dict[str, Any]]] = []
        self._end = threading.Event()
        self.ready = threading.Event()
        self.done: dict[str, int] = dict.fromkeys(
            ('handed on', 'dropped', 'doubled', 'delayed', 'forged'), 0)

    def run(self) -> None:
        with self._connection, self._connection.Producer() as producer:
            self._producer = producer
            queues = []
            for name in ('neutron', 'nova'):
                # made by whoever came first
                exchange = kombu.Exchange(name, 'topic', passive=True)
                queues += [kombu.Queue(
                    f'gossip-{name}-{key}', exchange, f'{key}.info',
                    durable=False, auto_delete=True)
                    for key in ('notifications', 'versioned_notifications')]
            with self._connection.Consumer(queues, callbacks=[self._hear]):
                self.ready.set()
                while not self._end.is_set():
                    with contextlib.suppress(TimeoutError):
                        self._connection.drain_events(timeout=0.2)
                    self._catch_up()

    def stop(self) -> None:
        self._end.set()
        self.join(30)

    def _hear(self, body: Any, message: Any) -> None:
        message.ack()
        body = body if isinstance(body, dict) else json.loads(body)
        name = message.delivery_info['exchange']
        exchange = kombu.Exchange(name, 'topic', passive=True)
        harm = self._random.random() / SHARE
        if harm < 1:
            self.done['dropped'] += 1
            return
        if harm < 2:
            self.done['delayed'] += 1
            self._late.append((time.monotonic() + self._random.uniform(5, 15),
                               exchange, body))
            return
        if harm < 3:
            self.done['doubled'] += 1
            self._send(exchange, body)
        elif harm < 4 or not self.done['forged']:
            self._forge(exchange, body)
        self.done['handed on'] += 1
        self._send(exchange, body)

    def _forge(self, exchange: Any, body: dict[str, Any]) -> None:
        """Tell that a port is deleted that was just made or changed."""
        inner = json.loads(body['oslo.message'])
        if inner.get('event_type') in ('port.create.end', 'port.update.end'):
            inner['event_type'] = 'port.delete.end'
            inner['payload']['port_id'] = inner['payload']['port']['id']
            self.done['forged'] += 1
            self._send(exchange, {**body, 'oslo.message': json.dumps(inner)})

    def _catch_up(self) -> None:
        due = [item for item in self._late if item[0] <= time.monotonic()]
        for item in due:
            self._late.remove(item)
            self._send(*item[1:])

    def _send(self, exchange: Any, body: dict[str, Any]) -> None:
        self._producer.publish(
            body, exchange=exchange, routing_key=f'{self._topic}.info',
            serializer='json')


class TestGossip(StormTestCase):
    """What is told of ports and servers is lost, late, double and forged."""

    topic = 'gossip'

    @contextlib.contextmanager
    def gossip(self) -> Iterator[Gossip]:
        """Let vmip-listener hear only what the gossip tells."""
        found = configparser.ConfigParser(interpolation=None, strict=False)
        found.read(harness.settings.VMIP_CONF)
        # oslo.messaging's URL is kombu's but for the name of its driver
        url = found['DEFAULT']['transport_url'].replace(
            'rabbit://', 'amqp://', 1)
        with harness.configured(
                'vmip.conf', f'[listener]\ntopics = {self.topic}\n'
                f'versioned_topics = {self.topic}-versioned\n'
                f'pool = {self.topic}\n', 'vmip-listener'):
            told = Gossip(url, self.topic, seed=15)
            told.start()
            try:
                self.assertTrue(told.ready.wait(60))
                yield told
            finally:
                told.stop()
        print('gossip:', told.done, file=sys.stderr)

    def test_lives_and_deaths(self) -> None:
        with self.gossip() as told:
            living = self.boot('gossip-lives')['gossip-lives']
            for number in range(12):
                name = f'gossip-{number}'
                self.boot(name)
                self.assert_lives(*living)
                self.delete(name)
                self.silence(name)
            seconds = self.assert_settles(dict([living]))
        self.assert_lives(*living)
        self.assertGreater(told.done['forged'], 0)
        self.assertGreater(told.done['dropped'] + told.done['delayed'], 0)
        print(f'gossip: settled after {seconds:.1f} s', file=sys.stderr)
