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

"""Reads the bodies of requests that make ports, and of their answers.

The forms are those of nova.api.openstack.compute.schemas.servers and
attach_interfaces, of all microversions at once. What is not understood here
is Nova's to refuse: it passes.
"""

from collections.abc import Mapping
import dataclasses
import json
import types as python_types
from typing import Any

from vmip_plugin.hooks import base
from vmip_plugin.inventory import records
from vmip_plugin import types

#: Nova's limit of a server's name
MAX_NAME = 255
#: Most addresses reserved for one request. A larger one is one that Nova's
#: quota refuses; should it not, each port gets an address all the same, only
#: not in advance.
MAX_INTERFACES = 1000

#: Whatever reading a body that Nova will refuse ends in.
_NOT_UNDERSTOOD = (ValueError, KeyError, TypeError, AttributeError,
                   IndexError, OverflowError, RecursionError)


@dataclasses.dataclass(frozen=True)
class Caller:
    """Who sent a request.

    :param credentials: see :class:`vmip_plugin.hooks.base.Request`.
    """

    requester: records.Requester
    credentials: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def create(body: bytes, caller: Caller) -> base.Request | None:
    """Return what the body of ``POST /servers`` asks for.

    None where the body is not one that Nova would accept.
    """
    try:
        outer = json.loads(body)
        server = outer['server']
        # as nova.api.openstack.common.normalize_name does
        name = server['name'].strip()
        name.encode()
        low = int(server.get('min_count') or 1)
        high = int(server.get('max_count') or low)
        choice, wanted = _networks(server.get('networks', []))
        metadata = {key: value for key, value in server.get(
            'metadata', {}).items() if isinstance(value, str)}
        hints = dict(outer.get('os:scheduler_hints', outer.get(
            'OS-SCH-HNT:scheduler_hints', {})))
    except _NOT_UNDERSTOOD:
        return None
    if (not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME
            or '\0' in name or not 1 <= low <= high
            or high * max(len(wanted), 1) > MAX_INTERFACES):
        return None
    return base.Request(
        caller.requester, _names(name, high), wanted, choice,
        metadata=python_types.MappingProxyType(metadata),
        hints=python_types.MappingProxyType(hints), min_count=low,
        credentials=caller.credentials)


def attach(body: bytes, server_id: str, caller: Caller,
           ) -> base.Request | None:
    """Return what the body of ``POST /servers/{id}/os-interface`` asks for.

    None where the body is not one that Nova would accept.
    """
    try:
        server_id = types.parse_uuid(server_id)
        wanted = json.loads(body).get('interfaceAttachment', {})
        fixed = wanted.get('fixed_ips')
        network = _network(wanted.get('net_id'), wanted.get('port_id'),
                           fixed and fixed[0]['ip_address'])
    except _NOT_UNDERSTOOD:
        return None
    listed = network != base.RequestedNetwork(None)
    if network.network_id is None and network.fixed_ip is not None or (
            network.network_id and network.port_id):
        return None
    return base.Request(
        caller.requester, (), (network,) if listed else (),
        base.Choice.LISTED if listed else base.Choice.ABSENT,
        base.Action.ATTACH, server_id, credentials=caller.credentials)


def _names(name: str, count: int) -> tuple[str, ...]:
    # nova.compute.api.API._apply_instance_name_template
    if count == 1:
        return (name,)
    return tuple(f'{name}-{number}'[:MAX_NAME]
                 for number in range(1, count + 1))


def _networks(networks: Any) -> tuple[
        base.Choice, tuple[base.RequestedNetwork, ...]]:
    if networks in ('auto', 'none'):
        return base.Choice(networks), ()
    if not isinstance(networks, list):
        raise TypeError('not a list of networks')
    # an empty list is to Nova as none at all
    return (base.Choice.LISTED if networks else base.Choice.ABSENT), tuple(
        _network(network.get('uuid'), network.get('port'),
                 network.get('fixed_ip')) for network in networks)


def _network(uuid: str | None, port: str | None,
             address: str | None) -> base.RequestedNetwork:
    return base.RequestedNetwork(
        network_id=types.parse_uuid(uuid) if uuid is not None else None,
        fixed_ip=types.parse_address(address) if address else None,
        port_id=types.parse_uuid(port) if port is not None else None)


def server_id(answer: bytes) -> str | None:
    """Return the server that Nova's answer names, None where it names none."""
    try:
        return types.parse_uuid(json.loads(answer)['server']['id'])
    except _NOT_UNDERSTOOD:
        return None
