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

"""Who of several does the work."""

import threading
from typing import Any
from unittest import mock

import tooz

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.reclaim import owner


class OwnerTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.conf.set_override(
            'coordination_url', f'file://{self.directory}/locks',
            'reclaimer')
        self.time = 100.0
        self.patch(owner, 'time', mock.Mock(monotonic=lambda: self.time))

    def new_owner(self, name: str) -> owner.Owner:
        made = owner.Owner(self.conf, name)
        self.addCleanup(made._drop)
        return made

    def owners(self, *of: owner.Owner) -> list[bool]:
        for one in of:
            one.beat()
        return [one.is_owner for one in of]


class TestOwner(OwnerTestCase):

    def test_one_at_a_time(self) -> None:
        a, b = self.new_owner('a'), self.new_owner('b')
        self.assertFalse(a.is_owner)
        for _ in range(20):
            self.assertEqual([True, False], self.owners(a, b))
            self.time += owner.BEAT
        stop = threading.Event()
        stop.set()
        a.keep(stop)
        self.assertFalse(a.is_owner)
        self.assertEqual([True], self.owners(b))

    def test_each_cloud_has_its_own(self) -> None:
        a = self.new_owner('a')
        self.conf.set_override('region_name', 'two', 'cloud')
        b = self.new_owner('b')
        self.conf.set_override('connection', 'sqlite:////other', 'database')
        c = self.new_owner('c')
        self.assertEqual([True, True, True], self.owners(a, b, c))

    def test_without_a_sign_of_life(self) -> None:
        """Its backend hangs."""
        a = self.new_owner('a')
        self.owners(a)
        self.time += owner.LIMIT - 0.1
        self.assertTrue(a.is_owner)
        self.time += 0.2
        self.assertFalse(a.is_owner)

    def test_backend_is_away(self) -> None:
        a = self.new_owner('a')
        self.owners(a)
        made = a._coordinator
        self.patch(made, 'heartbeat', mock.Mock(
            side_effect=tooz.ToozError('connection lost\nsecret')))
        self.assertEqual([False], self.owners(a))
        self.assertIn('so it waits: ToozError: connection lost',
                      self.log.output)
        self.assertNotIn('secret', self.log.output)
        self.assertEqual([True], self.owners(a))
        self.assertIsNot(made, a._coordinator)
        self.assertIn('It is known again', self.log.output)

    def test_backend_is_away_from_the_start(self) -> None:
        locks = self.directory / 'locks'
        locks.write_text('')
        a = self.new_owner('a')
        for _ in range(3):
            self.assertEqual([False], self.owners(a))
        self.assertEqual(1, self.log.output.count('so it waits'))
        locks.unlink()
        self.assertEqual([True], self.owners(a))

    def test_what_cannot_tell_lets_go_now_and_then(self) -> None:
        a = self.new_owner('a')
        self.owners(a)
        lock = a._lock
        lock.is_still_owner = mock.Mock(side_effect=tooz.NotImplemented)
        self.time += owner.TERM - 1
        self.assertEqual([True], self.owners(a))
        self.assertIs(lock, a._lock)
        self.time += 1
        self.assertEqual([True], self.owners(a))
        self.assertIsNot(lock, a._lock)

    def test_lost(self) -> None:
        a, b = self.new_owner('a'), self.new_owner('b')
        self.owners(a)
        a._lock.release()
        self.assertEqual([True], self.owners(b))
        self.assertEqual([False], self.owners(a))
        self.assertIn('Another process does the work', self.log.output)


class TestUrl(base.TestCase):

    def url(self, connection: str) -> str:
        self.conf.set_override('connection', connection, 'database')
        return owner.url(self.conf)

    def test_default(self) -> None:
        for connection, wanted in (
                ('sqlite:////var/lib/x/vmip',
                 'file:///var/lib/x/coordination'),
                ('mysql+pymysql://u:p@db/vmip', 'mysql://u:p@db/vmip'),
                ('mysql+pymysql://u:p@db:3307/vmip?charset=utf8mb4'
                 '&ssl_ca=/ca', 'mysql://u:p@db:3307/vmip?ssl_ca=/ca'),
                ('mysql://u@/vmip?unix_socket=/run/m.sock',
                 'mysql://u:@/vmip?unix_socket=/run/m.sock'),
                ('postgresql://u:p%25q@db/vmip',
                 'postgresql://u:p%q@db/vmip')):
            self.assertEqual(wanted, self.url(connection))

    def test_cannot_be_said(self) -> None:
        for connection in ('mysql://u:p%2Fq@db/vmip', 'oracle://u:p@db/v',
                           'mysql://u%40x:p@db/vmip'):
            error = self.assertRaises(exceptions.ConfigError, self.url,
                                      connection)
            self.assertRegex(str(error), 'coordination_url|connection')
            self.assertNotIn('p/q', str(error))

    def test_configured(self) -> None:
        self.conf.set_override('coordination_url', 'etcd3+http://e:2379',
                               'reclaimer')
        self.assertEqual('etcd3+http://e:2379', self.url('oracle://x'))

    def test_no_such_backend(self) -> None:
        for url in ('nosuch://user:secret@host', 'nonsense secret'):
            self.conf.set_override('coordination_url', url, 'reclaimer')
            error: Any = self.assertRaises(
                exceptions.ConfigError, owner.Owner, self.conf, 'a')
            self.assertNotIn('secret', str(error))
