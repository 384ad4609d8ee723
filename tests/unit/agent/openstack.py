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

"""A Keystone, a Nova and a Neutron that know what a test tells them."""

from collections.abc import Callable, Iterable
import json
import threading
from typing import Any
import urllib.parse
from wsgiref import simple_server

import fixtures
from keystoneauth1 import loading

from vmip_plugin import cloud
from vmip_plugin import conf as conf_

Answer = tuple[int, Any]


class _Handler(simple_server.WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


class OpenStack(fixtures.Fixture):
    """The three on one port of the loopback interface.

    :ivar ports: Neutron's, by id.
    :ivar servers: status of Nova's, by id.
    :ivar broken: service (``identity``, ``compute``, ``network``) to the
        status and body that it answers everything with.
    """

    def _setUp(self) -> None:
        self.ports: dict[str, dict[str, Any]] = {}
        self.servers: dict[str, str] = {}
        self.networks = {'network'}
        self.roles = ['admin']
        self.broken: dict[str, Answer] = {}
        #: tokens that were given out and not revoked
        self.tokens: set[str] = set()
        self._count = 0
        self._http = simple_server.make_server(
            '127.0.0.1', 0, self._serve, handler_class=_Handler)
        self.url = f'http://127.0.0.1:{self._http.server_port}'
        thread = threading.Thread(
            target=self._http.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self._http.server_close)
        self.addCleanup(self._http.shutdown)

    def cloud(self) -> cloud.Cloud:
        """Return a cloud with a password here."""
        conf = conf_.new()
        conf([], default_config_files=[], default_config_dirs=[])
        conf.set_override('auth_type', 'v3password', 'cloud')
        for opt in loading.get_auth_plugin_conf_options('v3password'):
            conf.register_opt(opt, 'cloud')
        for name, value in {
                'auth_url': f'{self.url}/identity/v3', 'username': 'u',
                'password': 'p', 'project_name': 'p',
                'user_domain_id': 'default', 'project_domain_id': 'default',
                }.items():
            conf.set_override(name, value, 'cloud')
        return cloud.Cloud(conf, timeout=10)

    def add(self, port_id: str, mac: str, server_id: str,
            owner: str = 'compute:nova') -> None:
        self.ports[port_id] = {
            'id': port_id, 'network_id': 'network', 'project_id': 'project',
            'mac_address': mac, 'device_id': server_id,
            'device_owner': owner, 'status': 'ACTIVE', 'fixed_ips': [
                {'subnet_id': 'subnet', 'ip_address': '10.66.1.1'}]}

    def revoke(self) -> None:
        """Let no token that was given out be good any more."""
        self.tokens.clear()

    def _serve(self, environ: dict[str, Any],
               start: Callable[..., Any]) -> Iterable[bytes]:
        service, _, rest = environ['PATH_INFO'].lstrip('/').partition('/')
        headers = [('Content-Type', 'application/json')]
        if service in self.broken:
            status, body = self.broken[service]
        elif service == 'identity':
            self._count += 1
            token = f'token-{self._count}'
            self.tokens.add(token)
            headers.append(('X-Subject-Token', token))
            status, body = 201, {'token': self._token()}
        elif environ.get('HTTP_X_AUTH_TOKEN') not in self.tokens:
            status, body = 401, {'error': {'code': 401, 'message': 'no'}}
        else:
            status, body = getattr(self, f'_{service}')(
                rest.split('/'), urllib.parse.parse_qs(
                    environ['QUERY_STRING']))
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        start(f'{status} Some', [
            *headers, ('Content-Length', str(len(raw)))])
        return [raw]

    def _token(self) -> dict[str, Any]:
        return {
            'methods': ['password'], 'issued_at': '2020-01-01T00:00:00Z',
            'expires_at': '2999-01-01T00:00:00Z',
            'user': {'id': 'u', 'name': 'u',
                     'domain': {'id': 'default', 'name': 'Default'}},
            'project': {'id': 'p', 'name': 'p',
                        'domain': {'id': 'default', 'name': 'Default'}},
            'roles': [{'id': name, 'name': name} for name in self.roles],
            'catalog': [
                {'type': kind, 'name': kind, 'id': kind, 'endpoints': [{
                    'id': kind, 'interface': 'internal', 'region': 'one',
                    'region_id': 'one', 'url': self.url + path}]}
                for kind, path in (('compute', '/compute/v2.1'),
                                   ('network', '/network'))]}

    def _compute(self, path: list[str], query: dict[str, list[str]]
                 ) -> Answer:
        if path[1:2] != ['servers']:
            return 200, {'version': {
                'id': 'v2.1', 'status': 'CURRENT', 'version': '2.90',
                'min_version': '2.1', 'links': [
                    {'rel': 'self', 'href': f'{self.url}/compute/v2.1/'}]}}
        if len(path) == 2:
            # all of them, or those that were deleted
            if 'admin' not in self.roles:
                return 403, {'forbidden': {'code': 403, 'message': 'no'}}
            return 200, {'servers': [
                {'id': id} for id in query.get('uuid', ())
                if id not in self.servers and 'marker' not in query]}
        status = self.servers.get(path[2])
        if status is None:
            return 404, {'itemNotFound': {'code': 404, 'message': 'none'}}
        return 200, {'server': {'id': path[2], 'status': status}}

    def _network(self, path: list[str], query: dict[str, list[str]]
                 ) -> Answer:
        if path[0] != 'v2.0' or len(path) < 2 or not path[1]:
            return 200, {'versions': [{
                'id': 'v2.0', 'status': 'CURRENT', 'links': [
                    {'rel': 'self', 'href': f'{self.url}/network/v2.0'}]}]}
        if path[1:] == ['ports']:
            macs = query.get('mac_address', [])
            return 200, {'ports': [port for port in self.ports.values()
                                   if port['mac_address'] in macs]}
        shown = ({'provider:network_type': 'flat'}
                 if 'admin' in self.roles else {})
        if path[1:] == ['networks']:
            return 200, {'networks': [
                {'id': id, **shown} for id in self.networks or ('other',)]}
        found: Any = None
        if path[1] == 'ports':
            found = self.ports.get(path[2])
        elif path[2] in self.networks:
            found = {'id': path[2]}
        if found is None:
            return 404, {'NeutronError': {
                'type': 'NotFound', 'message': '', 'detail': ''}}
        return 200, {path[1].rstrip('s'): found}
