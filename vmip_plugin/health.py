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

"""Whether a daemon lives, whether it can do its work, and who asks.

*Live* means that its loops turn: where one does not, only a restart helps.
*Ready* means that what it needs is there: where something is not, a restart
does not help, and the daemon goes on by itself when it is back.

Whoever asks gets what is known already. No question of theirs reaches the
database or the bus, and nothing that they do keeps the daemon from its work.
"""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import server
import ipaddress
import json
import re
import socket
import socketserver
import threading
import time
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging
from oslo_utils import strutils
import prometheus_client
from prometheus_client import core
from prometheus_client import exposition
from prometheus_client import registry as prometheus_registry

from vmip_plugin import exceptions
from vmip_plugin import metrics
from vmip_plugin import version

LOG = logging.getLogger(__name__)

#: Seconds between two looks at what is needed.
INTERVAL = 5.0
#: Seconds after which a look that does not end says that it is not there.
PATIENCE = 30.0
#: Most connections at once; one more ends the oldest.
CONNECTIONS = 16
#: Seconds that a client may keep silent.
SILENCE = 5.0

#: Returns why something that is needed is not there; None: it is.
Check = Callable[[], str | None]

_CREDENTIALS = re.compile(r'://\S*@')


class Pulse:
    """When a loop last turned.

    :param limit: most seconds between two turns of a loop that is well.
    :param ask: has a loop that may have nothing to do call :meth:`beat`.
    """

    def __init__(self, loop: str, limit: float,
                 ask: Callable[[], object] | None = None) -> None:
        self.loop = loop
        self.limit = limit
        self.ask = ask
        self._at = time.monotonic()

    def beat(self) -> None:
        self._at = time.monotonic()

    @property
    def age(self) -> float:
        return time.monotonic() - self._at

    @property
    def why_not(self) -> str | None:
        """Why it does not turn; None: it does."""
        age = self.age
        return (f'has not turned for {age:.0f} s' if age > self.limit
                else None)


class Watch:
    """Looks again and again whether something is there, in its own thread."""

    def __init__(self, name: str, check: Check) -> None:
        self.name = name
        self._check = check
        self._why: str | None = 'not looked at yet'
        self._at = time.monotonic()

    @property
    def why_not(self) -> str | None:
        """Why it is not there, without secrets; None: it is."""
        age = time.monotonic() - self._at
        return (f'no answer for {age:.0f} s' if age > INTERVAL + PATIENCE
                else self._why)

    def look(self) -> None:
        """Look once."""
        try:
            why = self._check()
        except exceptions.VmipError as exc:
            why = str(exc)
        except Exception as exc:
            LOG.debug('Check %s', self.name, exc_info=True)
            why = type(exc).__name__
        why = why and _without_secrets(why)
        if why is None and self._why is not None:
            LOG.info('Check %s is well', self.name)
        elif why is not None and why != self._why:
            LOG.warning('Check %s: %s', self.name, why)
        self._why, self._at = why, time.monotonic()

    def keep(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.look()
            stop.wait(INTERVAL)


class Health(prometheus_registry.Collector):
    """What a daemon's loops and needs are like.

    :param daemon: one of those in :mod:`vmip_plugin.metrics`.
    :param checks: what it needs, by name.
    """

    def __init__(self, daemon: str, pulses: Sequence[Pulse],
                 checks: Mapping[str, Check]) -> None:
        self.daemon = daemon
        self._pulses = pulses
        self._watches = [Watch(name, check)
                         for name, check in checks.items()]

    def start(self, stop: threading.Event) -> None:
        """Look at what is needed until told to stop."""
        for watch in self._watches:
            threading.Thread(target=watch.keep, args=(stop,), daemon=True,
                             name=f'check-{watch.name}').start()
        threading.Thread(target=self._ask, args=(stop,), daemon=True,
                         name='pulses').start()

    def _ask(self, stop: threading.Event) -> None:
        while not stop.wait(INTERVAL):
            for pulse in self._pulses:
                try:
                    if pulse.ask is not None:
                        pulse.ask()
                except Exception:
                    # the pulse's age tells it to whoever asks
                    LOG.debug('Loop %s', pulse.loop, exc_info=True)

    def live(self) -> tuple[bool, dict[str, str]]:
        """Tell whether all loops turn, and how each of them is."""
        return _judged((pulse.loop, pulse.why_not) for pulse in self._pulses)

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Tell whether all is there, and how each need is."""
        return _judged((watch.name, watch.why_not)
                       for watch in self._watches)

    def collect(self) -> Iterable[core.Metric]:
        """Return the metrics of this for Prometheus."""
        yield core.InfoMetricFamily(
            'vmip_build', 'The version that runs.',
            {'version': version.version_string()})
        ready = core.GaugeMetricFamily(
            'vmip_ready', 'Whether what the daemon needs is there.',
            labels=['check'])
        for watch in self._watches:
            ready.add_metric([watch.name], float(watch.why_not is None))
        yield ready
        live = core.GaugeMetricFamily(
            'vmip_live', 'Whether a loop turns.', labels=['loop'])
        for pulse in self._pulses:
            live.add_metric([pulse.loop], float(pulse.why_not is None))
        yield live
        ages = core.GaugeMetricFamily(
            'vmip_loop_age_seconds', 'Time since a loop turned.',
            labels=['loop'])
        for pulse in self._pulses:
            ages.add_metric([pulse.loop], pulse.age)
        yield ages


def _judged(found: Iterable[tuple[str, str | None]],
            ) -> tuple[bool, dict[str, str]]:
    reasons = dict(found)
    return (not any(reasons.values()),
            {name: why or 'ok' for name, why in reasons.items()})


def _without_secrets(text: str) -> str:
    masked: str = strutils.mask_password(text)
    return _CREDENTIALS.sub('://***@', masked)


class _Handler(server.BaseHTTPRequestHandler):

    server: 'Server'
    timeout = SILENCE
    server_version = 'vmip'
    sys_version = ''

    def do_GET(self) -> None:
        health = self.server.health
        path = self.path.partition('?')[0]
        if path == '/metrics':
            encode, kind = exposition.choose_encoder(
                self.headers.get('Accept', ''))
            self._answer(200, kind, encode(self.server.registry))
        elif path == '/live':
            self._tell(*health.live())
        elif path == '/ready':
            self._tell(*health.ready())
        else:
            self.send_error(404)

    def _tell(self, well: bool, reasons: Mapping[str, str]) -> None:
        body = {'status': 'ok' if well else 'failed', 'checks': reasons}
        self._answer(200 if well else 503, 'application/json',
                     json.dumps(body, indent=1).encode() + b'\n')

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.send_header('Cache-Control', 'no-store')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        # what a client sent is not for the log
        pass


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers GET /metrics, /live and /ready.

    :raises OSError: the address cannot be had.
    """

    allow_reuse_address = True
    # the end of the program waits for no client
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: str, port: int, health: Health,
                 registry: metrics.Registry) -> None:
        self.health = health
        self.registry = registry
        self._lock = threading.Lock()
        self._open: collections.deque[socket.socket] = collections.deque()
        if ipaddress.ip_address(address).version == 6:
            self.address_family = socket.AF_INET6
        super().__init__((address, port), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        self.registry.register(self.health)
        threading.Thread(target=self.serve_forever, daemon=True,
                         name='monitoring').start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.registry.unregister(self.health)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= CONNECTIONS:
                # It need not be the slowest, but no slow one stays for long.
                _end(self._open.popleft())
            self._open.append(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            if request in self._open:
                self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.debug('A client of /metrics, /live or /ready', exc_info=True)


def _end(connection: socket.socket) -> None:
    try:
        # its thread notices, and closes it
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def serve(conf: cfg.ConfigOpts, health: Health, stop: threading.Event,
          ) -> Server | None:
    """Let a daemon be asked, where its port is configured.

    :param stop: ends the looks at what is needed.
    :raises ConfigError: the address cannot be had.
    """
    group = conf.monitoring
    port: int | None = getattr(
        group, f'{health.daemon.removeprefix("vmip-")}_port')
    if port is None:
        return None
    # otherwise each counter is followed by the time of its start
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = metrics.REGISTRIES[health.daemon]
    try:
        made = Server(group.listen_address, port, health, registry)
    except OSError as exc:
        raise exceptions.ConfigError(
            f'[monitoring] listen_address {group.listen_address}, port '
            f'{port}: {exc.strerror}') from exc
    health.start(stop)
    made.start()
    LOG.info('Metrics and health are told on %s, port %d',
             group.listen_address, made.port)
    return made
