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

import oslo_messaging

from tests.unit import base
from tests.unit import fakes
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions

ip = base.ip
State = base.State
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

    def test_ports_are_done_due_or_not(self) -> None:
        self.port(1)
        self.port(2)
        self.assertEqual(1, self.worker.run([base.port_id(2)]))
        self.assertEqual([('put', B)], self.driver.calls)
        self.assertEqual(0, self.worker.run())
        self.assertEqual(1, self.wait(5))

    def test_what_goes_is_first(self) -> None:
        self.serve(1)
        self.port(2)
        self.delete(1)
        self.wait()
        self.assertEqual([('put', A), ('remove', A), ('put', B)],
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
        self.driver.error = exceptions.DHCPServerUnavailable('away')
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

    def broken(self, error: Exception) -> None:
        self.port()
        self.driver.error = error
        self.assertEqual(2, self.wait())
        self.assertEqual({}, self.driver.served())
        self.assertEqual([{A: base.mac(1)}] * 2, [
            self.drivers[name].served() for name in 'bc'])

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


class TestNeutron(WorkerTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.serve()
        self.driver.calls.clear()

    def release(self) -> None:
        self.inventory.release(self.row(A), 'told so')

    def test_still_has_the_port(self) -> None:
        self.release()
        for _ in range(work.KEEP_AFTER):
            self.assertEqual(0, self.wait(3))
            self.assertEqual(State.RELEASING, self.state(A))
            self.assertIn('still has the port', self.error(A))
        self.wait(3)
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
        self.assertEqual(1, self.wait(2))
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
        self.assertEqual(0, self.wait())
        self.assertIn(('release', A), self.driver.calls)
        # and that is looked at, not believed
        self.assertEqual(State.RELEASING, self.state(A))
        self.assertEqual(1, self.wait(0))
        self.assertEqual([], self.agents.hints)

    def test_server_refuses_to_end_it(self) -> None:
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        self.driver.failing['release'] = 'not mine'
        self.serve()
        self.delete()
        self.driver.lease(A, base.mac(1))
        self.assertEqual(0, self.wait())
        self.assertEqual('not mine', self.error(A))

    def test_server_is_not_asked_to_end_anothers(self) -> None:
        self.driver.capabilities |= dhcp.Capability.LEASE_RELEASE
        self.leave_a_lease()
        self.port(2)
        self.wait()
        self.assertEqual([], self.driver.calls)
        self.assertEqual(1, len(self.agents.hints))

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


class TestMend(WorkerTestCase):
    """What is on a server otherwise than the list wants it."""

    def test_nothing_to_do(self) -> None:
        self.serve()
        self.assertEqual(0, self.worker.mend())
        self.assertEqual([], self.inventory.entries(pending=True))

    def test_wanted_by_nobody(self) -> None:
        address = base.ip('10.0.0.99')
        self.driver.have[address] = dhcp.HostEntry(base.mac(9), address)
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
        for address in before:
            self.driver.have[address] = dhcp.HostEntry(base.mac(9), address)
        self.assertEqual(1, self.worker.mend())
        self.worker.run()
        self.assertEqual(before, self.driver.have)

    def test_still_to_do_is_left_alone(self) -> None:
        self.port()
        before = self.inventory.entries()
        self.worker.mend()
        self.assertEqual(before, self.inventory.entries())

    def test_one_server_is_away(self) -> None:
        other = fakes.Server('b')
        self.drivers['b'] = other
        other.have[ip(A)] = dhcp.HostEntry(base.mac(9), ip(A))
        self.driver.error = exceptions.DHCPServerUnavailable('away')
        self.driver.have[ip(A)] = dhcp.HostEntry(base.mac(9), ip(A))
        self.worker.mend()
        self.assertEqual({}, other.have)
