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

"""designate-sink and a designate-central for it, as a peer.

Both are the real programs, on MariaDB, in a virtual environment of their own
that is made at the first use. designate-central's casts to designate-worker
find nobody, and no DNS server is written to: what is measured is less than
what a whole Designate does.
"""

import os
import pathlib
import signal
import subprocess
import sys

from amqp import exceptions
import fixtures
import sqlalchemy as sa

from tests import databases
from tests import lab
from tests import rabbit

ROOT = pathlib.Path(__file__).parents[2]
VENV = ROOT / '.venv-designate'
PACKAGES = ('designate==22.0.0', 'PyMySQL==1.2.4')
POOL = 'designate'

_CONFIG = """[DEFAULT]
transport_url = {broker}
control_exchange = designate
executor_thread_pool_size = {threads}
state_path = {folder}
host = bench
quota_zone_recordsets = 1000000
quota_zone_records = 1000000
[oslo_concurrency]
lock_path = {folder}
[oslo_messaging_rabbit]
rabbit_qos_prefetch_count = {threads}
[storage:sqlalchemy]
connection = {database}
[service:central]
workers = 1
[service:sink]
workers = 1
enabled_notification_handlers = nova_fixed, neutron_floatingip
listener_pool_name = {pool}
[handler:nova_fixed]
notification_topics = notifications, versioned_notifications
zone_id = {zone}
formatv4 = %(octet0)s-%(octet1)s-%(octet2)s-%(octet3)s.%(zone)s
[handler:neutron_floatingip]
zone_id = {zone}
formatv4 = %(octet0)s-%(octet1)s-%(octet2)s-%(octet3)s.%(zone)s
"""

_POOLS = """- name: default
  description: none
  attributes: {}
  ns_records:
    - hostname: ns.example.org.
      priority: 1
  nameservers:
    - {host: 127.0.0.1, port: 5354}
  targets:
    - type: fake
      description: none
      masters:
        - {host: 127.0.0.1, port: 5354}
      options: {}
"""

_ZONE = """
import sys
from designate.central import rpcapi
import designate.conf
from designate import context
from designate import objects
from designate import policy
from designate import rpc
from designate import utils
utils.read_config('designate', sys.argv)
policy.init()
rpc.init(designate.conf.CONF)
zone = rpcapi.CentralAPI().create_zone(
    context.DesignateContext.get_admin_context(project_id='bench'),
    objects.Zone(name='example.org.', email='a@example.org', type='PRIMARY'))
print(zone.id)
"""


class Sink(fixtures.Fixture):
    """A designate-sink that waits in front of its queue.

    :param database: URL of an empty database.
    :param threads: how many messages it handles at a time. oslo.messaging's
        default is 64; then it may look for the records of a deleted server
        before it has made them, and leave them for good.
    """

    def __init__(self, broker: rabbit.RabbitMQ, database: str,
                 threads: int) -> None:
        self._threads = threads
        self._broker = broker
        self._database = database

    def _setUp(self) -> None:
        install()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self._configure('')
        (self.folder / 'pools.yaml').write_text(_POOLS)
        self._run('designate-manage', 'database', 'sync')
        self._start('designate-central')
        self._queue('central')
        self._run('designate-manage', 'pool', 'update', '--file',
                  str(self.folder / 'pools.yaml'), '--skip-verify-drivers')
        self._configure(self._run('python', '-c', _ZONE).split()[-1])
        for _ in range(5):
            # It forks while its threads run: now and then its worker hangs.
            self.process = self._start('designate-sink')
            try:
                self._queue(POOL, 15)
                break
            except RuntimeError:
                self._end(self.process)
        else:
            self._queue(POOL)

    def _configure(self, zone: str) -> None:
        (self.folder / 'designate.conf').write_text(_CONFIG.format(
            broker=self._broker.owner_url, database=self._database, zone=zone,
            folder=self.folder, threads=self._threads, pool=POOL))

    def _command(self, program: str, *args: str) -> list[str]:
        config = f'--config-file={self.folder}/designate.conf'
        if program == 'python':
            return [f'{VENV}/bin/python', *args, config]
        return [f'{VENV}/bin/{program}', config, *args]

    def _run(self, *command: str) -> str:
        done = subprocess.run(self._command(*command), capture_output=True,
                              text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(
                f'{command[0]}: {done.stdout}{done.stderr}{self.log()}')
        return done.stdout

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / 'log').open('ab') as log:
            process = subprocess.Popen(self._command(*command), stdout=log,
                                       stderr=log, start_new_session=True)
        self.addCleanup(self._end, process)
        return process

    def _queue(self, name: str, seconds: float = 60) -> None:
        """Wait until somebody reads a queue.

        :raises RuntimeError: nobody does in that time.
        """
        def there() -> bool:
            try:
                self._broker.waiting(name)
            except exceptions.NotFound:
                return False
            return True

        try:
            lab.wait_for(there, seconds)
        except TimeoutError as exc:
            raise RuntimeError(
                f'nobody reads {name}: {self.log()}') from exc

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode is not None:
            return
        # its workers are of its group
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def counts(self, server: databases.Databases) -> object:
        """Return what changes with everything that is done."""
        name = sa.make_url(self._database).database
        return [tuple(row) for row in server.execute(
            'SELECT action, COUNT(*), SUM(version) '
            f'FROM {name}.records WHERE managed GROUP BY action')]

    def log(self) -> str:
        """Return the end of what both programs told."""
        return (self.folder / 'log').read_text()[-3000:]


def install() -> None:
    """Make the virtual environment, once."""
    done = VENV / 'complete'
    wanted = ' '.join(PACKAGES)
    if done.exists() and done.read_text() == wanted:
        return
    subprocess.run([sys.executable, '-m', 'venv', VENV], check=True)
    subprocess.run([VENV / 'bin/pip', 'install', '-q',
                    '--disable-pip-version-check', *PACKAGES, '-c',
                    ROOT / 'devstack/minicloud/constraints.txt'], check=True)
    done.write_text(wanted)


