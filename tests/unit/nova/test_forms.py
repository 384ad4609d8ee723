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

"""Every form in which clients ask for networks and addresses."""

from typing import Any
from unittest import mock

import fixtures

from tests.unit import base
from tests.unit.nova import harness
from vmip_plugin import cloud
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

State = base.State
A, B = '10.0.0.10', '10.0.0.15'
SIX = '2001:db8::10'
NETWORK_2 = '11111111-0000-0000-0000-000000000002'
NO_POOL = '11111111-0000-0000-0000-000000000009'
SUBNET_2 = '22222222-0000-0000-0000-000000000002'
SUBNET_6 = '22222222-0000-0000-0000-000000000006'
SERVER = base.server_id(1)


def nic(network: str = base.NETWORK, address: str | None = None,
        ) -> dict[str, Any]:
    return {'uuid': network, **({'fixed_ip': address} if address else {})}


class FormTestCase(harness.FilterTestCase):

    def pool2(self) -> None:
        self.pool('10.2.0.10', '10.2.0.20', '10.2.0.0/24', name='two',
                  network=NETWORK_2, subnet=SUBNET_2)

    def pool6(self) -> None:
        self.pool(SIX, '2001:db8::20', '2001:db8::/64', name='six',
                  subnet=SUBNET_6)

    def send(self, *networks: Any, **server: Any) -> list[str]:
        """Send a request that Nova accepts; return what is reserved."""
        body = self.body(*networks, **server)
        self.assertEqual('202 Accepted', self.post(body))
        return sorted(self.held())

    def body(self, *networks: Any, **server: Any) -> dict[str, Any]:
        body = {'name': 'web', **server}
        if networks:
            body['networks'] = list(networks)
        return body

    def refused(self, *networks: Any, hints: Any = None,
                context: harness.Context | None = None, **server: Any,
                ) -> tuple[int, str, str]:
        environ = self.request(*networks, hints=hints, context=context,
                               **server)
        before = self.held()
        answer = self.fault(environ)
        self.assertEqual(before, self.held())
        return answer

    def request(self, *networks: Any, hints: Any = None,
                context: harness.Context | None = None, **server: Any,
                ) -> dict[str, Any]:
        outer: dict[str, Any] = {'server': self.body(*networks, **server)}
        if hints is not None:
            outer['os:scheduler_hints'] = hints
        return self.environ(outer=outer, context=context)


class TestListed(FormTestCase):

    def test_one_server_several_networks(self) -> None:
        self.pool2()
        self.assertEqual([A, '10.2.0.10'], self.send(
            nic(), nic(NO_POOL), nic(NETWORK_2)))

    def test_same_network_twice(self) -> None:
        self.assertEqual([A, '10.0.0.11'], self.send(nic(), nic()))

    def test_both_versions(self) -> None:
        self.pool6()
        self.assertEqual([A, SIX], self.send(nic()))
        self.assertEqual(6, len(self.send(nic(), min_count=2)))

    def test_port(self) -> None:
        for network in ({'port': base.port_id(1)},
                        {'uuid': base.NETWORK, 'port': base.port_id(1)},
                        {'port': base.port_id(1), 'tag': 'x'}):
            self.assertEqual([], self.send(network))
        self.assertEqual([A], self.send({'port': base.port_id(1)}, nic()))

    def test_fixed_ip(self) -> None:
        self.pool6()
        # Neutron gives such a port no address of the other version
        self.assertEqual([B], self.send(nic(address=B)))
        self.assertEqual(('web', SERVER), (self.row(B).server_name,
                                           self.row(B).server_id))
        self.assertEqual(B, self.claim(address=base.ip(B)))
        self.assertEqual([B, SIX], self.send(nic(address=SIX)))

    def test_fixed_ip_taken(self) -> None:
        self.send(nic(address=B))
        self.assertEqual(
            (409, 'conflictingRequest', 'The requested address is not free.'),
            self.refused(nic(address=B)))
        self.assertEqual(409, self.refused(nic(), nic(address=B))[0])
        self.assertEqual(409, self.refused(nic(address=A),
                                           nic(address=A))[0])

    def test_fixed_ip_of_a_server_just_deleted(self) -> None:
        """It can be had at once, unless it still answers on the wire."""
        self.send(nic(address=B))
        self.claim(address=base.ip(B))
        self.inventory.release_address(base.SUBNET, base.ip(B), 'deleted',
                                       states.Evidence.COMMITTED)
        self.inventory.note_answered(self.row(B), clock.now())
        self.assertEqual(
            (409, 'conflictingRequest', 'The requested address is not free '
             'yet: its former holder still answers on the wire.'),
            self.refused(nic(address=B)))
        self.inventory.note_answered(self.row(B), None)
        self.assertEqual([B], self.send(nic(address=B), name='again'))

    def test_fixed_ip_outside(self) -> None:
        self.assertEqual([], self.send(nic(address='10.0.0.9')))
        self.assertEqual([], self.send(nic(NO_POOL, B)))
        self.assertEqual([], self.send(nic(address=SIX)))
        self.assertEqual([A], self.send(nic(address='10.0.0.9'), nic()))

    def test_fixed_ip_of_several_servers(self) -> None:
        """Nova refuses it."""
        self.nova.status = '400 Bad Request'
        self.assertEqual('400 Bad Request', self.post(self.body(
            nic(address=B), max_count=2)))
        self.assertEqual({}, self.held())

    def test_counts(self) -> None:
        for count, values in ((1, {}), (3, {'min_count': 3}),
                              (1, {'max_count': '4'}),
                              (2, {'min_count': 2, 'max_count': 3})):
            before = len(self.held())
            self.assertEqual(count, len(self.send(nic(), **values)) - before)

    def test_held_for_a_name(self) -> None:
        self.hold(B, 'web-2')
        self.send(nic(), min_count=2)
        self.assertEqual('req-1', self.row(B).request_id)
        self.assertEqual({A, B}, set(self.held()))

    def test_full(self) -> None:
        self.assertEqual((409, 'conflictingRequest', 'No more addresses are '
                          'free on the requested network.'),
                         self.refused(nic(), min_count=12))
        self.assertEqual(409, self.refused(nic(), nic(), min_count=6)[0])

    def test_one_transaction(self) -> None:
        self.send(nic())
        database = self.app._hooks._hooks[0].plugin._inventory.database
        with mock.patch.object(database, 'write',
                               wraps=database.write) as write, \
                mock.patch.object(database, 'read') as read:
            self.nova.look = lambda: self.assertEqual(1, write.call_count)
            self.send(nic(), nic(), min_count=3)
            # and one that notes the server, or gives all back
            self.assertEqual(1, write.call_count)
            self.nova.look = lambda: None
            self.send(nic())
            self.assertEqual(3, write.call_count)
            self.assertEqual([], read.mock_calls)


class NetworkTestCase(FormTestCase):
    """Networks left to Nova."""

    def setUp(self) -> None:
        super().setUp()
        #: what Neutron says
        self.neutron = self.useFixture(fixtures.MockPatchObject(
            cloud.Cloud, 'usable_networks', return_value=[])).mock

    def usable(self, *networks: str, auto: bool = True) -> None:
        self.neutron.return_value = [
            cloud.Network(id, auto) for id in networks]


class TestChosenByNova(NetworkTestCase):

    def test_one_network(self) -> None:
        for value in ({}, {'networks': []}, {'networks': 'auto'}):
            self.usable(base.NETWORK)
            self.assertEqual(1, len(self.send(**value)), value)
            self.app._hooks._hooks[0].plugin._inventory.cancel(
                [a for _, a in self.found()], 'again')

    def test_asks_once(self) -> None:
        self.usable(base.NETWORK)
        for _ in range(5):
            self.send()
        self.neutron.assert_called_once_with(base.PROJECT)
        self.post(self.body(), context=harness.Context(
            project_id=base.OTHER_PROJECT))
        self.assertEqual(2, self.neutron.call_count)

    def test_not_asked(self) -> None:
        self.send(nic())
        self.send(networks='none')
        self.send({'port': base.port_id(1)})
        self.neutron.assert_not_called()
        self.assertEqual(1, len(self.held()))

    def test_not_one_network(self) -> None:
        for networks in ((), (NO_POOL,), (base.NETWORK, NO_POOL)):
            self.usable(*networks)
            for value in ({}, {'networks': 'auto'}):
                self.assertEqual([], self.send(**value))

    def test_auto_takes_none_that_is_down(self) -> None:
        self.usable(base.NETWORK, auto=False)
        self.assertEqual([], self.send(networks='auto'))
        self.assertEqual([A], self.send())

    def test_several_servers_and_versions(self) -> None:
        self.pool6()
        self.usable(base.NETWORK)
        self.assertEqual(6, len(self.send(min_count=3)))

    def test_neutron_does_not_answer(self) -> None:
        """The request goes on, and Neutron is left alone for a while."""
        self.neutron.side_effect = exceptions.CloudUnavailable('hangs')
        for value in ({}, {'networks': 'auto'}, {}):
            self.assertEqual([], self.send(**value))
        self.assertEqual(1, self.neutron.call_count)
        self.assertEqual(1, self.log.output.count('hangs'))
        self.app._hooks._hooks[0].plugin._networks._quiet_until = 0.0
        self.neutron.side_effect = None
        self.usable(base.NETWORK)
        self.assertEqual([A], self.send())

    def test_full(self) -> None:
        self.usable(base.NETWORK)
        self.assertEqual(409, self.refused(min_count=12)[0])

    def test_refused_by_nova(self) -> None:
        """As 2.37 and later do where networks are absent."""
        self.usable(base.NETWORK)
        self.nova.status = '400 Bad Request'
        self.post(self.body())
        self.assertEqual({}, self.held())


class TestNeverAsked(NetworkTestCase):

    config = '[reserve]\nnetwork_cache_time = 0\n'

    def test_never(self) -> None:
        self.usable(base.NETWORK)
        self.assertEqual([], self.send())
        self.neutron.assert_not_called()
        self.assertEqual('', self.log.output)


class TestNoCredentials(FormTestCase):

    def test_goes_on(self) -> None:
        self.assertEqual([], self.send())
        self.assertIn('auth_type', self.log.output)


class TestAskedFor(NetworkTestCase):

    config = ('[reserve]\naddress_metadata_key = address\n'
              'address_hint_key = vmip_address\n')

    def ask(self, value: str, *networks: Any, **values: Any) -> list[str]:
        return self.send(*(networks or [nic()]),
                         metadata={'address': value}, **values)

    def no(self, value: Any, *networks: Any, **values: Any) -> tuple[
            int, str]:
        status, _, message = self.refused(
            *(networks or [nic()]), metadata={'address': value}, **values)
        return status, message

    def test_metadata(self) -> None:
        self.assertEqual([B], self.ask(B))
        self.assertEqual(B, self.claim())

    def test_hint(self) -> None:
        for address in (B, '10.0.0.16'):
            hint: Any = {'vmip_address': [address] if address == B
                         else address}
            self.assertEqual('202 Accepted', self.call(self.request(
                nic(), hints=hint))[0])
        self.assertEqual([B, '10.0.0.16'], sorted(self.held()))

    def test_both_say_the_same(self) -> None:
        self.call(self.request(nic(), hints={'vmip_address': B},
                               metadata={'address': B}))
        self.assertEqual([B], sorted(self.held()))
        self.assertEqual(400, self.refused(
            nic(), hints={'vmip_address': A},
            metadata={'address': '10.0.0.16'})[0])

    def test_nothing_asked(self) -> None:
        self.assertEqual([A], self.ask(''))
        self.assertEqual([A, '10.0.0.11'], self.ask(' , '))
        self.assertEqual(3, len(self.send(nic(), metadata={'other': B})))

    def test_no_address(self) -> None:
        for value in ('web', '10.0.0', '10.0.0.0/24', '10.0.0.10-11',
                      '10.0.0.10;10.0.0.11', 'fe80::1%eth0', B + ',x'):
            status, message = self.no(value)
            self.assertEqual(400, status)
            self.assertIn('metadata address', message)
        for hint in (5, None, {'a': B}, [[B]], [B, 5], True):
            status, _, message = self.refused(
                nic(), hints={'vmip_address': hint})
            self.assertEqual(400, status)
            self.assertIn('scheduler hint vmip_address', message)

    def test_taken(self) -> None:
        self.ask(B)
        self.assertEqual((409, 'The requested address is not free.'),
                         self.no(B))

    def test_not_in_a_pool_of_the_network(self) -> None:
        self.pool2()
        for value in ('10.0.0.9', '10.2.0.15', SIX, '0.0.0.0', '::'):
            status, message = self.no(value)
            self.assertEqual(400, status)
            self.assertIn('in no pool', message)
        self.assertEqual(400, self.no(B, nic(NO_POOL))[0])

    def test_held_by_hand(self) -> None:
        self.hold(B, 'db')
        self.hold('10.0.0.16', 'db', base.OTHER_PROJECT)
        self.hold('10.0.0.17', None, base.PROJECT)
        self.assertEqual(409, self.no(B)[0])
        self.assertEqual(409, self.no('10.0.0.16', name='db')[0])
        self.hold('10.0.0.18', None, base.OTHER_PROJECT)
        self.assertEqual(409, self.no('10.0.0.18')[0])
        self.ask(B, name='db')
        self.ask('10.0.0.17')
        self.assertEqual(['req-1'] * 2, [
            self.row(address).request_id for address in (B, '10.0.0.17')])

    def test_both_versions(self) -> None:
        self.pool6()
        self.assertEqual([B, '2001:db8::15'],
                         self.ask(f'{B}, 2001:DB8::15'))
        self.assertEqual([A, B, '2001:db8::15', '2001:db8::16'],
                         self.ask('2001:db8::16'))

    def test_several_interfaces(self) -> None:
        """Each address goes where it belongs, in any order."""
        self.pool2()
        self.assertEqual([A, '10.0.0.16', '10.0.0.17', '10.2.0.15'],
                         self.ask('10.2.0.15,10.0.0.16,10.0.0.17',
                                  nic(NO_POOL), nic(), nic(), nic(),
                                  nic(NETWORK_2)))

    def test_more_than_interfaces(self) -> None:
        self.assertEqual(400, self.no(f'{A},{B}')[0])
        self.assertEqual(400, self.no(A, nic(address=B))[0])
        self.assertEqual(400, self.no(A, {'port': base.port_id(1)})[0])
        self.assertEqual(400, self.refused(
            networks='none', metadata={'address': A})[0])
        many = [f'10.0.{n >> 8}.{n & 255}' for n in range(5000)]
        self.assertEqual(400, self.refused(
            nic(), hints={'vmip_address': many})[0])

    def test_several_servers(self) -> None:
        status, message = self.no(f'{A},{B}', max_count=2)
        self.assertEqual(400, status)
        self.assertIn('one server', message)

    def test_chosen_by_nova(self) -> None:
        self.usable(base.NETWORK)
        self.assertEqual([B], self.send(metadata={'address': B}))
        self.assertEqual(409, self.refused(metadata={'address': B})[0])

    def test_chosen_by_nova_and_unknown(self) -> None:
        self.neutron.side_effect = exceptions.CloudUnavailable('hangs')
        status, kind, message = self.refused(metadata={'address': B})
        self.assertEqual((503, 'serviceUnavailable'), (status, kind))
        self.assertIn('name the network', message)
        self.neutron.side_effect = None
        self.assertEqual([], self.send())

    def test_not_allowed(self) -> None:
        for roles in ((), ('reader',)):
            context = harness.Context(roles=roles)
            status, kind, _ = self.refused(
                nic(), metadata={'address': B}, context=context)
            self.assertEqual((403, 'forbidden'), (status, kind))
            # what is not allowed is not told from what is
            self.assertEqual(403, self.refused(
                nic(), metadata={'address': '192.0.2.1'},
                context=context)[0])
        self.assertEqual('202 Accepted', self.post(
            self.body(nic()), context=harness.Context(roles=())))

    def test_admin(self) -> None:
        self.call(self.request(nic(), metadata={'address': B},
                               context=harness.Context(roles=['admin'])))
        self.assertEqual([B], sorted(self.held()))

    def test_rule_of_the_operator(self) -> None:
        policy = self.directory / 'policy.yaml'
        policy.write_text('"vmip:request_address": "role:network_planner"\n')
        self.assertEqual(403, self.no(B)[0])
        self.call(self.request(
            nic(), metadata={'address': B},
            context=harness.Context(roles=['network_planner'])))
        self.assertEqual([B], sorted(self.held()))
        policy.write_text('"vmip:request_address": "!"\n')
        self.assertEqual(403, self.no(
            A, context=harness.Context(roles=['admin']))[0])

    def test_words_are_not_logged(self) -> None:
        logger = self.useFixture(fixtures.FakeLogger(level=1))
        for value in ('secret\nword', B, B):
            self.call(self.request(nic(), metadata={'address': value}))
        self.assertIn('refused', logger.output)
        self.assertNotIn('secret', logger.output)


class TestAskedForAndPass(NetworkTestCase):
    """on_error = pass is no way round what was asked for."""

    config = ('[reserve]\non_error = pass\naddress_metadata_key = address\n')

    def test_client_errors(self) -> None:
        for value in ('x', '10.0.0.9'):
            self.assertEqual(400, self.refused(
                nic(), metadata={'address': value})[0])
        self.send(nic(), metadata={'address': B})
        self.assertEqual(409, self.refused(
            nic(), metadata={'address': B})[0])
        self.assertEqual(409, self.refused(nic(address=B))[0])

    def test_ours(self) -> None:
        self.neutron.side_effect = exceptions.CloudUnavailable('hangs')
        self.assertEqual([], self.send(metadata={'address': B}))
        self.assertEqual([], self.send(nic(), min_count=12))


class TestOff(FormTestCase):

    def test_off(self) -> None:
        self.assertEqual('202 Accepted', self.call(self.request(
            nic(), hints={'': B, 'vmip_address': B},
            metadata={'': B, 'address': B},
            context=harness.Context(roles=())))[0])
        self.assertEqual([A], sorted(self.held()))


class TestAttach(NetworkTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.nova.status = '200 OK'
        self.nova.body = [b'{"interfaceAttachment": {"port_state": "x"}}']

    def attach(self, wanted: Any) -> dict[str, Any]:
        return self.environ(outer={'interfaceAttachment': wanted},
                            path=f'/servers/{SERVER}/os-interface')

    def accepted(self, wanted: Any) -> list[str]:
        self.assertEqual('200 OK', self.call(self.attach(wanted))[0])
        return sorted(self.held())

    def test_network(self) -> None:
        self.assertEqual([A], self.accepted({'net_id': base.NETWORK}))
        self.assertIsNone(self.row(A).server_name)
        self.assertEqual(A, self.claim())

    def test_name_of_the_server(self) -> None:
        self.hold(B, 'db')
        self.reserve('db')
        self.inventory.bind([self.row(B)], SERVER)
        self.pool2()
        self.inventory.hold(records.Hold(
            'two', base.ip('10.2.0.19'), 'db', base.PROJECT))
        self.accepted({'net_id': NETWORK_2})
        row = self.row('10.2.0.19')
        self.assertEqual(('db', 'req-1'), (row.server_name, row.request_id))

    def test_fixed_ip(self) -> None:
        self.pool6()
        wanted = {'net_id': base.NETWORK, 'fixed_ips': [{'ip_address': B}]}
        self.assertEqual([B], self.accepted(wanted))
        self.assertEqual(409, self.fault(self.attach(wanted))[0])
        wanted['fixed_ips'] = [{'ip_address': '10.0.0.9'}]
        self.assertEqual([B], self.accepted(wanted))

    def test_any_network(self) -> None:
        self.usable(base.NETWORK)
        self.assertEqual([A], self.accepted({}))

    def test_port(self) -> None:
        self.assertEqual([], self.accepted({'port_id': base.port_id(1)}))
        self.neutron.assert_not_called()

    def test_refused_by_nova(self) -> None:
        for status in ('400 Bad Request', '404 Not Found', '409 Conflict',
                       '500 Internal Server Error'):
            self.nova.status = status
            self.call(self.attach({'net_id': base.NETWORK}))
            self.assertEqual({}, self.held())

    def test_claimed_before_the_answer(self) -> None:
        """Nova answers when the port is there."""
        self.nova.look = lambda: self.claim()
        self.accepted({'net_id': base.NETWORK})
        self.assertEqual(State.CLAIMED, self.state(A))

    def test_full(self) -> None:
        self.reserve(*(str(n) for n in range(11)))
        self.assertEqual(409, self.fault(self.attach(
            {'net_id': base.NETWORK}))[0])

    def test_not_understood(self) -> None:
        for body in (b'', b'{', b'{"interfaceAttachment": 5}'):
            environ = self.environ(
                body, path=f'/{base.PROJECT}/servers/{SERVER}/os-interface')
            self.assertEqual('200 OK', self.call(environ)[0])
            self.assertEqual(body, self.nova.bodies[-1])
