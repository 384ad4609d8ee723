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

"""ML2 mechanism driver without an agent.

It binds each port of a flat network at once, with vif_type 'tap'.
nova-compute then makes a device "tap<port id>" and nothing else; the driver
leaves word in a file of that name which bridge it belongs to, and the
service "bridger" puts it there.
"""

import os
from pathlib import Path
from typing import Any

from neutron_lib.api.definitions import portbindings
from neutron_lib import constants
from neutron_lib.plugins.ml2 import api
from neutron_lib.utils import helpers
from oslo_config import cfg

OPTS = [
    cfg.ListOpt('bridge_mappings', default=[],
                help='Bridge of each physical network.'),
    cfg.StrOpt('taps', help='Where the bridge of each device is noted.'),
]


class TapDriver(api.MechanismDriver):

    def initialize(self) -> None:
        cfg.CONF.register_opts(OPTS, 'minicloud')
        self.bridges = helpers.parse_mappings(
            cfg.CONF.minicloud.bridge_mappings)
        self.taps = Path(cfg.CONF.minicloud.taps)

    @property
    def connectivity(self) -> str:
        return portbindings.CONNECTIVITY_L2

    def _note(self, port: dict[str, Any]) -> Path:
        # As Nova names the device.
        return self.taps / ('tap' + port['id'])[:14]

    def bind_port(self, context: api.PortContext) -> None:
        if context.current[portbindings.VNIC_TYPE] != portbindings.VNIC_NORMAL:
            return
        for segment in context.segments_to_bind:
            bridge = self.bridges.get(segment[api.PHYSICAL_NETWORK])
            if not bridge:
                continue
            note = self._note(context.current)
            new = note.with_suffix(f'.{os.getpid()}')
            new.write_text(bridge)
            new.replace(note)
            context.set_binding(
                segment[api.ID], portbindings.VIF_TYPE_TAP,
                {portbindings.CAP_PORT_FILTER: False,
                 portbindings.VIF_DETAILS_CONNECTIVITY:
                     portbindings.CONNECTIVITY_L2},
                status=constants.PORT_STATUS_ACTIVE)
            return

    def delete_port_postcommit(self, context: api.PortContext) -> None:
        self._note(context.current).unlink(missing_ok=True)
