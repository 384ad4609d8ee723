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

"""Claims, releases and host entries: from the port's create to its end."""

import collections
import dataclasses
from typing import Any

from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import entries
from vmip_plugin.inventory import models
from vmip_plugin.inventory import moves
from vmip_plugin.inventory import ports
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

ip = base.ip
WaitingFor = states.WaitingFor
State = base.State

SUBNET_2 = '22222222-0000-0000-0000-000000000002'


class Kill(BaseException):
    """The process is gone."""


class TestClaim(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()

    def test_own_reservation(self) -> None:
        self.reserve('x', request='req-0')
        self.reserve('web')
        self.assertEqual('10.0.0.11', self.claim())
        row = self.row('10.0.0.11')
        self.assertEqual(
            (State.CLAIMED, 'req-1', base.PROJECT, base.server_id(1),
             'web', base.port_id(1), base.mac(1), None),
            (row.state, row.request_id, row.project_id, row.server_id,
             row.server_name, row.port_id, row.mac, row.expires_at))
        self.assertEqual([('a', '10.0.0.11', base.mac(1), True, False)],
                         self.entries())

    def test_each_of_several(self) -> None:
        self.reserve('a', 'b', 'c')
        self.assertEqual(
            ['10.0.0.10', '10.0.0.11', '10.0.0.12', '10.0.0.13'],
            [self.claim(n) for n in range(1, 5)])

    def test_never_another_projects_with_the_same_request(self) -> None:
        self.reserve('web', project=base.OTHER_PROJECT)
        self.assertEqual('10.0.0.11', self.claim())
        self.assertRaises(exceptions.AddressInUse, self.claim, 2,
                          address=ip('10.0.0.10'))
        self.assertEqual(State.RESERVED, self.state('10.0.0.10'))

    def test_the_one_tied_to_the_server_goes_first(self) -> None:
        reserved = self.reserve('a', 'b')
        self.inventory.bind(reserved[1:], base.server_id(1))
        self.assertEqual('10.0.0.11', self.claim(1))

    def test_never_one_tied_to_another_server(self) -> None:
        self.inventory.bind(self.reserve(), base.server_id(1))
        self.assertEqual('10.0.0.11', self.claim(2))
        self.assertEqual('10.0.0.12', self.claim(3, server=None))
        self.assertEqual('10.0.0.10', self.claim(1))

    def test_without_reservation(self) -> None:
        self.assertEqual('10.0.0.10', self.claim())
        self.assertEqual('port without a reservation',
                         self.inventory.history(ip('10.0.0.10'))[-1].reason)

    def test_full(self) -> None:
        for number in range(11):
            self.claim(number)
        self.assertRaises(exceptions.PoolExhausted, self.claim, 99)

    def test_given(self) -> None:
        self.assertEqual('10.0.0.15', self.claim(address=ip('10.0.0.15')))
        self.assertRaises(exceptions.AddressInUse, self.claim, 2,
                          address=ip('10.0.0.15'))

    def test_given_is_the_requests_own(self) -> None:
        self.reserve()
        self.assertEqual('10.0.0.10', self.claim(address=ip('10.0.0.10')))

    def test_given_is_reserved_by_another(self) -> None:
        self.reserve()
        for who in ({'request': 'req-2'}, {'project': base.OTHER_PROJECT}):
            self.assertRaises(exceptions.AddressInUse, self.claim,
                              address=ip('10.0.0.10'), **who)

    def test_given_is_held_by_hand(self) -> None:
        address = ip('10.0.0.15')
        self.hold(str(address), project=base.PROJECT)
        self.assertRaises(exceptions.AddressInUse, self.claim,
                          address=address, project=base.OTHER_PROJECT)
        self.assertEqual('10.0.0.15', self.claim(address=address))
        self.assertEqual('web', self.row('10.0.0.15').hold_name)

    def test_given_is_held_for_any_project(self) -> None:
        self.hold('10.0.0.15')
        self.assertRaises(exceptions.AddressInUse, self.claim,
                          address=ip('10.0.0.15'))

    def test_given_is_being_released(self) -> None:
        self.claim()
        self.inventory.release(self.row('10.0.0.10'), '')
        self.assertRaises(exceptions.AddressInUse, self.claim, 2,
                          address=ip('10.0.0.10'))

    def test_given_is_quarantined(self) -> None:
        self.pool('10.1.0.10', '10.1.0.11', '10.1.0.0/24', name='slow',
                  subnet=SUBNET_2, reuse_delay=60)
        self.claim(subnet=SUBNET_2)
        self.inventory.release(self.row('10.1.0.10'), '')
        self.finish('10.1.0.10')
        self.assertEqual(State.QUARANTINED, self.state('10.1.0.10'))
        self.assertEqual('10.1.0.10', self.claim(
            2, subnet=SUBNET_2, address=ip('10.1.0.10')))
        self.assertIsNone(self.row('10.1.0.10').expires_at)

    def test_repeated(self) -> None:
        self.reserve('a', 'b')
        self.claim()
        again = self.inventory.claim(
            subnet_id=base.SUBNET,
            requester=records.Requester('req-1', base.PROJECT),
            port_id=base.port_id(1), mac=base.mac(1),
            server_id=base.server_id(1))
        self.assertEqual(records.Claim(ip('10.0.0.10'), repeated=True,
                                       port_id=base.port_id(1)),
                         again)
        self.assertEqual(State.RESERVED, self.state('10.0.0.11'))
        self.assertEqual(['reserve', 'claim'], self.events('10.0.0.10'))

    def test_repeated_given(self) -> None:
        self.claim(address=ip('10.0.0.15'))
        again = self.inventory.claim(
            subnet_id=base.SUBNET, address=ip('10.0.0.15'),
            requester=records.Requester('req-1', base.PROJECT),
            port_id=base.port_id(1), mac=base.mac(1), server_id=None)
        self.assertEqual(records.Claim(ip('10.0.0.15'), repeated=True,
                                       port_id=base.port_id(1)),
                         again)

    def test_hand_over(self) -> None:
        self.reserve()
        self.claim(1)
        self.assertEqual('10.0.0.10', self.claim(
            2, server=base.server_id(1)))
        for _ in range(2):
            self.inventory.hand_over(
                base.SUBNET, ip('10.0.0.10'), base.port_id(1),
                base.port_id(2), base.mac(2), True)
        row = self.row('10.0.0.10')
        self.assertEqual((State.CLAIMED, base.port_id(2), base.mac(2)),
                         (row.state, row.port_id, row.mac))
        self.assertEqual([('a', '10.0.0.10', base.mac(2), True, False)],
                         self.entries())
        self.assertEqual(['reserve', 'claim', 'change'],
                         self.events('10.0.0.10'))

    def test_hand_over_of_a_lost_claim(self) -> None:
        self.reserve()
        self.claim(1)
        self.inventory.undo_claim(base.SUBNET, ip('10.0.0.10'),
                                  base.port_id(1), 600)
        give = (base.SUBNET, ip('10.0.0.10'), base.port_id(1),
                base.port_id(2), base.mac(2), True)
        self.assertRaises(exceptions.ClaimLost, self.inventory.hand_over,
                          *give)
        # nor that of a third, who has it since
        self.claim(3)
        self.assertRaises(exceptions.ClaimLost, self.inventory.hand_over,
                          *give)
        self.assertEqual(base.port_id(3), self.row('10.0.0.10').port_id)

    def test_repeated_is_of_one_server_and_request(self) -> None:
        self.claim(1)
        self.assertEqual('10.0.0.11', self.claim(2))
        self.assertEqual('10.0.0.12', self.claim(
            3, server=base.server_id(1), request='req-2'))
        self.assertEqual('10.0.0.13', self.claim(
            4, server=base.server_id(1), project=base.OTHER_PROJECT))
        self.assertEqual(['10.0.0.14', '10.0.0.15'],
                         [self.claim(n, server=None) for n in (5, 6)])

    def test_skip(self) -> None:
        self.claim()
        self.assertEqual('10.0.0.11', self.claim(skip=[ip('10.0.0.10')]))

    def test_disown(self) -> None:
        self.claim()
        self.inventory.disown(base.SUBNET, ip('10.0.0.10'))
        row = self.row('10.0.0.10')
        self.assertEqual((State.ADOPTED, None, None, None),
                         (row.state, row.port_id, row.mac, row.server_id))
        self.assertEqual('10.0.0.11', self.claim(skip=[ip('10.0.0.10')]))
        # what a worker may have written already is taken out
        self.assertIn(('a', '10.0.0.10', base.mac(1), False, False),
                      self.entries())
        self.inventory.disown(base.SUBNET, ip('10.0.0.10'))
        for work in self.inventory.work():
            if not work.present:
                self.assertTrue(self.inventory.work_done(work))
        self.assertEqual(State.ADOPTED, self.state('10.0.0.10'))

    def test_no_pool(self) -> None:
        self.assertIsNone(self.given(subnet='none'))
        self.assertIsNone(self.given(address=ip('10.0.0.99')))
        self.assertIsNone(self.given(address=ip('2001:db8::1')))

    def given(self, subnet: str = base.SUBNET, **values: Any) -> Any:
        return self.inventory.claim(
            subnet_id=subnet, requester=records.Requester('r', 'p'),
            port_id=base.port_id(1), mac=base.mac(1), server_id=None,
            **values)

    def test_not_served(self) -> None:
        self.claim(serve=False)
        self.assertEqual([], self.entries())
        self.inventory.release(self.row('10.0.0.10'), '')
        self.assertEqual(State.FREE, self.state('10.0.0.10'))

    def test_no_servers(self) -> None:
        self.pool('10.1.0.10', '10.1.0.11', '10.1.0.0/24', name='none',
                  subnet=SUBNET_2, dhcp_servers=[])
        self.claim(subnet=SUBNET_2)
        self.assertEqual([], self.entries())

    def test_hostname(self) -> None:
        for number, (name, expected) in enumerate((
                ('Web-1', 'web-1'), ('two words', None),
                ('x\n10.0.0.1', None)), 1):
            self.inventory.bind(self.reserve(name, request=f'r{number}'),
                                base.server_id(number))
            self.claim(number, request=f'r{number}')
            work, = self.inventory.work(port_ids=[base.port_id(number)])
            self.assertEqual(expected, work.hostname)

    def test_hostname_of_one_of_several(self) -> None:
        self.reserve('web-1', 'web-2')
        self.claim()
        work, = self.inventory.work(port_ids=[base.port_id(1)])
        self.assertIsNone(work.hostname)

    def test_is_left_to_the_listener_at_first(self) -> None:
        self.claim()
        self.assertEqual([], self.inventory.work())
        self.assertEqual(1, len(self.inventory.work(
            port_ids=[base.port_id(1)])))
        self.clock.forward(ports.CLAIM_GRACE)
        self.assertEqual(1, len(self.inventory.work()))

    def test_reserved_subnets(self) -> None:
        self.clock.forward(1)
        self.pool('10.1.0.10', '10.1.0.11', '10.1.0.0/24', name='two',
                  subnet=SUBNET_2)
        for number in range(11):
            self.claim(number)
        reserved = self.reserve()
        requester = records.Requester('req-1', base.PROJECT)
        ask = self.inventory.reserved_subnets
        self.assertEqual({SUBNET_2}, ask(requester, base.server_id(1)))
        self.assertEqual({SUBNET_2}, ask(requester, None))
        self.assertEqual(set(), ask(dataclasses.replace(
            requester, project_id=base.OTHER_PROJECT), None))
        self.inventory.bind(reserved, base.server_id(1))
        self.assertEqual({SUBNET_2}, ask(requester, base.server_id(1)))
        self.assertEqual(set(), ask(requester, base.server_id(2)))


class TestUndoClaim(base.TestCase):

    def undo(self, address: str = '10.0.0.10', port: int = 1) -> bool:
        return self.inventory.undo_claim(base.SUBNET, ip(address),
                                         base.port_id(port), 600)

    def holder(self) -> tuple[Any, ...]:
        row = self.row('10.0.0.10')
        return (row.state, row.request_id, row.project_id, row.server_id,
                row.server_name, row.port_id, row.mac, row.expires_at)

    def test_reserved(self) -> None:
        self.pool()
        self.inventory.bind(self.reserve(), base.server_id(1))
        before = self.holder()
        self.claim()
        self.assertTrue(self.undo())
        self.assertEqual(before, self.holder())
        self.assertEqual(['reserve', 'bind', 'claim', 'release', 'reserve'],
                         self.events('10.0.0.10'))
        # a worker may have written it already
        self.assertEqual([('a', '10.0.0.10', base.mac(1), False, False)],
                         self.entries())
        self.assertEqual('10.0.0.10', self.claim(
            2, server=base.server_id(1)))
        self.assertEqual([('a', '10.0.0.10', base.mac(2), True, False)],
                         self.entries())

    def test_twice(self) -> None:
        self.pool()
        self.inventory.bind(self.reserve(), base.server_id(1))
        before = self.holder()
        for _ in range(2):
            self.claim()
            self.undo()
        self.assertEqual(before, self.holder())
        self.assertFalse(self.undo())

    def test_one_of_several(self) -> None:
        """Whose name it was reserved for is as uncertain as before."""
        self.pool()
        self.reserve('a', 'b')
        before = self.holder()
        self.claim(2)
        self.undo(port=2)
        self.assertEqual(before, self.holder())
        self.claim(1)
        work, = self.inventory.work(port_ids=[base.port_id(1)])
        self.assertIsNone(work.hostname)

    def test_server_without_a_name(self) -> None:
        self.pool()
        self.reserve('')
        before = self.holder()
        self.claim()
        self.undo()
        self.assertEqual(before, self.holder())

    def test_its_end(self) -> None:
        """Nobody tries again: the entry goes, then the address is free."""
        self.pool()
        self.reserve()
        self.claim()
        self.undo()
        self.clock.forward(601)
        reservation, = self.inventory.expired()
        self.assertTrue(self.inventory.expire(reservation, ''))
        self.assertEqual(State.RELEASING, self.state('10.0.0.10'))
        self.finish('10.0.0.10')
        self.assertEqual(State.FREE, self.state('10.0.0.10'))

    def test_entry_is_gone_before_its_end(self) -> None:
        self.pool()
        self.reserve()
        self.claim()
        self.undo()
        self.finish('10.0.0.10')
        self.assertEqual([], self.entries())
        self.assertEqual(State.RESERVED, self.state('10.0.0.10'))

    def test_without_reservation(self) -> None:
        self.pool()
        self.claim()
        self.assertTrue(self.undo())
        self.assertEqual(State.RELEASING, self.state('10.0.0.10'))

    def test_reserved_by_hand(self) -> None:
        self.pool()
        self.hold('10.0.0.10', name=None, project=base.PROJECT)
        self.claim(address=ip('10.0.0.10'))
        self.undo()
        self.finish('10.0.0.10')
        row = self.row('10.0.0.10')
        self.assertEqual((State.RESERVED, None, base.PROJECT),
                         (row.state, row.request_id, row.hold_project))

    def test_no_servers(self) -> None:
        self.pool(dhcp_servers=[], reuse_delay=60)
        self.reserve()
        before = self.holder()
        self.claim()
        self.undo()
        self.assertEqual(before, self.holder())

    def test_only_a_claim(self) -> None:
        self.pool()
        self.assertFalse(self.undo())
        self.reserve()
        self.assertFalse(self.undo())
        self.claim()
        self.inventory.activate(base.server_id(1), 'web', [base.mac(1)])
        self.assertFalse(self.undo())
        self.assertEqual(State.ACTIVE, self.state('10.0.0.10'))


class TestActivate(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.reserve('web')
        self.claim()

    def test_once_and_twice(self) -> None:
        for _ in range(2):
            self.inventory.activate(base.server_id(1), 'web', [base.mac(1)])
        self.assertEqual(State.ACTIVE, self.state('10.0.0.10'))
        self.assertEqual(['reserve', 'claim', 'activate'],
                         self.events('10.0.0.10'))

    def test_only_server_and_mac(self) -> None:
        self.inventory.activate(base.server_id(2), 'web', [base.mac(1)])
        self.inventory.activate(base.server_id(1), 'web', [base.mac(2)])
        self.inventory.activate(base.server_id(1), 'web', [])
        self.assertEqual(State.CLAIMED, self.state('10.0.0.10'))

    def test_name_is_the_servers_own(self) -> None:
        self.inventory.activate(base.server_id(1), 'web-2', [base.mac(1)])
        self.assertEqual('web-2', self.row('10.0.0.10').server_name)

    def test_name_is_not_told(self) -> None:
        self.inventory.activate(base.server_id(1), None, [base.mac(1)])
        self.assertEqual('web', self.row('10.0.0.10').server_name)

    def test_change_mac_on_a_server_that_the_pool_leaves(self) -> None:
        """Its entry still has to go, by the MAC that it has."""
        self.inventory.change_pool('pool', dhcp_servers=['a', 'b'])
        address = self.claim(1)
        self.inventory.work_done_all(self.inventory.work(
            port_ids=[base.port_id(1)]))
        self.inventory.change_pool('pool', dhcp_servers=['b'])
        self.inventory.change_mac(base.port_id(1), base.mac(5))
        self.assertEqual(
            {('a', address, base.mac(1), False, False),
             ('b', address, base.mac(5), True, False)}, set(self.entries()))

    def test_change_mac(self) -> None:
        work, = self.inventory.work(port_ids=[base.port_id(1)])
        self.inventory.work_done(work)
        for _ in range(2):
            self.inventory.change_mac(base.port_id(1), base.mac(5))
        self.assertEqual([('a', '10.0.0.10', base.mac(5), True, False)],
                         self.entries())
        self.assertEqual(base.mac(5), self.row('10.0.0.10').mac)
        self.assertEqual(1, self.events('10.0.0.10').count('change'))

    def test_change_server(self) -> None:
        entries = self.entries()
        self.inventory.activate(base.server_id(1), 'web', [base.mac(1)])
        for server in (None, base.server_id(2)):
            for _ in range(2):
                self.inventory.change_server(base.port_id(1), server)
                row = self.row('10.0.0.10')
                self.assertEqual((State.CLAIMED, server, None),
                                 (row.state, row.server_id, row.server_name))
        self.assertEqual(2, self.events('10.0.0.10').count('change'))
        self.assertEqual(entries, self.entries())

    def test_change_server_of_what_is_released(self) -> None:
        self.inventory.release(self.row('10.0.0.10'), 'deleted')
        before = self.row('10.0.0.10')
        self.inventory.change_server(base.port_id(1), None)
        self.assertEqual(before, self.row('10.0.0.10'))


class TestRelease(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool(dhcp_servers=['a', 'b'])
        self.claim()

    def do(self, port: int = 1) -> list[records.Work]:
        return self.inventory.work(port_ids=[base.port_id(port)])

    def served(self) -> None:
        for work in self.do():
            self.assertTrue(self.inventory.work_done(work))

    def test_way(self) -> None:
        self.served()
        self.assertEqual([], self.do())
        self.assertEqual({'a', 'b'}, {
            e.server for e in self.inventory.entries() if e.done})
        self.assertTrue(self.inventory.release_address(
            base.SUBNET, ip('10.0.0.10'), 'x'))
        self.assertEqual(State.RELEASING, self.state('10.0.0.10'))
        self.assertEqual([], self.inventory.work())
        self.clock.forward(ports.RELEASE_GRACE)
        first, second = self.inventory.work()
        self.assertTrue(self.inventory.work_done(first))
        self.assertEqual(State.RELEASING, self.state('10.0.0.10'))
        self.assertTrue(self.inventory.work_done(second))
        self.assertEqual(State.FREE, self.state('10.0.0.10'))
        self.assertEqual([], self.entries())
        row = self.row('10.0.0.10')
        self.assertEqual((None,) * 6, (
            row.request_id, row.project_id, row.server_id, row.server_name,
            row.port_id, row.mac))

    def test_nothing_to_release(self) -> None:
        self.served()
        address = ip('10.0.0.10')
        release = self.inventory.release_address
        self.assertFalse(release('none', address, ''))
        self.assertFalse(release(base.SUBNET, ip('10.0.0.99'), ''))
        self.assertFalse(release(base.SUBNET, ip('10.0.0.12'), ''))
        self.assertTrue(release(base.SUBNET, address, ''))
        self.assertFalse(release(base.SUBNET, address, ''))
        self.reserve()
        self.assertFalse(release(base.SUBNET, ip('10.0.0.11'), ''))
        self.assertEqual(State.RESERVED, self.state('10.0.0.11'))

    def test_holder_has_changed_since(self) -> None:
        held = self.row('10.0.0.10')
        self.inventory.activate(base.server_id(1), '', [base.mac(1)])
        self.assertFalse(self.inventory.release(held, ''))
        self.assertEqual(State.ACTIVE, self.state('10.0.0.10'))

    def test_two_do_the_same(self) -> None:
        """Listener and reclaimer, at every step."""
        mine, theirs = self.do(), self.do()
        self.assertEqual([True] * 4, [self.inventory.work_done(w)
                                      for w in mine + theirs])
        self.inventory.release(self.row('10.0.0.10'), '')
        mine, theirs = self.do(), self.do()
        self.assertEqual([True, True, False, False],
                         [self.inventory.work_done(w)
                          for w in mine + theirs])
        self.assertEqual(State.FREE, self.state('10.0.0.10'))
        self.assertEqual(1, self.events('10.0.0.10').count('finish'))

    def test_the_last_two_at_the_same_moment(self) -> None:
        """Neither may think that the other one will finish.

        With snapshots each would still see the other's entry: the swap of
        the address's generation is what makes one of them try again.
        """
        self.inventory.release(self.row('10.0.0.10'), '')
        before = self.row('10.0.0.10').generation
        self.inventory.work_done(self.do()[0])
        self.assertEqual(before + 1, self.row('10.0.0.10').generation)
        tries = []
        original = moves.swap

        def swap(*args: Any) -> None:
            tries.append(args)
            if len(tries) == 1:
                raise moves.Overtaken
            original(*args)

        self.patch(moves, 'swap', swap)
        self.assertTrue(self.inventory.work_done(self.do()[0]))
        self.assertEqual(2, len(tries))
        self.assertEqual(State.FREE, self.state('10.0.0.10'))

    def test_put_is_overtaken_by_release(self) -> None:
        work = self.do()
        self.inventory.release(self.row('10.0.0.10'), '')
        self.assertEqual([False, False],
                         [self.inventory.work_done(w) for w in work])
        self.assertEqual({False}, {w.present for w in self.do()})
        self.assertFalse(self.inventory.wants('a', ip('10.0.0.10'),
                                              base.mac(1)))

    def test_put_is_overtaken_by_the_next_holder(self) -> None:
        """Neither id nor generation of an entry ever comes twice."""
        late = self.do()
        self.inventory.release(self.row('10.0.0.10'), '')
        self.finish('10.0.0.10')
        self.assertEqual('10.0.0.10', self.claim(2, request='req-2'))
        for work in late:
            self.assertFalse(self.inventory.work_done(work))
            self.inventory.work_failed(work, 'late', 999)
        self.assertEqual({None}, {e.error for e in self.inventory.entries()})
        self.assertEqual({False}, {e.done for e in self.inventory.entries()})

    def test_failed(self) -> None:
        work = self.do()[0]
        self.inventory.work_failed(work, 'x' * 5000, 10)
        entry, = (e for e in self.inventory.entries()
                  if e.server == work.server)
        self.assertEqual((1, 'x' * 1000), (entry.attempts, entry.error))
        self.clock.forward(9)
        self.assertNotIn(work.server, [w.server for w in
                                       self.inventory.work()])
        self.clock.forward(1)
        again, = (w for w in self.inventory.work()
                  if w.server == work.server)
        self.assertEqual(1, again.attempts)
        self.inventory.work_done(again)
        self.inventory.work_failed(again, 'late', 10)
        entry, = (e for e in self.inventory.entries()
                  if e.server == work.server)
        self.assertEqual((0, None, True),
                         (entry.attempts, entry.error, entry.done))

    def test_keep(self) -> None:
        self.served()
        self.inventory.release(self.row('10.0.0.10'), '')
        first, second = self.do()
        self.inventory.work_done(first)
        self.inventory.keep(second)
        self.assertEqual(State.CLAIMED, self.state('10.0.0.10'))
        # also where it was gone already
        self.assertEqual(
            [('a', '10.0.0.10', base.mac(1), True, False),
             ('b', '10.0.0.10', base.mac(1), True, False)], self.entries())

    def test_keep_is_overtaken(self) -> None:
        self.inventory.release(self.row('10.0.0.10'), '')
        work = self.do()
        self.finish('10.0.0.10')
        self.inventory.keep(work[0])
        self.assertEqual(State.FREE, self.state('10.0.0.10'))

    def test_keep_is_overtaken_by_another_release(self) -> None:
        """What Neutron said of the first says nothing of the second."""
        self.inventory.release(self.row('10.0.0.10'), '')
        work = self.do()[0]
        self.inventory.keep(work)
        self.inventory.release(self.row('10.0.0.10'), '')
        self.inventory.keep(work)
        self.assertEqual(State.RELEASING, self.state('10.0.0.10'))

    def test_redo(self) -> None:
        self.served()
        self.inventory.redo('a', [ip('10.0.0.10')])
        self.assertEqual(['a'], [w.server for w in self.do()])
        self.inventory.redo('a', [ip('10.0.0.99')])
        self.inventory.redo('z', [ip('10.0.0.10')])
        self.assertEqual(['a'], [w.server for w in self.do()])

    def test_redo_leaves_what_has_to_go(self) -> None:
        """Whoever is removing it is not overtaken."""
        self.inventory.release(self.row('10.0.0.10'), '')
        first, second = self.do()
        self.inventory.redo(first.server, [ip('10.0.0.10')])
        self.assertTrue(self.inventory.work_done(first))
        self.assertTrue(self.inventory.work_done(second))
        self.assertEqual(State.FREE, self.state('10.0.0.10'))

    def test_redo_only_what_was_done(self) -> None:
        self.inventory.work_failed(self.do()[0], 'no', 1)
        before = self.inventory.entries()
        self.inventory.redo('a', [ip('10.0.0.10')], only_done=True)
        self.inventory.redo('b', [ip('10.0.0.10')], only_done=True)
        self.assertEqual(before, self.inventory.entries())

    def test_intents(self) -> None:
        self.served()
        self.claim(2)
        self.claim(3)
        self.inventory.release(self.row('10.0.0.10'), '')
        found = {ip('10.0.0.10'): records.Intent(base.mac(1), False, False),
                 ip('10.0.0.11'): records.Intent(base.mac(2), True, False),
                 ip('10.0.0.12'): records.Intent(base.mac(3), True, False)}
        for work in self.inventory.work(port_ids=[base.port_id(3)]):
            self.inventory.work_done(work)
        found[ip('10.0.0.12')] = records.Intent(base.mac(3), True, True)
        self.assertEqual(found, self.inventory.intents('a'))
        del found[ip('10.0.0.10')], found[ip('10.0.0.12')]
        self.assertEqual(found, self.inventory.intents(
            'a', [ip('10.0.0.11'), ip('10.0.0.99')]))
        self.assertEqual({}, self.inventory.intents('z'))

    def test_work_of_one_server(self) -> None:
        self.assertEqual([], self.inventory.due())
        self.clock.forward(5)
        self.assertEqual([('a', True), ('b', True)], self.inventory.due())
        self.assertEqual(['b'], [
            work.server for work in self.inventory.work(server='b')])
        self.inventory.work_done(self.inventory.work(server='b')[0])
        self.assertEqual([('a', True)], self.inventory.due())
        self.inventory.release(self.row('10.0.0.10'), '')
        self.clock.forward(5)
        self.assertEqual([('a', False), ('b', False)], self.inventory.due())
        self.assertEqual([], self.inventory.work(present=True))
        self.assertEqual(2, len(self.inventory.work(present=False)))

    def test_work_of_what_no_server_serves(self) -> None:
        port = {'port_ids': [base.port_id(1)], 'unserved': True}
        first, second = self.inventory.work(**port)
        self.inventory.work_done(first)
        self.assertEqual([], self.inventory.work(**port))
        self.assertEqual([second], self.do())

    def test_wait(self) -> None:
        first, second = self.do()
        self.inventory.work_failed(second, 'x', 0)
        self.clock.forward(5)
        work = self.inventory.work()
        self.claim(2)
        late, = (w for w in self.inventory.work(port_ids=[base.port_id(2)])
                 if w.server == 'a')
        self.inventory.redo('a', [late.address])
        self.inventory.wait([*work, late], WaitingFor.DHCP_SERVER, 'away',
                            10)
        away = WaitingFor.DHCP_SERVER
        self.assertEqual({
            # a wait is no failed try
            ('a', '10.0.0.10'): (0, 'away', away, 10),
            ('b', '10.0.0.10'): (1, 'away', away, 10),
            ('a', '10.0.0.11'): (0, None, None, 0),
            ('b', '10.0.0.11'): (0, None, None, 5)}, {
                (e.server, str(e.address)): (
                    e.attempts, e.error, e.waiting_for,
                    (e.next_try_at - self.clock.now).total_seconds())
                for e in self.inventory.entries()})
        self.inventory.hurry('b')
        self.assertEqual({'a': 1, 'b': 2}, collections.Counter(
            work.server for work in self.inventory.work()))

    def test_waiting_since(self) -> None:
        """It is told as long as the reason is the same."""
        self.served()
        self.inventory.redo('a', [ip('10.0.0.10')])
        began = self.clock.now
        for reason, since in ((WaitingFor.LEASE, 0), (WaitingFor.LEASE, 0),
                              (WaitingFor.CLOUD, 20), (WaitingFor.CLOUD, 20),
                              (WaitingFor.LEASE, 40)):
            item, = self.do()
            self.inventory.wait([item], reason, 'x', 1)
            item, = self.do()
            self.assertEqual(reason, item.waiting_for)
            assert item.waiting_since is not None
            self.assertEqual(
                since, (item.waiting_since - began).total_seconds())
            self.clock.forward(10)
        self.assertEqual([records.Waiting('a', WaitingFor.LEASE, 1)],
                         self.inventory.waiting())
        self.assertEqual({self.row('10.0.0.10').id: {WaitingFor.LEASE}},
                         self.inventory.waiting_addresses())
        self.inventory.work_failed(item, 'no room', 1)
        self.assertEqual([], self.inventory.waiting())
        self.assertEqual((None, None), (self.do()[0].waiting_for,
                                        self.do()[0].waiting_since))

    def test_nothing_waits_any_more(self) -> None:
        """Once it is done, wanted anew or has to go."""
        def wait() -> None:
            self.inventory.wait(self.do(), WaitingFor.LEASE, 'x', 1)
            self.assertEqual(2, len(self.inventory.waiting()))

        def all_done() -> None:
            self.assertEqual([], self.inventory.work_done_all(self.do()))

        address = self.row('10.0.0.10')
        for step in (all_done, lambda: self.inventory.redo(
                'a', [address.address]) or self.inventory.redo(
                    'b', [address.address]),
                lambda: self.inventory.release(self.row('10.0.0.10'), '')):
            for server in 'ab':
                self.inventory.redo(server, [address.address])
            wait()
            step()
            self.assertEqual([], self.inventory.waiting())
            self.assertEqual({(None, None)}, {
                (e.waiting_for, e.waiting_since)
                for e in self.inventory.entries()})

    def test_expedite(self) -> None:
        self.claim(2)
        mine, others, *rest = self.inventory.work(
            None, port_ids=[base.port_id(1), base.port_id(2)])
        self.inventory.wait([mine], WaitingFor.DHCP_SERVER, 'x', 99)
        self.inventory.wait([others], WaitingFor.CLOUD, 'x', 99)
        self.inventory.expedite(WaitingFor.DHCP_SERVER, 'z')
        self.inventory.expedite(WaitingFor.LEASE)
        self.assertEqual([], self.inventory.work())
        self.inventory.expedite(WaitingFor.DHCP_SERVER, mine.server)
        self.assertEqual([mine.id], [w.id for w in self.inventory.work()])
        self.inventory.expedite(WaitingFor.CLOUD)
        self.assertEqual({mine.id, others.id},
                         {w.id for w in self.inventory.work()})

    def test_committed_needs_no_grace(self) -> None:
        self.inventory.release(self.row('10.0.0.10'), '',
                               states.Evidence.COMMITTED)
        self.assertEqual({states.Evidence.COMMITTED}, {
            w.evidence for w in self.inventory.work()})
        self.assertEqual({True}, {w.releasing for w in self.inventory.work()})

    def test_a_name_for_many(self) -> None:
        self.assertEqual(1, len(self.inventory.of_ports([base.port_id(1)])))
        self.assertEqual(1, len(self.inventory.of_server(
            base.server_id(1))))
        self.assertEqual([], self.inventory.of_ports([]))
        self.assertEqual([], self.inventory.of_server(''))


class TestAnswered(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.claim()
        self.inventory.release(self.row('10.0.0.10'), 'deleted')

    def test_noted_and_taken_back(self) -> None:
        for at in (clock.now(), None):
            self.assertTrue(self.inventory.note_answered(
                self.row('10.0.0.10'), at))
            self.assertEqual(at, self.row('10.0.0.10').answered_at)

    def test_by_what_a_worker_has_at_hand(self) -> None:
        work, = self.inventory.work(port_ids=[base.port_id(1)])
        self.assertTrue(self.inventory.note_answered(work, clock.now()))
        self.assertEqual(clock.now(), self.row('10.0.0.10').answered_at)
        self.inventory.keep(work)
        self.assertFalse(self.inventory.note_answered(work, clock.now()))
        self.assertIsNone(self.row('10.0.0.10').answered_at)

    def test_address_has_changed_since(self) -> None:
        before = self.row('10.0.0.10')
        self.finish('10.0.0.10')
        self.assertFalse(self.inventory.note_answered(before, clock.now()))
        self.assertIsNone(self.row('10.0.0.10').answered_at)


class TestKilled(base.TestCase):
    """Whatever step a process dies in, the next one does the rest."""

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.reserve()

    def killed_at_commit(self, call: Any) -> None:
        def kill(session: Any) -> None:
            session.flush()
            raise Kill

        sa.event.listen(orm.Session, 'before_commit', kill)
        try:
            self.assertRaises(Kill, call)
        finally:
            sa.event.remove(orm.Session, 'before_commit', kill)

    def snapshot(self) -> Any:
        with self.inventory.database.read() as session:
            return [session.execute(sa.select(table)).all() for table in
                    models.Base.metadata.sorted_tables]

    def test_every_step(self) -> None:
        def work() -> records.Work:
            return self.inventory.work(port_ids=[base.port_id(1)])[0]

        steps: list[Any] = [
            self.claim,
            lambda: self.inventory.work_done(work()),
            lambda: self.inventory.release(self.row('10.0.0.10'), ''),
            lambda: self.inventory.keep(work()),
            lambda: self.inventory.release(self.row('10.0.0.10'), ''),
            lambda: self.inventory.work_failed(work(), 'x', 1),
            lambda: self.inventory.work_done(work())]
        for step in steps:
            before = self.snapshot()
            self.killed_at_commit(step)
            self.assertEqual(before, self.snapshot())
            step()
            self.assertNotEqual(before, self.snapshot())
        self.assertEqual(State.FREE, self.state('10.0.0.10'))
        self.assertEqual([], self.entries())

    def test_claim_and_its_entries_are_one(self) -> None:
        def no_entries(*args: Any, **kwargs: Any) -> None:
            raise db_exc.DBError(Exception('gone'))

        self.patch(entries, 'want_all', no_entries)
        self.assertRaises(exceptions.InventoryUnavailable, self.claim)
        self.assertEqual(State.RESERVED, self.state('10.0.0.10'))
