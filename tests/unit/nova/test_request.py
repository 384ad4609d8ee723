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

"""Bodies of requests that make ports, and of their answers."""

from collections import abc
import ipaddress
import json
from typing import Any

import hypothesis
from hypothesis import strategies as st
import testtools

from vmip_plugin.hooks import base as hooks
from vmip_plugin.inventory import records
from vmip_plugin.nova import request as nova_request

NET = '11111111-0000-0000-0000-000000000001'
PORT = '33333333-0000-0000-0000-000000000001'
REQUESTER = records.Requester('req-1', 'project')
CALLER = nova_request.Caller(REQUESTER, {'user_id': 'u'})
SERVER = '44444444-0000-0000-0000-000000000001'


def parse(**server: Any) -> hooks.Request | None:
    server.setdefault('name', 'web')
    return nova_request.create(json.dumps({'server': server}).encode(),
                                CALLER)


def networks(value: Any) -> tuple[hooks.RequestedNetwork, ...]:
    request = parse(networks=value)
    assert request is not None, value
    return request.networks


class TestParse(testtools.TestCase):

    def names(self, **server: Any) -> tuple[str, ...] | None:
        request = parse(**server)
        return request and request.server_names

    def test_plain(self) -> None:
        self.assertEqual(
            hooks.Request(REQUESTER, ('web',), (
                hooks.RequestedNetwork(NET),), min_count=1),
            parse(networks=[{'uuid': NET}], flavorRef='1'))

    def test_how_many_are_certain(self) -> None:
        for certain, values in ((3, {'min_count': 3}), (1, {'max_count': 3}),
                                (2, {'min_count': '2', 'max_count': '3'})):
            request = parse(networks=[{'uuid': NET}], **values)
            assert request is not None
            self.assertEqual((certain, 3), (request.min_count,
                                            len(request.server_names)))

    def test_who_chooses(self) -> None:
        for expected, values in (
                (hooks.Choice.ABSENT, {}),
                (hooks.Choice.ABSENT, {'networks': []}),
                (hooks.Choice.AUTO, {'networks': 'auto'}),
                (hooks.Choice.NONE, {'networks': 'none'}),
                (hooks.Choice.LISTED, {'networks': [{'uuid': NET}]})):
            request = parse(**values)
            assert request is not None
            self.assertEqual(expected, request.choice)
            self.assertEqual(expected is hooks.Choice.LISTED,
                             bool(request.networks))

    def test_caller(self) -> None:
        request = parse()
        assert request is not None
        self.assertEqual(REQUESTER, request.requester)
        self.assertEqual({'user_id': 'u'}, request.credentials)

    def test_metadata(self) -> None:
        request = parse(metadata={'a': 'b', 'c': 5, 'd': None})
        assert request is not None
        self.assertEqual({'a': 'b'}, request.metadata)
        for values in (request.metadata, request.hints):
            self.assertNotIsInstance(values, abc.MutableMapping)

    def test_hints(self) -> None:
        for expected, outer in (
                ({}, {}),
                ({'a': 'x'}, {'os:scheduler_hints': {'a': 'x'}}),
                ({'a': ['x']}, {'OS-SCH-HNT:scheduler_hints': {'a': ['x']}}),
                # Nova looks at the first alone where there are both
                ({'a': 'x'}, {'os:scheduler_hints': {'a': 'x'},
                              'OS-SCH-HNT:scheduler_hints': {'a': 'y'}})):
            request = nova_request.create(json.dumps(
                {'server': {'name': 'web'}, **outer}).encode(), CALLER)
            assert request is not None
            self.assertEqual(expected, request.hints)

    def test_tenants_text_is_not_shown(self) -> None:
        request = nova_request.create(json.dumps(
            {'server': {'name': 'web', 'adminPass': 'secret',
                        'user_data': 'secret',
                        'metadata': {'x': 'secret'}},
             'os:scheduler_hints': {'y': 'secret'}}).encode(), CALLER)
        self.assertNotIn('secret', repr(request))

    def test_list_forms(self) -> None:
        self.assertEqual((
            hooks.RequestedNetwork(NET),
            hooks.RequestedNetwork(NET, ipaddress.ip_address('10.0.0.9')),
            hooks.RequestedNetwork(NET, ipaddress.ip_address('2001:db8::')),
            hooks.RequestedNetwork(None, None, PORT),
            hooks.RequestedNetwork(NET, None, PORT),
            hooks.RequestedNetwork(NET),
        ), networks([
            {'uuid': NET.upper(), 'tag': 'x'},
            {'uuid': NET, 'fixed_ip': '10.0.0.9'},
            {'uuid': NET, 'fixed_ip': '2001:DB8::0'},
            {'port': PORT}, {'uuid': NET, 'port': PORT},
            {'uuid': NET, 'port': None, 'fixed_ip': ''}]))

    def test_names(self) -> None:
        several = ('web-1', 'web-2', 'web-3')
        for expected, values in (
                (('web',), {}),
                (('web',), {'min_count': 1, 'max_count': 1}),
                (('web',), {'min_count': None, 'max_count': None}),
                (several, {'min_count': 3}),
                (several, {'max_count': 3}),
                (several, {'min_count': 2, 'max_count': 3}),
                (several, {'min_count': '2', 'max_count': '3'})):
            self.assertEqual(expected, self.names(**values), values)

    def test_name_as_nova_will_call_it(self) -> None:
        self.assertEqual(('web',), self.names(name=' web\t'))
        self.assertEqual(('\u0441\u0435\u0440\u0432\u0435\u0440 \U0001f600',),
                         self.names(name='\u0441\u0435\u0440\u0432\u0435'
                                         '\u0440 \U0001f600'))
        self.assertEqual(('x' * 255,), self.names(name='x' * 255))
        long = self.names(name='x' * 255, min_count=2)
        assert long is not None
        self.assertEqual({255}, {len(name) for name in long})

    def test_limits(self) -> None:
        most = nova_request.MAX_INTERFACES
        names = self.names(min_count=most)
        assert names is not None
        self.assertEqual(most, len(names))
        self.assertIsNone(self.names(min_count=most + 1))
        self.assertIsNone(self.names(min_count=10 ** 100))
        two = [{'uuid': NET}] * 2
        self.assertIsNotNone(parse(networks=two, min_count=most // 2))
        self.assertIsNone(parse(networks=two, min_count=most // 2 + 1))
        self.assertIsNone(parse(networks=[{'uuid': NET}] * (most + 1)))

    def test_not_understood(self) -> None:
        for values in (
                {'name': None}, {'name': 5}, {'name': ['x']}, {'name': ''},
                {'name': ' '}, {'name': 'x' * 256}, {'name': '\0'},
                {'name': '\ud800'},
                {'min_count': -1}, {'min_count': 'x'}, {'min_count': [2]},
                {'min_count': {}, 'max_count': 'y'},
                {'min_count': 3, 'max_count': 2},
                {'min_count': float('inf')}, {'max_count': float('nan')},
                {'networks': 'some'}, {'networks': 'AUTO'},
                {'metadata': 5}, {'metadata': ['x']}, {'metadata': None},
                {'networks': None}, {'networks': 5}, {'networks': True},
                {'networks': {'uuid': NET}}, {'networks': ['x']},
                {'networks': [None]}, {'networks': [[]]},
                {'networks': [{'uuid': 'x'}]}, {'networks': [{'uuid': 5}]},
                {'networks': [{'uuid': [NET]}]},
                {'networks': [{'port': 'x'}]},
                {'networks': [{'fixed_ip': '10.0.0'}]},
                {'networks': [{'fixed_ip': ['10.0.0.1']}]},
                {'networks': [{'fixed_ip': 'fe80::1%x\ny'}]}):
            self.assertIsNone(parse(**values), values)

    def test_bad_bodies(self) -> None:
        deep = b'[' * 100000
        for body in (
                b'', b'{', b'[]', b'5', b'null', b'"server"', b'{"server":5}',
                b'{"server": {"name": "x"}, "os:scheduler_hints": 5}',
                b'{"server": {"name": "x"}, "os:scheduler_hints": null}',
                b'{"server": []}', b'{"server": null}', b'{"server": {}}',
                b'{"servers": {"name": "x"}}', b'\xff\xfe', b'\x80',
                b'{"server": {"name": "x", "min_count": 1e999}}',
                b'{"server": {"name": "x", "min_count": '
                + b'9' * 5000 + b'}}',
                deep, deep + b']' * 100000,
                b'{"server": {"name": "x", "networks": '
                + deep + b']' * 100000 + b'}}'):
            self.assertIsNone(nova_request.create(body, CALLER),
                              body[:60])


class TestAnswer(testtools.TestCase):

    def test_server_id(self) -> None:
        for expected, answer in (
                (PORT, {'server': {'id': PORT}}),
                (None, {'server': {'id': 'x'}}), (None, {'server': {}}),
                (None, {'reservation_id': 'r-1'}), (None, []), (None, 5),
                (None, {'server': {'id': 5}}), (None, {'server': None})):
            self.assertEqual(expected, nova_request.server_id(
                json.dumps(answer).encode()))
        for text in (b'', b'\xff', b'<html>'):
            self.assertIsNone(nova_request.server_id(text))


class TestAttach(testtools.TestCase):

    def attach(self, body: Any, server: str = SERVER) -> hooks.Request | None:
        raw = body if isinstance(body, bytes) else json.dumps(
            {'interfaceAttachment': body}).encode()
        return nova_request.attach(raw, server, CALLER)

    def test_forms(self) -> None:
        address = ipaddress.ip_address('10.0.0.9')
        for expected, body in (
                (hooks.RequestedNetwork(NET), {'net_id': NET}),
                (hooks.RequestedNetwork(NET), {'net_id': NET, 'tag': 'x'}),
                (hooks.RequestedNetwork(NET, address), {
                    'net_id': NET, 'fixed_ips': [{'ip_address': '10.0.0.9'}]}),
                (hooks.RequestedNetwork(None, None, PORT),
                 {'port_id': PORT})):
            self.assertEqual(
                hooks.Request(REQUESTER, (), (expected,), hooks.Choice.LISTED,
                              hooks.Action.ATTACH, SERVER),
                self.attach(body))

    def test_any_network(self) -> None:
        expected = hooks.Request(REQUESTER, (), (), hooks.Choice.ABSENT,
                                 hooks.Action.ATTACH, SERVER)
        self.assertEqual(expected, self.attach({}))
        self.assertEqual(expected, self.attach(b'{}'))

    def test_not_understood(self) -> None:
        for body in (
                None, 5, [], {'net_id': 'x'}, {'net_id': 5}, {'port_id': 'x'},
                {'net_id': NET, 'port_id': PORT},
                {'fixed_ips': [{'ip_address': '10.0.0.9'}]},
                {'port_id': PORT, 'fixed_ips': [{'ip_address': '10.0.0.9'}]},
                {'net_id': NET, 'fixed_ips': [{'ip_address': 'x'}]},
                {'net_id': NET, 'fixed_ips': [{}]},
                {'net_id': NET, 'fixed_ips': [5]},
                {'net_id': NET, 'fixed_ips': 5},
                {'net_id': NET, 'fixed_ips': {'x': 5}},
                b'', b'{', b'[]', b'null', b'\xff', b'[' * 100000):
            self.assertIsNone(self.attach(body), body)
        self.assertIsNone(self.attach({}, 'no-uuid'))


#: JSON, with the words that mean something here more often than chance has it
WORDS = st.sampled_from([
    'server', 'name', 'networks', 'uuid', 'port', 'fixed_ip', 'min_count',
    'max_count', 'metadata', 'os:scheduler_hints', 'auto', 'none', NET, PORT,
    'interfaceAttachment', 'net_id', 'port_id', 'fixed_ips', 'ip_address',
    '10.0.0.9', '2001:db8::1']) | st.text(max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        WORDS, inner, max_size=4), max_leaves=20)
INTERFACES = st.lists(st.fixed_dictionaries({}, optional={
    'uuid': st.uuids().map(str), 'port': st.none() | st.uuids().map(str),
    'fixed_ip': st.ip_addresses().map(str)}), max_size=5)


class TestAnything(testtools.TestCase):
    """Nothing that a client sends is an error here."""

    @hypothesis.given(JSON)
    def test_json(self, value: Any) -> None:
        for body in (value, {'server': value},
                     {'server': {'name': 'x', 'networks': value}},
                     {'server': {'name': 'x'}, 'os:scheduler_hints': value},
                     {'interfaceAttachment': value}):
            raw = json.dumps(body).encode()
            for found in (nova_request.create(raw, CALLER),
                          nova_request.attach(raw, SERVER, CALLER)):
                if found is not None:
                    hash((found.server_names, found.networks))
            nova_request.server_id(raw)

    @hypothesis.given(st.binary(max_size=60))
    def test_bytes(self, raw: bytes) -> None:
        self.assertIsNone(nova_request.create(raw, CALLER))
        nova_request.attach(raw, SERVER, CALLER)
        nova_request.server_id(raw)

    @hypothesis.given(INTERFACES, st.integers(1, 40))
    def test_interfaces(self, sent: list[dict[str, Any]],
                        count: int) -> None:
        request = parse(networks=sent, max_count=count)
        assert request is not None
        self.assertEqual(count, len(set(request.server_names)))
        self.assertEqual(
            [(n.get('uuid'), n.get('port'), n.get('fixed_ip'))
             for n in sent],
            [(n.network_id, n.port_id, n.fixed_ip and str(n.fixed_ip))
             for n in request.networks])
