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

"""vmip-manage pool ..."""

import argparse
from collections.abc import Iterable
from typing import Any

from cliff import command
from cliff import lister
from cliff import show

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import arguments
from vmip_plugin import exceptions
from vmip_plugin.inventory import records
from vmip_plugin import types

COLUMNS = ('name', 'cidr', 'subnet_id', 'network_id', 'allocator',
           'reuse_delay', 'dhcp_servers')


def _values(pool: records.Pool) -> tuple[Any, ...]:
    return (pool.name, pool.cidr, pool.subnet_id, pool.network_id,
            pool.allocator, pool.reuse_delay, ','.join(pool.dhcp_servers))


class Create(show.ShowOne):
    """Make a pool for a Neutron subnet.

    Ranges are those of the subnet's allocation pools unless given; the
    subnet's gateway is left out. Addresses that Neutron has given away
    already are conflicts: --adopt takes them into the list as they are, so
    that nobody else gets them.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('name', help='name of the pool')
        parser.add_argument('--subnet', required=True,
                            help='name or id of the Neutron subnet')
        parser.add_argument(
            '--range', dest='ranges', action='append', metavar='FIRST-LAST',
            type=arguments.address_range,
            help='addresses to hand out (may be repeated)')
        parser.add_argument('--allocator', default='sequential',
                            help='how a free address is picked '
                                 '(default: %(default)s)')
        parser.add_argument(
            '--reuse-delay', type=arguments.seconds, default=0,
            metavar='SECONDS',
            help='time that an address rests before it is given away again '
                 '(default: %(default)s)')
        parser.add_argument(
            '--dhcp-server', dest='dhcp_servers', action='append',
            default=[], metavar='NAME',
            help='a server of [dhcp] servers that answers in this subnet '
                 '(may be repeated)')
        parser.add_argument(
            '--adopt', action='store_true',
            help='take addresses in use into the list')
        parser.add_argument('--dry-run', action='store_true',
                            help='say what would be done, and do nothing')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        cloud = self.app.cloud()
        subnet = cloud.subnet(parsed_args.subnet)
        if subnet is None:
            raise exceptions.PoolNotFound(
                f'Neutron has no subnet {parsed_args.subnet}: see '
                f'"openstack subnet list"')
        self._check(subnet, parsed_args)
        ranges = [
            part for first, last in parsed_args.ranges or subnet.ranges
            for part in _without(first, last, subnet.gateway)]
        in_use = list(_in_use(cloud, subnet, ranges))
        for found in in_use:
            print(f'in use: {found.address} by port {found.port_id}',
                  file=self.app.stderr)
        if in_use and not parsed_args.adopt:
            raise exceptions.AddressInUse(
                f'{len(in_use)} addresses are in use already: repeat with '
                f'--adopt to take them into the list')
        if parsed_args.dry_run:
            pool = records.Pool(
                '', parsed_args.name, subnet.network_id, subnet.id,
                subnet.cidr, parsed_args.allocator, parsed_args.reuse_delay,
                tuple(parsed_args.dhcp_servers))
        else:
            pool = inventory.create_pool(
                name=parsed_args.name, network_id=subnet.network_id,
                subnet_id=subnet.id, cidr=subnet.cidr, ranges=ranges,
                allocator=parsed_args.allocator,
                reuse_delay=parsed_args.reuse_delay,
                dhcp_servers=parsed_args.dhcp_servers, adopt=in_use)
        return (*COLUMNS, 'ranges', 'adopted'), (
            *_values(pool), ', '.join(f'{a}-{b}' for a, b in ranges),
            len(in_use))

    def _check(self, subnet: vmip_cloud.Subnet,
               parsed_args: argparse.Namespace) -> None:
        if subnet.enable_dhcp:
            print('warning: the subnet has enable_dhcp=True, so Neutron\'s '
                  'own DHCP may answer the guests too: "openstack subnet set '
                  f'--no-dhcp {subnet.id}"', file=self.app.stderr)
        known = self.app.conf.dhcp.servers
        for name in parsed_args.dhcp_servers:
            if name not in known:
                raise exceptions.ConfigError(
                    f'[dhcp] servers does not name {name}; it has: '
                    f'{", ".join(known) or "none"}')


def _without(first: types.Address, last: types.Address,
             gap: types.Address | None
             ) -> Iterable[tuple[types.Address, types.Address]]:
    if gap is None or not int(first) <= int(gap) <= int(last):
        yield first, last
        return
    if first != gap:
        yield first, gap - 1
    if last != gap:
        yield gap + 1, last


def _in_use(cloud: vmip_cloud.Cloud, subnet: vmip_cloud.Subnet,
            ranges: list[tuple[types.Address, types.Address]]
            ) -> Iterable[records.InUse]:
    for port in cloud.ports(network_id=subnet.network_id):
        for subnet_id, address in port.addresses:
            if subnet_id == subnet.id and any(
                    int(a) <= int(address) <= int(b) for a, b in ranges):
                yield records.InUse(
                    address, project_id=port.project_id, port_id=port.id,
                    mac=port.mac, server_id=(
                        port.device_id
                        if port.device_owner.startswith('compute:')
                        else None))


class List(lister.Lister):
    """List the pools and how full they are."""

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        states = ('free', 'reserved', 'claimed', 'active', 'releasing',
                  'quarantined', 'adopted')
        return (*COLUMNS, *states), [
            (*_values(pool), *(usage[state] for state in states))
            for pool, usage in manage.inventory(self).pools()]


class Delete(command.Command):
    """Delete a pool that nobody uses; its history is kept."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('name', help='name of the pool')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        manage.inventory(self).delete_pool(parsed_args.name)
