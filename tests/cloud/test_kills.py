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

"""kill -9 of any daemon at any moment, and the end is the same."""

from collections.abc import Iterator
import contextlib
import itertools
import os
import random
import sqlite3
import sys
import threading
import time
from typing import Any

from minicloud import netns_guest

from tests.cloud import base
from tests.cloud import harness
from tests.cloud import story

DAEMONS = ('vmip-listener', 'vmip-reclaimer', 'vmip-agent')
#: when, in seconds after the create or the delete was asked
MOMENTS = (0.0, 0.5, 2.0)
ROUNDS = int(os.environ.get('VMIP_KILL_ROUNDS', '1'))
#: who is killed when: each daemon and each moment once, or each at each
KILLS = (list(itertools.product(DAEMONS, MOMENTS)) * ROUNDS
         if os.environ.get('VMIP_FULL') else
         list(zip(DAEMONS, MOMENTS, strict=True)))
#: of the order of kills in a story
SEED = int(os.environ.get('VMIP_KILL_SEED', '1'))
#: what a daemon says once it works
READY = {'vmip-listener': 'vmip-listener is ready',
         'vmip-reclaimer': 'vmip-reclaimer is ready',
         'vmip-agent': 'Listening for DHCP on '}
#: seconds until whoever looks after daemons starts a dead one again
RESTART = 1


def kill(daemon: str) -> None:
    """Kill a daemon, and start it again a little later.

    It works again when this ends, however long a busy machine takes: one
    that is always killed before that would never get anything done.
    """
    log = harness.settings.LOG / f'{daemon}.log'
    harness.minicloud.kill(daemon)
    before = log.read_text(errors='replace').count(READY[daemon])
    time.sleep(RESTART)
    harness.minicloud.start(daemon)
    harness.wait_for(
        f'{daemon} works again', lambda: log.read_text(
            errors='replace').count(READY[daemon]) > before, every=0.2)


@contextlib.contextmanager
def locked_list() -> Iterator[None]:
    """Hold SQLite's one write lock, so that nobody can write the list."""
    path = harness.settings.STATE / 'vmip/vmip.sqlite'
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        connection.execute('BEGIN IMMEDIATE')
        yield
    finally:
        connection.close()


class TestKills(base.CloudTestCase):
    """Fake compute; a namespace with a real DHCP client plays the guest."""

    def tearDown(self) -> None:
        # A test that failed must not leave the next one without a daemon.
        harness.minicloud.start(*DAEMONS)
        self.cloud.forget_servers()

    def create(self, name: str, **more: Any) -> None:
        self.cloud.sdk().compute.create_server(
            name=name, **self.wanted, **more)

    def boot(self, name: str, stack: contextlib.ExitStack) -> tuple[str, str]:
        """Boot a server's guest; return its address and MAC."""
        server = self.story.active(name)
        port = self.cloud.port(server.id)
        address: str = port.fixed_ips[0]['ip_address']
        self.assertEqual(
            port.id, self.holder(address), 'the list has another holder')
        guest = stack.enter_context(
            netns_guest.NetnsGuest(port.mac_address))
        lease = guest.wait_lease(harness.PATIENCE)
        self.assertIsNotNone(lease, f'{name} got no lease')
        self.assertEqual(address, lease.address)
        return address, port.mac_address

    def holder(self, address: str) -> str | None:
        found = list(self.cloud.inventory.addresses(
            address=harness.address(address)))
        return found[0][1].port_id if found else None

    def delete(self, name: str) -> None:
        self.cloud.sdk().compute.delete_server(self.cloud.server(name).id)

    def nothing_left(self) -> None:
        self.assertEqual([], self.cloud.manage('dhcp', 'check'))
        self.assertEqual([], self.cloud.manage('dhcp', 'list'))
        self.assertEqual({}, harness.host_entries())
        self.assertEqual({}, harness.leases())

    def life(self, daemon: str, born: float | None, died: float | None
             ) -> None:
        """Let a server live and die, with a kill at birth or at death."""
        self.create('kill')
        answered = time.time()
        killer = None
        with contextlib.ExitStack() as stack:
            if born is not None:
                killer = threading.Timer(born, kill, [daemon])
                killer.start()
            address, mac = self.boot('kill', stack)
            self.assertLess(self.story.known_since(address), answered)
            if killer is not None:
                killer.join()
        # What is given back is given away again: it is always this one.
        self.assertEqual(story.FIRST, address)
        deleted = time.time()
        self.delete('kill')
        if died is not None:
            killer = threading.Timer(died, kill, [daemon])
            killer.start()
        self.story.given_back(address, mac, deleted)
        if killer is not None:
            killer.join()
        self.nothing_left()

    def test_kill_at_birth(self) -> None:
        for daemon, moment in KILLS:
            with self.subTest(daemon=daemon, seconds=moment):
                self.life(daemon, moment, None)

    def test_kill_at_death(self) -> None:
        for daemon, moment in KILLS:
            with self.subTest(daemon=daemon, seconds=moment):
                self.life(daemon, None, moment)

    def test_delete_that_nobody_wrote_down(self) -> None:
        """No notification comes, and the IPAM driver cannot write."""
        self.create('lost')
        with contextlib.ExitStack() as stack:
            address, mac = self.boot('lost', stack)
        server = self.cloud.server('lost')
        with self.story.without('vmip-listener'):
            log = harness.settings.LOG / 'neutron-api.log'
            before = log.stat().st_size
            with locked_list():
                self.delete('lost')
                harness.wait_for(
                    'Neutron has deleted the port',
                    lambda: self.cloud.port(server.id) is None, every=0.5)
                # it waits its turn to write for half a minute
                harness.wait_for(
                    'the IPAM driver gives up',
                    lambda: f'{address} is left to vmip-reclaimer'.encode()
                    in log.read_bytes()[before:], every=0.5)
            self.assertIn(self.cloud.address_state(address),
                          ('claimed', 'active'))
            self.story.given_back(address, mac, time.time())
        reasons = [change.reason for change in self.cloud.inventory.history(
            harness.address(address)) if change.event == 'release']
        self.assertNotEqual('Neutron gave it back', reasons[-1])
        self.nothing_left()

    def test_story_under_kills(self) -> None:
        """The steps a to f, and all the while somebody kills daemons."""
        for number in range(ROUNDS):
            self.chance = random.Random(SEED + number)
            self.steps()

    def steps(self) -> None:
        self.cloud.manage('reservation', 'create', story.HELD, '--pool',
                          story.POOL, '--server-name', 'kill-d',
                          '--any-project')
        guests = {name: contextlib.ExitStack() for name in (
            'kill-a', 'kill-c-1', 'kill-c-2', 'kill-c-3', 'kill-d', 'kill-e')}
        with contextlib.ExitStack() as everything, self.killing(DAEMONS):
            for stack in guests.values():
                everything.enter_context(stack)
            self.create('kill-a')
            first, mac = self.boot('kill-a', guests['kill-a'])
            self.create('kill-c', min_count=3, max_count=3)
            three = [self.boot(f'kill-c-{n}', guests[f'kill-c-{n}'])
                     for n in (1, 2, 3)]
            self.assertEqual(3, len({address for address, _ in three}))
            self.create('kill-d')
            self.assertEqual(story.HELD,
                             self.boot('kill-d', guests['kill-d'])[0])
            deleted = time.time()
            guests['kill-a'].close()
            self.delete('kill-a')
            self.story.given_back(first, mac, deleted)
            self.create('kill-e')
            self.assertEqual(first, self.boot('kill-e', guests['kill-e'])[0])
        with self.story.without('vmip-listener'), \
                self.killing(('vmip-reclaimer', 'vmip-agent')):
            deleted = time.time()
            address, mac = three[0]
            self.delete('kill-c-1')
            self.story.given_back(address, mac, deleted)
        self.cloud.forget_servers()
        self.cloud.manage('reservation', 'delete', story.HELD, '--pool',
                          story.POOL)
        self.nothing_left()

    @contextlib.contextmanager
    def killing(self, daemons: tuple[str, ...]) -> Iterator[None]:
        """Kill one of these daemons every few seconds."""
        stop = threading.Event()
        killed = []

        def run() -> None:
            while not stop.wait(self.chance.uniform(0.2, 2.5)):
                daemon = self.chance.choice(daemons)
                kill(daemon)
                killed.append(daemon)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            print('killed:', *killed, file=sys.stderr)
        self.assertTrue(killed, 'nothing was killed')
