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

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import ranges
from vmip_plugin.inventory import serving

ip = base.ip

WITHIN = ranges.Ranges([(ip('10.0.0.10'), ip('10.0.0.20'))])


class TestServing(base.TestCase):

    def test_of_address(self) -> None:
        servers = ['a=10.0.0.10-10.0.0.12', 'b=10.0.0.12/30', 'c',
                   'a=10.0.0.12-10.0.0.12']
        self.assertEqual(['a', 'b', 'c'], serving.names(servers))
        for last, expected in ((9, 'c'), (10, 'ac'), (12, 'abc'), (13, 'bc'),
                               (15, 'bc'), (16, 'c')):
            self.assertEqual([*expected], serving.of_address(
                servers, ip(f'10.0.0.{last}')), last)
        self.assertEqual([], serving.of_address([], ip('10.0.0.1')))

    def test_ipv6(self) -> None:
        servers = ['a=2001:db8::/65', 'b=2001:db8::8000:0:0:0-2001:db8::9000:'
                   '0:0:0']
        self.assertEqual(['a'], serving.of_address(servers, ip('2001:db8::')))
        self.assertEqual(['b'], serving.of_address(
            servers, ip('2001:db8::8fff:0:0:1')))

    def test_covered(self) -> None:
        for servers in ((), ('a',), ('a=10.0.0.0/24',), ('a', 'b=10.0.0.1-10.'
                        '0.0.1'), ('a=10.0.0.16/29', 'b=10.0.0.10-10.0.0.15')):
            serving.check(servers, WITHIN, '10.0.0.0/24')

    def test_refused(self) -> None:
        for servers, words in (
                (['a=10.0.0.16/29'], '10.0.0.10-10.0.0.15'),
                (['a=10.0.0.0/28', 'b=10.0.0.17-10.0.0.20'],
                 '10.0.0.16-10.0.0.16'),
                (['a='], 'NAME=FIRST-LAST'),
                (['a=10.0.0.1'], 'NAME=FIRST-LAST'),
                (['a=10.0.0.1/24'], 'host bits'),
                (['a=x-y'], 'NAME=FIRST-LAST'),
                (['a=10.0.0.0/16'], 'no addresses of 10.0.0.0/24'),
                (['a', 'b=2001:db8::/64'], 'no addresses of'),
                (['a=10.0.0.20-10.0.0.10'], 'no addresses of')):
            error = self.assertRaises(
                exceptions.VmipError, serving.check, servers, WITHIN,
                '10.0.0.0/24')
            self.assertIn(words, str(error))


class TestPool(base.TestCase):
    """A pool whose servers share its addresses."""

    def setUp(self) -> None:
        super().setUp()
        self.pool(dhcp_servers=['a=10.0.0.10-10.0.0.10',
                                'b=10.0.0.11-10.0.0.20'])

    def wanted(self) -> dict[str, set[str]]:
        """Return where each address is to be served."""
        found: dict[str, set[str]] = {}
        for entry in self.inventory.entries():
            if entry.present:
                found.setdefault(str(entry.address), set()).add(entry.server)
        return found

    def change(self, *servers: str) -> None:
        self.inventory.change_pool('pool', dhcp_servers=servers)

    def test_claim(self) -> None:
        for number in 1, 2, 3:
            self.claim(number, request='')
        self.assertEqual({'10.0.0.10': {'a'}, '10.0.0.11': {'b'},
                          '10.0.0.12': {'b'}}, self.wanted())

    def test_create_refused(self) -> None:
        error = self.assertRaises(
            exceptions.VmipError, self.pool, name='other',
            subnet=base.server_id(1), dhcp_servers=['a=10.0.0.0/28'])
        self.assertIn('10.0.0.16-10.0.0.20', str(error))
        self.assertEqual(1, len(list(self.inventory.pools())))

    def test_change(self) -> None:
        self.claim(1, request='')
        self.claim(2, request='')
        self.change('b=10.0.0.10-10.0.0.10', 'c=10.0.0.11-10.0.0.20', 'd')
        self.assertEqual({'10.0.0.10': {'b', 'd'}, '10.0.0.11': {'c', 'd'}},
                         self.wanted())
        self.assertEqual({('a', '10.0.0.10'), ('b', '10.0.0.11')}, {
            (entry.server, str(entry.address))
            for entry in self.inventory.entries() if not entry.present})

    def test_change_refused(self) -> None:
        """Of what is in no range any more, too; nothing is changed."""
        self.claim(1, request='')
        for values, words in (
                ({'ranges': [(ip('10.0.0.5'), ip('10.0.0.20'))]},
                 '10.0.0.5-10.0.0.9'),
                ({'dhcp_servers': ['b=10.0.0.11-10.0.0.20']},
                 '10.0.0.10-10.0.0.10'),
                ({'ranges': [(ip('10.0.0.11'), ip('10.0.0.20'))],
                  'dhcp_servers': ['b=10.0.0.11-10.0.0.20']},
                 '10.0.0.10, which is in use')):
            before = self.inventory.pool('pool'), self.wanted()
            error = self.assertRaises(
                exceptions.VmipError, self.inventory.change_pool, 'pool',
                **values)
            self.assertIn(words, str(error))
            self.assertEqual(before, (self.inventory.pool('pool'),
                                      self.wanted()))
