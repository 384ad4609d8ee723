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

"""What the programs have in common."""

from collections.abc import Callable, Sequence
import signal
import sys
import threading
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin.agent import rpc
from vmip_plugin import bus
from vmip_plugin import cloud as vmip_cloud
from vmip_plugin import conf as vmip_conf
from vmip_plugin.dhcp import manager
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import api

LOG = logging.getLogger(__name__)

#: Longest time in seconds that Keystone may take when a program starts.
START_TIMEOUT = 5.0


def setup(prog: str, args: Sequence[str]) -> cfg.ConfigOpts:
    """Read the configuration and set up the log.

    :raises ConfigError: the configuration cannot be read.
    """
    conf = vmip_conf.new()
    logging.register_options(conf)
    vmip_conf.parse(conf, args, prog)
    logging.setup(conf, 'vmip')
    return conf


def run(prog: str, main: Callable[[cfg.ConfigOpts], int | None],
        args: Sequence[str] | None = None) -> int:
    """Run a program to its exit code: 0, or 1 with a message."""
    try:
        conf = setup(prog, sys.argv[1:] if args is None else args)
        return main(conf) or 0
    except exceptions.VmipError as exc:
        print(f'{prog}: {exc}', file=sys.stderr)
        return 1


def stop_event() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def asked(signum: int, frame: Any) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
    return stop


def worker(conf: cfg.ConfigOpts, inventory: api.Inventory,
           cloud: vmip_cloud.Cloud) -> work.Worker:
    """Make the worker of a daemon.

    :raises ConfigError: a DHCP server's configuration or the message bus's
        cannot work.
    """
    return work.Worker(
        conf, inventory, manager.load_drivers(conf), cloud,
        rpc.AgentClient(bus.rpc_transport(conf)))


def check_cloud(conf: cfg.ConfigOpts) -> None:
    """See that it is clear which Nova and Neutron are asked.

    :raises ConfigError: the catalogue has several regions and [cloud] names
        none of them.
    """
    try:
        vmip_cloud.Cloud(conf, timeout=START_TIMEOUT).check_region()
    except exceptions.CloudUnavailable as exc:
        # each look at the cloud checks it again
        LOG.warning('The regions cannot be checked yet: %s', exc)


def check_schema(inventory: api.Inventory) -> None:
    """Refuse to work on a database of an earlier version.

    :raises InventoryUnavailable: the database is away.
    :raises ConfigError: its schema is older than this version's.
    """
    behind = inventory.database.behind()
    if behind:
        raise exceptions.ConfigError(
            f'[database] {behind}: run "vmip-manage db upgrade"')
