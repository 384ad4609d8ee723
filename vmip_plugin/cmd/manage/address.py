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
import datetime
from typing import Any

from cliff import lister

from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import arguments
from vmip_plugin.inventory import states


class List(lister.Lister):
    """List the addresses that somebody holds, and who."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
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
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        found = manage.inventory(self).addresses(
            pool=parsed_args.pool, state=parsed_args.state,
            address=parsed_args.address, server=parsed_args.server)
        return ('pool', 'address', 'state', 'server_name', 'mac', 'server_id',
                'port_id', 'project_id', 'since', 'until'), [
            (pool.name, str(a.address), a.state.value,
             a.server_name or a.hold_name or '', a.mac or '',
             a.server_id or '', a.port_id or '', a.project_id or '',
             arguments.show(a.changed_at), arguments.show(a.expires_at))
            for pool, a in found]


class History(lister.Lister):
    """Tell who held an address, and when."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('address', type=arguments.address)
        parser.add_argument(
            '--at', type=arguments.moment, metavar='TIME',
            help='only the change that was in force at this time, UTC unless '
                 'it says otherwise (2026-11-20T12:00)')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        changes = manage.inventory(self).history(parsed_args.address)
        at: datetime.datetime | None = parsed_args.at
        if at is not None:
            changes = [c for c in changes if c.at <= at][-1:]
        return ('at', 'event', 'from', 'to', 'server_name', 'server_id',
                'project_id', 'mac', 'by', 'reason', 'request_id'), [
            (arguments.show(c.at), c.event, c.old_state, c.new_state,
             c.server_name or '', c.server_id or '', c.project_id or '',
             c.mac or '', c.actor, c.reason, c.request_id or '')
            for c in changes]
