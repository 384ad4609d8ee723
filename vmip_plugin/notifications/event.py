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

"""What a notification told, in one form for every wire format."""

import dataclasses
import datetime
import enum
from typing import Literal

from vmip_plugin import exceptions
from vmip_plugin import types

#: Which wire format a notification had.
Source = Literal['neutron', 'nova', 'nova-versioned']


class Malformed(exceptions.VmipError):
    """A notification is not what its sender's format promises."""


class Kind(enum.Enum):
    """What happened.

    A notification is a hint: it may be late, doubled, out of order or forged.
    """

    #: Neutron has made the ports; Nova has not bound them yet
    PORT_CREATED = 'port-created'
    #: any change, also that a server let go of a port that is kept
    PORT_UPDATED = 'port-updated'
    PORT_DELETED = 'port-deleted'
    #: the guest runs
    SERVER_CREATED = 'server-created'
    #: the guest has one interface more; told in the versioned format only
    INTERFACE_ATTACHED = 'interface-attached'
    #: a build failed on one host. Nova may go on with another one
    #: (RescheduledException in nova.compute.manager), so nothing may be
    #: freed because of this alone
    BUILD_FAILED = 'build-failed'
    #: Nova's conductor has given up: the server will not run
    SERVER_FAILED = 'server-failed'
    #: may come twice, and before the server's ports are created
    SERVER_DELETED = 'server-deleted'


@dataclasses.dataclass(frozen=True)
class PortInfo:
    """A port as one notification shows it; None: it does not tell.

    :param port_id: None in Nova's unversioned notifications.
    :param mac: as :func:`vmip_plugin.types.parse_mac` returns it.
    :param addresses: (subnet id, address); only Neutron tells the subnet.
    :param device_id: the server, but any text for a tenant's own port.
    :param device_owner: '' until Nova has bound the port.
    :param host: the compute host the port is bound to.
    :param revision: Neutron's revision_number; it grows with each update.
    """

    port_id: str | None = None
    network_id: str | None = None
    mac: str | None = None
    addresses: tuple[tuple[str | None, types.Address], ...] = ()
    device_id: str = ''
    device_owner: str = ''
    status: str | None = None
    host: str | None = None
    project_id: str | None = None
    revision: int | None = None

    @property
    def server_id(self) -> str | None:
        """The server that has the port, as far as can be told."""
        return types.server_of_port(self.device_id, self.device_owner)


@dataclasses.dataclass(frozen=True)
class Event:
    """A notification that concerns us.

    :param message_id: '' where the sender gave none that can be used.
    :param emitted: when it was sent, UTC and timezone-aware; None: unknown.
    :param source: the wire format.
    :param request_id: global id of the user's request that caused it (of the
        DELETE for a deletion); None where the user asked Neutron itself.
    :param project_id: owner of the server or the ports; None if not told or
        if the ports have several.
    :param server_id: None if the ports belong to none or to several.
    :param server_name: a tenant's text of at most 255 characters, each of
        them printable; not to be logged as it is.
    :param ports: of a server, all it has, only with SERVER_CREATED and
        INTERFACE_ATTACHED: Nova does not tell them in every format otherwise.
    """

    kind: Kind
    message_id: str
    emitted: datetime.datetime | None
    source: Source
    request_id: str | None
    project_id: str | None
    server_id: str | None
    server_name: str | None = None
    ports: tuple[PortInfo, ...] = ()
