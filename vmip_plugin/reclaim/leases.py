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

"""Whose a lease is, and whether it may be released.

A lease in use is never released, by nobody: what has to be freed is freed by
deleting its server or port.
"""

import dataclasses
import datetime

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin.openstack import presence
from vmip_plugin import types


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the cloud and the list say of a lease's holder.

    :param gone: Nova and Neutron say that the holder is gone.
    :param reason: why, or why not and what to do about it.
    :param holder: the last change that tells whose the lease was.
    """

    gone: bool
    reason: str
    holder: records.Change | None = None


def judge(inventory: api.Inventory, cloud: vmip_cloud.Cloud,
          address: types.Address, mac: str | None) -> Judgement:
    """Find out whether the holder of a lease is gone.

    :raises CloudUnavailable: Nova or Neutron cannot be asked.
    """
    if mac is None:
        return Judgement(False, 'the DHCP server does not tell whose it is')
    look = presence.Look(cloud, inventory)
    look.see_all()
    for port in cloud.ports(mac_address=mac):
        if any(address == a for _, a in port.addresses):
            return Judgement(False, f'port {port.id} has it: delete '
                             f'{_holder(port)} to free it')
        return Judgement(
            False, f'port {port.id} has this MAC, and {_holder(port)} may '
            'use the address until it asks for another: reboot it')
    holder = inventory.last_holder(address, mac)
    if holder is None:
        return Judgement(False, 'the list never gave this address to this '
                         'MAC: it is not ours to release')
    left = cloud.port(holder.port_id) if holder.port_id else None
    if left is not None and presence.has(left, address):
        return Judgement(False, f'port {left.id} has it, with MAC {left.mac} '
                         'now: vmip-reclaimer sees to that', holder)
    status = holder.server_id and look.server(holder.server_id)
    if status and status != presence.DELETED:
        return Judgement(
            False, f'server {holder.server_id} is {status}: delete it, or '
            'wait for the end of the lease', holder)
    network_id = next((pool.network_id for pool, _ in inventory.pools()
                       if pool.id == holder.pool_id), None)
    doubt = ('its pool is deleted, so that nothing shows whether Neutron has '
             'its data: wait for the end of the lease'
             if network_id is None and not status else
             network_id and look.doubt(
                 network_id, presence.Evidence.SERVER_DELETED if status
                 else presence.Evidence.PORT_MISSING))
    if doubt:
        return Judgement(False, doubt, holder)
    return Judgement(True, ' and '.join(filter(None, (
        holder.server_id and f'server {holder.server_id}',
        holder.port_id and f'port {holder.port_id}'))) + ' gone', holder)


def said_gone_before(found: Judgement, before: datetime.datetime) -> bool:
    """Tell whether Neutron had said the same at a moment already."""
    holder = found.holder
    return (found.gone and holder is not None
            and holder.event == states.Event.FINISH
            and holder.at <= before)


def standing(lease_mac: str | None, held: records.Address | None) -> str:
    """Say what the list alone knows of a lease."""
    if held is None or held.state in states.VACANT:
        return 'nobody\'s'
    if held.mac != lease_mac:
        return f'another\'s: {held.state}'
    return held.state.value


def _holder(port: vmip_cloud.Port) -> str:
    return (f'server {port.server_id}' if port.server_id
            else f'port {port.id}')
