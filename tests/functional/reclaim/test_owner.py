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

"""Several vmip-reclaimers at once, and one of them is killed."""

import signal
import time
import uuid

import fixtures
import testtools

from tests import daemon
from tests import databases
from tests import lab
from tests.unit import base
from vmip_plugin.cmd import manage
from vmip_plugin.inventory import states
from vmip_plugin.reclaim import owner

State = states.State


class ReclaimersTestCase(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.FakeLogger())
        self.folder = self.useFixture(fixtures.TempDir()).path

    def start(self, url: str, count: int = 2, more: str = '') -> None:
        self.site = self.useFixture(
            daemon.Site(url, 'fake:', 'driver = none'))
        self.config = self.site.config() + (
            '[reclaimer]\nwork_interval = 0.5\ncheck_interval = 1\n'
            f'full_interval = 1\nconfirm_delay = 1\n{more}\n')
        self.daemons = [self.new_daemon() for _ in range(count)]

    def new_daemon(self) -> daemon.Daemon:
        made = self.useFixture(daemon.Daemon('vmip_plugin.cmd.reclaimer',
                                             self.config))
        lab.wait_for(lambda: made.ready)
        return made

    def owners(self) -> set[int]:
        """Return which of the daemons did something since just now."""
        began = time.time()
        lab.wait_for(lambda: any(
            run.started_at.timestamp() > began
            for run in self.site.inventory.runs()))
        time.sleep(3)
        pids = {int(run.host.rpartition(':')[2])
                for run in self.site.inventory.runs()
                if run.started_at.timestamp() > began}
        return {n for n, one in enumerate(self.daemons)
                if one.process.pid in pids}

    def owner(self) -> int:
        """Return which of them does the work, once it is one alone.

        Where a database cannot tell who has the lock, its owner lets go of it
        now and then, and another one may be faster.
        """
        found: set[int] = lab.wait_for(
            lambda: len(some := self.owners()) == 1 and some)
        return found.pop()

    def work_of(self, number: int) -> None:
        """See that a server's lost delete is found."""
        port = base.port_id(number)
        address = base.ip('10.0.0.1') + number
        self.site.cloud.add(port, base.mac(number), str(address),
                            base.SUBNET, base.NETWORK,
                            base.server_id(number))
        self.site.inventory.claim(
            subnet_id=base.SUBNET, port_id=port, mac=base.mac(number),
            server_id=base.server_id(number), address=address,
            requester=daemon.records.Requester('req', base.PROJECT))
        self.site.cloud.delete(port)
        lab.wait_for(lambda: self.state(address) is State.FREE)

    def state(self, address: object) -> State:
        (_, found), = self.site.inventory.addresses(
            address=address)  # type: ignore[arg-type]
        return found.state

    def take_over(self) -> None:
        """Kill the owner, and see that the other one goes on."""
        self.work_of(1)
        first = self.owner()
        self.daemons[first].end(signal.SIGKILL)
        self.assertNotEqual(first, self.owner())
        self.work_of(2)
        self.daemons[first] = self.new_daemon()
        # one that ends in peace lets go at once
        last = self.owner()
        self.daemons[last].end()
        self.assertEqual(0, self.daemons[last].process.returncode)
        self.work_of(3)
        self.assertNotEqual(last, self.owner())


class TestSQLite(ReclaimersTestCase):

    def test_take_over(self) -> None:
        self.start(f'sqlite:///{self.folder}/vmip.sqlite')
        self.take_over()

    def test_api_fails_in_the_middle(self) -> None:
        """No page or question that fails makes anything look gone."""
        self.start(f'sqlite:///{self.folder}/vmip.sqlite', count=1)
        for number in range(20):
            address = base.ip('10.0.0.1') + number
            port = base.port_id(number)
            self.site.cloud.add(
                port, base.mac(number), str(address), base.SUBNET,
                base.NETWORK, base.server_id(number))
            self.site.inventory.claim(
                subnet_id=base.SUBNET, port_id=port, mac=base.mac(number),
                server_id=base.server_id(number), address=address,
                requester=daemon.records.Requester('req', base.PROJECT))
        gone = base.port_id(7)
        self.site.cloud.delete(gone)
        for later in range(12):
            self.site.cloud.failing = self.site.cloud.asked + later
            time.sleep(1.2)
        self.site.cloud.failing = None
        lab.wait_for(lambda: self.state(
            base.ip('10.0.0.8')) is State.FREE)
        self.assertEqual(19, len(list(self.site.inventory.addresses(
            state=[State.CLAIMED]))))

    def test_backend_cannot_be_used(self) -> None:
        config = (f'[database]\nconnection = sqlite:///{self.folder}/x\n'
                  '[reclaimer]\ncoordination_url = nosuch://x:secret@y\n')
        path = f'{self.folder}/{uuid.uuid4()}'
        with open(path, 'w', encoding='utf-8') as file:
            file.write(config)
        self.assertEqual(0, manage.main(
            ['--config-file', path, 'db', 'upgrade']))
        found = self.useFixture(daemon.Daemon(
            'vmip_plugin.cmd.reclaimer',
            f'[DEFAULT]\ntransport_url = fake:\n{config}'))
        self.assertEqual(1, found.process.wait(lab.PATIENCE))
        self.assertIn('coordination_url', found.log.read_text())
        self.assertNotIn('secret', found.log.read_text())


class TestMariaDB(ReclaimersTestCase):

    def test_take_over(self) -> None:
        maria = self.useFixture(databases.MariaDB(durable=False))
        self.start(maria.databases.create())
        self.take_over()

    def test_database_is_away(self) -> None:
        maria = self.useFixture(databases.MariaDB(durable=False))
        self.start(maria.databases.create())
        self.work_of(1)
        maria.kill()
        time.sleep(owner.BEAT * 2)
        maria.start()
        self.work_of(2)
        # an owner may notice late that its lock is lost
        self.owner()


class TestPostgreSQL(ReclaimersTestCase):

    def test_take_over(self) -> None:
        server = self.useFixture(databases.PostgreSQL(durable=False))
        self.start(server.databases.create())
        self.take_over()
