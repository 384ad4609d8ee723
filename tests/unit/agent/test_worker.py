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

from collections.abc import Collection, Iterator
import dataclasses
import ipaddress
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
from vmip_plugin.agent import servers
from vmip_plugin.agent import store
from vmip_plugin.agent import tracker
from vmip_plugin.agent import worker
from vmip_plugin import conf as conf_
from vmip_plugin.dhcp import base
from vmip_plugin import exceptions
from vmip_plugin import metrics

KEY = test_store.KEY
OTHER = 'fa:16:3e:00:00:02'


class Server:
    """A driver's server in memory; without an id it is not asked."""

    name = 'dhcp'

    def __init__(self) -> None:
        self.server_id: ipaddress.IPv4Address | None = None
        self.capabilities = (base.Capability.LEASE_LIST
                             | base.Capability.LEASE_RELEASE)
        self.leased: dict[object, base.Lease] = {}
        self.away = False
        #: sends nobody away, and ends nothing
        self.deaf = False
        self.ended: list[base.Lease] = []

    def give(self, mac: str | None = test_store.MAC) -> None:
        self.leased[test_store.ADDRESS] = base.Lease(
            test_store.ADDRESS, mac, b'', None)

    def leases_of(self, addresses: Collection[object]
                  ) -> Iterator[base.Lease]:
        if self.away:
            raise exceptions.DHCPServerUnavailable('away')
        return (one for address, one in self.leased.items()
                if address in addresses)

    def release(self, lease: base.Lease) -> None:
        if self.deaf:
            raise exceptions.DHCPError('no')
        self.ended.append(lease)
        del self.leased[lease.address]


class WorkerTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = pathlib.Path(directory.name)
        self.option()
        self.now = 1000.0
        #: the wall clock's lead
        self.step = 0.0
        patch = mock.patch.multiple(
            time, time=lambda: self.wall,
            monotonic=lambda: self.now)
        patch.start()
        self.addCleanup(patch.stop)
        self.store = store.LeaseStore(
            str(self.path / 'agent.sqlite'), 1000, lambda: self.wall,
            lambda: self.now)
        self.addCleanup(self.store.close)
        self.cloud: Any = test_guests.FakeCloud()
        self.server = Server()
        self.settled = True
        self.worker: Any = self.new()

    @property
    def wall(self) -> float:
        return self.now + self.step

    def option(self, **options: Any) -> None:
        path = self.path / 'vmip.conf'
        path.write_text('[agent]\ninterfaces = br0\n' + ''.join(
            f'{name} = {value}\n' for name, value in options.items()))
        self.conf = conf_.new()
        conf_.parse(self.conf, ['--config-file', str(path)], 'test')

    def new(self) -> worker.Worker:
        one = worker.Worker(
            self.conf, self.cloud, self.store,
            servers.Servers({'dhcp': self.server}),  # type: ignore[dict-item]
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

    def test_counts(self) -> None:
        def fail(*args: object) -> None:
            raise release.ReleaseError('no')

        def count(name: str, **labels: str) -> float:
            return metrics.REGISTRIES[metrics.AGENT].get_sample_value(
                name, labels) or 0

        reason = 'gone and silent, twice'
        before = {outcome: count('vmip_lease_releases_total', reason=reason,
                                 outcome=outcome)
                  for outcome in ('failed', 'sent')}
        suspects = count('vmip_agent_verdicts_total', verdict='suspect')
        answers = count('vmip_agent_verdicts_total', verdict='answers')
        self.guest()
        self.worker._releaser.release = fail
        self.sweeps(2)
        self.worker._releaser.release = self._release
        self.sweeps(3)
        for outcome, more in (('failed', 1), ('sent', 3)):
            self.assertEqual(before[outcome] + more, count(
                'vmip_lease_releases_total', reason=reason, outcome=outcome))
        self.assertEqual(suspects + 1, count(
            'vmip_agent_verdicts_total', verdict='suspect'))
        self.overhear()
        self.alive = {KEY}
        self.sweeps(2)
        self.assertEqual(answers + 2, count(
            'vmip_agent_verdicts_total', verdict='answers'))

    def test_tries(self) -> None:
        self.guest()
        self.sweeps(10)
        self.assertEqual([(KEY, b'\x01x'), (KEY, None), (KEY, b'\x01x')],
                         self.sent)

    def test_steps_of_the_clock(self) -> None:
        """NTP makes one look neither two nor none."""
        self.guest()
        self.sweeps(1)
        for self.step in (1e5, -1e5, 3600.0):
            self.sweeps(1, 1)
            self.assertEqual([], self.sent)
        self.sweeps(1, 10)
        self.assertEqual(1, len(self.sent))
        for self.step in (1e4, 0.0):
            self.sweeps(1, 1)
            self.assertEqual(1, len(self.sent))
        self.sweeps(1, 10)
        self.assertEqual(2, len(self.sent))

    def test_looked_at_in_a_time_to_come(self) -> None:
        self.step = 1e6
        self.overhear()
        self.worker.identify()
        self.step = 0.0
        self.guest()
        self.sweeps(2)
        self.assertEqual(1, len(self.sent))

    def test_what_guests_make_up(self) -> None:
        """Thousands of REQUESTs cost few questions, and hold up nobody."""
        made_up = [test_store.granted(
            ipaddress.IPv4Address('10.0.0.0') + n + 1,
            f'02:00:00:00:{n >> 8:02x}:{n & 255:02x}',
            kind=tracker.Kind.REQUESTED, seen=self.now + 1,
            remote=bool(n % 2)) for n in range(900)]
        self.store.record(made_up)
        self.overhear()
        self.cloud.has = [test_guests.port()]
        for _ in range(3):
            self.cloud.asked.clear()
            self.worker.identify()
            self.assertLessEqual(len(self.cloud.asked), 2)
            lease = self.store.get(KEY)
            assert lease is not None
            self.assertTrue(lease.identified)
        for one in made_up:
            if one.remote:
                lease = self.store.get((str(one.address), one.mac))
                assert lease is not None
                self.assertIsNone(lease.looked_at)

    def test_no_probe_beyond_a_relay(self) -> None:
        self.overhear(remote=True)
        self.store.identify(KEY, 'port', 'server')
        self.worker._prober.probe = mock.Mock()
        lease = self.store.get(KEY)
        assert lease is not None
        self.worker.check([lease])
        self.worker._prober.probe.assert_not_called()

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
        for down in ('keystone', 'network', 'port', 'ports', 'server'):
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

    def test_asked_again_soon_after_an_outage(self) -> None:
        self.cloud.down = {'ports'}
        self.overhear()
        for _ in range(3):
            self.worker.identify()
        self.assertEqual([None], [key for _, _, key in self.worker._due])
        self.now += worker.ASK_AGAIN
        self.assertEqual({None}, self.due())

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

    def ask_server(self) -> None:
        self.server.server_id = test_store.SERVER
        self.worker = self.new()
        self.server.give()
        self.guest()

    def later(self) -> None:
        """Let what is due happen, without a sweep."""
        self.now += 10
        leases = [lease for key in self.due() if key
                  and (lease := self.store.get(key)) is not None]
        self.worker.check(leases)
        self.worker.verify(leases)

    def test_control_channel(self) -> None:
        self.ask_server()
        self.sweeps(2)
        self.assertEqual([KEY[1]], [one.mac for one in self.server.ended])
        self.sweeps(5)
        self.assertEqual(([], 1), (self.sent, len(self.server.ended)))
        self.assertEqual(('release', 'released, and verified'),
                         self.verdict())

    def test_control_channel_leaves_anothers_lease(self) -> None:
        self.ask_server()
        for mac in (OTHER, None):
            self.server.give(mac)
            self.sweeps(5)
            self.assertEqual([], self.server.ended)

    def test_control_channel_fails(self) -> None:
        self.ask_server()
        self.server.deaf = True
        self.sweeps(2)
        self.assertEqual([(KEY, b'\x01x')], self.sent)
        self.server.away = True
        self.sweeps(5)
        self.assertEqual(3, len(self.sent))

    def test_no_control_channel(self) -> None:
        self.server.capabilities = base.Capability.LEASE_LIST
        self.ask_server()
        self.sweeps(2)
        self.assertEqual(([(KEY, b'\x01x')], []),
                         (self.sent, self.server.ended))

    def test_verified(self) -> None:
        self.server.capabilities = base.Capability.LEASE_LIST
        for became in (None, OTHER):
            self.ask_server()
            self.sent.clear()
            self.sweeps(2)
            self.assertEqual(1, len(self.sent))
            self.server.leased.clear()
            if became:
                self.server.give(became)
            self.sweeps(5)
            self.assertEqual(1, len(self.sent))
            self.assertEqual(('release', 'released, and verified'),
                             self.verdict())
            self.overhear()

    def test_not_verified(self) -> None:
        self.server.capabilities = base.Capability.LEASE_LIST
        self.ask_server()
        with self.assertLogs(worker.LOG.logger, 'ERROR') as logs:
            self.sweeps(1)
            for _ in range(10):
                self.later()
        self.assertEqual(3, len(self.sent))
        self.assertEqual(1, len(logs.output))
        self.assertIn('keeps the lease', logs.output[0])

    def test_given_to_another(self) -> None:
        self.guest()
        self.overhear(mac=OTHER, kind=tracker.Kind.GRANTED)
        self.cloud.has = [test_guests.port('other', OTHER)]
        self.sweeps(2)
        self.assertEqual(1, len(self.sent))
        # another one's, and another network's
        self.overhear(mac=OTHER, interface='br1')
        self.overhear(mac=OTHER, dhcp_server=test_store.SERVER + 1)
        self.overhear(mac=OTHER, address=test_store.ADDRESS + 1)
        self.sweeps(1)
        self.assertEqual(2, len(self.sent))
        self.overhear(mac=OTHER)
        self.sweeps(5)
        self.assertEqual(2, len(self.sent))
        self.assertEqual(('release', f'released, and given to {OTHER}'),
                         self.verdict())

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

    def test_client_id_that_no_server_granted(self) -> None:
        # Nor must one that asks for its victim's address under its client id.
        self.overhear(kind=tracker.Kind.REQUESTED)
        self.cloud.has = [test_guests.port()]
        self.worker.sweep()
        self.cloud.has = []
        self.sweeps(5)
        self.assertEqual([(KEY, None)] * 3, self.sent)

    def test_dhcpv6(self) -> None:
        # Only a DUID tells whose it is: one that is another's as well ends
        # nothing.
        address = ipaddress.ip_address('2001:db8::1')
        six = {'address': address, 'client_id': b'duid', 'iaid': 1,
               'server_duid': b'server'}
        self.overhear(**six)
        self.overhear(**six | {'mac': OTHER, 'address': address + 1})
        self.cloud.has = [test_guests.port(), test_guests.port('o', OTHER)]
        self.worker.sweep()
        self.cloud.has = [test_guests.port('o', OTHER)]
        self.sweeps(5)
        self.assertEqual([], self.sent)
        self.overhear(**six | {'mac': OTHER, 'address': address + 1,
                               'kind': tracker.Kind.ENDED})
        self.sweeps(5)
        self.assertEqual([((str(address), KEY[1]), b'duid')] * 3, [
            (key, client_id or b'duid') for key, client_id in self.sent])

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

    def test_remote(self) -> None:
        self.overhear(remote=True)
        self.cloud.has = [test_guests.port()]
        self.worker.sweep()
        self.assertEqual([], self.cloud.asked)
        self.cloud.has = []
        self.sweeps(5)
        self.hint()
        self.sweeps(5)
        self.assertEqual([], self.sent)
        self.hint(dhcp_server=test_store.SERVER)
        self.sweeps(2)
        self.assertEqual([KEY], [key for key, _ in self.sent])

    def test_hint_about_another_network(self) -> None:
        self.worker._releaser.reaches.return_value = False
        self.hint(dhcp_server=test_store.SERVER)
        self.assertEqual(set(), self.due())
        self.assertIsNone(self.store.get(KEY))

    def verdict(self) -> tuple[str | None, str | None]:
        lease = self.store.get(KEY)
        assert lease is not None
        return lease.verdict, lease.reason

    def test_verdicts(self) -> None:
        self.overhear()
        self.worker.sweep()
        self.assertEqual(('spare', 'not a guest of this cloud'),
                         self.verdict())
        self.now += 1000
        self.guest()
        self.assertEqual(('spare', 'the guest exists'), self.verdict())
        self.alive = {KEY}
        self.sweeps(1)
        self.assertEqual(('spare', 'the guest answers'), self.verdict())
        self.alive = set()
        self.sweeps(1)
        self.assertEqual(('suspect', 'gone and silent'), self.verdict())
        self.sweeps(1)
        self.assertEqual(('release', 'gone and silent, twice'),
                         self.verdict())

    def test_look_changes_nothing(self) -> None:
        other = (KEY[0], OTHER)
        self.guest()
        self.overhear(mac=OTHER)
        self.cloud.has = [test_guests.port('other', OTHER)]
        self.alive = {other}
        self.sweeps(1)
        before = self.store.page(None, 10)
        for seconds, verdict in ((0, 'spare'), (30, 'release')):
            self.now += seconds
            look = self.worker.look()
            self.assertEqual((2, 1), (look.checked, look.answered))
            judged, = look.judged
            self.assertEqual((KEY, verdict), (judged.key, judged.verdict))
        self.assertEqual(before, self.store.page(None, 10))
        self.assertEqual([], self.sent)

    def test_look_puts_what_would_go_first(self) -> None:
        self.guest()
        self.overhear(address=test_store.ADDRESS - 1, mac=OTHER)
        self.cloud.has = [test_guests.port('other', OTHER)]
        self.sweeps(1)
        self.assertEqual(
            ['spare', 'spare'],
            [one.verdict for one in self.worker.look().judged])
        self.now += 30
        self.assertEqual(
            ['release', 'spare'],
            [one.verdict for one in self.worker.look().judged])

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
