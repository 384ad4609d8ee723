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

"""The driver of a server on another host, by that host's vmip-agent.

For servers whose files are local, such as dnsmasq. The agent calls a driver
of its own for each call that it gets over the message bus, so that two
programs that call it at once are the same to that driver as two on its host.

A change whose caller has given up must not be done later, when another one
has overtaken it. So the agent is asked for a sign of life before it is sent
one, and what nobody has taken is dropped by the bus after ``timeout`` seconds.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
import itertools
import os
import threading
from typing import Any, ClassVar, Self, TypeVar

from oslo_config import cfg
from oslo_log import log as logging
import oslo_messaging

from vmip_plugin.agent import rpc
from vmip_plugin import bus
from vmip_plugin.conf import dhcp
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import wire
from vmip_plugin import exceptions
from vmip_plugin import types

LOG = logging.getLogger(__name__)

_T = TypeVar('_T')
_Held = TypeVar('_Held', base.HostEntry, base.Lease)
_About = tuple[base.Capability, types.Address | None]


class RemoteDriver(base.DHCPDriver):
    """A server that the agent on its host writes to.

    What the agent's driver can do is asked when it is first needed, and with
    each change.
    """

    OPTS: ClassVar[Sequence[cfg.Opt]] = (
        cfg.StrOpt(
            'host',
            help='The host of the server, as vmip-agent there calls it: its '
                 'host name. Needed.'),
        cfg.StrOpt(
            'server',
            help='The name of the server in [dhcp] servers of that host. '
                 'Default: the same as here.'),
        cfg.IntOpt(
            'timeout', default=60, min=wire.ALIVE,
            help='Longest time in seconds that one call of the agent may '
                 'take. An agent that gives no sign of life is waited for '
                 f'{wire.ALIVE} seconds.'),
    )

    def __init__(self, name: str, options: cfg.ConfigOpts.GroupAttr,
                 bus: '_Bus') -> None:
        super().__init__(name, options)
        if not options.host:
            raise exceptions.ConfigError(
                f'[dhcp:{name}] host is not set: set it to the host name of '
                'the DHCP server')
        self._server: str = options.server or name
        self._who = f'vmip-agent on {options.host}'
        self._bus = bus
        self._about: _About | None = None

    @classmethod
    def load(cls, conf: cfg.ConfigOpts, name: str) -> Self:
        return cls(name, dhcp.register_server(conf, name, cls.OPTS),
                   _bus(conf))

    @property
    def capabilities(self) -> base.Capability:  # type: ignore[override]
        """What the driver on the host can do.

        :raises DHCPServerUnavailable: the agent cannot be asked.
        """
        return (self._about or self._describe())[0]

    @property
    def server_id(self) -> types.Address | None:
        """What is configured on the host.

        :raises DHCPServerUnavailable: the agent cannot be asked.
        """
        return (self._about or self._describe())[1]

    def put(self, entries: Sequence[base.HostEntry]) -> base.Failures:
        failures: base.Failures = {}
        good = []
        for entry in entries:
            try:
                # what the agent will do with it
                wire.load_entry(wire.dump_entry(entry))
                good.append(entry)
            except ValueError as exc:
                failures[entry] = exceptions.DHCPError(
                    f'{self.name}: {entry.address}: {exc}')
        return failures | self._change('put', good)

    def remove(self, entries: Iterable[base.HostEntry]) -> base.Failures:
        return self._change('remove', entries)

    def entries(self) -> Iterator[base.HostEntry]:
        return self._pages('entries', wire.load_entry)

    def leases(self) -> Iterator[base.Lease]:
        return self._pages('leases', wire.load_lease)

    def leases_of(self, addresses: Collection[types.Address],
                  ) -> Iterator[base.Lease]:
        for some in _batches(addresses):
            yield from self._call('leases_of', _list(wire.load_lease),
                                  addresses=[str(one) for one in some])

    def release(self, lease: base.Lease) -> None:
        self._describe()
        self._call('release', lambda value: None,
                   lease=wire.dump_lease(lease))

    def check(self) -> list[str]:
        try:
            return [f'{self._who}: {sentence}' for sentence
                    in self._call('check', _list(wire.text))]
        except exceptions.DHCPError as exc:
            return [str(exc)]

    def _describe(self) -> _About:
        self._about = self._call('describe', _about, wire.ALIVE)
        return self._about

    def _change(self, method: str, entries: Iterable[base.HostEntry],
                ) -> base.Failures:
        failures: base.Failures = {}
        self._describe()
        # also without entries: the driver there may have something to finish
        for batch in list(_batches(entries)) or [[]]:
            for number, error in self._call(
                    method, _list(self._failure),
                    entries=[wire.dump_entry(entry) for entry in batch]):
                if number >= len(batch):
                    raise self._senseless(f'there is no entry {number}')
                failures[batch[number]] = error
        return failures

    def _failure(self, value: Any) -> tuple[int, exceptions.DHCPError]:
        number, *error = wire.items(value, 3)
        if type(number) is not int or number < 0:
            raise ValueError(f'not the number of an entry: {number!r:.100}')
        return number, wire.load_error(error, self._who)

    def _pages(self, method: str, load: Callable[[Any], _Held],
               ) -> Iterator[_Held]:
        last: types.Address | None = None
        while True:
            page = self._call(method, _list(load),
                              after=None if last is None else str(last))
            for one in page:
                if last is not None and (
                        wire.order(one.address) <= wire.order(last)):
                    raise self._senseless(f'{one.address} after {last}')
                last = one.address
                yield one
            if len(page) < wire.PAGE:
                return

    def _call(self, method: str, load: Callable[[Any], _T],
              timeout: int | None = None, **args: Any) -> _T:
        """Call the agent.

        :param load: makes types of what it answers, or raises ValueError.
        :param timeout: seconds; default: as configured.
        :raises DHCPServerUnavailable: no answer, or none that makes sense.
        :raises DHCPError: what the driver there raises.
        """
        try:
            answer = self._bus.call(
                self.options.host, timeout or self.options.timeout, method,
                server=self._server, **args)
        except oslo_messaging.MessagingTimeout as exc:
            raise exceptions.DHCPServerUnavailable(
                f'{self.name}: no {self._who} answers: start it, and see '
                'that its transport_url is the one of this program and '
                f'[dhcp:{self.name}] host the name of its host.') from exc
        except oslo_messaging.RemoteError as exc:
            raise exceptions.DHCPServerUnavailable(
                f'{self.name}: {self._who} failed: {exc.exc_type}: look at '
                'its log, and see that it is of the same version as this '
                'program.') from exc
        except Exception as exc:
            # whatever the bus's driver lets through
            raise exceptions.DHCPServerUnavailable(
                f'{self.name}: the message bus cannot be used '
                f'({type(exc).__name__}): start it, or see transport_url.'
                ) from exc
        try:
            match answer:
                case {'error': error}:
                    failure = wire.load_error(error, self._who)
                case {'result': result}:
                    return load(result)
                case _:
                    raise ValueError(f'{answer!r:.100}')
        except ValueError as exc:
            raise self._senseless(str(exc)) from exc
        raise failure

    def _senseless(self, what: str) -> exceptions.DHCPServerUnavailable:
        return exceptions.DHCPServerUnavailable(
            f'{self.name}: {self._who} answers what makes no sense ({what}): '
            'see that it is of the same version as this program.')


class _Bus:
    """What the drivers of a process call their agents with.

    :raises ConfigError: transport_url makes no sense.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        transport = bus.rpc_transport(conf)
        if not bus.is_named(conf):
            raise exceptions.ConfigError(
                'transport_url is not set: a DHCP server with the driver '
                'remote is reached over the message bus')
        rpc.complete(conf)
        self._client = oslo_messaging.get_rpc_client(
            transport, oslo_messaging.Target(
                exchange=rpc.EXCHANGE, topic=rpc.TOPIC,
                namespace=wire.NAMESPACE, version=wire.VERSION),
            retry=0)
        self._lock = threading.Lock()
        self._opening: threading.Thread | None = None
        self._open = False

    def call(self, host: str, timeout: int, method: str, **args: Any) -> Any:
        """Return an agent's answer.

        :raises Exception: whatever the bus's driver lets through.
        """
        self._wait_open(host)
        return self._client.prepare(
            server=host, timeout=timeout, call_monitor_timeout=wire.ALIVE,
        ).call({}, method, **args)

    def _wait_open(self, host: str) -> None:
        # The first call of all makes the queue for the answers, and waits
        # for a bus that is away without end: so it is one that nobody needs.
        with self._lock:
            if self._open:
                return
            if self._opening is None:
                self._opening = threading.Thread(
                    target=self._first, args=(host,), daemon=True)
                self._opening.start()
            opening = self._opening
        opening.join(wire.ALIVE)
        if opening.is_alive():
            raise TimeoutError

    def _first(self, host: str) -> None:
        try:
            self._client.prepare(server=host, timeout=1).call({}, 'describe')
            opened = True
        except oslo_messaging.MessagingException:
            opened = True   # it came as far as to be sent
        except Exception:
            LOG.exception('The message bus cannot be used')
            opened = False
        with self._lock:
            self._open, self._opening = opened, None


_BUSES: dict[tuple[int, int], tuple[cfg.ConfigOpts, _Bus]] = {}


def _bus(conf: cfg.ConfigOpts) -> _Bus:
    """Return this process's bus; a fork must not use its parent's."""
    key = os.getpid(), id(conf)
    if key not in _BUSES:
        # the configuration is kept so that no other gets its id
        _BUSES[key] = conf, _Bus(conf)
    return _BUSES[key][1]


def _about(value: Any) -> _About:
    if not isinstance(value, dict):
        raise ValueError(f'not a description: {value!r:.100}')
    able = base.Capability(0)
    for name in _list(wire.text)(value.get('capabilities')):
        # a newer agent may be able to do more
        if name in base.Capability.__members__:
            able |= base.Capability[name]
    server_id = value.get('server_id')
    return able, None if server_id is None else wire.address(server_id)


def _list(load: Callable[[Any], _T]) -> Callable[[Any], list[_T]]:
    return lambda value: [load(one) for one in wire.items(value)]


def _batches(values: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(values)
    while batch := list(itertools.islice(rest, wire.PAGE)):
        yield batch
