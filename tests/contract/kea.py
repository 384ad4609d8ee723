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

"""Kea for the contract: 2.2 of Debian 12, and 3.0 beside it."""

import atexit
from collections.abc import Callable
import contextlib
import functools
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, ClassVar, TypeVar
from unittest import mock

import sqlalchemy as sa

from tests.contract import base
from tests import databases
from tests import lab
from vmip_plugin.dhcp import base as driver_base
from vmip_plugin.dhcp import kea as kea_driver
from vmip_plugin.dhcp.kea import database as kea_database
from vmip_plugin import exceptions

sys.path.append(str(base.ROOT / 'devstack'))

from minicloud import kea3  # noqa: E402

entry, entry6 = base.entry, base.entry6

EXAMPLES = base.ROOT / 'doc/examples/kea'
#: who writes to the hosts database, with the grants of the documentation
USER, PASSWORD = 'vmip_kea', 'written'
_SCRIPTS = {'2.2': pathlib.Path('/usr/share/kea/scripts'),
            '3.0': kea3.ROOT / 'usr/share/kea/scripts'}


class PostgreSQL(databases.PostgreSQL):
    """A PostgreSQL with a socket for those who are in another namespace."""

    def command(self) -> list[Any]:
        return [*super().command(),
                '-c', f'unix_socket_directories={self.home}']


@functools.cache
def server(kind: str) -> databases.MariaDB | PostgreSQL:
    """Return the database server of this process."""
    fixture = {'mariadb': databases.MariaDB,
               'postgresql': PostgreSQL}[kind](durable=False)
    fixture.setUp()
    atexit.register(fixture.cleanUp)
    if kind == 'mariadb':
        fixture.databases.execute(
            f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
            f"CREATE USER kea@localhost IDENTIFIED BY '{PASSWORD}'",
            # it prepares statements that it will not need
            'GRANT ALL ON *.* TO kea@localhost')
    else:
        fixture.databases.execute(
            f"CREATE USER {USER} PASSWORD '{PASSWORD}'",
            f"CREATE USER kea SUPERUSER PASSWORD '{PASSWORD}'")
    return fixture


@functools.cache
def database(kind: str, version: str) -> str:
    """Return the URL of a hosts database of this process."""
    admin = server(kind).databases
    url = admin.create()
    load(url, version)
    return url


def load(url: str, version: str, grant: bool = True) -> None:
    """Make Kea's tables, as kea-admin db-init does it, and grant them."""
    parts = sa.make_url(url)
    assert parts.host and parts.username and parts.password and parts.database
    if parts.get_backend_name() == 'mysql':
        command = ['mariadb', f'--host={parts.host}', f'--port={parts.port}',
                   f'--user={parts.username}', f'--password={parts.password}',
                   parts.database]
        script = 'mysql/dhcpdb_create.mysql'
        grants = (EXAMPLES / 'grants-mysql.sql').read_text().replace(
            'kea.', f'{parts.database}.').replace("'vmip'@'%'",
                                                  f"{USER}@'127.0.0.1'")
    else:
        command = ['psql', '--quiet', '--set=ON_ERROR_STOP=1',
                   '--output=/dev/null', re.sub(r'\+\w+', '', url)]
        script = 'pgsql/dhcpdb_create.pgsql'
        grants = (EXAMPLES / 'grants-postgresql.sql').read_text().replace(
            'TO vmip', f'TO {USER}')
    text = (_SCRIPTS[version] / script).read_text()
    if grant:
        text += grants
    done = subprocess.run(command, input=text, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(done.stdout)


def run(url: str, *statements: str) -> list[Any]:
    """Run statements as the administrator; return the last one's rows."""
    return list(databases.Databases(url).execute(*statements))


class Relay(lab.Managed):
    """Lets this process reach a TCP port inside of a namespace."""

    def __init__(self, namespace: lab.Namespace, port: int) -> None:
        super().__init__()
        self._namespace = namespace
        self._inner = port

    def start(self) -> None:
        self._listener = self._stack.enter_context(
            socket.create_server(('127.0.0.1', 0)))
        self.port = self._listener.getsockname()[1]
        self._stack.callback(self._listener.shutdown, socket.SHUT_RDWR)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = self._namespace.inside(
                        lambda: socket.create_connection(
                            ('127.0.0.1', self._inner)))
                except OSError:
                    near.close()
                    continue
                for sock in near, far:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for pair in (near, far), (far, near):
                    threading.Thread(target=self._pump, args=pair,
                                     daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


class Daemon(lab.Process):
    """One program of Kea's in the namespace of a bridge.

    :param conf: its configuration, which is what the file gets.
    """

    def __init__(self, program: str, version: str, bridge: lab.Bridge,
                 folder: pathlib.Path, conf: dict[str, Any],
                 environment: dict[str, str]) -> None:
        super().__init__()
        self.program = program
        self.version = version
        self.bridge = bridge
        self.folder = folder
        self.file = folder / f'{program}.conf'
        self.log = folder / f'{program}.log'
        self.environment = environment
        self.write(conf)

    def write(self, conf: dict[str, Any]) -> None:
        self.file.write_text(json.dumps(conf, indent=1))

    @property
    def conf(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found

    def start(self) -> None:
        self._stack.callback(self.end)
        self.up()

    def up(self) -> None:
        """Start it, also once more after :meth:`end`."""
        environment = {
            'KEA_PIDFILE_DIR': str(self.folder), 'KEA_LOCKFILE_DIR': 'none',
            **self.environment}
        command = [self.program]
        if self.version != '2.2':
            # -X: our folders are not Debian's
            command = [*kea3.command(self.program), '-X']
        with open(self.log, 'ab') as log:
            mark = log.tell()
            process = self.process = self.bridge.popen(
                'env', *(f'{k}={v}' for k, v in environment.items()),
                *command, '-c', str(self.file), output=log)

        def started() -> bool:
            text = self.log.read_bytes()[mark:]
            if process.poll() is not None:
                raise RuntimeError(text.decode(errors='replace'))
            return bool(re.search(rb'DHCP[46]_STARTED|HTTP_SERVICE_STARTED'
                                  rb'|CTRL_AGENT_STARTED', text))

        lab.wait_for(started)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            # it may be stopped
            self.process.send_signal(signal.SIGCONT)
        super().end(how)


@functools.cache
def certificate() -> tuple[pathlib.Path, pathlib.Path]:
    """Return the files of a certificate for 127.0.0.1 and of its key."""
    folder = lab.Folder()
    folder.__enter__()
    atexit.register(folder.__exit__, None, None, None)
    names = folder.path / 'certificate', folder.path / 'key'
    lab.run('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes',
            '-subj', '/CN=kea', '-addext', 'subjectAltName=IP:127.0.0.1',
            '-out', str(names[0]), '-keyout', str(names[1]))
    return names


_BASIC = {'type': 'basic', 'realm': 'kea',
          'clients': [{'user': 'admin', 'password': 'asked'}]}
LOGIN = 'control_user = admin\ncontrol_password = asked\n'


class KeaServer(base.WireServer):
    """kea-dhcp4 and kea-dhcp6.

    :param version: ``2.2`` or ``3.0``.
    :param kind: of the hosts database: ``mariadb`` or ``postgresql``; None:
        Kea has none.
    :param host_cmds: whether vmip writes by it, or to the database.
    :param channel: ``unix``, ``agent`` (kea-ctrl-agent of 2.2) or ``https``
        (the daemons of 3.0).
    :param options: further lines of the server's section.
    """

    def __init__(self, stack: Callable[[Any], Any], version: str,
                 kind: str | None, host_cmds: bool, channel: str,
                 options: str) -> None:
        self.version = version
        self.kind = kind
        self.host_cmds = host_cmds
        self.channel = channel
        self.folder = stack(lab.Folder()).path
        self.bridge = stack(lab.Bridge())
        self.url = database(kind, version) if kind else ''
        environment = {}
        if kind:
            run(self.url, 'DELETE FROM hosts')
        if kind == 'mariadb':
            environment['MYSQL_UNIX_PORT'] = f'{server(kind).home}/socket'
        self.daemons = {
            number: Daemon(f'kea-dhcp{number}', version, self.bridge,
                           self.folder, self._conf(number), environment)
            for number in (4, 6)}
        for daemon in self.daemons.values():
            stack(daemon)
        self.controls = {
            number: str(self.folder / f'kea{number}-ctrl-socket')
            for number in self.daemons}
        if channel == 'agent':
            stack(Daemon('kea-ctrl-agent', version, self.bridge, self.folder,
                         self._agent(), {}))
            relay = stack(Relay(self.bridge, 8000))
            self.controls = dict.fromkeys(
                self.daemons, f'http://127.0.0.1:{relay.port}/')
            options += f'\n{LOGIN}'
        elif channel == 'https':
            self.controls = {
                number: 'https://127.0.0.1:'
                        f'{stack(Relay(self.bridge, 8000 + number)).port}/'
                for number in self.daemons}
            options += f'\n{LOGIN}control_ca = {certificate()[0]}'
        self.config = self.folder / 'vmip.conf'
        self.configure(options)

    def configure(self, options: str = '') -> None:
        """Write vmip's configuration."""
        text = (EXAMPLES / ('vmip-host_cmds.conf' if self.host_cmds
                            else 'vmip-database.conf')).read_text()
        for number, control in self.controls.items():
            text = text.replace(f'/run/kea/kea{number}-ctrl-socket', control)
        if not self.host_cmds:
            text = re.sub(r'hosts_database = .*',
                          f'hosts_database = {self.writer}', text)
        self.config.write_text(f'{text}{options}\n')

    @property
    def writer(self) -> str:
        """The URL with which vmip writes."""
        return sa.make_url(self.url).set(
            username=USER, password=PASSWORD).render_as_string(
                hide_password=False)

    def _conf(self, number: int) -> dict[str, Any]:
        """Return an example of the documentation, moved to here."""
        text = (EXAMPLES / f'kea-dhcp{number}-{self.version}.conf'
                ).read_text()
        text = re.sub(r'(?m)^\s*//.*$', '', text)
        text = text.replace('/run/kea', str(self.folder)).replace(
            '/var/lib/kea', str(self.folder)).replace('"eth1"', '"br0"')
        conf: dict[str, Any] = json.loads(text)
        own = conf[f'Dhcp{number}']
        own[f'subnet{number}'][0]['subnet'] = str(
            (self.bridge.address if number == 4 else self.bridge.address6
             ).network)
        if number == 6:
            # by default it writes a file in /var/lib/kea
            own['server-id'] = {'type': 'LL', 'persist': False}
        if self.channel == 'https':
            names = [str(path) for path in certificate()]
            own['control-sockets'].append({
                'socket-type': 'https', 'socket-address': '127.0.0.1',
                'socket-port': 8000 + number, 'trust-anchor': names[0],
                'cert-file': names[0], 'key-file': names[1],
                'cert-required': False, 'authentication': _BASIC})
        own.pop('hosts-database', None)
        hooks = ['lease_cmds']
        if self.host_cmds:
            hooks.append('host_cmds')
        if self.kind:
            own['hosts-database'] = self._hosts_database()
            if self.version == '3.0':
                hooks.append({'mariadb': 'mysql', 'postgresql': 'pgsql'}[
                    self.kind])
        folder = pathlib.Path(own['hooks-libraries'][0]['library']).parent
        own['hooks-libraries'] = [
            {'library': kea3.hook(name) if self.version == '3.0'
             else f'{folder}/libdhcp_{name}.so'} for name in hooks]
        return conf

    def _agent(self) -> dict[str, Any]:
        return {'Control-agent': {
            'http-host': '127.0.0.1', 'http-port': 8000,
            'authentication': _BASIC,
            'control-sockets': {
                f'dhcp{number}': {'socket-type': 'unix',
                                  'socket-name': control}
                for number, control in self.controls.items()},
            'loggers': [{'name': 'kea-ctrl-agent', 'severity': 'INFO',
                         'output_options': [{'output': 'stdout'}]}]}}

    def _hosts_database(self) -> dict[str, Any]:
        assert self.kind
        found: dict[str, Any] = json.loads(re.sub(
            r'(?m)^\s*//.*$', '',
            (EXAMPLES / 'kea-dhcp4-2.2.conf').read_text()))['Dhcp4'][
                'hosts-database']
        found |= {'name': sa.make_url(self.url).database, 'user': 'kea',
                  'password': PASSWORD}
        if self.kind == 'mariadb':
            return found | {'host': 'localhost'}
        return found | {'type': 'postgresql',
                        'host': str(server(self.kind).home),
                        'port': server(self.kind).port}

    def driver(self) -> driver_base.DHCPDriver:
        return base.load(self.config)

    def stop(self) -> None:
        for daemon in self.daemons.values():
            daemon.end()

    def resume(self) -> None:
        for number, daemon in self.daemons.items():
            daemon.up()
            # it is in its loop, in which it answers guests, too
            self.ask(number, 'version-get')

    def change(self, number: int, **settings: Any) -> None:
        """Change a daemon's global settings; ``_`` is for ``-``."""
        daemon = self.daemons[number]
        conf = daemon.conf
        for key, value in settings.items():
            key = key.replace('_', '-')
            if value is None:
                conf[f'Dhcp{number}'].pop(key, None)
            else:
                conf[f'Dhcp{number}'][key] = value
        daemon.write(conf)

    def restart(self) -> None:
        self.stop()
        self.resume()

    def add_foreign(self, item: driver_base.HostEntry) -> None:
        number = item.address.version
        if not self.kind:
            self.add_to_file(item)
            return
        subnet, address = f'dhcp{number}_subnet_id', 'NULL'
        if number == 4:
            address = str(int(item.address))
        mac = item.mac.replace(':', '')
        literal = f"x'{mac}'" if self.kind == 'mariadb' \
            else f"'\\x{mac}'::bytea"
        run(self.url,
            'INSERT INTO hosts (dhcp_identifier, dhcp_identifier_type,'
            f' {subnet}, ipv4_address, hostname, user_context)'
            f" VALUES ({literal}, 0, 1, {address}, 'printer',"
            " '{\"owner\": \"vmip\"}')")
        if number == 6:
            value = f"'{item.address}'"
            if (self.kind, self.version) == ('mariadb', '3.0'):
                value = f'inet6_aton({value})'
            run(self.url,
                'INSERT INTO ipv6_reservations (address, host_id)'
                f' SELECT {value}, host_id FROM hosts'
                f' WHERE dhcp_identifier = {literal}'
                ' AND dhcp6_subnet_id = 1')

    def add_to_file(self, item: driver_base.HostEntry) -> None:
        """Add an operator's entry to the configuration file."""
        number = item.address.version
        daemon = self.daemons[number]
        conf = daemon.conf
        conf[f'Dhcp{number}'][f'subnet{number}'][0].setdefault(
            'reservations', []).append({
                'hw-address': item.mac, 'hostname': 'printer',
                **({'ip-address': str(item.address)} if number == 4
                   else {'ip-addresses': [str(item.address)]})})
        daemon.write(conf)

    def foreign(self) -> str:
        if self.kind:
            return repr([
                [bytes(value) if isinstance(value, memoryview) else value
                 for value in row] for row in run(
                     self.url,
                     'SELECT * FROM hosts LEFT JOIN ipv6_reservations'
                     ' ON hosts.host_id = ipv6_reservations.host_id'
                     " WHERE hostname = 'printer' ORDER BY hosts.host_id")])
        return repr([
            item for number in self.daemons
            for item in self.ask(number, 'config-get')['arguments'][
                f'Dhcp{number}'][f'subnet{number}'][0]['reservations']
            if 'vmip' not in item.get('user-context', {})])

    def ask(self, number: int, command: str, **arguments: Any) -> Any:
        """Ask a daemon, without our own code."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.folder / f'kea{number}-ctrl-socket'))
            sock.sendall(json.dumps(
                {'command': command, 'arguments': arguments}
                if arguments else {'command': command}).encode())
            return json.loads(b''.join(iter(lambda: sock.recv(65536), b'')))


class KeaContract(base.ReleaseContract, base.WireContract6):
    """With a kea-dhcp4 and a kea-dhcp6 in a namespace for each test."""

    server: KeaServer
    version: ClassVar[str]
    kind: ClassVar[str | None] = None
    host_cmds: ClassVar[bool] = False
    channel: ClassVar[str] = 'unix'
    options = ''

    def make_server(self) -> KeaServer:
        return KeaServer(self.enter, self.version, self.kind, self.host_cmds,
                         self.channel, self.options)

    def client_ids(self, *sent: bytes | None) -> list[bytes | None]:
        # it keeps none where it is told not to match them
        return [None for _ in sent]

    def test_client_ids(self) -> None:
        self.server.change(4, match_client_id=True)
        self.server.restart()
        self.driver.put([entry(1), entry(2)])
        for number, client_id in (1, None), (2, b'\xff\x01\x02'):
            self.assertEqual(entry(number).address, self.prober.acquire(
                entry(number).mac, 5, client_id))
            lease, = self.driver.leases_of([entry(number).address])
            self.assertEqual((entry(number).mac, client_id),
                             (lease.mac, lease.client_id))

    def test_leases6(self) -> None:
        """Kea knows a guest's MAC from a DUID that has it (LL, LLT).

        It takes none from a link-local address where, as with those of
        OpenStack, the MAC is locally administered.
        """
        hardware = [bytes.fromhex(entry(n).mac.replace(':', ''))
                    for n in range(3)]
        duids = b'\0\3\0\1' + hardware[1], b'\0\1\0\1time' + hardware[2]
        self.driver.put([entry(1), entry6(1), entry6(2)])
        self.prober.acquire(entry(1).mac)
        for number, duid in enumerate(duids, 1):
            self.assertIsNone(self.prober.acquire6(
                entry(number).mac, 0.3, duid=b'\0\2\0\0\0\11some'))
            self.assertEqual(
                entry6(number).address,
                self.prober.acquire6(entry(number).mac, duid=duid))
        found = {lease.address: lease for lease in self.driver.leases()}
        self.assertEqual(
            {entry(1).address: entry(1).mac, entry6(1).address: entry(1).mac,
             entry6(2).address: entry(2).mac},
            {address: lease.mac for address, lease in found.items()})
        for number, duid in enumerate(duids, 1):
            lease = found[entry6(number).address]
            self.assertEqual(duid, lease.client_id)
            self.assertIsNotNone(lease.expires)
            self.driver.release(lease)
        self.assertEqual([entry(1).address],
                         [lease.address for lease in self.driver.leases()])

    def test_stale_lease6(self) -> None:
        old, new = entry6(1, 10), entry6(2, 10)
        self.driver.put([old])
        self.assertEqual(old.address, self.prober.acquire6(old.mac))
        lease, = self.driver.leases_of([old.address])
        self.driver.remove([old])
        self.driver.put([new])
        # it is this that has to be healed
        self.assertNotServed(new)
        self.driver.release(lease)
        self.assertEqual([], list(self.driver.leases_of([old.address])))
        self.assertServed(new)

    def test_declined(self) -> None:
        """A reserved address that its guest found in use (RFC 2131, 3.1)."""
        self.driver.put([entry(1)])
        address = self.prober.acquire(entry(1).mac)
        assert address is not None
        self.prober.ask(entry(1).mac, {
            53: b'\4', 50: address.packed,
            54: self.server.bridge.address.ip.packed}, 0.3)
        self.assertNotServed(entry(1))
        lease, = self.driver.leases()
        self.assertEqual((address, None), (lease.address, lease.mac))
        self.driver.release(lease)
        self.assertEqual(address, self.prober.acquire(entry(1).mac))
        # it is not that lease any more
        self.driver.release(lease)
        self.assertEqual([entry(1).mac],
                         [held.mac for held in self.driver.leases()])

    def test_lease_data_lost(self) -> None:
        self.driver.put([entry(1), entry6(1)])
        self.prober.acquire(entry(1).mac)
        self.prober.acquire6(entry(1).mac)
        self.assertEqual(2, len(list(self.driver.leases())))
        self.server.stop()
        for path in self.server.folder.glob('kea-leases*'):
            path.unlink()
        self.server.resume()
        self.assertEqual([], list(self.driver.leases()))
        self.assertEqual(entry(1).address,
                         self.prober.acquire(entry(1).mac))
        self.assertEqual(entry6(1).address,
                         self.prober.acquire6(entry(1).mac))

    def _in_the_way(self) -> None:
        for make in entry, entry6:
            held = make(9, 90)
            self.driver.put([held])
            same_mac, same_address = make(1, 50), make(9, 1)
            failures = self.driver.put([same_mac, same_address, make(3)])
            self.assertEqual([same_mac, same_address],
                             sorted(failures, key=lambda e: e.mac))
            for error in failures.values():
                self.assertIn('operator', str(error))
            # what fails leaves the MAC what it had
            self.assertServed(make(1), make(3), held)
            self.driver.remove([same_mac, same_address, make(1)])
            self.assertServed(make(1), make(3), held)
            self.driver.remove([held, make(3)])

    def test_operators_entry_in_the_way(self) -> None:
        self.server.add_foreign(entry(1))
        self.server.add_foreign(entry6(1))
        self.server.restart()
        self._in_the_way()

    def test_operators_file_in_the_way(self) -> None:
        self.server.add_to_file(entry(1))
        self.server.add_to_file(entry6(1))
        self.server.restart()
        self._in_the_way()


CaseT = TypeVar('CaseT', bound='type[KeaContract]')


def only(*names: str) -> Callable[[CaseT], CaseT]:
    """Leave a class these tests of the contract, and its own."""
    def decorate(case: CaseT) -> CaseT:
        for name in dir(KeaContract):
            if name.startswith('test_') and name not in (
                    *names, *vars(case)):
                setattr(case, name, None)
        return case
    return decorate


# What is asked of every combination; the rest of the contract does not
# depend on it.
_MAIN = (
    'test_capabilities_are_kept', 'test_check_is_content', 'test_client_ids',
    'test_declined',
    'test_down_and_up_again', 'test_down_and_up_again6',
    'test_forms_of_an_address', 'test_hostile_hostnames',
    'test_last_in_one_call_holds', 'test_last_in_one_call_holds6',
    'test_leases', 'test_leases6', 'test_operators_entries_stay',
    'test_operators_entries_stay6', 'test_operators_entry_in_the_way',
    'test_operators_file_in_the_way', 'test_put_over_another_mac',
    'test_put_over_another_mac6', 'test_round_trip', 'test_round_trip6',
    'test_release', 'test_stale_lease6', 'test_swap_on_the_wire',
    'test_two_processes', 'test_versions_do_not_meet')


@only(*_MAIN)
class MainContract(KeaContract):
    """The part of the contract that :data:`_MAIN` names."""


class DatabaseServer(base.Server):
    """A hosts database into which no Kea looks."""

    def __init__(self, folder: pathlib.Path, url: str) -> None:
        self.config = folder / 'vmip.conf'
        self.config.write_text(
            '[dhcp]\nservers = test\n[dhcp:test]\ndriver = kea\n'
            f'hosts_database = {url}\ntimeout = 2\n'
            'subnets = 10.66.0.0/16=1, 2001:db8:66::/64=1\n')

    def driver(self) -> kea_driver.KeaDriver:
        found = base.load(self.config)
        assert isinstance(found, kea_driver.KeaDriver)
        return found


class DatabaseContract(base.DriverContract):
    """With a hosts database alone."""

    kind: str
    version: str

    def make_server(self) -> DatabaseServer:
        folder = lab.Folder()
        folder.__enter__()
        self.addCleanup(folder.__exit__, None, None, None)
        self.admin = database(self.kind, self.version)
        run(self.admin, 'DELETE FROM hosts')
        self.url = sa.make_url(self.admin).set(
            username=USER, password=PASSWORD)
        return self.with_url(folder.path, self.url)

    def with_url(self, folder: pathlib.Path, url: sa.URL) -> DatabaseServer:
        return DatabaseServer(
            folder, url.render_as_string(hide_password=False))

    def _errors(self, *words: str, **parts: object) -> None:
        """See what is said where the URL has something else in it."""
        folder = self.server.config.parent
        driver = self.with_url(folder, self.url.set(**parts)).driver()
        for act in (lambda: driver.put([entry(1)]),
                    lambda: driver.remove([entry(1)]),
                    lambda: list(driver.entries())):
            error = self.assertRaises(exceptions.DHCPServerUnavailable, act)
            for word in words:
                self.assertIn(word, str(error))
            self.assertNotIn(str(parts.get('password', PASSWORD)),
                             str(error))
        self.assertIn(words[0], ' '.join(driver.check()))

    def test_wrong_password(self) -> None:
        self._errors('correct the user and password', password='unheard')

    def test_nobody_listens(self) -> None:
        self._errors('start it, or correct hosts_database', port=1)

    def test_no_database(self) -> None:
        parts = sa.make_url(self.admin)
        # whoever has no right to one is told no more
        self._errors('create it', 'kea-admin db-init', database='missing',
                     username=parts.username, password=parts.password)

    def test_no_schema(self) -> None:
        admin = server(self.kind).databases
        url = admin.create()
        self.addCleanup(admin.drop, url)
        parts = sa.make_url(url)
        kind = 'pgsql' if self.kind == 'postgresql' else 'mysql'
        self._errors(f'kea-admin db-init {kind} -n {parts.database}',
                     database=parts.database, username=parts.username,
                     password=parts.password)

    def test_old_schema(self) -> None:
        rows = run(self.admin, 'SELECT version, minor'
                       ' FROM schema_version')
        self.addCleanup(run, self.admin, 'UPDATE schema_version SET'
                        f' version = {rows[0][0]}')
        run(self.admin, 'UPDATE schema_version SET version = 9')
        self.assertIn('kea-admin db-upgrade', ' '.join(self.driver.check()))

    def test_may_not_write(self) -> None:
        who = f"{USER}@'127.0.0.1'" if self.kind == 'mariadb' \
            else USER
        name = sa.make_url(self.admin).database
        table = f'{name}.hosts' if self.kind == 'mariadb' else 'hosts'
        self.driver.put([entry(1)])
        self.addCleanup(run, self.admin,
                        f'GRANT UPDATE, INSERT ON {table} TO {who}')
        run(self.admin, f'REVOKE UPDATE, INSERT ON {table} FROM {who}')
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver.put, [entry(2)])
        self.assertIn('SELECT, INSERT, UPDATE and DELETE', str(error))
        self.assertIn('SELECT, INSERT, UPDATE and DELETE',
                      ' '.join(self.driver.check()))
        self.assertHeld(entry(1))

    def test_restarted(self) -> None:
        self.driver.put([entry(1)])
        process = server(self.kind)
        self.addCleanup(process.start)
        process.stop()
        process.start()
        self.assertEqual({}, self.driver.put([entry(2)]))
        self.assertHeld(entry(1), entry(2))

    def test_somebody_keeps_the_lock(self) -> None:
        self.driver.put([entry(1)])
        engine = sa.create_engine(self.admin)
        self.addCleanup(engine.dispose)
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE hosts SET hostname = 'x'"))
            started = time.monotonic()
            error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                      self.driver.put, [entry(2)])
            self.assertTrue(1.5 < time.monotonic() - started < lab.PATIENCE)
            self.assertIn('look what keeps it', str(error))
        self.assertEqual({}, self.driver.put([entry(2)]))

    def test_few_statements(self) -> None:
        """As many for 200 entries as for one."""
        driver = self.server.driver()
        assert driver._database is not None

        def count(change: Callable[..., object],
                  entries: list[driver_base.HostEntry]) -> int:
            statements: list[str] = []
            with driver._database._connect() as connection:
                engine = connection.engine

            def see(connection: object, cursor: object, statement: str,
                    *rest: object) -> None:
                statements.append(statement)

            sa.event.listen(engine, 'before_cursor_execute', see)
            try:
                self.assertEqual({}, change(entries))
            finally:
                sa.event.remove(engine, 'before_cursor_execute', see)
            return len(statements)

        for make in entry, entry6:
            driver.put([make(1)])
            driver.remove([make(1)])
            many = [make(n) for n in range(2, 202)]
            moved = [make(1000 + n, n) for n in range(2, 202)]
            one, two = make(1), make(1001, 1)
            for change, few, lots in (
                    (driver.put, [one], many), (driver.put, [one], many),
                    (driver.put, [two], moved),
                    (driver.remove, [two], moved)):
                counts = count(change, few), count(change, lots)
                self.assertEqual(counts[0], counts[1])
                self.assertTrue(0 < counts[0] < 9, counts)
        self.assertHeld()

    def test_many_chunks(self) -> None:
        many = [make(n) for n in range(1, 41) for make in (entry, entry6)]
        swapped = [make(n, 41 - n) for n in range(1, 41)
                   for make in (entry, entry6)]
        with mock.patch.object(kea_database, '_CHUNK', 7):
            for wanted in many, swapped:
                self.assertEqual({}, self.driver.put(wanted))
                self.assertHeld(*wanted)
            self.assertEqual({}, self.driver.remove(many))
            self.assertHeld(*swapped)
            self.assertEqual({}, self.driver.remove(swapped))
        self.assertHeld()

    def test_subnet_has_another_id(self) -> None:
        """An entry of a former id is replaced, not doubled."""
        self.driver.put([entry(1), entry6(1)])
        text = self.server.config.read_text()
        self.server.config.write_text(text.replace('=1', '=2'))
        self.assertEqual({}, self.server.driver().put([entry(1), entry6(1)]))
        self.assertHeld(entry(1), entry6(1))
        self.assertEqual({(2, None), (None, 2)}, {
            tuple(row) for row in run(
                self.admin, 'SELECT dhcp4_subnet_id, dhcp6_subnet_id'
                ' FROM hosts WHERE dhcp_identifier_type = 0')})

    def test_remove_what_is_no_mac(self) -> None:
        self.driver.put([entry(1)])
        self.assertEqual({}, self.driver.remove([
            driver_base.HostEntry(mac, entry(1).address)
            for mac in ('', 'fa:16:3e', "' OR 1=1 --", 'x' * 300)]))
        self.assertHeld(entry(1))

    def test_what_others_write(self) -> None:
        """Contexts that look like ours, or like nothing."""
        self.driver.put([entry(1)])
        for number, context in enumerate((
                '{"owner": "vmip"}', '"vmip"', '["vmip"]', '{"vmip": ',
                '{"vmip-lock": true}', '{"x": {"vmip": true}}', ''), 10):
            # as text: PostgreSQL casts it, too
            run(
                self.admin,
                'INSERT INTO hosts (dhcp_identifier, dhcp_identifier_type,'
                ' dhcp4_subnet_id, ipv4_address, user_context) VALUES'
                f" ('foe{number}', 0, 1, {int(entry(number).address)},"
                f" '{context}')")
        self.assertHeld(entry(1))
        failures = self.driver.put([entry(n) for n in range(10, 17)])
        self.assertEqual(7, len(failures))
        self.assertHeld(entry(1))

    def test_written_by_kea(self) -> None:
        """An entry of ours that went through Kea's own JSON stays ours."""
        self.driver.put([entry(1)])
        run(self.admin, "UPDATE hosts SET user_context ="
                " '{  \"note\": 1, \"vmip\": true }'"
                ' WHERE dhcp_identifier_type = 0')
        self.assertHeld(entry(1))
        self.driver.remove([entry(1)])
        self.assertHeld()
