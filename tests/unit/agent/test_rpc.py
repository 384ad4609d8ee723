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

from collections.abc import Collection
import ipaddress
import queue
import socket
import threading
import time
from typing import Any
from unittest import mock
import uuid

from kombu import exceptions
import oslo_messaging
import testtools

from tests.unit.agent import test_guests
from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import rpc
from vmip_plugin import conf as conf_
from vmip_plugin import types

SERVER_ID, PORT_ID = str(uuid.uuid4()), str(uuid.uuid4())
ADDRESSES = tuple(ipaddress.ip_address(f'10.66.1.{n}') for n in (1, 2))
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


class FakeAgent:
    """Has some leases."""

    def __init__(self, count: int) -> None:
        self.held = [test_guests.lease(
            address=test_guests.ADDRESS + number, client_id=b'\0x',
            vlan=7, verdict='spare', reason='why', decided_at=1.5)
            for number in range(count)]
        self.wire: dict[types.Address, bool] = {}

    def page(self, after: lease_.Key | None, limit: int
             ) -> list[lease_.Lease]:
        start = 0 if after is None else 1 + next(
            n for n, one in enumerate(self.held) if one.key == after)
        return self.held[start:start + limit]

    def look(self) -> rpc.Look:
        return rpc.Look(9, 2, self.held)

    def hear(self, addresses: Collection[types.Address]
             ) -> dict[types.Address, bool]:
        return {one: answers for one, answers in self.wire.items()
                if one in addresses}


class BusTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        conf = conf_.new()
        conf([], default_config_files=[], default_config_dirs=[])
        transport = oslo_messaging.get_rpc_transport(conf, url='fake://')
        self.hints: queue.Queue[rpc.Hint] = queue.Queue()
        self.agents = {'one': FakeAgent(rpc.PAGE + 3), 'two': FakeAgent(0)}
        for host, agent in self.agents.items():
            server = rpc.server(
                transport, host, self.hints.put,
                rpc.Questions(transport, host, agent))
            server.start()
            self.addCleanup(server.wait)
            self.addCleanup(server.stop)
        self.client = rpc.AgentClient(transport)

    def test_all_agents_are_told(self) -> None:
        self.client.release_lease(*GOOD, dhcp_server='10.66.0.1')
        expected = rpc.Hint.parse(*GOOD, '10.66.0.1')
        self.assertEqual([expected] * 2,
                         [self.hints.get(timeout=60) for _ in range(2)])

    def test_without_dhcp_server(self) -> None:
        self.client.release_lease(*GOOD)
        self.assertIsNone(self.hints.get(timeout=60).dhcp_server)

    def test_ipv6(self) -> None:
        """What its server calls itself is no IPv4 address."""
        for server in ('10.66.0.1', 'fe80::1'):
            self.client.release_lease('2001:db8::7', *GOOD[1:],
                                      dhcp_server=server)
            self.assertIsNone(self.hints.get(timeout=60).dhcp_server)

    def test_senseless(self) -> None:
        self.client.release_lease('x', 'y', 'z', None)
        self.client.release_lease(*GOOD)
        self.assertEqual(GOOD[0], str(self.hints.get(timeout=60).address))

    def test_missing_arguments(self) -> None:
        rpc.Endpoint(self.hints.put).release_lease({})
        self.assertTrue(self.hints.empty())


    def test_roll_call(self) -> None:
        self.assertEqual(['one', 'two'], self.client.hosts(wait=0.5))

    def test_roll_call_of_somebody_else(self) -> None:
        roll = rpc._Roll()
        roll.here({}, 'x', 'one')
        roll.here({}, roll.token, ['one'])
        roll.here({})
        self.assertEqual(set(), roll.hosts)

    def test_probe(self) -> None:
        one, two, three, four = (
            ipaddress.ip_address(f'10.66.1.{n}') for n in range(1, 5))
        self.agents['one'].wire = {one: False, two: False}
        self.agents['two'].wire = {one: True, three: True, four: True}
        self.assertEqual(
            {one: True, two: False, three: True},
            self.client.probe([one, two, three]))
        six = ipaddress.ip_address('2001:db8::7')
        self.assertEqual({six: None}, self.client.probe([six]))
        self.assertEqual({}, self.client.probe([]))

    def test_a_slow_agent_is_waited_for(self) -> None:
        address = ipaddress.ip_address('10.66.1.1')
        late = threading.Event()

        def hear(addresses: object) -> dict[types.Address, bool]:
            late.wait(5)
            return {address: True}

        self.agents['one'].wire = {address: False}
        with mock.patch.object(self.agents['two'], 'hear', hear):
            threading.Timer(1, late.set).start()
            self.assertEqual({address: True},
                             self.client.probe([address], 120))

    def test_an_agent_that_never_answers(self) -> None:
        address = ipaddress.ip_address('10.66.1.1')
        for agent in self.agents.values():
            agent.hear = mock.Mock(  # type: ignore[method-assign]
                side_effect=ValueError)
        self.assertEqual({address: None}, self.client.probe([address], 0.5))

    def test_forged_answers(self) -> None:
        address = ipaddress.ip_address('10.66.1.1')
        asked = rpc._Probe([address])
        asked.here({}, 'x', 'one')
        asked.probed({}, 'x', 'one', {str(address): True})
        for wrong in (None, [], {'x': True}, {str(address): 'yes'},
                      {str(address): 1}, {'10.66.1.2': True}):
            asked.probed({}, asked.token, 'one', wrong)
        asked.probed({}, asked.token, ['one'], {str(address): True})
        self.assertEqual({address: None}, asked.answers())
        asked.probed({}, asked.token, 'one', {str(address): True})
        asked.probed({}, asked.token, 'two', {str(address): False})
        self.assertEqual({address: True}, asked.answers())

    def test_senseless_questions(self) -> None:
        agent = mock.Mock()
        questions = rpc.Questions(self.client._transport, 'x', agent)
        for wrong in (None, 'x', [7], ['x'], ['127.0.0.1'], ['ff02::1'],
                      {}, ['10.0.0.1'] * (rpc.PAGE + 1)):
            questions.probe({}, 'token', wrong)
        agent.hear.assert_not_called()

    def test_few_threads(self) -> None:
        """Thousands of hints do not make an agent grow."""
        held, took = threading.Event(), threading.Semaphore(0)

        def take(hint: rpc.Hint) -> None:
            took.release()
            held.wait(30)

        server = rpc.server(self.client._transport, 'three', take)
        server.start()
        self.addCleanup(server.wait)
        self.addCleanup(server.stop)
        self.addCleanup(held.set)
        for _ in range(500):
            self.client.release_lease(*GOOD)
        for _ in range(rpc.THREADS):
            self.assertTrue(took.acquire(timeout=30))
        self.assertFalse(took.acquire(timeout=2))

    def test_leases(self) -> None:
        for host, agent in self.agents.items():
            self.assertEqual(agent.held, list(self.client.leases(host)))

    def test_look(self) -> None:
        look = self.client.look('one')
        self.assertEqual((9, 2), (look.checked, look.answered))
        self.assertEqual(self.agents['one'].held[:rpc.PAGE], look.judged)

    def test_no_such_agent(self) -> None:
        with mock.patch.object(rpc, 'TIMEOUT', 0.2):
            self.assertRaises(oslo_messaging.MessagingTimeout, list,
                              self.client.leases('three'))

    def test_lease_of_another_version(self) -> None:
        values = self.agents['one'].held[0].to_primitive()
        self.assertEqual(self.agents['one'].held[0],
                         lease_.Lease.from_primitive(values | {'new': 1}))
        for wrong in ({**values, 'client_id': 'x'},
                      {**values, 'address': None}, {}):
            self.assertRaises(ValueError, lease_.Lease.from_primitive, wrong)


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
            address = ipaddress.ip_address('10.66.1.1')
            for _ in range(2):
                self.assertEqual({address: None},
                                 client.probe([address], 0.5))
            self.assertRaises(exceptions.OperationalError,
                              client.release_lease, *GOOD)
            self.assertLess(time.monotonic() - began, 300)
