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
import logging as py_logging
import os
import random
import sys
import threading
import time
from typing import Any

import futurist
from futurist import periodics
from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.cmd import common
from vmip_plugin import health
from vmip_plugin.inventory import api
from vmip_plugin import metrics
from vmip_plugin.reclaim import owner as vmip_owner
from vmip_plugin.reclaim import statistics
from vmip_plugin.reclaim import tasks

LOG = logging.getLogger(__name__)

#: Longest time in seconds until a task is done for the first time.
START = 60.0
#: Seconds that the end of what is being done is waited for.
PATIENCE = 5.0
#: Seconds between two signs of life of who begins the tasks, and how long
#: there may be none.
BEAT, HUNG = 5.0, 120.0


def _start(call: Any, now: float) -> float:
    # Not all hosts of a control plane at the same moment.
    return now + random.uniform(0, min(call._periodic_spacing, START))


class _Periodic(periodics.PeriodicWorker):

    BUILT_IN_STRATEGIES = {
        'start_jitter': (periodics.PeriodicWorker.BUILT_IN_STRATEGIES[
            'last_finished_jitter'][0], _start)}


def _periodic(reclaimer: tasks.Reclaimer, task: tasks.Task,
              owner: vmip_owner.Owner) -> Callable[[], None]:
    def run() -> None:
        if owner.is_owner:
            reclaimer.run(task)

    made: Callable[[], None] = periodics.periodic(task.interval)(run)
    return made


def serve(conf: cfg.ConfigOpts) -> int:
    inventory = api.Inventory(conf, 'vmip-reclaimer')
    common.check_schema(inventory)
    common.check_cloud(conf)
    cloud = vmip_cloud.Cloud(conf)
    stop = common.stop_event()
    owner = vmip_owner.Owner(conf, tasks.this_process())
    reclaimer = tasks.Reclaimer(
        conf, inventory, common.worker(conf, inventory, cloud), cloud,
        stop=stop)
    pulse = health.Pulse('tasks', HUNG)
    todo = [*(_periodic(reclaimer, task, owner)
              for task in reclaimer.tasks()),
            # a method could not be marked as one of them
            periodics.periodic(BEAT)(lambda: pulse.beat())]
    worker = _Periodic(
        [(call, None, None) for call in todo],
        # a slow one keeps no other waiting
        executor_factory=lambda: futurist.ThreadPoolExecutor(len(todo)),
        schedule_strategy='start_jitter')
    threads = [threading.Thread(target=target, args=args, daemon=True)
               for target, args in ((owner.keep, (stop,)),
                                    (worker.start, ()))]
    _serve_health(conf, inventory, owner, pulse, stop)
    for thread in threads:
        thread.start()
    LOG.info('vmip-reclaimer is ready')
    stop.wait()
    worker.stop()
    end = time.monotonic() + PATIENCE
    for thread in threads:
        # Whatever is cut off here is resumed by the next one.
        thread.join(timeout=max(0, end - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        # at the end of Python, futurist would wait for it
        py_logging.shutdown()
        os._exit(0)
    return 0


def _serve_health(conf: cfg.ConfigOpts, inventory: api.Inventory,
                  owner: vmip_owner.Owner, tasks_pulse: health.Pulse,
                  stop: threading.Event) -> None:
    served = health.serve(conf, health.Health(
        metrics.RECLAIMER, [owner.pulse, tasks_pulse],
        {'database': inventory.database.behind,
         'coordination': owner.check}), stop)
    if served is None:
        return
    found = statistics.Statistics(conf, inventory, lambda: owner.is_owner)
    served.registry.register(found)
    threading.Thread(target=found.keep, args=(stop,), daemon=True,
                     name='statistics').start()


def main() -> int:
    """Run until SIGTERM."""
    return common.run('vmip-reclaimer', serve)


if __name__ == '__main__':
    sys.exit(main())
