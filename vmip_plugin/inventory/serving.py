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

"""Which of a pool's DHCP servers serves which of its addresses.

A pool names a server as ``NAME``, for all its addresses, or as
``NAME=FIRST-LAST`` or ``NAME=NETWORK/PREFIX``, for these: so that several
share what is too much for one.
"""

from collections.abc import Iterable
import ipaddress

from vmip_plugin import exceptions
from vmip_plugin.inventory import ranges as vmip_ranges
from vmip_plugin import types


def _parse(text: str) -> tuple[str, vmip_ranges.Run | None]:
    """Return a server's name and its addresses, None for all.

    :raises VmipError: it is written in no such way.
    """
    name, shared, part = text.partition('=')
    if not shared:
        return name, None
    try:
        if '/' in part:
            network = ipaddress.ip_network(part)
            return name, (network[0], network[-1])
        first, _, last = part.partition('-')
        return name, (types.parse_address(first), types.parse_address(last))
    except ValueError as exc:
        raise exceptions.VmipError(
            f'{text}: write NAME, NAME=FIRST-LAST or NAME=NETWORK/PREFIX '
            f'({exc})') from exc


def names(servers: Iterable[str]) -> list[str]:
    """Return the names, each once.

    :raises VmipError: one is written wrongly.
    """
    return list(dict.fromkeys(_parse(text)[0] for text in servers))


def of_address(servers: Iterable[str], address: types.Address) -> list[str]:
    """Return the names of those that serve an address."""
    return list(dict.fromkeys(
        name for name, run in map(_parse, servers)
        if run is None or int(run[0]) <= int(address) <= int(run[1])))


def check(servers: Iterable[str], within: vmip_ranges.Ranges,
          cidr: str) -> None:
    """See that, if there is a server at all, each address has one.

    :param within: the pool's addresses.
    :raises VmipError: one has none, or a server is written wrongly.
    """
    network = ipaddress.ip_network(cidr)
    parts: list[vmip_ranges.Run] = []
    for text in servers:
        _, run = _parse(text)
        if run is None:
            parts.extend(within.runs)
        elif not (run[0] in network and run[1] in network
                  and int(run[0]) <= int(run[1])):
            raise exceptions.VmipError(
                f'{text}: these are no addresses of {network}')
        else:
            parts.append(run)
    left = within.without(parts).runs if parts else ()
    if left:
        first, last = left[0]
        raise exceptions.VmipError(
            f'None of the DHCP servers serves {first}-{last}: name one for '
            'every address of the pool, or one for all')
