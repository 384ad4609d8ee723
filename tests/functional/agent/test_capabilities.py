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

"""What the agent may do and what not, as a user of its own."""

import os
import pathlib
import pwd
import re
import subprocess

from tests.functional.agent import lab
from vmip_plugin.cmd import agent

_NET_RAW, _SYS_ADMIN = 13, 21       # capabilities(7)


class Unprivileged(lab.Lab):
    """The agent is the user nobody."""

    def setUp(self) -> None:
        super().setUp()
        # everything in there is the agent's own, and in reach of it
        self.path.chmod(0o755)
        self.store = self.path / 'store'
        self.store.mkdir()
        nobody = pwd.getpwnam('nobody')
        os.chown(self.store, nobody.pw_uid, nobody.pw_gid)

    def allow(self, *names: str) -> None:
        """Let it have these capabilities and no way to any other."""
        wanted = ','.join(('-all', *(f'+{name}' for name in names)))
        self.privileges = (
            'setpriv', '--reuid=nobody', '--regid=nogroup', '--clear-groups',
            '--no-new-privs', f'--inh-caps={wanted}',
            f'--ambient-caps={wanted}', f'--bounding-set={wanted}')

    def works(self, process: subprocess.Popen[bytes], capabilities: int
              ) -> None:
        """See that it has but these, and frees a dead guest's lease."""
        status = pathlib.Path(f'/proc/{process.pid}/status').read_text()
        for name in ('Inh', 'Prm', 'Eff', 'Bnd', 'Amb'):
            found = re.search(rf'Cap{name}:\s+(\w+)', status)
            assert found is not None
            self.assertEqual(capabilities, int(found[1], 16), name)
        self.assertIn(f'Uid:\t{pwd.getpwnam("nobody").pw_uid}\t', status)
        guest = self.guest('g0')
        guest.udhcpc()
        address = guest.wait_address()
        self.identified(guest, 'store/agent.sqlite')
        guest.destroy()
        self.forget(guest)
        lab.wait_for(lambda: address not in self.leases())

    def refused(self, text: str) -> None:
        process = self.daemon()
        self.assertEqual(agent.SYSTEM_ERROR, process.wait(lab.PATIENCE))
        self.assertIn(text, self.log())

    def test_net_raw_is_enough(self) -> None:
        self.allow('net_raw')
        self.works(self.agent(store=self.store / 'agent.sqlite'),
                   1 << _NET_RAW)

    def test_nothing_is_not(self) -> None:
        self.allow()
        self.configure(store=self.store / 'agent.sqlite')
        self.refused('run it with CAP_NET_RAW')

    def test_namespace(self) -> None:
        self.agent_namespace = self.namespace('agent')
        self.configure(store=self.store / 'agent.sqlite',
                       interfaces=f'{self.host}/br0')
        self.allow('net_raw')
        self.refused('CAP_SYS_ADMIN')
        self.allow('net_raw', 'sys_admin')
        self.works(self.agent(store=self.store / 'agent.sqlite',
                              interfaces=f'{self.host}/br0'),
                   1 << _NET_RAW | 1 << _SYS_ADMIN)
