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

"""vmip-manage address ..."""

import argparse
from collections.abc import Iterator, Sequence
import json
import os
import pathlib
from typing import Any
from typing import TextIO

from cliff import command
from cliff import lister

from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import arguments
from vmip_plugin.cmd.manage import output
from vmip_plugin import exceptions
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

COLUMNS = ('pool', 'address', 'state', 'server_name', 'mac', 'server_id',
           'port_id', 'project_id', 'since', 'until', 'reserved_for',
           'reserved_project', 'reserved_until', 'waiting_for')

#: addresses between two words of progress
_STEP = 10000


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--pool', help='only of this pool')
    parser.add_argument(
        '--state', action='append', dest='state', type=states.State,
        choices=list(states.State), metavar='STATE',
        help='only in this state (may be repeated): ' + ', '.join(
            states.State))
    parser.add_argument('--address', type=arguments.address,
                        help='only this address')
    parser.add_argument('--server', help='only of this server, by id or '
                                         'by the name in the request')
    parser.add_argument('--project', metavar='ID',
                        help='only of this project')


def _rows(cmd: command.Command, parsed_args: argparse.Namespace
          ) -> Iterator[tuple[Any, ...]]:
    inventory = manage.inventory(cmd)
    waiting = inventory.waiting_addresses()
    for pool, a in inventory.addresses(
            pool=parsed_args.pool, state=parsed_args.state,
            address=parsed_args.address, server=parsed_args.server,
            project=parsed_args.project):
        yield (pool.name, str(a.address), a.state.value, a.server_name or '',
               a.mac or '', a.server_id or '', a.port_id or '',
               a.project_id or '', arguments.show(a.changed_at),
               arguments.show(a.expires_at), a.hold_name or '',
               a.hold_project or '', arguments.show(a.hold_until),
               ', '.join(sorted(waiting.get(a.id, ()))))


class List(lister.Lister):
    """List the addresses that somebody holds, and who."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        _add_filters(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        return COLUMNS, _rows(self, parsed_args)


class Export(command.Command):
    """Write the list into a file as CSV or JSON, however long it is."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('file', help='- for standard output; one that is '
                                         'there is replaced when all is '
                                         'written')
        parser.add_argument('--format', choices=['csv', 'json'],
                            default='csv', help='default: %(default)s')
        _add_filters(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        write = {'csv': output.write_csv,
                 'json': _write_json}[parsed_args.format]
        rows = self._told(_rows(self, parsed_args))
        if parsed_args.file == '-':
            write(self.app.stdout, COLUMNS, rows)
            return
        path = pathlib.Path(parsed_args.file)
        part = path.with_name(f'.{path.name}.{os.getpid()}')
        try:
            # others need not read who has which address
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL,
                              0o600), 'w', encoding='utf-8',
                      newline='') as file:
                write(file, COLUMNS, rows)
            part.replace(path)
        except OSError as exc:
            raise exceptions.VmipError(f'{path}: {exc.strerror}') from exc
        finally:
            part.unlink(missing_ok=True)

    def _told(self, rows: Iterator[tuple[Any, ...]],
              ) -> Iterator[tuple[Any, ...]]:
        number = 0
        for number, row in enumerate(rows, 1):
            yield row
            if number % _STEP == 0 and self.app.stderr.isatty():
                print(f'{number} addresses', file=self.app.stderr)
        print(f'{number} addresses written', file=self.app.stderr)


def _write_json(file: TextIO, columns: Sequence[str],
                rows: Iterator[tuple[Any, ...]]) -> None:
    file.write('[')
    for number, row in enumerate(rows):
        file.write((',' if number else '') + '\n' + json.dumps(
            dict(zip(columns, row, strict=True))))
    file.write('\n]\n')


class History(lister.Lister):
    """Tell who held an address, and when."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('address', type=arguments.address)
        parser.add_argument(
            '--at', type=arguments.moment, metavar='TIME',
            help='say who held it at this time, UTC unless it says otherwise '
                 '(2026-11-20T12:00)')
        parser.add_argument('--pool', help='only in this pool')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        names = {pool.id: pool.name for pool, _ in inventory.pools()}
        if parsed_args.at is not None:
            return ('pool', 'address', 'state', 'server_name', 'server_id',
                    'project_id', 'mac', 'port_id', 'since', 'until',
                    'reserved_for', 'reserved_project', 'request_id'), [
                (names.get(s.pool_id, s.pool_id), str(s.address),
                 s.state.value, s.server_name or '',
                 s.server_id or '', s.project_id or '', s.mac or '',
                 s.port_id or '', arguments.show(s.since),
                 arguments.show(s.expires_at), s.hold_name or '',
                 s.hold_project or '', s.request_id or '')
                for s in inventory.standing(
                    parsed_args.address, parsed_args.at, parsed_args.pool)]
        return ('pool', 'at', 'event', 'from', 'to', 'server_name',
                'server_id', 'project_id', 'mac', 'by', 'reason',
                'request_id'), [
            (names.get(c.pool_id, c.pool_id), arguments.show(c.at), c.event,
             c.old_state, c.new_state, c.server_name or '',
             c.server_id or '', c.project_id or '', c.mac or '', c.actor,
             c.reason, c.request_id or '')
            for c in inventory.history(parsed_args.address,
                                       parsed_args.pool)]


class Predict(lister.Lister):
    """Say which address a server would get if it were created now.

    It gets it, unless the list changes before: "reservation create" keeps
    it.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('names', nargs='+', metavar='NAME',
                            help='name of the server; several are created '
                                 'in this order')
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument('--network', metavar='ID',
                           help='the network that it will ask for')
        where.add_argument('--pool', help='a pool of that network')
        parser.add_argument('--project', metavar='ID', required=True,
                            help='project of the server')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        network = parsed_args.network or inventory.pool(
            parsed_args.pool).network_id
        names = {pool.id: pool.name for pool, _ in inventory.pools()}
        found = inventory.rehearsal().reserve(
            records.Requester('predict', parsed_args.project),
            [records.Wanted(network, tuple(parsed_args.names))], 60)
        if not found:
            raise exceptions.PoolNotFound(f'Network {network} has no pool')
        return ('server_name', 'pool', 'address'), [
            (a.server_name or '', names[a.pool_id], str(a.address))
            for a in found]
