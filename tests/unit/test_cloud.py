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

"""The way to Nova and Neutron: the real SDK and a small HTTP server."""

import json
import threading
from typing import Any
from wsgiref import simple_server

import fixtures
from keystoneauth1 import loading

from tests.unit import base
from vmip_plugin import cloud
from vmip_plugin import exceptions

PORT = base.port_id(1)
SERVER = base.server_id(1)

PORT_BODY = {
    'id': PORT, 'network_id': base.NETWORK, 'project_id': base.PROJECT,
    'mac_address': 'FA:16:3E:00:00:01', 'device_id': SERVER,
    'device_owner': 'compute:nova', 'status': 'ACTIVE',
    'fixed_ips': [{'subnet_id': base.SUBNET, 'ip_address': '10.0.0.10'},
                  {'subnet_id': base.SUBNET, 'ip_address': '2001:db8::1'}]}
SUBNET_BODY = {
    'id': base.SUBNET, 'name': 'net-a', 'network_id': base.NETWORK,
    'cidr': '10.0.0.0/24', 'gateway_ip': '10.0.0.1', 'enable_dhcp': False,
    'allocation_pools': [{'start': '10.0.0.2', 'end': '10.0.0.254'}]}


class Handler(simple_server.WSGIRequestHandler):

    def log_message(self, *args: Any) -> None:
        pass


class CloudTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.http = simple_server.make_server(
            '127.0.0.1', 0, self.serve, handler_class=Handler)
        self.url = f'http://127.0.0.1:{self.http.server_port}'
        thread = threading.Thread(target=self.http.serve_forever,
                                  kwargs={'poll_interval': 0.01})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.http.server_close)
        self.addCleanup(self.http.shutdown)
        #: path (with the query, without the version) -> (status, body)
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[str] = []
        self.cloud = self.new_cloud()

    def serve(self, environ: Any, start_response: Any) -> list[bytes]:
        query = environ['QUERY_STRING']
        status, body = self.answer(
            environ['PATH_INFO'] + (f'?{query}' if query else ''))
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        start_response(f'{status} Some', [
            ('Content-Type', 'application/json'),
            ('Content-Length', str(len(raw)))])
        return [raw]

    def new_cloud(self) -> cloud.Cloud:
        made = cloud.Cloud(self.conf)
        self.conf.set_override('auth_type', 'none', 'cloud')
        for opt in loading.get_auth_plugin_conf_options('none'):
            self.conf.register_opt(opt, 'cloud')
        self.conf.set_override('endpoint', self.url, 'cloud')
        return made

    def answer(self, path: str) -> tuple[int, Any]:
        link = [{'rel': 'self', 'href': f'{self.url}/'}]
        if path == '/':
            return 200, {'versions': [
                {'id': 'v2.0', 'status': 'CURRENT', 'links': link,
                 'version': '2.100', 'min_version': '2.1'}]}
        self.asked.append(path)
        for known, answer in self.answers.items():
            if path.endswith(known):
                return answer
        return 404, b'<html>no such page</html>'


class TestPort(CloudTestCase):

    def get(self, status: int, body: Any) -> cloud.Port | None:
        self.answers[f'/ports/{PORT}'] = status, body
        return self.cloud.port(PORT)

    def test_there(self) -> None:
        self.assertEqual(cloud.Port(
            PORT, base.NETWORK, base.PROJECT, 'fa:16:3e:00:00:01',
            ((base.SUBNET, base.ip('10.0.0.10')),
             (base.SUBNET, base.ip('2001:db8::1'))), SERVER, 'compute:nova',
            'ACTIVE'), self.get(200, {'port': PORT_BODY}))

    def test_gone(self) -> None:
        self.assertIsNone(self.get(404, {'NeutronError': {
            'type': 'PortNotFound', 'message': 'no port', 'detail': ''}}))

    def unusable(self, status: int, body: Any) -> None:
        error = self.assertRaises(exceptions.CloudUnavailable, self.get,
                                  status, body)
        self.assertIn('Neutron', str(error))

    def test_unusable(self) -> None:
        for status, body in (
                (404, b'<html>not here</html>'), (404, b''), (404, b'null'),
                (404, {'error': {'message': 'no such page'}}), (404, []),
                (500, {}), (503, b''), (401, {}), (403, {}), (400, {}),
                (409, {}), (200, b'<html>'), (200, b'')):
            self.unusable(status, body)

    def test_not_what_is_promised(self) -> None:
        for change in ({'mac_address': None}, {'mac_address': 'x'},
                       {'fixed_ips': None}, {'fixed_ips': [{}]},
                       {'fixed_ips': [{'subnet_id': 'x',
                                       'ip_address': 'y'}]},
                       {'fixed_ips': 5}):
            self.unusable(200, {'port': {**PORT_BODY, **change}})

    def test_nobody_listens(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.assertRaises(exceptions.CloudUnavailable, self.cloud.port, PORT)

    def test_not_configured(self) -> None:
        self.conf.clear_override('auth_type', 'cloud')
        self.assertRaises(exceptions.CloudUnavailable, self.cloud.port, PORT)

    def test_never_waits_for_ever(self) -> None:
        self.assertEqual(60, self.conf.cloud.timeout)
        self.conf.set_override('timeout', 1, 'cloud')
        stop = threading.Event()
        self.addCleanup(stop.set)

        def hang(path: str) -> tuple[int, Any]:
            stop.wait(20)
            return 404, b''

        self.patch(self, 'answer', hang)
        with fixtures.Timeout(15, gentle=True):
            self.assertRaises(exceptions.CloudUnavailable, self.cloud.port,
                              PORT)


class TestPorts(CloudTestCase):

    def page(self, query: str, *numbers: int, following: str | None = None,
             ) -> None:
        body: dict[str, Any] = {'ports': [
            {**PORT_BODY, 'id': base.port_id(n)} for n in numbers]}
        if following is not None:
            body['ports_links'] = [{
                'rel': 'next', 'href': f'{self.url}/v2.0/ports?{following}'}]
        self.answers[query] = 200, body

    def list(self) -> list[str]:
        found = []
        for port in self.cloud.ports(network_id='n'):
            found.append(port.id)
        return found

    def test_pages(self) -> None:
        self.page('/ports?network_id=n', 1, 2, following='marker=2')
        self.page('marker=2', 3)
        self.assertEqual([base.port_id(n) for n in (1, 2, 3)], self.list())

    def test_none(self) -> None:
        self.page('/ports?network_id=n')
        self.assertEqual([], self.list())

    def test_breaks_off(self) -> None:
        self.page('/ports?network_id=n', 1, following='marker=2')
        for answer in ((500, {}), (404, {'NeutronError': {}}), (200, b'<')):
            self.answers['marker=2'] = answer
            self.assertRaises(exceptions.CloudUnavailable, self.list)

    def test_no_list(self) -> None:
        for answer in ((404, {'NeutronError': {}}), (503, {}), (200, b'')):
            self.answers['/ports?network_id=n'] = answer
            self.assertRaises(exceptions.CloudUnavailable, self.list)

    def test_one_is_not_what_is_promised(self) -> None:
        self.answers['/ports?network_id=n'] = 200, {'ports': [
            PORT_BODY, {**PORT_BODY, 'mac_address': None}]}
        self.assertRaises(exceptions.CloudUnavailable, self.list)


class TestServer(CloudTestCase):

    def get(self, status: int, body: Any) -> str | None:
        self.answers[f'/servers/{SERVER}'] = status, body
        return self.cloud.server_status(SERVER)

    def test_there(self) -> None:
        self.assertEqual('SHUTOFF', self.get(200, {'server': {
            'id': SERVER, 'status': 'SHUTOFF'}}))

    def test_gone(self) -> None:
        self.assertIsNone(self.get(404, {'itemNotFound': {
            'code': 404, 'message': 'Instance could not be found.'}}))

    def test_unusable(self) -> None:
        for status, body in ((404, b'<html>'), (404, {'error': {}}),
                             (500, {'computeFault': {}}), (401, {}),
                             (200, b'<html>')):
            error = self.assertRaises(exceptions.CloudUnavailable, self.get,
                                      status, body)
            self.assertIn('Nova', str(error))


class TestSubnet(CloudTestCase):

    def get(self, **values: Any) -> cloud.Subnet | None:
        self.answers[f'/subnets/{base.SUBNET}'] = 200, {
            'subnet': {**SUBNET_BODY, **values}}
        return self.cloud.subnet(base.SUBNET)

    def test_by_id(self) -> None:
        ip = base.ip
        self.assertEqual(cloud.Subnet(
            base.SUBNET, 'net-a', base.NETWORK, '10.0.0.0/24',
            ip('10.0.0.1'), ((ip('10.0.0.2'), ip('10.0.0.254')),), False),
            self.get())

    def test_without_gateway(self) -> None:
        found = self.get(gateway_ip=None)
        assert found is not None
        self.assertIsNone(found.gateway)

    def test_by_name(self) -> None:
        for number, expected in ((0, None), (1, base.SUBNET)):
            self.answers['/subnets?name=net-a'] = 200, {
                'subnets': [SUBNET_BODY] * number}
            found = self.cloud.subnet('net-a')
            self.assertEqual(expected, found and found.id)

    def test_several(self) -> None:
        self.answers['/subnets?name=net-a'] = 200, {'subnets': [
            SUBNET_BODY, {**SUBNET_BODY, 'id': base.port_id(9)}]}
        error = self.assertRaises(exceptions.VmipError, self.cloud.subnet,
                                  'net-a')
        self.assertIn('give the id', str(error))

    def test_unusable(self) -> None:
        for values in ({'allocation_pools': None}, {'gateway_ip': 'x'},
                       {'allocation_pools': [{'start': '10.0.0.1'}]}):
            self.assertRaises(exceptions.CloudUnavailable, self.get,
                              **values)
