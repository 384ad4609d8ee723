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


"""Loading of the DHCP drivers that the configuration names."""

from importlib import metadata
import re
from typing import cast

from oslo_config import cfg
from stevedore import driver as stevedore_driver
from stevedore import exception as stevedore_exception

from vmip_plugin.conf import dhcp
from vmip_plugin.dhcp import base
from vmip_plugin import exceptions

#: the stevedore namespace of the drivers
NAMESPACE = 'vmip_plugin.dhcp'

_NAME = re.compile(r'[A-Za-z0-9_.-]{1,64}')


def load_drivers(conf: cfg.ConfigOpts) -> dict[str, base.DHCPDriver]:
    """Return a driver for each name in ``[dhcp] servers``, in that order.

    :param conf: with the options of :mod:`vmip_plugin.conf.dhcp` registered
        and its files read.
    :raises ConfigError: where a server cannot be used as it is configured.
    """
    drivers: dict[str, base.DHCPDriver] = {}
    for name in conf.dhcp.servers:
        if not _NAME.fullmatch(name):
            raise exceptions.ConfigError(
                f'[dhcp] servers: {name!r} is no name: use 1 to 64 letters, '
                'digits, and the signs _ . -')
        if name in drivers:
            raise exceptions.ConfigError(
                f'[dhcp] servers: {name} is there twice: remove one')
        try:
            drivers[name] = _load(conf, name)
        except cfg.Error as exc:
            raise exceptions.ConfigError(
                f'[{dhcp.server_group(name)}]: {exc}') from exc
    return drivers


def _load(conf: cfg.ConfigOpts, name: str) -> base.DHCPDriver:
    group = dhcp.server_group(name)
    kind = dhcp.register_server(conf, name).driver
    try:
        driver = cast(type[base.DHCPDriver], stevedore_driver.DriverManager(
            NAMESPACE, kind).driver)
    except stevedore_exception.NoMatches as exc:
        known = ', '.join(sorted(
            metadata.entry_points(group=NAMESPACE).names))
        raise exceptions.ConfigError(
            f'[{group}] driver: there is no {kind!r}: use one of '
            f'{known}, or install the package that brings it') from exc
    except ImportError as exc:
        raise exceptions.ConfigError(
            f'[{group}] driver: {kind} needs what is not installed ({exc}): '
            f'pip install "vmip-plugin[{kind}]"') from exc
    return driver.load(conf, name)
