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

"""What the DHCPv6 messages on an interface say about leases.

A client's MAC is the Ethernet source of its messages. Of those that a relay
has wrapped up it is what the relay says (RFC 6939) or what the client's
link-local address was made of; without either, nothing is known of the
client. The REPLY settles address, server and time. Of several addresses in one
message the first counts.
"""

import collections
import time

from vmip_plugin.agent import frames
from vmip_plugin.agent import tracker
from vmip_plugin.dhcp import packet6

_Type = packet6.MessageType
#: what a REPLY may grant an address to
_ASKS = (_Type.SOLICIT, _Type.REQUEST, _Type.RENEW, _Type.REBIND)
_ENDS = (_Type.RELEASE, _Type.DECLINE)
#: no station can have it
_NOBODY = '00:00:00:00:00:00'


class Tracker6:
    """Puts requests and replies of one interface together."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        #: (transaction, client's DUID) -> (when, MAC, beyond a relay)
        self._pending: collections.OrderedDict[
            tuple[int, bytes | None], tuple[float, str, bool]] = (
                collections.OrderedDict())

    def take(self, datagram: frames.Datagram) -> tracker.Overheard | None:
        """Return what a datagram says about a lease, or None.

        :raises PacketError: it holds no sound DHCPv6 message.
        """
        relayed = packet6.unwrap(datagram.payload)
        if relayed is None:
            message, mac = packet6.parse(datagram.payload), datagram.source
        else:
            message = relayed.message
            mac = relayed.mac or frames.link_local_mac(relayed.peer) or _NOBODY
        remote = relayed is not None
        key = message.xid, message.client_duid
        kind = tracker.Kind.REQUESTED
        if message.message_type is _Type.REPLY:
            asked = self._pending.get(key)
            if asked is None or message.server_duid is None or (
                    time.monotonic() - asked[0] > tracker.PENDING_AGE):
                return None
            kind = tracker.Kind.GRANTED
            _, mac, remote = asked
        elif not tracker.usable_mac(mac):
            return None
        elif message.message_type in _ENDS:
            kind = tracker.Kind.ENDED
        elif message.message_type not in _ASKS or (
                message.client_duid is None):
            return None
        else:
            self._remember(key, mac, remote)
        if not message.assigned:
            return None
        one = message.assigned[0]
        granted = kind is tracker.Kind.GRANTED
        if not tracker.usable_address(one.address) or (
                granted and not one.valid):
            return None
        return tracker.Overheard(
            kind=kind, address=one.address, mac=mac,
            interface=self._interface, vlan=datagram.vlan, seen=time.time(),
            client_id=message.client_duid, iaid=one.iaid,
            dhcp_server=datagram.source_ip if granted else None,
            dhcp_server_mac=datagram.source if granted else None,
            server_duid=message.server_duid if granted else None,
            lease_seconds=one.valid if granted else None, remote=remote)

    def _remember(self, key: tuple[int, bytes | None], mac: str,
                  remote: bool) -> None:
        now = time.monotonic()
        if remote and key in self._pending and not self._pending[key][2]:
            # the relay is on the client's own link
            return
        self._pending[key] = now, mac, remote
        self._pending.move_to_end(key)
        while len(self._pending) > tracker.PENDING_LIMIT or (
                now - next(iter(self._pending.values()))[0]
                > tracker.PENDING_AGE):
            self._pending.popitem(last=False)
