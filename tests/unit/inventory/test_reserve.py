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

"""Pools, and reserving addresses out of them."""

from typing import Any

from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm
import testtools

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import models
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

ip = base.ip
State = base.State

NETWORK_2 = '11111111-0000-0000-0000-000000000002'
SUBNET_2 = '22222222-0000-0000-0000-000000000002'
SUBNET_6 = '22222222-0000-0000-0000-000000000006'


class TestPools(base.TestCase):

    def test_create(self) -> None:
        pool = self.pool(dhcp_servers=['a', 'b'], reuse_delay=5)
        (found, usage), = self.inventory.pools()
        self.assertEqual(pool, found)
        self.assertEqual(('a', 'b'), found.dhcp_servers)
        self.assertEqual(11, usage['free'])
        self.assertEqual(11, sum(usage.values()))

    def test_usage(self) -> None:
        self.pool()
        self.reserve('a', 'b')
        self.claim()
        usage = self.inventory.pools()[0][1]
        self.assertEqual((9, 1, 1), (usage['free'], usage['reserved'],
                                     usage['claimed']))
        self.assertEqual(11, sum(usage.values()))

    def refused(self, word: str, **values: Any) -> None:
        error = self.assertRaises(exceptions.VmipError, self.pool, **values)
        self.assertIn(word, str(error))

    def test_twice(self) -> None:
        self.pool()
        self.refused('already', subnet=SUBNET_2)
        self.refused('already', name='other')
        self.pool(name='other', subnet=SUBNET_2)

    def test_twice_at_the_same_moment(self) -> None:
        def flush(session: Any, *args: Any) -> None:
            raise db_exc.DBDuplicateEntry

        sa.event.listen(orm.Session, 'before_flush', flush)
        self.addCleanup(sa.event.remove, orm.Session, 'before_flush',
                        flush)
        self.assertRaises(exceptions.PoolExists, self.pool)

    def test_bad_ranges(self) -> None:
        for word, *ranges in (
                ('at least one',),
                ('not within', ('10.0.0.250', '10.0.1.3')),
                ('not within', ('9.0.0.1', '10.0.0.3')),
                ('not within', ('2001:db8::1', '2001:db8::2')),
                ('ends before', ('10.0.0.9', '10.0.0.8')),
                ('own address', ('10.0.0.0', '10.0.0.8')),
                ('broadcast', ('10.0.0.9', '10.0.0.255')),
                ('overlap', ('10.0.0.1', '10.0.0.8'),
                 ('10.0.0.8', '10.0.0.9'))):
            self.refused(word, ranges=[(ip(a), ip(b)) for a, b in ranges])
        self.refused('own address', cidr='2001:db8::/64', ranges=[
            (ip('2001:db8::'), ip('2001:db8::5'))])
        self.refused('no allocator', allocator='dice')
        self.assertEqual([], self.inventory.pools())

    def test_ends_of_a_subnet(self) -> None:
        self.pool('10.0.0.4', '10.0.0.5', '10.0.0.4/31')
        self.pool('2001:db8::1', '2001:db8::ffff:ffff:ffff:ffff',
                  '2001:db8::/64', name='six', subnet=SUBNET_6)

    def test_find(self) -> None:
        pool = self.pool()
        for key in (pool.name, pool.id, pool.subnet_id):
            self.found(pool=key)
        self.assertRaises(exceptions.PoolNotFound, self.inventory.addresses,
                          pool='other')

    def test_delete(self) -> None:
        self.pool()
        reserved = self.reserve()
        self.assertRaises(exceptions.PoolInUse, self.inventory.delete_pool,
                          'pool')
        self.inventory.cancel(reserved, '')
        self.inventory.delete_pool('pool')
        self.assertEqual([], self.inventory.pools())
        self.assertEqual(0, self.rows())
        self.assertEqual(['reserve', 'cancel'], self.events('10.0.0.10'))
        self.assertRaises(exceptions.PoolNotFound,
                          self.inventory.delete_pool, 'pool')

    def test_delete_spares_what_was_taken_meanwhile(self) -> None:
        self.pool()
        self.reserve()
        with testtools.ExpectedException(db_exc.DBReferenceError), \
                self.inventory.database.write('test') as session:
            # what the count saw before another worker reserved
            self.patch(session, 'scalar', lambda *args: 0)
            pools.delete(session, pools.find(session, 'pool'))
        self.assertEqual(State.RESERVED, self.state('10.0.0.10'))

    def test_adopt(self) -> None:
        self.pool(adopt=[
            records.InUse(ip('10.0.0.10'), base.PROJECT, base.server_id(1),
                          base.port_id(1), base.mac(1)),
            records.InUse(ip('10.0.0.99'), None, None, None, None)])
        self.assertEqual(State.ADOPTED, self.state('10.0.0.10'))
        self.assertEqual(base.port_id(1), self.row('10.0.0.10').port_id)
        self.assertEqual(['10.0.0.11'], base.addresses(self.reserve()))
        self.assertEqual([], self.found(
            address=ip('10.0.0.99')))
        self.inventory.release(self.row('10.0.0.10'), '')
        self.assertEqual(State.FREE, self.state('10.0.0.10'))


class TestReserve(base.TestCase):

    def test_lowest_first(self) -> None:
        self.pool()
        reserved = self.reserve('a', 'b')
        self.assertEqual(['10.0.0.10', '10.0.0.11'],
                         base.addresses(reserved))
        self.assertEqual(['a', 'b'], [r.server_name for r in reserved])
        self.assertEqual({State.RESERVED}, {r.state for r in reserved})

    def test_range_ends_and_no_further(self) -> None:
        self.pool('10.0.0.10', '10.0.0.12')
        self.assertEqual(
            ['10.0.0.10', '10.0.0.11', '10.0.0.12'],
            base.addresses(self.reserve('a', 'b', 'c')))
        error = self.assertRaises(exceptions.PoolExhausted, self.reserve)
        self.assertIn('pool', str(error))

    def test_several_ranges(self) -> None:
        self.pool(ranges=[(ip('10.0.0.30'), ip('10.0.0.30')),
                          (ip('10.0.0.10'), ip('10.0.0.11'))])
        self.assertEqual(
            ['10.0.0.10', '10.0.0.11', '10.0.0.30'],
            base.addresses(self.reserve('a', 'b', 'c')))
        self.assertRaises(exceptions.PoolExhausted, self.reserve)

    def test_single_address(self) -> None:
        self.pool('10.0.0.10', '10.0.0.10')
        self.assertEqual(['10.0.0.10'], base.addresses(self.reserve()))

    def test_nothing_if_one_network_is_full(self) -> None:
        self.pool()
        self.pool('10.1.0.10', '10.1.0.10', '10.1.0.0/24', name='small',
                  network=NETWORK_2, subnet=SUBNET_2)
        self.assertRaises(
            exceptions.PoolExhausted, self.inventory.reserve,
            records.Requester('r', base.PROJECT),
            [records.Wanted(base.NETWORK, ('a', 'b')),
             records.Wanted(NETWORK_2, ('a', 'b'))], 600)
        self.assertEqual([], self.found())
        self.assertEqual([], self.inventory.history(ip('10.0.0.10')))

    def test_several_networks(self) -> None:
        self.pool()
        self.pool('10.1.0.10', '10.1.0.11', '10.1.0.0/24', name='two',
                  network=NETWORK_2, subnet=SUBNET_2)
        found = self.inventory.reserve(
            records.Requester('r', base.PROJECT),
            [records.Wanted(base.NETWORK, ('a', 'b')),
             records.Wanted('no-pool', ('a', 'b')),
             records.Wanted(NETWORK_2, ('a', 'b'))], 600)
        self.assertEqual(['10.0.0.10', '10.0.0.11', '10.1.0.10',
                          '10.1.0.11'], base.addresses(found))

    def test_same_network_twice(self) -> None:
        self.pool()
        found = self.inventory.reserve(
            records.Requester('r', base.PROJECT),
            [records.Wanted(base.NETWORK, ('a',))] * 2, 600)
        self.assertEqual(['10.0.0.10', '10.0.0.11'], base.addresses(found))

    def test_next_pool_of_a_network(self) -> None:
        self.pool('10.0.0.10', '10.0.0.10')
        self.clock.forward(1)
        self.pool('10.1.0.10', '10.1.0.10', '10.1.0.0/24', name='a second',
                  subnet=SUBNET_2)
        self.assertEqual(['10.0.0.10', '10.1.0.10'],
                         base.addresses(self.reserve('a', 'b')))
        error = self.assertRaises(exceptions.PoolExhausted, self.reserve)
        self.assertIn('a second', str(error))

    def test_both_versions(self) -> None:
        self.pool()
        self.pool('2001:db8::10', '2001:db8::20', '2001:db8::/64',
                  name='six', subnet=SUBNET_6)
        self.assertEqual(
            ['10.0.0.10', '10.0.0.11', '2001:db8::10', '2001:db8::11'],
            sorted(base.addresses(self.reserve('a', 'b'))))

    def test_both_or_none(self) -> None:
        self.pool()
        self.pool('2001:db8::10', '2001:db8::10', '2001:db8::/64',
                  name='six', subnet=SUBNET_6)
        self.assertRaises(exceptions.PoolExhausted, self.reserve, 'a', 'b')
        self.assertEqual([], self.found())

    def test_large_pool_costs_no_rows(self) -> None:
        self.pool('2001:db8::1', '2001:db8::ffff:ffff:ffff:ffff',
                  '2001:db8::/64')
        self.assertEqual(0, self.rows())
        self.assertEqual(['2001:db8::1'], base.addresses(self.reserve()))
        self.assertEqual(pools.CHUNK, self.rows())
        last = ip('2001:db8::ffff:ffff:ffff:ffff')
        self.assertEqual(str(last), self.claim(address=last))
        self.assertEqual(pools.CHUNK + 1, self.rows())
        usage = self.inventory.pools()[0][1]
        self.assertEqual(2 ** 64 - 1, sum(usage.values()))

    def test_chunks(self) -> None:
        self.patch(pools, 'CHUNK', 4)
        self.pool('10.0.0.10', '10.0.0.18')
        # one of the second chunk, and the first of the third, have rows
        self.claim(1, address=ip('10.0.0.15'))
        self.claim(2, address=ip('10.0.0.18'))
        found = []
        rows = []
        for number in range(7):
            found += base.addresses(self.reserve(f'vm{number}'))
            rows.append(self.rows())
        self.assertEqual([6, 6, 6, 6, 9, 9, 9], rows)
        self.assertEqual(
            [f'10.0.0.{n}' for n in (10, 11, 12, 13, 14, 16, 17)], found)
        self.assertRaises(exceptions.PoolExhausted, self.reserve)
        with self.inventory.database.read() as session:
            keys = dict(session.execute(sa.select(
                models.AddressRow.address,
                models.AddressRow.pick_key)).tuples().all())
        self.assertEqual({ip(f'10.0.0.{10 + n}'): n for n in range(9)}, keys)

    def test_freed_is_reused_lowest_first(self) -> None:
        self.pool()
        reserved = self.reserve('a', 'b', 'c', 'd')
        self.inventory.cancel([reserved[2], reserved[1]], '')
        self.assertEqual(['10.0.0.11', '10.0.0.12', '10.0.0.14'],
                         base.addresses(self.reserve('e', 'f', 'g')))

    def test_expiry(self) -> None:
        self.pool()
        reserved, = self.reserve(ttl=60)
        self.assertEqual([], self.inventory.expired())
        self.clock.forward(60)
        self.assertEqual([reserved], self.inventory.expired())
        self.assertTrue(self.inventory.expire(reserved, 'late'))
        self.assertFalse(self.inventory.expire(reserved, 'late'))
        self.assertEqual(State.FREE, self.state('10.0.0.10'))

    def test_expire_is_overtaken(self) -> None:
        self.pool()
        reserved, = self.reserve(ttl=60)
        self.clock.forward(60)
        self.inventory.extend(reserved, 600)
        self.assertFalse(self.inventory.expire(reserved, 'late'))
        self.assertEqual([], self.inventory.expired())
        self.claim()
        self.assertFalse(self.inventory.expire(
            self.row('10.0.0.10'), 'late'))
        self.assertEqual(State.CLAIMED, self.state('10.0.0.10'))

    def test_bind_what_has_changed(self) -> None:
        """It is still the request's, or it is nobody's to bind."""
        self.pool()
        given_time, claimed, gone = reserved = self.reserve(
            'a', 'b', 'c')
        self.inventory.extend(given_time, 60)
        self.claim(server=None, address=claimed.address)
        self.inventory.cancel([gone], '')
        self.assertEqual([gone.address], [r.address for r in self.reserve(
            'd', request='req-2')])
        self.inventory.bind(reserved, base.server_id(7))
        self.assertEqual([base.server_id(7), None, None], [
            self.row(str(r.address)).server_id for r in reserved])
        self.assertEqual(State.CLAIMED, self.state(str(claimed.address)))

    def test_cancel_spares_what_is_claimed_or_anothers(self) -> None:
        self.pool()
        reserved = self.reserve('a', 'b')
        self.claim()
        self.inventory.cancel([reserved[1]], '')
        again = self.reserve('c', request='req-2')
        self.assertEqual(['10.0.0.11'], base.addresses(again))
        self.assertEqual(0, self.inventory.cancel(reserved, ''))
        self.inventory.bind(reserved, base.server_id(7))
        self.assertEqual(State.RESERVED, self.state('10.0.0.11'))
        self.assertIsNone(self.row('10.0.0.11').server_id)

    def test_names_are_any_text(self) -> None:
        self.pool()
        name = "Robert'); DROP TABLE addresses; -- \u2603\U0001f600%_\\"
        self.reserve(name)
        self.assertEqual(name, self.row('10.0.0.10').server_name)
        self.assertEqual(1, len(self.found(server=name)))


class TestQuarantine(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool('10.0.0.10', '10.0.0.11', reuse_delay=60)
        self.claim()
        self.inventory.release(self.row('10.0.0.10'), '')
        self.finish('10.0.0.10')

    def test_honoured(self) -> None:
        self.assertEqual(State.QUARANTINED, self.state('10.0.0.10'))
        self.assertEqual(['10.0.0.11'], base.addresses(self.reserve()))
        self.assertRaises(exceptions.PoolExhausted, self.reserve)

    def test_over(self) -> None:
        self.assertEqual(0, self.inventory.rest_over())
        self.clock.forward(60)
        self.assertEqual(1, self.inventory.rest_over())
        self.assertEqual(0, self.inventory.rest_over())
        self.assertEqual(State.FREE, self.state('10.0.0.10'))

    def test_ended_lazily_when_the_pool_is_short(self) -> None:
        self.clock.forward(60)
        self.assertEqual(['10.0.0.11'], base.addresses(self.reserve()))
        self.assertEqual(State.QUARANTINED, self.state('10.0.0.10'))
        self.assertEqual(['10.0.0.10'], base.addresses(self.reserve()))


class TestAllowance(base.TestCase):

    def test_first_address_of_a_pool_is_one_for_the_ports(self) -> None:
        self.pool('10.0.0.10', '10.0.0.11')
        self.claim(1, address=ip('10.0.0.10'))
        self.claim(2, address=ip('10.0.0.11'))
        wanted = [records.Wanted(base.NETWORK, ('web',))]
        allowance = records.Allowance(0, 100)
        requester = records.Requester('req-1', base.PROJECT)
        self.assertRaises(exceptions.PoolExhausted, self.inventory.reserve,
                          requester, wanted, 600, allowance)
        self.inventory.release_address(
            base.SUBNET, ip('10.0.0.10'), 'deleted',
            states.Evidence.COMMITTED)
        for item in self.inventory.work():
            self.inventory.work_done(item)
        self.assertEqual(State.FREE, self.state('10.0.0.10'))
        self.assertEqual([], self.inventory.reserve(
            requester, wanted, 600, allowance))


class TestHeldNames(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()

    def test_is_the_names(self) -> None:
        self.hold('10.0.0.15')
        self.assertEqual(
            ['10.0.0.10', '10.0.0.15', '10.0.0.11'],
            base.addresses(self.reserve('x', 'web', 'y')))
        # and once only
        self.assertEqual(['10.0.0.12'], base.addresses(self.reserve('web')))

    def test_projects_own_goes_before_any(self) -> None:
        self.hold('10.0.0.14')
        self.hold('10.0.0.15', project=base.PROJECT)
        self.assertEqual(['10.0.0.15'], base.addresses(self.reserve('web')))
        self.assertEqual(['10.0.0.14'], base.addresses(self.reserve('web')))

    def test_other_projects_is_never_given(self) -> None:
        self.hold('10.0.0.10', project=base.OTHER_PROJECT)
        found = [a for n in range(10) for a in base.addresses(
            self.reserve('web', request=f'r{n}'))]
        self.assertNotIn('10.0.0.10', found)
        self.assertRaises(exceptions.PoolExhausted, self.reserve, 'web')
        self.assertEqual(['10.0.0.10'], base.addresses(
            self.reserve('web', project=base.OTHER_PROJECT)))

    def test_who_names_another_projects_does_not_get_it(self) -> None:
        for address, name in ('10.0.0.14', 'web'), ('10.0.0.15', None):
            self.hold(address, name, base.OTHER_PROJECT)
            wanted = [records.Wanted(base.NETWORK, ('web',), (ip(address),))]
            error = self.assertRaises(
                exceptions.AddressInUse, self.inventory.reserve,
                records.Requester('req-1', base.PROJECT), wanted, 600)
            self.assertIn(address, str(error))
            self.assertEqual([address], base.addresses(self.inventory.reserve(
                records.Requester('req-2', base.OTHER_PROJECT), wanted, 600)))

    def test_name_is_exact(self) -> None:
        self.hold('10.0.0.15', name='web')
        for name in ('Web', 'web-1', 'we', '%'):
            self.assertNotIn('10.0.0.15',
                             base.addresses(self.reserve(name)))

    def test_comes_back_after_cancel_and_expiry(self) -> None:
        self.hold('10.0.0.15')
        self.inventory.cancel(self.reserve('web'), 'no')
        self.assertEqual((State.RESERVED, 'web', None),
                         self.held('10.0.0.15'))
        reserved, = self.reserve('web', ttl=60)
        self.clock.forward(60)
        self.inventory.expire(reserved, 'late')
        self.assertEqual((State.RESERVED, 'web', None),
                         self.held('10.0.0.15'))
        self.assertEqual([], self.inventory.expired())

    def held(self, address: str) -> tuple[State, str | None, str | None]:
        row = self.row(address)
        return row.state, row.hold_name, row.request_id

    def test_ends(self) -> None:
        self.hold('10.0.0.15', seconds=60)
        self.clock.forward(60)
        expired, = self.inventory.expired()
        self.inventory.expire(expired, 'over')
        self.assertEqual((State.FREE, None, None), self.held('10.0.0.15'))

    def test_is_not_given_when_over(self) -> None:
        self.hold('10.0.0.15', seconds=60)
        self.clock.forward(60)
        self.assertEqual(['10.0.0.10'], base.addresses(self.reserve('web')))

    def test_ends_while_in_use(self) -> None:
        self.hold('10.0.0.15', seconds=60)
        self.reserve('web')
        self.claim()
        self.clock.forward(61)
        self.inventory.release(self.row('10.0.0.15'), '')
        self.finish('10.0.0.15')
        self.assertEqual((State.FREE, None, None), self.held('10.0.0.15'))
        # the name may have another one then
        self.hold('10.0.0.16')

    def test_ends_while_in_use_and_rests(self) -> None:
        self.pool('10.1.0.10', '10.1.0.11', '10.1.0.0/24', name='slow',
                  subnet=SUBNET_2, reuse_delay=60)
        address = ip('10.1.0.10')
        self.inventory.hold(records.Hold('slow', address, 'db', base.PROJECT,
                                         clock.after(1)))
        self.claim(subnet=SUBNET_2, address=address)
        self.clock.forward(1)
        self.inventory.release(self.row('10.1.0.10'), '')
        self.finish('10.1.0.10')
        self.assertEqual((State.QUARANTINED, None, None),
                         self.held('10.1.0.10'))

    def test_given_more_time_while_it_is_released(self) -> None:
        self.hold('10.0.0.15', seconds=60)
        self.reserve('web')
        self.claim()
        self.inventory.release(self.row('10.0.0.15'), '')
        self.assertEqual(State.RELEASING,
                         self.hold('10.0.0.15', seconds=120).state)
        self.clock.forward(61)
        self.finish('10.0.0.15')
        self.assertEqual((State.RESERVED, 'web', None),
                         self.held('10.0.0.15'))

    def test_stays_its_names_after_the_server(self) -> None:
        self.hold('10.0.0.15')
        self.reserve('web')
        self.assertEqual('10.0.0.15', self.claim())
        self.inventory.release(self.row('10.0.0.15'), '')
        self.finish('10.0.0.15')
        self.assertEqual((State.RESERVED, 'web', None),
                         self.held('10.0.0.15'))
        self.assertIsNone(self.row('10.0.0.15').mac)
        self.assertEqual(['10.0.0.15'], base.addresses(self.reserve('web')))

    def test_refused(self) -> None:
        self.hold('10.0.0.15')
        for address, name, error in (
                ('10.0.0.16', 'web', exceptions.AddressInUse),
                ('10.0.0.15', 'db', exceptions.AddressInUse),
                ('10.0.0.99', 'db', exceptions.AddressNotFound)):
            self.assertRaises(error, self.hold, address, name)
        self.claim(address=ip('10.0.0.17'))
        self.assertRaises(exceptions.AddressInUse, self.hold, '10.0.0.17',
                          'db')
        self.assertRaises(exceptions.PoolNotFound, self.inventory.hold,
                          records.Hold('none', ip('10.0.0.15'), 'db',
                                       any_project=True))
        self.assertRaises(exceptions.VmipError, self.hold, '10.0.0.18', 'db',
                          seconds=0)
        self.hold('10.0.0.16', project=base.PROJECT)

    def test_unhold(self) -> None:
        self.hold('10.0.0.15')
        self.inventory.unhold('pool', ip('10.0.0.15'))
        self.assertEqual((State.FREE, None, None), self.held('10.0.0.15'))
        for address in ('10.0.0.15', '10.0.0.16', '10.0.0.99'):
            self.assertRaises(exceptions.AddressNotFound,
                              self.inventory.unhold, 'pool', ip(address))

    def test_unhold_in_use(self) -> None:
        self.hold('10.0.0.15')
        self.reserve('web')
        self.inventory.unhold('pool', ip('10.0.0.15'))
        self.assertEqual((State.RESERVED, None, 'req-1'),
                         self.held('10.0.0.15'))
        self.assertEqual('10.0.0.15', self.claim())
        self.inventory.release(self.row('10.0.0.15'), '')
        self.finish('10.0.0.15')
        self.assertEqual(State.FREE, self.state('10.0.0.15'))
