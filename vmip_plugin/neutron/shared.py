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


"""What the drivers inside neutron-server have in common."""

from collections.abc import Mapping, Sequence
import threading
import typing
from typing import Protocol

from neutron_lib import exceptions as n_exc
from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin.agent import rpc
from vmip_plugin import bus
from vmip_plugin import conf as vmip_conf
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin import types

LOG = logging.getLogger(__name__)

#: Seconds that a create may wait for the agents to look at an address.
PROBE_TIMEOUT = 1.5


class Prober(Protocol):
    """Whoever can look at addresses on the wire (vmip_plugin.agent.rpc)."""

    def probe(self, addresses: Sequence[types.Address], timeout: float = 2.0,
              ) -> dict[types.Address, bool | None]:
        """Tell whether addresses answer; None: nobody can tell."""


class InventoryAway(n_exc.ServiceUnavailable):
    """The inventory's database does not answer; answered with 503."""

    # For any user to see: what else is known is in the log.
    message = ('The address inventory does not answer at the moment, try '
               'again later.')


_list: api.Inventory | None = None
_prober: Prober | None = None
_lock = threading.Lock()


def configuration() -> cfg.ConfigOpts:
    """Return vmip's own options.

    :raises ConfigError: their file cannot be read or has a wrong value.
    """
    return vmip_conf.load(vmip_conf.path())


def check(ipam_driver: str) -> None:
    """Check at the start what each port needs later.

    :param ipam_driver: Neutron's option.
    :raises ConfigError: vmip's options cannot be used, or Neutron has
        another IPAM driver.
    """
    if ipam_driver != 'vmip':
        raise exceptions.ConfigError(
            f'[DEFAULT] ipam_driver in neutron.conf is {ipam_driver}: set it '
            'to vmip, or take vmip out of service_plugins')
    configuration()


def inventory() -> api.Inventory:
    """Return the list, one for all requests of this process.

    :raises ConfigError: vmip's options cannot be read.
    """
    global _list
    if _list is None:
        _list = api.Inventory(configuration(), 'neutron-server',
                              in_request=True)
    return _list


def probe(addresses: Sequence[types.Address],
          ) -> Mapping[types.Address, bool | None]:
    """Have the agents look whether addresses answer on the wire.

    :returns: by address; None or nothing where no agent can tell. Never
        fails: where the bus is away, nobody can tell.
    """
    global _prober
    try:
        with _lock:
            # Made when it is needed first: a web server forks after the
            # start, and a connection to the bus does not outlive that.
            if _prober is None:
                conf = configuration()
                transport = bus.rpc_transport(conf)
                if not bus.is_named(conf):
                    return {}
                _prober = typing.cast(Prober, rpc.AgentClient(transport))
            prober = _prober
        return prober.probe(addresses, PROBE_TIMEOUT)
    except Exception as exc:
        LOG.warning('The agents cannot be asked about %s: %s',
                    ', '.join(map(str, addresses)), exc)
        return {}
