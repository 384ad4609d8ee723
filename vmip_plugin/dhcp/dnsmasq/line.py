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

"""The syntax of a host entry (dnsmasq(8), ``--dhcp-host``).

``id:*`` keeps client identifiers out of the lease: a guest is its MAC, with
whatever operating system, and no guest is taken for another one whose
identifier it sends.

``tag:!vmip`` always holds. dnsmasq looks through its lines with a tag first,
and through the others only when none fits; it does so for every lease
whenever a file comes into the folder. With the tag that takes a fifth of the
time, during which it serves nobody.
"""

import ipaddress
import re

from vmip_plugin.dhcp import base
from vmip_plugin import types

TIME = r'[0-9]+[smhdw]?|infinite'
# Labels that dnsmasq (option.c) takes for a lease time or a keyword.
_NO_NAME = rf'{TIME}|ignore'
_TAG = 'tag:!vmip'
_LINE = re.compile(
    r'(?P<mac>(?:[0-9a-f]{2}:){5}[0-9a-f]{2}),'
    rf'(?:id:\*,{_TAG},(?P<v4>[0-9.]{{7,15}})'
    rf'|{_TAG},\[(?P<v6>[0-9a-f:]{{2,39}})\])'
    rf'(?:,(?!(?:{_NO_NAME})(?:,|$))'
    r'(?P<name>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?))?'
    rf'(?:,(?:{TIME}))?')

#: What no two lines have in common: MAC and IP version.
Key = tuple[str, int]


def compose(entry: base.HostEntry, lease_time: str | None = None) -> str:
    """Compose one line from values that are parsed once more.

    :param lease_time: matches :data:`TIME`.
    :raises ValueError: for what is no MAC or no address.
    """
    mac = types.parse_mac(entry.mac)
    address = types.parse_address(str(entry.address))
    name = types.host_label(entry.hostname)
    if name is not None and re.fullmatch(_NO_NAME, name):
        name = None
    return ','.join(filter(None, (
        mac, 'id:*' if address.version == 4 else None, _TAG,
        str(address) if address.version == 4 else f'[{address}]',
        name, lease_time)))


def parse(line: str) -> base.HostEntry | None:
    """Take a line that :func:`compose` made apart; None for any other."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    try:
        return base.HostEntry(
            match['mac'], ipaddress.IPv4Address(match['v4']) if match['v4']
            else ipaddress.IPv6Address(match['v6']), match['name'])
    except ValueError:
        return None


def address_of(line: str) -> types.Address | None:
    """Return the address of a line that :func:`compose` made, else None."""
    entry = parse(line)
    return None if entry is None else entry.address


def mac_of(line: str) -> str:
    """Return the MAC of a line that has an address."""
    return line[:17]


def key(line: str, address: types.Address) -> Key:
    """Return the key of a line that has this address."""
    return mac_of(line), address.version
