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

"""As much of Keystone, Neutron and Nova as the daemons ask, over HTTP."""

import bisect
from collections.abc import Callable, Sequence
import datetime
# The classes, not the module: eventlet.green, which Neutron imports, puts a
# green copy of the module on the package later, and its threads never run.
from http.server import BaseHTTPRequestHandler
from http.server import ThreadingHTTPServer
import itertools
import json
import threading
from typing import Any
from urllib import parse
import uuid

import fixtures

#: of the user who asks
PROJECT = uuid.UUID(int=1).hex
#: of the ports
TENANT = uuid.UUID(int=2).hex


class Cloud(fixtures.Fixture):
    """Answers for the ports and servers that it is told of.

    :ivar ports: what Neutron knows, by id, as its API shows it.
    :ivar subnets: the same of subnets.
    :ivar roles: what the user has in the project.
    :ivar servers: status of what Nova knows, by id.
    :ivar deleted: when Nova deleted what it still can list, by id.
    :ivar networks: ids of networks without a port.
    :ivar neutron_admin: Neutron shows the user everything; nova_admin: the
        same of Nova.
    :ivar down: servers in a cell that is down.
    :ivar builds: servers that are still build requests, first in lists.
    :ivar regions: of the catalogue's endpoints.
    :ivar hanging: questions to Nova wait for it.
    :ivar before_page: called with the marker before a page is answered.
    :ivar failing: number of the question from which on all fail.
    :ivar url: where it is.
    :ivar asked: how many questions there were.
    """

    def _setUp(self) -> None:
        self.ports: dict[str, dict[str, Any]] = {}
        self.subnets: dict[str, dict[str, Any]] = {}
        self.roles = ['admin']
        self.servers: dict[str, str] = {}
        self.deleted: dict[str, datetime.datetime] = {}
        self.asked = 0
        self.failing: int | None = None
        self.networks: set[str] = set()
        self.neutron_admin = self.nova_admin = True
        self.down: set[str] = set()
        self.builds: list[str] = []
        self.regions = ['one']
        self.hanging: threading.Event | None = None
        self.asked_nova: list[str] = []
        self.before_page: Callable[[str | None], Any] = lambda marker: None
        self._order: dict[str, list[str]] = {}
        stub = self

        class Handler(_Handler):
            cloud = stub

        self._server = ThreadingHTTPServer(
            ('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        threading.Thread(target=self._server.serve_forever,
                         daemon=True).start()
        self.addCleanup(self._server.server_close)
        self.addCleanup(self._server.shutdown)

    def add(self, port_id: str, mac: str, address: str, subnet_id: str,
            network_id: str, server_id: str) -> None:
        """Make a port of a running server."""
        self._order.clear()
        self.networks.add(network_id)
        self.servers[server_id] = 'ACTIVE'
        self.ports[port_id] = {
            'id': port_id, 'network_id': network_id, 'project_id': TENANT,
            'mac_address': mac, 'device_id': server_id,
            'device_owner': 'compute:nova', 'status': 'ACTIVE',
            'fixed_ips': [{'subnet_id': subnet_id, 'ip_address': address}]}

    def delete(self, port_id: str) -> None:
        """Delete a port and the server that has it."""
        self._order.clear()
        server_id = self.ports.pop(port_id)['device_id']
        del self.servers[server_id]
        self.deleted[server_id] = datetime.datetime.now(datetime.UTC)

    def order(self, what: str) -> list[str]:
        """Return the ids of all ports or servers in their order."""
        known = self.ports if what == 'ports' else self.servers
        if what not in self._order or len(self._order[what]) != len(known):
            self._order[what] = sorted(known)
        return self._order[what]

    @property
    def config(self) -> str:
        """The section for a daemon's configuration."""
        return (f'[cloud]\nauth_type = v3password\n'
                f'auth_url = {self.url}/identity/v3\n'
                'username = vmip\npassword = vmip\nproject_name = service\n'
                'user_domain_id = default\nproject_domain_id = default\n'
                'region_name = one\ntimeout = 10\n')


class _Handler(BaseHTTPRequestHandler):

    cloud: Cloud
    protocol_version = 'HTTP/1.1'
    # head and body go at once, or each answer waits for a delayed ACK
    wbufsize = -1

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers['Content-Length']))
        self._answer(201, {'token': {
            'expires_at': '2100-01-01T00:00:00.000000Z',
            'issued_at': '2000-01-01T00:00:00.000000Z',
            'methods': ['password'], 'is_domain': False,
            'user': {'id': 'vmip', 'name': 'vmip',
                     'domain': {'id': 'default', 'name': 'Default'}},
            'project': {'id': PROJECT, 'name': 'service',
                        'domain': {'id': 'default', 'name': 'Default'}},
            'roles': [{'id': name, 'name': name}
                      for name in self.cloud.roles],
            'catalog': [{
                'type': kind, 'name': name, 'id': name, 'endpoints': [{
                    'id': name + region, 'interface': 'internal',
                    'region': region, 'region_id': region,
                    'url': f'{self.cloud.url}/{kind}'}
                    for region in self.cloud.regions]}
                for kind, name in (('network', 'neutron'),
                                   ('compute', 'nova'))]}},
            {'X-Subject-Token': 'token'})

    def do_GET(self) -> None:
        url = parse.urlsplit(self.path)
        _, service, *rest = url.path.rstrip('/').split('/')
        if len(rest) < 2:
            self._versions(service)
            return
        self.cloud.asked += 1
        if (self.cloud.failing is not None
                and self.cloud.asked >= self.cloud.failing):
            self._answer(503, {})
            return
        query = parse.parse_qs(url.query)
        what = rest[-1]
        if service == 'compute':
            self.cloud.asked_nova.append(self.path)
            if self.cloud.hanging is not None:
                self.cloud.hanging.wait()
        if service == 'compute' and what == 'servers':
            self._servers(query)
        elif service == 'compute':
            status = (self.cloud.servers.get(what)
                      if self.cloud.nova_admin else None)
            if what in self.cloud.down:
                self._answer(500, {'computeFault': {
                    'code': 500, 'message': 'Unexpected API Error.'}})
            elif status is None:
                self._answer(404, {'itemNotFound': {
                    'code': 404, 'message': 'Instance could not be found.'}})
            else:
                self._answer(200, {'server': {'id': what, 'status': status}})
        elif what == 'ports':
            self._ports(query)
        elif what == 'networks':
            self._answer(200, {'networks': [
                self._network(id) for id in sorted(self.cloud.networks)]})
        elif what in self.cloud.networks:
            self._answer(200, {'network': self._network(what)})
        elif what in self.cloud.subnets:
            self._answer(200, {'subnet': self.cloud.subnets[what]})
        elif what == 'subnets':
            self._answer(200, {'subnets': []})
        elif what in self.cloud.ports and self.cloud.neutron_admin:
            self._answer(200, {'port': self.cloud.ports[what]})
        else:
            self._answer(404, {'NeutronError': {
                'type': 'PortNotFound', 'detail': '',
                'message': f'Port {what} could not be found.'}})

    def _network(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = {'id': id, 'name': id, 'shared': True,
                                 'project_id': TENANT}
        if self.cloud.neutron_admin:
            found['provider:network_type'] = 'flat'
        return found

    def _ports(self, query: dict[str, list[str]]) -> None:
        ports = self.cloud.ports
        ids = ([id for id in query['id'] if id in ports] if 'id' in query
               else self.cloud.order('ports'))
        wanted = {text.removeprefix('ip_address=')
                  for text in query.get('fixed_ips', ())}

        def matches(port: dict[str, Any]) -> bool:
            return (self.cloud.neutron_admin
                    and port['network_id'] in query.get(
                'network_id', [port['network_id']])
                and port['mac_address'] in query.get(
                    'mac_address', [port['mac_address']])
                and (not wanted or any(ip['ip_address'] in wanted
                                       for ip in port['fixed_ips'])))

        fields = query.get('fields')
        try:
            found, links = self._page('ports', ids, query,
                                      lambda id: id in ports
                                      and matches(ports[id]))
        except LookupError as exc:
            # as neutron.db._utils looks for it
            self._answer(404, {'NeutronError': {
                'type': 'PortNotFound', 'detail': '',
                'message': f'Port {exc} could not be found.'}})
            return
        self._answer(200, {'ports': [
            {key: ports[id][key] for key in fields or ports[id]}
            for id in found], **links})

    def _servers(self, query: dict[str, list[str]]) -> None:
        if not self.cloud.nova_admin:
            self._answer(403, {'forbidden': {
                'code': 403, 'message': 'Policy doesn\'t allow it.'}})
            return
        if 'uuid' in query:
            ids = [id for id in query['uuid'] if id in self.cloud.deleted]
        elif 'changes-since' in query:
            since = datetime.datetime.fromisoformat(
                query['changes-since'][0])
            ids = sorted(id for id, when in self.cloud.deleted.items()
                         if when >= since)
        else:
            ids = [id for id in self.cloud.order('servers')
                   if id not in self.cloud.down
                   and id not in self.cloud.builds]
            marker = query.get('marker', [None])[0]
            if marker is None:
                # as nova.compute.api.API.get_all puts them
                limit = int(query.get('limit', ['1000000'])[0])
                self._answer(200, {'servers': [
                    {'id': id, 'name': id}
                    for id in (self.cloud.builds + ids)[:limit]]})
                return
            if marker in self.cloud.builds:
                query = {**query, 'marker': ['']}
        try:
            found, links = self._page('servers', ids, query, lambda id: True)
        except LookupError as exc:
            self._answer(400, {'badRequest': {
                'code': 400, 'message': f'marker [{exc}] not found'}})
            return
        self._answer(200, {'servers': [
            {'id': id, 'name': id} for id in found], **links})

    def _page(self, what: str, ids: Sequence[str],
              query: dict[str, list[str]], matches: Callable[[str], bool],
              ) -> tuple[list[str], dict[str, Any]]:
        """Return a page of ids in order and the link to the next one."""
        marker = query.get('marker', [''])[0]
        self.cloud.before_page(marker or None)
        ids = [id for id in ids if what != 'ports' or id in self.cloud.ports]
        if marker and what == 'ports' and marker not in self.cloud.ports:
            raise LookupError(marker)
        if (marker and what == 'servers' and marker not in self.cloud.deleted
                and marker not in self.cloud.servers):
            raise LookupError(marker)
        first = bisect.bisect_right(ids, marker)
        limit = int(query.get('limit', ['1000000'])[0])
        found: list[str] = list(itertools.islice(
            filter(matches, itertools.islice(ids, first, None)), limit))
        if len(found) < limit:
            return found, {}
        query = {**query, 'marker': [found[-1]]}
        path = self.path.partition('?')[0]
        return found, {f'{what}_links': [{
            'rel': 'next', 'href': f'{self.cloud.url}{path}?'
            + parse.urlencode(query, doseq=True)}]}

    def _versions(self, service: str) -> None:
        number = 'v2.0' if service == 'network' else 'v2.1'
        version = {'id': number, 'status': 'CURRENT', 'links': [{
            'rel': 'self', 'href': f'{self.cloud.url}/{service}/{number}/'}]}
        if service == 'compute':
            version.update(version='2.96', min_version='2.1')
        if self.path.rstrip('/').endswith(number):
            self._answer(200, {'version': version})
        else:
            self._answer(200, {'versions': [version]})

    def _answer(self, code: int, body: Any,
                headers: dict[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
