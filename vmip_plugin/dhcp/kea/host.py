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

"""A host entry whose parts are all checked, as Kea is to have it."""

import dataclasses

from vmip_plugin.dhcp import base
from vmip_plugin import exceptions
from vmip_plugin import types


@dataclasses.dataclass(frozen=True)
class Host:
    """What is to be written of an entry.

    :param subnet: Kea's id of the subnet.
    :param hostname: '' for none.
    """

    entry: base.HostEntry
    mac: str
    address: types.Address
    subnet: int
    hostname: str


def parse(entry: base.HostEntry, subnet: int) -> Host:
    """Parse the parts of an entry once more.

    :raises ValueError: for what is no MAC or no address.
    """
    return Host(entry, types.parse_mac(entry.mac),
                types.parse_address(str(entry.address)), subnet,
                types.host_label(entry.hostname) or '')


def in_the_way(where: str, host: Host) -> exceptions.DHCPError:
    """Return the error for what the operator wrote by hand."""
    return exceptions.DHCPError(
        f'{where}: a reservation of the operator\'s own has {host.address} '
        f'or {host.mac}: remove it, or give the server another address')
