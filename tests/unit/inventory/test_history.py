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

"""A history of bounded length."""

import datetime
import itertools

from tests.unit import base

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
