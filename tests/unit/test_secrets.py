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

"""No part of a password comes into a log or onto a terminal."""

from collections.abc import Callable
import contextlib
import io
import re
from urllib import parse

import hypothesis
from hypothesis import strategies as st
import sqlalchemy as sa

from tests.unit import base
from vmip_plugin import bus
from vmip_plugin.cmd import manage
from vmip_plugin.cmd import status
from vmip_plugin import conf as vmip_conf
from vmip_plugin.conf import urls
from vmip_plugin.dhcp.kea import database as kea
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.reclaim import owner
from vmip_plugin.sql import urls as sql_urls

#: What shows in a message that nothing else put there.
_LETTERS = 'QXZJKV'
_SPECIAL = '@:/?#$%&[]{}=+,;\\\'"`!*() <>|~^-_.'

passwords = st.text(_LETTERS + _SPECIAL + '0123456789', min_size=6,
                    max_size=24).map(str.strip)

fixed = hypothesis.settings(
    derandomize=True, deadline=None, max_examples=60,
    suppress_health_check=list(hypothesis.HealthCheck))


def parts(password: str) -> set[str]:
    """Return each part of a password that would tell something."""
    return {password[begin:begin + 3] for begin in range(len(password) - 2)
            if set(password[begin:begin + 3]) & set(_LETTERS)}


class TestPasswords(base.TestCase):

    def tell(self, password: str, *calls: Callable[[], object]) -> None:
        """See that what calls say has no part of a password."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), \
                contextlib.redirect_stderr(said):
            for call in calls:
                try:
                    call()
                except exceptions.VmipError as exc:
                    print(exc)
        # as much as a debug log has of it
        output = said.getvalue() + self.log.output
        for part in parts(password):
            self.assertNotIn(part, output)

    def write(self, section: str, option: str, value: str) -> str:
        path = self.directory / 'vmip.conf'
        path.write_text(f'[{section}]\n{option} = {value}\n')
        return str(path)

    @fixed
    @hypothesis.given(passwords, st.sampled_from([
        'mysql', 'mysql+pymysql', 'mariadb', 'postgres', 'postgresql',
        'oracle']))
    def test_database(self, password: str, scheme: str) -> None:
        path = self.write('database', 'connection',
                          f'{scheme}://vmip:{password}@127.0.0.1:1/vmip')

        def use() -> None:
            vmip_conf.load.cache_clear()
            inventory = api.Inventory(vmip_conf.load(path), 'x')
            try:
                inventory.pools()
            finally:
                inventory.database.engine.dispose()

        self.tell(password, use,
                  lambda: owner.url(vmip_conf.load(path)),
                  lambda: manage.main(['--config-file', path, 'db',
                                       'version']),
                  lambda: kea.Database(
                      'a', f'{scheme}://vmip:{password}@h/kea', 2))

    @fixed
    @hypothesis.given(passwords)
    def test_status(self, password: str) -> None:
        path = self.write('database', 'connection',
                          f'mysql://vmip:{password}@127.0.0.1:1/vmip')
        self.tell(password, lambda: status.main(
            ['--config-file', path, 'upgrade', 'check']))

    @fixed
    @hypothesis.given(passwords)
    def test_bus(self, password: str) -> None:
        # a comma and an @ together may make a URL of two good hosts
        hypothesis.assume(not {',', '@'} <= set(password))
        conf = base.new_conf(self.connection)
        path = self.write('DEFAULT', 'transport_url',
                          f'rabbit://vmip:{password}@127.0.0.1:1/')
        conf([], default_config_files=[path], default_config_dirs=[])
        self.tell(password, lambda: bus.rpc_transport(conf),
                  lambda: bus.notification_transport(conf))

    @fixed
    @hypothesis.given(passwords)
    def test_coordination(self, password: str) -> None:
        path = self.write('reclaimer', 'coordination_url',
                          f'mysql://vmip:{password}@127.0.0.1:1/vmip')

        def use() -> None:
            vmip_conf.load.cache_clear()
            owner.Owner(vmip_conf.load(path), 'me').beat()

        self.tell(password, use)

    @fixed
    @hypothesis.given(passwords)
    def test_encoded_as_told(self, password: str) -> None:
        """The remedy is one: each password can be written."""
        quoted = parse.quote(password, safe='')
        url = f'postgres://vmip:{quoted}@db/vmip'
        self.assertEqual(
            sa.URL.create('postgresql+psycopg2', 'vmip', password, 'db',
                          database='vmip'), sql_urls.parse('x', url))
        urls.check_transport('x', f'rabbit://vmip:{quoted}@a:1,v:{quoted}@b/')
        urls.check_coordination('x', f'etcd3+http://vmip:{quoted}@h:1')


class TestMessages(base.TestCase):

    def refused(self, text: str) -> str:
        path = self.directory / 'vmip.conf'
        path.write_text(text)
        vmip_conf.load.cache_clear()
        return str(self.assertRaises(
            exceptions.ConfigError, vmip_conf.load, str(path)))

    def test_dollar(self) -> None:
        for section, option in (
                ('database', 'connection'), ('reclaimer', 'coordination_url'),
                ('cloud', 'region_name')):
            said = self.refused(f'[{section}]\n{option} = a://pa$sword@h/d\n')
            self.assertIn(f'[{section}] {option}', said)
            self.assertIn('$$', said)
            self.assertNotIn('word@', said)
            self.assertNotIn('sword ', said)

    def test_two_ways(self) -> None:
        for url in ('mysql://u:p@s@h/d', 'mysql://u:p@s:word@h/d'):
            said = self.refused(f'[database]\nconnection = {url}\n')
            self.assertIn('[database] connection', said)
            self.assertIn('%40', said)

    def test_other_schemes(self) -> None:
        for scheme, told in (('oracle', 'mysql+pymysql'),
                             ('mysql+mysqldb', 'mysql+pymysql'),
                             ('postgresql+asyncpg', 'postgresql+psycopg2')):
            said = self.refused(f'[database]\nconnection = {scheme}://h/d\n')
            self.assertIn(f'{scheme}://', said)
            self.assertIn(f'{told}://', said)

    def test_same_schemes(self) -> None:
        for scheme in ('mysql', 'mariadb', 'mariadb+pymysql', 'mysql+pymysql',
                       'postgres', 'postgresql', 'postgres+psycopg2'):
            found = sql_urls.parse('x', f'{scheme}://u:p@h:1/d?ssl_ca=/x')
            self.assertIn(found.drivername,
                          ('mysql+pymysql', 'postgresql+psycopg2'))
            self.assertEqual(('u', 'p', 'h', 1, 'd', '/x'), (
                found.username, found.password, found.host, found.port,
                found.database, found.query['ssl_ca']))
        for path in ('', '/a@b/c@d', '//a:b@c'):
            self.assertEqual(path.removeprefix('/') or None, sql_urls.parse(
                'x', f'sqlite://{path}').database)

    def test_no_circular_advice(self) -> None:
        """What "db upgrade" says is not to run "db upgrade"."""
        database = api.Inventory(base.new_conf(
            self.new_database('half', empty=True)), 'x').database
        self.addCleanup(lambda: database.engine.dispose())
        database.upgrade('0001')
        with database.engine.begin() as connection:
            for table in ('host_entries', 'addresses'):
                connection.execute(sa.text(f'DROP TABLE {table}'))
        error = self.assertRaises(exceptions.InventoryUnavailable,
                                  database.upgrade)
        self.assertIsNone(re.search('db upgrade', str(error)))
        self.assertIn('backup', str(error))
