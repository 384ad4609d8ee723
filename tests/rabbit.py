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

"""A RabbitMQ of a test's own.

Needs Debian's package rabbitmq-server, whose service must not run: the test
starts the server itself, on free ports of the loopback interface, with its
own epmd and all its files in a temporary directory.
"""

import base64
from collections.abc import Iterable
import contextlib
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import time
from typing import Any

import fixtures
import kombu

from tests import lab
from tests import notifications

SERVER = pathlib.Path('/usr/lib/rabbitmq/bin/rabbitmq-server')
EPMD = '/usr/bin/epmd'
RIGHTS = pathlib.Path(__file__).parents[1] / 'doc/examples/rabbitmq/rights.sh'


def _accounts() -> dict[str, Any]:
    """Return what RabbitMQ calls definitions."""
    rights = re.findall(r"'(.+?)'", RIGHTS.read_text())
    return {
        'vhosts': [{'name': '/'}],
        'users': [{
            'name': name, 'password_hash': _hash(name), 'tags': '',
            'hashing_algorithm': 'rabbit_password_hashing_sha256'}
            for name in ('owner', 'vmip')],
        'permissions': [
            {'user': name, 'vhost': '/',
             **dict(zip(('configure', 'write', 'read'), of, strict=True))}
            for name, of in (('owner', ['.*'] * 3), ('vmip', rights))]}


def _hash(password: str) -> str:
    salt = b'salt'
    return base64.b64encode(salt + hashlib.sha256(
        salt + password.encode()).digest()).decode()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return int(sock.getsockname()[1])


class RabbitMQ(fixtures.Fixture):
    """A running broker.

    :ivar url: for oslo.messaging's ``transport_url``, of an account with the
        rights that the documentation gives it.
    :ivar owner_url: the same of one that may do everything.
    """

    #: seconds that a start may take on a busy machine
    patience = lab.PATIENCE

    def _setUp(self) -> None:
        if not SERVER.exists():
            raise RuntimeError('install the package rabbitmq-server')
        self.home = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.port, dist, epmd = _free_port(), _free_port(), _free_port()
        self.owner_url = f'rabbit://owner:owner@127.0.0.1:{self.port}//'
        self.url = f'rabbit://vmip:vmip@127.0.0.1:{self.port}//'
        (self.home / 'definitions.json').write_text(json.dumps(_accounts()))
        (self.home / 'rabbitmq.conf').write_text(
            f'listeners.tcp.1 = 127.0.0.1:{self.port}\n'
            f'load_definitions = {self.home}/definitions.json\n'
            'vm_memory_high_watermark.absolute = 1GB\n'
            'disk_free_limit.absolute = 10MB\n'
            'log.console = true\n', encoding='ascii')
        self._env = {
            'PATH': '/usr/sbin:/usr/bin:/sbin:/bin',
            'LC_ALL': 'C.UTF-8',
            'HOME': str(self.home),
            'ERL_EPMD_ADDRESS': '127.0.0.1',
            'ERL_EPMD_PORT': str(epmd),
            'RABBITMQ_NODENAME': f'vmip-{self.port}@localhost',
            'RABBITMQ_DIST_PORT': str(dist),
            'RABBITMQ_CONFIG_FILE': str(self.home / 'rabbitmq.conf'),
            'RABBITMQ_MNESIA_BASE': str(self.home / 'mnesia'),
            'RABBITMQ_LOG_BASE': str(self.home),
            'RABBITMQ_LOGS': '-',
            'RABBITMQ_ENABLED_PLUGINS_FILE': str(self.home / 'plugins'),
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS':
                '-kernel inet_dist_use_interface {127,0,0,1} '
                '+sbwt none +S 2:2'}
        # a server without an epmd would leave one behind as a daemon
        self._spawn(EPMD, '-port', str(epmd), '-address', '127.0.0.1')
        self.start()

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.home / 'log').open('ab') as log:
            process = subprocess.Popen(
                command, env=self._env, cwd=self.home,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        self.addCleanup(self._kill, process)
        return process

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def start(self) -> None:
        """Start the broker and wait until it answers."""
        self._server = self._spawn(str(SERVER))
        deadline = time.monotonic() + self.patience
        while True:
            try:
                with self.connection() as connection:
                    connection.connect()
                return
            except OSError as exc:
                if (self._server.poll() is not None
                        or time.monotonic() > deadline):
                    log = (self.home / 'log').read_text(errors='replace')
                    raise RuntimeError(f'no broker:\n{log[-3000:]}') from exc
                time.sleep(0.2)

    def kill(self) -> None:
        """End the broker at once; what is not durable is lost."""
        self._kill(self._server)

    def connection(self, confirm: bool = False, url: str | None = None,
                   ) -> Any:
        """Return a new kombu connection to the broker.

        :param confirm: whether to wait until it has kept what is published.
        :param url: default: that of the owner.
        """
        return kombu.Connection(
            (url or self.owner_url).replace('rabbit:', 'amqp:'),
            connect_timeout=self.patience,
            transport_options={'confirm_publish': confirm})

    def waiting(self, queue: str) -> int:
        """Return how many messages of a queue no consumer has."""
        with self.connection() as connection:
            return int(connection.default_channel.queue_declare(
                queue, passive=True).message_count)

    def publish(self, messages: Iterable[notifications.Message]) -> None:
        """Send messages as Nova's and Neutron's notifiers do."""
        with self.connection() as connection:
            producer = connection.Producer(auto_declare=False)
            for message in messages:
                producer.publish(
                    message.envelope, routing_key=message.routing_key,
                    exchange=message.exchange, serializer='json')
