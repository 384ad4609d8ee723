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

"""Whose a lease is, and whether they are still there: the cloud's word."""

from collections.abc import Callable, Iterable, Sequence

from oslo_log import log as logging

from vmip_plugin.agent import decide
from vmip_plugin.agent import lease as lease_
from vmip_plugin import cloud as cloud_
from vmip_plugin import exceptions
from vmip_plugin.openstack import presence
from vmip_plugin import types

LOG = logging.getLogger(__name__)

#: MACs in one question to Neutron, so that the URL stays short
BATCH = 50
#: what Nova and Ironic call the owner of a server's port
_OWNERS = ('compute:', 'baremetal:')


class Guests:
    """Asks Nova and Neutron about the holders of leases.

    :param ask_shutoff: also ask whether servers that exist are shut off.
    """

    def __init__(self, cloud: cloud_.Cloud, ask_shutoff: bool = False
                 ) -> None:
        self._cloud = cloud
        self._ask_shutoff = ask_shutoff
        #: passes in a row in which Neutron knew no witness
        self._unknown = 0

    def identify(self, leases: Sequence[lease_.Lease]
                 ) -> dict[lease_.Key, cloud_.Port | None]:
        """Return the server's port of each lease.

        None where Neutron has none with that MAC, has it for something that
        is no server's, or for several and none of them has the address.

        :raises CloudUnavailable: nothing is known.
        """
        ports = self._ports(lease.mac for lease in leases)
        found: dict[lease_.Key, cloud_.Port | None] = {}
        for lease in leases:
            owned = [port for port in ports.get(lease.mac, ())
                     if port.device_owner.startswith(_OWNERS)]
            if len(owned) > 1:
                owned = [port for port in owned if any(
                    address == lease.address
                    for _, address in port.addresses)]
            found[lease.key] = owned[0] if len(owned) == 1 else None
        return found

    def words(self, leases: Sequence[lease_.Lease],
              witnesses: Sequence[lease_.Lease] = (),
              beat: Callable[[], None] = lambda: None,
              ) -> dict[lease_.Key, decide.Word]:
        """Return the cloud's word about each lease's holder.

        That a Neutron has nothing proves nothing: it may be another one, or
        restored without its data, or not show us what it has. So "gone" is
        believed only of one that has what must be there: one of the
        witnesses, or the network of the port that it does not have.

        :param witnesses: leases whose holders are certainly there.
        :param beat: called at each lease, as a sign of life.
        """
        words = {lease.key: decide.Word.UNKNOWN for lease in leases}
        try:
            look = presence.Look(self._cloud, presence.Known([
                types.Witness(one.port_id or '', one.server_id, None)
                for one in witnesses]))
            look.see_all()
            sound = bool(witnesses)
            if sound and not self._ports(one.mac for one in witnesses):
                # A guest that was deleted a moment ago may still answer.
                self._unknown += 1
                LOG.log(
                    logging.ERROR if self._unknown > 1 else logging.INFO,
                    'Neutron knows none of the guests that answer here: does '
                    '[cloud] name the right cloud and region? Nothing is '
                    'released.')
                return words
            if sound:
                self._unknown = 0
            networks: dict[str | None, bool] = {}
            for start in range(0, len(leases), BATCH):
                batch = leases[start:start + BATCH]
                ports = self._ports(lease.mac for lease in batch)
                for lease in batch:
                    beat()
                    word = self._word(look, lease, lease.mac in ports)
                    if word is decide.Word.GONE and not (
                            sound or self._has(lease.network_id, networks)):
                        word = decide.Word.UNKNOWN
                    words[lease.key] = word
        except exceptions.CloudUnavailable as exc:
            LOG.warning('The cloud cannot be asked, nothing more is released '
                        'in this pass: %s', exc)
        return words

    def _has(self, network_id: str | None,
             known: dict[str | None, bool]) -> bool:
        if network_id not in known:
            known[network_id] = self._cloud.has_network(network_id)
            if not known[network_id]:
                LOG.error('Neutron has not %s: does [cloud] name the right '
                          'cloud and region? Nothing is released there.',
                          f'network {network_id}' if network_id
                          else 'a single network')
        return known[network_id]

    def _word(self, look: presence.Look, lease: lease_.Lease,
              has_port: bool) -> decide.Word:
        if not lease.identified:
            return decide.Word.STRANGER
        exists = has_port or (
            lease.port_id is not None
            and self._cloud.port(lease.port_id) is not None)
        if lease.server_id is None or exists and not self._ask_shutoff:
            return decide.Word.EXISTS if exists else decide.Word.GONE
        try:
            status = look.server(lease.server_id)
        except exceptions.QuestionFailed as exc:
            LOG.info('%s is kept: %s', lease.address, exc)
            return decide.Word.EXISTS if exists else decide.Word.UNKNOWN
        if status == 'SHUTOFF':
            return decide.Word.SHUT_OFF
        if exists or status != presence.DELETED:
            return decide.Word.EXISTS
        return decide.Word.GONE

    def _ports(self, macs: Iterable[str]) -> dict[str, list[cloud_.Port]]:
        wanted = sorted(set(macs))
        found: dict[str, list[cloud_.Port]] = {}
        for start in range(0, len(wanted), BATCH):
            for port in self._cloud.ports(
                    mac_address=wanted[start:start + BATCH]):
                found.setdefault(port.mac, []).append(port)
        return found
