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

"""vmip-agent's calls alone, without what needs raw sockets: ``agent CONFIG``.

CONFIG's ``[test] host`` is what the agent calls its host.
"""

import sys

from oslo_config import cfg
from oslo_log import log as logging
import oslo_messaging

from vmip_plugin.agent import dhcp
from vmip_plugin.agent import rpc
from vmip_plugin.cmd import common


def main(conf: cfg.ConfigOpts) -> None:
    conf.register_opts([cfg.StrOpt('host')], group='test')
    stop = common.stop_event()
    server = rpc.server(
        oslo_messaging.get_rpc_transport(conf), conf.test.host, print,
        dhcp.Endpoint(dhcp.load_drivers(conf)))
    server.start()
    logging.getLogger(__name__).info('The agent is ready')
    stop.wait()
    server.stop()


if __name__ == '__main__':
    sys.exit(common.run('agent', main))
