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

"""The agent amid frames that nobody should send."""

import pathlib
import re
import sqlite3
import sys
import time

from tests.functional.agent import lab

_COUNT = 50000
_RATE = 5000
_LIMIT = 500


class HostileTest(lab.Lab):
    def test_no_crash_and_no_growth(self) -> None:
        agent = self.agent(store_limit=_LIMIT, sweep_interval=2)
        sender = self.guest('g9', known=False)

        def memory() -> int:
            """Return the agent's resident memory in KiB."""
            found = re.search(r'VmRSS:\s+(\d+)', pathlib.Path(
                f'/proc/{agent.pid}/status').read_text())
            assert found is not None
            return int(found[1])

        sizes = []
        for seed in (1, 2):
            lab.run('ip', 'netns', 'exec', sender.namespace, sys.executable,
                    '-m', 'tests.functional.agent.flood', 'eth0', str(seed),
                    str(_COUNT), str(_RATE))
            time.sleep(3)
            sizes.append(memory())
        self.assertIsNone(agent.poll(), self.log())
        # the second half found everything as full as it gets
        self.assertLess(sizes[1] - sizes[0], 4096)
        self.assertNotIn('Traceback', self.log())
        with sqlite3.connect(self.path / 'agent.sqlite') as store:
            count, = store.execute('SELECT count(*) FROM lease').fetchone()
        store.close()
        # it was full, so that the frames did get there
        self.assertEqual(_LIMIT, count)
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        guest.destroy()
        self.forget(guest)
        lab.wait_for(lambda: address not in self.leases())

    def test_others_are_released_during_a_flood_of_answers(self) -> None:
        self.agent(sweep_interval=2)
        sender = self.guest('g9', known=False)
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest)
        flood = self.start(
            sys.executable, '-m', 'tests.functional.agent.answers', 'eth0',
            self.bridge_mac, '120', namespace=sender.namespace)
        guest.destroy()
        self.forget(guest)
        lab.wait_for(lambda: address not in self.leases())
        self.assertIsNone(flood.poll())
