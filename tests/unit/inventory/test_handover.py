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

"""An address goes to its next holder before it is all forgotten."""

from typing import Any

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import models
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

Evidence = states.Evidence
State = base.State
ip = base.ip

A, B, C = '10.0.0.10', '10.0.0.11', '10.0.0.12'


class HandOverTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.made = self.pool(last=C)
        self.inventory.bind(self.reserve('old'), base.server_id(1))
        self.claim(1)
        self.inventory.activate(base.server_id(1), 'old', [base.mac(1)])
        self.served()

    def served(self) -> None:
        """Have the DHCP server written what it has to have."""
        with self.inventory.database.write('test') as session:
            for entry in session.query(models.HostEntryRow).filter_by(
                    present=True):
                entry.done = True

    def release(self, address: str = A,
                evidence: Evidence | None = Evidence.COMMITTED) -> None:
        self.clock.forward(1)
        self.inventory.release_address(
            base.SUBNET, ip(address), 'deleted', evidence)

    def take(self, number: int, address: str | None = None,
             silent: bool = True, **values: Any) -> str:
        """Claim an address, and look on the wire if that is asked for."""
        if address is not None:
            values['address'] = ip(address)
        try:
            return self.claim(number, request=f'req-{number}', **values)
        except exceptions.AddressReleasing as exc:
            self.looked_at = [str(held.address) for held in exc.held]
            if not silent:
                raise
            return self.claim(number, request=f'req-{number}',
                              silent=exc.held, **values)


class TestGiven(HandOverTestCase):

    def test_proof(self) -> None:
        for number, evidence in enumerate(states.PROOF, 2):
            self.release(evidence=evidence)
            self.assertEqual(A, self.take(number, A))
            self.assertEqual([A], self.looked_at)
            row = self.row(A)
            self.assertEqual(
                (State.CLAIMED, base.port_id(number), base.mac(number), None),
                (row.state, row.port_id, row.mac, row.server_name))
            # the server has one entry for it, and no name of another's
            self.assertEqual([('a', A, base.mac(number), True, False)],
                             self.entries())
            work, = self.inventory.work(port_ids=[base.port_id(number)])
            self.assertIsNone(work.hostname)
            self.inventory.activate(base.server_id(number), 'old',
                                    [base.mac(number)])

    def test_no_proof(self) -> None:
        for evidence in (None, Evidence.PORT_MISSING, Evidence.SILENT):
            self.release(evidence=evidence)
            self.assertRaises(exceptions.AddressInUse, self.take, 2, A)
            self.inventory.keep(self.inventory.work(
                port_ids=[base.port_id(1)])[0])

    def test_only_after_a_look(self) -> None:
        self.release()
        self.assertRaises(exceptions.AddressReleasing, self.take, 2, A, False)
        self.assertEqual(State.RELEASING, self.state(A))

    def test_a_look_is_not_for_ever(self) -> None:
        """What was silent once was another's meanwhile."""
        self.release()
        before = self.row(A)
        self.take(2, A)
        self.release()
        self.assertRaises(
            exceptions.AddressReleasing, self.claim, 3, address=ip(A),
            request='req-3', silent=[before])

    def test_its_own(self) -> None:
        """A port whose address is changed, and changed back."""
        self.release(evidence=None)
        self.assertEqual(A, self.claim(1, request='req-9', address=ip(A)))
        self.assertEqual([('a', A, base.mac(1), True, False)],
                         self.entries())

    def test_held_for_others(self) -> None:
        self.hold(B, None, base.OTHER_PROJECT)
        self.claim(2, project=base.OTHER_PROJECT, address=ip(B))
        self.release(B)
        self.assertRaises(exceptions.AddressInUse, self.take, 3, B)
        self.assertEqual(B, self.take(4, B, project=base.OTHER_PROJECT))

    def test_the_old_mac_has_lost_it(self) -> None:
        """So that the worker may end its lease."""
        self.release()
        self.assertFalse(self.inventory.has_lost(
            self.made.id, ip(A), base.mac(1)))
        self.take(2, A)
        self.assertTrue(self.inventory.has_lost(
            self.made.id, ip(A), base.mac(1)))
        self.assertFalse(self.inventory.has_lost(
            self.made.id, ip(A), base.mac(2)))

    def test_two_swap(self) -> None:
        self.claim(2, request='req-2', address=ip(B))
        self.release(A)
        self.claim(1, request='r', address=ip(C))
        self.release(B)
        self.take(2, A)
        self.release(C)
        self.take(1, B)
        self.assertEqual(
            [(A, base.port_id(2)), (B, base.port_id(1))],
            [(str(row.address), row.port_id) for _, row in self.found(
                state=[State.CLAIMED])])

    def test_evidence_is_over_when_the_next_one_runs(self) -> None:
        self.release()
        self.take(2, A)
        self.inventory.activate(base.server_id(2), 'new', [base.mac(2)])
        self.assertIsNone(self.row(A).evidence)


class TestUndone(HandOverTestCase):

    def undo(self, number: int = 2) -> None:
        self.assertTrue(self.inventory.undo_claim(
            base.SUBNET, ip(A), base.port_id(number), 600))

    def standing(self) -> tuple[Any, ...]:
        row = self.row(A)
        return (row.state, row.evidence, row.port_id, row.mac, row.server_id,
                row.server_name, row.project_id, row.former_name)

    def test_as_before(self) -> None:
        self.release()
        before = self.standing(), self.entries()
        self.take(2, A)
        self.undo()
        self.assertEqual(before, (self.standing(), self.entries()))
        # and on to the next
        self.assertEqual(A, self.take(3, A))

    def test_new_entry_is_written_already(self) -> None:
        self.release()
        self.take(2, A)
        self.served()
        self.undo()
        self.assertEqual([('a', A, base.mac(2), False, False)],
                         self.entries())

    def test_reserved_first(self) -> None:
        self.release()
        given = self.inventory.reserve(
            records.Requester('req-2', base.PROJECT),
            [records.Wanted(base.NETWORK, ('new',), (ip(A),))], 600)
        self.assertEqual([A], base.addresses(given))
        self.take(2)
        self.undo()
        row = self.row(A)
        self.assertEqual((State.RESERVED, Evidence.COMMITTED, 'new'),
                         (row.state, row.evidence, row.server_name))
        self.assertEqual([('a', A, base.mac(1), False, False)],
                         self.entries())

    def test_only_the_port_that_claimed(self) -> None:
        self.assertFalse(self.inventory.undo_claim(
            base.SUBNET, ip(A), base.port_id(2), 600))
        self.take(3, B)
        self.assertFalse(self.inventory.undo_claim(
            base.SUBNET, ip(B), base.port_id(2), 600))
        self.assertEqual(State.CLAIMED, self.state(B))


class TestRequest(HandOverTestCase):
    """The same through the filter in nova-api."""

    def ask(self, address: str | None = A, name: str = 'new',
            project: str = base.PROJECT) -> list[str]:
        return base.addresses(self.inventory.reserve(
            records.Requester('req-2', project), [records.Wanted(
                base.NETWORK, (name,), (ip(address),) if address else ())],
            600))

    def test_given(self) -> None:
        for evidence in (None, Evidence.PORT_MISSING, Evidence.SILENT):
            self.release(evidence=evidence)
            self.assertRaises(exceptions.AddressInUse, self.ask)
            self.inventory.keep(self.inventory.work(
                port_ids=[base.port_id(1)])[0])
        self.release()
        self.assertEqual([A], self.ask())
        self.assertEqual(A, self.take(2))
        self.assertEqual([A], self.looked_at)

    def test_given_and_clean_by_the_time_of_the_port(self) -> None:
        self.release()
        self.ask()
        self.finish(A)
        self.assertEqual(A, self.claim(2, request='req-2'))

    def test_answered(self) -> None:
        self.release()
        self.inventory.note_answered(self.row(A), clock.now())
        self.assertRaises(exceptions.AddressAnswers, self.ask)
        self.inventory.note_answered(self.row(A), None)
        self.assertEqual([A], self.ask())

    def test_held_for_others(self) -> None:
        self.hold(A, 'old', base.PROJECT)
        self.release()
        self.assertRaises(exceptions.AddressInUse, self.ask)
        self.assertRaises(exceptions.AddressInUse, self.ask, name='old',
                          project=base.OTHER_PROJECT)
        self.assertEqual([A], self.ask(name='old'))

    def test_given_up(self) -> None:
        """It goes back to where it was taken from, and loses nothing."""
        self.release()
        given = self.inventory.reserve(
            records.Requester('req-2', base.PROJECT),
            [records.Wanted(base.NETWORK, ('new',), (ip(A),))], 600)
        self.inventory.cancel(given, 'refused')
        row = self.row(A)
        self.assertEqual((State.RELEASING, Evidence.COMMITTED),
                         (row.state, row.evidence))
        self.assertEqual(A, self.take(3, A))

    def test_nothing_else_is_free(self) -> None:
        for number, address in ((2, B), (3, C)):
            self.claim(number, address=ip(address), request='r')
        self.assertRaises(exceptions.PoolExhausted, self.ask, None)
        self.release()
        self.assertEqual([A], self.ask(None))


class TestNothingFree(HandOverTestCase):

    def setUp(self) -> None:
        super().setUp()
        for number, address in ((2, B), (3, C)):
            self.claim(number, address=ip(address), request='r')

    def test_longest_silent_first(self) -> None:
        self.release(B)
        self.release(A)
        self.release(C, None)
        self.assertEqual(B, self.take(4))
        self.assertEqual([B, A], self.looked_at)
        self.assertEqual(A, self.take(5))
        self.assertRaises(exceptions.PoolExhausted, self.take, 6)

    def test_not_while_another_is_free(self) -> None:
        self.release(B)
        self.release(A)
        self.finish(A)
        self.assertEqual(A, self.claim(4, request='req-4'))

    def test_not_what_answers(self) -> None:
        self.release(A)
        self.inventory.note_answered(self.row(A), clock.now())
        self.assertRaises(exceptions.PoolExhausted, self.take, 4)

    def test_not_what_is_held(self) -> None:
        self.hold(A, 'old', base.PROJECT)
        self.release(A)
        self.assertRaises(exceptions.PoolExhausted, self.take, 4)

    def test_not_what_has_to_rest(self) -> None:
        self.inventory.change_pool('pool', reuse_delay=60)
        self.release(A)
        self.assertRaises(exceptions.PoolExhausted, self.take, 4)


class TestEvidence(HandOverTestCase):

    def test_of_neutrons_commit_is_due_at_once(self) -> None:
        self.release()
        self.assertEqual([A], [str(w.address) for w in self.inventory.work()])

    def test_stronger_evidence_comes_later(self) -> None:
        self.release(evidence=Evidence.PORT_MISSING)
        self.assertEqual([], self.inventory.work())
        self.release()
        self.assertEqual(Evidence.COMMITTED, self.row(A).evidence)
        self.assertEqual(1, len(self.inventory.work()))
        self.release(evidence=Evidence.SERVER_DELETED)
        self.assertEqual(Evidence.COMMITTED, self.row(A).evidence)

    def test_of_another_port(self) -> None:
        self.assertFalse(self.inventory.release_address(
            base.SUBNET, ip(A), '', Evidence.COMMITTED, base.port_id(9)))
        self.assertEqual(State.ACTIVE, self.state(A))

    def test_sticky(self) -> None:
        """A server of the name has it again, as soon as that is proved."""
        self.inventory.change_pool('pool', allocator='sticky')
        self.release(evidence=Evidence.PORT_MISSING)
        self.assertEqual([B], base.addresses(
            self.reserve('old', request='r-2')))
        self.release()
        self.assertEqual([A], base.addresses(
            self.reserve('old', request='r-3')))

    def test_sticky_and_answers(self) -> None:
        self.inventory.change_pool('pool', allocator='sticky')
        self.release()
        self.inventory.note_answered(self.row(A), clock.now())
        self.assertEqual([B], base.addresses(
            self.reserve('old', request='r-2')))
