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

import dataclasses
import datetime
import threading
from typing import Any

from tests.unit import base
from tests.unit import fakes
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
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
        self.told: list[tasks.Finding] = []
        self.stop = threading.Event()
        self.reclaimer = self.new_reclaimer()

    def new_reclaimer(self, rehearse: bool = False) -> tasks.Reclaimer:
        return tasks.Reclaimer(
            self.conf, self.inventory, work.Worker(
                self.conf, self.inventory, {'a': self.driver}, self.cloud,
                None), self.cloud, rehearse=rehearse, tell=self.told.append,
            stop=self.stop)

    def said(self) -> list[tuple[str, str, str, str]]:
        """Return what was told since the last call of this."""
        told, self.told[:] = list(self.told), []
        return [(f.task, f.subject, f.action, f.outcome) for f in told]

    def ports(self, count: int) -> None:
        for number in range(count):
            self.cloud.add(number, self.claim(number))

    def check(self, seconds: float = 31) -> tuple[int, int, int]:
        """Return what was missing, released and spared."""
        self.clock.forward(seconds)
        missing = self.reclaimer.check_ports().found
        found = self.reclaimer.confirm()
        return missing, found.done, found.spared

    def released(self) -> list[str]:
        return [str(a.address) for _, a in self.found(
            state=[State.RELEASING])]


class TestCheck(ReclaimerTestCase):

    def test_all_is_well(self) -> None:
        self.ports(3)
        for _ in range(3):
            self.assertEqual((0, 0, 0), self.check())
        self.assertEqual([], self.released())

    def test_twice(self) -> None:
        self.ports(2)
        self.cloud.delete(0)
        self.assertEqual((1, 0, 0), self.check())
        self.assertEqual((1, 0, 0),
                         self.check(29))
        self.assertEqual([], self.released())
        self.assertEqual((1, 1, 0),
                         self.check(1))
        self.assertEqual([A], self.released())
        self.assertEqual((0, 0, 0), self.check())
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
        self.assertEqual((2, 0, 2),
                         self.check())
        self.assertEqual([], self.released())

    def test_partial_list(self) -> None:
        self.ports(4)
        for number in (2, 3):
            self.cloud.delete(number)
        self.check()
        for count in (0, 1, 2):
            self.cloud.breaks_after = count
            self.assertRaises(exceptions.CloudUnavailable, self.check)
            self.assertEqual([], self.released())
        self.cloud.breaks_after = None
        self.assertEqual(2, self.check()[1])

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
        self.cloud.delete_all()
        self.check()
        found = [self.check() for _ in range(3)]
        self.assertEqual([2, 2, 1], [f[1] for f in found])
        self.assertEqual([3, 1, 0], [f[2] for f in found])

    def test_dry_run(self) -> None:
        self.conf.set_override('dry_run', True, 'reclaimer')
        self.ports(1)
        self.cloud.delete_all()
        for _ in range(3):
            self.assertEqual((1, 0, 0), self.check())
        self.assertEqual(State.CLAIMED, self.state(A))
        self.assertIn(f'Would release {A}', self.log.output)
        self.conf.set_override('dry_run', False, 'reclaimer')
        self.check()
        self.conf.set_override('dry_run', True, 'reclaimer')
        for _ in range(3):
            self.assertEqual((1, 1, 0), self.check())
        self.assertEqual(State.CLAIMED, self.state(A))

    def test_port_has_another_address(self) -> None:
        self.ports(1)
        self.cloud.add(0, '10.0.0.19')
        self.check()
        self.assertEqual(1, self.check()[1])

    def test_change_that_nobody_told_of(self) -> None:
        self.ports(2)
        self.reclaimer.work()
        self.cloud.add(0, A, mac=base.mac(7), server=9)
        # its MAC and its server
        self.assertEqual((2, 0, 0), self.check())
        row = self.row(A)
        self.assertEqual((base.mac(7), base.server_id(9), State.CLAIMED),
                         (row.mac, row.server_id, row.state))
        self.reclaimer.work()
        self.assertEqual(base.mac(7), self.driver.served()[A])
        self.cloud.asked.clear()
        self.check()
        self.assertEqual(['claim', 'change', 'change'], self.events(A))
        self.assertNotIn(f'port {base.port_id(0)}', self.cloud.asked)

    def test_change_in_a_list_that_is_old(self) -> None:
        self.ports(1)
        new = self.cloud.known[base.port_id(0)]
        old = self.cloud.add(0, A, mac=base.mac(7))
        self.patch(self.cloud, 'port', lambda port_id: new)
        self.check()
        self.assertNotEqual(old.mac, self.row(A).mac)
        self.patch(self.cloud, 'port', lambda port_id: None)
        self.check()
        self.assertEqual(['claim'], self.events(A))

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
        self.assertEqual(0, self.check()[1])
        self.assertEqual(State.CLAIMED, self.state(A))

    def test_what_is_claimed_meanwhile_is_not_missing(self) -> None:
        self.ports(1)
        original = self.cloud.ports

        def ports(**query: Any) -> Any:
            found = list(original(**query))
            self.claim(5)
            return found

        self.patch(self.cloud, 'ports', ports)
        self.assertEqual((0, 0, 0), self.check())

    def test_only_ports_of_ours(self) -> None:
        self.reserve()
        self.hold('10.0.0.15', 'x')
        self.assertEqual((0, 0, 0), self.check())
        self.assertEqual({'credentials',
                          f"ports {{'network_id': '{base.NETWORK}'}}"},
                         set(self.cloud.asked))

    def test_credentials_that_do_not_show_all(self) -> None:
        self.ports(2)
        self.cloud.blind = True
        del self.cloud.known[base.port_id(0)]
        for _ in range(3):
            self.assertRaises(exceptions.CloudUnavailable, self.check)
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
            self.assertEqual((0, 0, 0), self.check())
        del self.cloud.known[base.port_id(1)]
        self.check()
        # Neutron does not even know the network
        self.assertEqual((2, 0, 2), self.check())
        self.assertEqual(State.ADOPTED, self.state('10.1.0.11'))
        self.cloud.networks.add(NETWORK_2)
        # nor shows any port that must be there
        self.assertEqual((2, 0, 2), self.check())
        self.ports(1)
        self.assertEqual((2, 2, 0), self.check())
        self.assertEqual(State.FREE, self.state('10.1.0.11'))

    def test_two_of_them(self) -> None:
        self.ports(1)
        self.cloud.delete_all()
        self.check()
        self.assertEqual(1, self.check()[1])
        self.assertEqual(0, self.check(0)[1])
        self.assertEqual(1, self.events(A).count('release'))


class TestWork(ReclaimerTestCase):

    def test_reuse_delay_is_over(self) -> None:
        self.inventory.change_pool('pool', reuse_delay=60)
        self.ports(2)
        for number in range(2):
            self.inventory.release_address(
                base.SUBNET, base.ip(A) + number, 'deleted',
                states.Evidence.COMMITTED)
        self.reclaimer.work()
        self.assertEqual(State.QUARANTINED, self.state(A))
        self.said()
        self.clock.forward(60)
        for rehearse, outcome, state in (
                (True, tasks.WOULD, State.QUARANTINED),
                (False, tasks.DONE, State.FREE)):
            found = self.new_reclaimer(rehearse).work()
            self.assertEqual((2, 2), (found.done, found.found))
            self.assertEqual([('work', '2 addresses', 'free', outcome)],
                             self.said())
            self.assertEqual(state, self.state(A))

    def work(self, seconds: float) -> None:
        self.clock.forward(seconds)
        self.reclaimer.work()
        self.reclaimer.expire()

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

    def test_server_is_gone_before_its_time(self) -> None:
        """Nova told nothing of its delete."""
        for status in (None, 'ERROR', 'DELETED'):
            self.inventory.bind(self.reserve(), base.server_id(1))
            self.clock.forward(29)
            self.assertEqual(0, self.reclaimer.check_reservations().done)
            self.assertEqual([], self.cloud.asked)
            self.clock.forward(2)
            for alive in ('BUILD', 'ACTIVE'):
                self.cloud.servers[base.server_id(1)] = alive
                self.assertEqual(0, self.reclaimer.check_reservations().done)
            if status is None:
                del self.cloud.servers[base.server_id(1)]
            else:
                self.cloud.servers[base.server_id(1)] = status
            self.conf.set_override('dry_run', True, 'reclaimer')
            self.assertEqual(1, self.reclaimer.check_reservations().done)
            self.assertEqual(State.RESERVED, self.state(A))
            self.conf.set_override('dry_run', False, 'reclaimer')
            self.assertEqual(1, self.reclaimer.check_reservations().done)
            self.assertEqual(State.FREE, self.state(A))
            self.cloud.asked.clear()

    def test_servers_that_are_no_ones_to_ask_about(self) -> None:
        self.reserve()
        self.hold('10.0.0.15')
        self.ports(1)
        self.clock.forward(599)
        self.assertEqual(0, self.reclaimer.check_reservations().done)
        self.assertEqual([], self.cloud.asked)

    def test_server_that_nova_never_made(self) -> None:
        """A delete right after the create leaves nothing in Nova at all."""
        self.inventory.bind(self.reserve('r'), base.server_id(7))
        self.clock.forward(60)
        self.cloud.forgetful = True
        self.assertEqual(1, self.reclaimer.check_reservations().done)
        self.assertEqual(State.FREE, self.state(A))

    def test_nova_that_knows_none_of_ours(self) -> None:
        """It may be another region's."""
        address = self.claim(1)
        self.inventory.bind(self.reserve('r'), base.server_id(7))
        self.clock.forward(60)
        self.cloud.forgetful = True
        self.assertEqual(0, self.reclaimer.check_reservations().done)
        self.cloud.add(1, address)
        self.assertEqual(1, self.reclaimer.check_reservations().done)

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


class TestDeletes(ReclaimerTestCase):
    """What Nova says was deleted since the last look."""

    def look(self, seconds: float = 31) -> list[str]:
        """Return the addresses that are released."""
        self.clock.forward(seconds)
        for name in ('deletes', 'confirm'):
            self.assertIsNone(self.run_task(name).error)
        return self.released()

    def run_task(self, name: str) -> records.Run:
        task, = (t for t in self.reclaimer.tasks() if t.name == name)
        return self.reclaimer.run(task)

    def test_deleted(self) -> None:
        self.ports(3)
        self.assertEqual([], self.look())
        self.cloud.delete(1)
        self.assertEqual([], self.look())
        self.assertEqual(
            [('deletes', '10.0.0.11', 'release', tasks.NOTED)], self.said())
        self.assertEqual(['10.0.0.11'], self.look())
        self.assertEqual(
            [('confirm', '10.0.0.11', 'release', tasks.DONE)], self.said())

    def test_only_what_is_new(self) -> None:
        self.ports(1)
        for seconds in (0, 3000, 60):
            self.look(seconds)
        asked = [a for a in self.cloud.asked if a.startswith('deleted')]
        now = self.clock.now
        hour, minute = (datetime.timedelta(hours=1),
                        datetime.timedelta(minutes=1))
        self.assertEqual(
            [f'deleted since {when:%H:%M:%S}' for when in (
                now - hour - 56 * minute, now - 56 * minute,
                now - 6 * minute)], asked)

    def test_a_look_that_failed_is_made_up_for(self) -> None:
        self.ports(1)
        self.look()
        self.cloud.delete(0)
        self.cloud.away = True
        for _ in range(3):
            self.clock.forward(1000)
            self.assertEqual('the cloud is away',
                             self.run_task('deletes').error)
        self.cloud.away = False
        self.look()
        self.assertEqual([A], self.look())

    def test_port_was_kept(self) -> None:
        """Made by a user, it outlives the server that had it."""
        self.ports(1)
        port = self.cloud.known[base.port_id(0)]
        self.cloud.delete(0)
        self.cloud.known[port.id] = port
        self.assertEqual([], self.look())
        self.assertEqual([('deletes', A, 'release', tasks.SPARED)],
                         self.said())
        self.assertIsNone(self.row(A).gone_since)
        self.cloud.known[port.id] = dataclasses.replace(
            port, device_id='', device_owner='')
        self.assertEqual([], self.look())
        self.assertEqual([('deletes', A, 'follow', tasks.DONE)], self.said())
        self.assertIsNone(self.row(A).server_id)

    def test_port_has_another_address(self) -> None:
        self.ports(1)
        self.cloud.delete(0)
        self.cloud.add(0, '10.0.0.19')
        self.look()
        self.assertEqual([A], self.look())

    def test_credentials_that_do_not_show_all(self) -> None:
        self.ports(1)
        self.cloud.delete(0)
        self.cloud.blind = True
        for name in ('deletes', 'servers', 'ports'):
            self.assertIn('admin', self.run_task(name).error or '')
        self.assertIsNone(self.row(A).gone_since)
        # what was missing before is not released either
        self.cloud.blind = False
        self.clock.forward(1)
        self.run_task('ports')
        self.assertIsNotNone(self.row(A).gone_since)
        self.clock.forward(self.conf.reclaimer.confirm_delay + 1)
        self.cloud.blind = True
        self.run_task('confirm')
        self.assertEqual('claimed', self.row(A).state)


class TestServers(ReclaimerTestCase):
    """All of Nova's servers beside the list."""

    def test_all_is_well(self) -> None:
        self.ports(3)
        self.assertEqual(tasks.Findings(), self.reclaimer.check_servers())
        self.clock.forward(1)
        self.assertEqual(tasks.Findings(checked=3),
                         self.reclaimer.check_servers())
        self.assertNotIn(f'server {base.server_id(0)}', self.cloud.asked)

    def test_gone(self) -> None:
        self.ports(3)
        self.cloud.delete(1)
        self.clock.forward(31)
        self.assertEqual(tasks.Findings(checked=3, found=1),
                         self.reclaimer.check_servers())
        self.clock.forward(31)
        self.reclaimer.confirm()
        self.assertEqual(['10.0.0.11'], self.released())

    def test_port_without_server(self) -> None:
        self.ports(2)
        del self.cloud.servers[base.server_id(0)]
        self.clock.forward(31)
        for _ in range(2):
            self.assertEqual(tasks.Findings(checked=2, found=1, spared=1),
                             self.reclaimer.check_servers())
        self.assertIn(f'has port {base.port_id(0)}: delete it',
                      self.told[-1].reason)
        self.assertIsNone(self.row(A).gone_since)

    def test_its_cell_is_down(self) -> None:
        self.ports(2)
        self.cloud.unlisted.add(base.server_id(0))
        self.cloud.known.clear()
        for _ in range(3):
            self.clock.forward(31)
            self.reclaimer.check_servers()
            self.reclaimer.confirm()
        self.assertEqual([], self.released())

    def test_partial_list(self) -> None:
        self.ports(3)
        self.cloud.servers.clear()
        self.cloud.known.clear()
        self.clock.forward(31)
        for count in (0, 1):
            self.cloud.breaks_after = count
            self.assertRaises(exceptions.CloudUnavailable,
                              self.reclaimer.check_servers)
        self.assertEqual([], [h for _, h in self.found() if h.gone_since])

    def test_cap(self) -> None:
        self.conf.set_override('max_releases', 2, 'reclaimer')
        self.ports(5)
        self.cloud.servers.clear()
        self.clock.forward(31)
        self.assertEqual(2, self.reclaimer.check_servers().spared)


class TestRun(ReclaimerTestCase):

    def run_all(self) -> dict[str, records.Run]:
        return {task.name: self.reclaimer.run(task)
                for task in self.reclaimer.tasks()}

    def test_written_down(self) -> None:
        self.ports(2)
        self.cloud.known.clear()
        self.clock.forward(31)
        self.run_all()
        runs = {run.name: run for run in self.inventory.runs()}
        self.assertEqual(
            {'confirm', 'deletes', 'expiry', 'history', 'mend', 'ports',
             'reservations', 'servers', 'work'}, set(runs))
        self.assertEqual((2, 2, 0), (runs['ports'].checked,
                                     runs['ports'].found,
                                     runs['ports'].done))
        self.assertEqual(tasks.this_process(), runs['ports'].host)
        self.cloud.away = True
        self.clock.forward(31)
        self.run_all()
        runs = {run.name: run for run in self.inventory.runs()}
        self.assertEqual('the cloud is away', runs['ports'].error)
        self.assertIsNone(runs['mend'].error)

    def test_what_is_no_news_is_not_written_down(self) -> None:
        task, = (t for t in self.reclaimer.tasks() if t.name == 'work')
        started = set()
        for _ in range(25):
            self.clock.forward(1)
            self.reclaimer.run(task)
            started.add(self.inventory.runs()[0].started_at)
        self.assertEqual(3, len(started))
        self.ports(1)
        self.clock.forward(5)
        self.assertEqual(1, self.reclaimer.run(task).done)
        self.assertEqual(1, self.inventory.runs()[0].done)

    def test_a_bug_stops_nothing(self) -> None:
        self.patch(self.cloud, 'deleted_servers', lambda since: 1 / 0)
        runs = self.run_all()
        self.assertEqual('ZeroDivisionError: see the log',
                         runs['deletes'].error)
        self.assertIsNone(runs['ports'].error)

    def test_list_is_away(self) -> None:
        self.inventory.database.engine.dispose()
        self.conf.set_override('connection', 'sqlite:////nowhere/at/all',
                               'database')
        self.inventory = api.Inventory(self.conf, 'x')
        self.reclaimer = self.new_reclaimer()
        for run in self.run_all().values():
            if run.name != 'history':
                self.assertIn('database cannot be used', run.error or '')

    def test_stopped(self) -> None:
        self.ports(2)
        self.cloud.known.clear()
        self.clock.forward(31)
        self.stop.set()
        self.assertEqual('it was stopped', self.run_all()['ports'].error)
        self.assertIsNone(self.row(A).gone_since)

    def test_history(self) -> None:
        self.ports(1)
        self.clock.forward(86400)
        self.inventory.release(self.row(A), '')
        self.clock.forward(86400 * 3)
        self.assertEqual(90, self.conf.reclaimer.history_days)
        self.assertEqual(0, self.reclaimer.trim().found)
        self.conf.set_override('history_days', 4, 'reclaimer')
        self.assertEqual(0, self.reclaimer.trim().found)
        self.conf.set_override('history_days', 2, 'reclaimer')
        self.assertEqual(1, self.new_reclaimer(True).trim().found)
        self.assertEqual(tasks.Findings(found=1, done=1),
                         self.reclaimer.trim())
        self.assertEqual(['release'], self.events(A))
        self.assertEqual(tasks.Findings(), self.reclaimer.trim())
        self.conf.set_override('history_days', 0, 'reclaimer')
        self.clock.forward(86400 * 1000)
        self.assertEqual(tasks.Findings(), self.reclaimer.trim())

    def test_memory_of_large_pools(self) -> None:
        self.pool('2001:db8::10', '2001:db8::ffff:ffff', '2001:db8::/64',
                  name='six', subnet=base.SUBNET[:-1] + '6',
                  allocator='sticky')
        self.claim(5, subnet=base.SUBNET[:-1] + '6')
        self.inventory.release(self.row('2001:db8::10'), '')
        self.finish('2001:db8::10')
        self.said()
        self.clock.forward(86400 * 29)
        self.assertEqual(0, self.reclaimer.trim().found)
        self.clock.forward(86400 * 2)
        self.assertEqual(1, self.new_reclaimer(True).trim().found)
        self.assertEqual(tasks.Findings(found=1, done=1),
                         self.reclaimer.trim())
        self.assertEqual(0, self.reclaimer.trim().found)


class TestDryRun(ReclaimerTestCase):
    """[reclaimer] dry_run stops what the tasks find out by comparing."""

    def test_what_it_stops_and_what_goes_on(self) -> None:
        self.conf.set_override('history_days', 1, 'reclaimer')
        self.ports(4)
        self.clock.forward(5)
        self.reclaimer.work()
        self.inventory.bind(self.reserve('r'), base.server_id(77))
        self.clock.forward(86400 * 2)
        self.inventory.activate(base.server_id(3), 'x', [base.mac(3)])
        self.check()
        self.cloud.delete(0)
        lost, stray = base.ip('10.0.0.13'), base.ip('10.0.0.19')
        del self.driver.have[lost]
        self.driver.have[stray] = dhcp.HostEntry(base.mac(9), stray)
        self.conf.set_override('dry_run', True, 'reclaimer')
        changes = len(list(self.inventory.changes()))
        served = dict(self.driver.have)
        for task in self.reclaimer.tasks():
            if task.name not in ('work', 'expiry'):
                self.assertIsNone(self.reclaimer.run(task).error)
        self.assertEqual(changes, len(list(self.inventory.changes())))
        self.assertEqual(served, self.driver.have)
        self.assertEqual(set(), {row.gone_since for _, row in self.found()
                                 } - {None})
        # what the inventory was told
        self.claim(9, request='req-9')
        self.clock.forward(6)
        self.reclaimer.work()
        self.assertEqual(len(served) + 1, len(self.driver.have))


class TestRehearsal(ReclaimerTestCase):
    """Nothing is changed, and everything is told."""

    def test_nothing_changes(self) -> None:
        self.conf.set_override('history_days', 1, 'reclaimer')
        self.ports(4)
        self.clock.forward(5)
        self.reclaimer.work()
        self.inventory.bind(self.reserve('r'), base.server_id(77))
        self.clock.forward(86400 * 2)
        self.inventory.activate(base.server_id(3), 'x', [base.mac(3)])
        self.cloud.delete(0)
        del self.cloud.known[base.port_id(1)]
        self.check()
        self.cloud.known[base.port_id(2)] = dataclasses.replace(
            self.cloud.known[base.port_id(2)], mac=base.mac(99))
        self.reserve('s', ttl=-1)
        del self.driver.have[base.ip('10.0.0.13')]
        self.driver.have[base.ip('10.0.0.19')] = dhcp.HostEntry(
            base.mac(9), base.ip('10.0.0.19'))
        self.clock.forward(31)
        self.said()
        before = self.state_of_all()
        self.reclaimer = self.new_reclaimer(rehearse=True)
        for task in self.reclaimer.tasks():
            self.assertIsNone(self.reclaimer.run(task).error)
        self.assertEqual(before, self.state_of_all())
        self.assertEqual({
            ('reservations', '10.0.0.14', 'give up', tasks.WOULD),
            ('ports', '10.0.0.12', 'follow', tasks.WOULD),
            ('confirm', '10.0.0.10', 'release', tasks.WOULD),
            # Nova still has its server
            ('confirm', '10.0.0.11', 'release', tasks.SPARED),
            ('mend', '10.0.0.13', 'write', tasks.WOULD),
            ('mend', '10.0.0.19', 'remove', tasks.WOULD),
            ('expiry', '10.0.0.14', 'give up', tasks.WOULD),
            ('expiry', '10.0.0.15', 'give up', tasks.WOULD),
            ('history', '1 lines', 'forget', tasks.WOULD)},
            set(self.said()))

    def state_of_all(self) -> object:
        return (self.found(state=list(State)), self.entries(),
                list(self.inventory.changes()), self.inventory.runs(),
                dict(self.driver.have), len(self.driver.calls))
