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
import sys
from typing import Any

from cliff import command
from cliff import lister
from cliff import show

from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import arguments
from vmip_plugin.cmd.manage import plan
from vmip_plugin import exceptions
from vmip_plugin.inventory import records

#: the first of them are those of a plan, so that what "list" writes as CSV
#: is one
COLUMNS = ('pool', 'address', 'server_name', 'project', 'any_project',
           'until', 'state')


def _values(pool: str, held: records.Address) -> tuple[Any, ...]:
    for_any = bool(held.hold_name) and held.hold_project is None
    return (pool, str(held.address), held.hold_name or '',
            held.hold_project or '', plan.YES if for_any else '',
            arguments.show(held.hold_until), held.state.value)


class Create(show.ShowOne):
    """Keep an address for a server that is still to be made.

    For the server of that name in the project, or in any project; or for any
    server of the project. With none of them, for nobody but who asks Neutron
    for that very address. A server that has the address keeps it.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('address', type=arguments.address, nargs='?',
                            help='without it, one is picked')
        parser.add_argument('--pool', required=True)
        parser.add_argument('--server-name', metavar='NAME',
                            help='name that the create request will give')
        whose = parser.add_mutually_exclusive_group()
        whose.add_argument('--project', metavar='ID',
                           help='only for servers of this project')
        whose.add_argument(
            '--any-project', action='store_true',
            help='for the server of that name in whatever project: the first '
                 'that is made gets it')
        parser.add_argument(
            '--until', type=arguments.moment, metavar='TIME',
            help='end of the reservation, UTC unless it says otherwise; '
                 'without it, it stays until it is deleted')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        held = manage.inventory(self).hold(records.Hold(
            parsed_args.pool, parsed_args.address, parsed_args.server_name,
            parsed_args.project, parsed_args.until,
            parsed_args.any_project))
        return COLUMNS, _values(parsed_args.pool, held)


class Import(lister.Lister):
    """Carry out a plan of many reservations: all of it, or nothing.

    The plan is a CSV file whose first line names its columns: address,
    server_name, project, any_project (yes or nothing), until, pool, in any
    order; address or server_name is needed, and with a server_name a project
    or any_project. Every line that cannot be is named.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('file', help='the plan; - for standard input')
        parser.add_argument('--pool', help='pool of the lines that name none')
        parser.add_argument('--dry-run', action='store_true',
                            help='say what would be done, and do nothing')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        if parsed_args.file == '-':
            wanted, errors = plan.read(sys.stdin.buffer, parsed_args.pool)
        else:
            try:
                with open(parsed_args.file, 'rb') as file:
                    wanted, errors = plan.read(file, parsed_args.pool)
            except OSError as exc:
                raise exceptions.VmipError(
                    f'{parsed_args.file}: {exc.strerror}') from exc
        if errors or parsed_args.dry_run:
            inventory = inventory.rehearsal()
        try:
            held = inventory.hold_all(wanted)
        except exceptions.PlanRefused as exc:
            errors.update(exc.errors)
        if errors:
            raise exceptions.PlanRefused(errors)
        return ('line', *COLUMNS), [
            (number, *_values(wanted[number].pool, address))
            for number, address in sorted(held.items())]


class List(lister.Lister):
    """List the addresses that are reserved by hand."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--pool', help='only of this pool')
        parser.add_argument('--project', metavar='ID',
                            help='only for this project')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        return COLUMNS, (
            _values(pool.name, held)
            for pool, held in manage.inventory(self).addresses(
                pool=parsed_args.pool, project=parsed_args.project,
                held_by_hand=True))


class Delete(command.Command):
    """Give up a reservation; a server that uses the address keeps it."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('address', type=arguments.address)
        parser.add_argument('--pool', required=True)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        manage.inventory(self).unhold(parsed_args.pool, parsed_args.address)
