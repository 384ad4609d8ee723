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
from collections.abc import Mapping, Sequence
from typing import Any

from cliff import command
from cliff import lister
from cliff import show

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import arguments
from vmip_plugin import exceptions
from vmip_plugin.inventory import ranges as vmip_ranges
from vmip_plugin.inventory import records
from vmip_plugin.inventory import serving
from vmip_plugin.inventory import states
from vmip_plugin import types

COLUMNS = ('name', 'cidr', 'subnet_id', 'network_id', 'allocator',
           'reuse_delay', 'dhcp_servers', 'ranges')


def _values(pool: records.Pool) -> tuple[Any, ...]:
    return (pool.name, pool.cidr, pool.subnet_id, pool.network_id,
            pool.allocator, pool.reuse_delay, ','.join(pool.dhcp_servers),
            ', '.join(str(a) if a == b else f'{a}-{b}'
                      for a, b in pool.ranges))


class _Writer(show.ShowOne):
    """What creating and changing a pool have in common."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('name', help='name of the pool')
        parser.add_argument(
            '--range', dest='ranges', action='append', metavar='FIRST-LAST',
            type=arguments.address_range,
            help='addresses to hand out (may be repeated)')
        parser.add_argument(
            '--exclude', dest='excluded', action='append', default=[],
            metavar='FIRST-LAST', type=arguments.address_range,
            help='addresses, or one, that are not to be handed out (may be '
                 'repeated)')
        parser.add_argument('--allocator',
                            help='how a free address is picked: sequential, '
                                 'random, sticky or one of your own')
        parser.add_argument(
            '--reuse-delay', type=arguments.seconds, metavar='SECONDS',
            help='time that an address rests before it is given away again')
        parser.add_argument(
            '--dhcp-server', dest='dhcp_servers', action='append',
            metavar='NAME[=FIRST-LAST]',
            help='a server of [dhcp] servers that answers in this subnet, to '
                 'all guests or to those with these addresses, also written '
                 'NETWORK/PREFIX (may be repeated)')
        parser.add_argument(
            '--adopt', action='store_true',
            help='take addresses in use into the list, with the port that '
                 'Neutron says')
        parser.add_argument(
            '--serve', action='store_true',
            help='with --adopt: give the servers among them host entries, as '
                 'if their addresses had come from the pool')
        parser.add_argument('--dry-run', action='store_true',
                            help='say what would be done, and do nothing')
        return parser

    def _subnet(self, name_or_id: str) -> vmip_cloud.Subnet:
        subnet: vmip_cloud.Subnet | None = self.app.cloud().subnet(name_or_id)
        if subnet is None:
            raise exceptions.PoolNotFound(
                f'Neutron has no subnet {name_or_id}: see '
                f'"openstack subnet list"')
        return subnet

    def _check_servers(self, servers: Sequence[str]) -> None:
        known = self.app.conf.dhcp.servers
        for name in serving.names(servers):
            if name not in known:
                raise exceptions.ConfigError(
                    f'[dhcp] servers does not name {name}; it has: '
                    f'{", ".join(known) or "none"}')

    def _conflicts(self, subnet: vmip_cloud.Subnet,
                   within: vmip_ranges.Ranges,
                   known: Mapping[types.Address, records.Address],
                   parsed_args: argparse.Namespace) -> list[records.InUse]:
        """Return what Neutron has given away in some ranges, and tell it.

        :param known: what the list has as somebody's.
        :raises ConfigError: they are to be served, and not to be adopted.
        :raises AddressInUse: there are some, and they are not to be adopted.
        """
        if parsed_args.serve and not parsed_args.adopt:
            raise exceptions.ConfigError(
                '--serve is for what --adopt takes into the list: give both')
        found = []
        for port in self.app.cloud().ports(network_id=subnet.network_id):
            serve = parsed_args.serve and port.server_id is not None
            for subnet_id, address in port.addresses:
                if subnet_id != subnet.id or within.position(address) is None:
                    continue
                held = known.get(address)
                if not _is_news(held, port, serve):
                    continue
                owner = arguments.text(port.device_owner) or 'nobody'
                print(f'in use: {address} by {owner}, port {port.id}, '
                      f'server {port.device_id or "none"}' + _listed(held),
                      file=self.app.stderr)
                found.append(records.InUse(
                    address, project_id=port.project_id, port_id=port.id,
                    mac=port.mac, serve=serve,
                    server_id=port.server_id,
                    generation=held.generation if held else None))
        if found and not parsed_args.adopt:
            raise exceptions.AddressInUse(
                f'{len(found)} addresses are in use already: repeat with '
                f'--adopt to take them into the list')
        return found


class Create(_Writer):
    """Make a pool for a Neutron subnet.

    Ranges are those of the subnet's allocation pools unless given; the
    subnet's gateway is left out. Addresses that Neutron has given away
    already are conflicts: --adopt takes them into the list as they are, so
    that nobody else gets them.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('--subnet', required=True,
                            help='name or id of the Neutron subnet')
        parser.set_defaults(allocator='sequential', reuse_delay=0,
                            dhcp_servers=[])
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        subnet = self._subnet(parsed_args.subnet)
        if subnet.enable_dhcp:
            print('warning: the subnet has enable_dhcp=True, so Neutron\'s '
                  'own DHCP may answer the guests too: "openstack subnet set '
                  f'--no-dhcp {subnet.id}"', file=self.app.stderr)
        self._check_servers(parsed_args.dhcp_servers)
        within = vmip_ranges.Ranges(
            parsed_args.ranges or subnet.ranges).without(
                _gateway(subnet) + parsed_args.excluded)
        found = self._conflicts(subnet, within, {}, parsed_args)
        if parsed_args.dry_run:
            inventory = inventory.rehearsal()
        pool = inventory.create_pool(
            name=parsed_args.name, network_id=subnet.network_id,
            subnet_id=subnet.id, cidr=subnet.cidr, ranges=within.runs,
            allocator=parsed_args.allocator,
            reuse_delay=parsed_args.reuse_delay,
            dhcp_servers=parsed_args.dhcp_servers, adopt=found)
        if not parsed_args.dry_run:
            print('nova-api and Neutron use the pool within 2 seconds',
                  file=self.app.stderr)
        return (*COLUMNS, 'adopted'), (*_values(pool), len(found))


class Set(_Writer):
    """Change a pool; what is not named stays as it is.

    Who has an address keeps it, also where it comes out of the ranges.
    Addresses in them that Neutron has given away, and that the list has not or
    has as another port's, are conflicts as in "pool create". --adopt alone
    looks for such in the ranges that the pool has: what is needed when an
    older list has been put back.
    """

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        pool = inventory.pool(parsed_args.name)
        if parsed_args.dhcp_servers is not None:
            self._check_servers(parsed_args.dhcp_servers)
        runs = None
        found: list[records.InUse] = []
        if (parsed_args.ranges or parsed_args.excluded or parsed_args.adopt
                or parsed_args.serve):
            subnet = self._subnet(pool.subnet_id)
            within = vmip_ranges.Ranges(
                parsed_args.ranges or pool.ranges).without(
                    _gateway(subnet) + parsed_args.excluded)
            if parsed_args.ranges or parsed_args.excluded:
                runs = within.runs
            known = {held.address: held
                     for _, held in inventory.addresses(pool=pool.id)}
            found = self._conflicts(subnet, within, known, parsed_args)
        if parsed_args.dry_run:
            inventory = inventory.rehearsal()
        pool = inventory.change_pool(
            pool.id, ranges=runs, allocator=parsed_args.allocator,
            reuse_delay=parsed_args.reuse_delay,
            dhcp_servers=parsed_args.dhcp_servers, adopt=found)
        if not parsed_args.dry_run:
            print('nova-api and Neutron use the pool within 2 seconds',
                  file=self.app.stderr)
        return (*COLUMNS, 'adopted'), (*_values(pool), len(found))


def _is_news(held: records.Address | None, port: vmip_cloud.Port,
             serve: bool) -> bool:
    """Tell whether the list does not know that a port has an address."""
    return (held is None or held.port_id != port.id
            or serve and held.state is states.State.ADOPTED)


def _listed(held: records.Address | None) -> str:
    return '' if held is None else (
        f'; the list says {held.state}'
        + (f', port {held.port_id}' if held.port_id else ''))


def _gateway(subnet: vmip_cloud.Subnet) -> list[vmip_ranges.Run]:
    return [] if subnet.gateway is None else [(subnet.gateway,
                                               subnet.gateway)]


class Show(show.ShowOne):
    """Show a pool and how full it is."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('name', help='name of the pool')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        wanted = inventory.pool(parsed_args.name)
        pool, usage = next((p, u) for p, u in inventory.pools()
                           if p.id == wanted.id)
        return (*COLUMNS, *usage), (*_values(pool), *usage.values())


class List(lister.Lister):
    """List the pools and how full they are."""

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        columns = [state.value for state in states.State] + ['outside']
        return (*COLUMNS, *columns), [
            (*_values(pool), *(usage[column] for column in columns))
            for pool, usage in manage.inventory(self).pools()]


class Delete(command.Command):
    """Delete a pool that nobody uses; its history is kept."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('name', help='name of the pool')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        manage.inventory(self).delete_pool(parsed_args.name)
