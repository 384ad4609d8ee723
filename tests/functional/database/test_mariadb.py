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

"""The list on MariaDB."""

import time

import sqlalchemy as sa

from tests import databases
from tests.functional.database import base
from tests.unit import base as unit_base


class TestMariaDB(base.ServerContract):

    refused = "Can't connect to MySQL server on '127.0.0.1'"
    denied = "Access denied for user 'vmip'@'127.0.0.1'"
    unknown = "Unknown database 'nowhere'"
    cut = 'Lost connection to MySQL server'
    connection_id = 'SELECT connection_id()'
    sleep = "SELECT sum(md5(seq) = 'x') FROM seq_1_to_10000000000"

    @classmethod
    def make_server(cls) -> databases.MariaDB:
        return databases.MariaDB()

    def cut_connections(self) -> None:
        server = self.server.databases
        for id, in server.execute(
                'SELECT id FROM information_schema.processlist '
                f"WHERE db = '{self.name}' AND id <> connection_id()"):
            server.execute(f'KILL {id}')

    def test_clock_in_an_hour_that_comes_twice(self) -> None:
        server = self.server.databases
        self.addCleanup(server.execute, "SET GLOBAL time_zone = 'SYSTEM'")
        # summer time, which ends half an hour ago or in half an hour
        for number, ago in (9001, 1800), (9002, -1800):
            end = int(time.time()) - ago
            server.execute(
                f'INSERT INTO mysql.time_zone VALUES ({number}, "N")',
                'INSERT INTO mysql.time_zone_name '
                f'VALUES ("Test/{number}", {number})',
                'INSERT INTO mysql.time_zone_transition_type VALUES '
                f'({number}, 0, 7200, 1, "S"), ({number}, 1, 3600, 0, "W")',
                'INSERT INTO mysql.time_zone_transition VALUES '
                f'({number}, 0, 0), ({number}, {end}, 1)',
                f'SET GLOBAL time_zone = "Test/{number}"')
            # each connection takes it over when it is made
            self.inventory.database.engine.dispose()
            self.check_clock()

    def test_read_only(self) -> None:
        self.pool()
        server = self.server.databases
        # an administrator may write all the same
        server.execute(
            "CREATE USER plain@'127.0.0.1' IDENTIFIED BY 'plain'",
            f"GRANT ALL ON {self.name}.* TO plain@'127.0.0.1'",
            'SET GLOBAL read_only = 1')
        self.addCleanup(server.execute, 'SET GLOBAL read_only = 0',
                        "DROP USER plain@'127.0.0.1'")
        plain = self.changed(username='plain', password='plain')
        self.assertIn('--read-only', self.message(plain))

    def test_parameters_are_not_told(self) -> None:
        self.pool()
        with self.inventory.database.engine.connect() as connection:
            connection.exec_driver_sql(
                'CREATE TRIGGER full BEFORE UPDATE ON addresses FOR EACH ROW '
                "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no room'")
        self.assertIn('no room', self.message(self.connection))

    def test_every_name(self) -> None:
        """With the charset of most OpenStack services' URLs, too."""
        self.pool()
        name = '\N{GRINNING FACE} \N{CYRILLIC CAPITAL LETTER ZHE}'
        for query, parameters in (
                ({}, ''), ({'charset': 'utf8'}, ''), ({}, 'charset=utf8')):
            self.conf = unit_base.new_conf(self.changed(query=query))
            self.conf.set_override('connection_parameters', parameters,
                                   'database')
            self.inventory = self.new_inventory('test')
            reserved, = self.reserve(name)
            self.assertEqual(
                name, self.row(str(reserved.address)).server_name)

    def test_tables_are_made_alike(self) -> None:
        """To the letter: engine, characters, every column and index."""
        other = sa.create_engine(self.new_database('other', empty=True))
        self.addCleanup(other.dispose)
        base.models.Base.metadata.create_all(other)
        for table in base.models.Base.metadata.tables:
            made = []
            for engine in (other, self.inventory.database.engine):
                with engine.connect() as connection:
                    text = connection.exec_driver_sql(
                        f'SHOW CREATE TABLE {table}').one()[1]
                made.append(sorted(text.replace(',\n', '\n').split('\n')))
            self.assertEqual(*made)
            self.assertIn(') ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 '
                          'COLLATE=utf8mb4_bin', made[0])
