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

"""vmip-manage reclaim."""

import dataclasses
from typing import Any

from tests.unit import base
from tests.unit import fakes
from tests.unit.manage import test_manage
from vmip_plugin.agent import lease as agent_lease
from vmip_plugin.agent import rpc
from vmip_plugin.cmd.manage import agents as manage_agents
from vmip_plugin.cmd.manage import reclaim as manage_reclaim

State = base.State
A = '10.0.0.10'


class Agents:
    """As many agents as it has answers."""

    def __init__(self) -> None:
        self.found: dict[str, list[agent_lease.Lease] | Exception] = {}
        self.hints: list[tuple[Any, ...]] = []
        self.away: Exception | None = None

    def hosts(self) -> list[str]:
        if self.away:
            raise self.away
        return sorted(self.found)

    def leases(self, host: str) -> list[agent_lease.Lease]:
        found = self.found[host]
        if isinstance(found, Exception):
            raise found
        return found

    def look(self, host: str) -> rpc.Look:
        found = self.leases(host)
        return rpc.Look(len(found) + 1, 1, found)

    def release_lease(self, *hint: Any) -> None:
        self.hints.append(hint)


def overheard(address: str, mac: str, **values: Any) -> agent_lease.Lease:
    return agent_lease.Lease(**{**{
        field.name: None for field in dataclasses.fields(agent_lease.Lease)},
        'address': base.ip(address), 'mac': mac, 'interface': 'tap0',
           'lease_seconds': 60, 'last_seen': 0.0, 'verdict': 'release',
           'reason': 'silent and gone', **values})  # type: ignore[arg-type]


class ReclaimTestCase(test_manage.ManageTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.agents = Agents()
        self.patch(manage_agents, 'client', lambda app: self.agents)
        self.driver = fakes.Server('a')
        for module in ('reclaim', 'lease'):
            self.useFixture(test_manage.fixtures.MonkeyPatch(
                f'vmip_plugin.cmd.manage.{module}.manager.load_drivers',
                lambda conf: {'a': self.driver}))

    def ports(self, count: int) -> None:
        for number in range(count):
            self.cloud.add(number, self.claim(number))
        self.clock.forward(31)


class TestRun(ReclaimTestCase):

    def said(self, *argv: str, code: int = 0) -> list[tuple[str, ...]]:
        return [(row['task'], row['subject'], row['action'], row['outcome'])
                for row in self.json('reclaim', 'run', *argv, code=code)]

    def test_twice(self) -> None:
        self.ports(3)
        self.said()
        self.cloud.delete(0)
        self.clock.forward(1)
        self.assertEqual([('deletes', A, 'release', 'noted')], self.said())
        self.assertIn('deletes: 1 looked at, 1 found, 0 done', self.err)
        self.assertEqual([], self.said())
        self.clock.forward(31)
        self.assertEqual([('confirm', A, 'release', 'would be done')],
                         self.said('--dry-run'))
        self.assertEqual(State.CLAIMED, self.state(A))
        self.assertEqual([('confirm', A, 'release', 'done')], self.said())
        self.assertEqual(State.RELEASING, self.state(A))
        last = self.inventory.history(base.ip(A))[-1]
        self.assertEqual(('vmip-manage (eve)', 'release'),
                         (last.actor, last.event))

    def test_some_tasks(self) -> None:
        self.ports(2)
        self.cloud.known.clear()
        self.assertEqual(
            [('ports', A, 'release', 'noted'),
             ('ports', '10.0.0.11', 'release', 'noted')],
            self.said('--task', 'ports', '--task', 'mend'))
        self.assertEqual({'ports', 'mend'},
                         {run.name for run in self.inventory.runs()})
        self.fails('no task x: reservations', 'reclaim', 'run', '--task',
                   'x')

    def test_cap_and_limit(self) -> None:
        self.ports(5)
        self.cloud.delete_all()
        self.said('--task', 'ports')
        self.clock.forward(31)
        found = self.said('--task', 'confirm', '--max-releases', '2',
                           '--limit', '3')
        self.assertEqual(['done', 'done', 'spared'], [f[3] for f in found])
        self.assertIn('2 more findings are not listed', self.err)
        self.assertEqual(2, len(list(self.inventory.addresses(
            state=[State.RELEASING]))))
        for argument in ('0', '-1', 'x'):
            self.wrong('reclaim', 'run', '--max-releases', argument)

    def test_failed(self) -> None:
        self.ports(1)
        self.cloud.away = True
        found = self.said(code=1)
        self.assertIn(('ports', '', '', 'failed'), found)
        self.assertNotIn(('mend', '', '', 'failed'), found)
        self.assertNotIn('Traceback', self.err)

    def test_credentials_that_do_not_show_all(self) -> None:
        self.ports(1)
        self.cloud.blind = True
        self.cloud.known.clear()
        self.assertIn(('ports', '', '', 'failed'), self.said(code=1))
        self.assertIsNone(self.row(A).gone_since)

    def test_agents(self) -> None:
        self.agents.found = {
            'one': [overheard(A, base.mac(1)),
                    overheard('10.0.0.11', base.mac(2), verdict='spare')],
            'two': ConnectionError('lost')}
        self.assertEqual(
            [('leases', A, 'release', 'release'),
             ('leases', '10.0.0.11', 'release', 'spared'),
             ('leases', 'two', '', 'failed')],
            self.said('--dry-run', code=1))
        self.assertIn('leases: one: 3 looked at, 1 answered', self.err)
        self.assertEqual([], self.said())
        self.agents.away = ConnectionError('no bus')
        self.assertEqual([('leases', 'all agents', '', 'failed')],
                         self.said('--dry-run', code=1))

    def test_bus_hangs(self) -> None:
        self.patch(manage_agents, 'ROLL', 0.1)
        self.patch(self.agents, 'hosts',
                   lambda: manage_agents.threading.Event().wait(20))
        found = self.json('reclaim', 'run', '--dry-run', code=1)
        self.assertIn('no answer', found[0]['reason'])


class TestStatus(ReclaimTestCase):

    def status(self, code: int) -> dict[str, dict[str, Any]]:
        return {row['task']: row for row in self.json(
            'reclaim', 'status', code=code)}

    def test_never(self) -> None:
        found = self.status(1)
        self.assertEqual(['owner', 'reservations', 'deletes', 'servers',
                          'ports', 'confirm', 'mend', 'work', 'expiry',
                          'history'],
                         list(found))
        self.assertEqual({'never'}, {row['state'] for row in found.values()})
        self.assertEqual([2.0, 60.0, 600.0], [
            found[name]['every'] for name in ('work', 'mend', 'ports')])

    def daemon(self) -> None:
        reclaimer = manage_reclaim.tasks.Reclaimer(
            self.conf, self.inventory, manage_reclaim.work.Worker(
                self.conf, self.inventory, {'a': self.driver}, self.cloud,
                None), self.cloud, me='one:7')
        for task in reclaimer.tasks():
            reclaimer.run(task)

    def test_well(self) -> None:
        self.ports(2)
        self.daemon()
        found = self.status(0)
        self.assertEqual({'well'}, {row['state'] for row in found.values()})
        self.assertEqual({'one:7'}, {row['by'] for row in found.values()})
        self.assertEqual((2, 0, 0.0, ''), tuple(
            found['ports'][key] for key in ('checked', 'found', 'seconds',
                                            'error')))

    def test_by_hand_owns_nothing(self) -> None:
        self.run_('reclaim', 'run')
        found = self.status(1)
        self.assertEqual('never', found['owner']['state'])
        self.assertIn('by hand', found['ports']['by'])
        self.assertEqual('well', found['ports']['state'])

    def test_silent_and_late(self) -> None:
        self.daemon()
        self.clock.forward(60)
        self.assertEqual('well', self.status(0)['owner']['state'])
        self.clock.forward(7)
        found = self.status(1)
        self.assertEqual(('silent', 'one:7'),
                         (found['owner']['state'], found['owner']['by']))
        self.assertEqual(('late', 'well'), (found['work']['state'],
                                            found['mend']['state']))

    def test_failed(self) -> None:
        self.cloud.away = True
        self.daemon()
        found = self.status(1)
        self.assertEqual(('failed', 'the cloud is away'), tuple(
            found['ports'][key] for key in ('state', 'error')))
        self.assertEqual('well', found['mend']['state'])

    def test_rehearsal_is_no_run(self) -> None:
        self.run_('reclaim', 'run', '--dry-run')
        self.assertEqual('never', self.status(1)['ports']['state'])

class TestConfirm(ReclaimTestCase):

    def test_confirm(self) -> None:
        self.ports(3)
        self.cloud.delete_all()
        self.conf.set_override('fuse_addresses', 1, 'reclaimer')
        self.conf.set_override('fuse_percent', 20, 'reclaimer')
        for task in ('reservations', 'ports'):
            self.json('reclaim', 'run', '--task', task)
        rows = self.json('reclaim', 'confirm', 'pool', '--dry-run')
        self.assertEqual([A, '10.0.0.11', '10.0.0.12'],
                         [row['address'] for row in rows])
        self.assertEqual(0, self.inventory.losses()[0].confirmed)
        self.json('reclaim', 'confirm', 'pool', '--minutes', '5')
        self.assertEqual(3, self.inventory.losses()[0].confirmed)
