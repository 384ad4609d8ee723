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

"""The worker that brings DHCP servers to what the list wants."""

import collections
from collections.abc import Sequence
import datetime
import threading
from typing import Any

import oslo_messaging

from tests import lab
from tests.unit import base
from tests.unit import fakes
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin.dhcp import breaker
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

ip = base.ip
State = base.State
Evidence = states.Evidence
WaitingFor = states.WaitingFor
A = '10.0.0.10'
B = '10.0.0.11'


class WorkerTestCase(base.TestCase):

    servers = ('a',)

    def setUp(self) -> None:
        super().setUp()
        self.pool(dhcp_servers=list(self.servers))
        self.cloud = fakes.Cloud()
        self.drivers = {name: fakes.Server(name) for name in self.servers}
        self.driver = self.drivers['a']
        self.agents = fakes.Agents()
        self.worker = work.Worker(self.conf, self.inventory, self.drivers,
                                  self.cloud, self.agents)

    def port(self, number: int = 1) -> str:
        """Make a port in Neutron; return its address."""
        address = self.claim(number, request=f'req-{number}')
        self.cloud.add(number, address)
        return address

    def serve(self, number: int = 1) -> str:
        """Make a port, and what is to do for it; return its address."""
        address = self.port(number)
        self.assertEqual(1, self.worker.run([base.port_id(number)]))
        return address

    def delete(self, number: int = 1) -> None:
        """Delete a port as Neutron does."""
        for _, address in self.cloud.known.pop(base.port_id(number)
                                               ).addresses:
            self.inventory.release_address(base.SUBNET, address, 'deleted')

    def error(self, address: str, server: str = 'a') -> str:
        entry, = (e for e in self.inventory.entries()
                  if (e.server, str(e.address)) == (server, address))
        return entry.error or ''

    def wait(self, seconds: float = 600) -> int:
        self.clock.forward(seconds)
        return self.worker.run()


class TestWorker(WorkerTestCase):

    def test_put_and_remove(self) -> None:
        self.assertEqual(A, self.serve())
        self.assertEqual({A: base.mac(1)}, self.driver.served())
        self.assertEqual(0, self.wait())
        self.delete()
        self.assertEqual(0, self.worker.run())
        self.assertEqual(1, self.wait(3))
        self.assertEqual({}, self.driver.served())
        self.assertEqual(State.FREE, self.state(A))
        self.assertEqual([('put', A), ('remove', A)], self.driver.calls)

    def test_removal_is_overtaken_by_its_own_port(self) -> None:
        """Its address was changed, and changed back meanwhile."""
        self.serve()
        self.inventory.release_address(base.SUBNET, ip(A), 'changed')
        original = self.driver.remove

        def remove(entries: Any) -> Any:
            self.driver.remove = original  # type: ignore[method-assign]
            self.claim(1, request='req-2', address=ip(A))
            self.worker.run([base.port_id(1)], put_only=True)
            return original(entries)

        self.cloud.known.clear()
        self.driver.remove = remove  # type: ignore[method-assign]
        self.wait(3)
        self.assertEqual({}, self.driver.served())
        self.wait(0)
        self.assertEqual({A: base.mac(1)}, self.driver.served())

    def test_ports_are_done_due_or_not(self) -> None:
        self.port(1)
        self.port(2)
        self.assertEqual(1, self.worker.run([base.port_id(2)]))
        self.assertEqual([('put', B)], self.driver.calls)
        self.assertEqual(0, self.worker.run())
        self.assertEqual(1, self.wait(5))

    def test_put_only(self) -> None:
        """What has to go stays, and Neutron is asked nothing."""
        self.serve()
        self.inventory.release_address(base.SUBNET, ip(A), 'changed')
        self.assertEqual(B, self.claim(1, server=None))
        self.assertEqual(1, self.worker.run([base.port_id(1)],
                                            put_only=True))
        self.assertEqual([('put', A), ('put', B)], self.driver.calls)
        self.assertEqual([], self.cloud.asked)

    def test_who_needs_an_entry_is_first(self) -> None:
        self.serve(1)
        self.port(2)
        self.delete(1)
        self.worker.run([base.port_id(1), base.port_id(2)])
        self.assertEqual([('put', A), ('put', B), ('remove', A)],
                         self.driver.calls)

    def test_one_fails(self) -> None:
        self.port(1)
        self.port(2)
        self.driver.failing[A] = 'no room'
        self.assertEqual(1, self.wait())
        self.assertEqual({B: base.mac(2)}, self.driver.served())
        self.assertEqual('no room', self.error(A))
        self.driver.failing.clear()
        self.assertEqual(1, self.wait())
        self.assertEqual('', self.error(A))

    def test_remove_fails(self) -> None:
        self.serve()
        self.delete()
        self.driver.failing[A] = 'busy'
        self.assertEqual(0, self.wait())
        self.assertEqual(State.RELEASING, self.state(A))
        self.assertEqual('busy', self.error(A))
        self.driver.failing.clear()
        self.wait()
        self.assertEqual(State.FREE, self.state(A))

    def test_without_lease_list(self) -> None:
        self.driver.capabilities = dhcp.Capability(0)
        self.driver.lease(A, base.mac(1))
        self.serve()
        self.delete()
        self.wait()
        self.assertEqual(State.FREE, self.state(A))

    def test_back_off(self) -> None:
        self.port()
        self.driver.failing[A] = 'no room'
        self.clock.forward(5)
        delays = []
        for _ in range(12):
            self.assertEqual(0, self.worker.run())
            entry, = self.inventory.entries()
            delays.append(
                (entry.next_try_at - self.clock.now).total_seconds())
            self.clock.now = entry.next_try_at
        self.assertEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300],
                         delays)

    def test_overtaken_by_a_release(self) -> None:
        """Listener and reclaimer: one puts what the other has removed."""
        self.port()
        late = work.Worker(self.conf, self.inventory, self.drivers,
                           self.cloud, None)

        def meanwhile() -> None:
            self.delete()
            self.assertEqual(1, self.wait(3))
            self.assertEqual({}, self.driver.served())
            # and now the late one's write comes through
            self.driver.have[ip(A)] = dhcp.HostEntry(base.mac(1), ip(A))

        self.driver.meanwhile = meanwhile
        late.run([base.port_id(1)])
        self.assertEqual({}, self.driver.served())
        self.assertEqual(State.FREE, self.state(A))

    def test_overtaken_while_the_release_is_still_to_do(self) -> None:
        self.port()
        self.driver.meanwhile = self.delete
        self.worker.run([base.port_id(1)])
        self.assertEqual({}, self.driver.served())
        self.assertEqual(State.RELEASING, self.state(A))
        self.wait()
        self.assertEqual(State.FREE, self.state(A))

    def test_overtaken_by_the_next_holder(self) -> None:
        self.port()

        def meanwhile() -> None:
            self.delete()
            self.wait(3)
            self.assertEqual(A, self.serve(2))
            self.driver.have[ip(A)] = dhcp.HostEntry(base.mac(1), ip(A))

        self.driver.meanwhile = meanwhile
        self.worker.run([base.port_id(1)])
        self.wait()
        self.assertEqual({A: base.mac(2)}, self.driver.served())

    def test_overtaken_beside_who_removes(self) -> None:
        """Two listeners: the delete comes to the one, the create was late."""
        self.port()
        put, removed = threading.Event(), threading.Event()
        late = threading.Thread(
            target=self.worker.run, args=[[base.port_id(1)]])

        def wait() -> None:
            put.set()
            removed.wait(60)

        def undo() -> None:
            removed.set()
            late.join(60)

        self.driver.meanwhile = wait
        late.start()
        self.addCleanup(late.join)
        self.assertTrue(put.wait(60))
        self.delete()
        self.driver.meanwhile = undo
        other = work.Worker(self.conf, self.inventory, self.drivers,
                            self.cloud, None)
        self.assertEqual(1, other.run([base.port_id(1)]))
        self.assertFalse(late.is_alive())
        self.assertEqual({}, self.driver.served())
        self.assertEqual(State.FREE, self.state(A))

    def test_killed_after_the_write(self) -> None:
        self.port()
        for _ in range(2):
            self.driver.error = None

            def kill() -> None:
                raise KeyboardInterrupt

            self.driver.meanwhile = kill
            self.assertRaises(KeyboardInterrupt, self.wait)
            self.assertEqual({A: base.mac(1)}, self.driver.served())
        self.assertEqual(1, self.wait())
        self.delete()
        self.driver.meanwhile = kill
        self.assertRaises(KeyboardInterrupt, self.wait)
        self.assertEqual(State.RELEASING, self.state(A))
        self.assertEqual(1, self.wait())
        self.assertEqual(State.FREE, self.state(A))


class TestServers(WorkerTestCase):

    servers = ('a', 'b', 'c')

    def broken(self, error: Exception, number: int = 1) -> None:
        address = self.port(number)
        self.driver.error = error
        self.assertEqual(2 * number, self.wait())
        self.assertEqual({}, self.driver.served())
        self.assertEqual([base.mac(number)] * 2, [
            self.drivers[name].served()[address] for name in 'bc'])

    def test_unavailable(self) -> None:
        self.broken(exceptions.DHCPServerUnavailable('away'))
        self.assertEqual('away', self.error(A))
        self.driver.error = None
        self.assertEqual(1, self.wait())
        self.assertEqual({A: base.mac(1)}, self.driver.served())

    def test_a_drivers_bug(self) -> None:
        self.broken(ZeroDivisionError('secret'))
        self.assertIn('ZeroDivisionError', self.error(A))
        self.assertNotIn('secret', self.error(A))
        self.assertIn('Traceback', self.log.output)

    def test_list_is_away(self) -> None:
        self.port()
        self.driver.error = exceptions.InventoryUnavailable('away')
        self.assertRaises(exceptions.InventoryUnavailable, self.wait)

    def test_not_configured(self) -> None:
        self.port()
        del self.drivers['b']
        self.assertEqual(2, self.wait())
        self.assertEqual('[dhcp] servers does not name b',
                         self.error(A, 'b'))

    def test_freed_when_the_last_has_done_it(self) -> None:
        self.port()
        self.wait()
        self.delete()
        self.drivers['c'].error = exceptions.DHCPServerUnavailable('away')
        self.wait()
        self.assertEqual(State.RELEASING, self.state(A))
        self.drivers['c'].error = None
        self.wait()
        self.assertEqual(State.FREE, self.state(A))


    def test_a_slow_one_holds_up_nobody(self) -> None:
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)
        tries = []
        original = self.driver.put

        def put(entries: Sequence[dhcp.HostEntry]) -> dhcp.Failures:
            tries.append(len(entries))
            goes_on.wait(60)
            return original(entries)

        self.patch(self.driver, 'put', put)
        self.port(1)
        self.clock.forward(600)
        self.assertEqual(2, self.worker.run(patience=1))
        self.port(2)
        self.clock.forward(600)
        self.assertEqual(2, self.worker.run(patience=1))
        self.port(3)
        self.assertEqual(2, self.worker.run([base.port_id(3)], patience=1))
        for name in 'bc':
            self.assertEqual(3, len(self.drivers[name].served()))
        # it is asked once more for the third only, which does not wait
        self.assertEqual([1, 1], tries)
        goes_on.set()
        lab.wait_for(lambda: self.worker.run() == 1)
        self.assertEqual(3, len(self.driver.served()))

    def test_much_for_one_holds_up_nobody(self) -> None:
        """What is due longest is all for a server that is away."""
        self.patch(work, 'BATCH', 2)
        for number in range(1, 8):
            self.port(number)
        self.driver.error = exceptions.DHCPServerUnavailable('away')
        self.assertEqual(14, self.wait())
        self.assertEqual(7, len(self.drivers['b'].served()))
        # it was asked once, and the rest can wait
        self.assertEqual(
            {WaitingFor.DHCP_SERVER: 2, None: 5}, collections.Counter(
                e.waiting_for for e in self.inventory.entries()
                if e.server == 'a'))
        self.driver.error = None
        self.assertEqual(7, self.wait())

    def test_away_is_told_once(self) -> None:
        for number in range(1, 8):
            self.port(number)
        self.broken(exceptions.DHCPServerUnavailable('away'), 8)
        self.assertEqual(1, self.log.output.count('away'))
        self.assertEqual({'away'}, {
            e.error for e in self.inventory.entries() if e.server == 'a'})


class TestSift(WorkerTestCase):
    """One entry that a driver trips over holds up no other."""

    def setUp(self) -> None:
        super().setUp()
        self.bad: set[str] = set()
        self.error_is: Exception = ZeroDivisionError('secret')
        self.calls = 0
        for name in 'put', 'remove':
            self.patch(self.driver, name,
                       self.tripping(getattr(self.driver, name)))

    def tripping(self, call: Any) -> Any:
        def over(entries: Sequence[dhcp.HostEntry]) -> dhcp.Failures:
            self.calls += 1
            if self.bad.intersection(str(e.address) for e in entries):
                raise self.error_is
            found: dhcp.Failures = call(entries)
            return found

        return over

    def test_put_and_remove(self) -> None:
        for error, says in ((ZeroDivisionError('secret'),
                             'ZeroDivisionError: see the log'),
                            (exceptions.DHCPError('too long'), 'too long')):
            self.error_is = error
            addresses = [self.port(number) for number in range(1, 9)]
            self.bad = {addresses[2], addresses[7]}
            self.assertEqual(6, self.wait())
            self.assertEqual(set(addresses) - self.bad,
                             set(self.driver.served()))
            for address in self.bad:
                self.assertEqual(says, self.error(address))
            self.bad.clear()
            self.assertEqual(2, self.wait())
            for number in range(1, 9):
                self.delete(number)
            self.bad = {addresses[0]}
            self.assertEqual(7, self.wait())
            self.assertEqual(self.bad, set(self.driver.served()))
            self.bad.clear()
            self.assertEqual(1, self.wait())

    def test_a_server_that_is_away_is_asked_once(self) -> None:
        self.bad = {self.port(1)}
        self.port(2)
        self.error_is = exceptions.DHCPServerUnavailable('away')
        self.assertEqual(0, self.wait())
        self.assertEqual(1, self.calls)

    def test_does_not_go_on_for_ever(self) -> None:
        self.patch(work, 'SIFT', 4)
        self.bad = {self.port(number) for number in range(1, 12)}
        self.assertEqual(0, self.wait())
        self.assertLess(self.calls, 11)
        self.assertEqual(11, len(self.inventory.entries(pending=True)))


class TestWithdrawn(WorkerTestCase):
    """A holder stays, and one of its servers does not."""

    servers = ('a', 'b')

    def setUp(self) -> None:
        super().setUp()
        self.port()
        self.assertEqual(2, self.wait())
        # a guest that runs
        for driver in self.drivers.values():
            driver.capabilities |= dhcp.Capability.LEASE_RELEASE
            driver.lease(A, base.mac(1))

    def leases(self) -> list[int]:
        return [len(driver.leased) for driver in self.drivers.values()]

    def change(self, *servers: str) -> None:
        self.inventory.change_pool('pool', dhcp_servers=servers)

    def served(self) -> list[bool]:
        return [A in driver.served() for driver in self.drivers.values()]

    def test_removed(self) -> None:
        """Neutron has nothing to say about it, and the lease stays."""
        self.cloud.away = True
        self.change('b')
        self.wait()
        self.wait()
        self.assertEqual([False, True], self.served())
        self.assertEqual(['b'], [e.server for e in self.inventory.entries()])
        self.assertEqual(State.CLAIMED, self.state(A))
        self.assertEqual([], self.cloud.asked)
        self.assertEqual([1, 1], self.leases())
        self.assertEqual([], self.agents.hints)

    def test_not_before_the_other_has_it(self) -> None:
        self.change('b')
        self.drivers['b'].error = exceptions.DHCPServerUnavailable('away')
        for _ in range(3):
            self.wait()
        error, = self.worker.sync('a').values()
        self.assertIn('another server has to have it first', error)
        self.assertEqual([True, True], self.served())
        self.drivers['b'].error = None
        self.wait()
        self.wait()
        self.assertEqual([False, True], self.served())

    def test_deleted_meanwhile(self) -> None:
        """Now entry and lease have to go everywhere."""
        self.change('b')
        work_, = self.inventory.work(server='b')
        self.inventory.work_done(work_)
        stale, = self.inventory.work(server='a')
        self.assertTrue(stale.withdrawn)
        self.delete()
        self.assertFalse(self.inventory.work_done(stale))
        self.assertEqual(State.RELEASING, self.state(A))
        self.assertEqual([False, False], [
            w.withdrawn for w in self.inventory.work(
                port_ids=[base.port_id(1)])])
        self.wait()
        self.assertEqual([False, False], self.served())
        self.assertEqual([0, 0], self.leases())
        self.assertEqual(State.FREE, self.state(A))

    def test_of_a_former_holder(self) -> None:
        """Neutron has the address as another port's than the list has."""
        self.inventory.change_pool('pool', adopt=[records.InUse(
            ip(A), base.PROJECT, base.server_id(9), base.port_id(9),
            base.mac(9), generation=self.row(A).generation)])
        self.cloud.known.clear()
        self.cloud.add(9, A)
        self.wait()
        self.assertEqual([False, False], self.served())
        self.assertEqual(State.ADOPTED, self.state(A))
        self.assertEqual([0, 0], self.leases())


class TestNeutron(WorkerTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.serve()
        self.driver.calls.clear()

    def release(self) -> None:
        self.inventory.release(self.row(A), 'told so')

    def test_still_has_the_port(self) -> None:
        self.release()
        for _ in range(5):
            self.assertEqual(0, self.wait(work.KEEP_AFTER / 5))
            self.assertEqual(State.RELEASING, self.state(A))
            self.assertIn('still has the port', self.error(A))
        self.wait(work.KEEP_AFTER / 5)
        self.assertEqual(State.CLAIMED, self.state(A))
        self.assertEqual([], self.driver.calls)
        self.assertEqual(1, self.wait())
        self.assertEqual({A: base.mac(1)}, self.driver.served())

    def test_commits_in_the_end(self) -> None:
        self.release()
        self.wait(3)
        self.cloud.known.clear()
        self.wait(3)
        self.assertEqual(State.FREE, self.state(A))

    def test_port_has_another_address(self) -> None:
        self.cloud.add(1, B)
        self.release()
        self.wait(3)
        self.assertEqual(State.FREE, self.state(A))

    def test_cloud_is_away(self) -> None:
        self.cloud.known.clear()
        self.cloud.away = True
        self.release()
        for _ in range(30):
            self.wait()
        self.assertEqual([], self.driver.calls)
        self.assertEqual({A: base.mac(1)}, self.driver.served())
        self.assertEqual(State.RELEASING, self.state(A))
        self.assertEqual('the cloud is away', self.error(A))
        self.assertEqual(30, self.log.output.count(
            '1 released addresses have to wait: the cloud is away'))
        self.cloud.away = False
        self.wait()
        self.assertEqual(State.FREE, self.state(A))


class TestLeases(WorkerTestCase):

    def hint(self, number: int, mac: str) -> tuple[str | None, ...]:
        return (A, mac, base.server_id(number), base.port_id(number),
                '10.0.0.2')

    def leave_a_lease(self) -> None:
        """Let port 1 come and go, and its lease stay."""
        self.serve(1)
        self.delete(1)
        self.wait()
        self.driver.lease(A, base.mac(1))
        self.driver.calls.clear()

    def test_anothers_blocks_the_put(self) -> None:
        self.leave_a_lease()
        self.assertEqual(A, self.port(2))
        self.assertEqual(0, self.wait(5))
        self.assertEqual([], self.driver.calls)
        self.assertEqual([self.hint(1, base.mac(1))], self.agents.hints)
        self.assertEqual(f'{base.mac(1)} still has a lease of {A}',
                         self.error(A))
        self.assertEqual(0, self.wait(2))
        self.assertEqual(2, len(self.agents.hints))
        self.driver.leased.clear()
        self.assertEqual(1, self.wait(3))
        self.assertEqual({A: base.mac(2)}, self.driver.served())

    def test_others_are_served_meanwhile(self) -> None:
        self.leave_a_lease()
        self.port(2)
        self.port(3)
        self.assertEqual(1, self.wait())
        self.assertEqual({B: base.mac(3)}, self.driver.served())

    def test_a_strangers(self) -> None:
        self.driver.lease(A, 'aa:bb:cc:dd:ee:ff')
        self.port()
        self.assertEqual(0, self.wait())
        self.assertEqual([], self.agents.hints)
        self.assertIn('aa:bb:cc:dd:ee:ff still has a lease', self.error(A))
        self.assertIn('the list knows no server', self.error(A))

    def test_ones_own_is_no_hindrance(self) -> None:
        self.driver.lease(A, base.mac(1))
        self.serve()

    def test_of_nobody_we_know_is_no_hindrance(self) -> None:
        self.driver.lease(A, None)
        self.serve()

    def test_removed_but_still_leased(self) -> None:
        self.serve()
        self.delete()
        self.driver.lease(A, base.mac(1))
        self.assertEqual(0, self.wait())
        self.assertEqual({}, self.driver.served())
        self.assertEqual(State.RELEASING, self.state(A))
        self.assertEqual([self.hint(1, base.mac(1))], self.agents.hints)
        self.assertEqual(0, self.wait())
        self.driver.leased.clear()
        self.assertEqual(1, self.wait())
        self.assertEqual(State.FREE, self.state(A))

    def test_removed_and_its_mac_not_told(self) -> None:
        self.serve()
        self.delete()
        self.driver.lease(A, None)
        self.assertEqual(0, self.wait())
        self.assertEqual([self.hint(1, base.mac(1))], self.agents.hints)

    def test_anothers_is_not_ours_to_wait_for(self) -> None:
        self.serve()
        self.delete()
        self.driver.lease(A, base.mac(7))
        self.assertEqual(1, self.wait())
        self.assertEqual([], self.agents.hints)

    def test_server_can_end_leases(self) -> None:
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        self.serve()
        self.delete()
        self.driver.lease(A, base.mac(1))
        self.assertEqual(1, self.wait())
        self.assertIn(('release', A), self.driver.calls)
        self.assertEqual(State.FREE, self.state(A))
        self.assertEqual([], self.agents.hints)

    def test_server_says_so_and_does_not(self) -> None:
        """It is looked at, not believed."""
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        self.patch(self.driver, 'release', lambda lease: None)
        self.serve()
        self.delete()
        self.driver.lease(A, base.mac(1))
        self.assertEqual(0, self.wait())
        self.assertEqual(State.RELEASING, self.state(A))
        self.assertIn('still has a lease', self.error(A))
        self.assertEqual([self.hint(1, base.mac(1))], self.agents.hints)

    def test_server_refuses_to_end_it(self) -> None:
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        self.driver.failing['release'] = 'not mine'
        self.serve()
        self.delete()
        self.driver.lease(A, base.mac(1))
        self.assertEqual(0, self.wait())
        self.assertEqual('not mine', self.error(A))

    def test_server_goes_away_meanwhile(self) -> None:
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        self.leave_a_lease()

        def release(lease: dhcp.Lease) -> None:
            raise exceptions.DHCPServerUnavailable('away')

        self.patch(self.driver, 'release', release)
        self.port(2)
        self.assertEqual(0, self.wait())
        self.assertEqual('away', self.error(A))
        self.assertEqual({}, self.driver.served())

    def test_server_ends_a_gone_ones_and_serves_at_once(self) -> None:
        """Release first, then write, and no wait in between."""
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        self.leave_a_lease()
        self.assertEqual(A, self.port(2))
        self.assertEqual(1, self.worker.run([base.port_id(2)],
                                            put_only=True))
        self.assertEqual([('release', A), ('put', A)], self.driver.calls)
        self.assertEqual({A: base.mac(2)}, self.driver.served())
        self.assertEqual([], self.agents.hints)
        self.assertEqual([], self.inventory.entries(pending=True))

    def test_a_strangers_is_not_the_servers_to_end(self) -> None:
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        self.driver.lease(A, 'aa:bb:cc:dd:ee:ff')
        self.port()
        self.assertEqual(0, self.wait())
        self.assertEqual([], self.driver.calls)
        self.assertIn('the list knows no server', self.error(A))

    def test_one_that_may_live_is_not_the_servers_to_end(self) -> None:
        """The list knows who had it, and not that they are gone."""
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        subnet = base.server_id(90)
        self.pool(name='other', network=base.server_id(91), subnet=subnet)
        self.assertEqual(A, self.claim(1, subnet=subnet, serve=False))
        self.driver.lease(A, base.mac(1))
        self.port(2)
        self.assertEqual(0, self.wait())
        self.assertEqual([], self.driver.calls)
        self.assertEqual([self.hint(1, base.mac(1))], self.agents.hints)

    def test_no_agents(self) -> None:
        self.worker = work.Worker(self.conf, self.inventory, self.drivers,
                                  self.cloud, None)
        self.leave_a_lease()
        self.port(2)
        self.assertEqual(0, self.wait())
        self.assertIn('still has a lease', self.error(A))

    def test_bus_is_away(self) -> None:
        self.leave_a_lease()
        self.agents.error = oslo_messaging.MessagingException('no bus')
        self.port(2)
        self.port(3)
        self.assertEqual(1, self.wait())
        self.assertEqual({B: base.mac(3)}, self.driver.served())
        self.assertIn('still has a lease', self.error(A))
        self.assertIn('no bus', self.log.output)

    def test_waits_no_longer_than_told(self) -> None:
        self.leave_a_lease()
        self.port(2)
        self.clock.forward(5)
        for _ in range(40):
            self.worker.run()
            entry, = self.inventory.entries()
            self.assertLessEqual(
                (entry.next_try_at - self.clock.now).total_seconds(),
                work.LEASE_WAIT)
            self.clock.now = entry.next_try_at
        self.assertEqual(40, len(self.agents.hints))


class TestWire(WorkerTestCase):
    """An address that answers is given to nobody."""

    def setUp(self) -> None:
        super().setUp()
        self.serve()
        self.driver.calls.clear()

    def release(self, evidence: Evidence | None = Evidence.COMMITTED,
                number: int = 1) -> None:
        for _, address in self.cloud.known.pop(base.port_id(number)
                                               ).addresses:
            self.inventory.release_address(base.SUBNET, address, 'deleted',
                                           evidence)

    def waits(self, waiting_for: WaitingFor | None) -> None:
        entry, = self.inventory.entries()
        self.assertEqual(waiting_for, entry.waiting_for)
        self.assertEqual(0, entry.attempts)

    def test_answers(self) -> None:
        """Neither is its lease ended nor is the address free."""
        for extra in (dhcp.Capability(0), dhcp.Capability.LEASE_RELEASE):
            self.driver.capabilities |= extra
            self.driver.lease(A, base.mac(1))
            if extra is dhcp.Capability(0):
                # a server whose leases nobody ends: only when it is over
                self.driver.leased.clear()
            self.agents.heard[ip(A)] = True
            self.release()
            self.assertEqual(0, self.worker.run())
            self.waits(WaitingFor.WIRE)
            self.assertEqual(State.RELEASING, self.state(A))
            self.assertEqual(self.clock.now, self.row(A).answered_at)
            self.assertIn('answers on the wire', self.error(A))
            self.assertNotIn(('release', A), self.driver.calls)
            self.assertEqual({}, self.driver.served())
            self.agents.heard[ip(A)] = False
            self.assertEqual(1, self.wait(2))
            self.assertEqual(State.FREE, self.state(A))
            self.assertIsNone(self.row(A).answered_at)
            self.assertEqual(A, self.serve())
        self.assertIn(('release', A), self.driver.calls)
        self.assertNotIn(ip(A), self.driver.leased)

    def test_answered_once(self) -> None:
        """That is forgotten when it is silent, while its lease runs on."""
        self.agents.heard[ip(A)] = True
        self.release()
        self.worker.run()
        self.agents.heard[ip(A)] = False
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        self.driver.lease(A, base.mac(1))
        self.patch(self.driver, 'release', lambda lease: None)
        self.assertEqual(0, self.wait(60))
        self.waits(WaitingFor.LEASE)
        self.assertIsNone(self.row(A).answered_at)

    def test_nobody_can_ask(self) -> None:
        """No agent is there, or the bus is away."""
        for evidence in (*Evidence, None):
            self.release(evidence)
            self.assertEqual(1, self.wait(3))
            self.assertEqual(State.FREE, self.state(A))
            self.serve()

    def test_worker_without_agents(self) -> None:
        """It does not free what others have heard."""
        self.agents.heard[ip(A)] = True
        self.release()
        self.worker.run()
        alone = work.Worker(self.conf, self.inventory, self.drivers,
                            self.cloud, None)
        self.clock.forward(60)
        self.assertEqual(0, alone.run())
        self.assertEqual(State.RELEASING, self.state(A))
        self.waits(WaitingFor.WIRE)

    def test_pauses_grow_and_are_bounded(self) -> None:
        self.agents.heard[ip(A)] = True
        self.release()
        pauses = []
        for _ in range(130):
            self.worker.run()
            entry, = self.inventory.entries()
            pauses.append(
                (entry.next_try_at - self.clock.now).total_seconds())
            self.clock.now = entry.next_try_at
        self.assertEqual(sorted(pauses), pauses)
        self.assertEqual((1, work.WIRE_WAIT), (pauses[0], pauses[-1]))
        # told aloud once
        self.assertEqual(1, self.log.output.count(
            f'{A} answers on the wire although'))

    def test_one_question_for_many(self) -> None:
        count = 40
        self.pool('10.1.0.1', '10.1.1.250', '10.1.0.0/16', name='many',
                  subnet=base.server_id(77), dhcp_servers=['a'])
        for number in range(1000, 1000 + count):
            address = self.claim(number, request=f'req-{number}',
                                 subnet=base.server_id(77))
            if number % 2:
                self.agents.heard[ip(address)] = True
        self.wait()
        with_port = [base.port_id(n) for n in range(1000, 1000 + count)]
        self.inventory.release_ports(with_port, 'x', Evidence.COMMITTED)
        self.assertEqual(count // 2, self.worker.run())
        self.assertEqual(1, len(self.agents.probed))
        self.assertEqual(count, len(self.agents.probed[0]))
        self.assertEqual([], self.cloud.asked)
        self.assertEqual([records.Waiting('a', WaitingFor.WIRE, count // 2)],
                         self.inventory.waiting())

    def test_what_only_leaves_a_server_is_not_asked_for(self) -> None:
        """Its holder answers, as it should."""
        self.drivers['b'] = fakes.Server('b')
        self.agents.heard[ip(A)] = True
        self.inventory.change_pool('pool', dhcp_servers=['b'])
        self.wait()
        self.assertEqual(1, self.wait(5))
        self.assertEqual([], self.agents.probed)
        self.assertEqual({}, self.driver.served())
        self.assertEqual({A: base.mac(1)}, self.drivers['b'].served())

    def test_who_had_it_before_the_next(self) -> None:
        """A lease in the way of the next holder ends when it is silent."""
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        self.release()
        self.worker.run()
        self.driver.lease(A, base.mac(1))
        self.agents.heard[ip(A)] = True
        self.assertEqual(A, self.port(2))
        self.assertEqual(0, self.worker.run([base.port_id(2)]))
        self.waits(WaitingFor.WIRE)
        self.assertIn(ip(A), self.driver.leased)
        self.assertEqual({}, self.driver.served())
        self.assertIsNone(self.row(A).answered_at)
        self.agents.heard[ip(A)] = False
        self.assertEqual(1, self.worker.run([base.port_id(2)]))
        self.assertEqual({A: base.mac(2)}, self.driver.served())

    def test_committed_is_not_asked_of_neutron(self) -> None:
        self.cloud.away = True
        self.release(Evidence.COMMITTED)
        self.assertEqual(1, self.worker.run())
        self.assertEqual([], self.cloud.asked)
        self.cloud.away = False
        self.serve()
        self.cloud.away = True
        self.release(None)
        self.assertEqual(0, self.wait(3))
        self.waits(WaitingFor.CLOUD)


class TestStorm(WorkerTestCase):
    """Many entries, and a party that is away for a while."""

    servers = ('a', 'b')
    count = 300

    def setUp(self) -> None:
        super().setUp()
        self.patch(work, 'BATCH', 120)
        self.pool('10.1.0.1', '10.1.3.250', '10.1.0.0/16', name='many',
                  subnet=base.server_id(77), dhcp_servers=list('ab'))

    def many(self) -> list[str]:
        """Make many ports with what is to do for them; return their ids."""
        self.inventory.change_pool('many', adopt=[records.InUse(
            ip('10.0.252.25') + number, base.PROJECT, base.server_id(number),
            base.port_id(number), base.mac(number), serve=True)
            for number in range(1000, 1000 + self.count)])
        return [base.port_id(number)
                for number in range(1000, 1000 + self.count)]

    def one(self, number: int = 2000) -> str:
        self.claim(number, request=f'req-{number}', subnet=base.server_id(77))
        return base.port_id(number)

    def drain(self, seconds: float) -> None:
        """Do what vmip-reclaimer does every two seconds."""
        end = self.clock.now + datetime.timedelta(seconds=seconds)
        while self.clock.now < end:
            self.wait(2)

    def test_a_batch_of_any_size_is_done_at_once(self) -> None:
        self.patch(work, 'BATCH', 500)
        port_ids = self.many()
        self.assertEqual(2 * self.count, self.worker.run(port_ids))
        self.assertEqual([], self.inventory.entries(pending=True))

    def test_waiting_is_not_failing(self) -> None:
        """After minutes of leases one failure costs a second, not minutes."""
        port_ids = self.many()
        self.worker.run(port_ids)
        self.inventory.release_ports(port_ids, 'x', Evidence.COMMITTED)
        for _, held in self.found(state=[State.RELEASING]):
            assert held.mac is not None
            self.driver.lease(str(held.address), held.mac)
        for _ in range(20):
            self.wait(15)
        self.assertEqual({0}, {e.attempts for e in self.inventory.entries()})
        # the server is away for a moment, and then the leases are over
        self.driver.error = exceptions.DHCPServerUnavailable('away')
        self.wait(15)
        self.driver.error = None
        self.driver.leased.clear()
        self.drain(work.LEASE_WAIT + 2)
        self.assertEqual([], self.inventory.entries(pending=True))
        self.assertEqual([], self.found(state=[State.RELEASING]))

    def test_a_server_is_back(self) -> None:
        """What waits for it is due when it does anything again."""
        port_ids = self.many()
        self.driver.error = exceptions.DHCPServerUnavailable('away')
        self.wait(10)
        self.drain(60)
        self.assertEqual(self.count, len(self.drivers['b'].have))
        tries = []
        original = self.driver.leases_of

        def leases_of(addresses: Any) -> Any:
            tries.append(len(addresses))
            return original(addresses)

        self.patch(self.driver, 'leases_of', leases_of)
        self.patch(breaker, 'PROBE_INTERVAL', 6.0)
        self.drain(60)
        # that is how often it is asked, however much is to do
        self.assertLessEqual(len(tries), 60 / breaker.PROBE_INTERVAL)
        self.assertGreaterEqual(len(tries), 60 / breaker.PROBE_INTERVAL / 2)
        self.driver.error = None
        # the listener comes upon it first
        self.clock.forward(breaker.PROBE_INTERVAL)
        more = [self.one()]
        self.assertEqual(2, self.worker.run(more))
        self.assertEqual(self.count, self.worker.run())
        self.assertEqual([], self.inventory.entries(pending=True))
        self.assertEqual(set(port_ids) | set(more), {
            held.port_id for _, held in self.found()})

    def test_neutron_is_back(self) -> None:
        port_ids = self.many()
        self.worker.run(port_ids)
        self.inventory.release_ports(port_ids, 'x')
        self.cloud.away = True
        self.drain(120)
        self.assertEqual({WaitingFor.CLOUD}, {
            e.waiting_for for e in self.inventory.entries()})
        self.cloud.away = False
        self.drain(work.PARTY_WAIT + 2)
        self.assertEqual([], self.inventory.entries())

    def test_who_is_new_waits_for_nobody(self) -> None:
        """Neither for what fails nor for what waits."""
        for number in range(1000, 1003):
            self.one(number)
        self.driver.failing = {str(held.address): 'no room'
                               for _, held in self.found()}
        self.drain(300)
        self.assertEqual({'no room'}, {
            e.error for e in self.inventory.entries(pending=True)})
        more = [self.one()]
        self.assertEqual(2, self.wait(5))
        self.assertEqual([], self.inventory.work(port_ids=more))

    def test_a_write_does_not_wait_for_a_removal(self) -> None:
        """Neutron hangs while a release is confirmed."""
        gone = [self.one(1000)]
        self.worker.run(gone)
        self.inventory.release_ports(gone, 'x')
        hangs, goes_on = threading.Event(), threading.Event()
        self.addCleanup(goes_on.set)

        def ports(**query: Any) -> Any:
            hangs.set()
            goes_on.wait(60)
            raise exceptions.CloudUnavailable('timed out')

        self.patch(self.cloud, 'ports', ports)
        self.one(2000)
        self.clock.forward(6)
        self.assertEqual(2, self.worker.run(patience=3))
        self.assertTrue(hangs.wait(60))
        self.assertEqual(2, self.worker.run([self.one(2001)],
                                            patience=3))
        goes_on.set()

    def test_error_of_a_job_that_was_gone_on_without(self) -> None:
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)
        for number, (error, says) in enumerate((
                (exceptions.InventoryUnavailable('list away'), 'list away'),
                (KeyError('a bug'), "KeyError: 'a bug'")), 1000):
            goes_on.clear()

            def work_done_all(*args: Any, error: Exception = error) -> Any:
                goes_on.wait(60)
                raise error

            self.patch(self.inventory, 'work_done_all', work_done_all)
            self.worker.run([self.one(number)], patience=0.05)
            self.assertNotIn(says, self.log.output)
            goes_on.set()
            lab.wait_for(lambda says=says: says in self.log.output)

    def test_errors_beside_the_first(self) -> None:
        """The caller gets one; the others are not lost."""
        def fails(text: str) -> Any:
            def job() -> int:
                raise exceptions.InventoryUnavailable(text)
            return job

        self.assertRaises(exceptions.InventoryUnavailable, work._at_once,
                          [fails('one'), fails('two')], 60)
        self.assertIn('two', self.log.output)


class TestBreaker(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.breaker = breaker.Breaker()

    def fail(self, after: float = 0, duration: float = 0) -> None:
        self.clock.forward(after)
        began = breaker.now()
        self.clock.forward(duration)
        self.breaker.failed(began)

    def test_a_restart_does_not_open_it(self) -> None:
        self.fail()
        self.fail(breaker.GRACE / 2)
        self.assertFalse(self.breaker.is_open)
        self.assertTrue(self.breaker.allow())
        self.assertTrue(self.breaker.succeeded())
        self.fail(breaker.GRACE)
        self.assertFalse(self.breaker.is_open)

    def test_long_enough(self) -> None:
        self.fail()
        self.fail(breaker.GRACE)
        self.assertTrue(self.breaker.is_open)

    def test_a_time_out_opens_it(self) -> None:
        self.fail(duration=breaker.GRACE)
        self.assertTrue(self.breaker.is_open)

    def test_a_failure_of_long_ago(self) -> None:
        self.fail()
        self.fail(breaker.STALE + 1)
        self.assertFalse(self.breaker.is_open)

    def test_one_probe_at_a_time(self) -> None:
        self.fail(duration=10)
        for _ in range(3):
            self.assertFalse(self.breaker.allow())
            self.clock.forward(breaker.PROBE_INTERVAL)
            self.assertTrue(self.breaker.is_probe_due)
            self.assertTrue(self.breaker.allow())
            self.assertFalse(self.breaker.is_probe_due)
        self.assertTrue(self.breaker.is_open)

    def test_closes(self) -> None:
        self.fail(duration=10)
        self.assertTrue(self.breaker.succeeded())
        self.assertFalse(self.breaker.is_open)
        self.assertTrue(self.breaker.allow())
        self.assertTrue(self.breaker.allow())
        self.assertFalse(self.breaker.succeeded())


class DriftTestCase(WorkerTestCase):
    """What is on a server otherwise than the list wants it."""

    def stray(self, last: int = 99, number: int = 9) -> str:
        """Put an entry on the server of which the list knows nothing."""
        address = base.ip(f'10.0.0.{last}')
        self.driver.have[address] = dhcp.HostEntry(base.mac(number), address)
        return str(address)


class TestMend(DriftTestCase):

    def test_nothing_to_do(self) -> None:
        self.serve()
        self.assertEqual(0, self.worker.mend())
        self.assertEqual([], self.inventory.entries(pending=True))

    def test_wanted_by_nobody(self) -> None:
        self.stray()
        self.assertEqual(1, self.worker.mend())
        self.assertEqual({}, self.driver.have)

    def test_lost(self) -> None:
        self.serve()
        before = dict(self.driver.have)
        self.driver.have.clear()
        self.assertEqual(1, self.worker.mend())
        self.worker.run()
        self.assertEqual(before, self.driver.have)

    def test_anothers(self) -> None:
        self.serve()
        before = dict(self.driver.have)
        self.stray(10)
        self.assertEqual(1, self.worker.mend())
        self.worker.run()
        self.assertEqual(before, self.driver.have)

    def test_still_to_do_is_left_alone(self) -> None:
        self.port()
        before = self.inventory.entries()
        self.assertEqual(0, self.worker.mend())
        self.assertEqual(before, self.inventory.entries())

    def test_neutron_has_not_said_yet_that_it_is_gone(self) -> None:
        """Who is perhaps alive keeps their entry."""
        self.serve()
        self.inventory.release(self.row(A), 'told so')
        self.cloud.away = True
        self.wait()
        self.assertEqual(0, self.worker.mend())
        self.assertEqual({A: base.mac(1)}, self.driver.served())

    def test_anothers_where_one_has_to_go(self) -> None:
        self.serve()
        self.inventory.release(self.row(A), 'told so')
        self.stray(10)
        self.assertEqual(1, self.worker.mend())
        self.assertEqual({}, self.driver.served())

    def test_wanted_since(self) -> None:
        """Between the look at the list and the removal."""
        self.assertEqual(A, self.stray(10, 1))
        self.driver.meanwhile = self.serve
        self.assertEqual(1, self.worker.mend())
        self.worker.run()
        self.assertEqual({A: base.mac(1)}, self.driver.served())

    def test_many(self) -> None:
        self.patch(work, 'BATCH', 3)
        for number in range(1, 9):
            self.serve(number)
            self.stray(100 + number)
        before = self.driver.served()
        self.driver.have = {a: e for a, e in self.driver.have.items()
                            if str(a).startswith('10.0.0.1')
                            and len(str(a)) == 10}
        self.assertEqual(16, self.worker.mend())
        self.assertEqual(8, self.worker.run())
        self.assertEqual({a: m for a, m in before.items() if len(a) == 9},
                         self.driver.served())

    def test_some_cannot_be_removed(self) -> None:
        self.driver.failing[self.stray()] = 'locked'
        self.stray(98)
        self.assertEqual(2, self.worker.mend())
        self.assertEqual(['10.0.0.99'], list(self.driver.served()))
        self.assertIn('locked', self.log.output)

    def test_one_server_is_away(self) -> None:
        other = fakes.Server('b')
        self.drivers['b'] = other
        other.have[ip(A)] = dhcp.HostEntry(base.mac(9), ip(A))
        self.driver.error = exceptions.DHCPServerUnavailable('away')
        self.driver.have[ip(A)] = dhcp.HostEntry(base.mac(9), ip(A))
        self.worker.mend()
        self.assertEqual({}, other.have)


class TestSync(DriftTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.told: list[tuple[int, int]] = []

    def sync(self) -> dict[str, str]:
        """Return address and what is wrong with it still."""
        return {str(d.address): error for d, error in self.worker.sync(
            'a', lambda *told: self.told.append(told)).items()}

    def test_all_at_once(self) -> None:
        self.patch(work, 'BATCH', 3)
        for number in range(1, 9):
            self.serve(number)
        wanted = self.driver.served()
        self.driver.have.clear()
        stray = self.stray()
        self.stray(10)
        self.assertEqual(dict.fromkeys([*wanted, stray], ''), self.sync())
        self.assertEqual(wanted, self.driver.served())
        self.assertEqual({}, self.sync())
        self.assertEqual([0, 3, 6, 8], [n for n, of in self.told][:4])
        for done, of in self.told:
            self.assertLessEqual(done, of)

    def test_does_not_wait_for_the_next_try(self) -> None:
        self.port(1)
        self.driver.error = exceptions.DHCPServerUnavailable('away')
        for _ in range(10):
            self.wait()
        self.driver.error = None
        self.assertEqual(0, self.worker.run())
        self.assertEqual({A: ''}, self.sync())
        self.assertEqual({A: base.mac(1)}, self.driver.served())

    def test_what_is_left(self) -> None:
        self.port(1)
        self.serve(2)
        self.serve(3)
        self.driver.have.clear()
        stray = self.stray()
        self.driver.failing = {A: 'no room', stray: 'locked'}
        self.assertEqual({A: 'no room', B: '', '10.0.0.12': '',
                          stray: 'locked'}, self.sync())
        self.assertEqual('no room', self.error(A))

    def test_goes_away_meanwhile(self) -> None:
        self.patch(work, 'BATCH', 2)
        for number in range(1, 8):
            self.serve(number)
        self.driver.have.clear()
        self.driver.calls.clear()

        tries = []

        def put(entries: Sequence[dhcp.HostEntry]) -> dhcp.Failures:
            tries.append(len(entries))
            if entries:
                raise exceptions.DHCPServerUnavailable('away')
            return {}

        self.patch(self.driver, 'put', put)
        self.assertEqual({
            'away': 2, 'not tried: try again when the server is well': 5},
            collections.Counter(self.sync().values()))
        self.assertEqual([0, 2], tries)

    def test_cannot_be_read(self) -> None:
        def entries() -> Any:
            raise exceptions.DHCPServerUnavailable('away')

        self.patch(self.driver, 'entries', entries)
        self.assertRaises(exceptions.DHCPServerUnavailable, self.sync)

    def test_removal_waits_for_neutron(self) -> None:
        self.serve()
        self.inventory.release(self.row(A), 'told so')
        self.assertEqual({A: 'Neutron still has the port'}, self.sync())
        self.assertEqual({A: base.mac(1)}, self.driver.served())
        self.cloud.known.clear()
        self.assertEqual({A: ''}, self.sync())
        self.assertEqual({}, self.driver.served())
