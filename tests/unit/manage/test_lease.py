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

"""vmip-manage lease."""

import dataclasses
import datetime
import functools
from typing import Any

import oslo_messaging

from tests.unit import base
from tests.unit.manage import test_manage
from tests.unit.manage import test_reclaim
from vmip_plugin.agent import rpc
from vmip_plugin.cmd.manage import lease as manage_lease
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin import exceptions

State = base.State
A = '10.0.0.10'
MAC = base.mac(0)


class LeaseTestCase(test_reclaim.ReclaimTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.driver.capabilities = (dhcp.Capability.LEASE_LIST
                                    | dhcp.Capability.LEASE_RELEASE)
        self.slept: list[float] = []
        self.meanwhile = lambda: None
        self.patch(manage_lease, 'time', self)
        self.seconds = 0.0

    # as manage_lease.time
    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        self.clock.forward(seconds)
        self.meanwhile()

    def live(self, number: int = 0) -> str:
        """Make a server with an address, a lease and a port."""
        address = self.claim(number)
        self.cloud.add(number, address)
        self.inventory.activate(base.server_id(number), f'web-{number}',
                                [base.mac(number)])
        self.driver.lease(address, base.mac(number))
        self.clock.forward(1)
        return address

    def die(self, number: int = 0) -> None:
        """Delete the server and all; nobody ends the lease."""
        self.cloud.delete(number)
        address, = (a for _, a in self.found(
            server=base.server_id(number)))
        self.inventory.release(address, '')

    def release(self, *argv: str, code: int = 0) -> list[tuple[str, ...]]:
        return [(row['source'], row['mac'], row['result']) for row in
                self.json('lease', 'release', A, *argv, code=code)]


class TestList(LeaseTestCase):

    def listed(self, code: int = 0) -> list[tuple[str, ...]]:
        return [(row['source'], row['address'], row['mac'], row['list'],
                 row['server_name'])
                for row in self.json('lease', 'list', code=code)]

    def test_whose(self) -> None:
        self.live(0)
        self.live(1)
        self.die(1)
        self.driver.lease('10.0.0.12', base.mac(7))
        self.driver.lease('10.9.9.9', None)
        self.live(2)
        self.driver.lease('10.0.0.12', base.mac(7))
        self.assertEqual([
            ('a', A, MAC, 'active', 'web-0'),
            ('a', '10.0.0.11', base.mac(1), 'releasing', 'web-1'),
            ('a', '10.0.0.12', base.mac(7), 'another\'s: active', ''),
            ('a', '10.9.9.9', '', 'nobody\'s', '')], self.listed())

    def test_all_formats(self) -> None:
        self.live()
        self.driver.leased[base.ip(A)] = dhcp.Lease(
            base.ip(A), MAC, b'\x01x', datetime.datetime(
                2030, 1, 2, tzinfo=datetime.UTC))
        for kind, word in (('table', 'web-0'), ('csv', '"0178"'),
                           ('yaml', 'client_id'), ('value', 'web-0')):
            self.assertEqual(0, self.run_('lease', 'list', '-f', kind))
            self.assertIn(word, self.out)
            self.assertIn('2030-01-02 00:00:00', self.out)

    def test_agents(self) -> None:
        self.live()
        self.driver.leased.clear()
        self.agents.found = {
            'one': [test_reclaim.overheard(A, MAC, reason='a\x1b[2J')],
            'two': ConnectionError('lost')}
        self.assertEqual([('agent one', A, MAC, 'active', 'web-0')],
                         self.listed(code=1))
        self.assertIn('agent two: lost', self.err)
        self.assertEqual(1, self.run_('lease', 'list', '-f', 'value'))
        self.assertNotIn('\x1b', self.out)
        self.assertEqual([], self.json('lease', 'list', '--server', 'a'))

    def test_server_is_away(self) -> None:
        self.driver.error = exceptions.DHCPServerUnavailable('no lease file')
        self.assertEqual([], self.listed(code=1))
        self.assertIn('a: no lease file', self.err)
        self.fails('does not name x', 'lease', 'list', '--server', 'x')

    def test_server_that_tells_none(self) -> None:
        self.driver.capabilities = dhcp.Capability(0)
        self.driver.lease(A, MAC)
        self.assertEqual([], self.listed())

    def test_many(self) -> None:
        self.patch(manage_lease, '_BATCH', 2)
        for number in range(5):
            self.live(number)
        self.assertEqual([f'web-{n}' for n in range(5)],
                         [row[4] for row in self.listed()])


class TestShow(LeaseTestCase):

    def shown(self) -> dict[str, Any]:
        row, = self.json('lease', 'show', A)
        found: dict[str, Any] = row
        return found

    def test_in_use(self) -> None:
        self.live()
        found = self.shown()
        self.assertFalse(found['gone'])
        self.assertIn(f'delete server {base.server_id(0)} to free it',
                      found['reason'])

    def test_gone(self) -> None:
        self.live()
        self.die()
        found = self.shown()
        self.assertTrue(found['gone'])
        self.assertEqual(
            ('web-0', base.server_id(0), base.port_id(0)),
            (found['server_name'], found['server_id'], found['port_id']))

    def test_none(self) -> None:
        self.assertEqual([], self.json('lease', 'show', A))
        self.wrong('lease', 'show', 'x')


class TestRelease(LeaseTestCase):

    def test_gone(self) -> None:
        self.live()
        self.die()
        self.assertEqual([('a', MAC, 'would be released')],
                         self.release('--dry-run'))
        self.assertEqual([], self.slept)
        self.assertIn(base.ip(A), self.driver.leased)
        self.assertEqual([('a', MAC, 'released')], self.release())
        self.assertEqual([30], self.slept)
        self.assertNotIn(base.ip(A), self.driver.leased)
        self.fails('Nobody tells of a lease', 'lease', 'release', A)

    def test_neutron_said_so_long_ago(self) -> None:
        self.live()
        self.die()
        self.finish(A)
        self.assertEqual([('a', MAC, 'released')], self.release())
        self.assertEqual([30], self.slept)
        self.driver.lease(A, MAC)
        self.assertEqual([('a', MAC, 'released')], self.release())
        self.assertEqual([30], self.slept)

    def spared(self, word: str) -> None:
        row, = self.json('lease', 'release', A, code=1)
        self.assertEqual('spared', row['result'])
        self.assertIn(word, row['reason'])
        self.assertIn(base.ip(A), self.driver.leased)
        self.assertEqual([], self.agents.hints)

    def test_in_use(self) -> None:
        self.live()
        self.spared('to free it')
        self.assertEqual([], self.slept)
        # nothing can force it
        for option in ('--force', '--yes'):
            self.wrong('lease', 'release', A, option)

    def test_server_lives_without_the_port(self) -> None:
        self.live()
        self.die()
        for status in ('ACTIVE', 'SHUTOFF', 'PAUSED', 'SHELVED_OFFLOADED',
                       'VERIFY_RESIZE', 'ERROR'):
            self.cloud.servers[base.server_id(0)] = status
            self.spared(f'is {status}')
        self.cloud.servers[base.server_id(0)] = 'DELETED'
        self.release()
        self.assertNotIn(base.ip(A), self.driver.leased)

    def test_port_is_another_servers_now(self) -> None:
        self.live()
        self.cloud.delete(0)
        self.cloud.add(0, A, server=9)
        self.spared(f'delete server {base.server_id(9)}')

    def test_port_without_server(self) -> None:
        self.live()
        self.cloud.delete(0)
        port = self.cloud.add(0, A)
        self.cloud.known[port.id] = dataclasses.replace(port, device_id='',
                                                        device_owner='')
        self.spared(f'delete port {port.id}')

    def test_mac_has_another_address(self) -> None:
        self.live()
        self.cloud.add(0, '10.0.0.19')
        self.spared('reboot it')

    def test_port_has_another_mac(self) -> None:
        self.live()
        self.cloud.add(0, A, mac=base.mac(9))
        self.spared('with MAC')

    def test_not_ours(self) -> None:
        """A printer, or a MAC that somebody made up."""
        self.live()
        self.driver.lease(A, base.mac(77))
        self.spared('not ours')
        self.driver.lease(A, None)
        self.spared('does not tell whose')

    def test_cloud_is_away(self) -> None:
        self.live()
        self.die()
        self.cloud.away = True
        self.fails('away', 'lease', 'release', A)
        self.cloud.away, self.cloud.blind = False, True
        self.fails('do not show everything', 'lease', 'release', A)
        self.assertIn(base.ip(A), self.driver.leased)

    def test_comes_back_between_the_two_looks(self) -> None:
        self.live()
        port = self.cloud.known[base.port_id(0)]
        self.die()

        def back() -> None:
            self.cloud.known[port.id] = port

        self.meanwhile = back
        self.spared('to free it')
        self.assertEqual([30], self.slept)

    def test_cloud_goes_away_between_the_two_looks(self) -> None:
        self.live()
        self.die()

        def away() -> None:
            self.cloud.away = True

        self.meanwhile = away
        self.fails('away', 'lease', 'release', A)
        self.assertIn(base.ip(A), self.driver.leased)

    def test_server_refuses(self) -> None:
        self.live()
        self.die()
        self.driver.failing['release'] = 'busy'
        self.assertEqual([('a', MAC, 'not released: busy')],
                         self.release(code=1))

    def test_server_only_says_so(self) -> None:
        self.live()
        self.die()
        self.patch(self.driver, 'release', lambda lease: None)
        self.assertEqual(
            [('a', MAC, 'not released: the server still has it')],
            self.release(code=1))

    def test_by_the_agents(self) -> None:
        self.driver.capabilities = dhcp.Capability.LEASE_LIST
        self.live()
        self.die()
        self.assertEqual(
            [('a', MAC, 'not released: the server still has it')],
            self.release(code=1))
        self.assertEqual([(A, MAC, base.server_id(0), base.port_id(0),
                           '10.0.0.2')], self.agents.hints)

        def released() -> None:
            if len(self.agents.hints) > 1 and self.slept[-1] < 1:
                self.driver.leased.clear()

        self.meanwhile = released
        self.assertEqual([('a', MAC, 'released')], self.release())

    def test_only_an_agent_knows_of_it(self) -> None:
        self.live()
        self.die()
        self.driver.leased.clear()
        self.agents.found = {'one': [test_reclaim.overheard(
            A, MAC, dhcp_server=base.ip('10.0.0.3'))]}
        found, = self.release(code=1)
        self.assertIn('the agents are told', found[2])
        self.assertEqual('10.0.0.3', self.agents.hints[0][-1])

    def test_bus_is_away(self) -> None:
        self.driver.capabilities = dhcp.Capability.LEASE_LIST
        self.live()
        self.die()

        def refused(*hint: Any) -> None:
            raise ConnectionError('refused')

        self.patch(self.agents, 'release_lease', refused)
        self.assertEqual(
            [('a', MAC, 'not released: the agents cannot be told: refused')],
            self.release(code=1))

    def test_nobody_to_ask(self) -> None:
        self.driver.capabilities = dhcp.Capability.LEASE_LIST
        self.live()
        self.die()
        self.agents = None  # type: ignore[assignment]
        found, = self.release('--server', 'a', code=1)
        self.assertIn('no transport_url', found[2])


class TestBus(test_manage.ManageTestCase):
    """The agents' own endpoints, over a bus."""

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.config.write_text(
            '[DEFAULT]\ntransport_url = fake:\n'
            f'[database]\nconnection = {self.connection}\n')
        for host in ('one', 'two'):
            server = rpc.server(
                self.transport, host, lambda hint: None,
                rpc.Questions(self.transport, host, self))
            server.start()
            self.addCleanup(server.wait)
            self.addCleanup(server.stop)

    @functools.cached_property
    def transport(self) -> Any:
        return oslo_messaging.get_rpc_transport(self.conf, 'fake:')

    # as the agents' rpc.Asked
    def page(self, after: Any, limit: int) -> list[Any]:
        return [] if after else [test_reclaim.overheard(
            A, MAC, dhcp_server=base.ip('10.0.0.2'), confirmed=True,
            remote=False, first_seen=0.0, tries=0)]

    def look(self) -> rpc.Look:
        return rpc.Look(3, 2, self.page(None, 1))

    def test_lease_list(self) -> None:
        self.assertEqual(
            [('agent one', A, MAC, 'nobody\'s', 'release: silent and gone'),
             ('agent two', A, MAC, 'nobody\'s', 'release: silent and gone')],
            [(row['source'], row['address'], row['mac'], row['list'],
              row['last_word']) for row in self.json('lease', 'list')])

    def test_dry_run(self) -> None:
        rows = self.json('reclaim', 'run', '--dry-run')
        self.assertEqual(
            [('leases', A, 'release', 'agent one: silent and gone'),
             ('leases', A, 'release', 'agent two: silent and gone')],
            [(row['task'], row['subject'], row['outcome'], row['reason'])
             for row in rows])


class TestNoBus(test_manage.ManageTestCase):

    def test_none_is_configured(self) -> None:
        self.assertEqual([], self.json('lease', 'list'))

    def test_it_makes_no_sense(self) -> None:
        self.config.write_text('[DEFAULT]\ntransport_url = nosuch://x\n'
                               + self.config.read_text())
        self.fails('transport_url', 'lease', 'list')
