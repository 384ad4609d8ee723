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

"""vmip-reclaimer: finds what no notification told of."""

from collections.abc import Callable
import random
import sys
import threading

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.cmd import common
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.reclaim import tasks

LOG = logging.getLogger(__name__)


def _again_and_again(task: Callable[[], object], interval: float,
                     stop: threading.Event) -> None:
    # Not all hosts of a control plane at the same moment.
    stop.wait(random.uniform(0, interval))
    while not stop.is_set():
        try:
            task()
        except exceptions.VmipError as exc:
            LOG.warning('%s will be tried again: %s', task.__name__, exc)
        except Exception:
            LOG.exception('%s failed', task.__name__)
        stop.wait(interval)


def serve(conf: cfg.ConfigOpts) -> int:
    inventory = api.Inventory(conf, 'vmip-reclaimer')
    common.check_schema(inventory)
    cloud = vmip_cloud.Cloud(conf)
    reclaimer = tasks.Reclaimer(
        conf, inventory, common.worker(conf, inventory, cloud), cloud)
    stop = common.stop_event()
    options = conf.reclaimer
    threads = [
        threading.Thread(target=_again_and_again, daemon=True,
                         args=(task, interval, stop))
        for task, interval in ((reclaimer.work, options.work_interval),
                               (reclaimer.mend, options.check_interval),
                               (reclaimer.check, options.check_interval))]
    for thread in threads:
        thread.start()
    LOG.info('vmip-reclaimer is ready')
    stop.wait()
    for thread in threads:
        # Whatever is cut off here is resumed by the next one.
        thread.join(timeout=5)
    return 0


def main() -> int:
    """Run until SIGTERM."""
    return common.run('vmip-reclaimer', serve)


if __name__ == '__main__':
    sys.exit(main())
