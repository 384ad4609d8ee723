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

"""vmip-manage dhcp ..."""

import argparse
from typing import Any

from cliff import lister

from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import arguments
from vmip_plugin.dhcp import manager
from vmip_plugin.dhcp import work


class List(lister.Lister):
    """List the host entries of the DHCP servers and what is still to do."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--pending', action='store_true',
                            help='only what is still to do')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        return ('server', 'address', 'mac', 'hostname', 'wanted', 'done',
                'since', 'tries', 'next_try', 'error'), [
            (e.server, str(e.address), e.mac, e.hostname or '',
             'present' if e.present else 'absent', e.done,
             arguments.show(e.done_at), e.attempts,
             '' if e.done else arguments.show(e.next_try_at), e.error or '')
            for e in manage.inventory(self).entries(parsed_args.pending)]


class Check(lister.Lister):
    """Compare the DHCP servers with the list, in both directions.

    The exit code is 1 where there is a difference or a server is not well.
    """

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        found = []
        for name, driver in manager.load_drivers(self.app.conf).items():
            found += [(name, 'server', '', text) for text in driver.check()]
            found += [
                (name, str(d.address), d.wanted or 'nothing',
                 d.found.mac if d.found else 'nothing')
                for d in work.differences(inventory, driver)]
        self._different = bool(found)
        return ('server', 'address', 'wanted', 'found'), found

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or int(self._different)
