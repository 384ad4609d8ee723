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

"""Metrics and health over HTTP, asked by real clients."""

import contextlib
import http.client
import json
import logging
import socket
import threading
import time
from typing import Any
from unittest import mock

from tests import lab
from tests import rabbit
from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin import health
from vmip_plugin import metrics


class HealthTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pulse = health.Pulse('loop', 60)
        self.stop = threading.Event()
        self.addCleanup(self.stop.set)

    def serve(self, address: str = '127.0.0.1', **checks: Any) -> None:
        self.conf.set_override('listen_address', address, 'monitoring')
        self.conf.set_override('listener_port', rabbit._free_port(),
                               'monitoring')
        self.health = health.Health(metrics.LISTENER, [self.pulse], checks)
        served = health.serve(self.conf, self.health, self.stop)
        assert served is not None
        self.addCleanup(served.stop)
        self.address, self.port = address, served.port

    def ask(self, path: str, method: str = 'GET', **headers: str,
            ) -> tuple[int, str, str]:
        with contextlib.closing(http.client.HTTPConnection(
                self.address, self.port, timeout=60)) as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return (answer.status, answer.headers.get('Content-Type', ''),
                    answer.read().decode())

    def checks(self, path: str) -> tuple[int, str, dict[str, str]]:
        status, kind, body = self.ask(path)
        self.assertEqual('application/json', kind)
        found = json.loads(body)
        return status, found['status'], found['checks']


class TestLive(HealthTestCase):

    def test_loop_turns_and_stops(self) -> None:
        self.serve()
        self.assertEqual((200, 'ok', {'loop': 'ok'}), self.checks('/live'))
        later = time.monotonic() + 61
        with mock.patch('time.monotonic', lambda: later):
            self.assertEqual(
                (503, 'failed', {'loop': 'has not turned for 61 s'}),
                self.checks('/live'))
            self.pulse.beat()
            self.assertEqual(200, self.checks('/live')[0])

    def test_idle_loop_is_asked(self) -> None:
        self.patch(health, 'INTERVAL', 0.05)
        asked = threading.Event()
        calls = iter([ValueError('not yet')])

        def ask() -> None:
            for error in calls:
                raise error
            asked.set()

        self.pulse.ask = ask
        self.serve()
        # one that cannot be asked now is asked again
        self.assertTrue(asked.wait(60))

    def test_what_is_away_kills_nobody(self) -> None:
        self.serve(database=lambda: 'it is away')
        self.assertEqual(200, self.checks('/live')[0])


class TestReady(HealthTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.patch(health, 'INTERVAL', 0.05)

    def test_away_and_back(self) -> None:
        found: list[str | None] = [None]
        self.serve(bus=lambda: found[0])
        lab.wait_for(lambda: self.checks('/ready')[0] == 200)
        found[0] = 'no broker'
        lab.wait_for(lambda: self.checks('/ready') == (
            503, 'failed', {'bus': 'no broker'}))
        found[0] = None
        lab.wait_for(lambda: self.checks('/ready')[0] == 200)
        self.assertEqual(1, self.log.output.count('Check bus: no broker'))
        self.assertIn('Check bus is well', self.log.output)

    def test_not_before_it_was_looked_at(self) -> None:
        go = threading.Event()
        self.addCleanup(go.set)
        self.serve(bus=lambda: go.wait(30) and None or None)
        self.assertEqual((503, 'failed', {'bus': 'not looked at yet'}),
                         self.checks('/ready'))
        go.set()
        lab.wait_for(lambda: self.checks('/ready')[0] == 200)

    def test_a_check_that_hangs(self) -> None:
        """It holds up nobody, and no other check."""
        self.patch(health, 'PATIENCE', 0.2)
        end = threading.Event()
        self.addCleanup(end.set)
        self.serve(bus=lambda: end.wait(60) and 'no' or None,
                   database=lambda: None)

        def reasons() -> dict[str, str]:
            return self.checks('/ready')[2]

        lab.wait_for(lambda: reasons()['bus'].startswith('no answer for'))
        self.assertEqual('ok', reasons()['database'])

    def test_no_secrets(self) -> None:
        def fail() -> None:
            raise exceptions.InventoryUnavailable(
                'cannot use mysql+pymysql://vmip:se/cr@et@db/vmip, '
                "password='secret'")

        self.serve(database=fail)
        lab.wait_for(lambda: 'mysql' in self.ask('/ready')[2])
        body = self.ask('/ready')[2]
        for text in body, self.log.output:
            self.assertNotIn('cr@et', text)
            self.assertNotIn('se/cr', text)
            self.assertNotIn('secret', text)
        self.assertIn('@db/vmip', body)

    def test_unexpected_errors_have_a_name_only(self) -> None:
        def fail() -> None:
            raise ValueError('secret')

        self.serve(database=fail)
        lab.wait_for(lambda: self.checks('/ready')[2] == {
            'database': 'ValueError'})

    def test_database(self) -> None:
        self.serve(database=self.inventory.database.behind)
        lab.wait_for(lambda: self.checks('/ready')[2] == {'database': 'ok'})


class TestServer(HealthTestCase):

    def test_metrics(self) -> None:
        self.serve(bus=lambda: None)
        status, kind, body = self.ask('/metrics')
        self.assertEqual(200, status)
        self.assertTrue(kind.startswith('text/plain; version='), kind)
        self.assertIn('\nvmip_loop_age_seconds{loop="loop"} ', body)
        self.assertIn('\nvmip_ready{check="bus"} ', body)
        self.assertIn('vmip_build_info{version=', body)
        self.assertNotIn('_created', body)
        kind = self.ask('/metrics', Accept='application/openmetrics-text')[1]
        self.assertTrue(kind.startswith('application/openmetrics-text'))

    def test_nothing_else(self) -> None:
        self.serve()
        self.assertEqual(404, self.ask('/')[0])
        self.assertEqual(404, self.ask('/metrics/..')[0])
        self.assertEqual(200, self.ask('/live?x=y')[0])
        for method in ('POST', 'PUT', 'DELETE', 'HEAD', 'OPTIONS'):
            self.assertEqual(501, self.ask('/metrics', method)[0])

    def test_no_word_of_a_client_in_the_log(self) -> None:
        self.log = self.useFixture(base.fixtures.FakeLogger(
            level=logging.DEBUG))
        self.serve()
        self.ask('/from-outside', 'GET', **{'User-Agent': 'from-outside'})
        for junk in (b'from-outside\r\n\r\n', b'\x00\xff' * 40000,
                     b'GET /from-outside HTTP/9.9\r\n\r\n'):
            with socket.create_connection((self.address, self.port)) as one:
                one.sendall(junk)
        self.assertEqual(200, self.ask('/live')[0])
        self.assertNotIn('from-outside', self.log.output)

    def test_slow_clients(self) -> None:
        """They neither keep others waiting nor cost a thread each.

        Not because they are ended for their silence some time.
        """
        self.patch(health._Handler, 'timeout', 3600.0)
        self.serve()
        before = threading.active_count()
        slow = [socket.create_connection((self.address, self.port))
                for _ in range(4 * health.CONNECTIONS)]
        for one in slow:
            self.addCleanup(one.close)
        for one in slow[-health.CONNECTIONS:]:
            with contextlib.suppress(OSError):
                one.sendall(b'GET /metrics HTT')
        self.assertEqual(200, self.ask('/metrics')[0])
        lab.wait_for(lambda: threading.active_count()
                     <= before + health.CONNECTIONS)

    def test_silent_clients_are_ended(self) -> None:
        self.patch(health._Handler, 'timeout', 0.2)
        self.serve()
        with socket.create_connection((self.address, self.port)) as one:
            one.settimeout(10)
            self.assertEqual(b'', one.recv(1))

    def test_ipv6(self) -> None:
        self.serve('::1')
        self.assertEqual(200, self.ask('/live')[0])

    def test_taken(self) -> None:
        self.serve()
        self.assertIn(f'port {self.port}: Address already in use', str(
            self.assertRaises(exceptions.ConfigError, health.serve,
                              self.conf, self.health, self.stop)))

    def test_off_by_default(self) -> None:
        for daemon in metrics.REGISTRIES:
            self.assertIsNone(health.serve(
                self.conf, health.Health(daemon, [], {}), self.stop))
