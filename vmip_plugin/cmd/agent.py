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

"""vmip-agent: gives leases back that their holders left behind."""

from collections.abc import Sequence
import signal
import socket
import sys
import threading
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin.agent import service
from vmip_plugin import bus
from vmip_plugin import cloud
from vmip_plugin.cmd import common
from vmip_plugin import conf as conf_
from vmip_plugin import exceptions
from vmip_plugin import health

LOG = logging.getLogger(__name__)

#: exit codes
CONFIG_ERROR, SYSTEM_ERROR = 1, 2


def main(args: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit code.

    1: the configuration cannot work; 2: the system does not let us.

    :param args: without the program's name; None takes the command line.
    """
    conf = conf_.new()
    logging.register_options(conf)
    try:
        conf_.parse(conf, sys.argv[1:] if args is None else args,
                    'vmip-agent')
        dict(conf.agent)    # a value is checked when it is first read
        logging.setup(conf, 'vmip')
        if not conf.cloud.auth_type and not conf.cloud.auth_section:
            raise exceptions.ConfigError(
                'no [cloud] auth_type is configured: Nova and Neutron must '
                'be asked before a lease is released')
        common.check_cloud(conf)
        agent = service.Agent(conf, cloud.Cloud(conf), _transport(conf),
                              socket.gethostname())
        stop = threading.Event()
        health.serve(conf, agent.health(), stop)
    except (exceptions.ConfigError, cfg.Error) as exc:
        print(f'vmip-agent: {exc}', file=sys.stderr)
        return CONFIG_ERROR
    except PermissionError as exc:
        print(f'vmip-agent: {exc}: run it with CAP_NET_RAW, for interfaces '
              'in other network namespaces also with CAP_SYS_ADMIN',
              file=sys.stderr)
        return SYSTEM_ERROR
    run(agent, stop)
    return 0


def run(agent: service.Agent, stop: threading.Event) -> None:
    """Run an agent until SIGTERM or SIGINT, which set the event."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    agent.start()
    stop.wait()
    LOG.info('Stopping')
    agent.stop()


def _transport(conf: cfg.ConfigOpts) -> Any:
    """Return the transport for hints, or None where no bus is configured.

    :raises ConfigError: transport_url makes no sense.
    """
    transport = bus.rpc_transport(conf)
    if not bus.is_named(conf):
        LOG.warning('No transport_url is configured: there will be no hints '
                    'from vmip-listener, only sweeps')
        return None
    return transport


if __name__ == '__main__':
    sys.exit(main())
