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


"""Puts our IPAM driver where Neutron's tests name the internal one."""

import ipaddress
import os
import pathlib
from typing import Any
from unittest import mock

from neutron.ipam.drivers.neutrondb_ipam import driver as internal
from neutron import manager
from neutron_lib import constants
from sqlalchemy import orm

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.neutron import ipam
from vmip_plugin.neutron import shared
_ADD = orm.Session.add


class PooledDriver(ipam.VmipPool):
    """Our driver, with a pool wherever Neutron has a subnet.

    The pool has the subnet's own ranges, and no DHCP server, so that an
    address is free as soon as its port is gone.
    """

    def allocate_subnet(self, subnet_request: Any) -> Any:
        return self._pooled(super().allocate_subnet(subnet_request))

    def update_subnet(self, subnet_request: Any) -> Any:
        return self._pooled(super().update_subnet(subnet_request))

    def _pooled(self, subnet: Any) -> Any:
        # None: nothing has changed; while its prefix is still to be
        # delegated a subnet has no addresses, and some have no ranges
        if subnet is None or None in (subnet._subnet_id, subnet._pools) or (
                str(subnet._cidr) == constants.PROVISIONAL_IPV6_PD_PREFIX):
            return subnet
        name = subnet._subnet_id
        ranges = [(ipaddress.ip_address(str(run[0])),
                   ipaddress.ip_address(str(run[-1])))
                  for run in subnet._pools]
        # a test has put one in its place that knows only Neutron's calls
        with mock.patch.object(orm.Session, 'add', _ADD):
            _change_pool(name, str(subnet._cidr), ranges)
        return subnet


def _change_pool(name: str, cidr: str, ranges: list[Any]) -> None:
    try:
        if ranges:
            shared.inventory().create_pool(
                name=name, network_id=name, subnet_id=name, cidr=cidr,
                ranges=ranges)
        else:
            shared.inventory().delete_pool(name)
    except exceptions.PoolExists:
        shared.inventory().change_pool(name, ranges=ranges)


def select(mode: str, folder: pathlib.Path) -> None:
    """Have this process's Neutron use our driver instead of its own."""
    connection = f'sqlite:///{folder}/vmip.sqlite'
    (folder / 'vmip.conf').write_text(
        f'[database]\nconnection = {connection}\n')
    os.environ['VMIP_CONFIG'] = str(folder / 'vmip.conf')
    api.Inventory(base.new_conf(connection), 'test').database.upgrade()
    driver = PooledDriver if mode == 'pools' else ipam.VmipPool
    # Some tests name the internal driver's classes, and so does the entry
    # point "internal".
    internal.NeutronDbPool = driver
    internal.NeutronDbSubnet = ipam.VmipSubnet
    original = manager.NeutronManager.load_class_for_provider

    def load(namespace: str, provider: str) -> Any:
        found = original(namespace, provider)
        # not where a test has put a mock in its place
        return (original(namespace, 'vmip') if found is ipam.VmipPool
                else found)

    manager.NeutronManager.load_class_for_provider = staticmethod(load)
