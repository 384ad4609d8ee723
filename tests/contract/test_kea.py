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

"""The contract of the Kea driver, with Kea and real clients."""

import contextlib
import pathlib
import random
import signal
import threading
import time
from unittest import mock

import sqlalchemy as sa

from tests.contract import base
from tests.contract import kea
from tests import databases
from tests import lab
from vmip_plugin.dhcp.kea import commands
from vmip_plugin.dhcp.kea import daemon
from vmip_plugin import exceptions

entry, entry6 = base.entry, base.entry6


class TestKea22MariaDB(kea.KeaContract):
    """Kea 2.2, and a hosts database on MariaDB: the whole contract."""

    version, kind = '2.2', 'mariadb'


class TestKea30HostCmds(kea.KeaContract):
    """Kea 3.0 and host_cmds on the unix socket: the whole contract."""

    version, host_cmds = '3.0', True


class TestKea22PostgreSQL(kea.MainContract):
    """Kea 2.2, and a hosts database on PostgreSQL: the main part."""

    version, kind = '2.2', 'postgresql'


class TestKea22Agent(kea.MainContract):
    """Kea 2.2 through kea-ctrl-agent, by HTTP: the main part."""

    version, kind, channel = '2.2', 'mariadb', 'agent'


class TestKea30MariaDB(kea.MainContract):
    """Kea 3.0, and a hosts database on MariaDB: the main part."""

    version, kind = '3.0', 'mariadb'


class TestKea30PostgreSQL(kea.MainContract):
    """Kea 3.0, and a hosts database on PostgreSQL: the main part."""

    version, kind = '3.0', 'postgresql'


class TestKea30HTTPS(kea.MainContract):
    """Kea 3.0, host_cmds by HTTPS into Kea's database: the main part."""

    version, kind, host_cmds, channel = '3.0', 'postgresql', True, 'https'

    def test_kept_in_the_database(self) -> None:
        """And can be written there by vmip itself from then on."""
        self.driver.put([entry(1), entry6(1)])
        self.assertEqual([(2,)], [tuple(row) for row in kea.run(
            self.server.url, 'SELECT COUNT(*) FROM hosts')])
        folder = self.server.folder / 'other'
        folder.mkdir()
        other = kea.DatabaseServer(folder, self.server.writer).driver()
        self.assertEqual({entry(1), entry6(1)}, set(other.entries()))
        self.assertEqual({}, other.put([entry(1, 5), entry6(2)]))
        self.assertHeld(entry(1, 5), entry6(1), entry6(2))
        self.assertEqual({}, self.driver.remove([entry(1, 5)]))
        self.assertServed(entry6(1), entry6(2))


@kea.only()
class TestDoctor22(kea.KeaContract):
    """What check() says of a Kea 2.2 that is not set up for it."""

    version, kind = '2.2', 'mariadb'

    def test_settings(self) -> None:
        for number, make in (4, entry), (6, entry6):
            self.driver.put([make(1)])
            key = f'subnet{number}'
            subnet = self.server.daemons[number].conf[f'Dhcp{number}'][key][0]
            network = make(0).address
            self.server.change(
                number, match_client_id=None, authoritative=None,
                hooks_libraries=[], hosts_database=None,
                host_reservation_identifiers=['duid'], **{key: [subnet | {
                    'reservations-in-subnet': False, 'id': 7,
                    'pools': [{'pool': f'{network + 1} - {network + 9}'}]}]})
        # on kea-dhcp6 there are no such settings
        six = self.server.daemons[6].conf
        for key in 'match-client-id', 'authoritative':
            six['Dhcp6'].pop(key, None)
        self.server.daemons[6].write(six)
        self.server.restart()
        self.server.configure('subnets = 10.66.0.0/16=1')
        wrong = self.server.driver().check()
        for number in 4, 6:
            ours = [w for w in wrong if w.startswith(f'kea-dhcp{number} of')]
            for words in (
                    'libdhcp_lease_cmds.so: add it to hooks-libraries',
                    'set "hosts-database"', 'add "hw-address"',
                    'set reservations-in-subnet to true',
                    'remove the pools, or give them the client class'):
                self.assertEqual(1, sum(words in w for w in ours),
                                 (words, wrong))
            for words in (
                    'set match-client-id to false',
                    'set authoritative to true', 'correct subnets'):
                self.assertEqual(number == 4,
                                 any(words in w for w in ours), (words, wrong))
        self.assertEqual(13, len(wrong), wrong)

    def test_known_clients_only(self) -> None:
        subnet = self.server.daemons[4].conf['Dhcp4']['subnet4'][0]
        self.server.change(4, subnet4=[subnet | {'pools': [
            {'pool': '10.66.1.1 - 10.66.1.9', 'client-class': 'KNOWN'}]}])
        self.server.restart()
        self.assertEqual([], self.driver.check())

    def test_strangers_are_refused(self) -> None:
        """The doctor says so, unless Kea serves them itself."""
        subnet = self.server.daemons[4].conf['Dhcp4']['subnet4'][0]
        self.server.change(4, client_classes=None)
        self.server.restart()
        wrong, = self.driver.check()
        self.assertIn('add the client class DROP', wrong)
        self.server.change(4, subnet4=[subnet | {
            'pools': [{'pool': '10.66.1.1 - 10.66.1.9'}]}])
        self.server.restart()
        wrong, = self.driver.check()
        self.assertIn('remove the pools', wrong)
        self.server.change(4, subnet4=[subnet | {'authoritative': False}])
        self.server.restart()
        wrong, = self.driver.check()
        self.assertIn('set authoritative to true', wrong)

    def test_no_subnet(self) -> None:
        self.driver.put([entry(1)])
        self.server.change(4, subnet4=[])
        self.server.restart()
        wrong = ' '.join(self.server.driver().check())
        self.assertIn('has no subnet: add', wrong)
        self.assertIn('has no subnet with 10.66.0.1, and so for 1', wrong)
        failures = self.server.driver().put([entry(2), entry6(2)])
        self.assertEqual([entry(2)], list(failures))
        self.assertIn('add it to', str(failures[entry(2)]))

    def test_subnet_comes_later(self) -> None:
        conf = self.server.daemons[4].conf['Dhcp4']['subnet4']
        self.server.change(4, subnet4=[])
        self.server.restart()
        self.assertEqual([entry(1)], list(self.driver.put([entry(1)])))
        self.server.change(4, subnet4=[conf[0] | {'id': 5}])
        self.server.restart()
        with mock.patch.object(daemon.Daemon, 'MIN_AGE', 0):
            self.assertEqual({}, self.driver.put([entry(1)]))
        self.assertServed(entry(1))

    def test_shared_network(self) -> None:
        conf = self.server.daemons[4].conf['Dhcp4']['subnet4']
        self.server.change(4, subnet4=[], match_client_id=True,
                           shared_networks=[{
                               'name': 'one', 'match-client-id': False,
                               'subnet4': [conf[0] | {'id': 3}]}])
        self.server.restart()
        self.assertEqual({}, self.driver.put([entry(1)]))
        self.assertServed(entry(1))
        self.assertEqual([], self.driver.check())

    def test_down(self) -> None:
        """Entries are written all the same, once the subnets are known."""
        self.driver.put([entry(1)])
        self.server.stop()
        self.driver.put([entry(2)])
        self.assertRaises(exceptions.DHCPServerUnavailable,
                          lambda: list(self.driver.leases()))
        fresh = self.server.driver()
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  fresh.put, [entry(3)])
        self.assertIn('start the daemon', str(error))
        self.server.configure('subnets = 10.66.0.0/16=1')
        self.assertEqual({}, self.server.driver().put([entry(4)]))
        self.assertTrue(all('start the daemon' in wrong
                            for wrong in fresh.check()))
        self.server.resume()
        self.assertServed(entry(1), entry(2), entry(4))

    def test_one_daemon_is_down(self) -> None:
        """The other one's entries are written, and known to be."""
        self.server.daemons[6].end()
        driver = self.server.driver()
        failures = driver.put([entry(1), entry6(1)])
        self.assertEqual([entry6(1)], list(failures))
        self.assertIsInstance(failures[entry6(1)],
                              exceptions.DHCPServerUnavailable)
        self.assertServed(entry(1))
        self.assertEqual([], list(driver.leases_of([entry(1).address])))

    def test_slow(self) -> None:
        self.server.configure('timeout = 1')
        slow = self.server.driver()
        process = self.server.daemons[4].process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  lambda: list(slow.leases()))
        self.assertTrue(0.9 < time.monotonic() - started < lab.PATIENCE)
        self.assertIn('did not answer within 1 s', str(error))

    def test_pages(self) -> None:
        many = [entry(number) for number in range(1, 8)]
        self.driver.put(many)
        for item in many:
            self.prober.acquire(item.mac)
        for size in 1, 3, 7, 8:
            with mock.patch.object(daemon, 'PAGE', size):
                self.assertEqual([e.address for e in many], [
                    lease.address for lease in self.driver.leases()])
                self.assertEqual([e.address for e in many[:5]], sorted(
                    lease.address for lease in self.driver.leases_of(
                        [e.address for e in many[:5]])))

    def test_database_is_away(self) -> None:
        """Kea answers nobody then; afterwards all is as before."""
        self.driver.put([entry(1)])
        self.assertServed(entry(1))
        server = kea.server('mariadb')
        self.addCleanup(server.start)
        server.stop()
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver.put, [entry(2)])
        self.assertIn('start it', str(error))
        self.assertIn('start it', ' '.join(self.driver.check()))
        self.assertNotServed(entry(1))
        server.start()
        self.assertEqual({}, self.driver.put([entry(2)]))
        lab.wait_for(lambda: self.prober.discover(entry(1).mac, 0.5), 20)
        self.assertServed(entry(1), entry(2))


@kea.only()
class TestDoctor30(kea.KeaContract):
    """What check() says of a Kea 3.0 that is not set up for it."""

    version, host_cmds = '3.0', True

    def test_settings(self) -> None:
        for number in 4, 6:
            self.server.change(number, hooks_libraries=[],
                               expired_leases_processing=None)
        self.server.restart()
        wrong = self.server.driver().check()
        for number in 4, 6:
            ours = [w for w in wrong if w.startswith(f'kea-dhcp{number} of')]
            for words in ('libdhcp_lease_cmds.so: add',
                          'libdhcp_host_cmds.so: add',
                          'set hold-reclaimed-time'):
                self.assertEqual(1, sum(words in w for w in ours), wrong)

    def test_no_host_cmds(self) -> None:
        self.server.change(4, hooks_libraries=[])
        self.server.restart()
        failures = self.server.driver().put([entry(1), entry6(1)])
        self.assertEqual([entry(1)], list(failures))
        self.assertIn('load the hook library libdhcp_host_cmds.so',
                      str(failures[entry(1)]))
        self.assertRaises(exceptions.DHCPServerUnavailable,
                          lambda: list(self.driver.entries()))

    def test_what_is_refused_does_not_stay(self) -> None:
        """As if another worker had been faster."""
        for make in entry, entry6:
            held, late = make(1, 10), make(2, 10)
            self.driver.put([held])
            with mock.patch.object(commands.Commands, '_clear',
                                   return_value=False), \
                    mock.patch.object(commands, '_TRIES', 2):
                self.assertEqual([late], list(self.driver.put([late])))
            self.assertHeld(held)
            self.assertServed(held)
            self.assertNotServed(late)
            self.driver.remove([held])

    def test_only_in_memory(self) -> None:
        text = self.server.config.read_text()
        self.server.config.write_text(text.replace('config_write = true', ''))
        driver = self.server.driver()
        wrong = driver.check()
        self.assertEqual(2, sum('set config_write' in w for w in wrong),
                         wrong)
        driver.put([entry(1)])
        self.assertServed(entry(1))
        self.server.restart()
        self.assertHeld()
        self.assertNotServed(entry(1))
        # as after each comparison with the inventory
        driver.put([entry(1)])
        self.assertServed(entry(1))

    def test_down(self) -> None:
        self.driver.put([entry(1)])
        self.server.stop()
        for change in self.driver.put, self.driver.remove:
            error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                      change, [entry(1)])
            self.assertIn('start the daemon', str(error))

    def test_subnet_has_another_id(self) -> None:
        self.driver.put([entry(1)])
        conf = self.server.daemons[4].conf['Dhcp4']['subnet4']
        self.server.change(4, subnet4=[conf[0] | {'id': 5}])
        self.server.restart()
        self.assertEqual([entry(2)], list(self.driver.put([entry(2)])))
        self.assertEqual({}, self.driver.put([entry(2)]))
        self.assertServed(entry(1), entry(2))

    def test_pages(self) -> None:
        many = [entry(number) for number in range(1, 8)]
        self.driver.put(many)
        for size in 1, 3, 7, 8:
            with mock.patch.object(daemon, 'PAGE', size):
                self.assertHeld(*many)

    def test_mac_in_another_subnet(self) -> None:
        conf = self.server.daemons[4].conf['Dhcp4']['subnet4']
        self.server.change(4, subnet4=[
            *conf, conf[0] | {'id': 2, 'subnet': '10.67.0.0/16',
                              'option-data': []}])
        self.server.restart()
        other = entry(1, (1 << 16) + 1)
        self.driver.put([other])
        self.driver.put([entry(1)])
        self.assertHeld(entry(1))
        self.assertServed(entry(1))


@kea.only()
class TestDoctorDatabase30(kea.KeaContract):
    """What check() says of a Kea 3.0 and its hosts database."""

    version, kind = '3.0', 'postgresql'

    def test_no_database(self) -> None:
        libraries = self.server.daemons[4].conf['Dhcp4']['hooks-libraries']
        self.server.change(4, hosts_database=None, hooks_libraries=[
            library for library in libraries
            if 'pgsql' not in library['library']])
        self.server.restart()
        wrong = self.driver.check()
        self.assertEqual(2, len(wrong), wrong)
        self.assertIn('set "hosts-database": {"type": "postgresql"', wrong[0])
        self.assertIn('libdhcp_pgsql.so: add it', wrong[1])

    def test_other_database(self) -> None:
        conf = self.server.daemons[4].conf['Dhcp4']['hosts-database']
        self.server.change(4, hosts_database=None, hosts_databases=[
            conf | {'name': 'template1'}])
        # what Kea refuses to use is not what this is about
        with mock.patch.object(daemon.Daemon, 'settings', lambda which: (
                daemon.Settings(which.version,
                                self.server.daemons[which.version].conf))):
            wrong = self.driver.check()
        self.assertEqual(1, len(wrong), wrong)
        self.assertIn('does not look for hosts in the hosts database',
                      wrong[0])

    def test_cache(self) -> None:
        libraries = self.server.daemons[4].conf['Dhcp4']['hooks-libraries']
        self.server.change(4, hooks_libraries=[
            *libraries, {'library': kea.kea3.hook('host_cache')}])
        self.server.restart()
        wrong = self.driver.check()
        self.assertEqual(1, len(wrong), wrong)
        self.assertIn('libdhcp_host_cache.so', wrong[0])


@kea.only()
class TestHTTPS(kea.KeaContract):
    """What may be wrong with a channel by HTTPS."""

    version, host_cmds, channel = '3.0', True, 'https'

    def _error(self, old: str, new: str) -> str:
        text = self.server.config.read_text()
        assert old in text
        self.server.config.write_text(text.replace(old, new))
        driver = self.server.driver()
        self.server.config.write_text(text)
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  driver.put, [entry(1)])
        self.assertNotIn('asked', str(error))
        self.assertTrue(driver.check())
        return str(error)

    def test_errors(self) -> None:
        self.assertIn('correct control_user and control_password', self._error(
            'control_password = asked', 'control_password = guessed'))
        self.assertIn('set control_ca', self._error(
            f'control_ca = {kea.certificate()[0]}', ''))
        self.assertIn('correct control and control_ca', self._error(
            f'control_ca = {kea.certificate()[0]}', 'control_ca = /none'))
        self.assertIn('start the daemon', self._error(
            self.server.controls[4], 'https://127.0.0.1:1/'))
        self.assertEqual({}, self.driver.put([entry(1)]))

    def test_slow(self) -> None:
        self.server.configure(
            f'timeout = 1\n{kea.LOGIN}control_ca = {kea.certificate()[0]}')
        slow = self.server.driver()
        process = self.server.daemons[4].process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  slow.put, [entry(1)])
        self.assertTrue(0.9 < time.monotonic() - started < lab.PATIENCE)
        self.assertIn('did not answer within 1 s', str(error))


@kea.only()
class TestAgent(kea.KeaContract):
    """kea-ctrl-agent without the daemon behind it."""

    version, kind, channel = '2.2', 'mariadb', 'agent'

    def test_daemon_is_down(self) -> None:
        self.server.stop()
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver.put, [entry(1)])
        self.assertIn('not reached by kea-ctrl-agent', str(error))
        self.assertTrue(self.driver.check())


class TestDatabaseMariaDB22(kea.DatabaseContract):
    kind, version = 'mariadb', '2.2'

    def _freeze(self, *args: object) -> None:
        process = kea.server('mariadb')._process
        assert process is not None
        self.addCleanup(process.send_signal, signal.SIGCONT)
        process.send_signal(signal.SIGSTOP)
        state = pathlib.Path(f'/proc/{process.pid}/stat')
        lab.wait_for(lambda: state.read_text().rpartition(')')[2][1] == 'T')

    def test_frozen(self) -> None:
        self.driver.put([entry(1)])
        self._freeze()
        self._assert_away()

    def test_frozen_once_the_connection_was_tried(self) -> None:
        self.driver.put([entry(1)])
        sa.event.listen(sa.pool.Pool, 'checkout', self._freeze)
        self.addCleanup(sa.event.remove, sa.pool.Pool, 'checkout',
                        self._freeze)
        self._assert_away()

    def _assert_away(self) -> None:
        started = time.monotonic()
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver.put, [entry(2)])
        # its time and two seconds, for the old connection and for a new one
        self.assertTrue(1.5 < time.monotonic() - started < lab.PATIENCE)
        self.assertIn('start it', str(error))


class TestDatabaseMariaDB30(kea.DatabaseContract):
    kind, version = 'mariadb', '3.0'


class TestDatabasePostgreSQL22(kea.DatabaseContract):
    kind, version = 'postgresql', '2.2'


class TestDatabasePostgreSQL30(kea.DatabaseContract):
    kind, version = 'postgresql', '3.0'


class TestWriters(base.testtools.TestCase):
    """Writers on several hosts: never two holders of one address."""

    def _fight(self, urls: list[str], rest: float = 0) -> None:
        """Write at once; each writer rests so many seconds in between."""
        folder = lab.Folder()
        folder.__enter__()
        self.addCleanup(folder.__exit__, None, None, None)
        errors: list[object] = []
        busy: list[str] = []
        end = time.monotonic() + 4
        writes = [0] * 4

        def write(which: int) -> None:
            chance = random.Random(which)
            place = folder.path / str(which)
            place.mkdir()
            server = kea.DatabaseServer(place, urls[which % len(urls)])
            driver = server.driver()
            while time.monotonic() < end:
                entries = [
                    chance.choice((entry, entry6))(
                        10 * which + chance.randrange(8),
                        1 + chance.randrange(6)) for _ in range(3)]
                change = driver.put if chance.random() < 0.7 \
                    else driver.remove
                try:
                    failures = change(entries)
                except exceptions.DHCPServerUnavailable as exc:
                    # so many at once may be too many: it says so
                    busy.append(str(exc))
                    continue
                except Exception as exc:
                    errors.append(exc)
                    return
                errors.extend(failures.items())
                writes[which] += 1
                time.sleep(rest)

        threads = [threading.Thread(target=write, args=(n,))
                   for n in range(4)]
        for thread in threads:
            thread.start()
        rounds = 0
        with contextlib.ExitStack() as stack:
            connections = []
            for url in urls:
                engine = sa.create_engine(url,
                                          isolation_level='REPEATABLE READ')
                stack.callback(engine.dispose)
                connections.append(stack.enter_context(engine.connect()))
            while any(thread.is_alive() for thread in threads):
                for connection in connections:
                    self._assert_single(connection)
                    connection.rollback()
                rounds += 1
                time.sleep(0.02)
            for thread in threads:
                thread.join()
        self.assertEqual([], errors)
        self.assertTrue(min(writes) > 5 and rounds > 10, (writes, rounds))
        self.assertLess(len(busy), sum(writes) / 10, busy)
        self.assertEqual([], [text for text in busy
                              if 'is too busy: try again' not in text])

    def _assert_single(self, connection: sa.Connection) -> None:
        for statement in (
                'SELECT ipv4_address, COUNT(*) FROM hosts'
                ' WHERE ipv4_address IS NOT NULL GROUP BY ipv4_address'
                ' HAVING COUNT(*) > 1',
                'SELECT address, COUNT(*) FROM ipv6_reservations'
                ' GROUP BY address HAVING COUNT(*) > 1'):
            self.assertEqual([], list(
                connection.execute(sa.text(statement))))

    def test_mariadb(self) -> None:
        url = kea.database('mariadb', '3.0')
        kea.run(url, 'DELETE FROM hosts')
        self._fight([url])

    def test_postgresql(self) -> None:
        url = kea.database('postgresql', '3.0')
        kea.run(url, 'DELETE FROM hosts')
        self._fight([url])

    def test_galera(self) -> None:
        with databases.Galera(durable=False) as cluster:
            urls = cluster.create()
            kea.load(urls[0], '3.0', grant=False)
            cluster.settle()
            # of two that never rest, the node that is behind always loses
            self._fight(urls, 0.05)
            cluster.settle()
            held = [kea.run(url, 'SELECT * FROM hosts ORDER BY host_id')
                    for url in urls]
            self.assertEqual(held[0], held[1])
