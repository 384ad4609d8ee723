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

"""Allocators: which free address is next."""

import collections
import datetime
import itertools

from hypothesis import given
from hypothesis import strategies
import testtools

from tests.unit import base
from vmip_plugin.allocation import base as allocation
from vmip_plugin.allocation import manager
from vmip_plugin import exceptions
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

NOW = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)
State = states.State
NAMES = ('random', 'sequential', 'sticky')


class Descending(allocation.Allocator):
    """The highest position first, from a start of the server's own."""

    begin = 0

    def order(self, pool_id: str, index: int, size: int) -> int:
        return index

    def key(self, pool_id: str, position: int) -> int:
        return 1000 - position

    def start(self, project_id: str, server_name: str) -> int:
        return self.begin


class TestEach(testtools.TestCase):
    """What holds for every allocator."""

    def test_is_installed(self) -> None:
        for name in NAMES:
            self.assertIs(manager.load(name), manager.load(name))

    def test_unknown(self) -> None:
        error = self.assertRaises(exceptions.ConfigError, manager.load,
                                  'dice')
        self.assertIn('dice', str(error))

    @given(strategies.sampled_from(NAMES), strategies.text(),
           strategies.integers(1, 3000))
    def test_order_is_a_permutation(self, name: str, pool: str,
                                    size: int) -> None:
        order = manager.load(name).order
        self.assertEqual(set(range(size)),
                         {order(pool, index, size) for index in range(size)})

    @given(strategies.sampled_from(NAMES), strategies.text(),
           strategies.integers(1, 2 ** 128), strategies.integers(0, 2 ** 62))
    def test_order_of_a_large_pool(self, name: str, pool: str, size: int,
                                   index: int) -> None:
        order = manager.load(name).order
        index %= size
        places = {order(pool, i, size)
                  for i in range(index, min(index + 9, size))}
        self.assertEqual(min(9, size - index), len(places))
        self.assertTrue(all(0 <= place < size for place in places))

    @given(strategies.sampled_from(NAMES), strategies.text(),
           strategies.text(), strategies.integers(0, 2 ** 128),
           strategies.datetimes(timezones=strategies.just(datetime.UTC),
                                min_value=datetime.datetime(1970, 1, 1)))
    def test_keys_fit_their_column(
            self, name: str, pool: str, server: str, position: int,
            at: datetime.datetime) -> None:
        how = manager.load(name)
        key = how.key(pool, position)
        for value in (key, how.freed_key(key, at), how.start(pool, server)):
            self.assertTrue(0 <= value <= allocation.MAX_KEY)


class TestSequential(base.TestCase):

    def test_lowest(self) -> None:
        self.pool()
        first = self.reserve('a', 'b', 'c')
        self.inventory.cancel(first[:2], '')
        self.assertEqual(['10.0.0.10', '10.0.0.11', '10.0.0.13'],
                         base.addresses(self.reserve('x', 'y', 'z')))

    def test_lowest_though_a_higher_one_was_asked_for(self) -> None:
        self.pool('10.0.0.1', '10.0.3.254', '10.0.0.0/16')
        self.claim(address=base.ip('10.0.3.9'))
        self.inventory.release(self.row('10.0.3.9'), '')
        self.finish('10.0.3.9')
        self.assertEqual(['10.0.0.1'], base.addresses(self.reserve()))


    def test_of_a_pool_that_is_changed(self) -> None:
        self.pool('10.0.0.10', '10.0.0.14')
        found = self.reserve(*'abcde')
        self.inventory.change_pool('pool', ranges=[
            (base.ip('10.0.0.8'), base.ip('10.0.0.9')),
            (base.ip('10.0.0.12'), base.ip('10.0.0.16'))])
        for held in reversed(found):
            self.inventory.cancel([held], '')
        self.assertEqual(
            [f'10.0.0.{n}' for n in (8, 9, 12, 13, 14, 15, 16)],
            base.addresses(self.reserve(*'abcdefg', request='req-2')))
        self.assertRaises(exceptions.PoolExhausted, self.reserve)


class TestRandom(base.TestCase):

    def test_follows_nothing(self) -> None:
        self.pool('10.0.0.1', '10.0.255.254', '10.0.0.0/16',
                  allocator='random')
        found = [int(a.address) - int(base.ip('10.0.0.1')) for a in
                 self.reserve(*(f'vm-{n}' for n in range(400)))]
        self.assertEqual(400, len(set(found)))
        steps = collections.Counter(
            b - a for a, b in itertools.pairwise(found))
        self.assertLess(steps.most_common(1)[0][1], 4)
        # all over the pool, from the first
        quarters = collections.Counter(place // 16384 for place in found)
        self.assertEqual(4, len(quarters))
        self.assertGreater(min(quarters.values()), 50)

    def test_a_freed_one_is_anywhere(self) -> None:
        self.pool('10.0.0.1', '10.0.0.200', allocator='random')
        again = set()
        for number in range(5):
            address = base.addresses(self.reserve('web'))[0]
            self.claim(number)
            self.inventory.release(self.row(address), '')
            self.finish(address)
            again.add(address)
        self.assertGreater(len(again), 2)

    def test_is_used_up(self) -> None:
        self.pool('10.0.0.1', '10.0.0.200', allocator='random')
        self.assertEqual(200, len(set(base.addresses(
            self.reserve(*map(str, range(200)))))))
        self.assertRaises(exceptions.PoolExhausted, self.reserve)


class TestSticky(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool(allocator='sticky')

    def live(self, name: str, number: int = 1, project: str = base.PROJECT,
             gone: bool = True) -> str:
        """Make a server and delete it; return its address."""
        request = f'req-{name}-{number}'
        self.reserve(name, request=request, project=project)
        address = self.claim(number, request=request, project=project)
        self.inventory.release(self.row(address), 'deleted')
        if gone:
            self.finish(address)
        return address

    def test_the_old_one_again(self) -> None:
        self.assertEqual(['10.0.0.10', '10.0.0.11', '10.0.0.12'],
                         [self.live(name) for name in ('a', 'b', 'c')])
        for name, address in (('b', '10.0.0.11'), ('c', '10.0.0.12'),
                              ('a', '10.0.0.10')):
            self.assertEqual(address, self.live(name, 2))

    def test_not_another_projects(self) -> None:
        self.live('a')
        self.assertEqual('10.0.0.11', self.live('a', 2, base.OTHER_PROJECT))
        self.assertEqual('10.0.0.10', self.live('a', 3))

    def test_only_if_it_is_free(self) -> None:
        self.live('a')
        self.claim(9, request='', address=base.ip('10.0.0.10'))
        self.assertEqual('10.0.0.11', self.live('a', 2))

    def test_others_get_what_was_free_longest(self) -> None:
        for number in range(11):
            self.clock.forward(1)
            self.live(f'vm-{number}')
        self.live('vm-0', 2)
        self.assertEqual(['10.0.0.11', '10.0.0.12'],
                         base.addresses(self.reserve('x', 'y')))

    def test_from_quarantine(self) -> None:
        self.inventory.change_pool('pool', reuse_delay=60)
        self.live('a')
        self.assertEqual(State.QUARANTINED, self.state('10.0.0.10'))
        self.assertEqual('10.0.0.11', self.live('b'))
        again = self.reserve('a')
        self.assertEqual(['10.0.0.10'], base.addresses(again))
        # and back to it
        self.inventory.cancel(again, '')
        self.assertEqual(State.QUARANTINED, self.state('10.0.0.10'))

    def test_not_while_neutron_may_still_have_the_port(self) -> None:
        self.live('a', gone=False)
        self.assertEqual(['10.0.0.11'], base.addresses(self.reserve('a')))

    def gone(self) -> records.Work:
        """Delete a server whose lease is still to be ended."""
        address = self.live('a', gone=False)
        work, = self.inventory.work(port_ids=[base.port_id(1)])
        self.inventory.work_failed(work, f'a lease of {address}', 1,
                                   port_gone=True)
        return work

    def test_while_the_dhcp_server_forgets(self) -> None:
        work = self.gone()
        self.assertEqual(['10.0.0.10'], base.addresses(self.reserve('a')))
        # the old MAC's entry goes all the same
        self.assertTrue(self.inventory.work_done(work))
        self.assertEqual(State.RESERVED, self.state('10.0.0.10'))
        self.claim(2)
        self.assertEqual([('a', '10.0.0.10', base.mac(2), True, False)],
                         self.entries())

    def test_claimed_while_the_dhcp_server_forgets(self) -> None:
        work = self.gone()
        self.reserve('a')
        self.claim(2)
        # what was wanted of the old MAC is overtaken
        self.assertFalse(self.inventory.work_done(work))
        self.assertEqual([('a', '10.0.0.10', base.mac(2), True, False)],
                         self.entries())

    def test_given_up_while_the_dhcp_server_forgets(self) -> None:
        work = self.gone()
        again = self.reserve('a')
        self.inventory.cancel(again, 'no')
        self.assertEqual(State.RELEASING, self.state('10.0.0.10'))
        self.assertEqual(['10.0.0.10'], base.addresses(
            self.reserve('a', request='req-3')))
        self.inventory.cancel([self.row('10.0.0.10')], 'no')
        self.assertTrue(self.inventory.work_done(work))
        self.assertEqual(State.FREE, self.state('10.0.0.10'))


class TestContract(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.allocator = Descending()
        self.patch(manager, 'load', lambda name: self.allocator)
        self.pool('10.0.0.10', '10.0.0.12')

    def test_smallest_key_first(self) -> None:
        self.assertEqual(['10.0.0.12', '10.0.0.11'],
                         base.addresses(self.reserve('a', 'b')))

    def test_from_the_start_and_round(self) -> None:
        self.allocator.begin = 999
        self.assertEqual(['10.0.0.11', '10.0.0.10', '10.0.0.12'],
                         base.addresses(self.reserve('a', 'b', 'c')))
