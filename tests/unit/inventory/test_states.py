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

"""States: which change is allowed, and what the history says of it."""

import dataclasses
import datetime
import itertools
from typing import Any

from oslo_db import exception as db_exc
import sqlalchemy as sa

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import models
from vmip_plugin.inventory import moves
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

Event = states.Event
State = states.State


class TestTransitions(base.TestCase):

    def test_every_combination(self) -> None:
        """Each event from each state to each other: as the table says."""
        self.pool()
        self.reserve()
        database = self.inventory.database
        for event, old, new in itertools.product(Event, State, State):
            legal = states.is_legal(event, old, new)
            with database.write('test') as session:
                session.execute(sa.update(models.AddressRow).where(
                    models.AddressRow.id == 1).values(state=old.value))
            with database.write('test') as session:
                row = session.get(models.AddressRow, 1)
                assert row is not None
                if legal:
                    moves.move(session, row, event, new, '')
                else:
                    self.assertRaises(
                        moves.IllegalTransition, moves.move,
                        session, row, event, new, '')
            expected = new if legal else old
            self.assertEqual(expected, self.state('10.0.0.10'))

    def test_table(self) -> None:
        """Nobody takes an address from its holder, nor frees it unclean."""
        legal = set().union(*states.TRANSITIONS.values())
        self.assertEqual(set(Event), set(states.TRANSITIONS))
        for old in (State.CLAIMED, State.ACTIVE, State.ADOPTED):
            self.assertNotIn((old, State.FREE), legal)
            self.assertNotIn((old, State.RESERVED), legal)
            self.assertIn((old, State.RELEASING), legal)
        self.assertNotIn((State.ADOPTED, State.ACTIVE), legal)
        self.assertNotIn((State.RELEASING, State.ACTIVE), legal)

    def test_overtaken(self) -> None:
        self.pool()
        self.reserve()
        with self.inventory.database.write('test') as session:
            row = session.get_one(models.AddressRow, 1)
            session.execute(sa.update(models.AddressRow).values(
                generation=7), execution_options={
                    'synchronize_session': False})
            self.assertRaises(moves.Overtaken, moves.move, session, row,
                              Event.CANCEL, State.FREE, '')
        self.assertEqual(['reserve'], self.events('10.0.0.10'))
        self.assertEqual(State.RESERVED, self.state('10.0.0.10'))

    def test_claim_of_a_given_one_is_tried_again_if_overtaken(self) -> None:
        self.pool()
        original = moves.swap
        calls = [0]

        def swap(*args: Any) -> None:
            calls[0] += 1
            if calls[0] == 1:
                raise moves.Overtaken
            original(*args)

        self.patch(moves, 'swap', swap)
        self.assertEqual('10.0.0.15',
                         self.claim(address=base.ip('10.0.0.15')))
        self.assertEqual(2, calls[0])


class TestHistory(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool(reuse_delay=60)

    def life(self) -> None:
        """Lead one address through the whole of its life."""
        reserved = self.reserve()
        self.inventory.bind(reserved, base.server_id(1))
        self.inventory.extend(self.row('10.0.0.10'), 600)
        self.claim()
        self.inventory.activate(base.server_id(1), 'web', [base.mac(1)])
        self.inventory.change_mac(base.port_id(1), base.mac(9))
        self.inventory.release(self.row('10.0.0.10'), 'deleted')
        self.finish('10.0.0.10')
        self.clock.forward(61)
        self.inventory.rest_over()

    def test_every_change_names_the_holder(self) -> None:
        self.life()
        changes = self.inventory.history(base.ip('10.0.0.10'))
        self.assertEqual(
            ['reserve', 'bind', 'bind', 'claim', 'activate', 'change',
             'release', 'finish', 'rest'], [c.event for c in changes])
        for change in changes[:-1]:
            self.assertEqual('req-1', change.request_id)
            self.assertEqual(base.PROJECT, change.project_id)
            self.assertEqual('web', change.server_name)
            self.assertEqual('test', change.actor)
        for change in changes[1:-1]:
            self.assertEqual(base.server_id(1), change.server_id)
        for change in changes[3:5]:
            self.assertEqual(base.port_id(1), change.port_id)
            self.assertEqual(base.mac(1), change.mac)
        for change in changes[5:-1]:
            self.assertEqual(base.mac(9), change.mac)
        self.assertIsNone(changes[-1].request_id)
        self.assertEqual('deleted', changes[6].reason)

    def test_is_a_chain(self) -> None:
        self.life()
        changes = self.inventory.history(base.ip('10.0.0.10'))
        self.assertEqual('free', changes[0].old_state)
        for before, after in itertools.pairwise(changes):
            self.assertEqual(before.new_state, after.old_state)
            self.assertLessEqual(before.at, after.at)

    def test_replays_to_the_list(self) -> None:
        self.life()
        self.reserve('a', 'b', 'c', request='req-2')
        self.claim(2, request='req-2')
        self.hold('10.0.0.18', 'held')
        self.hold('10.0.0.17', None, base.PROJECT, seconds=60)
        self.reserve('held', request='req-4')
        self.claim(3, request='req-3', address=base.ip('10.0.0.19'))
        self.inventory.release(self.row('10.0.0.19'), '')
        self.inventory.cancel([self.row('10.0.0.11')], 'no')
        self.hold('10.0.0.12', 'c', base.PROJECT)
        self.inventory.unhold('pool', base.ip('10.0.0.18'))
        replayed = {change.address: change.standing()
                    for change in self.inventory.changes(page=3)}
        listed = {a.address: records.Standing.of(a)
                  for _, a in self.found(state=list(State))
                  if a.address in replayed or a.state != State.FREE}
        self.assertEqual(6, len(replayed))
        self.assertEqual(listed, replayed)

    def at(self, address: str, when: datetime.datetime) -> records.Standing:
        standing, = self.inventory.standing(base.ip(address), when)
        return standing

    def test_standing(self) -> None:
        """Who held it, at any moment, is told by the last change before."""
        began = self.clock.now
        self.clock.forward(10)
        self.reserve()
        self.clock.forward(10)
        self.claim()
        claimed = self.clock.now
        self.clock.forward(10)
        self.inventory.release(self.row('10.0.0.10'), 'deleted')
        self.clock.forward(10)
        self.finish('10.0.0.10')
        self.assertEqual(
            records.Standing(self.row('10.0.0.10').pool_id,
                             base.ip('10.0.0.10'), State.FREE),
            self.at('10.0.0.10', began))
        standing = self.at('10.0.0.10',
                           claimed - datetime.timedelta(seconds=5))
        self.assertEqual(
            (State.RESERVED, 'web', base.PROJECT, None),
            (standing.state, standing.server_name, standing.project_id,
             standing.mac))
        standing = self.at('10.0.0.10',
                           claimed + datetime.timedelta(seconds=5))
        self.assertEqual(
            (State.CLAIMED, 'web', base.PROJECT, base.server_id(1),
             base.mac(1)),
            (standing.state, standing.server_name, standing.project_id,
             standing.server_id, standing.mac))
        standing = self.at('10.0.0.10', self.clock.now)
        self.assertEqual((State.QUARANTINED, None, None),
                         (standing.state, standing.server_name,
                          standing.mac))

    def test_standing_in_every_pool(self) -> None:
        other = self.pool(name='other', subnet=base.port_id(7))
        self.claim(address=base.ip('10.0.0.15'))
        self.clock.forward(1)
        found = self.inventory.standing(base.ip('10.0.0.15'), self.clock.now)
        self.assertEqual({State.CLAIMED, State.FREE},
                         {s.state for s in found})
        found = self.inventory.standing(base.ip('10.0.0.15'), self.clock.now,
                                        'other')
        self.assertEqual([(other.id, State.FREE)],
                         [(s.pool_id, s.state) for s in found])
        self.assertRaises(exceptions.AddressNotFound, self.inventory.standing,
                          base.ip('10.9.9.9'), self.clock.now)
        self.assertRaises(exceptions.PoolNotFound, self.inventory.standing,
                          base.ip('10.0.0.15'), self.clock.now, 'none')

    def test_survives_its_pool(self) -> None:
        reserved = self.reserve()
        self.clock.forward(10)
        self.inventory.cancel(reserved, 'no')
        self.inventory.delete_pool('pool')
        standing = self.at('10.0.0.10',
                           self.clock.now - datetime.timedelta(seconds=5))
        self.assertEqual((State.RESERVED, 'web'),
                         (standing.state, standing.server_name))

    def test_hold_is_named(self) -> None:
        address = base.ip('10.0.0.12')
        self.hold(str(address), 'db', base.PROJECT)
        self.inventory.unhold('pool', address)
        for change in self.inventory.history(address):
            self.assertEqual(('db', base.PROJECT),
                             (change.server_name, change.project_id))
        self.assertEqual(['hold', 'unhold'], self.events('10.0.0.12'))

    def test_last_holder(self) -> None:
        address = base.ip('10.0.0.10')
        self.assertIsNone(self.inventory.last_holder(address, base.mac(1)))
        self.claim(1, request='')
        self.inventory.release(self.row('10.0.0.10'), '')
        self.finish('10.0.0.10')
        self.clock.forward(100)
        self.inventory.rest_over()
        self.claim(2, request='')
        self.assertEqual(base.port_id(2), self.row('10.0.0.10').port_id)
        for number in (1, 2):
            last = self.inventory.last_holder(address, base.mac(number))
            assert last is not None
            self.assertEqual(
                (base.server_id(number), base.port_id(number)),
                (last.server_id, last.port_id))
        self.assertIsNone(self.inventory.last_holder(address, base.mac(3)))
        self.assertIsNone(self.inventory.last_holder(
            base.ip('10.0.0.11'), base.mac(1)))

    def test_long_reason(self) -> None:
        self.inventory.cancel(self.reserve(), 'x' * 1000)
        self.assertEqual('x' * 255, self.inventory.history(
            base.ip('10.0.0.10'))[-1].reason)


class TestRecords(base.TestCase):

    def test_are_valid_after_the_session(self) -> None:
        self.pool()
        row = self.reserve()[0]
        self.assertEqual(row, self.row('10.0.0.10'))
        self.assertEqual('web', dataclasses.asdict(row)['server_name'])

    def test_moment_keeps_its_microseconds(self) -> None:
        self.pool()
        self.reserve()
        self.clock.forward(0.000001)
        self.inventory.cancel([self.row('10.0.0.10')], '')
        self.assertEqual(self.clock.now + datetime.timedelta(microseconds=1),
                         self.row('10.0.0.10').changed_at)

    def test_one_row_an_address(self) -> None:
        self.pool()
        self.reserve()
        with self.inventory.database.engine.connect() as connection:
            row = connection.execute(sa.select(
                models.AddressRow.__table__).limit(1)).mappings().one()
            self.assertRaises(
                db_exc.DBDuplicateEntry, connection.execute,
                sa.insert(models.AddressRow.__table__).values(
                    **{**row, 'id': 999}))


class TestClock(base.TestCase):
    """A clock that is set back loses nothing and ends nothing too early."""

    def setUp(self) -> None:
        super().setUp()
        self.pool(reuse_delay=60)
        self.reserve(ttl=60)
        self.clock.forward(-3600)

    def test_history_stays_in_order(self) -> None:
        self.claim()
        self.inventory.release(self.row('10.0.0.10'), '')
        changes = self.inventory.history(base.ip('10.0.0.10'))
        self.assertEqual(['reserve', 'claim', 'release'],
                         [c.event for c in changes])
        self.assertEqual(sorted({c.at for c in changes}),
                         [c.at for c in changes])

    def test_requests_go_on(self) -> None:
        self.assertEqual(['10.0.0.11'], base.addresses(
            self.reserve(request='req-2')))

    def test_nothing_is_ended(self) -> None:
        for ending in (self.inventory.expired, self.inventory.rest_over):
            error = self.assertRaises(exceptions.ClockSetBack, ending)
            self.assertIn('NTP', str(error))
        # a right clock's next change heals it
        self.clock.forward(3600)
        self.assertEqual([], self.inventory.expired())
        self.clock.forward(60)
        self.assertEqual(1, len(self.inventory.expired()))

    def test_hosts_may_differ_a_little(self) -> None:
        self.clock.forward(3600 - 30)
        self.assertEqual([], self.inventory.expired())
        self.assertEqual(0, self.inventory.rest_over())
