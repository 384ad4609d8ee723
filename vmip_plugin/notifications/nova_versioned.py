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

"""Nova's versioned notifications.

Contract: nova.notifications.objects (``InstanceCreatePayload``,
``InstanceActionPayload``, ``IpPayload``, ``ComputeTaskPayload``) and Nova's
reference "Notifications": a minor version only adds fields, a new major
version may change any.
"""

from collections.abc import Mapping

from vmip_plugin.notifications import event
from vmip_plugin.notifications import fields
from vmip_plugin import types

EVENT_TYPES: Mapping[str, event.Kind] = {
    'compute_task.build_instances.error': event.Kind.SERVER_FAILED,
    'instance.create.end': event.Kind.SERVER_CREATED,
    'instance.create.error': event.Kind.BUILD_FAILED,
    'instance.delete.end': event.Kind.SERVER_DELETED,
    'instance.interface_attach.end': event.Kind.INTERFACE_ATTACHED,
}

#: The major version of every payload read here.
MAJOR = '1'


def _data(payload: fields.Fields) -> fields.Fields:
    version = payload.required('nova_object.version', str)
    if version.partition('.')[0] != MAJOR:
        raise event.Malformed(
            f'{payload.name} has version {version}, only {MAJOR}.x is known')
    return payload.child('nova_object.data')


def _ports(server: fields.Fields,
           server_id: str) -> tuple[event.PortInfo, ...]:
    found: dict[tuple[str | None, str],
                list[tuple[str | None, types.Address]]] = {}
    for ip in map(_data, server.children('ip_addresses')):
        port = (ip.optional('port_uuid', types.parse_uuid),
                ip.required('mac', types.parse_mac))
        found.setdefault(port, []).append(
            (None, ip.required('address', fields.parse_address)))
    return tuple(
        event.PortInfo(port_id=port_id, mac=mac, addresses=tuple(addresses),
                       device_id=server_id, host=server.text('host'))
        for (port_id, mac), addresses in found.items())


def normalise(ctxt: Mapping[str, object], publisher_id: str, event_type: str,
              payload: object,
              metadata: Mapping[str, object]) -> event.Event | None:
    """Return what a notification tells, None if it is of no concern.

    :raises Malformed: it is not as Nova sends it, or of an unknown major
        version.
    """
    kind = EVENT_TYPES.get(event_type)
    if kind is None:
        return None
    data = _data(fields.Fields(payload, 'payload'))
    if kind is event.Kind.SERVER_FAILED:
        server_id = data.required('instance_uuid', types.parse_uuid)
        project_id = None
        # null for instances from before there were request specs
        if data.has('request_spec'):
            project_id = _data(data.child('request_spec')).text('project_id')
    else:
        server_id = data.required('uuid', types.parse_uuid)
        project_id = data.text('tenant_id')
    return event.Event(
        kind=kind,
        message_id=fields.message_id(metadata),
        emitted=fields.emitted(metadata),
        source='nova-versioned',
        # a caller's own id, where there is one, is the global one
        request_id=fields.request_id(ctxt, 'global_request_id', 'request_id'),
        project_id=project_id,
        server_id=server_id,
        server_name=data.free_text('display_name'),
        ports=(_ports(data, server_id)
               if kind in (event.Kind.SERVER_CREATED,
                           event.Kind.INTERFACE_ATTACHED) else ()))
