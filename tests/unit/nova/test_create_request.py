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

"""Bodies of create requests and of their answers."""

import ipaddress
import json
from typing import Any

import testtools

from vmip_plugin.hooks import base as hooks
from vmip_plugin.inventory import records
from vmip_plugin.nova import create_request

NET = '11111111-0000-0000-0000-000000000001'
PORT = '33333333-0000-0000-0000-000000000001'
REQUESTER = records.Requester('req-1', 'project')


def parse(**server: Any) -> hooks.CreateRequest | None:
    server.setdefault('name', 'web')
    return create_request.parse(json.dumps({'server': server}).encode(),
                                REQUESTER)


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
            hooks.CreateRequest(REQUESTER, ('web',), (
                hooks.RequestedNetwork(NET),)),
            parse(networks=[{'uuid': NET}], flavorRef='1'))

    def test_no_networks(self) -> None:
        for value in ((), [], 'auto', 'none'):
            self.assertEqual((), networks(value))
        request = parse()
        assert request is not None
        self.assertEqual((), request.networks)

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
        most = create_request.MAX_INTERFACES
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
                b'{"server": []}', b'{"server": null}', b'{"server": {}}',
                b'{"servers": {"name": "x"}}', b'\xff\xfe', b'\x80',
                b'{"server": {"name": "x", "min_count": 1e999}}',
                b'{"server": {"name": "x", "min_count": '
                + b'9' * 5000 + b'}}',
                deep, deep + b']' * 100000,
                b'{"server": {"name": "x", "networks": '
                + deep + b']' * 100000 + b'}}'):
            self.assertIsNone(create_request.parse(body, REQUESTER),
                              body[:60])


class TestAnswer(testtools.TestCase):

    def test_server_id(self) -> None:
        for expected, answer in (
                (PORT, {'server': {'id': PORT}}),
                (None, {'server': {'id': 'x'}}), (None, {'server': {}}),
                (None, {'reservation_id': 'r-1'}), (None, []), (None, 5),
                (None, {'server': {'id': 5}}), (None, {'server': None})):
            self.assertEqual(expected, create_request.server_id(
                json.dumps(answer).encode()))
        for text in (b'', b'\xff', b'<html>'):
            self.assertIsNone(create_request.server_id(text))
