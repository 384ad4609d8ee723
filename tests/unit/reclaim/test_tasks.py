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

"""The periodic tasks."""

from typing import Any

from tests.unit import base
from tests.unit import fakes
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import records
from vmip_plugin.reclaim import tasks

State = base.State
A = '10.0.0.10'
NETWORK_2 = '11111111-0000-0000-0000-000000000002'
SUBNET_2 = '22222222-0000-0000-0000-000000000002'


class ReclaimerTestCase(base.TestCase):

    actor = 'vmip-reclaimer'

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.cloud = fakes.Cloud()
        self.driver = fakes.Server('a')
        self.reclaimer = tasks.Reclaimer(
            self.conf, self.inventory, work.Worker(
                self.conf, self.inventory, {'a': self.driver}, self.cloud,
                None), self.cloud)

    def ports(self, count: int) -> None:
        for number in range(count):
            self.cloud.add(number, self.claim(number))

    def check(self, seconds: float = 31) -> tasks.Findings:
        self.clock.forward(seconds)
        return self.reclaimer.check()

    def released(self) -> list[str]:
        return [str(a.address) for _, a in self.inventory.addresses(
            state=[State.RELEASING])]


class TestCheck(ReclaimerTestCase):

    def test_all_is_well(self) -> None:
        self.ports(3)
        for _ in range(3):
            self.assertEqual(tasks.Findings(checked=3), self.check())
        self.assertEqual([], self.released())

    def test_twice(self) -> None:
        self.ports(2)
        del self.cloud.known[base.port_id(0)]
        self.assertEqual(tasks.Findings(checked=2, missing=1), self.check())
        self.assertEqual(tasks.Findings(checked=2, missing=1),
                         self.check(29))
        self.assertEqual([], self.released())
        self.assertEqual(tasks.Findings(checked=2, missing=1, released=1),
                         self.check(1))
        self.assertEqual([A], self.released())
        self.assertEqual(tasks.Findings(checked=1), self.check())
        self.clock.forward(5)
        self.reclaimer.work()
        self.assertEqual(State.FREE, self.state(A))
        last = self.inventory.history(base.ip(A))[-2]
        self.assertEqual(('vmip-reclaimer', base.port_id(0)),
                         (last.actor, last.port_id))

    def test_seen_in_between(self) -> None:
        self.ports(1)
        self.cloud.unlisted.add(base.port_id(0))
        self.check()
        self.assertIsNotNone(self.row(A).gone_since)
        self.cloud.unlisted.clear()
        self.check()
        self.assertIsNone(self.row(A).gone_since)
        del self.cloud.known[base.port_id(0)]
        self.check()
        self.assertEqual([], self.released())

    def test_list_is_short_but_the_port_is_there(self) -> None:
        self.ports(2)
        self.cloud.unlisted.update(self.cloud.known)
        self.check()
        self.assertEqual(tasks.Findings(checked=2, missing=2, spared=2),
                         self.check())
        self.assertEqual([], self.released())

    def test_partial_list(self) -> None:
        self.ports(4)
        for number in (2, 3):
            del self.cloud.known[base.port_id(number)]
        self.check()
        for count in (0, 1, 2):
            self.cloud.breaks_after = count
            self.assertRaises(exceptions.CloudUnavailable, self.check)
            self.assertEqual([], self.released())
        self.cloud.breaks_after = None
        self.assertEqual(2, self.check().released)

    def test_partial_list_is_not_the_first_time_either(self) -> None:
        self.ports(2)
        self.cloud.breaks_after = 0
        self.assertRaises(exceptions.CloudUnavailable, self.check)
        self.assertIsNone(self.row(A).gone_since)

    def test_cloud_goes_away_before_the_last_question(self) -> None:
        self.ports(1)
        self.cloud.known.clear()
        self.check()

        def away(port_id: str) -> None:
            raise exceptions.CloudUnavailable('away')

        self.patch(self.cloud, 'port', away)
        self.assertRaises(exceptions.CloudUnavailable, self.check)
        self.assertEqual([], self.released())

    def test_cap(self) -> None:
        self.conf.set_override('max_releases', 2, 'reclaimer')
        self.ports(5)
        self.cloud.known.clear()
        self.check()
        found = [self.check() for _ in range(3)]
        self.assertEqual([2, 2, 1], [f.released for f in found])
        self.assertEqual([3, 1, 0], [f.spared for f in found])

    def test_dry_run(self) -> None:
        self.conf.set_override('dry_run', True, 'reclaimer')
        self.ports(1)
        self.cloud.known.clear()
        for _ in range(3):
            self.assertEqual(0, self.check().released)
        self.assertEqual(State.CLAIMED, self.state(A))
        self.assertIn(f'Would release {A}', self.log.output)

    def test_port_has_another_address(self) -> None:
        self.ports(1)
        self.cloud.add(0, '10.0.0.19')
        self.check()
        self.assertEqual(1, self.check().released)

    def test_overtaken(self) -> None:
        """Between list and release the address got another holder."""
        self.ports(1)
        self.cloud.known.clear()
        self.check()
        original = self.cloud.port

        def port(port_id: str) -> Any:
            self.inventory.change_mac(port_id, base.mac(77))
            return original(port_id)

        self.patch(self.cloud, 'port', port)
        self.assertEqual(0, self.check().released)
        self.assertEqual(State.CLAIMED, self.state(A))

    def test_what_is_claimed_meanwhile_is_not_missing(self) -> None:
        self.ports(1)
        original = self.cloud.ports

        def ports(**query: Any) -> Any:
            found = list(original(**query))
            self.claim(5)
            return found

        self.patch(self.cloud, 'ports', ports)
        self.assertEqual(tasks.Findings(checked=1), self.check())

    def test_only_ports_of_ours(self) -> None:
        self.reserve()
        self.inventory.hold('pool', base.ip('10.0.0.15'), 'x', None, None)
        self.assertEqual(tasks.Findings(), self.check())
        self.assertEqual(['credentials'], self.cloud.asked)

    def test_credentials_that_do_not_show_all(self) -> None:
        self.ports(2)
        self.cloud.blind = True
        del self.cloud.known[base.port_id(0)]
        for _ in range(3):
            self.assertRaises(exceptions.ConfigError, self.check)
        self.assertEqual([], self.released())

    def test_adopted(self) -> None:
        self.pool('10.1.0.10', '10.1.0.20', '10.1.0.0/24', name='two',
                  network=NETWORK_2, subnet=SUBNET_2, adopt=[
                      records.InUse(base.ip('10.1.0.10'), None, None,
                                    base.port_id(1), None),
                      records.InUse(base.ip('10.1.0.11'), None, None, None,
                                    None)])
        self.cloud.add(1, '10.1.0.10', '10.1.0.11', network=NETWORK_2)
        for _ in range(2):
            self.assertEqual(tasks.Findings(checked=2), self.check())
        self.cloud.known.clear()
        self.check()
        self.assertEqual(2, self.check().released)
        self.assertEqual(State.FREE, self.state('10.1.0.11'))

    def test_two_of_them(self) -> None:
        self.ports(1)
        self.cloud.known.clear()
        self.check()
        self.assertEqual(1, self.check().released)
        self.assertEqual(0, self.check(0).released)
        self.assertEqual(1, self.events(A).count('release'))


class TestWork(ReclaimerTestCase):

    def work(self, seconds: float) -> None:
        self.clock.forward(seconds)
        self.reclaimer.work()

    def test_does_what_the_listener_did_not(self) -> None:
        self.ports(1)
        self.work(5)
        self.assertEqual({A: base.mac(0)}, self.driver.served())

    def test_expiry(self) -> None:
        self.reserve()
        self.work(599)
        self.assertEqual(State.RESERVED, self.state(A))
        self.work(1)
        self.assertEqual(State.FREE, self.state(A))
        self.assertEqual([], self.cloud.asked)

    def test_expiry_of_a_server(self) -> None:
        self.inventory.bind(self.reserve(), base.server_id(1))
        self.cloud.servers[base.server_id(1)] = 'BUILD'
        for _ in range(3):
            self.work(600)
            self.assertEqual(State.RESERVED, self.state(A))
        self.cloud.away = True
        self.work(600)
        self.assertEqual(State.RESERVED, self.state(A))
        self.assertIn('is kept', self.log.output)
        self.cloud.away = False
        self.cloud.servers[base.server_id(1)] = 'ERROR'
        self.work(600)
        self.assertEqual(State.FREE, self.state(A))

    def test_expiry_of_a_server_that_is_gone(self) -> None:
        self.inventory.bind(self.reserve(), base.server_id(1))
        self.work(600)
        self.assertEqual(State.FREE, self.state(A))

    def test_one_that_is_kept_keeps_no_other(self) -> None:
        reserved = self.reserve('a', 'b')
        self.inventory.bind(reserved[:1], base.server_id(1))
        self.cloud.away = True
        self.work(600)
        self.assertEqual(State.RESERVED, self.state(A))
        self.assertEqual(State.FREE, self.state('10.0.0.11'))

    def test_quarantine(self) -> None:
        self.pool('10.1.0.10', '10.1.0.20', '10.1.0.0/24', name='two',
                  subnet=SUBNET_2, reuse_delay=60)
        self.claim(subnet=SUBNET_2, serve=False)
        self.inventory.release(self.row('10.1.0.10'), '')
        self.work(59)
        self.assertEqual(State.QUARANTINED, self.state('10.1.0.10'))
        self.work(1)
        self.assertEqual(State.FREE, self.state('10.1.0.10'))

    def test_a_drivers_bug_stops_nothing(self) -> None:
        self.ports(1)
        reserved = self.reserve('late')
        self.driver.error = ZeroDivisionError()
        self.work(600)
        self.assertEqual(State.FREE, self.state(str(reserved[0].address)))
