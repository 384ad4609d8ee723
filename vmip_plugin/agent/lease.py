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

"""A lease as the agent remembers it."""

from collections.abc import Mapping
import dataclasses
import ipaddress
from typing import Any, Self

#: (address, MAC): who holds what
Key = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Lease:
    """A lease and what is known of its holder.

    :param interface: '' where it is not known: any of the agent's.
    :param dhcp_server_mac: None where no answer of the server was overheard.
    :param confirmed: the server's ACK was overheard.
    :param port_id: of the guest's Neutron port, once that is known.
    :param server_id: of the guest in Nova, once that is known.
    :param looked_at: when Neutron was last asked whose MAC it is.
    :param gone_since: when it was first found gone, with no sign of life
        since.
    :param tries: releases sent since the last sign of life.
    """

    address: ipaddress.IPv4Address
    mac: str
    interface: str
    vlan: int | None
    dhcp_server: ipaddress.IPv4Address | None
    dhcp_server_mac: str | None
    client_id: bytes | None
    lease_seconds: int | None
    confirmed: bool
    first_seen: float
    last_seen: float
    port_id: str | None
    server_id: str | None
    looked_at: float | None
    gone_since: float | None
    tries: int
    released_at: float | None

    @property
    def key(self) -> Key:
        return str(self.address), self.mac

    @property
    def identified(self) -> bool:
        """Whether this was ever known to be a guest of the cloud."""
        return self.port_id is not None or self.server_id is not None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the lease in a row of the store."""
        server = row['dhcp_server']
        return cls(**{
            **row, 'address': ipaddress.IPv4Address(row['address']),
            'dhcp_server': server and ipaddress.IPv4Address(server),
            'confirmed': bool(row['confirmed'])})
