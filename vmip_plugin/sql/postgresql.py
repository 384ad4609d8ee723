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

"""psycopg2's connections with a deadline for each question.

libpq limits how long a connect takes, and the server how long a statement
does. A server that is stopped keeps neither promise, and its kernel goes on
to acknowledge what is sent, so no option of TCP ends the wait either. Here a
thread shuts the socket of a question that has waited too long, which ends
libpq's wait with an error.
"""

from collections.abc import Iterator
import contextlib
import functools
import os
import socket
import threading
import time
from typing import Any

import psycopg2
from psycopg2 import extensions
import sqlalchemy as sa

#: Seconds between two looks at the questions that wait.
_INTERVAL = 0.5


def bound(engine: sa.Engine, connect: float, seconds: float) -> None:
    """Have each connection of an engine wait no longer than this.

    :param connect: seconds that a connect may take at least, after which one
        that failed is taken for a server that does not answer.
    :param seconds: that each question may take.
    """
    factory = functools.partial(Connection, connect=connect, seconds=seconds)

    def do_connect(dialect: Any, record: Any, args: Any,
                   parameters: dict[str, Any]) -> None:
        parameters['connection_factory'] = factory

    sa.event.listen(engine, 'do_connect', do_connect)


class _Watchdog:
    """Shuts the sockets of questions that are over their time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[object, tuple[float, socket.socket]] = {}
        self._pid = 0

    @contextlib.contextmanager
    def watch(self, server: socket.socket, seconds: float) -> Iterator[None]:
        """Let what runs inside wait for a server, for so many seconds.

        :raises psycopg2.OperationalError: caused by a TimeoutError, where it
            took longer.
        """
        if self._pid != os.getpid():
            self._start()
        key = object()
        self._waiting[key] = (time.monotonic() + seconds, server)
        try:
            yield
        except psycopg2.Error as exc:
            if key in self._waiting:
                raise
            raise psycopg2.OperationalError(
                f'no answer within {seconds:g} s') from TimeoutError(str(exc))
        finally:
            self._waiting.pop(key, None)

    def _start(self) -> None:
        with self._lock:
            # a thread does not outlive a fork
            if self._pid != os.getpid():
                self._waiting = {}
                threading.Thread(target=self._run, name='database-deadlines',
                                 daemon=True).start()
                self._pid = os.getpid()

    def _run(self) -> None:
        while True:
            time.sleep(_INTERVAL)
            now = time.monotonic()
            for key, (end, server) in list(self._waiting.items()):
                if end <= now:
                    self._waiting.pop(key, None)
                    with contextlib.suppress(OSError):
                        server.shutdown(socket.SHUT_RDWR)


_WATCHDOG = _Watchdog()


class Cursor(extensions.cursor):
    """A cursor whose statements have the connection's deadline."""

    connection: 'Connection'

    def execute(self, *args: Any, **kwargs: Any) -> None:
        with self.connection.watched():
            super().execute(*args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> None:
        with self.connection.watched():
            super().executemany(*args, **kwargs)


class Connection(extensions.connection):
    """A connection whose questions have a deadline.

    :raises psycopg2.OperationalError: caused by a TimeoutError where the
        server did not answer within ``connect`` seconds.
    """

    def __init__(self, *args: Any, connect: float, seconds: float,
                 **kwargs: Any) -> None:
        began = time.monotonic()
        try:
            super().__init__(*args, **kwargs)
        except psycopg2.OperationalError as exc:
            # libpq tells it in words, in the language of the process
            if time.monotonic() - began >= connect:
                raise exc from TimeoutError('connect')
            raise
        self._seconds = seconds
        # a copy, so that the watchdog never meets another file's number
        self._server = socket.socket(fileno=os.dup(self.fileno()))
        self.cursor_factory = Cursor

    def watched(self) -> contextlib.AbstractContextManager[None]:
        """Let what runs inside wait for the server no longer than it may."""
        return _WATCHDOG.watch(self._server, self._seconds)

    def commit(self) -> None:
        with self.watched():
            super().commit()

    def rollback(self) -> None:
        with self.watched():
            super().rollback()

    def set_client_encoding(self, *args: Any) -> None:
        with self.watched():
            super().set_client_encoding(*args)

    def close(self) -> None:
        super().close()
        self._server.close()
