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


"""What one project may hold in advance, so that others get addresses too."""

import threading
from typing import Any
from unittest import mock

import fixtures
import sqlalchemy as sa

from tests.unit import base
from tests.unit.nova import harness
from tests.unit.nova import test_forms
from vmip_plugin import cloud
from vmip_plugin import exceptions
from vmip_plugin.inventory import models
from vmip_plugin.inventory import records

State = base.State
A, B = '10.0.0.10', '10.0.0.15'
REFUSED = '403 Forbidden'
ACCEPTED = '202 Accepted'
NETWORK_2 = test_forms.NETWORK_2
nic = test_forms.nic


class AdvanceTestCase(test_forms.FormTestCase):

    share = 50

    def project(self, project: str) -> int:
        """Return how many addresses a project holds."""
        return len(self.found(project=project))

    def other(self, **server: Any) -> str:
        """Let another project make a server."""
        return self.post(self.body(nic(), **server), context=harness.Context(
            request_id='req-2', project_id=base.OTHER_PROJECT))

    def history(self) -> list[records.Change]:
        return list(self.inventory.changes())


class TestOneProject(AdvanceTestCase):
    """A pool of 241 addresses, as of a /24 with a few routers."""

    def pool(self, first: str = '10.0.0.10', last: str = '10.0.0.250',
             *args: Any, **values: Any) -> records.Pool:
        return super().pool(first, last, *args, **values)

    def test_as_many_as_there_may_be(self) -> None:
        """Nova makes one server of 241: its quota allows no more."""
        self.post(self.body(nic(), min_count=1, max_count=241))
        self.assertEqual(1, self.project(base.PROJECT))
        self.assertEqual(ACCEPTED, self.other(min_count=120))
        self.assertEqual(100, self.project(base.OTHER_PROJECT))

    def test_what_the_others_find_while_nova_thinks(self) -> None:
        self.nova.status = REFUSED
        seen: list[Any] = []

        def look() -> None:
            self.nova.look = lambda: None
            self.nova.status = ACCEPTED
            seen.append((self.project(base.PROJECT), self.other()))
            self.nova.status = REFUSED

        self.nova.look = look
        self.assertEqual(REFUSED, self.post(self.body(
            nic(), min_count=241)))
        self.assertEqual([(100, ACCEPTED)], seen)
        self.assertEqual(0, self.project(base.PROJECT))

    def test_refused_request_leaves_no_history(self) -> None:
        self.nova.status = REFUSED
        for count in (1, 50, 241):
            self.post(self.body(nic(), min_count=count))
        self.assertEqual([], self.history())
        self.assertEqual([], self.found())
        self.nova.status = ACCEPTED
        self.post(self.body(nic()))
        self.assertEqual(['reserve', 'bind'], self.events(A))

    def test_many_requests_at_once(self) -> None:
        """Slow ones, in parallel: together they hold no more than one may."""
        count = 12
        waiting = threading.Barrier(count + 1, timeout=120)
        refuse = threading.Event()

        def look() -> None:
            waiting.wait()
            self.assertTrue(refuse.wait(120))

        self.nova.look = look
        self.nova.status = REFUSED
        statuses: list[str] = []
        threads = [threading.Thread(target=lambda number=number: (
            statuses.append(self.post(
                self.body(nic(), name=f'web{number}', min_count=40),
                context=harness.Context(request_id=f'req-{number}')))))
            for number in range(count)]
        for thread in threads:
            thread.start()
        waiting.wait()
        self.assertEqual(100, self.project(base.PROJECT))
        self.nova.look = lambda: None
        self.nova.status = ACCEPTED
        self.assertEqual(ACCEPTED, self.other(min_count=20))
        self.assertEqual(20, self.project(base.OTHER_PROJECT))
        self.nova.status = REFUSED
        refuse.set()
        for thread in threads:
            thread.join()
        self.assertEqual([REFUSED] * count, statuses)
        self.assertEqual(0, self.project(base.PROJECT))
        self.assertEqual({base.OTHER_PROJECT},
                         {line.project_id for line in self.history()})

    def test_one_after_the_other(self) -> None:
        """What others hold is counted when it is this request's turn.

        SQLite lets only one write at a time anyway; other databases need
        this to be so.
        """
        self.post(self.body(nic()))
        statements: list[str] = []
        inventory = self.app._hooks._hooks[0].plugin._inventory
        sa.event.listen(inventory.database.engine, 'before_cursor_execute',
                        lambda *args: statements.append(args[2]))
        self.post(self.body(nic()))
        waits, = (number for number, text in enumerate(statements)
                  if text.startswith('UPDATE queues'))
        counts = [number for number, text in enumerate(statements)
                  if 'count(' in text]
        self.assertLess(waits, min(counts))
        with inventory.database.read() as session:
            turns, = session.scalars(sa.select(models.QueueRow.turns))
        self.assertEqual(2, turns)

    def test_beyond_it_ports_get_theirs(self) -> None:
        self.post(self.body(nic(), min_count=241))
        got = {self.claim(number) for number in range(241)}
        self.assertEqual(241, len(got))

    def test_claimed_ones_do_not_count(self) -> None:
        self.post(self.body(nic(), min_count=100))
        for number in range(60):
            self.claim(number)
        self.post(self.body(nic(), min_count=100))
        # half of the 181 that it finds, and what its ports have
        self.assertEqual(90 + 60, self.project(base.PROJECT))

    def test_more_than_there_are(self) -> None:
        self.assertEqual(409, self.refused(nic(), min_count=242)[0])
        self.assertEqual([], self.history())


class TestFewAreLeft(AdvanceTestCase):
    """Eleven addresses."""

    def free(self, count: int) -> None:
        """Have only so many left."""
        for number in range(11 - count):
            self.claim(100 + number, request='req-0',
                       project=base.OTHER_PROJECT)

    def test_never_the_last(self) -> None:
        """All of it stays for whoever comes first with a port."""
        for free, held in ((11, 5), (4, 2), (3, 1), (2, 1), (1, 0)):
            self.free(free)
            for _ in range(8):
                self.assertEqual(ACCEPTED, self.post(self.body(nic())))
            self.assertEqual(held, len(self.found(state=[State.RESERVED])))
            self.inventory.withdraw(
                [a for _, a in self.found(state=[State.RESERVED])], '')
            for _, a in self.found():
                self.inventory.release(a, '')
                self.finish(str(a.address))
        self.assertEqual(11, self.inventory.usage()['pool']['free'])

    def test_none_is_left(self) -> None:
        self.free(0)
        self.assertEqual(409, self.refused(nic())[0])
        self.free(0)

    def test_resting_and_forgotten_ones_will_do(self) -> None:
        """A port may get what no request may reserve."""
        self.free(0)
        held = self.found()[0][1]
        self.inventory.release(held, '', base.states.Evidence.COMMITTED)
        self.assertEqual(ACCEPTED, self.post(self.body(nic())))
        self.assertEqual(409, self.refused(nic(), min_count=2)[0])

    def test_what_rests_will_not_do_before_its_time(self) -> None:
        self.inventory.change_pool('pool', reuse_delay=100)
        self.free(0)
        held = self.found()[0][1]
        self.inventory.release(held, '')
        self.finish(str(held.address))
        self.assertEqual(State.QUARANTINED, self.state(str(held.address)))
        self.assertEqual(409, self.refused(nic())[0])
        self.clock.forward(101)
        self.assertEqual(ACCEPTED, self.post(self.body(nic())))
        self.assertEqual(str(held.address), self.claim())

    def test_what_is_still_to_be_removed_will_not_do(self) -> None:
        """Not without proof that its holder is gone."""
        self.free(0)
        held = self.found()[0][1]
        self.inventory.release(held, '', base.states.Evidence.PORT_MISSING)
        self.assertEqual(409, self.refused(nic())[0])

    def test_old_address_of_the_server(self) -> None:
        """A project that holds nothing gets that one also as the last."""
        self.inventory.change_pool('pool', allocator='sticky')
        self.reserve('web')
        address = self.claim()
        self.inventory.activate(base.server_id(1), 'web', [base.mac(1)])
        self.inventory.release(self.row(address), '')
        self.finish(address)
        self.free(2)
        self.inventory.withdraw(self.reserve('x', request='r'), '')
        self.assertEqual([address], self.reserved())
        self.assertEqual([address], self.reserved())

    def test_old_addresses_of_several_servers(self) -> None:
        """The first of them may be beyond the share, not all."""
        self.inventory.change_pool('pool', allocator='sticky')
        for number, name in enumerate(('web-1', 'web-2', 'web-3')):
            self.reserve(name, request=name)
            address = self.claim(number, request=name)
            self.inventory.release(self.row(address), '')
            self.finish(address)
        self.free(3)
        self.post(self.body(nic(), min_count=3))
        self.assertEqual(1, self.project(base.PROJECT))

    def reserved(self) -> list[str]:
        self.post(self.body(nic()))
        return [str(a.address) for _, a in self.found(
            state=[State.RESERVED])]

    def test_asked_for_by_the_port(self) -> None:
        """The port will ask for it again."""
        for address in ('10.0.0.11', '10.0.0.12', '10.0.0.13', '10.0.0.14',
                        '10.0.0.15', '10.0.0.16'):
            self.assertEqual(ACCEPTED, self.post(self.body(
                nic(address=address))))
        self.assertEqual(5, self.project(base.PROJECT))
        self.assertEqual(409, self.refused(nic(address='10.0.0.15'))[0])
        self.assertEqual('10.0.0.16', self.claim(
            address=base.ip('10.0.0.16')))

    def test_reserved_by_hand(self) -> None:
        """That is nobody else's, and does not count."""
        for number in range(11):
            self.hold(f'10.0.0.{10 + number}', f'db-{number}')
        for number in range(11):
            self.post(self.body(nic(), name=f'db-{number}'))
        self.assertEqual({'req-1'}, {
            a.request_id for _, a in self.found(project=base.PROJECT)})
        self.assertEqual(11, self.project(base.PROJECT))

    def test_reserved_by_hand_and_others(self) -> None:
        for number in range(5):
            self.hold(f'10.0.0.{10 + number}', f'db-{number}')
            self.post(self.body(nic(), name=f'db-{number}'))
        for _ in range(4):
            self.post(self.body(nic()))
        self.assertEqual(5 + 3, self.project(base.PROJECT))

    def test_reserved_by_hand_beyond_what_is_certain(self) -> None:
        self.hold('10.0.0.15', 'web-3')
        self.hold('10.0.0.16', 'web-4', base.OTHER_PROJECT)
        self.hold('10.0.0.17', None, base.PROJECT)
        self.post(self.body(nic(), max_count=5))
        self.assertEqual(
            {'10.0.0.15': 'web-3', '10.0.0.17': 'web-1'},
            {str(a.address): a.server_name for _, a in self.found(
                project=base.PROJECT) if a.request_id})


class TestVeryMany(AdvanceTestCase):

    config = '[reserve]\nproject_limit = 5\n'

    def pool(self, first: str = '10.0.0.10', last: str = '10.0.9.250',
             *args: Any, **values: Any) -> records.Pool:
        return super().pool(first, last, '10.0.0.0/16', *args, **values)

    def test_cost_is_of_what_is_reserved(self) -> None:
        """Not of what is asked for: meanwhile others wait for their turn."""
        self.hold('10.0.0.20', 'web-700')
        self.hold('10.0.0.21', 'web-701', base.OTHER_PROJECT)
        for number in range(3):
            self.hold(f'10.0.0.{30 + number}', None, base.PROJECT)
        self.post(self.body(nic()))
        self.inventory.withdraw([a for _, a in self.found() if (
            a.request_id)], '')
        statements: list[str] = []
        engine = self.app._hooks._hooks[
            0].plugin._inventory.database.engine
        sa.event.listen(engine, 'before_cursor_execute', lambda *args: (
            statements.append(args[2])))
        self.post(self.body(nic(), min_count=900, max_count=1000))
        self.assertLess(len(statements), 150)
        got = {str(a.address): a.server_name for _, a in self.found(
            project=base.PROJECT) if a.request_id}
        # what is reserved by hand, and five more
        self.assertEqual(1 + 3 + 5, len(got))
        self.assertEqual('web-700', got['10.0.0.20'])
        self.assertNotIn('10.0.0.21', got)


class TestNothingInAdvance(AdvanceTestCase):

    config = ('[reserve]\nproject_limit = 0\n'
              'address_metadata_key = address\n')

    def test_only_by_hand(self) -> None:
        self.hold(B, 'db')
        for name in ('web', 'db'):
            self.assertEqual(ACCEPTED, self.post(self.body(nic(), name=name)))
        self.assertEqual([B], sorted(self.held()))
        self.assertEqual(409, self.refused(
            nic(), metadata={'address': A})[0])


class TestAskedFor(AdvanceTestCase):

    config = '[reserve]\nproject_limit = 2\naddress_metadata_key = address\n'

    def test_too_many(self) -> None:
        """No port would ask for it: it cannot be left for later."""
        for address in ('10.0.0.15', '10.0.0.16'):
            self.assertEqual(ACCEPTED, self.post(self.body(
                nic(), metadata={'address': address})))
        status, _, message = self.refused(
            nic(), metadata={'address': '10.0.0.17'})
        self.assertEqual(409, status)
        self.assertIn('too many addresses', message)
        self.claim(1)
        self.assertEqual(ACCEPTED, self.post(self.body(
            nic(), metadata={'address': '10.0.0.17'})))


class TestNetworks(AdvanceTestCase):
    """Addresses are reserved where the project may use the network."""

    config = ('[cloud]\nauth_type = password\n[reserve]\n'
              'address_metadata_key = address\n')

    def setUp(self) -> None:
        super().setUp()
        self.pool2()
        self.neutron = self.useFixture(fixtures.MockPatchObject(
            cloud.Cloud, 'usable_networks', return_value=[
                cloud.Network(NETWORK_2, True)])).mock
        # the filter has to have seen which networks have pools
        self.post(self.body(nic(NETWORK_2)))
        self.networks = self.app._hooks._hooks[0].plugin._networks
        self.neutron.reset_mock()

    def test_other_projects_network(self) -> None:
        for _ in range(20):
            self.assertEqual(ACCEPTED, self.post(self.body(
                nic(), min_count=3)))
        self.assertEqual([], self.found(pool='pool'))
        self.post(self.body(nic(), nic(NETWORK_2)))
        self.assertEqual(2, len(self.found(pool='two')))
        self.neutron.assert_not_called()

    def test_asked_for(self) -> None:
        for _ in range(3):
            self.assertEqual(400, self.refused(
                nic(), metadata={'address': B})[0])
        self.assertEqual(ACCEPTED, self.post(self.body(nic(address=B))))
        self.assertEqual([], self.found(pool='pool'))

    def test_by_hand(self) -> None:
        self.hold(B, 'db')
        self.post(self.body(nic(), name='db'))
        self.assertEqual('req-1', self.row(B).request_id)

    def test_new_network(self) -> None:
        """One that was not there a moment ago is asked for again."""
        self.neutron.return_value = [cloud.Network(base.NETWORK, True)]
        self.post(self.body(nic()))
        self.assertEqual(0, self.neutron.call_count)
        with mock.patch.object(self.networks, 'RETRY', 0.0):
            self.post(self.body(nic()))
            self.post(self.body(nic()))
        self.assertEqual(1, self.neutron.call_count)
        self.assertEqual(2, len(self.found(pool='pool')))

    def test_neutron_does_not_answer(self) -> None:
        """Then it answers Nova neither; and nobody waits for it again."""
        self.neutron.side_effect = exceptions.CloudUnavailable('hangs')
        context = harness.Context(project_id=base.OTHER_PROJECT)
        for _ in range(5):
            self.assertEqual(ACCEPTED, self.post(self.body(nic()),
                                                 context=context))
        self.assertEqual([], self.found(pool='pool'))
        self.assertEqual(503, self.refused(
            nic(), metadata={'address': B}, context=context)[0])
        self.assertEqual(1, self.neutron.call_count)

    def test_not_asked(self) -> None:
        self.post(self.body(nic(test_forms.NO_POOL)))
        self.post(self.body({'port': base.port_id(1)}))
        self.post(self.body(nic()), context=harness.Context(
            project_id=base.OTHER_PROJECT, roles=['admin']))
        self.assertEqual(0, self.neutron.call_count)
        self.assertEqual([A], [str(a.address) for _, a in self.found(
            pool='pool')])


class TestWithdraw(base.TestCase):
    """It is as if the reservation had never been."""

    def setUp(self) -> None:
        super().setUp()
        self.pool(reuse_delay=1000, allocator='sticky')

    def unchanged(self, address: str, *names: str) -> None:
        def look() -> tuple[Any, ...]:
            held = self.row(address)
            values = {key: value for key, value in vars(held).items()
                      if key != 'generation'}
            return (values, self.inventory.history(base.ip(address)),
                    self.inventory.standing(base.ip(address),
                                            self.clock.now))

        before = look()
        self.clock.forward(5)
        reserved = self.reserve(*names)
        self.assertIn(address, base.addresses(reserved))
        self.clock.forward(5)
        self.assertEqual(len(reserved),
                         self.inventory.withdraw(reserved, 'no'))
        self.assertEqual(before[:2], look()[:2])
        self.assertEqual(0, self.inventory.withdraw(reserved, 'no'))

    def used(self) -> None:
        self.reserve('web')
        self.assertEqual(A, self.claim())
        self.inventory.activate(base.server_id(1), 'web', [base.mac(1)])
        self.inventory.release(self.row(A), 'gone')

    def test_free(self) -> None:
        self.used()
        self.finish(A)
        self.clock.forward(1001)
        self.inventory.rest_over()
        self.assertEqual(State.FREE, self.state(A))
        self.unchanged(A, 'web')

    def test_resting(self) -> None:
        self.used()
        self.finish(A)
        self.assertEqual(State.QUARANTINED, self.state(A))
        self.unchanged(A, 'web')

    def test_by_hand(self) -> None:
        self.hold(A, 'web', seconds=500)
        self.unchanged(A, 'web')

    def test_by_hand_and_over(self) -> None:
        self.hold(A, 'web', seconds=5)
        reserved = self.reserve('web')
        self.clock.forward(6)
        self.inventory.withdraw(reserved, 'no')
        self.assertEqual(State.FREE, self.state(A))
        self.assertEqual(['hold', 'reserve', 'cancel'], self.events(A))

    def test_what_has_happened_stays(self) -> None:
        """A claim that was undone, and one that stands."""
        reserved = self.reserve('web', 'db')
        address = self.claim()
        self.inventory.undo_claim(
            base.SUBNET, base.ip(address),
            self.row(address).port_id or '', 600)
        other = next(str(a.address) for a in reserved
                     if str(a.address) != address)
        self.assertEqual(2, self.inventory.withdraw(reserved, 'no'))
        self.assertEqual('cancel', self.events(address)[-1])
        self.assertIn('claim', self.events(address))
        self.assertEqual([], self.events(other))
        reserved = self.reserve('new')
        address = self.claim()
        self.assertEqual(0, self.inventory.withdraw(reserved, 'no'))
        self.assertEqual(['reserve', 'claim'], self.events(address)[-2:])
