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

"""The values that travel through every room, parsed once at the door."""

import dataclasses
import ipaddress
import re
import uuid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAC = re.compile(r'[0-9a-f]{2}(:[0-9a-f]{2}){5}')
_LABEL = re.compile(r'[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?')


@dataclasses.dataclass(frozen=True)
class Witness:
    """A holder of an address that must be there, as far as is known."""

    port_id: str
    server_id: str | None
    project_id: str | None


def parse_mac(text: str) -> str:
    """Return an Ethernet address in lower case with colons.

    :param text: ``fa:16:3e:00:00:01`` in any case, or with dashes.
    :raises ValueError: if it is anything else.
    """
    mac = text.lower().replace('-', ':')
    if not _MAC.fullmatch(mac):
        raise ValueError(f'not an Ethernet address: {text!r}')
    return mac


def parse_address(text: str) -> Address:
    """Return an IPv4 or IPv6 address.

    :raises ValueError: if ``text`` is not exactly one address.
    """
    if '%' in text:
        # ipaddress takes any text for the scope of an IPv6 address
        raise ValueError(f'not an address: {text!r}')
    return ipaddress.ip_address(text)


def parse_uuid(text: str) -> str:
    """Return a UUID in Neutron's and Nova's usual form.

    :raises ValueError: if ``text`` is not a UUID.
    """
    return str(uuid.UUID(text))


def server_of_port(device_id: str, device_owner: str) -> str | None:
    """Return the server that has a Neutron port, as far as can be told.

    While Nova creates a port its owner is still empty, hence a port without
    owner counts if its device is a UUID.
    """
    if device_owner and not device_owner.startswith('compute:'):
        return None
    try:
        return parse_uuid(device_id)
    except ValueError:
        return None


def host_label(name: str | None) -> str | None:
    """Return a server's name as one DNS label, or None where it is none.

    A name is a tenant's text: only a name that already is a letter-digit-
    hyphen label (RFC 1123 section 2.1) reaches a DHCP server, and nothing is
    guessed out of the rest.
    """
    if name is None or not _LABEL.fullmatch(name.lower()):
        return None
    return name.lower()
