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

from vmip_plugin import types

#: (address, MAC): who holds what
Key = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Lease:
    """A lease and what is known of its holder.

    :param client_id: option 61, of DHCPv6 the client's DUID.
    :param interface: '' where it is not known: any of the agent's.
    :param dhcp_server_mac: None where no answer of the server was overheard.
    :param confirmed: the server's ACK was overheard.
    :param port_id: of the guest's Neutron port, once that is known.
    :param server_id: of the guest in Nova, once that is known.
    :param network_id: of that port, once that is known.
    :param remote: overheard only beyond a relay or router, where nobody can
        be probed and anybody can make it up.
    :param looked_at: when Neutron was last asked whose MAC it is.
    :param gone_since: when it was first found gone, with no sign of life
        since.
    :param tries: releases sent since the last sign of life.
    :param verdict: the last one (:class:`vmip_plugin.agent.decide.Verdict`),
        with its reason and time; None before the first.
    """

    address: types.Address
    mac: str
    interface: str
    vlan: int | None
    dhcp_server: types.Address | None
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
    verdict: str | None
    reason: str | None
    decided_at: float | None
    network_id: str | None
    remote: bool
    server_duid: bytes | None
    iaid: int | None

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
            **row, 'address': ipaddress.ip_address(row['address']),
            'dhcp_server': server and ipaddress.ip_address(server),
            'confirmed': bool(row['confirmed']),
            'remote': bool(row['remote'])})

    def to_primitive(self) -> dict[str, Any]:
        """Return it as JSON can have it; bytes become hexadecimal text."""
        return {
            **dataclasses.asdict(self), 'address': str(self.address),
            'dhcp_server': self.dhcp_server and str(self.dhcp_server),
            **{name: value and value.hex() for name, value in (
                ('client_id', self.client_id),
                ('server_duid', self.server_duid))}}

    @classmethod
    def from_primitive(cls, values: Mapping[str, Any]) -> Self:
        """Return the lease that :meth:`to_primitive` told.

        What a later version tells beyond that is left out.

        :raises ValueError: it is none.
        """
        try:
            known = {field.name: values[field.name]
                     for field in dataclasses.fields(cls)}
            return cls.from_row({**known, **{
                name: known[name] and bytes.fromhex(known[name])
                for name in ('client_id', 'server_duid')}})
        except (KeyError, TypeError) as exc:
            raise ValueError(f'not a lease: {exc!r}') from exc
