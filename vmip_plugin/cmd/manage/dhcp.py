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
from collections.abc import Callable, Iterator
import sys
from typing import Any

from cliff import lister

from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import agents
from vmip_plugin.cmd.manage import arguments
from vmip_plugin.conf import dhcp
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import manager
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions


class List(lister.Lister):
    """List the host entries of the DHCP servers and what is still to do."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--pending', action='store_true',
                            help='only what is still to be done')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        return ('server', 'address', 'mac', 'hostname', 'wanted', 'done',
                'since', 'tries', 'waiting_for', 'next_try', 'error'), [
            (e.server, str(e.address), e.mac, e.hostname or '',
             'present' if e.present else 'absent', e.done,
             arguments.show(e.done_at), e.attempts, e.waiting_for or '',
             '' if e.done else arguments.show(e.next_try_at), e.error or '')
            for e in manage.inventory(self).entries(parsed_args.pending)]


class _Servers(lister.Lister):
    """Looks at each server, and goes on where one cannot be looked at.

    The exit code is 1 where any row says that something is wrong.
    """

    columns: tuple[str, ...]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument('--server', action='append', metavar='NAME',
                            help='only this server (repeatable); default: '
                                 'all of [dhcp] servers')
        return parser

    def look(self, driver: base.DHCPDriver, parsed_args: argparse.Namespace
             ) -> Iterator[tuple[Any, ...]]:
        """Yield a server's rows; set :attr:`wrong`."""
        raise NotImplementedError

    def failed(self, error: str) -> tuple[Any, ...]:
        """Return the row of a server that cannot be looked at."""
        return *[''] * (len(self.columns) - 2), error

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        self.wrong = False
        manage.inventory(self)
        self.drivers = manager.load_drivers(self.app.conf)
        found = []
        for name in dict.fromkeys(parsed_args.server or self.drivers):
            if name not in self.drivers:
                raise exceptions.ConfigError(
                    f'[dhcp] servers does not name {name}')
            try:
                found += [(name, *row) for row in self.look(
                    self.drivers[name], parsed_args)]
            except exceptions.DHCPError as exc:
                self.wrong = True
                found.append((name, *self.failed(str(exc))))
        return self.columns, found

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or int(self.wrong)


class Check(_Servers):
    """Compare the entries of the DHCP servers with the list, both ways.

    Nothing is changed. The exit code is 1 where there is a difference, and
    where a server's entries cannot be read.
    """

    columns = ('server', 'address', 'wanted', 'found', 'remark')

    def look(self, driver: base.DHCPDriver, parsed_args: argparse.Namespace
             ) -> Iterator[tuple[Any, ...]]:
        inventory = manage.inventory(self)
        found = work.differences(inventory, driver)
        errors = {entry.address: entry.error for entry in
                  (inventory.entries(pending=True) if found else ())
                  if entry.server == driver.name and entry.error}
        for d in found:
            self.wrong = True
            yield (str(d.address), d.wanted or 'nothing',
                   d.found.mac if d.found else 'nothing',
                   _remark(d, errors.get(d.address)))


class Doctor(_Servers):
    """Read the settings of each running DHCP server and say what is wrong.

    The exit code is 1 where anything is.
    """

    columns = ('server', 'driver', 'well', 'finding')

    def look(self, driver: base.DHCPDriver, parsed_args: argparse.Namespace
             ) -> Iterator[tuple[Any, ...]]:
        kind = dhcp.register_server(self.app.conf, driver.name).driver
        complaints = driver.check()
        for text in complaints:
            self.wrong = True
            yield kind, False, text
        if not complaints:
            yield kind, True, ''

    def failed(self, error: str) -> tuple[Any, ...]:
        return '', False, error


class Sync(_Servers):
    """Bring the DHCP servers to what the list wants, and wait for that.

    What is lost is written, and what nobody wants is removed; entries that
    the operator made by hand are not looked at. It may be run at any time,
    beside the daemons or without them. The exit code is 0 if the servers
    agree with the list now.
    """

    columns = ('server', 'address', 'action', 'mac', 'result')

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('--dry-run', action='store_true',
                            help='only list what would be done')
        return parser

    def look(self, driver: base.DHCPDriver, parsed_args: argparse.Namespace
             ) -> Iterator[tuple[Any, ...]]:
        inventory = manage.inventory(self)
        if parsed_args.dry_run:
            result = dict.fromkeys(
                work.differences(inventory, driver), 'would be done')
            self.wrong |= bool(result)
        else:
            worker = work.Worker(self.app.conf, inventory, self.drivers,
                                 self.app.cloud(), agents.client(self.app))
            with manage.quiet(work.__name__):
                found = worker.sync(driver.name, _progress(driver.name))
            result = {d: error or 'done' for d, error in found.items()}
            self.wrong |= any(text != 'done' for text in result.values())
        for d, text in result.items():
            mac = d.wanted or (d.found.mac if d.found else '')
            yield (str(d.address), 'write' if d.wanted else 'remove', mac,
                   text)


def _remark(difference: work.Difference, error: str | None) -> str:
    if difference.pending:
        return f'to be done: {error}' if error else 'to be done'
    if difference.wanted is None:
        return 'wanted by nobody'
    return 'lost' if difference.found is None else 'changed'


def _progress(server: str) -> Callable[[int, int], None]:
    """Return what tells somebody who watches how far it is."""
    def tell(done: int, of: int) -> None:
        if sys.stderr.isatty() and of:
            print(f'\r{server}: {done} of {of}', file=sys.stderr,
                  end='\n' if done == of else '', flush=True)

    return tell
