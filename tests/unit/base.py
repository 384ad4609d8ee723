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

"""What the unit tests have in common: a real list in a real database.

That is a SQLite file, or, where VMIP_TEST_DATABASE names a server, a database
of its own on that server (see :mod:`tests.databases`).
"""

import atexit
from collections.abc import Sequence
import datetime
import functools
import ipaddress
import pathlib
import shutil
import tempfile
from typing import Any
import uuid

import fixtures
from oslo_config import cfg
import testtools

from tests import databases
from vmip_plugin import conf as vmip_conf
from vmip_plugin.inventory import api
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import models
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

State = states.State

NETWORK = '11111111-0000-0000-0000-000000000001'
SUBNET = '22222222-0000-0000-0000-000000000001'
PROJECT = 'aaaa0000aaaa0000aaaa0000aaaa0000'
OTHER_PROJECT = 'bbbb0000bbbb0000bbbb0000bbbb0000'

ip = ipaddress.ip_address


def new_conf(connection: str) -> cfg.ConfigOpts:
    """Return options that know nothing but where the database is."""
    conf = vmip_conf.new()
    conf([], project='vmip', default_config_files=[], default_config_dirs=[])
    conf.set_override('connection', connection, 'database')
    return conf


@functools.cache
def template() -> str:
    """Return a database upgraded to head, made once for this process.

    :returns: its file or, on a server, its URL.
    """
    server = databases.given()
    if server is None:
        folder = tempfile.mkdtemp(prefix='vmip-unit-')
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        found = f'{folder}/db'
        url = f'sqlite:///{found}'
    else:
        found = url = server.create()
        atexit.register(server.drop, url)
    database = api.Inventory(new_conf(url), 'test').database
    database.upgrade()
    if server is None:
        with database.engine.connect() as connection:
            connection.exec_driver_sql('PRAGMA wal_checkpoint(TRUNCATE)')
    database.engine.dispose()
    return found


class Clock(fixtures.Fixture):
    """The time of the list, which goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = clock.now()

    def _setUp(self) -> None:
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.inventory.clock.now', lambda: self.now))
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.dhcp.breaker.now', lambda: self.now.timestamp()))

    def forward(self, seconds: float) -> None:
        self.now += datetime.timedelta(seconds=seconds)


class TestCase(testtools.TestCase):
    """A test with options of its own and an empty list."""

    actor = 'test'

    def setUp(self) -> None:
        super().setUp()
        self.directory = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self.connection = self.new_database('vmip')
        self.log = self.useFixture(fixtures.FakeLogger())
        self.conf = new_conf(self.connection)
        self.inventory = self.new_inventory(self.actor)
        self.clock = self.useFixture(Clock())

    def new_database(self, name: str, empty: bool = False) -> str:
        """Make a database and return its URL.

        :param name: of its file.
        :param empty: without a schema.
        """
        server = databases.given()
        if server is None:
            path = self.directory / f'{name}.sqlite'
            if not empty:
                shutil.copyfile(template(), path)
            return f'sqlite:///{path}'
        url = server.create(None if empty else template())
        self.addCleanup(server.drop, url)
        return url

    def new_inventory(self, actor: str) -> api.Inventory:
        """Return the list as another process sees it."""
        inventory = api.Inventory(self.conf, actor)
        self.addCleanup(lambda: inventory.database.engine.dispose())
        return inventory

    def pool(self, first: str = '10.0.0.10', last: str = '10.0.0.20',
             cidr: str = '10.0.0.0/24', *, name: str = 'pool',
             network: str = NETWORK, subnet: str = SUBNET,
             **values: Any) -> records.Pool:
        """Make a pool with one DHCP server, ``a``."""
        values.setdefault('dhcp_servers', ['a'])
        values.setdefault('ranges', [(ip(first), ip(last))])
        return self.inventory.create_pool(
            name=name, network_id=network, subnet_id=subnet, cidr=cidr,
            **values)

    def reserve(self, *names: str, request: str = 'req-1',
                project: str = PROJECT, network: str = NETWORK,
                ttl: int = 600) -> list[records.Address]:
        return self.inventory.reserve(
            records.Requester(request, project),
            [records.Wanted(network, names or ('web',))], ttl)

    def claim(self, number: int = 1, *, request: str = 'req-1',
              project: str = PROJECT, subnet: str = SUBNET,
              server: str | None = 'auto', **values: Any) -> str:
        """Claim for port ``number``; return the address as text."""
        claim = self.inventory.claim(
            subnet_id=subnet, requester=records.Requester(request, project),
            port_id=port_id(number), mac=mac(number),
            server_id=server_id(number) if server == 'auto' else server,
            **values)
        assert claim is not None
        return str(claim.address)

    def row(self, address: str) -> records.Address:
        """Return how an address stands."""
        found = self.found(address=ip(address))
        self.assertEqual(1, len(found), found)
        return found[0][1]

    def found(self, **filters: Any) -> list[
            tuple[records.Pool, records.Address]]:
        """Return the list, or what of it passes the filters."""
        return list(self.inventory.addresses(**filters))

    def hold(self, address: str, name: str | None = 'web',
             project: str | None = None, seconds: float | None = None,
             ) -> records.Address:
        """Reserve an address by hand."""
        return self.inventory.hold(records.Hold(
            'pool', ip(address), name, project,
            None if seconds is None else clock.after(seconds),
            any_project=bool(name) and project is None))

    def state(self, address: str) -> State:
        return self.row(address).state

    def events(self, address: str) -> list[str]:
        return [c.event for c in self.inventory.history(ip(address))]

    def finish(self, address: str) -> None:
        """Do what is to do for a released address."""
        for work in self.inventory.work(limit=10 ** 6):
            if str(work.address) == address:
                self.assertTrue(self.inventory.work_done(work))
        self.clock.forward(3)
        for work in self.inventory.work():
            if str(work.address) == address:
                self.assertTrue(self.inventory.work_done(work))

    def entries(self) -> list[tuple[str, str, str, bool, bool]]:
        """Return (server, address, MAC, present, done) of every intent."""
        return [(e.server, str(e.address), e.mac, e.present, e.done)
                for e in self.inventory.entries()]

    def rows(self) -> int:
        """Return how many addresses cost a row."""
        with self.inventory.database.read() as session:
            return session.query(models.AddressRow).count()


def mac(number: int) -> str:
    return f'fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}'


def port_id(number: int) -> str:
    return str(uuid.UUID(int=0xA0000000 + number))


def server_id(number: int) -> str:
    return str(uuid.UUID(int=0xB0000000 + number))


def addresses(found: Sequence[records.Address]) -> list[str]:
    return [str(held.address) for held in found]
