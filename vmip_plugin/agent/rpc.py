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

"""Hints and questions to the agents, over the message bus.

A hint makes an agent look at a lease at once. It frees nothing by itself:
what decides is the same as ever (:mod:`vmip_plugin.agent.decide`). Questions
change nothing.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import ipaddress
import socket
import threading
import time
from typing import Any, Protocol
import uuid

from oslo_config import cfg
from oslo_log import log as logging
import oslo_messaging

from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import tracker
from vmip_plugin import types

LOG = logging.getLogger(__name__)

#: not the one that other services have by default: an account of vmip's
#: need not be able to write to that
EXCHANGE = 'vmip'
TOPIC = 'vmip-agent'
VERSION = '1.0'
#: of the questions
ASK_VERSION = '1.1'
#: where the agents answer a roll call
ROLL_TOPIC = 'vmip-agent-roll'
#: most leases in one answer
PAGE = 500
#: seconds that an agent has to answer, and to look at all its leases
TIMEOUT, LOOK_TIMEOUT = 10, 300


@dataclasses.dataclass(frozen=True)
class Hint:
    """A lease whose holder may be gone.

    :param server_id: the holder in Nova, or None.
    :param port_id: the holder's Neutron port, or None.
    :param dhcp_server: the DHCP server's address, for an IPv4 address; with
        it an agent that has not overheard the lease can release it too.
    """

    address: types.Address
    mac: str
    server_id: str | None
    port_id: str | None
    dhcp_server: ipaddress.IPv4Address | None

    @classmethod
    def parse(cls, address: Any, mac: Any, server_id: Any, port_id: Any,
              dhcp_server: Any = None) -> 'Hint':
        """Return a hint made of what came over the bus.

        :raises ValueError: something in it is not what it should be.
        """
        for value in (address, mac, server_id, port_id, dhcp_server):
            if not isinstance(value, str | None):
                raise ValueError(f'not text: {value!r}')
        hint = cls(
            address=_usable(address), mac=types.parse_mac(mac or ''),
            server_id=types.parse_uuid(server_id) if server_id else None,
            port_id=types.parse_uuid(port_id) if port_id else None,
            dhcp_server=_ipv4(dhcp_server) if dhcp_server else None)
        if hint.server_id is None and hint.port_id is None:
            raise ValueError('neither a server nor a port')
        if hint.dhcp_server is not None and hint.address.version != 4:
            raise ValueError('a server\'s IPv4 address for an IPv6 address')
        if not tracker.usable_mac(hint.mac):
            raise ValueError(f'no station\'s MAC: {hint.mac}')
        return hint


@dataclasses.dataclass(frozen=True)
class Look:
    """What a pass of an agent would do now.

    :param checked: how many leases it looked at.
    :param answered: how many of their holders answered a probe.
    :param judged: the others with the verdict that each would get; those
        that would not be spared come first. At most :data:`PAGE` of them
        come over the bus.
    """

    checked: int
    answered: int
    judged: list[lease_.Lease]


class Asked(Protocol):
    """The agent, to whom the questions go. Called in any thread."""

    def page(self, after: lease_.Key | None, limit: int
             ) -> list[lease_.Lease]:
        """Return the next leases in the order of their keys."""

    def look(self) -> Look:
        """Judge every lease now, and change nothing."""


class AgentClient:
    """What vmip-listener and vmip-reclaimer tell and ask the agents with.

    A question raises what the transport raises:
    ``oslo_messaging.MessagingTimeout`` where no such agent answers,
    ``oslo_messaging.RemoteError`` where it failed.

    :param transport: from ``oslo_messaging.get_rpc_transport(conf)``.
    """

    def __init__(self, transport: Any) -> None:
        complete(transport.conf)
        self._transport = transport
        self._client = oslo_messaging.get_rpc_client(
            transport, oslo_messaging.Target(
                exchange=EXCHANGE, topic=TOPIC, version=VERSION,
                fanout=True),
            # A hint comes again; who gives it has other work to do.
            retry=0)

    def release_lease(self, address: str, mac: str, server_id: str | None,
                      port_id: str | None, dhcp_server: str | None = None
                      ) -> None:
        """Tell all agents that a lease's holder may be gone.

        At least one of ``server_id`` and ``port_id`` must be given. Returns
        at once; there is no answer.

        :param server_id: UUID of the server in Nova.
        :param port_id: UUID of its Neutron port.
        :param dhcp_server: address (option 54) of the DHCP server; an IPv6
            address's has none.
        :raises Exception: whatever the transport raises where the bus cannot
            be reached, at once.
        """
        self._client.cast(
            {}, 'release_lease', address=address, mac=mac,
            server_id=server_id, port_id=port_id,
            dhcp_server=None if ':' in address else dhcp_server)

    def probe(self, addresses: Sequence[types.Address], timeout: float = 2.0,
              ) -> dict[types.Address, bool | None]:
        """Tell whether addresses answer on the wire; None: nobody knows."""
        return dict.fromkeys(addresses)

    def hosts(self, wait: float = 2.0) -> list[str]:
        """Return the names of the agents that answer within some seconds."""
        roll = _Roll()
        answers = oslo_messaging.get_rpc_server(
            self._transport, oslo_messaging.Target(
                exchange=EXCHANGE, topic=ROLL_TOPIC,
                server=socket.gethostname()),
            [roll], executor='threading',
            access_policy=oslo_messaging.DefaultRPCAccessPolicy)
        answers.start()
        try:
            self._client.prepare(version=ASK_VERSION).cast(
                {}, 'call_roll', token=roll.token)
            time.sleep(wait)
        finally:
            answers.stop()
            answers.wait()
        return sorted(roll.hosts)

    def leases(self, host: str) -> Iterator[lease_.Lease]:
        """Yield an agent's leases with its last verdicts, page by page.

        In the order of their keys (:attr:`vmip_plugin.agent.lease.Lease.key`)
        as text. What is overheard meanwhile may be there or not.

        :param host: the agent's name, as :meth:`hosts` tells it.
        """
        agent = self._agent(host, TIMEOUT)
        after: list[str] | None = None
        while page := agent.call({}, 'leases', after=after):
            for values in page:
                yield lease_.Lease.from_primitive(values)
            after = [page[-1]['address'], page[-1]['mac']]

    def look(self, host: str) -> Look:
        """Have an agent judge all its leases now, and change nothing.

        It takes the agent's ``probe_count`` times ``probe_timeout``, and the
        time to ask the cloud about those who are silent.

        :param host: the agent's name, as :meth:`hosts` tells it.
        """
        found = self._agent(host, LOOK_TIMEOUT).call({}, 'look')
        return Look(found['checked'], found['answered'], [
            lease_.Lease.from_primitive(values)
            for values in found['judged']])

    def _agent(self, host: str, timeout: float) -> Any:
        return self._client.prepare(
            server=host, fanout=False, version=ASK_VERSION, timeout=timeout)


class _Roll:
    """Gathers the names of those who answer to one roll call."""

    target = oslo_messaging.Target(version=VERSION)

    def __init__(self) -> None:
        self.token = uuid.uuid4().hex
        self.hosts: set[str] = set()

    def here(self, ctxt: dict[str, Any], token: Any = None, host: Any = None
             ) -> None:
        if token == self.token and isinstance(host, str):
            self.hosts.add(host)


class Questions:
    """The agents' side of the questions."""

    target = oslo_messaging.Target(version=ASK_VERSION)

    def __init__(self, transport: Any, host: str, asked: Asked) -> None:
        self._host = host
        self._asked = asked
        self._looking = threading.Lock()
        self._roll = oslo_messaging.get_rpc_client(
            transport, oslo_messaging.Target(
                exchange=EXCHANGE, topic=ROLL_TOPIC, version=VERSION,
                fanout=True), retry=0)

    def call_roll(self, ctxt: dict[str, Any], token: Any = None) -> None:
        """Answer that this agent is here."""
        self._roll.cast({}, 'here', token=token, host=self._host)

    def leases(self, ctxt: dict[str, Any], after: Any = None
               ) -> list[dict[str, Any]]:
        """Return the next page of leases, [] after the last."""
        key = None if after is None else (str(after[0]), str(after[1]))
        return [lease.to_primitive()
                for lease in self._asked.page(key, PAGE)]

    def look(self, ctxt: dict[str, Any]) -> dict[str, Any]:
        """Return what a pass would do now."""
        with self._looking:
            found = self._asked.look()
        return {'checked': found.checked, 'answered': found.answered,
                'judged': [lease.to_primitive()
                           for lease in found.judged[:PAGE]]}


class Endpoint:
    """The agents' side of the hints."""

    target = oslo_messaging.Target(version=VERSION)

    def __init__(self, take: Callable[[Hint], None]) -> None:
        self._take = take

    def release_lease(self, ctxt: dict[str, Any], address: Any = None,
                      mac: Any = None, server_id: Any = None,
                      port_id: Any = None, dhcp_server: Any = None) -> None:
        """Take a hint; a senseless one is logged and forgotten."""
        try:
            hint = Hint.parse(address, mac, server_id, port_id, dhcp_server)
        except ValueError as exc:
            LOG.warning('Ignored a hint: %s', exc)
            return
        self._take(hint)


def server(transport: Any, host: str, take: Callable[[Hint], None],
           *endpoints: Any) -> Any:
    """Return an RPC server that is not yet started.

    :param host: this agent's name among the others.
    :param endpoints: further ones.
    """
    complete(transport.conf)
    return oslo_messaging.get_rpc_server(
        transport, oslo_messaging.Target(
            exchange=EXCHANGE, topic=TOPIC, server=host),
        [Endpoint(take), *endpoints], executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy)


def complete(conf: cfg.ConfigOpts) -> None:
    """Register what a client or server of the bus needs."""
    # oslo.messaging registers these on the global CONF only, and fails at
    # the first message without them.
    for group, name in (('oslo_messaging_metrics', 'metrics_enabled'),
                        ('oslo_messaging_tracing', 'tracing_enabled')):
        if group not in conf:
            conf.register_opt(cfg.BoolOpt(name, default=False), group=group)


def _ipv4(text: str) -> ipaddress.IPv4Address:
    address = _usable(text)
    if not isinstance(address, ipaddress.IPv4Address):
        raise ValueError(f'not an IPv4 address: {text}')
    return address


def _usable(text: str | None) -> types.Address:
    address = types.parse_address(text or '')
    if not tracker.usable_address(address):
        raise ValueError(f'not a guest\'s or server\'s address: {text}')
    return address
