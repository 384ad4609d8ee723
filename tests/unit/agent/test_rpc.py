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

"""Hints over a bus."""

import queue
import socket
import time
from typing import Any
import uuid

from kombu import exceptions
import oslo_messaging
import testtools

from vmip_plugin.agent import rpc
from vmip_plugin import conf as conf_

SERVER_ID, PORT_ID = str(uuid.uuid4()), str(uuid.uuid4())
GOOD = ('10.66.1.1', 'fa:16:3e:00:00:01', SERVER_ID, PORT_ID)


class HintTest(testtools.TestCase):
    def test_good(self) -> None:
        hint = rpc.Hint.parse('10.66.1.1', 'FA-16-3E-00-00-01', SERVER_ID,
                              None, '10.66.0.1')
        self.assertEqual(
            ('10.66.1.1', 'fa:16:3e:00:00:01', SERVER_ID, None, '10.66.0.1'),
            (str(hint.address), hint.mac, hint.server_id, hint.port_id,
             str(hint.dhcp_server)))

    def test_senseless(self) -> None:
        for position, wrong in (
                (0, ''), (0, None), (0, '::1'), (0, '10.66.1'),
                (0, '0.0.0.0'), (0, 7), (0, ['10.66.1.1']),
                (1, ''), (1, None), (1, 'x'), (1, 'ff:ff:ff:ff:ff:ff'),
                (2, 'x'), (2, {}), (3, 'x'), (4, 'x'),
                (4, '255.255.255.255')):
            values: list[Any] = [*GOOD, None]
            values[position] = wrong
            with testtools.ExpectedException(ValueError):
                rpc.Hint.parse(*values)

    def test_nobody_named(self) -> None:
        self.assertRaises(ValueError, rpc.Hint.parse, *GOOD[:2], None, None)


class BusTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        conf = conf_.new()
        conf([], default_config_files=[], default_config_dirs=[])
        transport = oslo_messaging.get_rpc_transport(conf, url='fake://')
        self.hints: queue.Queue[rpc.Hint] = queue.Queue()
        for host in ('one', 'two'):
            server = rpc.server(transport, host, self.hints.put)
            server.start()
            self.addCleanup(server.wait)
            self.addCleanup(server.stop)
        self.client = rpc.AgentClient(transport)

    def test_all_agents_are_told(self) -> None:
        self.client.release_lease(*GOOD, dhcp_server='10.66.0.1')
        expected = rpc.Hint.parse(*GOOD, '10.66.0.1')
        self.assertEqual([expected] * 2,
                         [self.hints.get(timeout=5) for _ in range(2)])

    def test_without_dhcp_server(self) -> None:
        self.client.release_lease(*GOOD)
        self.assertIsNone(self.hints.get(timeout=5).dhcp_server)

    def test_senseless(self) -> None:
        self.client.release_lease('x', 'y', 'z', None)
        self.client.release_lease(*GOOD)
        self.assertEqual(GOOD[0], str(self.hints.get(timeout=5).address))

    def test_missing_arguments(self) -> None:
        rpc.Endpoint(self.hints.put).release_lease({})
        self.assertTrue(self.hints.empty())


class NoBusTest(testtools.TestCase):
    def test_does_not_wait_for_the_bus(self) -> None:
        conf = conf_.new()
        conf([], default_config_files=[], default_config_dirs=[])
        with socket.socket() as nobody:
            # bound, and nobody listens
            nobody.bind(('127.0.0.1', 0))
            client = rpc.AgentClient(oslo_messaging.get_rpc_transport(
                conf, url='rabbit://u:p@127.0.0.1:'
                          f'{nobody.getsockname()[1]}/'))
            began = time.monotonic()
            self.assertRaises(exceptions.OperationalError,
                              client.release_lease, *GOOD)
            self.assertLess(time.monotonic() - began, 10)
