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

"""Hints to the agents, over the message bus.

A hint makes an agent look at a lease at once. It frees nothing by itself:
what decides is the same as ever (:mod:`vmip_plugin.agent.decide`).
"""

from collections.abc import Callable
import dataclasses
import ipaddress
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging
import oslo_messaging

from vmip_plugin.agent import tracker
from vmip_plugin import types

LOG = logging.getLogger(__name__)

TOPIC = 'vmip-agent'
VERSION = '1.0'


@dataclasses.dataclass(frozen=True)
class Hint:
    """A lease whose holder may be gone.

    :param server_id: the holder in Nova, or None.
    :param port_id: the holder's Neutron port, or None.
    :param dhcp_server: the DHCP server's address; with it an agent that has
        not overheard the lease can release it too.
    """

    address: ipaddress.IPv4Address
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
            address=_ipv4(address), mac=types.parse_mac(mac or ''),
            server_id=types.parse_uuid(server_id) if server_id else None,
            port_id=types.parse_uuid(port_id) if port_id else None,
            dhcp_server=_ipv4(dhcp_server) if dhcp_server else None)
        if hint.server_id is None and hint.port_id is None:
            raise ValueError('neither a server nor a port')
        if not tracker.usable_mac(hint.mac):
            raise ValueError(f'no station\'s MAC: {hint.mac}')
        return hint


class AgentClient:
    """What vmip-listener and vmip-reclaimer tell the agents with.

    :param transport: from ``oslo_messaging.get_rpc_transport(conf)``.
    """

    def __init__(self, transport: Any) -> None:
        _complete(transport.conf)
        self._client = oslo_messaging.get_rpc_client(
            transport, oslo_messaging.Target(
                topic=TOPIC, version=VERSION, fanout=True),
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
        :param dhcp_server: address (option 54) of the DHCP server.
        :raises Exception: whatever the transport raises where the bus cannot
            be reached, at once.
        """
        self._client.cast(
            {}, 'release_lease', address=address, mac=mac,
            server_id=server_id, port_id=port_id, dhcp_server=dhcp_server)


class Endpoint:
    """The agents' side."""

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


def server(transport: Any, host: str, take: Callable[[Hint], None]) -> Any:
    """Return an RPC server that is not yet started.

    :param host: this agent's name among the others.
    """
    _complete(transport.conf)
    return oslo_messaging.get_rpc_server(
        transport, oslo_messaging.Target(topic=TOPIC, server=host),
        [Endpoint(take)], executor='threading',
        access_policy=oslo_messaging.DefaultRPCAccessPolicy)


def _complete(conf: cfg.ConfigOpts) -> None:
    # oslo.messaging registers these on the global CONF only, and fails at
    # the first message without them.
    for group, name in (('oslo_messaging_metrics', 'metrics_enabled'),
                        ('oslo_messaging_tracing', 'tracing_enabled')):
        if group not in conf:
            conf.register_opt(cfg.BoolOpt(name, default=False), group=group)


def _ipv4(text: str | None) -> ipaddress.IPv4Address:
    address = types.parse_address(text or '')
    if not isinstance(address, ipaddress.IPv4Address) or (
            not tracker.usable_address(address)):
        raise ValueError(f'not a guest\'s or server\'s IPv4 address: {text}')
    return address
