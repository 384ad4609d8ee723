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

"""Many processes at once: no address ever has two holders."""

import collections
import datetime
import itertools
import multiprocessing
import os
import pathlib
import pickle
from typing import Any

import fixtures
import testtools

from tests import databases
from tests.functional.database import worker
from tests.unit import base
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

PROCESSES = int(os.environ.get('VMIP_STRESS_PROCESSES', '32'))
SECONDS = int(os.environ.get('VMIP_STRESS_SECONDS', '60'))

#: seconds for all to be ready, and to come to an end, on a busy machine
PATIENCE = 120

State = states.State


class Storm(testtools.TestCase):
    """32 processes reserve, claim, bind, expire and release for a while."""

    def storm(self, urls: list[str]) -> None:
        """Let it go over a database, and look at what is left of it.

        :param urls: of the empty database, one a node.
        """
        inventory = api.Inventory(base.new_conf(urls[0]), 'test')
        self.addCleanup(lambda: inventory.database.engine.dispose())
        inventory.database.upgrade()
        pools = {}
        for network, (allocator, subnet) in worker.NETWORKS.items():
            pools[inventory.create_pool(
                name=allocator, network_id=network, subnet_id=subnet,
                cidr='10.0.0.0/24', ranges=[(base.ip('10.0.0.1'),
                                             base.ip('10.0.0.60'))],
                allocator=allocator, reuse_delay=1, dhcp_servers=['a', 'b'],
            ).id] = subnet
        inventory.database.engine.dispose()
        seen = self.run_workers(urls, pools)
        self.assertEqual([], [e for one in seen for e in one.errors])
        counts = sum((one.counts for one in seen), collections.Counter[str]())
        self.addDetail('calls', testtools.content.text_content(
            '\n'.join(f'{n:8} {what}' for what, n in counts.most_common())))
        # each kind of call was made, and the pools were full at times
        for name in ('reserve', 'claim_reserved', 'claim_any', 'claim_given',
                     'cancel', 'bind', 'activate', 'change_mac', 'release',
                     'work', 'expire', 'rest', 'hold', 'rehearse',
                     'reserve: PoolExhausted'):
            self.assertGreater(counts[name], 0, counts)
        total = sum(counts.values())
        # more, the busier the machine
        self.assertLess(counts['too busy'], total / 10, counts)
        print(f'{self.id()}: {total} calls by {PROCESSES} processes in '
              f'{SECONDS} s, {counts["too busy"]} of them too busy',
              flush=True)
        self.check_tenures(seen)
        self.check_list(inventory, seen, pools)
        self.check_history(inventory)

    def run_workers(self, urls: list[str], pools: dict[str, str],
                    ) -> list[worker.Seen]:
        folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        context = multiprocessing.get_context('fork')
        # should one of them die, the others must not wait for it
        barrier = context.Barrier(PROCESSES, timeout=PATIENCE)
        started = [context.Process(
            target=worker.run, args=(urls, pools, number, SECONDS, barrier,
                                     folder / str(number)), daemon=True)
            for number in range(PROCESSES)]
        for process in started:
            process.start()
        for process in started:
            process.join(SECONDS + 2 * PATIENCE)
        self.assertEqual([0] * PROCESSES, [p.exitcode for p in started])
        return [pickle.loads((folder / str(number)).read_bytes())
                for number in range(PROCESSES)]

    def check_tenures(self, seen: list[worker.Seen]) -> None:
        """No two were told at the same time that one address is theirs."""
        tenures: dict[Any, list[tuple[float, float]]] = {}
        for one in seen:
            for where, since, until in one.tenures:
                if until > since:
                    tenures.setdefault(where, []).append((since, until))
        self.assertGreater(sum(map(len, tenures.values())), PROCESSES)
        for where, found in tenures.items():
            for (_, until), (since, _) in itertools.pairwise(sorted(found)):
                self.assertLessEqual(until, since, where)

    def check_list(self, inventory: api.Inventory, seen: list[worker.Seen],
                   pools: dict[str, str]) -> None:
        """The list has every port that is left, and no other."""
        rows = {(pools[a.pool_id], str(a.address)): a
                for _, a in inventory.addresses(state=list(State))}
        self.assertEqual(180, len(rows))
        in_use = {where: a.port_id for where, a in rows.items()
                  if a.state in states.IN_USE}
        self.assertEqual({where: port for one in seen
                          for where, port in one.held.items()}, in_use)
        entries = inventory.entries()
        for where, a in rows.items():
            holder = [getattr(a, key) for key in states.HOLDER]
            if a.state in states.VACANT:
                self.assertEqual([None] * 6, holder, a)
                self.assertIsNone(a.hold_name)
            if a.state is State.FREE:
                self.assertIsNone(a.expires_at)
            if a.state in states.IN_USE:
                self.assertIsNone(a.expires_at)
                self.assertEqual([('a', a.mac, True), ('b', a.mac, True)], [
                    (e.server, e.mac, e.present) for e in entries
                    if (e.address, e.mac) == (a.address, a.mac)
                    and e.present][:2], where)

    def check_history(self, inventory: api.Inventory) -> None:
        """It is a chain of legal changes, and replays to the list."""
        last: dict[tuple[str, Any], records.Change] = {}
        began: dict[tuple[str, Any], datetime.datetime] = {}
        for change in inventory.changes():
            key = (change.pool_id, change.address)
            before = last.get(key)
            self.assertEqual('free' if before is None else before.new_state,
                             change.old_state, change)
            if before is not None:
                self.assertLess(before.at, change.at)
            self.assertTrue(states.is_legal(
                states.Event(change.event), State(change.old_state),
                State(change.new_state)), change)
            last[key] = change
            began.setdefault(key, change.at)
        self.assertEqual(
            {(a.pool_id, a.address): records.Standing.of(a)
             for _, a in inventory.addresses(state=list(State))
             if (a.pool_id, a.address) in last or a.state != State.FREE},
            {key: change.standing() for key, change in last.items()})
        self.assertGreater(len(last), 150)


class TestStorm(Storm):

    def test_sqlite(self) -> None:
        folder = self.useFixture(fixtures.TempDir()).path
        self.storm([f'sqlite:///{folder}/vmip'])

    def test_mariadb(self) -> None:
        server = self.useFixture(databases.MariaDB())
        self.storm([server.databases.create()])

    def test_postgresql(self) -> None:
        server = self.useFixture(databases.PostgreSQL())
        self.storm([server.databases.create()])

    def test_galera(self) -> None:
        self.storm(self.useFixture(databases.Galera()).create())
