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

"""Clouds that answer wrongly about many servers, over HTTP."""

import datetime
import threading

from tests import stubs
from tests.unit import base
from tests.unit import fakes
from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records
from vmip_plugin.notifications import event
from vmip_plugin.notifications import handler
from vmip_plugin.openstack import presence
from vmip_plugin.reclaim import tasks

State = base.State
SERVERS = 24


class MassTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool('10.0.0.10', '10.0.0.109')
        self.stub = self.useFixture(stubs.Cloud())
        for option, value in (
                ('auth_type', 'v3password'),
                ('region_name', 'one')):
            self.conf.set_override(option, value, 'cloud')
        path = self.directory / 'cloud.conf'
        path.write_text(f'[database]\nconnection = {self.connection}\n'
                        + self.stub.config)
        self.conf(['--config-file', str(path)], project='vmip',
                  default_config_dirs=[])
        self.conf.clear_override('auth_type', 'cloud')
        self.conf.clear_override('region_name', 'cloud')
        self.conf.set_override('max_releases', 1000, 'reclaimer')
        self.restart()

    def restart(self) -> None:
        """Begin anew, as with another configuration."""
        self.driver = fakes.Server('a')
        self.cloud = vmip_cloud.Cloud(self.conf)
        self.worker = work.Worker(self.conf, self.inventory,
                                  {'a': self.driver}, self.cloud, None)
        self.told: list[tasks.Finding] = []
        self.reclaimer = tasks.Reclaimer(
            self.conf, self.inventory, self.worker, self.cloud,
            patience=None, tell=self.told.append)

    def boot(self, count: int = SERVERS, first: int = 0) -> None:
        for number in range(first, first + count):
            address = self.claim(number, project=stubs.TENANT)
            self.stub.add(base.port_id(number), base.mac(number), address,
                          base.SUBNET, base.NETWORK, base.server_id(number))

    def delete(self, *numbers: int) -> None:
        for number in numbers:
            self.stub.delete(base.port_id(number))

    def passes(self, count: int = 4, seconds: float = 31) -> list[str]:
        """Run all tasks again and again; return the errors of the last."""
        errors: list[str] = []
        for _ in range(count):
            self.clock.forward(seconds)
            errors = [run.error for task in self.reclaimer.tasks()
                      if (run := self.reclaimer.run(task)).error]
        return errors

    def in_use(self) -> int:
        return len(self.found(state=[State.CLAIMED, State.ACTIVE]))


class TestWrongAnswers(MassTestCase):
    """No address of a server that runs is released."""

    def assertNothingReleased(self, count: int = SERVERS) -> None:
        self.assertEqual(count, self.in_use())
        self.assertEqual([], self.found(state=[State.RELEASING]))

    def other_region(self) -> None:
        """Lead to a region with ports and servers of its own."""
        self.stub.ports.clear()
        self.stub.servers.clear()
        self.stub.deleted.clear()
        self.stub.networks.clear()
        for number in range(900, 903):
            self.stub.add(base.port_id(number), base.mac(number),
                          f'10.9.0.{number - 890}', base.port_id(1),
                          base.port_id(2), base.server_id(number))

    def test_catalogue_leads_to_another_region(self) -> None:
        self.boot()
        self.passes(1)
        self.other_region()
        self.passes()
        self.assertNothingReleased()

    def test_another_region_with_the_same_network(self) -> None:
        """A copy of the network, as after a migration."""
        self.boot()
        self.passes(1)
        self.other_region()
        self.stub.networks.add(base.NETWORK)
        self.passes()
        self.assertNothingReleased()

    def test_a_few_in_another_region(self) -> None:
        """Less than what blows the fuse."""
        self.boot(3)
        self.passes(1)
        self.other_region()
        self.stub.networks.add(base.NETWORK)
        self.passes()
        self.assertNothingReleased(3)

    def test_neutron_is_restored_without_its_ports(self) -> None:
        for count in (3, SERVERS - 3):
            self.boot(count, first=self.in_use())
            self.passes(1)
            kept = dict(self.stub.ports)
            self.stub.ports.clear()
            self.passes()
            self.assertNothingReleased(len(kept))
            self.stub.ports.update(kept)
            self.passes(2)
            self.assertEqual(0, self.inventory.losses()[0].missing)

    def test_some_ports_are_not_restored(self) -> None:
        self.boot()
        self.passes(1)
        for number in range(4):
            del self.stub.ports[base.port_id(number)]
        self.passes()
        self.assertNothingReleased()

    def test_user_loses_the_role(self) -> None:
        """The token at hand still says admin."""
        self.boot()
        self.passes(1)
        self.stub.neutron_admin = False
        self.assertTrue(self.passes())
        self.assertNothingReleased()
        self.stub.nova_admin = False
        self.assertTrue(self.passes())
        self.assertNothingReleased()

    def test_admin_of_one_project_only(self) -> None:
        """context_is_admin is role:cloud_network_admin there."""
        self.boot()
        self.stub.roles = ['admin']
        self.stub.neutron_admin = self.stub.nova_admin = False
        self.assertTrue(self.passes())
        self.assertNothingReleased()

    def test_listener(self) -> None:
        """Forged deletes, and a cloud that knows none of the servers."""
        self.boot()
        target = handler.Handler(self.conf, self.inventory, self.worker,
                                 self.cloud)
        self.other_region()
        self.stub.networks.add(base.NETWORK)
        for number in range(SERVERS):
            target.handle([deleted(number)])
        self.assertNothingReleased()
        self.stub.ports.clear()
        self.stub.servers.clear()
        for number in range(SERVERS):
            self.stub.servers[base.server_id(number)] = 'ACTIVE'
        for number in range(SERVERS):
            target.handle([deleted(number)])
        self.assertNothingReleased()

    def test_a_cell_is_down(self) -> None:
        """Only its servers are spared."""
        self.boot(30)
        self.passes(1)
        self.stub.down.update(base.server_id(n) for n in range(10))
        for number in (0, 1):
            del self.stub.ports[base.port_id(number)]
        self.delete(20, 21)
        self.passes(3)
        self.assertEqual(28, self.in_use())
        self.assertEqual(
            {base.server_id(n) for n in range(30) if n not in (20, 21)},
            {held.server_id for _, held in self.found(
                state=[State.CLAIMED])})


class TestDeletes(MassTestCase):
    """What is really gone is released by vmip-reclaimer alone."""

    def test_some(self) -> None:
        self.boot()
        self.passes(1)
        self.delete(3, 4)
        self.passes(3)
        self.assertEqual(SERVERS - 2, self.in_use())
        self.assertEqual([], self.passes(1))

    def test_role_of_any_name(self) -> None:
        self.stub.roles = ['Admin']
        self.boot()
        self.delete(3)
        self.passes(3)
        self.assertEqual(SERVERS - 1, self.in_use())

    def test_nova_has_archived_them(self) -> None:
        self.boot()
        self.delete(3)
        self.stub.deleted.clear()
        self.passes(3)
        self.assertEqual(SERVERS - 1, self.in_use())

    def test_the_last_server_of_a_pool(self) -> None:
        self.boot(2)
        for number in range(2):
            self.delete(number)
            self.passes(3)
            self.assertEqual(1 - number, self.in_use())

    def test_port_without_server(self) -> None:
        self.boot(2)
        address = self.claim(7, server=None, project=stubs.TENANT)
        self.passes(3)
        self.assertEqual(2, self.in_use())
        self.assertEqual(State.FREE, self.state(address))

    def test_creates_in_flight(self) -> None:
        """Nova puts build requests in front of its sorted list."""
        self.boot(5)
        self.stub.builds = [base.server_id(4), base.server_id(1)]
        self.stub.servers[base.server_id(99)] = 'BUILD'
        self.stub.builds.append(base.server_id(99))
        self.delete(3)
        self.assertEqual([], self.passes(3))
        self.assertEqual(4, self.in_use())

    def test_marker_is_deleted(self) -> None:
        """A port is deleted between two pages."""
        self.patch(vmip_cloud, 'PAGE', 5)
        self.boot(20)
        self.passes(1)
        gone: list[str] = []

        def before(marker: str | None) -> None:
            if marker in self.stub.ports and len(gone) < 2:
                gone.append(marker)
                self.stub.delete(marker)

        self.stub.before_page = before
        run, = (self.reclaimer.run(task) for task in self.reclaimer.tasks()
                if task.name == 'ports')
        self.assertIsNone(run.error)
        self.assertEqual(2, len(gone))
        self.assertEqual(20, run.checked)

    def test_several_regions(self) -> None:
        self.stub.regions = ['one', 'two']
        self.cloud.check_region()
        self.conf.set_override('region_name', None, 'cloud')
        cloud = vmip_cloud.Cloud(self.conf)
        self.assertRaisesRegex(exceptions.ConfigError, 'one, two',
                               cloud.check_region)
        self.conf.set_override('region_name', 'three', 'cloud')
        cloud = vmip_cloud.Cloud(self.conf)
        self.assertRaisesRegex(exceptions.ConfigError, 'three',
                               cloud.check_region)

    def test_port_that_the_inventory_lacks(self) -> None:
        self.boot(2)
        self.stub.add(base.port_id(50), base.mac(50), '10.0.0.50',
                      base.SUBNET, base.NETWORK, base.server_id(50))
        self.passes(1)
        self.assertEqual(State.FREE, self.state('10.0.0.50'))
        self.passes(2)
        row = self.row('10.0.0.50')
        self.assertEqual(
            (State.CLAIMED, base.port_id(50), base.mac(50),
             base.server_id(50)),
            (row.state, row.port_id, row.mac, row.server_id))
        self.assertEqual(base.mac(50), self.driver.served()['10.0.0.50'])

    def test_port_that_is_just_deleted_is_not_adopted(self) -> None:
        self.boot(2)
        self.stub.add(base.port_id(50), base.mac(50), '10.0.0.50',
                      base.SUBNET, base.NETWORK, base.server_id(50))
        self.passes(1)
        original = self.cloud.port

        def port(port_id: str) -> vmip_cloud.Port | None:
            self.stub.ports.pop(base.port_id(50), None)
            return original(port_id)

        self.patch(self.cloud, 'port', port)
        self.passes(2)
        self.assertEqual(State.FREE, self.state('10.0.0.50'))


class TestFuse(MassTestCase):

    def blown(self) -> list[str]:
        return [loss.pool for loss in presence.blown(
            self.conf, self.inventory.losses()).values()]

    def test_mass(self) -> None:
        self.boot(50)
        self.delete(*range(20))
        self.passes()
        self.assertEqual(50, self.in_use())
        self.assertEqual(['pool'], self.blown())

    def test_below_it(self) -> None:
        self.boot(55)
        self.delete(*range(10))
        self.passes()
        self.assertEqual(45, self.in_use())
        self.assertEqual([], self.blown())

    def test_share(self) -> None:
        """Many, but not a large share."""
        self.boot(80)
        self.delete(*range(14))
        self.passes()
        self.assertEqual(66, self.in_use())

    def test_by_and_by(self) -> None:
        """What comes little by little counts together."""
        self.boot(50)
        for first in range(0, 40, 4):
            self.delete(*range(first, first + 4))
            self.passes(2)
        self.assertLessEqual(40, self.in_use())
        self.assertEqual(['pool'], self.blown())

    def test_cap_does_not_get_below_it(self) -> None:
        self.conf.set_override('max_releases', 2, 'reclaimer')
        self.boot(50)
        self.delete(*range(30))
        self.passes(10)
        self.assertEqual(50, self.in_use())

    def test_later_losses_count_anew(self) -> None:
        self.boot(50)
        for first in range(0, 24, 8):
            self.delete(*range(first, first + 8))
            self.passes(2)
            self.clock.forward(3600)
        self.assertEqual(26, self.in_use())

    def test_confirm(self) -> None:
        self.boot(60)
        self.delete(*range(20))
        self.passes(2)
        self.assertEqual(20, self.inventory.confirm_losses(
            self.inventory.missing('pool'), self.later(3600)))
        # what is lost now was not seen then
        self.delete(*range(20, 40))
        self.passes(3)
        self.assertEqual(40, self.in_use())
        self.assertEqual({base.server_id(n) for n in range(20, 60)},
                         {h.server_id for _, h in self.found(
                             state=[State.CLAIMED])})
        self.assertEqual(['pool'], self.blown())

    def test_confirmed_for_a_time_only(self) -> None:
        self.boot(50)
        self.delete(*range(20))
        self.passes(1)
        self.inventory.confirm_losses(self.inventory.missing('pool'),
                                      self.later(5))
        self.passes(2)
        self.assertEqual(50, self.in_use())

    def test_confirmed_and_nova_has_them(self) -> None:
        self.boot(50)
        for number in range(20):
            del self.stub.ports[base.port_id(number)]
        self.passes(1)
        self.inventory.confirm_losses(self.inventory.missing('pool'),
                                      self.later(3600))
        self.passes(2)
        self.assertEqual(50, self.in_use())

    def test_what_neutron_reported_goes_through(self) -> None:
        self.boot(50)
        for number in range(45):
            self.inventory.release_ports(
                [base.port_id(number)], 'port deleted',
                presence.Evidence.COMMITTED)
        self.delete(*range(45))
        self.passes(2)
        self.assertEqual(5, self.in_use())
        self.assertEqual([], self.blown())
        self.assertEqual([], self.found(state=[State.RELEASING]))

    def test_notifications(self) -> None:
        """Many deletes of which Neutron's own driver told nothing."""
        self.boot(50)
        target = handler.Handler(self.conf, self.inventory, self.worker,
                                 self.cloud)
        for number in range(30):
            self.delete(number)
            target.handle([deleted(number)])
        self.assertEqual(40, self.in_use())
        self.assertEqual(['pool'], self.blown())

    def later(self, seconds: float) -> datetime.datetime:
        return clock.after(seconds)


class TestAway(MassTestCase):
    """A Nova that hangs or fails is not asked again and again."""

    def reserved(self, count: int = 40) -> None:
        for number in range(count):
            self.inventory.bind(self.inventory.reserve(
                records.Requester(f'req-{number}', base.PROJECT),
                [records.Wanted(base.NETWORK, ('x',))], 1),
                base.server_id(500 + number))

    def test_hangs(self) -> None:
        self.reserved()
        self.boot(1)
        self.stub.hanging = threading.Event()
        self.addCleanup(self.stub.hanging.set)
        self.cloud = vmip_cloud.Cloud(self.conf, timeout=3)
        self.reclaimer = tasks.Reclaimer(
            self.conf, self.inventory, self.worker, self.cloud,
            patience=None)
        self.clock.forward(60)
        self.reclaimer.work()
        # Nova is not asked before the DHCP servers have all
        self.assertEqual([], self.stub.asked_nova)
        self.assertEqual(1, len(self.driver.served()))
        found = self.reclaimer.expire()
        self.assertEqual((0, 40), (found.done, found.spared))
        servers = {path.rpartition('/')[2] for path in self.stub.asked_nova}
        self.assertEqual(1, len(servers))

    def test_fails(self) -> None:
        self.reserved()
        self.clock.forward(60)
        self.stub.failing = 0
        asked = self.stub.asked
        self.assertEqual(40, self.reclaimer.expire().spared)
        self.assertGreater(10, self.stub.asked - asked)


def deleted(number: int) -> event.Event:
    """Return what tells of the delete of a port."""
    return event.Event(
        kind=event.Kind.PORT_DELETED, message_id='m', emitted=None,
        source='neutron', request_id='req-1',
        project_id=base.PROJECT, server_id=None, server_name=None,
        ports=(event.PortInfo(base.port_id(number)),))
