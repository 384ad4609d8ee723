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

"""Ranges: where an address stands in a pool."""

import ipaddress

from hypothesis import given
from hypothesis import strategies
import testtools

from vmip_plugin import exceptions
from vmip_plugin.inventory import ranges

BASE = int(ipaddress.ip_address('10.0.0.0'))
ip = ipaddress.ip_address


@strategies.composite
def runs(draw: strategies.DrawFn) -> list[ranges.Run]:
    """A few runs that do not meet, in any order."""
    ends = sorted(draw(strategies.sets(strategies.integers(0, 500),
                                       min_size=2, max_size=12)))
    found = [(ip(BASE + a), ip(BASE + b)) for a, b in
             zip(ends[::2], ends[1::2], strict=False)]
    return draw(strategies.permutations(found))


def every(found: list[ranges.Run]) -> list[int]:
    return sorted(n for first, last in found
                  for n in range(int(first), int(last) + 1))


class TestRanges(testtools.TestCase):

    @given(runs())
    def test_positions(self, found: list[ranges.Run]) -> None:
        within = ranges.Ranges(found)
        wanted = [ip(number) for number in every(found)]
        self.assertEqual(len(wanted), within.size)
        self.assertEqual(wanted, [within.at(n) for n in range(within.size)])
        self.assertEqual(list(range(within.size)),
                         [within.position(address) for address in wanted])
        for number in {BASE - 1, *range(BASE, BASE + 502)} - set(
                every(found)):
            self.assertIsNone(within.position(ip(number)))

    @given(runs(), runs())
    def test_without(self, found: list[ranges.Run],
                     excluded: list[ranges.Run]) -> None:
        left = ranges.Ranges(found).without(excluded)
        self.assertEqual(sorted(set(every(found)) - set(every(excluded))),
                         every(list(left.runs)))

    def test_other_version(self) -> None:
        within = ranges.Ranges([(ip('::1'), ip('::ff'))])
        self.assertIsNone(within.position(ip('0.0.0.5')))

    def test_none(self) -> None:
        self.assertEqual(0, ranges.Ranges([]).size)
        self.assertRaises(exceptions.VmipError, ranges.check,
                          ipaddress.ip_network('10.0.0.0/24'), [])

    def test_large(self) -> None:
        within = ranges.Ranges([(ip('2001:db8::1'),
                                 ip('2001:db8::ffff:ffff:ffff:ffff'))])
        self.assertEqual(2 ** 64 - 1, within.size)
        self.assertEqual(ip('2001:db8::ffff:ffff:ffff:ffff'),
                         within.at(within.size - 1))
