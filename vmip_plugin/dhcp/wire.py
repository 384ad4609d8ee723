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

"""Entries and leases on the message bus, between the driver and the agent.

Both sides take nothing from the bus that is not made into types again.
"""

from collections.abc import Iterable, Sequence
import datetime
import heapq
from typing import Any, TypeVar

from vmip_plugin.dhcp import base
from vmip_plugin import exceptions
from vmip_plugin import types

#: of the calls; they have a namespace of their own beside the hints
NAMESPACE = 'dhcp'
VERSION = '1.0'
#: most entries or leases in one message
PAGE = 5000
#: seconds without a sign of life after which an agent counts as dead
ALIVE = 5

#: longest text that is taken
_TEXT = 2000

_Held = TypeVar('_Held', base.HostEntry, base.Lease)


def text(value: Any) -> str:
    """Return an error's text, of one line.

    :raises ValueError: it is none.
    """
    if not isinstance(value, str):
        raise ValueError(f'not text: {value!r:.100}')
    return ''.join(sign if sign.isprintable() else ' '
                   for sign in value[:_TEXT])


def items(value: Any, size: int | None = None) -> list[Any]:
    """Return a list.

    :param size: how many items it has; None: at most :data:`PAGE`.
    :raises ValueError: it is none.
    """
    if not isinstance(value, list) or (
            len(value) > PAGE if size is None else len(value) != size):
        raise ValueError(f'not a list of that size: {value!r:.100}')
    return value


def address(value: Any) -> types.Address:
    """Return an address.

    :raises ValueError: it is none.
    """
    return types.parse_address(text(value))


def dump_entry(entry: base.HostEntry) -> list[str | None]:
    return [entry.mac, str(entry.address), types.host_label(entry.hostname)]


def load_entry(value: Any) -> base.HostEntry:
    """Return an entry.

    :raises ValueError: it is none.
    """
    mac, where, hostname = items(value, 3)
    if hostname is not None and types.host_label(text(hostname)) != hostname:
        raise ValueError(f'not a host name: {hostname!r:.100}')
    return base.HostEntry(types.parse_mac(text(mac)), address(where),
                          hostname)


def dump_lease(lease: base.Lease) -> list[str | int | None]:
    return [str(lease.address), lease.mac,
            None if lease.client_id is None else lease.client_id.hex(),
            None if lease.expires is None
            else int(lease.expires.timestamp())]


def load_lease(value: Any) -> base.Lease:
    """Return a lease.

    :raises ValueError: it is none.
    """
    where, mac, client_id, expires = items(value, 4)
    if expires is not None and type(expires) is not int:
        raise ValueError(f'not a time: {expires!r:.100}')
    try:
        end = None if expires is None else datetime.datetime.fromtimestamp(
            expires, datetime.UTC)
    except (OverflowError, OSError) as exc:
        raise ValueError(f'not a time: {expires!r:.100}') from exc
    return base.Lease(
        address(where), None if mac is None else types.parse_mac(text(mac)),
        None if client_id is None else bytes.fromhex(text(client_id)), end)


def page(held: Iterable[_Held], after: types.Address | None,
         ) -> list[_Held]:
    """Return the next :data:`PAGE` of what is held, by address.

    What is there all the time is in exactly one page, whatever comes and goes
    between them, and the agent remembers nothing.

    :param after: the last address of the page before, None: there is none.
    """
    return heapq.nsmallest(
        PAGE, (one for one in held
               if after is None or order(one.address) > order(after)),
        key=lambda one: order(one.address))


def order(where: types.Address) -> tuple[int, int]:
    """Return what addresses of both versions are sorted by."""
    return where.version, int(where)


def dump_failures(entries: Sequence[base.HostEntry], failures: base.Failures,
                  ) -> list[list[Any]]:
    return [[number, *dump_error(failures[entry])]
            for number, entry in enumerate(entries) if entry in failures]


def dump_error(exc: exceptions.DHCPError) -> list[Any]:
    return [isinstance(exc, exceptions.DHCPServerUnavailable), str(exc)]


def load_error(value: Any, who: str) -> exceptions.DHCPError:
    """Return an error that happened elsewhere.

    :param who: whose words these are.
    :raises ValueError: it is none.
    """
    unavailable, words = items(value, 2)
    kind = exceptions.DHCPServerUnavailable if unavailable is True \
        else exceptions.DHCPError
    return kind(f'{who}: {text(words)}')
