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

"""vmip-manage lease ..."""

import argparse
from collections.abc import Iterable, Iterator
import dataclasses
import datetime
import itertools
import sys
import time
from typing import Any

from cliff import lister

from vmip_plugin.agent import lease as agent_lease
from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import agents as vmip_agents
from vmip_plugin.cmd.manage import arguments
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import manager
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import clock
from vmip_plugin.reclaim import leases
from vmip_plugin import types

#: Leases that are looked up in the list at a time.
_BATCH = 500
#: Seconds that the end of a lease is waited for.
PATIENCE = 30.0


@dataclasses.dataclass(frozen=True)
class _Lease:
    """A lease, and who told of it.

    :param driver: of the DHCP server that told; None: an agent did.
    :param server: the DHCP server's address.
    """

    source: str
    address: types.Address
    mac: str | None
    client_id: bytes | None
    expires: datetime.datetime | None
    driver: base.DHCPDriver | None
    server: str | None
    last_word: str = ''

    @classmethod
    def of_server(cls, driver: base.DHCPDriver, lease: base.Lease
                  ) -> '_Lease':
        return cls(driver.name, lease.address, lease.mac, lease.client_id,
                   lease.expires, driver,
                   str(driver.server_id) if driver.server_id else None)

    @classmethod
    def of_agent(cls, host: str, lease: agent_lease.Lease) -> '_Lease':
        seconds = lease.lease_seconds
        return cls(
            f'agent {host}', lease.address, lease.mac, lease.client_id,
            None if seconds is None else datetime.datetime.fromtimestamp(
                lease.last_seen + seconds, datetime.UTC), None,
            str(lease.dhcp_server) if lease.dhcp_server else None,
            ': '.join(filter(None, (lease.verdict, lease.reason))))


class _Leases(lister.Lister):
    """Reads the leases of all that can tell them.

    The exit code is 1 where one of them could not.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            '--server', action='append', metavar='NAME',
            help='only what this DHCP server tells (repeatable); default: '
                 'all of [dhcp] servers, and the agents')
        return parser

    def read(self, parsed_args: argparse.Namespace,
             address: types.Address | None = None) -> Iterator[_Lease]:
        """Yield the leases, or those of one address."""
        self.wrong = False
        manage.inventory(self)
        drivers = manager.load_drivers(self.app.conf)
        for name in dict.fromkeys(parsed_args.server or drivers):
            if name not in drivers:
                raise exceptions.ConfigError(
                    f'[dhcp] servers does not name {name}')
            driver = drivers[name]
            if base.Capability.LEASE_LIST not in driver.capabilities:
                continue
            try:
                for lease in (driver.leases() if address is None
                              else driver.leases_of([address])):
                    yield _Lease.of_server(driver, lease)
            except exceptions.DHCPError as exc:
                self.fail(name, str(exc))
        if not parsed_args.server:
            yield from self._of_agents(address)

    def _of_agents(self, address: types.Address | None) -> Iterator[_Lease]:
        for host, found in vmip_agents.ask_all(
                self.app, lambda client, host: [
                    lease for lease in client.leases(host)
                    if address in (None, lease.address)]):
            if isinstance(found, Exception):
                self.fail(f'agent {host}', str(found)
                          or type(found).__name__)
            else:
                for lease in found:
                    yield _Lease.of_agent(host, lease)

    def fail(self, source: str, error: str) -> None:
        self.wrong = True
        print(f'{source}: {error}', file=sys.stderr)

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or int(self.wrong)


class List(_Leases):
    """List the leases that DHCP servers and agents know, and whose they are.

    The exit code is 1 where a server or an agent could not be asked.
    """

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        return ('source', 'address', 'mac', 'client_id', 'expires', 'list',
                'server_name', 'server_id', 'last_word'), self._rows(
            parsed_args)

    def _rows(self, parsed_args: argparse.Namespace
              ) -> Iterator[tuple[Any, ...]]:
        inventory = manage.inventory(self)
        for some in _batches(self.read(parsed_args)):
            held: dict[types.Address, list[Any]] = {}
            for found in inventory.at([lease.address for lease in some]):
                held.setdefault(found.address, []).append(found)
            for lease in some:
                # the one that has this very lease, if there is one
                whose = max(held.get(lease.address, ()), default=None,
                            key=lambda h, mac=lease.mac: h.mac == mac)
                mine = whose if whose and whose.mac == lease.mac else None
                yield (lease.source, str(lease.address), lease.mac or '',
                       lease.client_id.hex() if lease.client_id else '',
                       arguments.show(lease.expires),
                       leases.standing(lease.mac, whose),
                       mine.server_name or '' if mine else '',
                       mine.server_id or '' if mine else '',
                       lease.last_word)


class Show(_Leases):
    """Say of an address's leases what Nova and Neutron say of their holder.

    ``gone`` tells whether "lease release" would release it.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('address', type=arguments.address)
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        cloud = self.app.cloud()
        found = []
        for lease in self.read(parsed_args, parsed_args.address):
            judged = leases.judge(inventory, cloud, lease.address, lease.mac)
            holder = judged.holder
            found.append((
                lease.source, str(lease.address), lease.mac or '',
                lease.client_id.hex() if lease.client_id else '',
                arguments.show(lease.expires),
                holder.server_name or '' if holder else '',
                holder and holder.server_id or '',
                holder and holder.port_id or '', judged.gone, judged.reason,
                lease.last_word))
        return ('source', 'address', 'mac', 'client_id', 'expires',
                'server_name', 'server_id', 'port_id', 'gone', 'reason',
                'last_word'), found


class Release(Show):
    """End the leases of an address whose holder is gone.

    Nova and Neutron are asked twice, [reclaimer] confirm_delay seconds
    apart. A lease whose holder lives is never released, and nothing can
    force it. Where the DHCP server has no command for it, the agents are
    asked; they decide for themselves. The exit code is 1 where a lease is
    still there.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument('--dry-run', action='store_true',
                            help='only say what would be released')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        found = list(self.read(parsed_args, parsed_args.address))
        if not found:
            raise exceptions.VmipError(
                f'Nobody tells of a lease of {parsed_args.address}')
        judged = self._judge(inventory, found)
        gone = [lease for lease in found if judged[lease].gone]
        if gone and not parsed_args.dry_run and self._has_to_wait(
                judged[lease] for lease in gone):
            delay = self.app.conf.reclaimer.confirm_delay
            print(f'Nova and Neutron are asked again in {delay} seconds',
                  file=sys.stderr)
            time.sleep(delay)
            judged.update(self._judge(inventory, gone))
        rows = []
        for lease in found:
            verdict = judged[lease]
            result = ('spared' if not verdict.gone else 'would be released'
                      if parsed_args.dry_run
                      else self._release(lease, verdict))
            self.wrong |= result not in ('released', 'would be released')
            rows.append((lease.source, str(lease.address), lease.mac or '',
                         result, verdict.reason))
        return ('source', 'address', 'mac', 'result', 'reason'), rows

    def _judge(self, inventory: api.Inventory, found: Iterable[_Lease]
               ) -> dict[_Lease, leases.Judgement]:
        cloud = self.app.cloud()
        return {lease: leases.judge(inventory, cloud, lease.address,
                                    lease.mac) for lease in found}

    def _has_to_wait(self, judged: Iterable[leases.Judgement]) -> bool:
        since = clock.now() - datetime.timedelta(
            seconds=self.app.conf.reclaimer.confirm_delay)
        return not all(leases.said_gone_before(one, since) for one in judged)

    def _release(self, lease: _Lease, judged: leases.Judgement) -> str:
        """End a lease; return what became of it."""
        driver = lease.driver
        try:
            if driver is not None and (base.Capability.LEASE_RELEASE
                                       in driver.capabilities):
                driver.release(base.Lease(lease.address, lease.mac,
                                          lease.client_id, lease.expires))
                return self._await(driver, lease, 0)
            agents = vmip_agents.client(self.app)
            if agents is None:
                return ('not released: the server has no command for it, and '
                        'no transport_url leads to the agents')
            holder = judged.holder
            assert holder is not None and lease.mac is not None
            try:
                agents.release_lease(str(lease.address), lease.mac,
                                     holder.server_id, holder.port_id,
                                     lease.server)
            # whatever the bus fails with
            except Exception as exc:
                return f'not released: the agents cannot be told: {exc}'
            if driver is None:
                return 'the agents are told: see "lease list"'
            return self._await(driver, lease, PATIENCE)
        except exceptions.DHCPError as exc:
            return f'not released: {exc}'

    def _await(self, driver: base.DHCPDriver, lease: _Lease, patience: float
               ) -> str:
        end = time.monotonic() + patience
        while any(found.mac == lease.mac
                  for found in driver.leases_of([lease.address])):
            if time.monotonic() >= end:
                return 'not released: the server still has it'
            time.sleep(0.5)
        return 'released'


def _batches(found: Iterable[_Lease]) -> Iterator[list[_Lease]]:
    rest = iter(found)
    while batch := list(itertools.islice(rest, _BATCH)):
        yield batch
