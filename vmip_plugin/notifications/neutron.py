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

"""Neutron's notifications.

Contract: ``NotifierHook`` in neutron.pecan_wsgi.hooks.notifier. A payload has
``port``, or ``ports`` after a bulk create. A deletion has ``port_id`` and,
since Neutron tells it, the last state as ``port``.
"""

from collections.abc import Mapping

from vmip_plugin.notifications import event
from vmip_plugin.notifications import fields
from vmip_plugin import types

EVENT_TYPES: Mapping[str, event.Kind] = {
    'port.create.end': event.Kind.PORT_CREATED,
    'port.update.end': event.Kind.PORT_UPDATED,
    'port.delete.end': event.Kind.PORT_DELETED,
}


def _port(port: fields.Fields) -> event.PortInfo:
    return event.PortInfo(
        port_id=port.required('id', types.parse_uuid),
        network_id=port.required('network_id', types.parse_uuid),
        mac=port.required('mac_address', types.parse_mac),
        addresses=tuple(
            (ip.required('subnet_id', types.parse_uuid),
             ip.required('ip_address', fields.parse_address))
            for ip in port.children('fixed_ips')),
        device_id=port.text('device_id') or '',
        device_owner=port.text('device_owner') or '',
        status=port.text('status'),
        # the caller's policy decides whether Neutron shows the host
        host=port.text('binding:host_id'),
        project_id=port.text('project_id') or port.text('tenant_id'),
        revision=port.number('revision_number'))


def _ports(payload: fields.Fields,
           deleted: bool) -> tuple[event.PortInfo, ...]:
    if deleted:
        port_id = payload.required('port_id', types.parse_uuid)
        if not payload.has('port'):
            return (event.PortInfo(port_id=port_id),)
        port = _port(payload.child('port'))
        if port.port_id != port_id:
            raise event.Malformed('payload.port is not payload.port_id')
        return (port,)
    if payload.has('ports'):
        return tuple(_port(port) for port in payload.children('ports'))
    return (_port(payload.child('port')),)


def _common(values: set[str | None]) -> str | None:
    return values.pop() if len(values) == 1 else None


def normalise(ctxt: Mapping[str, object], publisher_id: str, event_type: str,
              payload: object,
              metadata: Mapping[str, object]) -> event.Event | None:
    """Return what a notification tells, None if it is of no concern.

    :raises Malformed: it is not as Neutron sends it.
    """
    kind = EVENT_TYPES.get(event_type)
    if kind is None:
        return None
    ports = _ports(fields.Fields(payload, 'payload'),
                   kind is event.Kind.PORT_DELETED)
    return event.Event(
        kind=kind,
        message_id=fields.message_id(metadata),
        emitted=fields.emitted(metadata),
        source='neutron',
        # Neutron's own request id says nothing to Nova
        request_id=fields.request_id(ctxt, 'global_request_id'),
        project_id=_common({port.project_id for port in ports}),
        server_id=_common({port.server_id for port in ports}),
        ports=ports)
