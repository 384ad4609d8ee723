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

"""The remote driver and the agent's endpoint, without a bus between them.

With a bus, an agent and a server they are in tests/contract.
"""

from collections.abc import Iterator
import datetime
import ipaddress
import json
from typing import Any
from unittest import mock

import fixtures
import hypothesis
from hypothesis import strategies
import oslo_messaging
import testtools

from vmip_plugin.agent import dhcp as agent
from vmip_plugin import conf as conf_
from vmip_plugin.conf import dhcp
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import none
from vmip_plugin.dhcp import remote
from vmip_plugin.dhcp import wire
from vmip_plugin import exceptions
from vmip_plugin import types

SIX = ipaddress.IPv6Address('2001:db8::1')
LEASE = base.Lease(ipaddress.IPv4Address('192.0.2.1'), 'fa:16:3e:00:00:01',
                   b'\0\xff', datetime.datetime(2199, 1, 1,
                                                tzinfo=datetime.UTC))

ANY = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers()
    | strategies.floats() | strategies.text(max_size=20),
    lambda inner: strategies.lists(inner, max_size=5)
    | strategies.dictionaries(strategies.sampled_from(
        ['result', 'error', 'capabilities', 'server_id', 'x']), inner),
    max_leaves=10)


def entry(number: int, host: int | None = None,
          hostname: str | None = None) -> base.HostEntry:
    return base.HostEntry(
        f'fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}',
        ipaddress.IPv4Address('192.0.0.0') + (host or number), hostname)


class Driver(none.NoneDriver):
    """Can do everything, and does what a test wants."""

    capabilities = base.Capability.LEASE_LIST | base.Capability.LEASE_RELEASE
    server_id = ipaddress.IPv4Address('192.0.2.254')
    error: Exception | None = None

    def put(self, entries: Any) -> base.Failures:
        if self.error is not None:
            raise self.error
        failures = {e: exceptions.DHCPServerUnavailable(f'no\n{e.mac}')
                    for e in entries if e.hostname == 'bad'}
        return failures | super().put(
            [e for e in entries if e not in failures])

    def leases(self) -> Iterator[base.Lease]:
        yield LEASE
        yield base.Lease(SIX, None, None, None)

    def release(self, lease: base.Lease) -> None:
        raise exceptions.DHCPError(f'refused {lease.address}')

    def check(self) -> list[str]:
        return ['all', 'wrong']


class Bus:
    """Hands calls to an endpoint, as text."""

    def __init__(self, endpoint: agent.Endpoint) -> None:
        self.endpoint = endpoint
        self.calls: list[str] = []
        self.error: Exception | None = None

    def call(self, host: str, timeout: int, method: str, **args: Any) -> Any:
        if self.error is not None:
            raise self.error
        self.calls.append(method)
        return json.loads(json.dumps(getattr(self.endpoint, method)(
            {}, **json.loads(json.dumps(args)))))


class Answers(Bus):
    """Answers what a test wants."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def call(self, host: str, timeout: int, method: str, **args: Any) -> Any:
        if method == 'describe' and len(self.answers) > 1:
            return {'result': {'capabilities': []}}
        return self.answers.pop(0)


class Base(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.there = Driver('there', None)
        self.bus = Bus(agent.Endpoint({'there': self.there}))
        self.driver = self.make(self.bus)

    def make(self, bus: Any, **values: Any) -> remote.RemoteDriver:
        conf = conf_.new()
        conf([], default_config_files=[], default_config_dirs=[])
        group = dhcp.register_server(conf, 'here', remote.RemoteDriver.OPTS)
        for name, value in ({'host': 'h', 'server': 'there'}
                            | values).items():
            conf.set_override(name, value, 'dhcp:here')
        return remote.RemoteDriver('here', group, bus)


class TestCalls(Base):

    def test_host_is_needed(self) -> None:
        error = self.assertRaises(exceptions.ConfigError, self.make, self.bus,
                                  host=None)
        self.assertIn('[dhcp:here] host', str(error))

    def test_same_name_there(self) -> None:
        error = self.assertRaises(
            exceptions.DHCPError, self.make(self.bus, server=None).put, [])
        self.assertIn("no DHCP server 'here'", str(error))

    def test_description(self) -> None:
        self.assertEqual(self.there.capabilities, self.driver.capabilities)
        self.assertEqual(self.there.server_id, self.driver.server_id)
        self.assertEqual(['describe'], self.bus.calls)
        with mock.patch.object(Driver, 'capabilities',
                               base.Capability.LIVE_ADD):
            self.driver.put([])
        self.assertEqual(base.Capability.LIVE_ADD, self.driver.capabilities)

    def test_entries(self) -> None:
        items = [entry(1, hostname='web'), entry(2),
                 base.HostEntry(entry(1).mac, SIX, None)]
        self.assertEqual({}, self.driver.put(items))
        self.assertEqual(items, list(self.there.entries()))
        self.assertEqual(items, list(self.driver.entries()))
        self.assertEqual({}, self.driver.remove(items))
        self.assertEqual([], list(self.there.entries()))

    def test_sign_of_life_first(self) -> None:
        self.driver.put([entry(1)])
        self.driver.remove([])
        self.assertEqual(['describe', 'put', 'describe', 'remove'],
                         self.bus.calls)

    def test_failures(self) -> None:
        items = [entry(1), entry(2, hostname='bad'), entry(3),
                 base.HostEntry('x', entry(4).address),
                 entry(5, hostname='bad')]
        failures = self.driver.put(items)
        self.assertEqual({*items[1:2], *items[3:]}, set(failures))
        self.assertIsInstance(failures[items[1]],
                              exceptions.DHCPServerUnavailable)
        # of one line
        self.assertEqual(f'vmip-agent on h: no {entry(2).mac}',
                         str(failures[items[1]]))
        self.assertNotIsInstance(failures[items[3]],
                                 exceptions.DHCPServerUnavailable)
        self.assertEqual([entry(1), entry(3)], list(self.driver.entries()))

    def test_hostile_hostnames_stay_here(self) -> None:
        self.driver.put([entry(1, hostname='a\nb'), entry(2, hostname='Web')])
        self.assertEqual([entry(1), entry(2, hostname='web')],
                         list(self.driver.entries()))

    def test_leases(self) -> None:
        self.assertEqual(list(self.there.leases()),
                         list(self.driver.leases()))
        self.assertEqual([LEASE], list(self.driver.leases_of(
            [LEASE.address, entry(7).address])))
        self.assertEqual([], list(self.driver.leases_of([])))
        error = self.assertRaises(exceptions.DHCPError, self.driver.release,
                                  LEASE)
        self.assertEqual('vmip-agent on h: refused 192.0.2.1', str(error))

    def test_check(self) -> None:
        self.assertEqual(['vmip-agent on h: all', 'vmip-agent on h: wrong'],
                         self.driver.check())
        self.bus.error = oslo_messaging.MessagingTimeout()
        self.assertEqual(1, len(self.driver.check()))

    def test_errors(self) -> None:
        for kind in exceptions.DHCPServerUnavailable, exceptions.DHCPError:
            self.there.error = kind('full')
            error = self.assertRaises(exceptions.DHCPError, self.driver.put,
                                      [entry(1)])
            self.assertIs(kind, type(error))
            self.assertEqual('vmip-agent on h: full', str(error))

    def test_errors_of_the_bus(self) -> None:
        for error, text in (
                (oslo_messaging.MessagingTimeout(), 'start it'),
                (oslo_messaging.RemoteError('KeyError', 'x', ['secret']),
                 'failed: KeyError: look at its log'),
                (oslo_messaging.MessageDeliveryFailure('amqp://u:secret@h'),
                 'see transport_url'),
                (OSError('secret'), 'see transport_url')):
            self.bus.error = error
            found = self.assertRaises(exceptions.DHCPServerUnavailable,
                                      self.driver.put, [entry(1)])
            self.assertIn(text, str(found))
            self.assertNotIn('secret', str(found))

    def test_pages(self) -> None:
        items = [entry(number) for number in range(1, 26)]
        with mock.patch.object(wire, 'PAGE', 10):
            self.assertEqual({}, self.driver.put(items[::-1]))
            self.assertEqual(3, self.bus.calls.count('put'))
            self.assertEqual(items, list(self.driver.entries()))
            self.assertEqual(3, self.bus.calls.count('entries'))
            failures = self.driver.put(
                [entry(n, hostname='bad' if n % 7 == 0 else None)
                 for n in range(1, 26)])
            self.assertEqual({7, 14, 21},
                             {int(e.address) & 255 for e in failures})
            self.driver.remove(items[5:])
            self.assertEqual(items[:5], list(self.driver.entries()))

    def test_changes_between_pages(self) -> None:
        items = [entry(number) for number in range(2, 60, 2)]
        with mock.patch.object(wire, 'PAGE', 10):
            self.driver.put(items)
            seen = []
            for found in self.driver.entries():
                seen.append(found)
                # one goes that was seen, others come on both sides
                self.there.remove([found])
                self.there.put([entry(1), entry(61)])
        self.assertEqual([*items, entry(61)], seen)


class TestHostile(Base):

    def assertSenseless(self, call: Any) -> None:
        error = self.assertRaises(exceptions.DHCPServerUnavailable, call)
        self.assertIn('makes no sense', str(error))

    def test_answers(self) -> None:
        good = wire.dump_entry(entry(1))
        for answer in (
                None, [], {}, {'result': None}, {'result': 'x'},
                {'result': [None]}, {'result': [[]]}, {'result': [good * 2]},
                {'result': [[7, *good[1:]]]},
                {'result': [[good[0], '192.0.2.1\n', None]]},
                {'result': [[good[0], 'fe80::1%eth0', None]]},
                {'result': [[*good[:2], 'a\nb']]},
                {'result': [[*good[:2], 'Web']]},
                {'result': [good, good]},
                {'result': [wire.dump_entry(entry(2)), good]},
                {'result': [good] * (wire.PAGE + 1)},
                {'error': 'x'}, {'error': [True]}, {'error': [True, 7]}):
            driver = self.make(Answers(answer))
            self.assertSenseless(lambda d=driver: list(d.entries()))
        for answer in (
                [1, True, 'x'], [[0, True]], [[-1, True, 'x']],
                [['0', True, 'x']], [[True, True, 'x']], [[1, True, 'x']]):
            driver = self.make(Answers({'result': answer}, None))
            self.assertSenseless(lambda d=driver: d.put([entry(1)]))
        lease = wire.dump_lease(LEASE)
        for position, value in (
                (0, 'x'), (0, None), (1, 'x'), (2, 'x'), (2, 7), (3, '7'),
                (3, True), (3, 7.0), (3, 10 ** 30), (3, float('nan'))):
            wrong = list(lease)
            wrong[position] = value
            driver = self.make(Answers({'result': [wrong]}))
            self.assertSenseless(lambda d=driver: list(d.leases()))
        for answer in ([], None, {'capabilities': None},
                       {'capabilities': [7]},
                       {'capabilities': [], 'server_id': 'x'}):
            driver = self.make(Answers({'result': answer}))
            self.assertSenseless(lambda d=driver: d.capabilities)

    def test_newer_agent(self) -> None:
        driver = self.make(Answers({'result': {
            'capabilities': ['FLIES', 'IPV6'], 'server_id': None}}))
        self.assertEqual(base.Capability.IPV6, driver.capabilities)

    def test_text(self) -> None:
        driver = self.make(Answers({'result': ['a\n\x1b[31m\u202eb',
                                               'x' * 9999]}))
        first, second = driver.check()
        self.assertEqual('vmip-agent on h: a  [31m b', first)
        self.assertLess(len(second), 3000)

    @hypothesis.given(ANY)
    def test_any_answer(self, value: Any) -> None:
        for answer in value, {'result': value}, {'error': value}:
            for call in (lambda d: list(d.entries()),
                         lambda d: list(d.leases()),
                         lambda d: d.put([entry(1)]), lambda d: d.check(),
                         lambda d: d.capabilities):
                try:
                    call(self.make(Answers(answer, None)))
                except exceptions.DHCPError:
                    pass

    @hypothesis.given(ANY, ANY)
    def test_any_call(self, server: Any, value: Any) -> None:
        self.there.put([entry(1)])
        for name in server, 'there':
            for method, argument in (
                    ('put', 'entries'), ('remove', 'entries'),
                    ('entries', 'after'), ('leases', 'after'),
                    ('leases_of', 'addresses'), ('release', 'lease'),
                    ('check', 'x'), ('put', 'x')):
                answer = getattr(self.bus.endpoint, method)(
                    {}, server=name, **{argument: value})
                self.assertIn(next(iter(answer)), ('result', 'error'))
        self.assertEqual([entry(1)], list(self.there.entries()))

    @hypothesis.given(strategies.from_type(types.Address), strategies.none()
                      | strategies.binary(max_size=255),
                      strategies.none() | strategies.datetimes(
                          min_value=datetime.datetime(1971, 1, 1),
                          timezones=strategies.just(datetime.UTC)))
    def test_leases_round_trip(
            self, address: types.Address, client_id: bytes | None,
            expires: datetime.datetime | None) -> None:
        hypothesis.assume(not getattr(address, 'scope_id', None))
        lease = base.Lease(
            address, None, client_id,
            expires and expires.replace(microsecond=0))
        self.assertEqual(lease, wire.load_lease(
            json.loads(json.dumps(wire.dump_lease(lease)))))


class TestAgentsDrivers(testtools.TestCase):

    def load(self, text: str, bus: str = 'transport_url = fake://') -> Any:
        path = self.useFixture(fixtures.TempDir()).join('conf')
        with open(path, 'w') as file:
            file.write(f'[DEFAULT]\n{bus}\n{text}')
        conf = conf_.new()
        conf(['--config-file', path])
        return agent.load_drivers(conf)

    def test_remote_ones_are_left_out(self) -> None:
        self.assertEqual(['a'], list(self.load(
            '[dhcp]\nservers = a, b\n'
            '[dhcp:b]\ndriver = remote\nhost = x\n')))

    def test_wrong_configuration(self) -> None:
        logger = self.useFixture(fixtures.FakeLogger())
        self.assertEqual({}, self.load(
            '[dhcp]\nservers = a, b\n[dhcp:b]\ndriver = dnsmasq\n'))
        self.assertIn('[dhcp:b] hostsdir', logger.output)

    def test_no_transport_url(self) -> None:
        for url, text in (('', 'transport_url is not set'),
                          ('transport_url = none://x', 'transport_url: ')):
            logger = self.useFixture(fixtures.FakeLogger())
            self.load('[dhcp]\nservers = b\n'
                      '[dhcp:b]\ndriver = remote\nhost = x\n', url)
            self.assertIn(text, logger.output)
