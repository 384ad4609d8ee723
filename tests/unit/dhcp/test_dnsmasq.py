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


"""The dnsmasq driver on a folder, with a process that only counts SIGHUPs.

What dnsmasq itself does with the folder is in tests/contract.
"""

from collections.abc import Callable, Iterator
import contextlib
import datetime
import fcntl
import ipaddress
import itertools
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from typing import Any
from unittest import mock

import fixtures
import hypothesis
from hypothesis import strategies
import testtools

from oslo_config import cfg
from vmip_plugin.conf import dhcp
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import dnsmasq
from vmip_plugin.dhcp.dnsmasq import doctor
from vmip_plugin.dhcp.dnsmasq import folder
from vmip_plugin.dhcp.dnsmasq import lease as lease_file
from vmip_plugin.dhcp.dnsmasq import line as host_line
from vmip_plugin.dhcp.dnsmasq import process
from vmip_plugin.dhcp import none
from vmip_plugin import exceptions

COUNTER = '''
import os, signal, sys
def count(number, frame):
    with open(sys.argv[1] + '/hups', 'a') as file:
        file.write('x')
    while os.path.exists(sys.argv[1] + '/busy'):
        pass
signal.signal(signal.SIGHUP, count)
with open(sys.argv[1] + '/pid', 'w') as file:
    file.write(f'{os.getpid()}\\n')
while True:
    signal.pause()
'''


def entry(number: int, host: int | None = None,
          hostname: str | None = None) -> base.HostEntry:
    return base.HostEntry(
        f'fa:16:3e:00:00:{number:02x}',
        ipaddress.IPv4Address(f'192.0.2.{host or number}'), hostname)


class Crash(BaseException):
    """What a kill -9 looks like from inside."""


class Base(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.hostsdir = self.root / 'hosts'
        self.hostsdir.mkdir()

    def start(self) -> 'subprocess.Popen[bytes]':
        """Start the process that stands for dnsmasq."""
        (self.root / 'pid').unlink(missing_ok=True)
        program = self.root / 'dnsmasq'
        if not program.is_symlink():
            program.symlink_to(os.path.realpath(sys.executable))
        process = subprocess.Popen([program, '-I', '-S', '-c', COUNTER,
                                    self.root])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        end = time.monotonic() + 300
        while not ((self.root / 'pid').exists()
                   and (self.root / 'pid').read_text().endswith('\n')):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.005)
        return process

    def driver(self, **values: Any) -> dnsmasq.DnsmasqDriver:
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[])
        group = dhcp.register_server(conf, 'test', dnsmasq.DnsmasqDriver.OPTS)
        for name, value in ({'hostsdir': str(self.hostsdir),
                             'pid_file': str(self.root / 'pid')}
                            | values).items():
            conf.set_override(name, value, 'dhcp:test')
        return dnsmasq.DnsmasqDriver('test', group)

    def hups(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return len((self.root / 'hups').read_text())
        return 0

    def texts(self) -> dict[str, str]:
        """Return what dnsmasq reads when it starts."""
        return {path.name: path.read_text()
                for path in self.hostsdir.iterdir() if path.name[0] != '.'}


class TestOptions(Base):

    def test_needed(self) -> None:
        for name in 'hostsdir', 'pid_file':
            error = self.assertRaises(exceptions.ConfigError, self.driver,
                                      **{name: None})
            self.assertIn(name, str(error))

    def test_lease_time(self) -> None:
        for text in '10m', '3600', '2w', 'infinite':
            self.driver(lease_time=text)
        for text in '10m,set:x', 'm', '1y', '-1', '10m\n', 'ignore':
            self.assertRaises(exceptions.ConfigError, self.driver,
                              lease_time=text)

    def test_server_id(self) -> None:
        self.assertIsNone(self.driver().server_id)
        self.assertEqual(ipaddress.IPv4Address('192.0.2.1'),
                         self.driver(server_id='192.0.2.1').server_id)

    def test_capabilities(self) -> None:
        lease_list = base.Capability.LEASE_LIST
        self.assertNotIn(lease_list, self.driver().capabilities)
        self.assertIn(lease_list, self.driver(lease_file='/l').capabilities)
        self.assertNotIn(lease_list, dnsmasq.DnsmasqDriver.capabilities)

    def test_dbus(self) -> None:
        release = base.Capability.LEASE_RELEASE
        self.assertNotIn(release, self.driver(lease_file='/l').capabilities)
        self.assertIn(release, self.driver(
            lease_file='/l', dbus_service='a.b').capabilities)
        error = self.assertRaises(exceptions.ConfigError, self.driver,
                                  dbus_service='a.b')
        self.assertIn('lease_file', str(error))

    def test_dbus_is_not_installed(self) -> None:
        name = 'vmip_plugin.dhcp.dnsmasq.bus'
        with mock.patch.dict(sys.modules, {'jeepney': None, name: None}), \
                mock.patch.dict(vars(dnsmasq)):
            vars(dnsmasq).pop('bus', None)
            self.driver(lease_file='/l')
            error = self.assertRaises(
                exceptions.ConfigError, self.driver, lease_file='/l',
                dbus_service='a.b')
        self.assertIn('pip install "vmip-plugin[dnsmasq]"', str(error))

    def test_no_bus(self) -> None:
        for address in ('', 'x', 'unix:path=/nowhere', 'tcp:host=localhost',
                        'unix:path', ';'):
            driver = self.driver(lease_file='/l', dbus_service='a.b',
                                 dbus_address=address)
            assert driver._bus is not None
            error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                      driver._bus.version)
            self.assertIn('dbus_address', str(error))


class TestLines(Base):

    def test_line(self) -> None:
        self.driver(lease_time='10m').put([entry(1, hostname='WEB-1')])
        self.assertEqual(
            {'vmip-192.0.2.1': 'fa:16:3e:00:00:01,id:*,tag:!vmip,192.0.2.1,'
                               'web-1,10m\n'},
            self.texts())

    @hypothesis.given(strategies.one_of(
        strategies.text(), strategies.from_regex(r'[a-z0-9:.,-]{1,20}'),
        strategies.sampled_from(['ignore', 'infinite', '7d', '0', '12s'])))
    def test_any_hostname(self, hostname: str) -> None:
        line = host_line.compose(entry(1, hostname=hostname))
        self.assertRegex(line, r'\Afa:16:3e:00:00:01,id:\*,tag:!vmip,'
                               r'192\.0\.2\.1(,[a-z0-9]([a-z0-9-]*[a-z0-9])?)?\Z')
        self.assertNotRegex(line, r',(\d+[smhdw]?|infinite|ignore)\Z')
        # with and without a lease time behind it the same name is found
        for suffix in '', ',10m', ',3600', ',infinite':
            parsed = host_line.parse(line + suffix)
            assert parsed is not None
            self.assertEqual(line, host_line.compose(parsed))

    @hypothesis.given(strategies.text())
    def test_parse_anything(self, text: str) -> None:
        host_line.parse(text)
        host_line.parse(f'fa:16:3e:00:00:01,id:*,tag:!vmip,192.0.2.1{text}')

    def test_line6(self) -> None:
        six = base.HostEntry(entry(1).mac, ipaddress.ip_address('2001:db8::1'),
                             'web')
        self.driver().put([six])
        self.assertEqual(
            {'vmip-2001:db8::1': 'fa:16:3e:00:00:01,tag:!vmip,'
                                 '[2001:db8::1],web\n'},
            self.texts())
        self.assertEqual([six], list(self.driver().entries()))

    def test_no_mac_and_no_address(self) -> None:
        bad = base.HostEntry('fa:16:3e', entry(1).address)
        worse = base.HostEntry('fa:16:3e:00:00:09\n', entry(2).address)
        scoped = base.HostEntry(entry(3).mac,
                                ipaddress.ip_address('fe80::1%a\n'))
        failures = self.driver().put([bad, worse, entry(4), scoped])
        self.assertEqual({bad, worse, scoped}, set(failures))
        self.assertEqual(['vmip-192.0.2.4'], list(self.texts()))
        self.assertEqual({}, self.driver().remove([bad, scoped]))


class TestFolder(Base):

    def test_what_is_not_ours(self) -> None:
        self.start()
        theirs = {'by-hand': 'fa:16:3e:00:00:01,192.0.2.1\n',
                  'vmip-notes': 'fa:16:3e:00:00:02,192.0.2.2\n',
                  'vmip-192.0.2.300': 'fa:16:3e:00:00:03,192.0.2.3\n',
                  'xvmip-192.0.2.4': 'fa:16:3e:00:00:04,192.0.2.4\n'}
        for name, text in theirs.items():
            (self.hostsdir / name).write_text(text)
        driver = self.driver(compact_above=0)
        self.assertEqual([], list(driver.entries()))
        every = [entry(number) for number in range(1, 9)]
        driver.remove(every)
        driver.put(every)
        driver.remove(every[:1])
        driver.remove(every)
        self.assertEqual([], list(driver.entries()))
        self.assertEqual(theirs | {'vmip-hosts': ''}, self.texts())

    def test_garbled(self) -> None:
        good = host_line.compose(entry(1))
        for text in ('', good, f'{good[:-1]}\n', f'{good[:-1]}2\n',
                     f'{good}\n\n', f'{good},ignore\n',
                     f'{good}\n{host_line.compose(entry(2))}\n',
                     '\udcff\n', '#\n'):
            self.start()
            before = self.hups()
            path = self.hostsdir / 'vmip-192.0.2.1'
            path.write_text(text, errors='surrogateescape')
            driver = self.driver()
            with mock.patch.object(folder.LOG, 'warning') as warning:
                self.assertEqual([], list(driver.entries()))
                self.assertEqual([], list(driver.entries()))
                self.assertEqual(1, warning.call_count, text)
            self.assertIn(str(path), ' '.join(driver.check()))
            # dnsmasq may have read something else there
            driver.put([entry(9)])
            self.assertEqual(before + 1, self.hups())
            self.assertFalse(path.exists())
            self.assertEqual([], [text for text in driver.check()
                                  if str(path) in text])
            driver.put([entry(1)])
            driver.remove([entry(7, 1)])
            self.assertEqual(before + 1, self.hups())
            driver.remove([entry(1), entry(9)])
            self.assertEqual([], list(driver.entries()))

    def test_lines_that_contradict(self) -> None:
        self.start()
        driver = self.driver()
        driver.put([entry(1)])
        for other in entry(1, 2), entry(2, 2):
            (self.hostsdir / f'vmip-{other.address}').write_text(
                host_line.compose(other) + '\n')
        (self.hostsdir / '.vmip-hosts').write_text(
            ''.join(host_line.compose(e) + '\n' for e in (
                entry(3), entry(4), entry(4, 3))))
        (self.hostsdir / 'vmip-hosts').symlink_to('.vmip-hosts')
        held = list(driver.entries())
        self.assertEqual(len(held), len({e.mac for e in held}))
        self.assertEqual(len(held), len({e.address for e in held}))
        driver.put([entry(5)])
        self.assertEqual(1, self.hups())
        self.assertEqual([*sorted(held), entry(5)], sorted(driver.entries()))
        lines = [line for text in self.texts().values()
                 for line in text.splitlines()]
        self.assertEqual(len(held) + 1, len(lines))

    def test_garbled_lines_of_the_many(self) -> None:
        self.start()
        driver = self.driver(compact_above=0)
        driver.put([entry(1), entry(2), entry(3), entry(4)])
        driver.remove([entry(4)])
        path = self.hostsdir / '.vmip-hosts'
        path.write_text(path.read_text().replace(':02,', ':02;')[:-2])
        self.assertEqual([entry(1)], list(driver.entries()))
        driver.put([entry(2), entry(3)])
        self.assertEqual([entry(1), entry(2), entry(3)],
                         sorted(driver.entries()))

    def test_new_lease_time_is_written(self) -> None:
        self.start()
        self.driver().put([entry(1, hostname='web')])
        driver = self.driver(lease_time='5m')
        driver.put([entry(1, hostname='web')])
        self.assertEqual(1, self.hups())
        self.assertEqual([entry(1, hostname='web')], list(driver.entries()))

    def test_big_put_needs_one_reload(self) -> None:
        self.start()
        driver = self.driver()
        many = [entry(number) for number in range(1, 100)]
        with mock.patch.object(os, 'fsync', wraps=os.fsync) as fsync:
            driver.put(many)
        self.assertTrue(fsync.called)
        for _ in range(2):
            driver.put(many)
            self.assertEqual(0, self.hups())
            self.assertEqual(['vmip-192.0.2.1+98'], list(self.texts()))
            self.assertEqual(many, sorted(driver.entries()))
        driver.put([*many[1:], entry(1, 100)])
        self.assertEqual(1, self.hups())
        self.assertEqual(['vmip-hosts'], list(self.texts()))

    def test_sees_what_others_write(self) -> None:
        """However fast they do."""
        self.start()
        mine, other = self.driver(), self.driver()
        chance = random.Random(1)
        for _ in range(300):
            items = [entry(chance.randrange(1, 5), chance.randrange(1, 5))]
            change = other.put if chance.random() < 0.6 else other.remove
            change(items)
            self.assertEqual(sorted(other.entries()), sorted(mine.entries()))
        # as on a file system whose clock stands still
        with mock.patch.object(folder, '_state', return_value=()):
            for number in range(5, 9):
                other.put([entry(number, 9)])
                self.assertIn(entry(number, 9), list(mine.entries()))
                other.remove([entry(number, 9)])

    def test_one_call_reads_one_file(self) -> None:
        self.start()
        driver = self.driver(compact_above=0)
        driver.put([base.HostEntry(f'fa:16:3e:01:{n >> 8:02x}:{n & 255:02x}',
                                   ipaddress.IPv4Address('10.66.0.0') + n)
                    for n in range(1, 1000)])
        driver.remove([entry(1)])
        time.sleep(0.2)
        list(driver.entries())
        with mock.patch.object(folder.host_line, 'address_of',
                               wraps=host_line.address_of) as address_of:
            for number in range(1, 11):
                driver.put([entry(number)])
            # none, or that of the call before, as it is so young
            self.assertLess(address_of.call_count, 60)
            self.assertEqual(1009, len(list(driver.entries())))

    def test_missing(self) -> None:
        self.hostsdir.rmdir()
        driver = self.driver()
        calls: list[Callable[[], object]] = [
            lambda: driver.put([entry(1)]),
            lambda: driver.remove([entry(1)]),
            lambda: list(driver.entries())]
        for call in calls:
            error = self.assertRaises(exceptions.DHCPServerUnavailable, call)
            self.assertIn(str(self.hostsdir), str(error))
            self.assertIn('create the folder', str(error))
        self.assertEqual(1, len(driver.check()))


class TestLock(Base):
    """Nobody else may hold what all writes need."""

    def setUp(self) -> None:
        super().setUp()
        self.path = self.hostsdir / '.vmip-lock'

    def put(self, **values: Any) -> str:
        """Write an entry; return why that was refused, '' where it was not."""
        try:
            self.assertEqual({}, self.driver(**values).put([entry(1)]))
        except exceptions.DHCPServerUnavailable as exc:
            return str(exc)
        return ''

    def test_is_for_its_owner_alone(self) -> None:
        previous = os.umask(0)
        self.addCleanup(os.umask, previous)
        self.put()
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))

    def test_of_an_earlier_version(self) -> None:
        for mode in 0o644, 0o666, 0o640:
            self.path.write_text('192.0.2.9\n')
            self.path.chmod(mode)
            self.start()
            self.assertEqual('', self.put())
            self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))

    def test_symbolic_link(self) -> None:
        target = self.root / 'target'
        target.write_text('precious')
        for there in True, False:
            if not there:
                target.unlink()
            self.path.symlink_to(target)
            self.assertIn('remove the symbolic link', self.put())
            self.path.unlink()
            self.assertEqual(there, target.exists())
        self.assertFalse(target.exists())

    def test_no_file(self) -> None:
        os.mkfifo(self.path)
        self.assertIn('not a regular file', self.put())

    def test_held(self) -> None:
        """The error names who holds it, and comes in time."""
        self.path.touch()
        with self.path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            text = self.put(timeout=1)
            self.assertIn(f'{self.path} for more than 1 s', text)
            if f':{self.path.stat().st_ino} ' in pathlib.Path(
                    '/proc/locks').read_text():
                self.assertIn(f'process {os.getpid()} (', text)
        self.assertEqual('', self.put())

    def test_who_holds_it(self) -> None:
        self.path.touch()
        found = self.path.stat()
        device = (f'{os.major(found.st_dev):02x}:'
                  f'{os.minor(found.st_dev):02x}')
        locks = self.root / 'locks'
        self.patch(folder.pathlib, 'Path', lambda name: locks)
        for text, expected in (
                (f'1: FLOCK  ADVISORY  WRITE {os.getpid()} {device}:'
                 f'{found.st_ino} 0 EOF\n', f'process {os.getpid()} ('),
                (f'1: FLOCK  ADVISORY  WRITE 0 {device}:{found.st_ino} 0 EOF',
                 'another process'),
                (f'1: -> FLOCK ADVISORY WRITE 7 {device}:{found.st_ino} 0 EOF',
                 'another process'),
                (f'1: POSIX ADVISORY WRITE 7 {device}:{found.st_ino} 0 EOF',
                 'another process'),
                ('what is that\n', 'another process'), ('', 'another')):
            locks.write_text(text)
            self.assertTrue(folder._holder(found).startswith(expected), text)


class TestRest(Base):
    """While dnsmasq is not to be made to read the folder again."""

    def setUp(self) -> None:
        super().setUp()
        self.running = self.driver()
        self.running.put([entry(1), entry(2)])
        self.reload = self.useFixture(fixtures.MockPatchObject(
            self.running._process, 'reload')).mock
        self.rest = self.useFixture(fixtures.MockPatchObject(
            self.running._process, 'rest', return_value=9.0)).mock

    def owed(self) -> str:
        return (self.hostsdir / '.vmip-lock').read_text()

    def test_removed_later(self) -> None:
        self.assertEqual([entry(1)], list(self.running.remove([entry(1)])))
        self.assertEqual([entry(1)], list(self.running.remove([entry(1)])))
        self.assertEqual('192.0.2.1\n', self.owed())
        self.assertEqual([entry(2)], list(self.running.entries()))
        self.assertEqual([entry(3, 1)], list(self.running.put(
            [entry(3, 1), entry(4)])))
        self.assertEqual({}, self.running.put([entry(4)]))
        self.assertEqual([entry(3, 1)], list(self.running.put([entry(3, 1)])))
        self.assertFalse(self.reload.called)
        self.rest.return_value = 0.0
        self.assertEqual({}, self.running.put([entry(5)]))
        self.assertEqual(1, self.reload.call_count)
        self.assertEqual('', self.owed())
        self.assertEqual({entry(2), entry(3, 1), entry(4), entry(5)},
                         set(self.running.entries()))

    def test_nobody_knows_what_is_owed(self) -> None:
        for text in '\0', '192.0.2.1\n\0', '192.0.2.1', 'x\n':
            (self.hostsdir / '.vmip-lock').write_text(text)
            self.assertEqual([entry(1)], list(self.running.put([entry(1)])))
            self.assertEqual([entry(9)], list(self.running.put([entry(9)])))
        self.assertFalse(self.reload.called)

    def test_failed_before(self) -> None:
        """What dnsmasq has not read is not there, though it is written."""
        self.rest.return_value = 0.0
        self.reload.side_effect = exceptions.DHCPServerUnavailable('slow')
        self.assertRaises(exceptions.DHCPServerUnavailable, self.running.put,
                          [entry(3, 1), entry(4)])
        self.rest.return_value = 9.0
        for item in entry(3, 1), entry(4):
            self.assertEqual([item], list(self.running.put([item])))
        self.assertEqual({}, self.running.put([entry(5)]))

    def test_disk_is_full(self) -> None:
        with mock.patch.object(os, 'pwrite', side_effect=OSError(28, 'full')):
            self.assertEqual([entry(1)],
                             list(self.running.remove([entry(1)])))
        self.assertEqual('\0', self.owed())
        with mock.patch.object(os, 'pwrite', return_value=1):
            self.running.remove([entry(2)])
        self.assertIn('\0', self.owed())


class TestModel(Base):
    """The same calls leave the same entries as in the driver in memory."""

    ENTRIES = strategies.lists(strategies.builds(
        base.HostEntry,
        strategies.sampled_from([entry(n).mac for n in range(1, 5)]),
        strategies.sampled_from([ipaddress.ip_address(f'{net}{n}')
                                 for net in ('192.0.2.', '2001:db8::')
                                 for n in range(1, 5)]),
        strategies.sampled_from([None, 'web'])), max_size=6)

    @hypothesis.given(
        strategies.integers(0, 4),
        strategies.lists(strategies.tuples(strategies.booleans(), ENTRIES),
                         max_size=6))
    def test_like_the_model(
            self, compact_above: int,
            calls: list[tuple[bool, list[base.HostEntry]]]) -> None:
        for path in self.hostsdir.iterdir():
            path.unlink()
        driver = self.driver(compact_above=compact_above)
        model = none.NoneDriver('model', driver.options)
        with mock.patch.object(driver._process, 'reload'):
            for put, entries in calls:
                for each in driver, model:
                    change = each.put if put else each.remove
                    self.assertEqual({}, change(entries))
                self.assertEqual(sorted(map(repr, model.entries())),
                                 sorted(map(repr, driver.entries())))


class TestServer(Base):

    def setUp(self) -> None:
        super().setUp()
        self.driver().put([entry(1)])

    def refused(self, **values: Any) -> str:
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver(**values).remove, [entry(1)])
        self.assertEqual('192.0.2.1\n',
                         (self.hostsdir / '.vmip-lock').read_text())
        self.assertEqual({}, self.texts())
        return str(error)

    def test_no_pid_file(self) -> None:
        self.assertIn('start dnsmasq, or set pid_file', self.refused())

    def test_no_pid_in_it(self) -> None:
        for text in '', 'x', '0', '-1', '1 2', '9' * 40:
            (self.root / 'pid').write_text(text)
            self.assertIn('no process id', self.refused())

    def test_process_is_gone(self) -> None:
        process = self.start()
        process.kill()
        process.wait()
        self.assertIn('start dnsmasq', self.refused())
        self.start()
        self.assertEqual({}, self.driver().remove([entry(1)]))
        self.assertEqual(1, self.hups())
        self.assertEqual(0, (self.hostsdir / '.vmip-lock').stat().st_size)

    def test_another_process(self) -> None:
        (self.root / 'pid').write_text(f'{os.getpid()}\n')
        self.assertIn('is not dnsmasq', self.refused())

    def test_may_not_signal(self) -> None:
        self.start()
        with mock.patch.object(signal, 'pidfd_send_signal',
                               side_effect=PermissionError(1, 'no')):
            self.assertIn('CAP_KILL', self.refused())

    def test_does_not_get_to_it(self) -> None:
        process = self.start()
        process.send_signal(signal.SIGSTOP)
        driver = self.driver(timeout=1)
        self.assertRaises(exceptions.DHCPServerUnavailable, driver.remove,
                          [entry(1)])
        self.assertEqual(0.0, driver._process.rest())
        self.assertIn('raise timeout', self.refused(timeout=1))
        process.send_signal(signal.SIGCONT)
        self.assertEqual({}, driver.remove([entry(1)]))

    def test_needs_longer(self) -> None:
        self.start()
        (self.root / 'busy').touch()
        driver = self.driver(timeout=1)
        self.assertRaises(exceptions.DHCPServerUnavailable, driver.remove,
                          [entry(1)])
        self.assertGreater(driver._process.rest(), 0)
        # it is not signalled again and again
        self.assertEqual([entry(1)], list(driver.remove([entry(1)])))
        self.assertEqual(1, self.hups())
        (self.root / 'busy').unlink()

    def test_ends_while_it_reads(self) -> None:
        process = self.start()

        def kill(*args: object) -> None:
            process.kill()
            process.wait()

        with mock.patch.object(signal, 'pidfd_send_signal', kill):
            self.assertIn('ended while', self.refused())


class TestCrash(Base):
    """Killed before each single thing that a call does."""

    STEPS = ((os, 'ftruncate'), (os, 'pwrite'), (os, 'replace'),
             (os, 'unlink'), (os, 'symlink'), (os, 'fsync'), (os, 'fchmod'),
             (signal, 'pidfd_send_signal'))

    @contextlib.contextmanager
    def crash_at(self, number: int) -> Iterator[list[str]]:
        done: list[str] = []

        def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **kwargs: Any) -> Any:
                if len(done) == number:
                    raise Crash
                done.append(name)
                return real(*args, **kwargs)
            return step

        with contextlib.ExitStack() as stack:
            for module, name in self.STEPS:
                stack.enter_context(mock.patch.object(
                    module, name, wrap(name, getattr(module, name))))
            yield done

    def every_crash(self, compact_above: int, *sizes: int) -> int:
        """Crash at each step.

        :param sizes: of the calls that put what is there before.
        :returns: the number of steps.
        """
        self.start()
        driver = self.driver(compact_above=compact_above)
        others = [entry(number) for number in range(1, 7)]
        moving, gone = entry(7, 20), entry(8, 21)
        after = [*others, entry(9, 20), entry(8, 22)]
        for number in range(100):
            driver.remove(list(driver.entries()))
            before = iter([*others, moving, gone])
            for size in sizes:
                driver.put(list(itertools.islice(before, size)))
            memory = set(driver.entries())
            hups = self.hups()
            try:
                with self.crash_at(number) as done:
                    driver.put(after)
            except Crash:
                pass
            else:
                return number
            held = set(driver.entries())
            # nobody else's line is missing at any moment
            self.assertEqual(set(), set(others) - held, str(done))
            # no line contradicts another in what dnsmasq would read
            lines = {line for text in self.texts().values()
                     for line in text.splitlines()}
            self.assertEqual(len(held), len(lines), str(done))
            self.assertEqual(len({e.address for e in held}), len(held))
            self.assertEqual(len({e.mac for e in held}), len(held), str(done))
            # what dnsmasq remembers too much of is known to be owed
            owed = (self.hostsdir / '.vmip-lock').stat().st_size
            if memory - held and self.hups() == hups:
                self.assertNotEqual(0, owed, str(done))
            self.driver().remove([])
            self.assertEqual(0, (self.hostsdir / '.vmip-lock').stat().st_size)
            if owed:
                self.assertTrue(self.hups() > hups, str(done))
            self.assertEqual({}, driver.put(after))
            self.assertEqual(set(after), set(driver.entries()))
        self.fail('there is no end')

    def test_single_files(self) -> None:
        self.assertGreater(self.every_crash(500, 8), 6)

    def test_compacted_before(self) -> None:
        self.assertGreater(self.every_crash(0, 8), 6)

    def test_compacted_in_the_call(self) -> None:
        self.assertGreater(self.every_crash(4, 4, 4), 6)

    def test_partly_compacted(self) -> None:
        self.assertGreater(self.every_crash(3, 6, 2), 6)


class TestLeases(Base):

    def leases(self, text: str) -> list[base.Lease]:
        path = self.root / 'leases'
        path.write_text(text, errors='surrogateescape')
        return list(self.driver(lease_file=str(path)).leases())

    def test_all_kinds(self) -> None:
        soon = int(time.time()) + 60
        found = self.leases(
            f'{soon} fa:16:3e:00:00:01 192.0.2.1 web 01:fa:16:3e:00:00:01\n'
            '0 06-fa:16:3e:00:00:02 192.0.2.2 * *\n'
            f'{soon} 20-80:00:02:08:fe 192.0.2.3 * ff:01\n'
            f'{soon - 61} fa:16:3e:00:00:04 192.0.2.4 * *\n'
            'duid 00:01:00:01\n'
            f'{soon} 5 2001:db8::1 web 00:01\n'
            f'{soon} T5 2001:db8::2 * 00:01\n'
            f'0 6 2001:db8::3 * *\n'
            f'{soon} 7 2001:db8::4:: * 00:02\n')
        expires = datetime.datetime.fromtimestamp(soon, datetime.UTC)
        self.assertEqual([
            base.Lease(entry(1).address, entry(1).mac,
                       bytes.fromhex('01fa163e000001'), expires),
            base.Lease(entry(2).address, entry(2).mac, None, None),
            base.Lease(entry(3).address, None, b'\xff\x01', expires),
            base.Lease(ipaddress.ip_address('2001:db8::1'), None, b'\0\1',
                       expires),
            base.Lease(ipaddress.ip_address('2001:db8::3'), None, None,
                       None)], found)

    def test_half_written(self) -> None:
        line = '0 fa:16:3e:00:00:01 192.0.2.1 * *\n'
        self.assertEqual(1, len(self.leases(line + line[:-1])))
        self.assertEqual(1, len(self.leases(line + line[:20])))
        self.assertEqual([], self.leases(''))

    def test_garbage(self) -> None:
        line = '0 fa:16:3e:00:00:01 192.0.2.1 * *\n'
        self.assertEqual(1, len(self.leases(
            '\udcff\0\n' + '9' * 40 + line[1:]
            + line.replace('.1 ', '.300 ') + line.replace('* *', '* 1')
            + line)))

    def test_waits_for_the_writer(self) -> None:
        path = self.root / 'leases'
        path.write_text('')
        driver = self.driver(lease_file=str(path))

        def write(seconds: float) -> None:
            path.write_text('0 fa:16:3e:00:00:01 192.0.2.1 * *\n')

        with mock.patch.object(time, 'sleep', write):
            self.assertEqual(1, len(list(driver.leases())))

    def test_missing(self) -> None:
        driver = self.driver(lease_file=str(self.root / 'no'))
        self.start()
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  list, driver.leases())
        self.assertIn('set lease_file', str(error))
        self.assertTrue(any('lease_file' in text for text in driver.check()))

    def test_not_configured(self) -> None:
        driver = self.driver()
        self.assertRaises(exceptions.DHCPError, lambda: list(driver.leases()))


class TestDown(Base):
    """dnsmasq is down, and its host keeps the lease file in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.file = self.root / 'run' / 'leases'
        self.server = self.driver(lease_file=str(self.file))

    def test_no_leases(self) -> None:
        self.assertEqual([], list(self.server.leases()))
        self.assertEqual([], list(self.server.leases_of(
            [entry(1).address])))
        # its process id is left, and another's by now
        (self.root / 'pid').write_text(f'{os.getpid()}\n')
        self.assertEqual([], list(self.server.leases()))

    def test_runs(self) -> None:
        """It has made its file: this one is not it."""
        self.start()
        error = self.assertRaises(exceptions.DHCPServerUnavailable, list,
                                  self.server.leases())
        self.assertIn('set lease_file', str(error))

    def test_cannot_be_read(self) -> None:
        self.file.parent.write_text('no folder')
        self.assertRaises(exceptions.DHCPServerUnavailable, list,
                          self.server.leases())

    def test_many_entries(self) -> None:
        """New ones are written; what goes waits until it is back."""
        entries = [entry(number) for number in range(1, 201)]
        self.assertEqual({}, self.server.put(entries))
        self.assertEqual(set(entries), set(self.server.entries()))
        self.assertRaises(exceptions.DHCPServerUnavailable,
                          self.server.remove, entries[:100])


class TestAnyText(Base):
    """No file makes a traceback of a parser."""

    pieces = strategies.lists(strategies.sampled_from([
        '\0', '\n', ' ', '=', ',', '#', 'conf-file', 'conf-dir', '/', '..',
        'b\u00fccher', '1', '99999999999', '0', ' fa:16:3e:00:00:01 ',
        '192.0.2.1 ', '* ', '01:02', 'duid ', ':', '2001:db8::1 ', 'T',
        'dhcp-host', '*.conf', 'ff' * 300, '\r', '\t', '%', '[']))
    @hypothesis.given(pieces)
    def test_leases(self, pieces: list[str]) -> None:
        path = self.root / 'leases'
        path.write_text(''.join(pieces) + '\n')
        list(lease_file.leases(str(path)))
        list(lease_file.leases(str(path), [ipaddress.ip_address('192.0.2.1')]))

    @hypothesis.given(pieces)
    def test_settings(self, pieces: list[str]) -> None:
        path = self.root / 'dnsmasq.conf'
        path.write_text(f'conf-file={"".join(pieces)}\n{"".join(pieces)}')
        with fixtures.MonkeyPatch(
                'vmip_plugin.dhcp.dnsmasq.process._proc',
                lambda pid, name: f'dnsmasq\0--conf-file={path}\0'):
            process.settings(1)

    @hypothesis.given(pieces)
    def test_host_line(self, pieces: list[str]) -> None:
        host_line.parse(''.join(pieces))
        host_line.address_of(''.join(pieces))


class TestSettings(Base):

    def settings(self, *words: str) -> tuple[dict[str, list[str]], list[str]]:
        with mock.patch.object(
                process, '_proc',
                return_value='\0'.join(('dnsmasq', *words, ''))):
            found, unreadable = process.settings(1)
        return dict(found), unreadable

    def test_command_line(self) -> None:
        found, unreadable = self.settings(
            '-K', '-X7', '--conf-file=/dev/null', '--dhcp-hostsdir', '/h')
        self.assertEqual([], unreadable)
        self.assertEqual([''], found['dhcp-authoritative'])
        self.assertEqual(['7'], found['dhcp-lease-max'])
        self.assertEqual(['/h'], found['dhcp-hostsdir'])

    def test_files(self) -> None:
        folder = self.root / 'conf.d'
        folder.mkdir()
        main = self.root / 'conf'
        main.write_text(f'conf-dir={folder},.bak\n# dhcp-option=1\n'
                        f'conf-file={main}\nconf-file={self.root}\n')
        (folder / 'a').write_text(' dhcp-authoritative # yes\n')
        (folder / 'b.bak').write_text('dhcp-lease-max=1\n')
        (folder / '.c').write_text('dhcp-lease-max=2\n')
        found, unreadable = self.settings('-C', str(main))
        self.assertEqual([''], found['dhcp-authoritative'])
        self.assertNotIn('dhcp-lease-max', found)
        self.assertNotIn('dhcp-option', found)
        self.assertEqual([str(self.root)], unreadable)

    def test_only_some_files_of_a_folder(self) -> None:
        folder = self.root / 'conf.d'
        folder.mkdir()
        (folder / 'a.conf').write_text('dhcp-lease-max=1\n')
        (folder / 'b').write_text('dhcp-lease-max=2\n')
        found, _ = self.settings('-C/dev/null', '-7', f'{folder},*.conf')
        self.assertEqual(['1'], found['dhcp-lease-max'])


class TestRanges(testtools.TestCase):
    """What of --dhcp-range says which guests get something."""

    def wrong(self, *texts: str, known_only: bool = False,
              addresses: tuple[str, ...] = ()) -> str:
        return ' '.join(doctor._check_ranges(
            texts, [base.HostEntry(entry(1).mac, ipaddress.ip_address(a))
                    for a in addresses], known_only))

    def test_serves(self) -> None:
        for text, address in (
                ('192.0.2.0,static,255.255.255.0', '192.0.2.9'),
                ('192.0.2.0,static,255.255.255.0,192.0.2.255,10m',
                 '192.0.2.9'),
                ('set:a,192.0.2.0, static, 255.255.255.128', '192.0.2.127'),
                ('tag:a,192.0.2.0,static', '198.51.100.1'),
                ('192.0.2.0,static,infinite', '198.51.100.1'),
                ('2001:db8::,static', '2001:db8::9'),
                ('2001:db8::,static,64,600', '2001:db8::9'),
                ('2001:db8::,static,ra-names,48', '2001:db8:0:1::9'),
                ('::,constructor:eth0,static', '2001:db8::9')):
            self.assertEqual('', self.wrong(text, addresses=(address,)), text)

    def test_does_not_serve(self) -> None:
        for text, address in (
                ('192.0.2.0,static,255.255.255.0', '192.0.3.9'),
                ('192.0.2.0,static,255.255.255.128', '192.0.2.128'),
                ('192.0.2.0,proxy', '192.0.2.1'),
                ('2001:db8::,static', '2001:db8:0:1::9'),
                ('2001:db8::,ra-only', '2001:db8::9'),
                ('2001:db8::,static,64', '192.0.2.1'),
                ('192.0.2.0,static,255.255.255.0', '2001:db8::1'),
                ('rubbish', '192.0.2.1')):
            self.assertIn('has no dhcp-range for ' + address,
                          self.wrong(text, addresses=(address,)), text)

    def test_unknown_guests(self) -> None:
        for text in ('192.0.2.10,192.0.2.20', '192.0.2.10,192.0.2.20,1h',
                     'set:a,192.0.2.10,192.0.2.20,255.255.255.0,1h',
                     '2001:db8::10,2001:db8::20', '::1,::9,constructor:eth0',
                     '2001:db8::10,2001:db8::20,slaac,64,1h'):
            self.assertIn(f'dhcp-range={text}', self.wrong(text))
            self.assertEqual('', self.wrong(text, known_only=True))

    @hypothesis.given(strategies.text('0123456789.:,/static'))
    def test_anything(self, text: str) -> None:
        doctor._parse_range(text)

    def test_too_many(self) -> None:
        with mock.patch.object(doctor, 'MOST', 1), \
                tempfile.TemporaryDirectory() as path:
            wrong = list(doctor.check_server(
                os.getpid(), path, [entry(1), entry(2)], False))
        self.assertIn('split the pool', ' '.join(wrong))
