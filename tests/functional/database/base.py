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

"""What happens to the list when its server is not as it should be."""

from collections.abc import Callable
import datetime
import pathlib
import re
import threading
import time
from typing import Any

from oslo_db import exception as db_exc
import sqlalchemy as sa
from sqlalchemy import orm

from tests import databases
from tests.unit import base
from tests.unit.inventory import unavailable
from vmip_plugin import exceptions
from vmip_plugin.hooks import base as hook_base
from vmip_plugin.hooks import manager
from vmip_plugin.inventory import api
from vmip_plugin.inventory import models
from vmip_plugin.inventory import moves
from vmip_plugin.inventory import records
from vmip_plugin.reclaim import owner

GRANTS = pathlib.Path(__file__).parents[3] / 'doc/examples/database'

State = base.State

#: a network without a pool
OTHER = '99999999-0000-0000-0000-000000000099'

ENTRIES = models.Base.metadata.tables['host_entries']


def _request(network: str) -> hook_base.Request:
    return hook_base.Request(
        records.Requester('req-1', base.PROJECT), ('web',),
        (hook_base.RequestedNetwork(network),))


class ServerContract(unavailable.TestCase):
    """Tests for every kind of server, each with one to mistreat."""

    #: words of the server's own: no connection, a wrong password, no such
    #: database, a connection that was cut
    refused: str
    denied: str
    unknown: str
    cut: str
    #: queries for the connection's number, and for one that takes long
    connection_id: str
    sleep: str

    server: databases.MariaDB | databases.PostgreSQL
    template: str

    @classmethod
    def make_server(cls) -> databases.MariaDB | databases.PostgreSQL:
        raise NotImplementedError

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = cls.make_server()
        cls.server.setUp()
        cls.addClassCleanup(cls.server.cleanUp)
        cls.template = cls.server.databases.create()
        database = api.Inventory(base.new_conf(cls.template), 'x').database
        database.upgrade()
        database.engine.dispose()

    def new_database(self, name: str, empty: bool = False) -> str:
        url = self.server.databases.create(None if empty else self.template)
        self.addCleanup(self.server.databases.drop, url)
        self.addCleanup(self.server.start)
        return url

    def changed(self, **parts: Any) -> str:
        """Return the list's URL with other parts."""
        return sa.make_url(self.connection).set(**parts).render_as_string(
            hide_password=False)

    @property
    def name(self) -> str:
        """The name of the list's database."""
        return str(sa.make_url(self.connection).database)

    def cut_connections(self) -> None:
        """Cut all connections to the list's database."""
        raise NotImplementedError

    def fails(self, call: Callable[[], Any]) -> str:
        error = self.assertRaises(exceptions.InventoryUnavailable, call)
        for secret in (databases.PASSWORD, 'FROM', 'INTO', '\n'):
            self.assertNotIn(secret, str(error))
        return str(error)

    def before_commit(self, hook: Callable[[], Any]) -> None:
        """Call something when the next transaction is about to commit."""
        def once(session: orm.Session) -> None:
            session.flush()
            sa.event.remove(orm.Session, 'before_commit', once)
            hook()

        sa.event.listen(orm.Session, 'before_commit', once)

    def check_clock(self) -> None:
        """See that the server's time is understood."""
        # the list's own time stands still in tests
        self.clock.forward(
            (datetime.datetime.now(datetime.UTC) - self.clock.now)
            .total_seconds())
        # on a busy machine, with a connection to be made before
        apart = self.inventory.database.skew()
        assert apart is not None
        self.assertLess(apart, 5)

    def test_clock(self) -> None:
        self.check_clock()

    def test_least_rights(self) -> None:
        """Those of the documentation are enough, and are no more than that."""
        server = self.server.databases
        users = ('vmip_schema', 'vmip_run')
        # after the database, in which they have rights
        for user in users:
            self.addCleanup(server.execute, f'DROP USER IF EXISTS {user}')
        self.connection = self.new_database('least', empty=True)
        kind = sa.make_url(self.connection).get_backend_name()
        text = re.sub(r'--.*', '', (GRANTS / f'grants-{kind}.sql').read_text())
        text = re.sub(r'\bvmip(?=\.\*| OWNER)', self.name, text)
        own = databases.Databases(self.connection)
        self.addCleanup(own.close)
        # the driver takes a % for a parameter's place
        own.execute(*filter(None, map(
            str.strip, text.replace('%', '%%').split(';'))))
        schema, run = (self.changed(username=user, password=password)
                       for user, password in zip(
                           users, ('SCHEMA_PASSWORD', 'RUN_PASSWORD'),
                           strict=True))
        for _ in range(2):
            database = api.Inventory(base.new_conf(schema), 'x').database
            self.addCleanup(database.engine.dispose)
            database.upgrade()

        self.conf = base.new_conf(run)
        self.inventory = self.new_inventory('test')
        self.assertEqual(database.head(), self.inventory.database.revision())
        self.pool(last='10.0.0.11')
        self.hold('10.0.0.11')
        self.reserve()
        self.claim()
        self.inventory.release(self.row('10.0.0.11'), '')
        self.finish('10.0.0.11')
        self.inventory.unhold('pool', base.ip('10.0.0.11'))
        self.inventory.trim(self.clock.now)
        work = owner.Owner(self.conf, 'test')
        work.beat()
        self.assertTrue(work.is_owner)
        stop = threading.Event()
        stop.set()
        work.keep(stop)
        self.inventory.delete_pool('pool')

        with self.inventory.database.engine.connect() as connection:
            for statement in ('CREATE TABLE other (id INTEGER)',
                              'DROP TABLE addresses',
                              'ALTER TABLE addresses ADD other INTEGER'):
                error = 'nothing'
                try:
                    connection.exec_driver_sql(statement)
                except (db_exc.DBError, sa.exc.DBAPIError) as exc:
                    error = str(exc)
                connection.rollback()
                self.assertRegex(error, 'denied|must be owner')

    def test_away(self) -> None:
        self.addCleanup(self.server.start)
        self.server.stop()
        for call in ('reserve', 'read'):
            message = self.message(self.connection, call)
            self.assertIn(self.refused, message)
            self.assertNotIn(databases.PASSWORD, message + self.log.output)

    def test_away_and_back(self) -> None:
        """Connections that were open before are no hindrance."""
        self.pool()
        self.reserve()
        self.server.stop()
        for _ in range(2):
            self.fails(self.reserve)
            self.fails(self.inventory.pools)
        self.server.start()
        self.assertEqual(['10.0.0.11'], base.addresses(self.reserve()))
        self.assertEqual(2, len(list(self.inventory.addresses())))

    def test_silent(self) -> None:
        """It is stopped amid a storm, and goes on."""
        self.pool()
        self.conf.set_override('connect_timeout', 2, 'database')
        self.conf.set_override('statement_timeout', 4, 'database')
        hooks = manager.Hooks(self.conf)
        inventory = hooks._hooks[0].plugin._inventory
        self.addCleanup(inventory.database.engine.dispose)

        def send(network: str) -> str:
            try:
                ran = hooks.before(_request(network))
            except hook_base.Refused as exc:
                return str(exc.status)
            return ' '.join(base.addresses(ran[0].memo))

        self.assertEqual('10.0.0.10', send(base.NETWORK))
        self.assertEqual('', send(OTHER))
        self.addCleanup(self.server.thaw)
        # as idle connections that the storm takes, and as new ones
        before = [send(base.NETWORK) for _ in range(2)]
        self.assertEqual(['10.0.0.11', '10.0.0.12'], before)
        self.server.freeze()
        answers: list[tuple[str, str]] = []

        def run(network: str) -> None:
            for _ in range(5):
                answers.append((network, send(network)))

        threads = [threading.Thread(target=run, args=(network,), daemon=True)
                   for network in (base.NETWORK, OTHER) * 10]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        self.assertEqual([(base.NETWORK, '503')] * 50 + [(OTHER, '')] * 50,
                         sorted(answers))
        # those of no pool have not waited for the others' time-outs
        last_free = max(number for number, answer in enumerate(answers)
                        if answer[0] == OTHER)
        self.assertLess(last_free, 60)
        self.assertTrue(inventory.database.breaker.is_open)
        self.assertIn('The database does not answer', self.log.output)

        self.server.thaw()
        end = time.monotonic() + 60
        while send(base.NETWORK) != '10.0.0.13':
            self.assertLess(time.monotonic(), end)
            time.sleep(0.1)
        self.assertIn('The database answers again', self.log.output)

    def test_silent_while_it_commits(self) -> None:
        """What waits for an answer to a commit has a time-out too."""
        self.pool()
        self.conf.set_override('connect_timeout', 2, 'database')
        self.conf.set_override('statement_timeout', 2, 'database')
        self.inventory = api.Inventory(self.conf, 'nova-api', in_request=True)
        self.addCleanup(lambda: self.inventory.database.engine.dispose())
        self.addCleanup(self.server.thaw)
        self.before_commit(self.server.freeze)
        self.fails(self.reserve)
        self.fails(self.inventory.pools)
        self.server.thaw()
        end = time.monotonic() + 60
        while self.inventory.database.breaker.is_open:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.1)
        self.assertEqual(1, len(self.inventory.pools()))

    def test_slow_statement(self) -> None:
        """The server gives up itself, and no connection is lost."""
        self.conf.set_override('statement_timeout', 2, 'database')
        self.inventory = api.Inventory(self.conf, 'nova-api', in_request=True)
        self.addCleanup(lambda: self.inventory.database.engine.dispose())
        ids = set()
        for _ in range(2):
            with self.inventory.database.read() as session:
                ids.add(session.execute(sa.text(self.connection_id)).scalar())

            def slow() -> None:
                with self.inventory.database.read() as session:
                    session.execute(sa.text(self.sleep))

            self.fails(slow)
        self.assertEqual(1, len(ids))
        self.assertFalse(self.inventory.database.breaker.is_open)

    def test_crash_forgets_nothing(self) -> None:
        self.pool()
        self.claim()
        self.server.kill()
        self.fails(self.inventory.pools)
        self.server.start()
        self.assertEqual(State.CLAIMED, self.state('10.0.0.10'))
        self.assertEqual(1, len(self.entries()))

    def test_crash_before_the_commit(self) -> None:
        self.pool()
        self.reserve()
        self.before_commit(self.server.kill)
        self.fails(self.claim)
        self.server.start()
        self.assertEqual(State.RESERVED, self.state('10.0.0.10'))
        self.assertEqual([], self.entries())
        self.assertEqual('10.0.0.10', self.claim())

    def test_connection_cut_while_idle(self) -> None:
        self.pool()
        self.cut_connections()
        self.assertEqual(['10.0.0.10'], base.addresses(self.reserve()))

    def test_connection_cut_before_the_commit(self) -> None:
        self.pool()
        self.before_commit(self.cut_connections)
        self.assertIn(self.cut, self.fails(self.reserve))
        self.assertEqual([], list(self.inventory.addresses()))
        self.assertEqual(['10.0.0.10'], base.addresses(self.reserve()))

    def test_wrong_password(self) -> None:
        for call in ('reserve', 'read'):
            message = self.message(self.changed(password='other'), call)
            self.assertIn(self.denied, message)

    def test_no_such_database(self) -> None:
        for call in ('reserve', 'read'):
            self.assertIn(self.unknown, self.message(
                self.changed(database='nowhere'), call))

    def test_entry_is_changed_meanwhile(self) -> None:
        """Another worker commits between a read and a write."""
        self.pool()
        self.claim()
        work, = self.inventory.work(port_ids=[base.port_id(1)])
        other = sa.create_engine(self.connection)
        self.addCleanup(other.dispose)
        tries = [0]

        def before_execute(connection: Any, cursor: Any, statement: str,
                           *args: Any) -> None:
            if not statement.startswith('UPDATE host_entries'):
                return
            tries[0] += 1
            if tries[0] == 1:
                with other.begin() as connection:
                    connection.execute(sa.update(ENTRIES).values(
                        present=False, generation=ENTRIES.c.generation + 1))

        sa.event.listen(self.inventory.database.engine,
                        'before_cursor_execute', before_execute)
        self.assertFalse(self.inventory.work_done(work))
        self.assertEqual(1, tries[0])
        self.assertEqual([('a', '10.0.0.10', base.mac(1), False, False)],
                         self.entries())

    def test_each_of_two_takes_another_address(self) -> None:
        """Who chooses while another one has not committed does not wait."""
        self.pool()
        self.reserve('first')
        other = self.new_inventory('other')
        original = moves.swap
        taken: list[str] = []

        def swap(*args: Any) -> None:
            if not taken:
                taken.append('')
                taken[:] = base.addresses(other.reserve(
                    records.Requester('req-2', base.PROJECT),
                    [records.Wanted(base.NETWORK, ('other',))], 600))
            original(*args)

        self.patch(moves, 'swap', swap)
        self.assertEqual(['10.0.0.11'], base.addresses(self.reserve('mine')))
        self.assertEqual(['10.0.0.12'], taken)

    def test_names_are_any_text(self) -> None:
        """Whatever the URL says of characters."""
        self.conf.set_override('connection', self.changed(query={}),
                               'database')
        self.inventory = self.new_inventory('test')
        self.pool()
        name = '\u2603\U0001f600'
        self.reserve(name)
        self.assertEqual(name, self.row('10.0.0.10').server_name)
        self.assertEqual(
            1, len(list(self.inventory.addresses(server=name))))
