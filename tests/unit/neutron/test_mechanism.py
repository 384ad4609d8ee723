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

"""Strict mode: Neutron's own API, with vmip as a mechanism driver too."""

from collections.abc import Callable
from concurrent import futures
import threading
import time
from typing import Any

import fixtures
from neutron.plugins.ml2 import managers
from neutron_lib.plugins import directory
from oslo_config import cfg
from stevedore import extension

from tests.unit import base
from tests.unit import fakes
from tests.unit.neutron import case
from tests.unit.neutron import harness
from vmip_plugin import cloud
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin.dhcp import breaker
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import known
from vmip_plugin.inventory import records
from vmip_plugin.neutron import mechanism

State = base.State
ip = base.ip

OTHER_MAC = 'fa:16:3e:99:99:99'
SECRET = '/var/lib/dhcp is full'


class StrictTestCase(case.NeutronTestCase):
    """With two DHCP servers in memory."""

    options = '[dhcp]\nstrict_timeout = 6\n'

    def setUp(self) -> None:
        super().setUp()
        self.servers = {name: fakes.Server(name) for name in 'ab'}
        self.a, self.b = self.servers.values()
        self.agents = fakes.Agents()
        # no server is down for long, however busy this machine is
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.dhcp.breaker.now', lambda: 0.0))
        for name, value in (
                ('dhcp.manager.load_drivers', lambda conf: self.servers),
                ('agent.rpc.AgentClient', lambda transport: self.agents)):
            self.useFixture(fixtures.MonkeyPatch(
                f'vmip_plugin.{name}', value))
        self.mechanism = mechanism.VmipMechanismDriver()
        self.mechanism.initialize()
        manager = directory.get_plugin().mechanism_manager
        self.useFixture(fixtures.MockPatchObject(
            manager, 'ordered_mech_drivers', [extension.Extension(
                'vmip', None, None, self.mechanism)]))

    def refused(self, network: str, reason: str, address: str = '10.0.0.100',
                server: str = 'a') -> None:
        """Assert that a create fails as it should, and says why."""
        started = time.monotonic()
        status, body = self.post(network)
        self.assertEqual(503, status, body)
        self.assertEqual(
            {'type': 'HostEntryMissing', 'detail': '',
             'message': f'DHCP server {server} does not serve {address} yet: '
                        f'{reason}.'}, body['NeutronError'])
        self.assertLess(time.monotonic() - started, 120)

    def work_off(self, *ports: cloud.Port, times: int = 1) -> None:
        """Do what vmip-reclaimer does, a while later, with well servers.

        :param ports: what Neutron tells it of.
        """
        for server in self.servers.values():
            server.error = None
            server.failing.clear()
        neutron = fakes.Cloud()
        neutron.known = {port.id: port for port in ports}
        worker = work.Worker(base.new_conf('sqlite://'), self.inventory,
                             self.servers, neutron, self.agents)
        for later in [clock.after(600 * (n + 1)) for n in range(times)]:
            with fixtures.MonkeyPatch('vmip_plugin.inventory.clock.now',
                                      lambda later=later: later):
                worker.run()

    def put(self, port_id: str, **values: Any) -> None:
        self.assertEqual(200, harness.call(
            'PUT', f'ports/{port_id}', {'port': values})[0])


class TestCreate(StrictTestCase):

    def test_served_before_the_answer(self) -> None:
        network, _ = self.one('a', 'b')
        self.bound(network)
        status, body = self.post(network)
        self.assertEqual(201, status)
        served = {'10.0.0.100': body['port']['mac_address']}
        self.assertEqual([served, served],
                         [self.a.served(), self.b.served()])
        self.assertEqual([True, True], [
            entry.done for entry in self.inventory.entries()])
        entry, = self.a.have.values()
        self.assertEqual('web', entry.hostname)

    def test_no_pool(self) -> None:
        """It costs nothing: neither a query nor a call."""
        network, _ = self.one()
        other = harness.network()
        self.subnet(other, '10.9.0.0/24')
        self.got(other)
        self.a.error = exceptions.DHCPServerUnavailable(SECRET)
        self.useFixture(fixtures.MockPatchObject(
            self.mechanism, '_serve', ZeroDivisionError))
        self.got(other)
        self.assertEqual([], self.a.calls)

    def test_no_pool_while_the_list_is_away(self) -> None:
        self.one()
        other = harness.network()
        self.subnet(other, '10.9.0.0/24')
        self.got(other)
        self.away()
        self.got(other)

    def test_pool_is_young(self) -> None:
        """This process looked at all pools before it was made."""
        other = harness.network()
        self.subnet(other, '10.9.0.0/24')
        self.got(other)
        network, _ = self.one()
        # as after that time
        self.patch(known, 'MAX_AGE', 0)
        self.got(network)
        self.assertEqual(['10.0.0.100'], list(self.a.served()))

    def test_subnet_without_pool_beside_one_with(self) -> None:
        network, _ = self.one()
        subnet = self.subnet(network, '10.9.0.0/24')
        self.a.error = exceptions.DHCPServerUnavailable(SECRET)
        self.got(network, admin=True, fixed_ips=[{'subnet_id': subnet}])

    def test_nothing_to_serve(self) -> None:
        network, _ = self.one()
        self.a.error = exceptions.DHCPServerUnavailable(SECRET)
        self.got(network, admin=True, device_owner='network:dhcp')
        self.got(network, admin=True, fixed_ips=[])

    def test_pool_without_servers(self) -> None:
        network = harness.network()
        self.subnet(network, '10.0.0.0/24', '10.0.0.100', '10.0.0.103', ())
        self.got(network)

    def test_in_bulk(self) -> None:
        network, _ = self.one()
        status, body = harness.call('POST', 'ports', {'ports': [
            {'network_id': network, 'admin_state_up': True}] * 2})
        self.assertEqual(201, status)
        self.assertEqual(
            {port['fixed_ips'][0]['ip_address']: port['mac_address']
             for port in body['ports']}, self.a.served())

    def test_no_lock_while_the_server_is_written(self) -> None:
        network, _ = self.one()
        seen = []

        def others_work() -> None:
            self.reserve(network, request='req-2')
            seen.append(harness.call('POST', 'networks', {'network': {
                'name': 'meanwhile'}})[0])

        self.a.meanwhile = others_work
        self.got(network)
        self.assertEqual([201], seen)

    def test_somebody_else_has_done_it(self) -> None:
        network, _ = self.one()
        original = self.mechanism._serve

        def serve(port: dict[str, Any]) -> None:
            item, = self.inventory.work(port_ids=[port['id']])
            self.inventory.work_done(item)
            original(port)

        self.patch(self.mechanism, '_serve', serve)
        self.got(network)
        self.assertEqual([], self.a.calls)


def times_out(case_: StrictTestCase, clock_: base.Clock, server: fakes.Server,
              ) -> None:
    """Let a DHCP server be down, so that a call of it takes its time."""
    def leases_of(some: Any) -> Any:
        clock_.forward(breaker.GRACE)
        raise exceptions.DHCPServerUnavailable(SECRET)

    case_.patch(server, 'leases_of', leases_of)


class TestBreaker(StrictTestCase):
    """A server that is known to be down keeps nobody waiting."""

    options = '[dhcp]\nstrict_timeout = 60\n'
    creates = 16

    def setUp(self) -> None:
        super().setUp()
        self.clock = self.useFixture(base.Clock())
        self.network, self.subnet_id = self.one('a', 'b')
        self.port = {'id': base.port_id(1), 'network_id': self.network}
        self.claimed(1)

    def claimed(self, *numbers: int, subnet: str = '') -> list[str]:
        """Claim addresses as the IPAM driver does; return the ports' ids."""
        for number in numbers:
            self.inventory.claim(
                subnet_id=subnet or self.subnet_id, port_id=base.port_id(
                    number), mac=base.mac(number), server_id=None,
                requester=records.Requester(f'req-{number}', base.PROJECT))
        return [base.port_id(number) for number in numbers]

    def serve(self, port_id: str) -> str:
        """Return why the create of a port is refused, '' where it is not."""
        try:
            self.mechanism._serve({'id': port_id})
        except mechanism.HostEntryMissing as exc:
            return str(exc)
        return ''

    def goes_down(self) -> None:
        """Let a create find out that a server is down."""
        times_out(self, self.clock, self.a)
        self.assertIn('cannot be written to', self.serve(self.port['id']))

    def test_open(self) -> None:
        """Many creates at once, and no call of the server for any of them."""
        self.goes_down()
        tries = []
        self.patch(self.a, 'leases_of', lambda some: tries.append(some))
        port_ids = self.claimed(2, 3)
        with futures.ThreadPoolExecutor(self.creates) as pool:
            found = list(pool.map(self.serve,
                                  port_ids * (self.creates // 2)))
        self.assertEqual(self.creates, len(found))
        for text in found:
            self.assertIn('cannot be written to', text)
        self.assertEqual([], tries)

    def test_probe_fails(self) -> None:
        """One create in a few seconds tries it, and waits for a moment."""
        self.goes_down()
        tries = []

        def leases_of(some: Any) -> Any:
            tries.append(some)
            raise exceptions.DHCPServerUnavailable(SECRET)

        self.patch(self.a, 'leases_of', leases_of)
        port_id, = self.claimed(2)
        for expected in (1, 2):
            self.clock.forward(breaker.PROBE_INTERVAL)
            for _ in range(5):
                self.assertIn('cannot be written to', self.serve(port_id))
            self.assertEqual(expected, len(tries))

    def test_back(self) -> None:
        """The first create after the next probe is due is served."""
        original = self.a.leases_of
        self.goes_down()
        self.patch(self.a, 'leases_of', original)
        self.assertNotEqual('', self.serve(self.port['id']))
        self.clock.forward(breaker.PROBE_INTERVAL)
        for port_id in [self.port['id'], *self.claimed(2, 3)]:
            self.assertEqual('', self.serve(port_id))
        self.assertEqual(3, len(self.a.have))

    def test_another_pool_is_served(self) -> None:
        self.goes_down()
        other = base.server_id(91)
        self.inventory.create_pool(
            name='other', network_id=base.server_id(92), subnet_id=other,
            cidr='10.7.0.0/24', ranges=[(ip('10.7.0.1'), ip('10.7.0.9'))],
            dhcp_servers=['b'])
        port_id, = self.claimed(5, subnet=other)
        self.assertEqual('', self.serve(port_id))

    def test_hangs(self) -> None:
        """It takes longer than the create waits: that counts, too."""
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)

        def leases_of(some: Any) -> Any:
            self.clock.forward(breaker.GRACE)
            goes_on.wait(120)

        self.patch(self.a, 'leases_of', leases_of)
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.neutron.mechanism.time.monotonic',
            lambda: time.perf_counter() * 100))
        self.assertIn('not answered in time', self.serve(self.port['id']))
        self.assertTrue(self.mechanism._worker().is_down('a'))

    def test_only_some_wait(self) -> None:
        """The rest of the threads are for who needs no DHCP server."""
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)
        self.patch(self.a, 'leases_of',
                   lambda some: iter([goes_on.wait(120)][:0]))
        self.patch(breaker, 'GRACE', 0.1)
        most = 4
        self.mechanism._waiting = threading.BoundedSemaphore(most)
        port_ids = self.claimed(2, 3)
        with futures.ThreadPoolExecutor(self.creates) as pool:
            jobs = [pool.submit(self.serve, port_ids[number % 2])
                    for number in range(self.creates)]
            # the rest does not end before the server goes on
            for _, job in zip(range(self.creates - most),
                              futures.as_completed(jobs), strict=False):
                self.assertIn('too many other ports wait', job.result())
            goes_on.set()
        self.assertEqual(most, sum(job.result() == '' for job in jobs))



class TestBreakerAny(StrictTestCase):
    """Where one server is enough, only both together are down."""

    options = TestBreaker.options + 'strict_servers = any\n'

    def test_any(self) -> None:
        clock_ = self.useFixture(base.Clock())
        network, subnet = self.one('a', 'b')
        original = self.b.leases_of
        times_out(self, clock_, self.a)
        times_out(self, clock_, self.b)
        self.refused(network,
                     'it cannot be written to, the log of Neutron says why')
        self.patch(self.b, 'leases_of', original)
        clock_.forward(breaker.PROBE_INTERVAL)
        self.got(network)
        self.assertEqual([], list(self.a.served()))


class TestRefused(StrictTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.network, self.subnet_id = self.one('a', 'b')
        self.bound(self.network)

    def assert_nothing_left(self) -> None:
        """Nothing at once but what was reserved, nothing soon on a server."""
        row = self.row('10.0.0.100')
        self.assertEqual(
            (State.RESERVED, 'req-1', case.SERVER, 'web', None),
            (row.state, row.request_id, row.server_id, row.server_name,
             row.port_id))
        self.assertEqual([False, False], [
            entry.present for entry in self.inventory.entries()])
        self.assertEqual([], harness.call('GET', 'ports')[1]['ports'])
        self.work_off()
        self.assertEqual([{}, {}], [self.a.served(), self.b.served()])
        self.assertEqual([], self.inventory.entries())

    def assert_next_try_works(self) -> None:
        status, body = self.post(self.network)
        self.assertEqual(201, status, body)
        served = {'10.0.0.100': body['port']['mac_address']}
        self.assertEqual([served, served],
                         [self.a.served(), self.b.served()])

    def test_unavailable(self) -> None:
        self.a.error = exceptions.DHCPServerUnavailable(SECRET)
        self.refused(self.network,
                     'it cannot be written to, the log of Neutron says why')
        self.assertIn(SECRET, self.log.output)
        self.assert_nothing_left()
        self.assert_next_try_works()

    def test_one_of_two(self) -> None:
        self.b.failing['10.0.0.100'] = SECRET
        self.refused(self.network,
                     'it cannot be written to, the log of Neutron says why',
                     server='b')
        self.assertEqual(1, len(self.a.have))
        self.assert_nothing_left()

    def test_next_try_comes_at_once(self) -> None:
        self.b.failing['10.0.0.100'] = SECRET
        self.assertEqual(503, self.post(self.network)[0])
        self.b.failing.clear()
        self.assert_next_try_works()
        self.work_off()
        self.assertEqual(1, len(self.a.have))

    def test_comes_to_itself_in_time(self) -> None:
        self.a.error = exceptions.DHCPServerUnavailable(SECRET)
        threading.Timer(0.2, lambda: setattr(self.a, 'error', None)).start()
        self.assert_next_try_works()

    def test_server_is_in_no_configuration(self) -> None:
        del self.servers['b']
        self.refused(self.network,
                     'it cannot be written to, the log of Neutron says why',
                     server='b')
        self.assertIn('[dhcp] servers does not name b', self.log.output)

    def test_lease_of_another(self) -> None:
        self.a.lease('10.0.0.100', OTHER_MAC)
        self.refused(self.network, 'the lease of a guest that had it before '
                                   'has not ended')
        self.assertIn(f'{OTHER_MAC} still has a lease', self.log.output)
        self.a.leased.clear()
        self.assert_nothing_left()

    def test_lease_ends_in_time(self) -> None:
        """The agents are asked, and the create waits for them."""
        other, = self.inventory.reserve(
            records.Requester('req-0', base.PROJECT),
            [records.Wanted(self.network, ('old',))], 600)
        self.got(self.network, 'req-0', device_id=base.server_id(9))
        old = self.row(str(other.address))
        assert old.mac is not None
        harness.call('DELETE', f'ports/{old.port_id}')
        self.work_off()
        self.inventory.reserve(
            records.Requester('req-2', base.PROJECT),
            [records.Wanted(self.network, ('new',), (old.address,))], 600)
        self.a.lease(str(old.address), old.mac)

        def asked(*args: Any) -> None:
            self.agents.hints.append(args)
            threading.Timer(0.1, self.a.leased.clear).start()

        self.patch(self.agents, 'release_lease', asked)
        self.assertEqual([str(old.address)], self.got(self.network, 'req-2'))
        self.assertEqual(
            (str(old.address), old.mac, base.server_id(9), old.port_id,
             '10.0.0.2'), self.agents.hints[0])

    def test_agents_cannot_be_told(self) -> None:
        self.a.lease('10.0.0.100', OTHER_MAC)
        self.agents.error = OSError('no bus')
        self.refused(self.network, 'the lease of a guest that had it before '
                                   'has not ended')

    def test_server_hangs(self) -> None:
        """What it does in the end, after all, is undone."""
        goes_on, done = threading.Event(), threading.Event()
        original = self.a.put

        def put(entries: Any) -> Any:
            goes_on.wait(60)
            try:
                return original(entries)
            finally:
                self.a.meanwhile = None
                done.set()

        self.patch(self.a, 'put', put)
        before = threading.active_count()
        self.refused(self.network, 'it has not answered in time')
        goes_on.set()
        done.wait(60)
        _until(lambda: threading.active_count() <= before)
        self.assert_nothing_left()

    def test_worker_fails(self) -> None:
        self.patch(self.mechanism, '_worker', _fail)
        self.refused(self.network, 'it has not answered in time')
        self.assertIn('ZeroDivisionError', self.log.output)

    def test_list_goes_away(self) -> None:
        original = self.mechanism._serve

        def serve(port: dict[str, Any]) -> None:
            self.away()
            original(port)

        self.patch(self.mechanism, '_serve', serve)
        status, body = self.post(self.network)
        self.assertEqual((503, 'InventoryAway'),
                         (status, body['NeutronError']['type']))
        self.assertEqual([], harness.call('GET', 'ports')[1]['ports'])

    def test_list_goes_away_later(self) -> None:
        def put(entries: Any) -> dhcp.Failures:
            self.away()
            return {}

        self.patch(self.a, 'put', put)
        self.assertEqual(503, self.post(self.network)[0])

    def test_without_reservation(self) -> None:
        self.a.failing['10.0.0.101'] = SECRET
        self.assertEqual(503, self.post(
            self.network, 'req-2', device_id=base.server_id(2))[0])
        self.assertEqual(State.RELEASING, self.row('10.0.0.101').state)
        self.work_off()
        self.assertEqual([], self.found(address=ip('10.0.0.101'),
                                        state=[State.RELEASING]))

    def test_one_of_a_bulk(self) -> None:
        """Neutron deletes this port and keeps the others, as it always does.

        Of those it gives the addresses back too, though they are in use.
        """
        self.a.failing['10.0.0.101'] = SECRET
        status, _ = harness.call('POST', 'ports', {'ports': [
            {'network_id': self.network, 'admin_state_up': True}] * 2},
            admin=False, request='req-2')
        self.assertEqual(503, status)
        port, = harness.call('GET', 'ports')[1]['ports']
        self.assertEqual('10.0.0.102', port['fixed_ips'][0]['ip_address'])
        self.assertEqual(
            [State.RELEASING, State.CLAIMED],
            [self.row(f'10.0.0.{n}').state for n in (101, 102)])
        self.work_off()
        self.assertEqual([('10.0.0.100', State.RESERVED),
                          ('10.0.0.102', State.CLAIMED)],
                         [(str(row.address), row.state)
                          for _, row in self.found()])
        served = {'10.0.0.102': port['mac_address']}
        self.assertEqual([served, served],
                         [self.a.served(), self.b.served()])


class TestAny(StrictTestCase):
    """One server of the pool is enough."""

    options = '[dhcp]\nstrict_timeout = 6\nstrict_servers = any\n'

    def setUp(self) -> None:
        super().setUp()
        self.network, _ = self.one('a', 'b')
        self.bound(self.network)

    def test_both(self) -> None:
        self.got(self.network)
        self.work_off()
        self.assertEqual(['10.0.0.100'] * 2, [
            *self.a.served(), *self.b.served()])

    def test_one_is_away(self) -> None:
        for away, other in (self.a, self.b), (self.b, self.a):
            away.error = exceptions.DHCPServerUnavailable(SECRET)
            other.error = None
            port = self.post(self.network)[1]['port']
            address = port['fixed_ips'][0]['ip_address']
            self.assertIn(address, other.served())
            self.assertNotIn(address, away.served())
        # both are caught up
        self.work_off()
        self.assertEqual(2, len(self.a.served()))
        self.assertEqual(self.a.served(), self.b.served())

    def test_one_hangs(self) -> None:
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)
        original = self.a.put

        def put(entries: Any) -> Any:
            goes_on.wait(60)
            return original(entries)

        self.patch(self.a, 'put', put)
        self.got(self.network)
        self.assertEqual(({}, 1), (self.a.served(), len(self.b.served())))
        goes_on.set()
        _until(lambda: all(e.done for e in self.inventory.entries()))
        self.assertEqual(self.b.served(), self.a.served())

    def test_both_are_away(self) -> None:
        for server in self.servers.values():
            server.error = exceptions.DHCPServerUnavailable(SECRET)
        status, body = self.post(self.network)
        self.assertEqual(503, status)
        self.assertIn('it cannot be written to',
                      body['NeutronError']['message'])

    def test_each_address_of_a_port_needs_one(self) -> None:
        subnet = self.subnet(self.network, '10.9.0.0/24', '10.9.0.10',
                             '10.9.0.20', ('b',))
        self.b.failing['10.9.0.10'] = SECRET
        status, body = self.post(self.network, admin=True, fixed_ips=[
            {'ip_address': '10.0.0.100'}, {'subnet_id': subnet}])
        self.assertEqual(503, status)
        self.assertIn('server b does not serve 10.9.0.10',
                      body['NeutronError']['message'])


class TestUpdate(StrictTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.network, self.subnet_id = self.one()
        self.port = self.post(self.network)[1]['port']

    def test_address(self) -> None:
        self.put(self.port['id'], fixed_ips=[
            {'subnet_id': self.subnet_id, 'ip_address': '10.0.0.103'}])
        mac = self.port['mac_address']
        self.assertEqual(mac, self.a.served()['10.0.0.103'])
        # what has to go is for others to take away
        self.assertNotIn(('remove', '10.0.0.100'), self.a.calls)

    def test_mac(self) -> None:
        self.put(self.port['id'], mac_address=OTHER_MAC)
        self.assertEqual({'10.0.0.100': OTHER_MAC}, self.a.served())
        self.assertEqual(OTHER_MAC, self.row('10.0.0.100').mac)

    def test_anything_else(self) -> None:
        self.a.calls.clear()
        self.put(self.port['id'], name='other')
        self.assertEqual([], self.a.calls)

    def test_server_is_away(self) -> None:
        """ML2 goes on; the entry stays work to do."""
        self.a.error = exceptions.DHCPServerUnavailable(SECRET)
        self.put(self.port['id'], mac_address=OTHER_MAC)
        self.assertIn('does not serve 10.0.0.100 yet', self.log.output)
        self.work_off()
        self.assertEqual({'10.0.0.100': OTHER_MAC}, self.a.served())

    def test_list_is_away(self) -> None:
        self.away()
        self.put(self.port['id'], mac_address=OTHER_MAC)

    def test_port_of_no_pool(self) -> None:
        network = harness.network()
        self.subnet(network, '10.9.0.0/24')
        port = self.post(network)[1]['port']
        self.put(port['id'], mac_address=OTHER_MAC)


class TestStart(case.NeutronTestCase):

    options = '[dhcp]\nservers = a\n'

    def setUp(self) -> None:
        super().setUp()
        self.server = fakes.Server('a')

    def test_by_name(self) -> None:
        cfg.CONF.set_override('mechanism_drivers', ['vmip'], 'ml2')
        self.addCleanup(cfg.CONF.clear_override, 'mechanism_drivers', 'ml2')
        manager = managers.MechanismManager()
        manager.initialize()
        self.assertIsInstance(manager.mech_drivers['vmip'].obj,
                              mechanism.VmipMechanismDriver)
        # other drivers' filtering of hosts goes on
        self.assertTrue(manager.host_filtering_supported)
        self.assertEqual(set(), manager.filter_hosts_with_segment_access(
            None, [], {'one'}, None))

    def test_another_ipam_driver(self) -> None:
        self.driver('internal')
        error = self.assertRaises(
            exceptions.ConfigError,
            mechanism.VmipMechanismDriver().initialize)
        self.assertIn('ipam_driver = vmip', str(error))

    def test_configuration_is_broken(self) -> None:
        self.useFixture(fixtures.EnvironmentVariable(
            'VMIP_CONFIG', '/nowhere/vmip.conf'))
        error = self.assertRaises(
            exceptions.ConfigError,
            mechanism.VmipMechanismDriver().initialize)
        self.assertIn('/nowhere/vmip.conf', str(error))

    def test_server_is_not_on_this_host(self) -> None:
        self.server.complaints = ['/var/lib/dhcp: there is no such folder']
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.dhcp.manager.load_drivers',
            lambda conf: {'a': self.server}))
        mechanism.VmipMechanismDriver().initialize()
        self.assertIn('DHCP server a as seen from this host: /var/lib/dhcp',
                      self.log.output)


def _fail() -> None:
    raise ZeroDivisionError


def _until(check: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not check() and time.monotonic() < end:
        time.sleep(0.01)
