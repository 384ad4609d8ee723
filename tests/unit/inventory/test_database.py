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

"""The database: retries, many writers, and what may be wrong."""

from collections.abc import Callable
import multiprocessing
import os
import threading
from typing import Any

from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm

from tests.unit import base
from tests.unit.inventory import unavailable
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import database
from vmip_plugin.inventory import models
from vmip_plugin.inventory import picking
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import records
from vmip_plugin.inventory import transactions

SECRET = unavailable.SECRET
ENTRIES = models.Base.metadata.tables['host_entries']


class TestRetry(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()

    def failing(self, times: int, error: Exception) -> list[int]:
        """Let the first transactions end in an error; count them all."""
        calls = [0]
        original = pools.of_network

        def of_network(*args: Any) -> Any:
            calls[0] += 1
            if calls[0] <= times:
                raise error
            return original(*args)

        self.patch(pools, 'of_network', of_network)
        return calls

    def test_deadlock(self) -> None:
        calls = self.failing(3, db_exc.DBDeadlock())
        self.assertEqual(['10.0.0.10'], base.addresses(self.reserve()))
        self.assertEqual(4, calls[0])

    def test_duplicate(self) -> None:
        calls = self.failing(2, db_exc.DBDuplicateEntry())
        self.assertEqual(['10.0.0.10'], base.addresses(self.reserve()))
        self.assertEqual(3, calls[0])

    def test_not_for_ever(self) -> None:
        self.patch(transactions.db_api.time, 'sleep', lambda seconds: None)
        calls = self.failing(10 ** 6, db_exc.DBDeadlock(SECRET))
        error = self.assertRaises(exceptions.InventoryUnavailable,
                                  self.reserve)
        self.assertNotIn(SECRET, str(error))
        self.assertEqual(11, calls[0])

    def test_other_errors_are_not_tried_again(self) -> None:
        calls = self.failing(9, db_exc.DBError(
            Exception('disk full')))
        error = self.assertRaises(exceptions.InventoryUnavailable,
                                  self.reserve)
        self.assertIn('disk full', str(error))
        self.assertEqual(1, calls[0])

    def test_nothing_of_a_failed_try_stays(self) -> None:
        original = picking.pick
        calls = [0]

        def pick(*args: Any, **values: Any) -> Any:
            found = original(*args, **values)
            calls[0] += 1
            if calls[0] == 2:
                raise db_exc.DBDeadlock()
            return found

        self.patch(picking, 'pick', pick)
        self.assertEqual(['10.0.0.10', '10.0.0.11'],
                         base.addresses(self.reserve('a', 'b')))
        self.assertEqual(['reserve'], self.events('10.0.0.10'))

    def entry_changed_meanwhile(self, call: Callable[[], Any]) -> int:
        """Let another worker change an entry between a read and a write.

        On SQLite writers wait for each other, so it is done from within the
        session; its rollback undoes that, and the next try goes well.
        """
        tries = [0]

        def before_flush(session: orm.Session, *args: Any) -> None:
            tries[0] += 1
            if tries[0] == 1:
                session.connection().execute(sa.update(ENTRIES).values(
                    present=False, done=False,
                    generation=ENTRIES.c.generation + 1))

        sa.event.listen(orm.Session, 'before_flush', before_flush)
        try:
            call()
        finally:
            sa.event.remove(orm.Session, 'before_flush', before_flush)
        return tries[0]

    def test_work_done_overwrites_no_newer_intent(self) -> None:
        """Also where the intent changes at the last moment."""
        self.claim()
        work = self.inventory.work(port_ids=[base.port_id(1)])[0]
        newer = sa.update(ENTRIES).values(
            generation=ENTRIES.c.generation + 1)

        def before(state: orm.ORMExecuteState) -> None:
            if state.is_update:
                state.session.connection().execute(newer)

        sa.event.listen(orm.Session, 'do_orm_execute', before)
        try:
            self.assertFalse(self.inventory.work_done(work))
        finally:
            sa.event.remove(orm.Session, 'do_orm_execute', before)
        self.assertFalse(self.inventory.entries()[0].done)

    def test_removal_done_overwrites_no_newer_intent(self) -> None:
        """Also where the intent changes after it was read."""
        address = self.claim()
        self.inventory.release(self.row(address), '')
        work = self.inventory.work(port_ids=[base.port_id(1)])[0]
        tries = [0]

        def before(state: orm.ORMExecuteState) -> None:
            tries[0] += state.is_delete
            if state.is_delete and tries[0] == 1:
                state.session.connection().execute(
                    sa.update(ENTRIES).values(
                        generation=ENTRIES.c.generation + 1))

        sa.event.listen(orm.Session, 'do_orm_execute', before)
        try:
            # its rollback undoes that
            self.assertTrue(self.inventory.work_done(work))
        finally:
            sa.event.remove(orm.Session, 'do_orm_execute', before)
        self.assertEqual(2, tries[0])

    def test_release_undoes_what_was_marked_done_meanwhile(self) -> None:
        address = self.claim()

        def before_flush(session: orm.Session, *args: Any) -> None:
            # after the entries were read, before they are written
            if any(isinstance(changed, models.HostEntryRow)
                   for changed in session.dirty):
                session.connection().execute(
                    sa.update(ENTRIES).values(done=True))

        sa.event.listen(orm.Session, 'before_flush', before_flush)
        try:
            self.inventory.release(self.row(address), '')
        finally:
            sa.event.remove(orm.Session, 'before_flush', before_flush)
        self.assertEqual([('a', address, base.mac(1), False, False)],
                         self.entries())

    def test_change_overwrites_no_newer_intent(self) -> None:
        self.claim()
        self.assertGreater(self.entry_changed_meanwhile(
            lambda: self.inventory.change_mac(base.port_id(1),
                                              base.mac(9))), 1)
        self.assertEqual(base.mac(9), self.inventory.entries()[0].mac)

    def redone_meanwhile(self, address: str, **newer: object,
                         ) -> records.Work:
        """Return what is to do where a redo comes upon a newer intent."""
        def before(state: orm.ORMExecuteState) -> None:
            if state.is_update:
                state.session.connection().execute(
                    sa.update(ENTRIES).values(
                        generation=ENTRIES.c.generation + 1, **newer))

        sa.event.listen(orm.Session, 'do_orm_execute', before)
        try:
            self.inventory.redo('a', [base.ip(address)])
        finally:
            sa.event.remove(orm.Session, 'do_orm_execute', before)
        work, = self.inventory.work(port_ids=[base.port_id(1)])
        return work

    def test_redo_overwrites_no_newer_intent(self) -> None:
        address = self.claim()
        work = self.redone_meanwhile(address, mac=base.mac(9))
        self.assertEqual((base.mac(9), True, 3),
                         (work.mac, work.present, work.generation))

    def test_redo_leaves_a_newer_removal(self) -> None:
        address = self.claim()
        work = self.redone_meanwhile(address, present=False)
        self.assertEqual((base.mac(1), False, 2),
                         (work.mac, work.present, work.generation))


def _reserve_many(connection: str, worker: int, count: int,
                  results: Any) -> None:
    """Reserve one at a time, in a process or thread of its own."""
    inventory = api.Inventory(base.new_conf(connection), f'worker {worker}')
    try:
        for number in range(count):
            found = inventory.reserve(
                records.Requester(f'req-{worker}-{number}', base.PROJECT),
                [records.Wanted(base.NETWORK, (f'vm-{worker}-{number}',))],
                600)
            results.put([str(a.address) for a in found])
    except BaseException as exc:
        results.put(repr(exc))
        raise
    finally:
        inventory.database.engine.dispose()


class TestManyWriters(base.TestCase):

    def test_one_address_one_holder(self) -> None:
        self.pool('10.0.0.1', '10.0.1.254', '10.0.0.0/23')
        spawn = multiprocessing.get_context('spawn')
        results = spawn.Queue()
        workers: list[Any] = [
            spawn.Process(target=_reserve_many,
                          args=(self.connection, n, 12, results))
            for n in range(4)]
        shared = self.inventory

        def in_thread(worker: int) -> None:
            # all threads of one process have one list between them
            for number in range(12):
                try:
                    results.put(base.addresses(shared.reserve(
                        records.Requester(f'req-{worker}-{number}',
                                          base.PROJECT),
                        [records.Wanted(base.NETWORK, ('vm',))], 600)))
                except BaseException as exc:
                    results.put(repr(exc))

        workers += [threading.Thread(target=in_thread, args=(n,))
                    for n in range(4, 12)]
        for worker in workers:
            worker.start()
        found = [results.get(timeout=50) for _ in range(12 * 12)]
        for worker in workers:
            worker.join()
        self.assertEqual([], [f for f in found if not isinstance(f, list)])
        self.assertEqual({1}, {len(one) for one in found})
        self.assertEqual(144, len({one[0] for one in found}))
        self.assertEqual(144, self.inventory.pools()[0][1]['reserved'])

    def test_after_fork(self) -> None:
        self.pool()
        self.reserve()
        parent = self.inventory.database.engine
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                same = self.inventory.database.engine is parent
                os.write(write, f'{same} {len(self.reserve())}'.encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        self.assertEqual(b'False 1', os.read(read, 100))
        os.close(read)
        os.close(write)
        self.assertIs(parent, self.inventory.database.engine)


class TestUnavailable(unavailable.TestCase):

    def test_no_schema(self) -> None:
        connection = self.new_database('empty', empty=True)
        for call in ('reserve', 'read'):
            self.assertIn('vmip-manage db upgrade',
                          self.message(connection, call))

    def test_an_error_without_words(self) -> None:
        def nothing(*args: Any) -> None:
            raise OSError

        self.patch(pools, 'of_network', nothing)
        self.assertIn('OSError', self.message(self.connection))

    def test_connections_are_all_in_use(self) -> None:
        def timeout(*args: Any) -> None:
            raise sa.exc.TimeoutError('QueuePool limit')

        self.patch(pools, 'of_network', timeout)
        self.assertIn('QueuePool limit', self.message(self.connection))

    def test_wrong_connection(self) -> None:
        for connection in ('not a url', 'mysql+nodriver://h/d', 'x://h/d'):
            inventory = api.Inventory(base.new_conf(connection), 'x')
            error = self.assertRaises(exceptions.ConfigError,
                                      inventory.pools)
            self.assertIn('[database] connection', str(error))
            self.assertNotIn('\n', str(error))


class TestClocks(base.TestCase):

    def apart(self, ahead: float, *times: tuple[float, float]) -> float:
        """Compare with a clock that is ahead of ours.

        :param times: seconds to the question and to the answer.
        """
        answers = iter(times)

        def ask() -> float:
            there, back = next(answers)
            self.clock.forward(there)
            theirs = self.clock.now.timestamp() + ahead
            self.clock.forward(back)
            return theirs

        return database.apart(ask)

    def test_slow_answers_set_no_clock_wrong(self) -> None:
        for times in ((0.0, 3.4), (3.4, 0.0), (1.7, 1.7)):
            self.assertAlmostEqual(0.0, self.apart(0.0, *[times] * 5),
                                   places=5)

    def test_the_best_answer_counts(self) -> None:
        times = [(3.4, 2.0)] * 3 + [(0.01, 0.01)] + [(9.0, 9.0)]
        for ahead in (60.0, 2.0, -2.0, -60.0):
            self.assertAlmostEqual(abs(ahead), self.apart(ahead, *times),
                                   delta=0.02)
