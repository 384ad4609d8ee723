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

"""What Neutron commits and rolls back, and who gets an address next."""

from collections.abc import Callable
import threading
from typing import Any

import fixtures
from neutron_lib import constants
from neutron_lib import context as n_context
from neutron_lib.db import api as db_api
from neutron_lib import exceptions as n_exc
from neutron_lib.plugins import directory
from oslo_db import exception as db_exc
import testtools

from tests.unit import base
from tests.unit.neutron import case
from tests.unit.neutron import harness
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin.neutron import claims
from vmip_plugin.neutron import ipam
from vmip_plugin.neutron import shared

Evidence = states.Evidence
State = base.State
ip = base.ip

A, B, C = '10.0.0.100', '10.0.0.101', '10.0.0.102'


class EndsTestCase(case.NeutronTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.network, self.subnet_id = self.one()
        self.context = n_context.Context(
            'user', base.PROJECT, is_admin=True, global_request_id='req-1')

    def fixed(self, *addresses: str) -> list[dict[str, str]]:
        return [{'subnet_id': self.subnet_id, 'ip_address': address}
                for address in addresses]

    def ask(self, address: str, request: str = 'req-2', number: int = 2,
            **values: Any) -> tuple[int, Any]:
        """Make a port with this address, for a server."""
        return self.post(self.network, request, admin=True,
                         device_id=base.server_id(number),
                         fixed_ips=self.fixed(address), **values)

    def made(self, address: str, number: int = 1) -> str:
        status, body = self.ask(address, f'req-{number}', number)
        self.assertEqual(201, status, body)
        return str(body['port']['id'])

    def put(self, port_id: str, *addresses: str) -> int:
        return harness.call('PUT', f'ports/{port_id}', {'port': {
            'fixed_ips': self.fixed(*addresses)}})[0]

    def delete(self, port_id: str) -> None:
        self.assertEqual(204, harness.call('DELETE', f'ports/{port_id}')[0])

    def served(self) -> None:
        """Have the DHCP servers what they have to have."""
        for entry in self.inventory.work(limit=100, port_ids=[
                row.port_id for _, row in self.found() if row.port_id]):
            self.inventory.work_done(entry)

    def patch(self, where: Any, name: str, value: Any) -> None:
        self.useFixture(fixtures.MockPatchObject(where, name, value))


class TestCommit(EndsTestCase):

    def test_delete(self) -> None:
        self.delete(self.made(A))
        self.assertEqual((State.RELEASING, Evidence.COMMITTED),
                         (self.row(A).state, self.row(A).evidence))
        # due at once: nobody has to ask Neutron
        self.assertEqual([A], [str(w.address) for w in self.inventory.work()])

    def test_not_before(self) -> None:
        port_id = self.made(A)
        plugin = directory.get_plugin()
        original = plugin.ipam._ipam_deallocate_ips
        seen = []

        def look(*args: Any, **kwargs: Any) -> Any:
            found = original(*args, **kwargs)
            seen.append(self.row(A).state)
            return found

        self.patch(plugin.ipam, '_ipam_deallocate_ips', look)
        self.delete(port_id)
        self.assertEqual([State.CLAIMED], seen)
        self.assertEqual(State.RELEASING, self.row(A).state)

    def test_update(self) -> None:
        port_id = self.made(A)
        self.assertEqual(200, self.put(port_id, B))
        self.assertEqual((State.RELEASING, Evidence.COMMITTED),
                         (self.row(A).state, self.row(A).evidence))
        self.assertEqual(State.CLAIMED, self.row(B).state)

    def test_neutron_tries_the_delete_again(self) -> None:
        port_id = self.made(A)
        plugin = directory.get_plugin()
        original = plugin.ipam._ipam_deallocate_ips
        tries = []

        def twice(*args: Any, **kwargs: Any) -> Any:
            found = original(*args, **kwargs)
            tries.append(self.row(A).state)
            if len(tries) == 1:
                raise db_exc.DBDeadlock
            return found

        self.patch(plugin.ipam, '_ipam_deallocate_ips', twice)
        self.delete(port_id)
        self.assertEqual([State.CLAIMED] * 2, tries)
        self.assertEqual(['claim', 'release'], [
            c.event for c in self.inventory.history(ip(A))])

    def test_what_follows_fails(self) -> None:
        for number, error in enumerate((
                exceptions.InventoryUnavailable('away'), ZeroDivisionError)):
            port_id = self.made((A, B)[number], number + 1)
            with fixtures.MonkeyPatch(
                    'vmip_plugin.inventory.api.Inventory.release_address',
                    _raising(error)):
                self.delete(port_id)
            self.assertIn('is left to vmip-reclaimer', self.log.output)

    def test_the_next_one_has_it_already(self) -> None:
        """A notification came first, and the address went on."""
        port_id = self.made(A)
        original = api.Inventory.release_address

        def late(inventory: api.Inventory, *args: Any, **kwargs: Any) -> bool:
            self.inventory.release_ports([port_id], 'port.delete.end')
            for work in self.inventory.work(port_ids=[port_id]):
                self.inventory.work_done(work)
            self.inventory.claim(
                subnet_id=self.subnet_id, address=ip(A),
                requester=records.Requester('req-9', base.PROJECT),
                port_id=base.port_id(9), mac=base.mac(9), server_id=None)
            return original(inventory, *args, **kwargs)

        with fixtures.MonkeyPatch(
                'vmip_plugin.inventory.api.Inventory.release_address', late):
            self.delete(port_id)
        self.assertEqual((State.CLAIMED, base.port_id(9)),
                         (self.row(A).state, self.row(A).port_id))

    def test_savepoint(self) -> None:
        """What is rolled back of a transaction undoes nothing before it."""
        with db_api.CONTEXT_WRITER.using(self.context):
            pool = ipam.VmipPool(None, self.context)
            pool.get_subnet(self.subnet_id).allocate(
                ipam.ipam_req.AnyAddressRequest())
            with testtools.ExpectedException(ZeroDivisionError), \
                    self.context.session.begin_nested():
                self.context.session.connection()
                raise ZeroDivisionError
            with self.context.session.begin_nested():
                self.context.session.connection()
        self.assertEqual(['claim'], [
            c.event for c in self.inventory.history(ip(A))])

    def test_savepoint_is_no_commit(self) -> None:
        port_id = self.made(A)
        with testtools.ExpectedException(ZeroDivisionError), \
                db_api.CONTEXT_WRITER.using(self.context):
            pool = ipam.VmipPool(None, self.context)
            pool.get_subnet(self.subnet_id).deallocate(A)
            with self.context.session.begin_nested():
                self.context.session.connection()
            raise ZeroDivisionError
        self.assertEqual((State.CLAIMED, port_id),
                         (self.row(A).state, self.row(A).port_id))

    def test_without_a_transaction(self) -> None:
        self.made(A)
        pool = ipam.VmipPool(None, self.context)
        pool.get_subnet(self.subnet_id).deallocate(A)
        self.assertEqual(Evidence.COMMITTED, self.row(A).evidence)

    def test_given_back_and_taken_again_at_once(self) -> None:
        port_id = self.made(A)
        port = {'id': port_id, 'mac_address': self.row(A).mac,
                'device_id': base.server_id(1), 'device_owner': ''}
        with db_api.CONTEXT_WRITER.using(self.context):
            pool = ipam.VmipPool(None, self.context)
            pool.get_subnet(self.subnet_id).deallocate(A)
            request = ipam.AddressRequestFactory.get_request(
                self.context, port, self.fixed(A)[0])
            self.assertEqual(A, pool.get_subnet(
                self.subnet_id).allocate(request))
        self.assertEqual((State.CLAIMED, port_id),
                         (self.row(A).state, self.row(A).port_id))


class TestLongContext(EndsTestCase):
    """A context that makes and deletes ports, one after the other."""

    def create(self) -> str:
        port = directory.get_plugin().create_port(self.context, {'port': {
            'network_id': self.network, 'project_id': base.PROJECT,
            'tenant_id': base.PROJECT, 'name': '', 'admin_state_up': True,
            'device_id': case.SERVER, 'device_owner': '',
            'mac_address': constants.ATTR_NOT_SPECIFIED,
            'fixed_ips': constants.ATTR_NOT_SPECIFIED}})
        return str(port['id'])

    def test_delete_is_no_undone_create(self) -> None:
        self.bound(self.network)
        port_id = self.create()
        directory.get_plugin().delete_port(self.context, port_id)
        row = self.row(A)
        self.assertEqual((State.RELEASING, Evidence.COMMITTED, port_id),
                         (row.state, row.evidence, row.port_id))

    def test_delete_of_an_older_port_while_an_error_is_handled(self) -> None:
        self.bound(self.network)
        port_id = self.create()
        other = n_context.Context('user', base.PROJECT, is_admin=True,
                                  global_request_id='req-2')
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            directory.get_plugin().delete_port(other, port_id)
        self.assertEqual((State.RELEASING, Evidence.COMMITTED),
                         (self.row(A).state, self.row(A).evidence))

    def test_delete_of_a_server_that_runs_while_an_error_is_handled(
            self) -> None:
        self.bound(self.network)
        port_id = self.create()
        mac = self.row(A).mac
        assert mac is not None
        self.inventory.activate(case.SERVER, 'web', [mac])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            directory.get_plugin().delete_port(self.context, port_id)
        self.assertEqual((State.RELEASING, Evidence.COMMITTED),
                         (self.row(A).state, self.row(A).evidence))

    def test_nothing_is_kept(self) -> None:
        kept = sorted(vars(self.context))
        with db_api.CONTEXT_WRITER.using(self.context):
            session = self.context.session
            pool = ipam.VmipPool(None, self.context)
            pool.get_subnet(self.subnet_id).allocate(
                ipam.ipam_req.AnyAddressRequest())
            self.assertIn(claims._KEY, session.info)
        self.assertNotIn(claims._KEY, session.info)
        self.assertEqual(kept, [key for key in sorted(vars(self.context))
                                if 'vmip' in key or key in kept])


class TestOverlap(EndsTestCase):
    """Nova's client sends a create again that it thinks lost.

    Neutron runs both. The first is rolled back, the second goes on.
    """

    def setUp(self) -> None:
        super().setUp()
        self.bound(self.network)
        self.errors: list[BaseException] = []

    def allocate(self, number: int, then: Callable[[], None]) -> None:
        """Do what a create does with its addresses, in its transaction."""
        context = n_context.Context('user', base.PROJECT, is_admin=True,
                                    global_request_id='req-1')
        port = {'id': base.port_id(number), 'mac_address': base.mac(number),
                'device_id': case.SERVER, 'device_owner': ''}
        with db_api.CONTEXT_WRITER.using(context):
            pool = ipam.VmipPool(None, context)
            request = ipam.AddressRequestFactory.get_request(
                context, port, {'subnet_id': self.subnet_id})
            pool.get_subnet(self.subnet_id).allocate(request)
            then()

    def thread(self, run: Callable[[], None]) -> threading.Thread:
        def caught() -> None:
            try:
                run()
            except BaseException as exc:
                self.errors.append(exc)

        thread = threading.Thread(target=caught, daemon=True)
        thread.start()
        return thread

    def test_undo_comes_after_the_hand_over(self) -> None:
        """It compares the port."""
        claimed, met, over, handed = (threading.Event() for _ in range(4))
        undo, claim = claims._undo, ipam.VmipSubnet._claim

        def late_undo(*args: Any) -> bool:
            over.set()
            self.assertTrue(handed.wait(60))
            return undo(*args)

        def first_fails() -> None:
            claimed.set()
            self.assertTrue(met.wait(60))
            raise ZeroDivisionError

        def meets(*args: Any) -> Any:
            found = claim(*args)
            if found.repeated:
                met.set()
                # others' databases make the insert wait for that
                self.assertTrue(over.wait(60))
            return found

        self.patch(claims, '_undo', late_undo)
        self.patch(ipam.VmipSubnet, '_claim', meets)
        first = self.thread(lambda: self.allocate(1, first_fails))
        self.assertTrue(claimed.wait(60))
        self.allocate(2, lambda: None)
        handed.set()
        first.join(60)
        self.assertEqual([ZeroDivisionError], list(map(type, self.errors)))
        row = self.row(A)
        self.assertEqual((State.CLAIMED, base.port_id(2), base.mac(2)),
                         (row.state, row.port_id, row.mac))
        self.assertEqual([(base.mac(2), True)], [
            (e.mac, e.present) for e in self.inventory.entries()])

    def test_undo_comes_before_the_hand_over(self) -> None:
        """Nothing is left to hand over: Neutron begins anew."""
        claimed, met, over = (threading.Event() for _ in range(3))
        claim = ipam.VmipSubnet._claim

        def first_fails() -> None:
            claimed.set()
            self.assertTrue(met.wait(60))
            raise ZeroDivisionError

        def meets(*args: Any) -> Any:
            found = claim(*args)
            if found.repeated:
                met.set()
                self.assertTrue(over.wait(60))
            return found

        self.patch(ipam.VmipSubnet, '_claim', meets)
        first = self.thread(lambda: self.allocate(1, first_fails))
        self.assertTrue(claimed.wait(60))
        second = self.thread(lambda: self.allocate(2, lambda: None))
        first.join(60)
        over.set()
        second.join(60)
        error = self.errors[-1]
        assert isinstance(error, db_exc.RetryRequest)
        self.assertIsInstance(error.inner_exc, n_exc.ServiceUnavailable)
        self.assert_reserved()
        # which is what Neutron's API does then
        self.assert_next_try(self.network)

    def test_neutron_tries_again(self) -> None:
        """The whole create, whose first try has lost what it met."""
        claim = api.Inventory.claim
        lost = []

        def meets(inventory: api.Inventory, **values: Any) -> Any:
            if not lost:
                self.inventory.claim(**{
                    **values, 'port_id': base.port_id(9),
                    'mac': base.mac(9)})
                found = claim(inventory, **values)
                lost.append(found)
                self.inventory.undo_claim(
                    self.subnet_id, found.address, found.port_id, 600)
                return found
            return claim(inventory, **values)

        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.inventory.api.Inventory.claim', meets))
        shared.inventory()
        self.inventory.claim = claim.__get__(  # type: ignore[method-assign]
            self.inventory)
        status, body = self.post(self.network)
        self.assertEqual(201, status, body)
        self.assertTrue(lost[0].repeated)
        row = self.row(A)
        self.assertEqual((State.CLAIMED, body['port']['id']),
                         (row.state, row.port_id))


class TestMadeAgain(EndsTestCase):
    """Delete, and make again with the same address."""

    def test_port(self) -> None:
        port_id = self.made(A)
        self.served()
        self.delete(port_id)
        status, body = self.ask(A)
        self.assertEqual(201, status, body)
        self.assertEqual([[A]], self.wire.asked)
        port = body['port']
        self.assertEqual((State.CLAIMED, port['id']),
                         (self.row(A).state, self.row(A).port_id))
        # its entry is rewritten, not one more
        self.assertEqual([(port['mac_address'], True, False)], [
            (e.mac, e.present, e.done) for e in self.inventory.entries()])

    def test_by_another_project(self) -> None:
        self.delete(self.made(A))
        status, body = harness.call('POST', 'ports', {'port': {
            'network_id': self.network, 'fixed_ips': self.fixed(A)}},
            project=base.OTHER_PROJECT)
        self.assertEqual(201, status, body)

    def test_server(self) -> None:
        """As nova-api and nova-compute do, with the address in the request.

        """
        self.delete(self.made(A))
        self.inventory.reserve(
            records.Requester('req-2', base.PROJECT),
            [records.Wanted(self.network, ('web',), (ip(A),))], 600)
        status, body = self.ask(A)
        self.assertEqual(201, status, body)
        self.assertEqual('web', self.row(A).server_name)

    def test_changed_and_changed_back(self) -> None:
        """The guest itself answers there: that is no reason."""
        self.wire.answers[A] = True
        port_id = self.made(A)
        for address in (B, A, B, A):
            self.assertEqual(200, self.put(port_id, address))
        self.assertEqual((State.CLAIMED, port_id),
                         (self.row(A).state, self.row(A).port_id))
        self.assertEqual([], self.wire.asked)

    def test_two_swap(self) -> None:
        one, two = self.made(A), self.made(B, 2)
        self.served()
        for port_id, address in ((one, C), (two, A), (one, B)):
            self.assertEqual(200, self.put(port_id, address))
        self.assertEqual(
            [(A, two, State.CLAIMED), (B, one, State.CLAIMED),
             (C, one, State.RELEASING)],
            [(str(row.address), row.port_id, row.state)
             for _, row in self.found()])

    def test_pool_with_one_address(self) -> None:
        network = harness.network()
        self.subnet(network, '10.1.0.0/24', '10.1.0.9', '10.1.0.9')
        for number in range(3):
            status, body = self.post(network, f'req-{number}')
            self.assertEqual(201, status, body)
            self.delete(body['port']['id'])
        self.wire.answers['10.1.0.9'] = True
        status, body = self.post(network, 'req-9')
        self.assertEqual((409, 'IpAddressGenerationFailure'),
                         (status, body['NeutronError']['type']))

    def test_pool_with_one_address_that_answers_no_more(self) -> None:
        network = harness.network()
        self.subnet(network, '10.1.0.0/24', '10.1.0.8', '10.1.0.9')
        ids = [self.post(network, f'req-{n}', device_id=base.server_id(n))[1][
            'port']['id'] for n in range(2)]
        for port_id in ids:
            self.delete(port_id)
        self.wire.answers['10.1.0.8'] = True
        self.assertEqual(['10.1.0.9'], self.got(network, 'req-9'))
        self.assertEqual([['10.1.0.8', '10.1.0.9']], self.wire.asked)
        self.assertIsNotNone(self.row('10.1.0.8').answered_at)

    def test_still_answers(self) -> None:
        self.delete(self.made(A))
        self.wire.answers[A] = True
        status, body = self.ask(A)
        self.assertEqual(409, status)
        # the name by which Nova's client knows it
        self.assertEqual('IpAddressAlreadyAllocated',
                         body['NeutronError']['type'])
        self.assertIn('still answers on the wire',
                      body['NeutronError']['message'])
        row = self.row(A)
        self.assertEqual((State.RELEASING, Evidence.COMMITTED),
                         (row.state, row.evidence))
        self.assertIsNotNone(row.answered_at)
        # nobody can tell by now, and it did answer
        self.wire.answers[A] = None
        self.assertEqual(409, self.ask(A)[0])
        self.wire.answers[A] = False
        self.assertEqual(201, self.ask(A)[0])
        self.assertIsNone(self.row(A).answered_at)

    def test_reserved_and_still_answers(self) -> None:
        """The port of a request that named none gets another."""
        port_id = self.made(A)
        for number, address in enumerate((B, C, '10.0.0.103'), 2):
            self.made(address, number)
        self.delete(port_id)
        self.assertEqual([A], base.addresses(self.reserve(
            self.network, 'web', request='req-9')))
        self.delete(self.row(B).port_id or '')
        self.inventory.work_done(next(
            work for work in self.inventory.work() if work.address == ip(B)))
        self.wire.answers[A] = True
        self.assertEqual([B], self.got(self.network, 'req-9',
                                       device_id=base.server_id(9)))

    def test_no_agent_can_be_asked(self) -> None:
        self.delete(self.made(A))
        self.wire.error = OSError('no bus')
        self.assertEqual(201, self.ask(A)[0])
        self.assertIn('The agents cannot be asked about 10.0.0.100: no bus',
                      self.log.output)

    def test_no_other_create_asks(self) -> None:
        self.made(A)
        self.got(self.network, 'req-3')
        self.assertEqual(409, self.ask(A)[0])
        self.assertEqual([], self.wire.asked)

    def test_without_evidence(self) -> None:
        """The release is known of a notification only."""
        self.delete(self.made(A))
        self.inventory.keep(self.inventory.work()[0])
        self.inventory.release(self.row(A), 'somebody says so')
        self.assertEqual(409, self.ask(A)[0])
        self.assertEqual([], self.wire.asked)

    def test_rolled_back(self) -> None:
        """It is being released as before, with all that is known of it."""
        port_id = self.made(A)
        self.served()
        self.delete(port_id)
        before = self.row(A)
        entries = [(e.mac, e.present) for e in self.inventory.entries()]
        self.patch(directory.get_plugin().mechanism_manager,
                   'create_port_precommit',
                   _raising(n_exc.InvalidInput(error_message='no')))
        self.assertEqual(400, self.ask(A)[0])
        after = self.row(A)
        self.assertEqual(['claim', 'release', 'claim', 'release'], [
            c.event for c in self.inventory.history(ip(A))])
        for key in ('state', 'evidence', 'port_id', 'mac', 'server_id',
                    'project_id', 'request_id', 'former_name'):
            self.assertEqual(getattr(before, key), getattr(after, key), key)
        self.assertEqual(entries, [(e.mac, e.present)
                                   for e in self.inventory.entries()])


class ProbeTestCase(case.NeutronTestCase):
    """Who looks at addresses is found in vmip.conf, when it is needed."""

    def setUp(self) -> None:
        super().setUp()
        self.clients: list[Any] = []

        def client(transport: Any) -> case.Wire:
            self.clients.append(transport)
            return self.wire

        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.neutron.shared._prober', None))
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.agent.rpc.AgentClient', client))


class TestProbe(ProbeTestCase):

    def test_no_bus_is_named(self) -> None:
        self.assertEqual({}, shared.probe([ip(A)]))
        self.assertEqual([], self.clients)


class TestProbeOnBus(ProbeTestCase):

    options = '[DEFAULT]\ntransport_url = fake://\n'

    def test_client_is_made_once(self) -> None:
        for _ in range(2):
            self.assertEqual({ip(A): False}, shared.probe([ip(A)]))
        self.assertEqual(1, len(self.clients))


def _raising(error: Any) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    return fail
