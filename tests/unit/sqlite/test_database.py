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

"""What is so on SQLite only."""

import pathlib

import sqlalchemy as sa

from tests.unit import base
from tests.unit.inventory import unavailable
from vmip_plugin.inventory import models


class TestSchema(base.TestCase):

    def test_ids_are_never_given_twice(self) -> None:
        """Where the models say so, in both ways to make a schema."""
        other = sa.create_engine('sqlite://')
        self.addCleanup(other.dispose)
        models.Base.metadata.create_all(other)
        for engine in (other, self.inventory.database.engine):
            with engine.connect() as connection:
                self.assertEqual(['host_entries'], connection.execute(sa.text(
                    "SELECT name FROM sqlite_master WHERE type = 'table' "
                    "AND sql LIKE '%AUTOINCREMENT%'")).scalars().all())


class TestUnavailable(unavailable.TestCase):

    def test_no_directory(self) -> None:
        path = self.directory / 'missing' / 'db'
        for call in ('reserve', 'read'):
            self.assertIn('unable to open database file',
                          self.message(f'sqlite:///{path}', call))

    def test_unwritable(self) -> None:
        self.pool()
        # not by its mode: that does not keep root out
        path = f'file:{self.directory}/vmip.sqlite?mode=ro&uri=true'
        self.assertIn('readonly', self.message(f'sqlite:///{path}'))

    def test_no_database(self) -> None:
        pathlib.Path(self.directory / 'text').write_text('x' * 5000)
        self.assertIn('not a database', self.message(
            f'sqlite:///{self.directory}/text'))

    def test_parameters_are_not_told(self) -> None:
        self.pool()
        with self.inventory.database.engine.connect() as connection:
            connection.exec_driver_sql(
                'CREATE TRIGGER full BEFORE UPDATE ON addresses BEGIN '
                "SELECT RAISE(ABORT, 'no room'); END")
            connection.commit()
        self.assertIn('no room', self.message(self.connection))
