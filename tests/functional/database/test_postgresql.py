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

"""The list on PostgreSQL."""

from tests import databases
from tests.functional.database import base


class TestPostgreSQL(base.ServerContract):

    refused = 'Connection refused'
    denied = 'password authentication failed for user "vmip"'
    unknown = 'database "nowhere" does not exist'
    cut = 'connection'
    connection_id = 'SELECT pg_backend_pid()'
    sleep = 'SELECT pg_sleep(60)'

    @classmethod
    def make_server(cls) -> databases.PostgreSQL:
        return databases.PostgreSQL()

    def cut_connections(self) -> None:
        self.server.databases.execute(
            'SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity '
            f"WHERE datname = '{self.name}'")

    def test_read_only(self) -> None:
        self.pool()
        self.server.databases.execute(
            f'ALTER DATABASE {self.name} SET default_transaction_read_only '
            '= on')
        self.assertIn('in a read-only transaction',
                      self.message(self.connection))

    def test_parameters_are_not_told(self) -> None:
        self.pool()
        with self.inventory.database.engine.begin() as connection:
            connection.exec_driver_sql(
                'CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS '
                "$$ BEGIN RAISE EXCEPTION 'no room'; END $$")
            connection.exec_driver_sql(
                'CREATE TRIGGER full_up BEFORE UPDATE ON addresses '
                'FOR EACH ROW EXECUTE FUNCTION fail()')
        self.assertIn('no room', self.message(self.connection))
