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

"""A history of bounded length, and a memory with an end."""

import datetime
import itertools

import sqlalchemy as sa

from tests.unit import base
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import records

DAY = 86400.0


class TestTrim(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.moments: list[datetime.datetime] = []

    def live(self, number: int) -> str:
        """Let a server live and die, a day each."""
        address = self.claim(number, request=f'req-{number}')
        self.step()
        self.inventory.activate(base.server_id(number), 'web',
                                [base.mac(number)])
        self.step()
        self.inventory.release(self.row(address), '')
        self.step()
        self.finish(address)
        self.step()
        return address

    def step(self) -> None:
        # at the change and between two of them
        for _ in range(2):
            self.moments.append(self.clock.now)
            self.clock.forward(DAY / 2)

    def trim(self, days: float) -> tuple[int, int]:
        """Return how many lines were over and how many are deleted."""
        pages = list(self.inventory.trim(
            self.clock.now - datetime.timedelta(days=days), page=2))
        return sum(p[0] for p in pages), sum(p[1] for p in pages)

    def told(self) -> list[object]:
        """Return the answers for each moment."""
        return [self.inventory.standing(address, when)
                for address in map(base.ip, ('10.0.0.10', '10.0.0.11'))
                for when in self.moments]

    def lines(self) -> int:
        return len(list(self.inventory.changes()))

    def test_what_is_kept_is_told_as_before(self) -> None:
        self.claim(7)
        for number in range(3):
            self.assertEqual('10.0.0.11', self.live(number))
        before, lines = self.told(), self.lines()
        half = len(self.moments)
        for days in (10.5, 8.0, 3.25, 0.0):
            kept = [n for n, when in enumerate(self.moments)
                    if when >= self.clock.now - datetime.timedelta(days)]
            over, deleted = self.trim(days)
            self.assertGreater(deleted, 0)
            self.assertEqual(over, deleted)
            lines -= deleted
            self.assertEqual(lines, self.lines())
            for first, n in itertools.product((0, half), kept):
                self.assertEqual(before[first + n], self.told()[first + n])
        # the present holder and who had the other one last
        self.assertEqual(['10.0.0.10', '10.0.0.11'],
                         [str(c.address) for c in self.inventory.changes()])
        self.assertEqual((0, 0), self.trim(0))

    def test_a_line_of_that_very_moment_is_the_one_that_stays(self) -> None:
        self.claim(1)
        self.step()
        self.inventory.activate(base.server_id(1), 'web', [base.mac(1)])
        self.assertEqual((1, 1), self.trim(0))
        self.assertEqual(['activate'], self.events('10.0.0.10'))

    def test_nothing_is_over(self) -> None:
        self.assertEqual((0, 0), self.trim(0))
        self.live(1)
        self.assertEqual((0, 0), self.trim(30))

    def test_each_pool_has_its_own(self) -> None:
        self.pool(name='other', subnet=base.SUBNET[:-1] + '2',
                  network=base.NETWORK[:-1] + '2')
        for subnet in (base.SUBNET, base.SUBNET[:-1] + '2'):
            self.claim(1, subnet=subnet)
            self.step()
        self.assertEqual((0, 0), self.trim(0))

    def test_rehearsal(self) -> None:
        self.live(1)
        lines = self.lines()
        over = sum(found for found, _ in self.inventory.rehearsal().trim(
            self.clock.now))
        self.assertEqual(3, over)
        self.assertEqual(lines, self.lines())

    def test_what_is_kept_costs_nothing(self) -> None:
        """Only what is old is looked at, and found by its time."""
        statements: list[str] = []
        self.live(1)
        engine = self.inventory.database.engine
        sa.event.listen(engine, 'before_cursor_execute', lambda *args: (
            statements.append(args[2])))
        for days, count in ((30, 1), (0, 3)):
            statements.clear()
            self.trim(days)
            looked = [s for s in statements if 'EXISTS' in s]
            self.assertEqual(count, len(looked))
        if engine.dialect.name == 'sqlite':
            with engine.connect() as connection:
                plan = connection.exec_driver_sql(
                    f'EXPLAIN QUERY PLAN {looked[0]}', (0,) * looked[
                        0].count('?')).all()
            self.assertIn('ix_history_at_id', str(plan))
            self.assertNotIn('SCAN', str(plan))


class TestMemory(base.TestCase):
    """``sticky`` in a pool that never runs out of new addresses."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(pools, 'CHUNK', 4)
        self.pool('2001:db8::10', '2001:db8::ffff:ffff', '2001:db8::/64',
                  allocator='sticky')
        self.number = 0

    def live(self, name: str | None = None) -> str:
        self.number += 1
        request = f'req-{self.number}'
        self.reserve(name or f'web-{self.number}', request=request)
        address = self.claim(self.number, request=request)
        self.inventory.release(self.row(address), '')
        self.finish(address)
        return address

    def forget(self, days: float = 2, rehearse: bool = False,
               ) -> tuple[int, int]:
        """Return how many were found and how many are forgotten."""
        inventory = (self.inventory.rehearsal() if rehearse
                     else self.inventory)
        pages = list(inventory.forget_names(
            self.clock.now - datetime.timedelta(days), page=3))
        return sum(p[0] for p in pages), sum(p[1] for p in pages)

    def test_no_row_for_each_server_ever_made(self) -> None:
        for _ in range(8):
            for _ in range(4):
                self.live()
            self.clock.forward(DAY)
            self.forget()
        # of three days and what comes next
        self.assertLessEqual(self.rows(), 20)

    def test_old_address_until_then(self) -> None:
        address = self.live('db')
        self.assertNotEqual(address, self.live('web'))
        self.clock.forward(1.9 * DAY)
        self.assertEqual((0, 0), self.forget())
        self.assertEqual(address, self.live('db'))
        self.clock.forward(2.1 * DAY)
        self.assertEqual(2, self.forget(rehearse=True)[0])
        self.assertEqual('db', self.row(address).former_name)
        self.assertEqual((2, 2), self.forget())
        self.assertEqual((0, 0), self.forget())
        self.assertIsNone(self.row(address).former_name)
        # as if nobody had had it
        self.assertEqual(address, self.live('other'))

    def test_who_has_it_keeps_it(self) -> None:
        self.reserve('db')
        address = self.claim()
        self.inventory.release(self.row(address), '')
        self.clock.forward(3 * DAY)
        self.assertEqual((0, 0), self.forget())
        self.finish(address)
        self.inventory.hold(records.Hold(
            'pool', base.ip(address), 'web', base.PROJECT))
        self.clock.forward(3 * DAY)
        self.assertEqual((0, 0), self.forget())

    def test_small_pools_and_others_keep_theirs(self) -> None:
        self.pool(name='small', network=base.NETWORK[:-1] + '2',
                  subnet=base.SUBNET[:-1] + '2', allocator='sticky')
        self.pool('2001:db8:1::1', '2001:db8:1::ffff:ffff',
                  '2001:db8:1::/64', name='low',
                  network=base.NETWORK[:-1] + '3',
                  subnet=base.SUBNET[:-1] + '3')
        for end in '23':
            address = self.claim(subnet=base.SUBNET[:-1] + end,
                                 request='', server=None)
            self.inventory.release(self.row(address), '')
            self.finish(address)
        self.clock.forward(3 * DAY)
        self.assertEqual((0, 0), self.forget())
