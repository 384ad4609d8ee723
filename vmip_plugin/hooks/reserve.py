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

"""The hook that the plugin is for: every server gets its address reserved."""

from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin import exceptions
from vmip_plugin.hooks import base
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records

LOG = logging.getLogger(__name__)


class ReserveHook(base.PreCreateHook):
    """Reserve an address for each server on each network with a pool.

    Interfaces whose port or address the client chose are Neutron's: its IPAM
    driver claims the address when the port is made.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf)
        self._inventory = api.Inventory(conf, 'nova-api')

    def before(self, request: base.CreateRequest) -> list[records.Address]:
        wanted = [
            records.Wanted(network.network_id, request.server_names)
            for network in request.networks
            if network.network_id and not network.fixed_ip
            and not network.port_id]
        if not wanted:
            return []
        try:
            return self._inventory.reserve(request.requester, wanted,
                                           self.conf.reserve.ttl)
        except exceptions.PoolExhausted as exc:
            return self._without(409, 'No more addresses are free on the '
                                      'requested network.', exc)
        except exceptions.InventoryUnavailable as exc:
            if not any(self._inventory.may_have_pool(network_id=w.network_id)
                       for w in wanted):
                return []
            return self._without(503, 'Addresses cannot be reserved at the '
                                      'moment, try again later.', exc)

    def after(self, request: base.CreateRequest, memo: Any,
              outcome: base.Outcome) -> None:
        if not memo:
            return
        if not outcome.accepted:
            self._inventory.cancel(memo, f'Nova answered {outcome.status}')
        elif outcome.server_id and len(request.server_names) == 1:
            self._inventory.bind(memo, outcome.server_id)

    def _without(self, status: int, message: str,
                 exc: exceptions.VmipError) -> list[records.Address]:
        if self.conf.reserve.on_error == 'pass':
            LOG.warning('A create request passes without a reservation: %s',
                        exc)
            return []
        LOG.error('A create request is refused: %s', exc)
        raise base.Refused(status, message) from exc
