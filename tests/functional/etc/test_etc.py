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


"""What is in etc/, looked at by the tools that read it."""

import configparser
import contextlib
import pathlib
import re
import shutil
import subprocess
import sys

import fixtures
import testtools

CHECKOUT = pathlib.Path(__file__).parents[3]
ETC = CHECKOUT / 'etc'
UNITS = ('vmip-agent', 'vmip-listener', 'vmip-reclaimer')
#: exposure, ten times of what "systemd-analyze security" prints
THRESHOLD = 20

#: mmap and mprotect as MemoryDenyWriteExecute= has them (prctl(2))
_MDWE = '''
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):
    sys.exit(f'PR_SET_MDWE: {os.strerror(ctypes.get_errno())}')
from importlib import import_module
import_module('vmip_plugin.cmd.' + sys.argv.pop(1)).main()
'''


class EtcTestCase(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)

    def run_(self, *command: str, code: int = 0) -> str:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120)
        self.assertEqual(code, done.returncode, done.stdout)
        return done.stdout


class TestUnits(EtcTestCase):

    def unit(self, name: str, *dropins: str) -> pathlib.Path:
        """Install a unit where its program is."""
        path = self.folder / f'{name}.service'
        text = (ETC / f'systemd/{name}.service').read_text()
        self.assertIn(f'\nExecStart=/usr/local/bin/{name} ', text)
        path.write_text(text.replace(
            '/usr/local/bin/', f'{pathlib.Path(sys.executable).parent}/'))
        for dropin in dropins:
            folder = self.folder / f'{name}.service.d'
            folder.mkdir(exist_ok=True)
            shutil.copy(ETC / f'systemd/{name}.service.d/{dropin}', folder)
        return path

    def settings(self, path: pathlib.Path) -> dict[str, str]:
        parser = configparser.RawConfigParser(strict=False)
        parser.optionxform = str    # type: ignore[assignment, method-assign]
        parser.read(path)
        return dict(parser['Service'])

    def test_verify(self) -> None:
        for name in UNITS:
            folder = ETC / f'systemd/{name}.service.d'
            for dropins in [], [path.name for path in folder.glob('*')]:
                self.assertEqual('', self.run_(
                    'systemd-analyze', 'verify', '--man=no',
                    str(self.unit(name, *dropins))))

    def test_a_wrong_one_is_seen(self) -> None:
        path = self.unit('vmip-agent')
        path.write_text(path.read_text().replace(
            'ProtectHome=yes', 'ProtectHome=perhaps'))
        self.assertIn('Failed to parse', self.run_(
            'systemd-analyze', 'verify', '--man=no', str(path)))

    def test_security(self) -> None:
        for name in UNITS:
            self.run_('systemd-analyze', 'security', '--offline=true',
                      '--no-pager', f'--threshold={THRESHOLD}',
                      str(self.unit(name)))
        path = self.unit('vmip-agent')
        path.write_text(path.read_text().replace(
            'SystemCallFilter=@system-service\n', '').replace(
            'SystemCallFilter=~@privileged @resources\n', ''))
        self.run_('systemd-analyze', 'security', '--offline=true',
                  '--no-pager', f'--threshold={THRESHOLD}', str(path), code=1)

    def test_privileges(self) -> None:
        """Only the agent has any, and only for raw sockets."""
        for name in UNITS:
            found = self.settings(ETC / f'systemd/{name}.service')
            wanted = 'CAP_NET_RAW' if name == 'vmip-agent' else ''
            self.assertEqual((wanted, wanted), (
                found['CapabilityBoundingSet'], found['AmbientCapabilities']))
            self.assertEqual('vmip', found['User'])
            self.assertEqual(name == 'vmip-agent', 'AF_PACKET' in found[
                'RestrictAddressFamilies'])

    def test_dropins(self) -> None:
        """Both that write host entries have the same."""
        folders = [ETC / f'systemd/vmip-{name}.service.d'
                   for name in ('listener', 'reclaimer')]
        listener, reclaimer = ({path.name: path.read_text()
                                for path in folder.iterdir()}
                               for folder in folders)
        self.assertEqual(listener, reclaimer)
        self.assertEqual({'dnsmasq.conf', 'kea.conf'}, set(listener))
        found = self.settings(folders[0] / 'dnsmasq.conf')
        self.assertEqual(('CAP_KILL', 'CAP_KILL', 'default'), (
            found['CapabilityBoundingSet'], found['AmbientCapabilities'],
            found['ProtectProc']))

    def test_no_memory_that_is_written_and_executed(self) -> None:
        for name in UNITS:
            self.assertIn('usage: ', self.run_(
                sys.executable, '-c', _MDWE, name.removeprefix('vmip-'),
                '--help'))

    def test_stops_by_sigterm(self) -> None:
        """Nothing that systemd would do otherwise is asked for."""
        for name in UNITS:
            found = self.settings(ETC / f'systemd/{name}.service')
            self.assertNotIn('KillMode', found)
            self.assertNotIn('KillSignal', found)


class TestUsersAndFolders(EtcTestCase):

    def test_all(self) -> None:
        root = self.folder / 'root'
        (root / 'etc').mkdir(parents=True)
        (root / 'etc/passwd').write_text('root:x:0:0::/root:/bin/sh\n')
        (root / 'etc/group').write_text('root:x:0:\n')
        for kind in 'sysusers', 'tmpfiles':
            folder = root / f'usr/lib/{kind}.d'
            folder.mkdir(parents=True)
            shutil.copy(ETC / f'{kind}.d/vmip.conf', folder)
        (root / 'etc/vmip').mkdir(mode=0o777)
        conf = root / 'etc/vmip/vmip.conf'
        conf.touch()
        conf.chmod(0o666)
        self.run_('systemd-sysusers', f'--root={root}', 'vmip.conf')
        user = re.search(r'(?m)^vmip:x:(\d+):(\d+):.*:/var/lib/vmip:\S*nologin'
                         r'$', (root / 'etc/passwd').read_text())
        assert user
        uid, gid = map(int, user.groups())
        self.run_('systemd-tmpfiles', '--create', f'--root={root}',
                  'vmip.conf')
        for name, owner, mode in (
                ('etc/vmip', 0, 0o750), ('etc/vmip/vmip.conf', 0, 0o640),
                ('var/lib/vmip', uid, 0o750), ('var/log/vmip', uid, 0o750)):
            found = (root / name).stat()
            self.assertEqual((owner, gid, mode), (
                found.st_uid, found.st_gid, found.st_mode & 0o777), name)


class TestLogrotate(EtcTestCase):

    def conf(self) -> str:
        # those of this machine, and this folder
        self.folder.chmod(0o755)
        path = self.folder / 'conf'
        path.write_text(
            (ETC / 'logrotate.d/vmip').read_text()
            .replace('su vmip vmip', 'su root root')
            .replace('/var/log/vmip', str(self.folder)))
        path.chmod(0o644)
        return str(path)

    def test_understood(self) -> None:
        said = self.run_('logrotate', '-d', '-s', str(self.folder / 'state'),
                         self.conf())
        self.assertNotIn('error', said)
        self.assertIn('after 1 days', said)

    def test_a_program_goes_on(self) -> None:
        log = self.folder / 'vmip-agent.log'
        conf = self.conf()
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open(log, 'a'))
            for round_ in range(3):
                print(f'line {round_}', file=file, flush=True)
                self.run_('logrotate', '-f', '-s',
                          str(self.folder / 'state'), conf)
        self.assertEqual('', log.read_text())
        self.assertEqual('line 2\n',
                         (self.folder / 'vmip-agent.log.1').read_text())
        self.assertTrue((self.folder / 'vmip-agent.log.2.gz').exists())


class TestBindep(EtcTestCase):

    def test_same_as_what_is_installed_for_the_tests(self) -> None:
        with fixtures.MonkeyPatch(
                'sys.path', [str(CHECKOUT / 'devstack'), *sys.path]):
            from minicloud import packages
        found = set()
        for line in (CHECKOUT / 'bindep.txt').read_text().splitlines():
            if line and not line.startswith('#'):
                match = re.fullmatch(
                    r'([a-z0-9.+-]+) \[platform:dpkg ([a-z]+)\]', line)
                assert match, line
                if match[2] == 'test':
                    found.add(match[1])
        self.assertEqual(set(packages.PACKAGES), found)
