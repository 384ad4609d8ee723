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
import itertools

from oslo_db import exception as db_exc
import sqlalchemy as sa

from tests.unit import base
from vmip_plugin.inventory import api
from vmip_plugin.inventory import models
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
            sources, targets = states.TRANSITIONS[event]
            with database.write() as session:
                session.execute(sa.update(models.AddressRow).where(
                    models.AddressRow.id == 1).values(state=old.value))
            with database.write() as session:
                row = session.get(models.AddressRow, 1)
                assert row is not None
                if old in sources and new in targets:
                    self.assertTrue(self.inventory._move(
                        session, row, event, new, ''))
                else:
                    self.assertRaises(
                        api.IllegalTransition, self.inventory._move,
                        session, row, event, new, '')
            expected = new if old in sources and new in targets else old
            self.assertEqual(expected, self.state('10.0.0.10'))

    def test_table(self) -> None:
        """Nobody takes an address from its holder, nor frees it unclean."""
        legal = {(old, new) for sources, targets in
                 states.TRANSITIONS.values() for old, new in
                 itertools.product(sources, targets)}
        self.assertEqual(set(Event), set(states.TRANSITIONS))
        for old in (State.CLAIMED, State.ACTIVE, State.ADOPTED):
            self.assertNotIn((old, State.FREE), legal)
            self.assertNotIn((old, State.RESERVED), legal)
            self.assertIn((old, State.RELEASING), legal)
        self.assertNotIn((State.ADOPTED, State.CLAIMED), legal)
        self.assertNotIn((State.RELEASING, State.ACTIVE), legal)

    def test_overtaken(self) -> None:
        self.pool()
        self.reserve()
        with self.inventory.database.write() as session:
            row = session.get(models.AddressRow, 1)
            assert row is not None
            session.execute(sa.update(models.AddressRow).values(
                generation=7), execution_options={
                    'synchronize_session': False})
            self.assertFalse(self.inventory._move(
                session, row, Event.CANCEL, State.FREE, ''))
        self.assertEqual(['reserve'], self.events('10.0.0.10'))
        self.assertEqual(State.RESERVED, self.state('10.0.0.10'))

    def test_claim_of_a_given_one_is_tried_again_if_overtaken(self) -> None:
        self.pool()
        original = self.inventory._move
        calls = [0]

        def move(*args: object, **kwargs: object) -> bool:
            calls[0] += 1
            return calls[0] > 1 and original(
                *args, **kwargs)  # type: ignore[arg-type]

        self.patch(self.inventory, '_move', move)
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
        self.inventory.hold('pool', base.ip('10.0.0.18'), 'held', None, None)
        self.claim(3, request='req-3', address=base.ip('10.0.0.19'))
        self.inventory.release(self.row('10.0.0.19'), '')
        self.inventory.cancel([self.row('10.0.0.11')], 'no')
        rows = {str(a.address): a for _, a in self.inventory.addresses(
            state=list(State))}
        self.assertEqual(11, len(rows))
        for address, row in rows.items():
            changes = self.inventory.history(row.address)
            state = changes[-1].new_state if changes else 'free'
            self.assertEqual(row.state, state)
            self.assertGreaterEqual(row.generation, len(changes))
            if state in ('claimed', 'releasing') or (
                    state == 'reserved' and not row.hold_name):
                last = changes[-1]
                for field in ('request_id', 'project_id', 'server_id',
                              'server_name', 'port_id', 'mac'):
                    self.assertEqual(getattr(row, field),
                                     getattr(last, field),
                                     f'{address} {field}')

    def test_hold_is_named(self) -> None:
        address = base.ip('10.0.0.12')
        self.inventory.hold('pool', address, 'db', base.PROJECT, None)
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
        self.assertEqual(self.clock.now, self.row('10.0.0.10').changed_at)

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
