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

"""The contract of a DHCP driver.

A driver writes host entries (MAC to address) into one DHCP server, and reads
and, where it can, ends that server's leases. It keeps no state of its own:
what must be there is in the inventory, and
:mod:`vmip_plugin.dhcp.work` calls the driver until both agree. Therefore
every call may be repeated and must end in the same state.

A driver is a stevedore plugin of the namespace ``vmip_plugin.dhcp``.
"""

import abc
from collections.abc import Collection, Iterable, Iterator, Sequence
import dataclasses
import datetime
import enum
from typing import ClassVar, Self

from oslo_config import cfg

from vmip_plugin.conf import dhcp
from vmip_plugin import exceptions
from vmip_plugin import types


class Capability(enum.Flag):
    """What a driver can do with its server."""

    #: a new entry is served without a reload
    LIVE_ADD = enum.auto()
    #: a removed entry's address is reusable without a reload
    LIVE_REMOVE = enum.auto()
    #: :meth:`DHCPDriver.leases` tells the server's leases
    LEASE_LIST = enum.auto()
    #: :meth:`DHCPDriver.release` ends a lease without a packet
    LEASE_RELEASE = enum.auto()
    #: one store feeds several servers
    SHARED_STORE = enum.auto()
    #: DHCPv6 host entries
    IPV6 = enum.auto()


@dataclasses.dataclass(frozen=True, order=True)
class HostEntry:
    """A static assignment: this MAC gets this address.

    :param mac: as :func:`vmip_plugin.types.parse_mac` returns it.
    :param address: the address.
    :param hostname: one DNS label in lower case
        (:func:`vmip_plugin.types.host_label`) or None.
    """

    mac: str
    address: types.Address
    hostname: str | None = None


@dataclasses.dataclass(frozen=True)
class Lease:
    """What a DHCP server has given to a client (RFC 2131, RFC 8415).

    :param mac: the client's Ethernet address, None where the server does not
        tell it.
    :param client_id: option 61 as the client sent it, or None; of a DHCPv6
        client its DUID.
    :param expires: end of the lease, UTC and timezone-aware; None: never.
    """

    address: types.Address
    mac: str | None
    client_id: bytes | None
    expires: datetime.datetime | None


#: The entries that could not be written or removed, and why.
Failures = dict[HostEntry, exceptions.DHCPError]


class DHCPDriver(abc.ABC):
    """Base of the drivers.

    :param name: the server's name in ``[dhcp] servers``.
    :param options: the values of :attr:`OPTS` in the group ``dhcp:NAME``.
    :raises ConfigError: where a needed option is missing or senseless.
    """

    #: options of this driver, registered in the group ``dhcp:NAME``
    OPTS: ClassVar[Sequence[cfg.Opt]] = ()
    #: of an instance: they may depend on its options
    capabilities: Capability = Capability(0)

    def __init__(self, name: str, options: cfg.ConfigOpts.GroupAttr) -> None:
        self.name = name
        self.options = options

    @classmethod
    def load(cls, conf: cfg.ConfigOpts, name: str) -> Self:
        """Return the driver of a server as it is configured.

        :raises ConfigError: see the class.
        """
        return cls(name, dhcp.register_server(conf, name, cls.OPTS))

    @property
    def server_id(self) -> types.Address | None:
        """The server's identifier (option 54), where it is configured."""
        return None

    @abc.abstractmethod
    def put(self, entries: Sequence[HostEntry]) -> Failures:
        """Make the server serve these entries.

        An entry replaces what the driver wrote before for the same address,
        or for the same MAC and IP version. When the call returns, every entry
        that is not among the failures is served to the next DISCOVER or
        SOLICIT.

        :raises DHCPServerUnavailable: nothing is known to be served; repeat
            the call.
        """

    @abc.abstractmethod
    def remove(self, entries: Iterable[HostEntry]) -> Failures:
        """Take these entries (same MAC and address) out of the server.

        An entry that is not there, or whose address has another MAC now, is
        left alone and is no failure. When the call returns, the address can
        be given to another MAC by :meth:`put`.

        :raises DHCPServerUnavailable: no address is known to be free; repeat
            the call.
        """

    @abc.abstractmethod
    def entries(self) -> Iterator[HostEntry]:
        """Yield the entries that carry our mark, never the operator's own.

        :raises DHCPServerUnavailable: they cannot be read.
        """

    def leases(self) -> Iterator[Lease]:
        """Yield the server's running leases (``LEASE_LIST``).

        :raises DHCPServerUnavailable: they cannot be read.
        """
        raise exceptions.DHCPError(f'{self.name} cannot list leases')

    def leases_of(self, addresses: Collection[types.Address],
                  ) -> Iterator[Lease]:
        """Yield the running leases of these addresses (``LEASE_LIST``).

        This reads all of them; a driver whose server can be asked for one
        does that instead.

        :raises DHCPServerUnavailable: they cannot be read.
        """
        wanted = frozenset(addresses)
        return (lease for lease in self.leases() if lease.address in wanted)

    def release(self, lease: Lease) -> None:
        """End a lease by the server's own control channel (``LEASE_RELEASE``).

        When the call returns, :meth:`leases` does not tell it any more, and
        its address can be given to another MAC.

        :raises DHCPError: the server refused.
        """
        raise exceptions.DHCPError(f'{self.name} cannot end leases')

    @abc.abstractmethod
    def check(self) -> list[str]:
        """Return what is wrong with the server, a sentence each; [] is well.

        Every sentence says what to do about it.
        """
