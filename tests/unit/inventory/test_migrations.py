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

"""The schema: as the models say, and reached from every earlier one."""

from collections.abc import Callable
import re
from typing import Any

from alembic import autogenerate
from alembic.runtime import migration
from alembic import script
import sqlalchemy as sa

from tests.unit import base
from vmip_plugin.inventory import api
from vmip_plugin.inventory import database
from vmip_plugin.inventory import models

State = base.State

#: What workers of revision 0001 had written, by table.
ROWS_0001: dict[str, list[dict[str, Any]]] = {
    'pools': [{
        'id': base.port_id(1), 'name': 'pool', 'network_id': base.NETWORK,
        'subnet_id': base.SUBNET, 'cidr': '10.0.0.0/24',
        'allocator': 'sequential', 'reuse_delay': 0, 'dhcp_servers': '["a"]',
        'created_at': 1}],
    'ranges': [{'id': 1, 'pool_id': base.port_id(1), 'first': '0a00000a',
                'last': '0a000014', 'fresh': '0a00000d'}],
    'addresses': [
        {'id': number, 'pool_id': base.port_id(1),
         'address': f'0a0000{number + 9:02x}', 'pick_key': number - 1,
         'state': state, 'generation': 3, 'changed_at': 5,
         'expires_at': None, 'gone_since': None,
         'request_id': 'req-1' if state != 'free' else None,
         'project_id': base.PROJECT if state != 'free' else None,
         'server_id': base.server_id(1) if state != 'free' else None,
         'server_name': 'web' if state != 'free' else None,
         'port_id': base.port_id(number) if state != 'free' else None,
         'mac': base.mac(number) if state != 'free' else None,
         'hold_name': None, 'hold_project': None, 'hold_until': None}
        for number, state in enumerate(('active', 'free', 'releasing'), 1)],
    'host_entries': [
        {'id': number, 'address_id': number, 'server': 'a',
         'mac': base.mac(number), 'hostname': 'web', 'present': present,
         'done': present, 'generation': 1, 'attempts': 0, 'next_try_at': 0,
         'error': None, 'done_at': 7}
        for number, present in ((1, True), (3, False))],
    'history': [
        {'id': 1, 'pool_id': base.port_id(1), 'address': '0a00000a',
         'at': 5, 'actor': 'nova-api', 'event': 'activate', 'reason': '',
         'old_state': 'claimed', 'new_state': 'active',
         'request_id': 'req-1', 'project_id': base.PROJECT,
         'server_id': base.server_id(1), 'server_name': 'web',
         'port_id': base.port_id(1), 'mac': base.mac(1)}],
}

#: The same with the columns of revision 0002.
ROWS_0002: dict[str, list[dict[str, Any]]] = {
    table: [{**row, **{
        'pools': {'fresh_index': 3},
        'addresses': {'former_name': 'web', 'former_project': base.PROJECT},
        'history': {'expires_at': None, 'hold_name': None,
                    'hold_project': None, 'hold_until': None},
    }.get(table, {})} for row in rows] for table, rows in ROWS_0001.items()}

#: With the columns of revisions 0004 and 0005.
ROWS_0005: dict[str, list[dict[str, Any]]] = {
    table: [{**row, **{
        'addresses': {'evidence': None, 'answered_at': None},
        'host_entries': {'wanted_at': 8},
    }.get(table, {})} for row in rows] for table, rows in ROWS_0002.items()}

#: With the column of revision 0006.
ROWS_0006: dict[str, list[dict[str, Any]]] = {
    table: [{**row, **{
        'addresses': {'loss_confirmed_until': None},
    }.get(table, {})} for row in rows] for table, rows in ROWS_0005.items()}

#: Revision 0003 brought a table that only vmip-reclaimer writes.
ROWS = {'0001': ROWS_0001, '0002': ROWS_0002, '0003': ROWS_0002,
        '0004': ROWS_0002, '0005': ROWS_0005, '0006': ROWS_0006,
        '0007': ROWS_0006}


class TestMigrations(base.TestCase):

    def test_up_from_empty(self) -> None:
        database = api.Inventory(
            base.new_conf(self.new_database('new', empty=True)), 'x').database
        self.addCleanup(database.engine.dispose)
        self.assertIsNone(database.revision())
        database.upgrade()
        self.assertEqual(database.head(), database.revision())
        database.upgrade()
        self.assertEqual(database.head(), database.revision())

    def test_behind(self) -> None:
        """An earlier schema is of no use; a later one has only more."""
        database = api.Inventory(
            base.new_conf(self.new_database('new', empty=True)), 'x').database
        self.addCleanup(lambda: database.engine.dispose())
        self.assertEqual('the schema is none, this version needs '
                         + database.head(), database.behind())
        database.upgrade('0003')
        self.assertIn('the schema is 0003,', database.behind() or '')
        database.upgrade()
        self.assertIsNone(database.behind())
        with database.engine.begin() as connection:
            connection.execute(sa.text(
                "UPDATE alembic_version SET version_num = '9999'"))
        self.assertIsNone(database.behind())

    def test_models_are_the_schema(self) -> None:
        with self.inventory.database.engine.connect() as connection:
            context = migration.MigrationContext.configure(
                connection, opts={'compare_type': True})
            self.assertEqual([], autogenerate.compare_metadata(
                context, models.Base.metadata))

    def test_schema_is_made_alike(self) -> None:
        """Also what autogenerate does not compare, such as names."""
        other = sa.create_engine(
            self.new_database('other', empty=True))
        self.addCleanup(other.dispose)
        models.Base.metadata.create_all(other)
        self.assertEqual(_schema(other),
                         _schema(self.inventory.database.engine))

    def test_each_earlier_revision_has_data_here(self) -> None:
        """A new revision needs a line in ROWS."""
        folder = script.ScriptDirectory.from_config(
            self.inventory.database._alembic(
                self.inventory.database.engine))
        earlier = {revision.revision for revision in folder.walk_revisions()
                   if not revision.is_head}
        self.assertEqual(earlier, set(ROWS))

    def old(self, revision: str) -> tuple[api.Inventory, sa.MetaData]:
        """Return a list at a revision, and its tables as they are there."""
        inventory = api.Inventory(base.new_conf(
            self.new_database(f'old-{revision}', empty=True)), 'x')
        self.addCleanup(lambda: inventory.database.engine.dispose())
        inventory.database.upgrade(revision)
        tables = sa.MetaData()
        tables.reflect(inventory.database.engine)
        return inventory, tables

    def write(self, found: database.Database, tables: sa.MetaData,
              revision: str) -> None:
        with found.engine.begin() as connection:
            for name, rows in ROWS[revision].items():
                connection.execute(sa.insert(tables.tables[name]), rows)

    def read(self, found: database.Database, tables: sa.MetaData,
             revision: str) -> dict[str, Any]:
        with found.engine.connect() as connection:
            return {name: [dict(row) for row in connection.execute(
                sa.select(tables.tables[name]).order_by(
                    tables.tables[name].c.id)).mappings()]
                for name in ROWS[revision]}

    def test_data_is_kept(self) -> None:
        for revision in ROWS:
            inventory, tables = self.old(revision)
            self.write(inventory.database, tables, revision)
            before = self.read(inventory.database, tables, revision)
            inventory.database.upgrade()
            self.assertEqual(before, self.read(inventory.database, tables,
                                               revision))
            self.inventory = inventory
            self.goes_on()

    def test_old_workers_go_on(self) -> None:
        """What the statements of an older version need is still there."""
        for revision in ROWS:
            _, tables = self.old(revision)
            self.inventory = api.Inventory(base.new_conf(
                self.new_database(f'new-{revision}')), 'x')
            self.addCleanup(
                lambda found=self.inventory: found.database.engine.dispose())
            self.write(self.inventory.database, tables, revision)
            self.goes_on()
            with self.inventory.database.engine.begin() as connection:
                addresses = tables.tables['addresses']
                changed = connection.execute(
                    sa.update(addresses).where(
                        addresses.c.address == '0a00000b')
                    .values(state='free', request_id=None, project_id=None,
                            server_name=None, expires_at=None,
                            generation=addresses.c.generation + 1))
                self.assertEqual(1, changed.rowcount)
            self.assertEqual(['10.0.0.11'], base.addresses(
                self.reserve(request='req-4')))

    def test_cut_off(self) -> None:
        """Where each change commits by itself, the next try goes on."""
        inventory, _ = self.old('0001')
        with inventory.database.engine.begin() as connection:
            for statement in (
                    'ALTER TABLE addresses ADD COLUMN former_name '
                    'VARCHAR(255)',
                    'ALTER TABLE addresses ADD COLUMN former_project '
                    'VARCHAR(64)',
                    'CREATE INDEX ix_addresses_pool_id_former_name ON '
                    'addresses (pool_id, former_name)'):
                connection.execute(sa.text(statement))
            models.Base.metadata.tables['reclaim_tasks'].create(connection)
        inventory.database.upgrade()
        self.assertEqual(
            _schema(self.inventory.database.engine),
            _schema(inventory.database.engine))

    def test_first_one_cut_off(self) -> None:
        changes: list[str] = []
        whole = self.empty('whole')
        self.listen(lambda *args: changes.append(args[2]))
        whole.upgrade()
        changes = [change for change in changes
                   if re.match(r'\s*CREATE (TABLE|INDEX)', change)]
        self.assertGreater(len(changes), 16)
        for count in (2, 5, 9, 16):
            cut = self.empty(f'cut-{count}')
            with cut.engine.begin() as connection:
                for change in changes[:count]:
                    connection.execute(sa.text(change))
            cut.upgrade()
            self.assertEqual(_schema(whole.engine), _schema(cut.engine))

    def listen(self, heard: Callable[..., None]) -> None:
        """Hear every statement: an upgrade has an engine of its own."""
        sa.event.listen(sa.Engine, 'before_cursor_execute', heard)
        self.addCleanup(sa.event.remove, sa.Engine, 'before_cursor_execute',
                        heard)

    def empty(self, name: str) -> database.Database:
        found = api.Inventory(base.new_conf(
            self.new_database(name, empty=True)), 'x').database
        self.addCleanup(lambda: found.engine.dispose())
        return found

    def goes_on(self) -> None:
        """See that what was found can be worked with."""
        self.assertEqual(
            [State.ACTIVE, State.FREE, State.RELEASING],
            [a.state for _, a in self.found(state=list(State))])
        self.assertEqual('web', self.inventory.standing(
            base.ip('10.0.0.10'), self.clock.now)[0].server_name)
        self.assertEqual(['10.0.0.11', '10.0.0.13'], base.addresses(
            self.reserve('x', 'y', request='req-3')))
        self.finish('10.0.0.12')
        self.assertEqual(State.FREE, self.state('10.0.0.12'))
        self.assertTrue(self.inventory.release(self.row('10.0.0.10'), ''))

    def test_only_what_old_workers_do_not_notice(self) -> None:
        """Each revision adds: none drops, renames or narrows anything."""
        statements: list[str] = []
        self.listen(lambda *args: statements.append(
            ' '.join(args[2].replace('`', '').split())))
        for revision in ROWS:
            inventory, _ = self.old(revision)
            inventory.database.upgrade()
        changes = [text for text in statements if re.match(
            # but for the tests' own databases
            '(ALTER|DROP|RENAME|CREATE)(?! DATABASE)', text,
            re.IGNORECASE)]
        self.assertGreater(len(changes), 5)
        for text in changes:
            self.assertRegex(text, r'CREATE (TABLE|INDEX) |'
                                   r'ALTER TABLE \w+ ADD COLUMN \w+ ')
            if 'NOT NULL' in text and 'ALTER' in text:
                self.assertIn('DEFAULT', text)


def _schema(engine: sa.Engine) -> list[tuple[Any, ...]]:
    inspector = sa.inspect(engine)
    found: list[tuple[Any, ...]] = []
    for table in sorted(set(inspector.get_table_names())
                        - {'alembic_version'}):
        found.append((table, inspector.get_pk_constraint(table)['name']))
        found += sorted((table, column['name'], str(column['type']),
                         column['nullable'], str(column['default']))
                        for column in inspector.get_columns(table))
        found += sorted((table, str(key['name']), str(key['options']))
                        for key in inspector.get_foreign_keys(table))
        for kind in (inspector.get_unique_constraints(table),
                     inspector.get_indexes(table)):
            found += sorted((table, str(item['name']),
                             *item['column_names']) for item in kind)
    return found
