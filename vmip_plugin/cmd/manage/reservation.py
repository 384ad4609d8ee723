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

"""vmip-manage reservation ..."""

import argparse
from typing import Any

from cliff import command
from cliff import lister
from cliff import show

from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import arguments
from vmip_plugin.inventory import records

COLUMNS = ('address', 'server_name', 'project_id', 'until', 'state')


def _values(held: records.Address) -> tuple[Any, ...]:
    return (str(held.address), held.hold_name, held.hold_project or 'any',
            arguments.show(held.hold_until), held.state.value)


class Create(show.ShowOne):
    """Keep an address for the server of a given name."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('address', type=arguments.address)
        parser.add_argument('--pool', required=True)
        parser.add_argument('--server-name', required=True, metavar='NAME',
                            help='name that the create request will give')
        parser.add_argument('--project', metavar='ID',
                            help='only for a server of this project')
        parser.add_argument(
            '--until', type=arguments.moment, metavar='TIME',
            help='end of the reservation, UTC unless it says otherwise; '
                 'without it, it stays until it is deleted')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        held = manage.inventory(self).hold(
            parsed_args.pool, parsed_args.address, parsed_args.server_name,
            parsed_args.project, parsed_args.until)
        return COLUMNS, _values(held)


class List(lister.Lister):
    """List the addresses that are reserved by hand."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--pool', help='only of this pool')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        return ('pool', *COLUMNS), [
            (pool.name, *_values(held))
            for pool, held in manage.inventory(self).addresses(
                pool=parsed_args.pool, held_by_hand=True)]


class Delete(command.Command):
    """Give up a reservation; a server that uses the address keeps it."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('address', type=arguments.address)
        parser.add_argument('--pool', required=True)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        manage.inventory(self).unhold(parsed_args.pool, parsed_args.address)
