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

import datetime
import json
import threading
from typing import Any
from urllib import parse
from wsgiref import simple_server

import fixtures
from keystoneauth1 import loading

from tests.unit import base
from vmip_plugin import cloud
from vmip_plugin import exceptions
from vmip_plugin import metrics

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


class TestPages(CloudTestCase):
    """Lists of any length, page by page."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(cloud, 'PAGE', 2)
        #: (number of the page, what it is instead)
        self.instead: tuple[int, tuple[int, Any]] | None = None

    def answer(self, path: str) -> tuple[int, Any]:
        url = parse.urlsplit(path)
        kind = url.path.rpartition('/')[2]
        if kind not in ('ports', 'servers'):
            return super().answer(path)
        self.asked.append(path)
        if self.instead and len(self.asked) == self.instead[0]:
            return self.instead[1]
        query = parse.parse_qs(url.query)
        ids = [base.port_id(n) for n in range(5)]
        first = (ids.index(query['marker'][0]) + 1 if 'marker' in query
                 else 0)
        return 200, {kind: [
            {**PORT_BODY, 'id': id, 'status': 'DELETED'} for id in ids
            ][first:][:int(query.get('limit', ['9'])[0])]}

    def asked_for(self) -> list[str]:
        """Return the markers of the questions."""
        return [parse.parse_qs(parse.urlsplit(path).query).get(
            'marker', [''])[0] for path in self.asked]

    def test_all(self) -> None:
        for ask in (lambda: [p.id for p in self.cloud.all_ports(
                        base.NETWORK)],
                    lambda: list(self.cloud.all_servers()),
                    lambda: list(self.cloud.deleted_servers(
                        self.clock.now))):
            self.asked.clear()
            self.assertEqual([base.port_id(n) for n in range(5)], ask())
            self.assertEqual(['', base.port_id(1), base.port_id(3),
                              base.port_id(4)], self.asked_for())

    def test_what_is_asked(self) -> None:
        list(self.cloud.all_ports(base.NETWORK))
        self.assertIn(f'ports?network_id={base.NETWORK}&sort_key=id&'
                      'sort_dir=asc&fields=id&', self.asked[0])
        self.asked.clear()
        list(self.cloud.all_servers())
        self.assertIn('servers?all_tenants=true&sort_key=uuid&sort_dir=asc&'
                      'limit=2', self.asked[0])
        self.asked.clear()
        list(self.cloud.deleted_servers(datetime.datetime(
            2026, 1, 2, tzinfo=datetime.UTC)))
        self.assertIn('servers?all_tenants=true&status=DELETED&'
                      'changes-since=2026-01-02T00%3A00%3A00%2B00%3A00',
                      self.asked[0])

    def test_port_is_whole(self) -> None:
        self.assertEqual(cloud.Port(
            base.port_id(0), base.NETWORK, base.PROJECT,
            'fa:16:3e:00:00:01', ((base.SUBNET, base.ip('10.0.0.10')),
                                  (base.SUBNET, base.ip('2001:db8::1'))),
            SERVER, 'compute:nova', 'DELETED'),
            next(self.cloud.all_ports(base.NETWORK)))

    def test_ports_with(self) -> None:
        self.assertEqual([], list(self.cloud.ports_with(base.NETWORK, [])))
        self.assertEqual([], self.asked)
        list(self.cloud.ports_with(base.NETWORK, [
            base.ip(f'10.0.0.{n}') for n in range(51)]))
        self.assertEqual(2, len(self.asked))
        query = parse.parse_qs(parse.urlsplit(self.asked[0]).query)
        self.assertEqual([f'ip_address=10.0.0.{n}' for n in range(50)],
                         query['fixed_ips'])
        self.assertEqual([base.NETWORK], query['network_id'])

    def test_deleted_ones_are_not_for_everybody(self) -> None:
        """So Nova answers who is no admin."""
        self.instead = 1, (403, {'forbidden': {
            'message': 'Only administrators may list deleted instances'}})
        self.assertRaises(
            exceptions.CloudUnavailable, next,
            self.cloud.deleted_servers(self.clock.now))

    def test_a_page_fails(self) -> None:
        same = {'ports': [{**PORT_BODY, 'id': base.port_id(1)}]}
        for page in (1, 2, 3):
            for instead in (
                    (500, {}), (404, {'NeutronError': {}}), (200, b'<html>'),
                    (200, {}), (200, {'ports': None}),
                    (200, {'ports': [{'id': 'x'}]}),
                    (200, {'ports': [{**PORT_BODY, 'fixed_ips': 1}]}),
                    *([(200, same)] if page == 2 else [])):
                if page > 1 and instead[0] == 404:
                    continue    # its marker was deleted: see below
                self.asked.clear()
                self.instead = page, instead
                error = self.assertRaises(
                    exceptions.CloudUnavailable, list,
                    self.cloud.all_ports(base.NETWORK))
                self.assertIn('Neutron', str(error))

    def test_nova_fails(self) -> None:
        self.instead = 2, (503, b'')
        error = self.assertRaises(exceptions.CloudUnavailable, list,
                                  self.cloud.all_servers())
        self.assertIn('Nova', str(error))


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

    def test_these(self) -> None:
        wanted = [base.port_id(n) for n in range(60)]
        for part, there in ((wanted[:50], [7]), (wanted[50:], [])):
            self.page('/ports?' + '&'.join(f'id={id}' for id in part), *there)
        self.assertEqual([base.port_id(7)], [
            port.id for port in self.cloud.these_ports(wanted)])

    def test_one_is_not_what_is_promised(self) -> None:
        self.answers['/ports?network_id=n'] = 200, {'ports': [
            PORT_BODY, {**PORT_BODY, 'mac_address': None}]}
        self.assertRaises(exceptions.CloudUnavailable, self.list)


class TestHasNetwork(CloudTestCase):

    def test_one(self) -> None:
        path = f'/networks/{base.NETWORK}'
        self.answers[path] = 200, {'network': {'id': base.NETWORK}}
        self.assertTrue(self.cloud.has_network(base.NETWORK))
        self.answers[path] = 404, {'NeutronError': {
            'type': 'NetworkNotFound', 'message': '', 'detail': ''}}
        self.assertFalse(self.cloud.has_network(base.NETWORK))
        for answer in ((404, b''), (503, {}), (401, {})):
            self.answers[path] = answer
            self.assertRaises(exceptions.CloudUnavailable,
                              self.cloud.has_network, base.NETWORK)

    def test_any(self) -> None:
        path = '/networks?limit=1'
        self.answers[path] = 200, {'networks': [{'id': base.NETWORK}]}
        self.assertTrue(self.cloud.has_network(None))
        self.answers[path] = 200, {'networks': []}
        self.assertFalse(self.cloud.has_network(None))
        self.answers[path] = 503, {}
        self.assertRaises(exceptions.CloudUnavailable,
                          self.cloud.has_network, None)


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


class TestUsableNetworks(CloudTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.admin = self.useFixture(fixtures.MockPatchObject(
            cloud.Cloud, 'sees_all_projects', return_value=True)).mock
        self.shared = (
            '/rbac-policies?action=access_as_shared&object_type=network'
            f'&target_tenant={base.PROJECT}&target_tenant=%2A')
        self.own = f'/networks?project_id={base.PROJECT}'

    def usable(self, shared: Any, own: Any) -> dict[str, bool]:
        self.answers[self.shared] = 200, {'rbac_policies': [
            {'object_id': id, 'target_tenant': '*'} for id in shared]}
        self.answers[self.own] = 200, {'networks': own}
        return {network.id: network.auto
                for network in self.cloud.usable_networks(base.PROJECT)}

    def test_none(self) -> None:
        self.assertEqual({}, self.usable([], []))

    def test_own_and_shared(self) -> None:
        self.assertEqual(
            {'own': True, 'down': False, 'both': True, 'shared': True},
            self.usable(['both', 'shared', 'shared'], [
                {'id': 'own', 'admin_state_up': True},
                {'id': 'down', 'admin_state_up': False},
                {'id': 'both', 'admin_state_up': False}]))
        self.assertEqual(2, len(self.asked))

    def test_unusable(self) -> None:
        for path in (self.shared, self.own):
            self.usable([], [])
            self.answers[path] = 500, {}
            self.assertRaises(exceptions.CloudUnavailable,
                              self.cloud.usable_networks, base.PROJECT)

    def test_does_not_see_all(self) -> None:
        self.admin.return_value = False
        self.assertRaises(exceptions.CloudUnavailable,
                          self.cloud.usable_networks, base.PROJECT)
        self.assertEqual([], self.asked)

    def test_own_timeout(self) -> None:
        for configured, own, expected in (
                (60, 2.0, 2.0), (1, 2.0, 1), (None, 2.0, 2.0),
                (60, None, 60)):
            self.conf.set_override('timeout', configured, 'cloud')
            self.assertEqual(expected, cloud.Cloud(
                self.conf, own)._ask().session.timeout)


class TestCounts(CloudTestCase):

    def counts(self) -> list[float]:
        return [metrics.REGISTRIES[metrics.AGENT].get_sample_value(
            'vmip_cloud_errors_total', {'service': service}) or 0
            for service in ('neutron', 'nova')]

    def test_errors(self) -> None:
        """No answer is one, that there is nothing is none."""
        before = self.counts()
        self.answers[f'/servers/{SERVER}'] = 404, {'itemNotFound': {}}
        self.assertIsNone(self.cloud.server_status(SERVER))
        self.answers[f'/ports/{PORT}'] = 200, {'port': PORT_BODY}
        self.assertIsNotNone(self.cloud.port(PORT))
        self.assertEqual(before, self.counts())
        # a proxy's word, an answer that is none, a list that breaks off
        self.answers[f'/servers/{SERVER}'] = 404, b'no such page'
        self.answers[f'/ports/{PORT}'] = 500, {}
        self.assertRaises(exceptions.CloudUnavailable,
                          self.cloud.server_status, SERVER)
        self.assertRaises(exceptions.CloudUnavailable, self.cloud.port, PORT)
        self.assertRaises(exceptions.CloudUnavailable, list,
                          self.cloud.all_servers())
        self.assertEqual([before[0] + 1, before[1] + 2], self.counts())
