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

"""Database servers of a test's own: MariaDB, PostgreSQL, a Galera cluster.

Needs Debian's packages mariadb-server-core, postgresql-15 and galera-4. The
servers run on free ports of the loopback interface, with all their files in
a temporary directory, and are set up as in production: what is committed is
on the disk. ``durable=False`` is for tests that crash nothing.

As a program it runs a command with a server, whose administrator's URL the
command finds in VMIP_TEST_DATABASE, or in VMIP_TEST_DATABASES one a node::

    python -m tests.databases mariadb -- stestr run

Nothing is left of a server, however the process that started it ends.
"""

import argparse
from collections.abc import Sequence
import functools
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from types import FrameType
from typing import Any
import uuid

import fixtures
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

#: the names of the server's URL in the environment of a command
ONE, ALL = 'VMIP_TEST_DATABASE', 'VMIP_TEST_DATABASES'

USER, PASSWORD = 'vmip', 'unguessed'

POSTGRESQL = pathlib.Path('/usr/lib/postgresql/15/bin')
GALERA = pathlib.Path('/usr/lib/galera/libgalera_smm.so')

# Galera runs it on both sides whenever a node joins. The real ones copy a
# whole server and are in a package that would start one; here a node always
# has a state from which the others can tell it the rest.
_SST = '''#!/bin/sh
where=$(dirname "$0")/gtid
while [ $# -gt 0 ]; do
    case $1 in
        --role) role=$2 ;;
        --address) address=$2 ;;
        --gtid) gtid=$2 ;;
        --parent) server=$2 ;;
        --bypass) bypass=1 ;;
    esac
    shift
done
if [ "$role" = joiner ]; then
    rm -f "$where"
    echo "ready $address/ist"
    until [ -e "$where" ]; do
        kill -0 "$server" || exit 1
        sleep 0.05
    done
    cat "$where"
elif [ "$bypass" ]; then
    echo "$gtid" >"$where.new"
    mv "$where.new" "$where"
    echo "done $gtid"
else
    echo 'the node has missed too much' >&2
    exit 1
fi
'''


class Databases:
    """The databases of a server: made, copied and dropped.

    :param url: of an administrator.
    """

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url)
        self._engine = sa.create_engine(
            self._url, isolation_level='AUTOCOMMIT', pool_pre_ping=True,
            # a node of a cluster that is not ready refuses even a rollback
            pool_reset_on_return=None)
        self._postgresql = self._engine.dialect.name == 'postgresql'

    def url(self, name: str | None) -> str:
        """Return the URL of a database."""
        return self._url.set(database=name).render_as_string(
            hide_password=False)

    def execute(self, *statements: str) -> Sequence[Any]:
        """Run statements as the administrator, none in a transaction.

        :returns: the rows of the last one, if it has any.
        """
        with self._engine.connect() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return result.all() if result.returns_rows else []

    def create(self, template: str | None = None) -> str:
        """Make a database and return its URL.

        :param template: URL of one to copy, which nobody may be using.
        """
        name = f'vmip_{uuid.uuid4().hex}'
        source = sa.make_url(template).database if template else None
        if self._postgresql:
            self.execute(f'CREATE DATABASE {name}'
                         + (f' TEMPLATE {source}' if source else ''))
        else:
            self.execute(f'CREATE DATABASE {name}')
            if source:
                self._copy(source, name)
        return self.url(name)

    def _copy(self, source: str, name: str) -> None:
        with self._engine.connect() as connection:
            connection.exec_driver_sql(f'USE {name}')
            # parents come after their children
            connection.exec_driver_sql('SET foreign_key_checks = 0')
            for table in connection.exec_driver_sql(
                    f'SHOW TABLES FROM {source}').scalars().all():
                _, statement = connection.exec_driver_sql(
                    f'SHOW CREATE TABLE {source}.{table}').one()
                connection.exec_driver_sql(statement)
                connection.exec_driver_sql(
                    f'INSERT INTO {table} SELECT * FROM {source}.{table}')
            connection.exec_driver_sql('SET foreign_key_checks = 1')

    def drop(self, url: str) -> None:
        """Drop a database, in use or not."""
        name = sa.make_url(url).database
        if self._postgresql:
            self.execute(f'DROP DATABASE IF EXISTS {name} WITH (FORCE)')
        else:
            # A transaction that a test forgot would hold it up for a day.
            self.execute('SET lock_wait_timeout = 30',
                         f'DROP DATABASE IF EXISTS {name}')

    def close(self) -> None:
        self._engine.dispose()


class Directory(fixtures.Fixture):
    """A temporary directory that goes also where the process is killed."""

    def _setUp(self) -> None:
        self.path = pathlib.Path(tempfile.mkdtemp(prefix='vmip-database-'))
        # The end of its input is our end. A server that dies with us may
        # write a last file.
        remover = subprocess.Popen(
            ['sh', '-c', 'cat; for try in 1 2 3 4 5 6 7 8 9; do'
             ' rm -rf "$0" 2>/dev/null && exit; sleep 1; done', self.path],
            stdin=subprocess.PIPE, start_new_session=True)
        self.addCleanup(remover.communicate)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return int(sock.getsockname()[1])


class Server(fixtures.Fixture):
    """A running server.

    :ivar url: of an administrator.
    :ivar databases: its databases.
    :param options: more of the server's options.
    :param durable: whether what is committed outlives a crash.
    """

    #: seconds that a start or stop may take on a busy machine
    patience = 60
    #: the system's user that it runs as
    user: str | None = None
    scheme: str
    database = ''
    query = ''
    #: for an end in good order, and for a crash
    stopping, crashing = signal.SIGTERM, signal.SIGKILL

    def __init__(self, *options: str, durable: bool = True) -> None:
        self.options = options
        self.durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._thaw: subprocess.Popen[bytes] | None = None

    def _setUp(self) -> None:
        self.home = self.useFixture(Directory()).path
        if self.user:
            shutil.chown(self.home, self.user, self.user)
        self.programs = self.home
        self.port = _free_port()
        self.url = (f'{self.scheme}://{USER}:{PASSWORD}@127.0.0.1:{self.port}'
                    f'/{self.database}{self.query}')
        self.databases = Databases(self.url)
        self.addCleanup(self.databases.close)
        self.addCleanup(self.kill)
        self.install()
        self.start()

    def install(self) -> None:
        """Make the files of the server."""
        raise NotImplementedError

    def command(self) -> Sequence[str | pathlib.Path]:
        """Return the command that is the server."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Tell whether a server that answers can be used."""
        return True

    def _spawn(self, *command: str | pathlib.Path
               ) -> subprocess.Popen[bytes]:
        with (self.home / 'log').open('ab') as log:
            return subprocess.Popen(
                # whatever ends us ends the server
                ['setpriv', f'--pdeathsig={self.crashing.name[3:]}', '--',
                 *command],
                env={'PATH': f'{self.programs}:/usr/sbin:/usr/bin:/sbin:/bin',
                     'LC_ALL': 'C.UTF-8', 'HOME': str(self.home)},
                cwd=self.home, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True, user=self.user,
                group=self.user, extra_groups=[] if self.user else None)

    def run(self, *command: str | pathlib.Path) -> None:
        """Run one of the server's programs to its end."""
        if self._spawn(*command).wait():
            raise RuntimeError(f'{command[0]}:\n{self.log()}')

    def log(self) -> str:
        """Return the end of what the server has told."""
        text = (self.home / 'log').read_text(errors='replace')
        return text[-3000:]

    def start(self) -> None:
        """Start the server, unless it runs, and wait until it can be used."""
        if self.running:
            return
        self._process = self._spawn(*self.command())
        deadline = time.monotonic() + self.patience
        while not self._answers():
            if (self._process.poll() is not None
                    or time.monotonic() > deadline):
                raise RuntimeError(f'no server:\n{self.log()}')
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            self.databases.execute('SELECT 1')
            return self.ready()
        except sa_exc.DBAPIError:
            return False

    @property
    def running(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        """End the server in good order."""
        self._end(self.stopping)

    def kill(self) -> None:
        """Crash the server."""
        self._end(self.crashing)

    def freeze(self) -> None:
        """Stop the server where it is: it is there, and silent.

        It goes on at :meth:`thaw`, or at our end, of which it then hears.
        """
        pids = [str(pid) for pid in self._pids()]
        self._thaw = subprocess.Popen(
            ['sh', '-c', 'cat; kill -CONT "$@"', 'sh', *pids],
            stdin=subprocess.PIPE, start_new_session=True)
        for pid in pids:
            os.kill(int(pid), signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        if self._thaw is not None:
            self._thaw.communicate()
            self._thaw = None

    def _pids(self) -> list[int]:
        """Return the server's process and its children, which it began."""
        if self._process is None:
            return []
        pid = self._process.pid
        children = pathlib.Path(f'/proc/{pid}/task/{pid}/children')
        return [pid, *map(int, children.read_text().split())]

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        # one that is frozen does not hear of its end
        self.thaw()
        self._process.send_signal(number)
        self._process.wait(self.patience)
        self._process = None


class MariaDB(Server):
    """A MariaDB, its tables InnoDB's."""

    scheme = 'mysql+pymysql'
    query = '?charset=utf8mb4'

    def install(self) -> None:
        self.data = self.home / 'data'
        (self.home / 'users.sql').write_text(
            'FLUSH PRIVILEGES;\n'
            f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO {USER}@'127.0.0.1' WITH GRANT OPTION;\n",
            encoding='ascii')
        self.run('mariadb-install-db', '--no-defaults', '--user=root',
                 # not /tmp, where a server that starts clears up
                 f'--datadir={self.data}', f'--tmpdir={self.home}',
                 '--skip-test-db',
                 '--skip-name-resolve',
                 '--auth-root-authentication-method=normal',
                 f'--extra-file={self.home}/users.sql')

    def command(self) -> Sequence[str | pathlib.Path]:
        words = [
            'mariadbd', '--no-defaults', '--user=root',
            f'--datadir={self.data}', f'--tmpdir={self.home}',
            '--bind-address=127.0.0.1', f'--port={self.port}',
            f'--socket={self.home}/socket', f'--pid-file={self.home}/pid',
            '--skip-name-resolve', '--max-connections=500']
        if not self.durable:
            words += ['--innodb-flush-log-at-trx-commit=0',
                      '--innodb-flush-method=nosync',
                      '--skip-innodb-doublewrite']
        return [*words, *self.options]


class PostgreSQL(Server):
    """A PostgreSQL."""

    scheme = 'postgresql+psycopg2'
    database = 'postgres'
    # it refuses to be root's
    user = 'postgres'
    # SIGQUIT is a crash, but what it shares in memory does not stay behind.
    stopping, crashing = signal.SIGINT, signal.SIGQUIT

    def install(self) -> None:
        (self.home / 'password').write_text(PASSWORD, encoding='ascii')
        self.run(POSTGRESQL / 'initdb', '--pgdata', self.home / 'data',
                 '--username', USER, '--pwfile', self.home / 'password',
                 '--auth=scram-sha-256', '--encoding=UTF8', '--no-sync')

    def command(self) -> Sequence[str | pathlib.Path]:
        settings = {
            'listen_addresses': '127.0.0.1', 'port': str(self.port),
            'unix_socket_directories': '', 'max_connections': '500'}
        if not self.durable:
            settings.update(dict.fromkeys(
                ('fsync', 'synchronous_commit', 'full_page_writes'), 'off'))
        words: list[str | pathlib.Path] = [
            POSTGRESQL / 'postgres', '-D', self.home / 'data']
        for name, value in settings.items():
            words += ['-c', f'{name}={value}']
        return [*words, *self.options]


class Node(MariaDB):
    """One node of a Galera cluster.

    :param cluster: its nodes so far, and from now on this one.
    """

    def __init__(self, cluster: list['Node'], *options: str,
                 durable: bool = True) -> None:
        super().__init__(*options, durable=durable)
        self._cluster = cluster

    def install(self) -> None:
        self._group, self._ist = _free_port(), _free_port()
        self._cluster.append(self)
        first = self._cluster[0]
        if self is first:
            super().install()
            (self.home / 'wsrep_sst_ist').write_text(_SST, encoding='ascii')
            (self.home / 'wsrep_sst_ist').chmod(0o755)
            # Its copies will know this state for one of the cluster's.
            self.start()
            self.stop()
            shutil.copytree(self.data, self.home / 'seed',
                            ignore=shutil.ignore_patterns('galera.cache'))
        else:
            # One folder of programs, where they leave each other word.
            self.programs = first.home
            self.data = self.home / 'data'
            shutil.copytree(first.home / 'seed', self.data)

    def command(self) -> Sequence[str | pathlib.Path]:
        others = [node for node in self._cluster
                  if node is not self and node.running]
        # The first outvotes the second, as it would with an arbitrator.
        weight = 2 if self is self._cluster[0] else 1
        words = [
            *super().command(), '--binlog-format=ROW',
            '--innodb-autoinc-lock-mode=2', '--wsrep-on=ON',
            f'--wsrep-provider={GALERA}', '--wsrep-cluster-name=vmip',
            '--wsrep-sst-method=ist',
            f'--wsrep-node-address=127.0.0.1:{self._group}',
            f'--wsrep-node-name={self._cluster.index(self)}',
            '--wsrep-cluster-address=gcomm://' + ','.join(
                f'127.0.0.1:{node._group}' for node in others),
            '--wsrep-provider-options=' + ';'.join((
                f'gmcast.listen_addr=tcp://127.0.0.1:{self._group}',
                f'ist.recv_addr=127.0.0.1:{self._ist}',
                f'pc.weight={weight}'))]
        # Where it stopped, or crashed.
        self.run(*words, '--wsrep-recover')
        position = re.findall(r'Recovered position: (\S+)', self.log())[-1:]
        if position and not position[0].startswith('00000000'):
            words.append(f'--wsrep-start-position={position[0]}')
        if not others:
            words.append('--wsrep-new-cluster')
            state = self.data / 'grastate.dat'
            if state.exists():
                state.write_text(state.read_text().replace(
                    'safe_to_bootstrap: 0', 'safe_to_bootstrap: 1'))
        return words

    def ready(self) -> bool:
        status = {row[0]: row[1] for row in self.databases.execute(
            "SHOW STATUS LIKE 'wsrep_%%'")}
        return (status['wsrep_local_state_comment'] == 'Synced'
                and int(status['wsrep_cluster_size'])
                == sum(node.running for node in self._cluster))


class Galera(fixtures.Fixture):
    """A cluster of two nodes, each of which may be written to.

    The first goes on when the second crashes, not the other way round. When
    both are down the one that was up last has to be started first.
    """

    def __init__(self, *options: str, durable: bool = True) -> None:
        self._options = options
        self._durable = durable

    def _setUp(self) -> None:
        self.nodes: list[Node] = []
        for _ in range(2):
            self.useFixture(
                Node(self.nodes, *self._options, durable=self._durable))
        self.url = self.nodes[0].url

    def create(self, template: str | None = None) -> list[str]:
        """Make a database and return its URL on each node."""
        first = self.nodes[0].databases.create(template)
        self.settle()
        name = sa.make_url(first).database
        return [node.databases.url(name) for node in self.nodes]

    def settle(self) -> None:
        """Wait until each node has what was written on the other."""
        for node in self.nodes:
            node.databases.execute('SET wsrep_sync_wait = 15',
                                   'SHOW DATABASES')

    def drop(self, urls: Sequence[str]) -> None:
        """Drop a database on all nodes."""
        self.nodes[0].databases.drop(urls[0])


KINDS: dict[str, type[MariaDB] | type[PostgreSQL] | type[Galera]] = {
    'mariadb': MariaDB, 'postgresql': PostgreSQL, 'galera': Galera}


@functools.cache
def given() -> Databases | None:
    """Return the server that tests of any database are to use, if any."""
    url = os.environ.get(ONE)
    return Databases(url) if url else None


def _end(number: int, frame: FrameType | None) -> None:
    # once: the server is being stopped
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with a server.

    :returns: the command's exit status.
    """
    parser = argparse.ArgumentParser(prog='python -m tests.databases')
    parser.add_argument('kind', choices=sorted(KINDS))
    parser.add_argument('--fast', action='store_true',
                        help='let what is committed not wait for the disk')
    parser.add_argument('--option', action='append', default=[],
                        help='one more of the server (may be repeated)')
    parser.add_argument('command', nargs='+')
    words = parser.parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    with KINDS[words.kind](
            *words.option, durable=not words.fast) as server:
        nodes = getattr(server, 'nodes', [server])
        process = subprocess.Popen(
            ['setpriv', '--pdeathsig=TERM', '--', *words.command],
            env={**os.environ, ONE: server.url,
                 ALL: ' '.join(node.url for node in nodes)})
        try:
            status = process.wait()
        finally:
            process.terminate()
            process.wait()
    return status if status >= 0 else 128 - status


if __name__ == '__main__':
    sys.exit(main())
