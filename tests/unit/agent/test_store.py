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

"""The lease store: what it keeps, what it forgets, and when it is killed."""

import dataclasses
import ipaddress
import pathlib
import random
import sqlite3
import subprocess
import sys
import tempfile
from typing import Any

import testtools

from vmip_plugin.agent import decide
from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import schema
from vmip_plugin.agent import store
from vmip_plugin.agent import tracker
from vmip_plugin import exceptions

MAC = 'fa:16:3e:00:00:01'
ADDRESS = ipaddress.IPv4Address('10.66.1.1')
SERVER = ipaddress.IPv4Address('10.66.0.1')
KEY = (str(ADDRESS), MAC)

_WRITER = """
import sys
from typing import Any
from tests.unit.agent import test_store
from vmip_plugin.agent import store
opened = store.LeaseStore(sys.argv[1], 100000)
for number in range(100000):
    opened.record([test_store.granted(
        test_store.ADDRESS + number, f'fa:16:3e:{number >> 16:02x}:'
        f'{number >> 8 & 255:02x}:{number & 255:02x}')])
    print(number, flush=True)
"""


def granted(address: ipaddress.IPv4Address = ADDRESS, mac: str = MAC,
            **changes: Any) -> tracker.Overheard:
    return tracker.Overheard(
        tracker.Kind.GRANTED, address, mac, 'br0', 100.0,
        dhcp_server=SERVER, dhcp_server_mac='52:00:00:00:00:01',
        client_id=b'\x01x', lease_seconds=60)._replace(**changes)


class StoreTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = str(pathlib.Path(directory.name) / 'agent.sqlite')
        self.now = 100.0
        self.store = self.open()

    def open(self, limit: int = 100) -> store.LeaseStore:
        opened = store.LeaseStore(self.path, limit, lambda: self.now,
                                  lambda: self.now, 'boot')
        self.addCleanup(opened.close)
        return opened

    def get(self, key: lease_.Key = KEY) -> lease_.Lease:
        found = self.store.get(key)
        assert found is not None
        return found

    def test_kept(self) -> None:
        self.assertEqual(1, self.store.record([granted(vlan=7)]))
        self.assertEqual(lease_.Lease(
            address=ADDRESS, mac=MAC, interface='br0', vlan=7,
            dhcp_server=SERVER, dhcp_server_mac='52:00:00:00:00:01',
            client_id=b'\x01x', lease_seconds=60, confirmed=True,
            first_seen=100.0, last_seen=100.0, port_id=None, server_id=None,
            looked_at=None, gone_since=None, tries=0, released_at=None,
            verdict=None, reason=None, decided_at=None, network_id=None,
            remote=False, server_duid=None, iaid=None),
            self.open().get(KEY))

    def test_seen_again_since(self) -> None:
        """Found gone at the same moment, and yet seen in between."""
        self.store.record([granted()])
        self.store.suspect([KEY])
        read = self.get()
        self.store.record([granted(seen=200.0)])
        self.store.suspect([KEY])
        self.assertEqual(read.gone_since, self.get().gone_since)
        self.assertFalse(self.store.claim(read))
        self.assertTrue(self.store.claim(self.get()))

    def test_reboot(self) -> None:
        """Times of another run of the host confirm nothing."""
        self.store.record([granted()])
        self.store.suspect([KEY])
        self.store.claim(self.get())
        self.assertEqual((100.0, 100.0), (
            self.open().get(KEY).gone_since,  # type: ignore[union-attr]
            self.get().released_at))
        other = store.LeaseStore(self.path, 100, lambda: self.now,
                                 lambda: self.now, 'another boot')
        self.addCleanup(other.close)
        self.assertEqual((None, 0.0, 1), (
            self.get().gone_since, self.get().released_at, self.get().tries))

    def test_same_again(self) -> None:
        self.store.record([granted()])
        before = self.get()
        self.assertEqual(0, self.store.record([granted(), granted()]))
        self.assertEqual(before, self.get())

    def test_unconfirmed(self) -> None:
        self.store.record([granted(
            kind=tracker.Kind.REQUESTED, dhcp_server_mac=None,
            lease_seconds=None)])
        self.assertFalse(self.get().confirmed)
        self.store.record([granted()])
        self.assertTrue(self.get().confirmed)
        self.store.record([granted(
            kind=tracker.Kind.REQUESTED, dhcp_server_mac=None,
            lease_seconds=None)])
        self.assertTrue(self.get().confirmed)
        self.assertEqual(60, self.get().lease_seconds)

    def test_request_without_server(self) -> None:
        renewal = granted(kind=tracker.Kind.REQUESTED, dhcp_server=None,
                          seen=200.0)
        self.store.record([renewal])
        self.assertIsNone(self.store.get(KEY))
        self.store.record([granted(), renewal])
        self.assertEqual((200.0, SERVER),
                         (self.get().last_seen, self.get().dhcp_server))

    def test_dhcpv6(self) -> None:
        address = ipaddress.ip_address('2001:db8::1')
        server = ipaddress.ip_address('fe80::1')
        self.store.record([granted(
            address, dhcp_server=server, client_id=b'duid',
            server_duid=b'server', iaid=7)])
        lease = self.get(('2001:db8::1', MAC))
        self.assertEqual(
            (address, server, b'duid', b'server', 7),
            (lease.address, lease.dhcp_server, lease.client_id,
             lease.server_duid, lease.iaid))
        self.assertEqual(lease, lease_.Lease.from_primitive(
            lease.to_primitive()))

    def test_remote(self) -> None:
        self.store.record([granted(remote=True)])
        self.store.identify(KEY, 'port', 'server')
        self.assertTrue(self.get().remote)
        self.assertEqual([], self.store.watched())
        self.assertEqual([], self.store.latest(9))
        self.store.record([granted(seen=200.0)])
        self.assertFalse(self.get().remote)
        self.assertEqual([KEY], [one.key for one in self.store.watched()])
        self.assertEqual([KEY], [one.key for one in self.store.latest(9)])

    def test_what_is_remote_changes_nothing_that_is_not(self) -> None:
        self.store.record([granted(kind=tracker.Kind.REQUESTED)])
        before = self.get()
        server = ipaddress.IPv4Address('10.66.0.9')
        for kind in tracker.Kind:
            for said in (None, server):
                self.store.record([granted(
                    kind=kind, remote=True, dhcp_server=said, seen=300.0,
                    interface='br1')])
                self.assertEqual(before, self.get())

    def test_remote_ends(self) -> None:
        for kind in (tracker.Kind.ENDED, tracker.Kind.REFUSED):
            self.store.record([
                granted(kind=tracker.Kind.REQUESTED, remote=True),
                granted(kind=kind, remote=True)])
            self.assertIsNone(self.store.get(KEY))

    def test_limits_take_remote_first(self) -> None:
        opened = self.open(limit=20)
        opened.record([granted()])
        opened.record([granted(ADDRESS + 1 + number, seen=200.0 + number,
                               remote=True) for number in range(50)])
        self.assertIsNotNone(opened.get(KEY))
        opened.record([granted(ADDRESS, f'fa:16:3e:00:01:{number:02x}',
                               seen=300.0, remote=True)
                       for number in range(50)])
        self.assertIsNotNone(opened.get(KEY))
        self.assertEqual(20, len(opened.page(None, 100)))

    def test_refused(self) -> None:
        self.store.record([granted(kind=tracker.Kind.REQUESTED),
                           granted(kind=tracker.Kind.REFUSED)])
        self.assertIsNone(self.store.get(KEY))
        self.store.record([granted(), granted(kind=tracker.Kind.REFUSED)])
        self.assertIsNotNone(self.store.get(KEY))

    def test_ended(self) -> None:
        self.store.record([granted(), granted(mac='fa:16:3e:00:00:02'),
                           granted(kind=tracker.Kind.ENDED)])
        self.assertIsNone(self.store.get(KEY))
        self.assertIsNotNone(
            self.store.get((str(ADDRESS), 'fa:16:3e:00:00:02')))

    def test_limit_takes_strangers_first(self) -> None:
        opened = self.open(limit=3)
        macs = [f'fa:16:3e:00:00:{number:02x}' for number in range(5)]
        for number, mac in enumerate(macs):
            opened.record([granted(mac=mac, seen=100.0 + number)])
            if number == 0:
                opened.identify((str(ADDRESS), mac), 'port', 'server')
        self.assertEqual(
            [True, False, False, True, True],
            [opened.get((str(ADDRESS), mac)) is not None for mac in macs])

    def test_limit_of_one_mac(self) -> None:
        self.store.record([granted(mac='fa:16:3e:00:00:02', seen=1.0)])
        self.store.record([granted(ADDRESS + number, seen=100.0 + number)
                           for number in range(50)])
        kept = self.store.strangers(0, 100)
        self.assertEqual(store.MAC_LIMIT + 1, len(kept))
        self.assertIsNotNone(self.store.get((str(ADDRESS + 49), MAC)))

    def test_watched(self) -> None:
        self.store.record([granted()])
        self.assertEqual([], self.store.watched())
        self.store.identify(KEY, None, 'server')
        self.assertEqual([KEY], [one.key for one in self.store.watched()])
        self.assertEqual([], self.store.strangers(1000.0, 10))

    def test_identity_stays(self) -> None:
        self.store.record([granted()])
        self.store.identify(KEY, 'port', None)
        self.store.identify(KEY, 'other', 'server', 'network')
        self.store.identify(KEY, 'other', 'other', 'other')
        lease = self.get()
        self.assertEqual(('port', 'server', 'network'),
                         (lease.port_id, lease.server_id, lease.network_id))

    def test_strangers_are_asked_for_again(self) -> None:
        self.store.record([granted()])
        self.assertEqual(1, len(self.store.strangers(0.0, 10)))
        self.store.looked([KEY])
        self.assertEqual(0, len(self.store.strangers(100.0, 10)))
        self.assertEqual(1, len(self.store.strangers(100.1, 10)))

    def _claimed(self) -> None:
        self.store.record([granted()])
        self.store.suspect([KEY])
        self.assertTrue(self.store.claim(self.get()))

    def test_claim(self) -> None:
        self._claimed()
        self.assertEqual((1, 100.0),
                         (self.get().tries, self.get().released_at))

    def test_claim_once(self) -> None:
        self.store.record([granted()])
        self.store.suspect([KEY])
        lease = self.get()
        self.assertTrue(self.store.claim(lease))
        self.assertFalse(self.store.claim(lease))

    def test_no_claim_after_life(self) -> None:
        for life in (
                lambda: self.store.record([granted(seen=101.0)]),
                lambda: self.store.record([granted()]),
                lambda: self.store.alive([KEY]),
                lambda: self.store.unsuspect([KEY]),
                lambda: self.store.record(
                    [granted(kind=tracker.Kind.ENDED)])):
            self.store.record([granted()])
            self.store.suspect([KEY])
            lease = self.get()
            life()
            self.assertFalse(self.store.claim(lease))

    def test_unclaim(self) -> None:
        self.store.record([granted()])
        self.store.suspect([KEY])
        lease = self.get()
        self.store.claim(lease)
        self.store.unclaim(lease)
        self.assertEqual(lease, self.get())

    def test_overheard_after_release(self) -> None:
        self._claimed()
        self.store.record([granted(seen=101.0)])
        lease = self.get()
        self.assertEqual((None, 0, None), (
            lease.gone_since, lease.tries, lease.released_at))

    def test_ambiguous(self) -> None:
        self.store.record([granted()])
        self.assertFalse(self.store.ambiguous(self.get()))
        other = 'fa:16:3e:00:00:02'
        for one in (granted(mac=other, client_id=b'\x01y'),
                    granted(ADDRESS + 1, other)):
            self.store.record([one])
            self.assertTrue(self.store.ambiguous(self.get()))
            self.store.record([one._replace(kind=tracker.Kind.ENDED)])
            self.assertFalse(self.store.ambiguous(self.get()))

    def test_prune(self) -> None:
        self.store.record([
            granted(), granted(ADDRESS + 1, lease_seconds=0xffffffff),
            granted(ADDRESS + 2, lease_seconds=30 * 86400)])
        self.now += 7 * 86400 + 60
        self.assertEqual(0, self.store.prune())
        self.now += 100
        self.assertEqual(1, self.store.prune())
        self.assertIsNone(self.store.get(KEY))
        self.now += 60 * 86400
        self.assertEqual(1, self.store.prune())
        self.assertIsNotNone(self.store.get((str(ADDRESS + 1), MAC)))

    def test_prune_released(self) -> None:
        self._claimed()
        self.now += 86401
        self.assertEqual(1, self.store.prune())

    def test_one_batch_or_many(self) -> None:
        # What is left out of a batch makes no difference.
        chance = random.Random(3)
        batch = [granted(
            ADDRESS + chance.randrange(2),
            f'fa:16:3e:00:00:0{chance.randrange(3)}', seen=100.0 + number,
            kind=chance.choice(list(tracker.Kind)),
            remote=chance.random() < 0.3, vlan=chance.randrange(3),
            dhcp_server=chance.choice((None, SERVER, SERVER + 1)),
            lease_seconds=chance.choice((None, 60, 120)))
            for number in range(3000)]
        # an ACK without a server is not overheard
        batch = [one for one in batch if one.kind is not tracker.Kind.GRANTED
                 or one.dhcp_server is not None]
        other = store.LeaseStore(':memory:', 100, lambda: self.now,
                                 lambda: self.now)
        self.addCleanup(other.close)
        while batch:
            size = chance.randrange(1, 30)
            part, batch = batch[:size], batch[size:]
            self.store.record(part)
            for one in part:
                other.record([one])
            # of a lease that is seen again within one batch, it is the first
            # time only where it was not left out
            self.assertEqual(
                [dataclasses.replace(one, first_seen=0.0)
                 for one in other.page(None, 100)],
                [dataclasses.replace(one, first_seen=0.0)
                 for one in self.store.page(None, 100)])

    def test_pages(self) -> None:
        macs = [f'fa:16:3e:00:00:{number:02x}' for number in range(7)]
        self.store.record([granted(ADDRESS + number // 2, mac)
                           for number, mac in enumerate(macs)])
        seen: list[lease_.Key] = []
        while page := self.store.page(seen[-1] if seen else None, 3):
            self.assertLessEqual(len(page), 3)
            seen += [one.key for one in page]
        self.assertEqual([(str(ADDRESS + number // 2), mac)
                          for number, mac in enumerate(macs)], seen)

    def test_decided(self) -> None:
        self.store.record([granted()])
        self.now += 5
        self.store.decided({KEY: decide.STRANGER, ('10.0.0.1', MAC):
                            decide.ANSWERS})
        lease = self.get()
        self.assertEqual(
            ('spare', 'not a guest of this cloud', 105.0),
            (lease.verdict, lease.reason, lease.decided_at))

    def test_told(self) -> None:
        self.store.add(ADDRESS, MAC, SERVER)
        lease = self.get()
        self.assertEqual(('', SERVER, None, False), (
            lease.interface, lease.dhcp_server, lease.client_id,
            lease.confirmed))


class FileTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = pathlib.Path(directory.name) / 'agent.sqlite'

    def refused(self, path: str) -> str:
        return str(self.assertRaises(
            exceptions.ConfigError, store.LeaseStore, path, 10))

    def test_no_directory(self) -> None:
        self.assertIn('[agent] store',
                      self.refused(str(self.path / 'none' / 'x')))

    def test_not_a_database(self) -> None:
        self.path.write_text('root:x:0:0:\n' * 100)
        self.assertIn('not a database', self.refused(str(self.path)))
        self.assertIn('root', self.path.read_text())

    def test_first_version(self) -> None:
        with sqlite3.connect(self.path) as before:
            before.executescript(schema.MIGRATIONS[0] + '''
                INSERT INTO lease (address, mac, interface, dhcp_server,
                                   first_seen, last_seen, server_id)
                VALUES ('10.66.1.1', 'fa:16:3e:00:00:01', 'br0',
                        '10.66.0.1', 1, 2, 'server');
                PRAGMA user_version = 1''')
        before.close()
        for _ in range(2):
            opened = store.LeaseStore(str(self.path), 10)
            lease, = opened.watched()
            opened.close()
            self.assertEqual((KEY, 'server', None),
                             (lease.key, lease.server_id, lease.verdict))

    def test_other_version(self) -> None:
        opened = store.LeaseStore(str(self.path), 10)
        opened._db.execute('PRAGMA user_version = 99')
        opened.close()
        self.assertIn('move it away', self.refused(str(self.path)))

    def test_killed(self) -> None:
        with subprocess.Popen(
                (sys.executable, '-c', _WRITER, str(self.path)),
                stdout=subprocess.PIPE, text=True,
                cwd=pathlib.Path(__file__).parents[3]) as process:
            assert process.stdout is not None
            try:
                last = 0
                while last < 50:
                    last = int(process.stdout.readline())
            finally:
                process.kill()
            # a line may be cut off by the kill
            told = [int(line) for line in process.stdout
                    if line.endswith('\n')]
        last = max([last, *told])
        opened = store.LeaseStore(str(self.path), 100000)
        self.addCleanup(opened.close)
        kept = {str(one.address) for one in opened.strangers(0, 100000)}
        for number in range(last + 1):
            self.assertIn(str(ADDRESS + number), kept)
        self.assertIn(len(kept), (last + 1, last + 2))
