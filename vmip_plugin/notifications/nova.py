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

"""Nova's unversioned notifications.

Contract: ``notify_about_instance_usage`` in nova.compute.utils,
``info_from_instance`` in nova.notifications.base and
``set_vm_state_and_notify`` in nova.scheduler.utils.
"""

from collections.abc import Mapping

from vmip_plugin.notifications import event
from vmip_plugin.notifications import fields
from vmip_plugin import types

EVENT_TYPES: Mapping[str, event.Kind] = {
    'compute.instance.create.end': event.Kind.SERVER_CREATED,
    'compute.instance.create.error': event.Kind.BUILD_FAILED,
    'compute.instance.delete.end': event.Kind.SERVER_DELETED,
    'compute_task.build_instances': event.Kind.SERVER_FAILED,
}


def _ports(payload: fields.Fields,
           server_id: str) -> tuple[event.PortInfo, ...]:
    found: dict[str, list[tuple[str | None, types.Address]]] = {}
    for ip in payload.children('fixed_ips'):
        found.setdefault(ip.required('vif_mac', types.parse_mac), []).append(
            (None, ip.required('address', fields.parse_address)))
    return tuple(
        event.PortInfo(mac=mac, addresses=tuple(addresses),
                       device_id=server_id, host=payload.text('host'))
        for mac, addresses in found.items())


def normalise(ctxt: Mapping[str, object], publisher_id: str, event_type: str,
              payload: object,
              metadata: Mapping[str, object]) -> event.Event | None:
    """Return what a notification tells, None if it is of no concern.

    :raises Malformed: it is not as Nova sends it.
    """
    kind = EVENT_TYPES.get(event_type)
    if kind is None:
        return None
    data = fields.Fields(payload, 'payload')
    server_id = data.required('instance_id', types.parse_uuid)
    # of a build that failed Nova tells what it was asked for
    owner, key = data, 'tenant_id'
    if kind is event.Kind.SERVER_FAILED:
        owner, key = data.child('instance_properties'), 'project_id'
    return event.Event(
        kind=kind,
        message_id=fields.message_id(metadata),
        emitted=fields.emitted(metadata),
        source='nova',
        # a caller's own id, where there is one, is the global one
        request_id=fields.request_id(ctxt, 'global_request_id', 'request_id'),
        project_id=owner.text(key),
        server_id=server_id,
        server_name=data.free_text('display_name'),
        ports=(_ports(data, server_id)
               if kind is event.Kind.SERVER_CREATED else ()))
