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

"""Neutron's service plugin: no process of Neutron without vmip.conf.

Neutron loads its IPAM driver with the first port, so that driver cannot keep
a process from starting. Service plugins are loaded by each server process
(API, RPC and periodic workers) before it forks or listens.
"""

import sys

from neutron_lib.services import base
from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin import exceptions
from vmip_plugin.neutron import shared

LOG = logging.getLogger(__name__)


class VmipPlugin(base.ServicePluginBase):
    """``[DEFAULT] service_plugins = ...,vmip`` in neutron.conf.

    :raises SystemExit: vmip's options cannot be used, or Neutron has another
        IPAM driver.
    """

    supported_extension_aliases: list[str] = []

    def __init__(self) -> None:
        super().__init__()
        try:
            shared.check(cfg.CONF.ipam_driver)
        except exceptions.ConfigError as exc:
            LOG.critical('The service plugin vmip keeps this process from '
                         'starting: %s', exc)
            # as Neutron ends where its own configuration is not there
            sys.exit(f'ERROR: {exc}')

    @classmethod
    def get_plugin_type(cls) -> str:
        return 'VMIP'

    def get_plugin_description(self) -> str:
        return 'Checks the options of the IPAM driver vmip at the start'
