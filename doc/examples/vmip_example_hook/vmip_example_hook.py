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

"""A pre-create hook: the number in a server's name chooses its address.

A server called ``web-17`` gets the 17th address of ``[hook:by_number]
network``; numbers that the site keeps for itself are refused.
"""

import ipaddress
import re

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin.hooks import base

LOG = logging.getLogger(__name__)


class ByNumber(base.PreCreateHook):
    """Choose the address of a server whose name ends in a number."""

    OPTS = (
        cfg.StrOpt('network', default='192.0.2.0/24',
                   help='Network in whose addresses servers are numbered.'),
        cfg.IntOpt('first', default=10, min=1,
                   help='Smallest number that a server may have.'),
    )

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf)
        self._options = conf['hook:by_number']
        self._network = ipaddress.ip_network(self._options.network)

    def before(self, request: base.Request) -> base.AskFor | None:
        found = re.fullmatch(r'.*-([0-9]{1,9})', request.server_names[0])
        if found is None or len(request.server_names) > 1:
            return None
        number = int(found[1])
        if number < self._options.first:
            raise base.Refused(403, f'Numbers below {self._options.first} '
                                    f'are not for servers.')
        if number >= self._network.num_addresses:
            raise base.Refused(400, 'There is no address for that number.')
        return base.AskFor((self._network[number],), memo=number)

    def after(self, request: base.Request, memo: int | None,
              outcome: base.Outcome) -> None:
        if memo is not None and outcome.accepted:
            LOG.info('Number %d is given to server %s', memo,
                     outcome.server_id)
