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

"""The file of dnsmasq's ``--dhcp-leasefile``."""

from collections.abc import Collection, Iterator
import datetime
import os
import re
import time

from vmip_plugin.dhcp import base
from vmip_plugin import types

_LEASE = re.compile(
    r'(?P<expires>[0-9]{1,11}) (?:[0-9a-f]{2}-)?(?P<mac>[0-9a-f:]+|\*)'
    r' (?P<address>[0-9.]+) \S+ (?P<client_id>[0-9a-f]{2}(?::[0-9a-f]{2})*'
    r'|\*)')
# Not a temporary address (T in front of the IAID).
_LEASE6 = re.compile(
    r'(?P<expires>[0-9]{1,11}) [0-9]{1,10} (?P<address>[0-9a-f:.]+) \S+'
    r' (?P<client_id>[0-9a-f]{2}(?::[0-9a-f]{2})*|\*)')

#: Seconds after which dnsmasq has surely written its lease file.
_SETTLED = 1.0


def leases(path: str, addresses: Collection[types.Address] | None = None,
           ) -> Iterator[base.Lease]:
    """Yield the leases that run; of DHCPv6 dnsmasq does not tell the MAC.

    :param addresses: only theirs; default: all.
    :raises OSError: the file cannot be read.
    """
    wanted = None if addresses is None else {str(a) for a in addresses}
    now = datetime.datetime.now(datetime.UTC)
    pattern = _LEASE
    for line in _read_settled(path).split('\n')[:-1]:
        if line.startswith('duid '):
            pattern = _LEASE6   # of what follows
        if wanted is not None and not wanted.intersection(line.split(' ', 3)):
            continue
        match = pattern.fullmatch(line)
        if match is None:
            continue
        expires = datetime.datetime.fromtimestamp(
            int(match['expires']), datetime.UTC) \
            if match['expires'] != '0' else None
        if expires is not None and expires <= now:
            continue
        try:
            address = types.parse_address(match['address'])
        except ValueError:
            continue
        try:
            mac = types.parse_mac(match.groupdict().get('mac', ''))
        except ValueError:
            # of a network that is not Ethernet, or of DHCPv6
            mac = None
        yield base.Lease(
            address, mac,
            None if match['client_id'] == '*'
            else bytes.fromhex(match['client_id'].replace(':', '')),
            expires)


def _read_settled(path: str) -> str:
    """Return a file that its owner rewrites in place, at rest if possible.

    dnsmasq empties its lease file and writes it again, in about a
    millisecond. What is cut off then has no last newline.
    """
    for attempt in range(10):
        if attempt:
            time.sleep(0.005)
        with open(path, encoding='ascii', errors='replace',
                  newline='\n') as file:
            before = os.fstat(file.fileno())
            text = file.read()
            after = os.fstat(file.fileno())
        # A file that has been empty for long is not being written.
        whole = text.endswith('\n') or (
            not text and time.time() - after.st_mtime > _SETTLED)
        if whole and before.st_size == after.st_size \
                and before.st_mtime_ns == after.st_mtime_ns:
            break
    return text
