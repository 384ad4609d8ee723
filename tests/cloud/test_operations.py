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

"""Day two, with the commands of doc/source/operations.rst."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile

from minicloud import settings

from tests.cloud import harness
from tests.cloud import story
from tests.cloud import test_lifecycle

PAGE = settings.CHECKOUT / 'doc/source/operations.rst'
LIST = settings.STATE / 'vmip/vmip.sqlite'
STOPPED = ('vmip-listener', 'vmip-reclaimer')


def commands(title: str) -> list[str]:
    """Return the commands of a section of the page."""
    section = re.split(r'^(.+)\n=+$', re.sub(
        r'\\\n\s*', ' ', PAGE.read_text()), flags=re.MULTILINE)
    text = section[section.index(title) + 1]
    return [line.strip().removeprefix('$ ') for line in text.splitlines()
            if re.match(r' +(\$ )?(vmip-|sqlite3|python3)', line)]


class TestOperations(test_lifecycle.LifecycleTestCase):

    def setUp(self) -> None:
        self.folder = self.enterContext(tempfile.TemporaryDirectory())

    def shell(self, command: str) -> str:
        """Run a command of the page on this cloud; return what it says.

        :raises AssertionError: its exit code is not 0.
        """
        for theirs, ours in {
                '/var/lib/vmip/vmip.sqlite': str(LIST),
                '/var/backups': self.folder,
        }.items():
            command = command.replace(theirs, ours)
        done = subprocess.run(
            ['bash', '-ec', command], capture_output=True, text=True,
            timeout=120, check=False, env={
                **os.environ, 'VMIP_CONFIG': str(settings.VMIP_CONF),
                'PATH': f'{harness.BIN}:{os.environ["PATH"]}'})
        self.assertEqual(0, done.returncode,
                         f'{command}\n{done.stdout}{done.stderr}')
        return done.stdout

    def test_looking(self) -> None:
        self.create('looked')
        check, status, agree, grow = commands('Looking after it')
        self.shell(check)
        self.shell(agree)
        # each task has its first run within a minute
        harness.wait_for(status, lambda: self.works(status), every=2)
        pool = self.cloud.manage('pool', 'show', story.POOL)
        self.shell(grow.replace('192.0.2.10-192.0.2.250',
                                '192.0.2.100-192.0.2.120'))
        self.addCleanup(self.shell, grow.replace(
            '192.0.2.10-192.0.2.250', pool['ranges']))
        self.assertEqual(
            pool['free'] + 1,
            self.cloud.manage('pool', 'show', story.POOL)['free'])

    def works(self, command: str) -> bool:
        try:
            return bool(self.shell(command))
        except AssertionError:
            return False

    def test_restore(self) -> None:
        """Two servers more and one less than the backup knows."""
        kept = self.create('kept')
        gone, left = self.create('gone')
        sqlite, python, *exports = commands('Backup')
        for command in (python, sqlite, *exports):
            self.shell(command)
        with open(f'{self.folder}/addresses.csv', encoding='utf-8') as file:
            self.assertIn(left, file.read())
        self.cloud.sdk().compute.delete_server(gone.id)
        self.free(left)
        new = [self.create('late'), self.create('later')]
        self.assertEqual(left, new[0][1], 'is it not the lowest free one?')

        rehearse, adopt = commands('Restore')
        with contextlib.ExitStack() as stack:
            for name in STOPPED:
                stack.enter_context(self.story.without(name))
            for path in LIST.parent.glob(f'{LIST.name}*'):
                path.unlink()
            shutil.copy(f'{self.folder}/vmip.sqlite', LIST)
            self.shell('vmip-manage db upgrade')
            entries = harness.host_entries()
            self.shell(rehearse)
            self.assertEqual(gone.id, self.held(left).server_id)
            self.shell(adopt)
        for server, address in [kept, *new]:
            [port] = self.network.ports(device_id=server.id)
            self.has(address, 'active' if server is kept[0] else 'claimed',
                     server.id, port)
        self.assertEqual(entries, harness.host_entries())
        self.shell('vmip-manage dhcp check')
        for server, address in [kept, *new]:
            self.cloud.sdk().compute.delete_server(server.id)
            self.free(address)
