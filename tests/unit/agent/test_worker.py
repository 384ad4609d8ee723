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

"""What the worker does with what it learns, on a clock of the test's own."""

import dataclasses
import pathlib
import tempfile
import threading
import time
from typing import Any
from unittest import mock

import testtools

from tests.unit.agent import test_guests
from tests.unit.agent import test_store
from vmip_plugin.agent import decide
from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import release
from vmip_plugin.agent import rpc
from vmip_plugin.agent import store
from vmip_plugin.agent import tracker
from vmip_plugin.agent import worker
from vmip_plugin import conf as conf_

KEY = test_store.KEY
OTHER = 'fa:16:3e:00:00:02'


class WorkerTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = pathlib.Path(directory.name)
        self.option()
        self.now = 1000.0
        patch = mock.patch.multiple(
            time, time=lambda: self.now,
            monotonic=lambda: self.now)
        patch.start()
        self.addCleanup(patch.stop)
        self.store = store.LeaseStore(
            str(self.path / 'agent.sqlite'), 1000, lambda: self.now)
        self.addCleanup(self.store.close)
        self.cloud: Any = test_guests.FakeCloud()
        self.settled = True
        self.worker: Any = self.new()

    def option(self, **options: Any) -> None:
        path = self.path / 'vmip.conf'
        path.write_text('[agent]\ninterfaces = br0\n' + ''.join(
            f'{name} = {value}\n' for name, value in options.items()))
        self.conf = conf_.new()
        conf_.parse(self.conf, ['--config-file', str(path)], 'test')

    def new(self) -> worker.Worker:
        one = worker.Worker(self.conf, self.cloud, self.store,
                            lambda: self.settled, threading.Event())
        #: keys whose holders answer, or cannot be probed
        self.alive: set[lease_.Key] = set()
        self.unsent: set[lease_.Key] = set()
        #: (key, client id) of each release sent
        self.sent: list[tuple[lease_.Key, bytes | None]] = []
        one._prober = mock.Mock(probe=self._probe)
        one._releaser = mock.Mock(release=self._release)
        return one

    def _probe(self, leases: list[lease_.Lease]
               ) -> dict[lease_.Key, decide.Probe]:
        return {one.key: decide.Probe.ANSWERED if one.key in self.alive
                else decide.Probe.UNSENT if one.key in self.unsent
                else decide.Probe.SILENT for one in leases}

    def _release(self, lease: lease_.Lease,
                 client_id: bytes | None) -> None:
        self.sent.append((lease.key, client_id))

    def overhear(self, **changes: Any) -> None:
        self.store.record([test_store.granted(seen=self.now, **changes)])

    def guest(self) -> None:
        """Overhear a guest that the cloud has, and that goes then."""
        self.overhear()
        self.cloud.has = [test_guests.port()]
        self.worker.sweep()
        self.assertEqual([], self.sent)
        self.cloud.has = []

    def sweeps(self, number: int, seconds: float = 30) -> None:
        for _ in range(number):
            self.now += seconds
            self.worker.sweep()

    def test_release(self) -> None:
        self.guest()
        self.sweeps(1)
        self.assertEqual([], self.sent)
        self.sweeps(1)
        self.assertEqual([(KEY, b'\x01x')], self.sent)

    def test_tries(self) -> None:
        self.guest()
        self.sweeps(10)
        self.assertEqual([(KEY, b'\x01x'), (KEY, None), (KEY, b'\x01x')],
                         self.sent)

    def test_not_before_delay(self) -> None:
        self.guest()
        self.sweeps(5, 2)
        self.assertEqual([], self.sent)
        self.sweeps(1, 2)
        self.assertEqual(1, len(self.sent))

    def test_any_life_in_between(self) -> None:
        def answer() -> None:
            self.alive = {KEY}
            self.sweeps(1)
            self.alive = set()

        def exist() -> None:
            self.cloud.has = [test_guests.port()]
            self.sweeps(1)
            self.cloud.has = []

        def ask() -> None:
            self.overhear(kind=tracker.Kind.REQUESTED, dhcp_server=None)

        self.guest()
        for life in (answer, exist, ask, self.overhear):
            self.sweeps(1)
            life()
            self.sweeps(1)
            self.assertEqual([], self.sent)
            self.overhear()
        self.sweeps(2)
        self.assertEqual(1, len(self.sent))

    def test_never_without_the_cloud(self) -> None:
        self.guest()
        self.sweeps(1)
        for down in ('port', 'ports', 'server'):
            self.cloud.down = {down}
            self.sweeps(5)
        self.assertEqual([], self.sent)

    def test_never_a_stranger(self) -> None:
        self.overhear()
        self.sweeps(30)
        self.assertEqual([], self.sent)

    def test_never_unprobed(self) -> None:
        self.guest()
        self.unsent = {KEY}
        self.sweeps(5)
        self.assertEqual([], self.sent)

    def test_never_while_store_lags(self) -> None:
        self.guest()
        self.settled = False
        self.sweeps(5)
        self.assertEqual([], self.sent)

    def test_known_once_the_cloud_is_back(self) -> None:
        self.cloud.down = {'ports'}
        self.overhear()
        self.sweeps(2)
        self.cloud.down = set()
        self.guest()
        self.sweeps(2)
        self.assertEqual(1, len(self.sent))

    def test_restart_goes_on(self) -> None:
        self.guest()
        self.sweeps(1)
        self.worker = self.new()
        self.sweeps(1)
        self.assertEqual(1, len(self.sent))

    def test_overheard_at_the_last_moment(self) -> None:
        self.guest()
        self.sweeps(1)
        with mock.patch.object(self.worker, '_settle',
                               side_effect=self._late):
            self.sweeps(1)
        self.assertEqual([], self.sent)

    def _late(self) -> bool:
        self.overhear()
        return True

    def test_released_and_back(self) -> None:
        self.guest()
        self.sweeps(4)
        self.sent.clear()
        self.overhear()
        self.cloud.has = [test_guests.port()]
        self.sweeps(3)
        self.assertEqual([], self.sent)
        self.cloud.has = []
        self.sweeps(2)
        self.assertEqual(1, len(self.sent))

    def test_unsendable_is_tried_again(self) -> None:
        self.guest()
        self.worker._releaser.release = mock.Mock(
            side_effect=release.ReleaseError('no'))
        self.sweeps(10)
        self.worker._releaser.release = self._release
        self.sweeps(1)
        self.assertEqual([(KEY, b'\x01x')], self.sent)

    def test_cap(self) -> None:
        self.option(max_releases=2)
        self.worker = self.new()
        macs = [f'fa:16:3e:00:01:{number:02x}' for number in range(5)]
        for mac in macs:
            self.overhear(mac=mac, client_id=None)
        self.cloud.has = [test_guests.port(mac, mac) for mac in macs]
        self.worker.sweep()
        self.cloud.has = []
        self.sweeps(1)
        for done in (2, 4, 5):
            self.sweeps(1)
            self.assertEqual(done, len({key for key, _ in self.sent}))

    def test_dry_run(self) -> None:
        self.option(dry_run=True)
        self.worker = self.new()
        self.guest()
        with self.assertLogs(worker.LOG.logger, 'INFO') as logs:
            self.sweeps(5)
        self.assertEqual([], self.sent)
        self.assertEqual(1, sum('dry run' in line for line in logs.output))

    def test_client_id_that_is_anothers(self) -> None:
        # A guest that gave itself the client id of its victim must not get
        # the victim's lease released by being deleted.
        self.guest()
        self.overhear(mac=OTHER)
        self.cloud.has = [test_guests.port('other', OTHER)]
        self.sweeps(5)
        self.assertEqual([(KEY, None)] * 3, self.sent)

    def test_shut_off(self) -> None:
        self.guest()
        self.cloud.has = [test_guests.port()]
        self.cloud.statuses = {'server': 'SHUTOFF'}
        self.sweeps(5)
        self.assertEqual([], self.sent)
        self.option(reclaim_shutoff=True)
        self.worker = self.new()
        self.sweeps(2)
        self.assertEqual(1, len(self.sent))

    def hint(self, **changes: Any) -> None:
        self.worker.hint(dataclasses.replace(rpc.Hint(
            test_store.ADDRESS, test_store.MAC, 'server', 'port', None),
            **changes))

    def due(self) -> set[lease_.Key | None]:
        return set(self.worker._pop(self.now))

    def test_hint(self) -> None:
        self.overhear()
        self.hint()
        self.assertEqual({KEY}, self.due())
        self.now += 10
        self.assertEqual({KEY}, self.due())
        self.sweeps(2)
        self.assertEqual(1, len(self.sent))

    def test_hint_frees_nothing_by_itself(self) -> None:
        self.guest()
        self.cloud.has = [test_guests.port()]
        self.hint()
        self.sweeps(5)
        self.assertEqual([], self.sent)

    def test_hint_about_nothing(self) -> None:
        self.hint()
        self.assertEqual(set(), self.due())
        self.assertIsNone(self.store.get(KEY))

    def test_hint_with_dhcp_server(self) -> None:
        self.hint(dhcp_server=test_store.SERVER)
        self.sweeps(2)
        self.assertEqual([(KEY, None)], self.sent)

    def test_hint_about_another_network(self) -> None:
        self.worker._releaser.reaches.return_value = False
        self.hint(dhcp_server=test_store.SERVER)
        self.assertEqual(set(), self.due())
        self.assertIsNone(self.store.get(KEY))

    def test_thread_survives(self) -> None:
        with mock.patch.object(self.worker, 'sweep',
                               side_effect=[ValueError, None]) as sweep, \
                mock.patch.object(self.worker, '_wait', return_value=()), \
                mock.patch.object(self.worker._halt, 'is_set',
                                  side_effect=[False, False, True]), \
                mock.patch.object(self.worker._halt, 'wait',
                                  side_effect=self._pass):
            self.worker.run()
        self.assertEqual(2, sweep.call_count)

    def _pass(self, seconds: float) -> None:
        self.now += 60
