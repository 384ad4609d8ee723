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

"""The agent's side of the driver ``remote``: calls of this host's drivers.

An error of a driver is an answer, so that no class is named on the bus.
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging
import oslo_messaging

from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import manager
from vmip_plugin.dhcp import remote
from vmip_plugin.dhcp import wire
from vmip_plugin import exceptions
from vmip_plugin import types

LOG = logging.getLogger(__name__)

_Method = Callable[..., Any]


def load_drivers(conf: cfg.ConfigOpts) -> Mapping[str, base.DHCPDriver]:
    """Return the drivers that other hosts may call, by the server's name.

    Those that themselves call another host are left out, so that no call
    goes in circles. Where the configuration of the servers cannot work there
    are none: leases are watched all the same.
    """
    try:
        drivers = manager.load_drivers(conf)
    except exceptions.ConfigError as exc:
        LOG.error('No DHCP server of this host can be called: %s', exc)
        return {}
    return {name: driver for name, driver in drivers.items()
            if not isinstance(driver, remote.RemoteDriver)}


def _answer(method: _Method) -> _Method:
    """Make what a method returns or raises an answer."""
    @functools.wraps(method)
    def call(self: 'Endpoint', ctxt: Any, server: Any = None,
             **args: Any) -> dict[str, Any]:
        try:
            driver = self._driver(server)
            return {'result': method(self, driver, **args)}
        except exceptions.DHCPError as exc:
            return {'error': wire.dump_error(exc)}
        except (TypeError, ValueError) as exc:
            said = wire.text(str(exc))
            LOG.warning('Refused a call of %s: %s', method.__name__, said)
            return {'error': [False, f'refused: {said}']}
    return call


class Endpoint:
    """What the driver ``remote`` calls.

    :param drivers: see :func:`load_drivers`.
    """

    target = oslo_messaging.Target(namespace=wire.NAMESPACE,
                                   version=wire.VERSION)

    def __init__(self, drivers: Mapping[str, base.DHCPDriver]) -> None:
        self._drivers = drivers

    def _driver(self, name: Any) -> base.DHCPDriver:
        """Return a server's driver.

        :raises DHCPError: there is none.
        """
        driver = self._drivers.get(name) if isinstance(name, str) else None
        if driver is None:
            raise exceptions.DHCPError(
                f'there is no DHCP server {name!r:.80} that could be called: '
                'name it in [dhcp] servers of this host\'s vmip.conf, with '
                'the driver that works here, restart vmip-agent and look at '
                'its log.')
        return driver

    @_answer
    def describe(self, driver: base.DHCPDriver) -> dict[str, Any]:
        return {'capabilities': [one.name for one in driver.capabilities],
                'server_id': driver.server_id and str(driver.server_id)}

    @_answer
    def put(self, driver: base.DHCPDriver, entries: Any) -> Any:
        parsed = [wire.load_entry(value) for value in wire.items(entries)]
        return wire.dump_failures(parsed, driver.put(parsed))

    @_answer
    def remove(self, driver: base.DHCPDriver, entries: Any) -> Any:
        parsed = [wire.load_entry(value) for value in wire.items(entries)]
        return wire.dump_failures(parsed, driver.remove(parsed))

    @_answer
    def entries(self, driver: base.DHCPDriver, after: Any) -> Any:
        return [wire.dump_entry(entry) for entry in wire.page(
            driver.entries(), _after(after))]

    @_answer
    def leases(self, driver: base.DHCPDriver, after: Any) -> Any:
        return [wire.dump_lease(lease) for lease in wire.page(
            driver.leases(), _after(after))]

    @_answer
    def leases_of(self, driver: base.DHCPDriver, addresses: Any) -> Any:
        return [wire.dump_lease(lease) for lease in driver.leases_of(
            [wire.address(value) for value in wire.items(addresses)])]

    @_answer
    def release(self, driver: base.DHCPDriver, lease: Any) -> Any:
        return driver.release(wire.load_lease(lease))

    @_answer
    def check(self, driver: base.DHCPDriver) -> Any:
        return driver.check()


def _after(value: Any) -> types.Address | None:
    return None if value is None else wire.address(value)
