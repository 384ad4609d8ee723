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

"""Every form in which clients ask for addresses, sent to the real nova-api."""

from collections.abc import Iterable
import json
from typing import Any

from tests.cloud import base
from tests.cloud import harness

NETWORK, OTHER = 'provider1', 'provider2'
ASKED, FIXED, FOREIGN = '192.0.2.113', '192.0.2.114', '192.0.2.150'
POOL_SIZE = 20


class TestRequests(base.CloudTestCase):
    """Fake compute; "held" is what the list has right after the answer."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        sdk = cls.cloud.sdk()
        cls.server = {key: cls.wanted[key]
                      for key in ('flavorRef', 'imageRef')}
        cls.networks = {name: sdk.network.find_network(name).id
                        for name in (NETWORK, OTHER)}
        cls.nic = {'uuid': cls.networks[NETWORK]}

    def tearDown(self) -> None:
        for user in ('admin', 'demo', 'demo2'):
            compute = self.cloud.sdk(user).compute
            for server in list(compute.servers()):
                compute.delete_server(server.id)
            harness.wait_for('servers are deleted',
                             lambda c=compute: not list(c.servers()))
        # a port that its owner made outlives the server
        network = self.cloud.sdk().network
        for port in list(network.ports(
                project_id=self.cloud.sdk().current_project_id)):
            network.delete_port(port.id)
        self.cloud.forget_servers()

    # -- what clients send -------------------------------------------------

    def post(self, path: str, body: Any, *, version: str = '2.1',
             user: str = 'demo', root: str = '/v2.1',
             ) -> tuple[int, Any]:
        """Send a request as it is; return status and answer."""
        compute = self.cloud.sdk(user).compute
        url = compute.get_endpoint().removesuffix('/v2.1') + root + path
        if not isinstance(body, bytes) and not hasattr(body, '__next__'):
            body = json.dumps(body).encode()
        answer = self.cloud.sdk(user).session.post(
            url, data=body, raise_exc=False,
            headers={'Content-Type': 'application/json',
                     'OpenStack-API-Version': f'compute {version}'})
        # the size limit before vmip answers in plain text
        is_json = answer.headers['Content-Type'].startswith(
            'application/json')
        return answer.status_code, (answer.json() if is_json
                                    else answer.text)

    def body(self, *networks: Any, name: str = 'form', **values: Any,
             ) -> dict[str, Any]:
        server = {**self.server, 'name': name, **values}
        if networks:
            server['networks'] = list(networks)
        return {'server': server}

    def create(self, *networks: Any, expected: int = 202, hints: Any = None,
               version: str = '2.1', user: str = 'demo', root: str = '/v2.1',
               **values: Any) -> Any:
        body = self.body(*networks, **values)
        if hints is not None:
            body['os:scheduler_hints'] = hints
        status, answer = self.post('/servers', body, version=version,
                                   user=user, root=root)
        self.assertEqual(expected, status, answer)
        return answer

    # -- what there is to see ----------------------------------------------

    def held(self, name: str = 'form') -> list[str]:
        """Return the addresses that were reserved in advance for a name."""
        return sorted(str(a.address) for _, a in
                      self.cloud.inventory.addresses(server=name))

    def early(self, address: str) -> bool:
        """Tell whether nova-api reserved what a port has now."""
        changes = list(self.cloud.inventory.history(
            harness.address(address)))
        last = [c for c in changes if c.event in ('reserve', 'claim')][-2:]
        return [(c.actor, c.event) for c in last] == [
            ('nova-api', 'reserve'), ('neutron-server', 'claim')]

    def active(self, name: str, user: str = 'demo') -> list[str]:
        """Wait until a server is ACTIVE; return its addresses."""
        compute = self.cloud.sdk(user).compute

        def check() -> Any:
            server = compute.find_server(name)
            self.assertNotEqual('ERROR', server.status, name)
            return server.status == 'ACTIVE' and server
        server = harness.wait_for(f'{name} is ACTIVE', check, every=0.3)
        return sorted(ip['ip_address'] for port in self.cloud.sdk(
            'admin').network.ports(device_id=server.id)
            for ip in port.fixed_ips)

    def fault(self, answer: Any, kind: str, code: int) -> str:
        """Return the words of a fault in Nova's form."""
        self.assertEqual([kind], list(answer))
        self.assertEqual(code, answer[kind]['code'])
        message: str = answer[kind]['message']
        return message

    # -- the forms ---------------------------------------------------------

    def test_listed(self) -> None:
        self.create(self.nic, {'uuid': self.networks[OTHER]}, self.nic)
        held = self.held()
        self.assertEqual(2, len(held))
        addresses = self.active('form')
        self.assertEqual(held, [a for a in addresses
                                if a.startswith('192.0.2.')])
        self.assertEqual(3, len(addresses))
        self.assertTrue(all(map(self.early, held)))

    def test_latest(self) -> None:
        latest = self.cloud.sdk().compute.get_endpoint_data().max_microversion
        self.create(self.nic, version='.'.join(map(str, latest)))
        self.assertEqual(self.held(), self.active('form'))

    def test_several_servers(self) -> None:
        self.create(self.nic, min_count=3, max_count=3)
        names = [f'form-{number}' for number in (1, 2, 3)]
        held = {address for name in names for address in self.held(name)}
        self.assertEqual(held, {address for name in names
                                for address in self.active(name)})
        self.assertEqual(3, len(held))

    def test_as_many_as_there_may_be(self) -> None:
        """Only what is certain is reserved; the others get theirs too."""
        self.create(self.nic, min_count=1, max_count=3)
        held = self.held('form-1')
        self.assertEqual(1, len(held))
        self.assertEqual([], self.held('form-2') + self.held('form-3'))
        given = {address for number in (1, 2, 3)
                 for address in self.active(f'form-{number}')}
        self.assertEqual(3, len(given))
        self.assertLess(set(held), given)

    def test_refused_by_the_quota(self) -> None:
        """What Nova refuses is free at once, and leaves nothing."""
        admin = self.cloud.sdk('admin').compute
        project = self.cloud.sdk().current_project_id
        admin.update_quota_set(project, instances=1)
        self.addCleanup(admin.revert_quota_set, project)
        before = list(self.cloud.inventory.changes())
        self.create(self.nic, min_count=8, max_count=8, expected=403)
        self.assertEqual([], list(self.cloud.inventory.addresses()))
        self.assertEqual(before, list(self.cloud.inventory.changes()))
        self.create(self.nic, min_count=1, max_count=8)
        # Nova gives the only one the name as it is
        self.active('form')
        self.assertEqual(1, len(list(self.cloud.inventory.addresses())))

    def test_port(self) -> None:
        port = self.cloud.sdk().network.create_port(
            network_id=self.networks[NETWORK])
        self.create({'port': port.id})
        address = port.fixed_ips[0]['ip_address']
        self.assertEqual([address], self.active('form'))
        # its address was claimed when the port was made
        self.assertFalse(self.early(address))

    def test_fixed_ip(self) -> None:
        nic = {**self.nic, 'fixed_ip': FIXED}
        self.create(nic, user='admin')
        self.assertEqual([FIXED], self.held())
        answer = self.create(nic, user='admin', name='late', expected=409)
        self.assertIn('not free',
                      self.fault(answer, 'conflictingRequest', 409))
        self.assertEqual([FIXED], self.active('form', 'admin'))
        self.assertTrue(self.early(FIXED))
        # outside the pool it is Neutron's, as ever
        self.create({**self.nic, 'fixed_ip': FOREIGN}, user='admin',
                    name='far')
        self.assertEqual([FOREIGN], self.active('far', 'admin'))
        self.assertEqual([], self.held('far'))

    def test_asked_for(self) -> None:
        """A plain user gets it, on a shared network."""
        for name, address, values in (
                ('one', ASKED, {'metadata': {'vmip_address': ASKED}}),
                ('two', FIXED, {'hints': {'vmip_address': FIXED}})):
            self.create(self.nic, name=name, **values)
            self.assertEqual([address], self.held(name))
            self.assertEqual([address], self.active(name))
            self.assertTrue(self.early(address))
        for kind, code, address, values in (
                ('conflictingRequest', 409, ASKED, {}),
                ('badRequest', 400, FOREIGN, {}),
                ('badRequest', 400, 'there', {}),
                ('badRequest', 400, '192.0.2.115', {'max_count': 2})):
            answer = self.create(self.nic, name='three', expected=code,
                                 metadata={'vmip_address': address}, **values)
            self.fault(answer, kind, code)
            self.assertIsNone(self.cloud.server('three'))
        self.assertEqual(2, len(list(self.cloud.inventory.addresses())))

    def test_left_to_nova(self) -> None:
        # two networks: Nova wants one named
        answer = self.create(expected=409)
        self.assertIn('Multiple', self.fault(
            answer, 'conflictingRequest', 409))
        self.assertEqual([], self.held())
        self.create(version='2.37', networks='none')
        self.assertEqual([], self.active('form'))
        admin = self.cloud.sdk('admin').network
        admin.update_network(self.networks[OTHER], is_shared=False)
        self.addCleanup(admin.update_network, self.networks[OTHER],
                        is_shared=True)
        # a project that nova-api has not asked for yet
        for name, values in (('absent', {}), ('auto', {
                'version': '2.37', 'networks': 'auto'})):
            self.create(name=name, user='demo2', **values)
            held = self.held(name)
            self.assertEqual(1, len(held))
            self.assertEqual(held, self.active(name, 'demo2'))
            self.assertTrue(self.early(held[0]))
        # from 2.37 on there is no leaving it out
        self.create(name='later', user='demo2', version='2.37', expected=400)
        self.assertEqual([], self.held('later'))

    def test_attach(self) -> None:
        self.create(self.nic)
        first = self.active('form')
        server = self.cloud.server('form').id
        path = f'/servers/{server}/os-interface'
        network = self.networks[NETWORK]
        for wanted in ({'net_id': network},
                       {'net_id': network,
                        'fixed_ips': [{'ip_address': ASKED}]}):
            user = 'admin' if 'fixed_ips' in wanted else 'demo'
            status, answer = self.post(path, {'interfaceAttachment': wanted},
                                       user=user)
            self.assertEqual(200, status, answer)
            address = answer['interfaceAttachment'][
                'fixed_ips'][0]['ip_address']
            self.assertTrue(self.early(address))
            self.assertIn(address, self.held())
        self.assertEqual(ASKED, address)
        status, answer = self.post(
            path, {'interfaceAttachment': {
                'net_id': network, 'fixed_ips': [{'ip_address': first[0]}]}})
        self.assertEqual(409, status)
        self.fault(answer, 'conflictingRequest', 409)
        status, answer = self.post(path, {'interfaceAttachment': {
            'net_id': network, 'port_id': network}})
        self.assertEqual(400, status)
        self.assertEqual(3, len(self.held()))

    def test_roots(self) -> None:
        project = self.cloud.sdk().current_project_id
        for number, (root, path) in enumerate((
                ('/v2', '/servers'), ('/v2', f'/{project}/servers'),
                ('/v2.1', f'/{project}/servers'))):
            status, answer = self.post(
                path, self.body(self.nic, name=f'root{number}'), root=root)
            self.assertEqual(202, status, answer)
            self.assertEqual(1, len(self.held(f'root{number}')))

    def test_bodies(self) -> None:
        def chunks(data: bytes) -> Iterable[bytes]:
            return iter([data[:7], data[7:]])

        raw = json.dumps(self.body(self.nic)).encode()
        for expected, body in (
                (400, b'{'), (400, b'[]'), (400, b''),
                (500, b'\xff'),     # Nova's own answer to what is not UTF-8
                (400, b'{"server": {"name": "x", "networks": 5}}'),
                (413, raw + b' ' * 120000),
                # uwsgi hands a chunked body on to no WSGI application: to
                # Nova, and to the filter, there is none
                (400, chunks(raw)), (400, chunks(raw + b' ' * 120000))):
            status, answer = self.post('/servers', body)
            self.assertEqual(expected, status, answer)
        self.assertEqual([], list(self.cloud.inventory.addresses()))
        # and the next request is not mixed up with any of them
        status, answer = self.post('/servers', raw)
        self.assertEqual(202, status, answer)
        self.assertEqual(self.held(), self.active('form'))

    def test_full(self) -> None:
        answer = self.create(self.nic, min_count=POOL_SIZE + 1, expected=409)
        self.assertIn('No more addresses',
                      self.fault(answer, 'conflictingRequest', 409))
        self.assertEqual([], list(self.cloud.inventory.addresses()))

    def test_refused_by_nova(self) -> None:
        for expected, values in (
                (400, {'imageRef': self.networks[NETWORK]}),
                (400, {'flavorRef': 'none'}), (400, {'name': ' '})):
            self.create(self.nic, expected=expected, **values)
            self.assertEqual([], list(self.cloud.inventory.addresses()))
