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

from collections.abc import Callable
import os
import random
import sys
import threading
import time
import unittest

from minicloud import netns_guest

from tests.cloud import harness
from tests.cloud import story

DAEMONS = ('vmip-listener', 'vmip-reclaimer', 'vmip-agent')
#: when, in seconds after the create or the delete was asked
MOMENTS = (0.0, 0.3, 1.0, 2.5)
ROUNDS = int(os.environ.get('VMIP_KILL_ROUNDS', '1'))


class TestKills(unittest.TestCase):
    """Fake compute; a namespace with a real DHCP client plays the guest."""

    @classmethod
    def setUpClass(cls) -> None:
        harness.minicloud.up('fake')
        cls.cloud = harness.Cloud()
        cls.story = story.Story(cls.cloud, lambda line: None)
        cls.story.prepare()
        compute = cls.cloud.sdk().compute
        cls.wanted = {
            'flavorRef': compute.find_flavor('tiny').id,
            'imageRef': cls.cloud.sdk().image.find_image('guest').id,
            'networks': [{'uuid': cls.cloud.sdk().network.find_network(
                story.NETWORK).id}]}

    def tearDown(self) -> None:
        # A test that failed must not leave the next one without a daemon.
        harness.minicloud.start(*DAEMONS)
        self.cloud.forget_servers()

    def kill_soon(self, daemon: str, after: float) -> threading.Thread:
        """Kill a daemon some time from now, and start it again later."""
        def run() -> None:
            time.sleep(after)
            harness.minicloud.kill(daemon)
            time.sleep(1)
            harness.minicloud.start(daemon)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def life(self, name: str, daemon: str, born: float | None,
             died: float | None) -> str:
        """Let a server live and die, with a kill at birth or at death."""
        compute = self.cloud.sdk().compute
        asked = time.time()
        compute.create_server(name=name, **self.wanted)
        killer = (self.kill_soon(daemon, born) if born is not None else None)
        server = self.story.active(name)
        port = self.cloud.port(server.id)
        address: str = port.fixed_ips[0]['ip_address']
        self.assertLess(self.story.known_since(address) - asked, 5)
        with netns_guest.NetnsGuest(port.mac_address) as guest:
            lease = guest.wait_lease(60)
            self.assertEqual(address, lease.address)
            if killer is not None:
                killer.join()
        deleted = time.time()
        compute.delete_server(server.id)
        if died is not None:
            killer = self.kill_soon(daemon, died)
        self.story.given_back(address, port.mac_address, deleted, 90)
        if killer is not None:
            killer.join()
        self.assertEqual([], self.cloud.manage('dhcp', 'check'))
        self.assertEqual([], self.cloud.manage('dhcp', 'list'))
        return address

    def test_kill_at_birth(self) -> None:
        self.rounds(lambda name, daemon, moment: self.life(
            name, daemon, moment, None))

    def test_kill_at_death(self) -> None:
        self.rounds(lambda name, daemon, moment: self.life(
            name, daemon, None, moment))

    def rounds(self, one: Callable[[str, str, float], str]) -> None:
        first = None
        for number in range(ROUNDS):
            for daemon in DAEMONS:
                moment = random.choice(MOMENTS)
                print(f'kill -9 {daemon} after {moment} s', file=sys.stderr)
                address = one(f'kill-{number}', daemon, moment)
                # What is given back is given away again, at once.
                first = first or address
                self.assertEqual(first, address)
