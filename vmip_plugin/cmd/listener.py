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

"""vmip-listener: acts on Nova's and Neutron's notifications."""

import gc
import sys

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.cmd import common
from vmip_plugin import health
from vmip_plugin.inventory import api
from vmip_plugin import metrics
from vmip_plugin.notifications import handler
from vmip_plugin.notifications import listener

LOG = logging.getLogger(__name__)


def serve(conf: cfg.ConfigOpts) -> int:
    inventory = api.Inventory(conf, 'vmip-listener')
    common.check_schema(inventory)
    common.check_cloud(conf)
    cloud = vmip_cloud.Cloud(conf)
    worker = common.worker(conf, inventory, cloud)
    stop = common.stop_event()
    server = listener.Listener(
        conf, listener.get_transport(conf),
        handler.Handler(conf, inventory, worker, cloud))
    health.serve(conf, health.Health(
        metrics.LISTENER, [server.pulse],
        {'database': inventory.database.behind,
         'bus': server.check_bus}), stop)
    # What is there now stays. The AMQP library leaves cycles behind with every
    # message, and they would be looked for in all of it.
    gc.collect()
    gc.freeze()
    server.start()
    LOG.info('vmip-listener is ready')
    stop.wait()
    server.stop()
    server.wait()
    return 0


def main() -> int:
    """Run until SIGTERM."""
    return common.run('vmip-listener', serve)


if __name__ == '__main__':
    sys.exit(main())
