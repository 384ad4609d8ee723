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

"""Reads the body of ``POST /servers`` and of its answer.

What is not understood here is Nova's to refuse: it passes.
"""

import json
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


def parse(body: bytes, requester: records.Requester
          ) -> base.CreateRequest | None:
    """Return what a create request asks for.

    None where the body is not one that Nova would accept.
    """
    try:
        server = json.loads(body)['server']
        # as nova.api.openstack.common.normalize_name does
        name = server['name'].strip()
        name.encode()
        networks = server.get('networks', ())
        low = int(server.get('min_count') or 1)
        high = int(server.get('max_count') or low)
        # 2.37 and later say "auto" or "none" in place of the list
        wanted = () if isinstance(networks, str) else tuple(
            _network(network) for network in networks)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError,
            RecursionError):
        return None
    if (not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME
            or '\0' in name or not 1 <= low <= high
            or high * max(len(wanted), 1) > MAX_INTERFACES):
        return None
    return base.CreateRequest(requester, _names(name, high), wanted)


def _names(name: str, count: int) -> tuple[str, ...]:
    # nova.compute.api.API._apply_instance_name_template
    if count == 1:
        return (name,)
    return tuple(f'{name}-{number}'[:MAX_NAME]
                 for number in range(1, count + 1))


def _network(network: Any) -> base.RequestedNetwork:
    fixed_ip = network.get('fixed_ip')
    port = network.get('port')
    uuid = network.get('uuid')
    return base.RequestedNetwork(
        network_id=types.parse_uuid(uuid) if uuid is not None else None,
        fixed_ip=types.parse_address(fixed_ip) if fixed_ip else None,
        port_id=types.parse_uuid(port) if port is not None else None)


def server_id(answer: bytes) -> str | None:
    """Return the server that Nova's answer names, None where it names none."""
    try:
        return types.parse_uuid(json.loads(answer)['server']['id'])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
