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


"""The contract of the dnsmasq driver, with dnsmasq and real clients."""

import os
import pathlib
import threading
import time

from tests.contract import base
from tests.contract import dnsmasq as server
from tests import lab
from vmip_plugin.dhcp import base as driver_base
from vmip_plugin.dhcp import dnsmasq
from vmip_plugin import exceptions

entry = base.entry


class TestDnsmasq(server.DnsmasqContract):
    """With the entries in one file each."""

    def test_capabilities(self) -> None:
        self.assertEqual(driver_base.Capability.LIVE_ADD
                         | driver_base.Capability.LEASE_LIST,
                         self.driver.capabilities)

    def test_one_reload_for_each_call_at_most(self) -> None:
        self.count_reloads()
        many = [entry(number) for number in range(1, 21)]
        self.driver.put(many)
        self.driver.put(many)
        self.assertEqual(0, self.reloads())
        self.driver.remove(many[:10])
        self.assertEqual(1, self.reloads())
        self.driver.remove(many[:10])
        self.driver.put([entry(1)])
        self.assertEqual(1, self.reloads())
        self.driver.put([entry(100, 11), entry(101, 12)])
        self.assertEqual(2, self.reloads())

    def test_nothing_is_written_twice(self) -> None:
        self.driver.put([entry(1, hostname='web')])
        path = self.hostsdir / 'vmip-10.66.0.1'
        before = path.stat()
        self.driver.put([entry(1, hostname='web'), entry(2)])
        self.assertEqual(before.st_ino, path.stat().st_ino)
        self.assertNotIn('duplicate', self.dnsmasq.log.read_text())

    def test_dnsmasq_may_read_what_we_write(self) -> None:
        self.addCleanup(os.umask, os.umask(0o077))
        self.driver.put([entry(1)])
        self.assertServed(entry(1))
        self.driver.put([entry(2, 1)])
        self.assertServed(entry(2, 1))

    def test_owed_reload(self) -> None:
        """Killed between the change of the folder and the SIGHUP."""
        self.driver.put([entry(1)])
        self.assertServed(entry(1))
        (self.hostsdir / 'vmip-10.66.0.1').unlink()
        self.driver.put([entry(2, 1)])
        # dnsmasq still has the old line: this is what must be healed
        self.assertServed(entry(1))
        os.truncate(self.hostsdir / '.vmip-lock', 1)
        self.driver.put([entry(2, 1)])
        self.assertServed(entry(2, 1))
        self.assertEqual(0, (self.hostsdir / '.vmip-lock').stat().st_size)

    def test_down(self) -> None:
        self.driver.put([entry(1), entry(2)])
        self.server.stop()
        self.driver.put([entry(3)])
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver.remove, [entry(1)])
        self.assertIn('start dnsmasq', str(error))
        self.assertHeld(entry(2), entry(3))
        # what is owed is not forgotten, and paid by any next call
        self.assertRaises(exceptions.DHCPServerUnavailable,
                          self.driver.remove, [entry(1)])
        self.server.resume()
        self.count_reloads()
        self.assertEqual({}, self.driver.remove([entry(1)]))
        self.assertEqual(1, self.reloads())
        self.assertServed(entry(2), entry(3))
        self.assertNotServed(entry(1))

    def test_pid_of_another_process(self) -> None:
        self.driver.put([entry(1)])
        self.dnsmasq.pid_file.write_text(f'{os.getpid()}\n')
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver.remove, [entry(1)])
        self.assertIn('is not dnsmasq', str(error))

    def test_waits_until_the_folder_is_read(self) -> None:
        """A big folder takes dnsmasq a while."""
        lines = [f'fa:16:3f:00:{n >> 8:02x}:{n & 255:02x},10.66.'
                 f'{100 + (n >> 8)}.{n & 255}\n' for n in range(10000)]
        (self.hostsdir / 'by-hand').write_text(''.join(lines))
        self.driver.put([entry(1, 10)])
        self.prober.discover(entry(1).mac, 60)
        for number in range(1, 6):
            self.driver.remove([entry(number, 10)])
            self.driver.put([entry(number + 1, 10)])
            self.assertEqual(
                entry(1, 10).address,
                self.prober.discover(entry(number + 1).mac, 0.1))

    def test_check(self) -> None:
        other = self.hostsdir.parent / 'other'
        other.mkdir()
        config = self.server.config
        config.write_text(config.read_text().replace(
            f'hostsdir = {self.hostsdir}', f'hostsdir = {other}'))
        self.assertIn('does not watch', ' '.join(base.load(config).check()))
        other.rmdir()
        self.assertIn('create the folder',
                      ' '.join(base.load(config).check()))

    def test_check_options(self) -> None:
        self.server.stop()
        (self.hostsdir.parent / 'more.conf').write_text(
            '# dhcp-authoritative\ndhcp-lease-max=2 # few\n')
        self.dnsmasq.extra = [f'--conf-file={self.hostsdir.parent}/more.conf']
        self.server.resume()
        self.driver.put([entry(1), entry(2)])
        (self.hostsdir / 'vmip-10.66.0.9').write_text('fa:16:3e\n')
        wrong = ' '.join(self.driver.check())
        self.assertIn('add the option', wrong)
        self.assertIn('raise dhcp-lease-max', wrong)
        self.assertIn('vmip-10.66.0.9', wrong)

    def test_lock_is_held_too_long(self) -> None:
        config = self.server.config
        config.write_text(config.read_text() + 'timeout = 1\n')
        driver, other = self.server.driver(), self.server.driver()
        assert isinstance(other, dnsmasq.DnsmasqDriver)
        with other._locked():
            started = time.monotonic()
            error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                      driver.put, [entry(1)])
            self.assertTrue(0.9 < time.monotonic() - started < 3)
        self.assertIn('.vmip-lock', str(error))
        self.assertEqual({}, driver.put([entry(1)]))

    def test_threads(self) -> None:
        errors = []

        def change(first: int) -> None:
            for number in range(first, first + 10):
                try:
                    self.driver.put([entry(number)])
                    self.driver.remove([entry(number)])
                    self.driver.put([entry(number)])
                except Exception as exc:
                    errors.append(exc)

        threads = [threading.Thread(target=change, args=(first,))
                   for first in (1, 21, 41, 61)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([], errors)
        expected = [entry(n) for first in (1, 21, 41, 61)
                    for n in range(first, first + 10)]
        self.assertHeld(*expected)
        self.assertServed(*expected)


class TestDnsmasqCompact(server.DnsmasqContract):
    """With the entries in one file as often as possible."""

    options = 'compact_above = 2'

    def test_files(self) -> None:
        self.driver.put([entry(1), entry(2)])
        self.assertIn('vmip-10.66.0.1', self.names())
        self.driver.put([entry(3)])
        self.assertNotIn('vmip-hosts', self.names())
        self.driver.remove([entry(1)])
        self.assertNotIn('vmip-hosts', self.names())
        self.driver.put([entry(1), entry(4)])
        self.driver.remove([entry(1)])
        self.assertEqual({'.vmip-hosts', '.vmip-lock', 'vmip-hosts'},
                         self.names())
        self.assertHeld(entry(2), entry(3), entry(4))
        self.assertServed(entry(2), entry(3), entry(4))
        self.driver.put([entry(5, 2)])
        self.assertHeld(entry(5, 2), entry(3), entry(4))
        self.assertServed(entry(5, 2), entry(3), entry(4))
        self.assertNotServed(entry(2))

    def test_operators_file_of_that_name(self) -> None:
        path = self.hostsdir / 'vmip-hosts'
        path.write_text('# mine\n')
        many = [entry(number) for number in range(1, 9)]
        self.driver.put(many)
        self.driver.remove(many[:1])
        self.assertEqual('# mine\n', path.read_text())
        self.assertHeld(*many[1:])
        self.assertServed(*many[1:])

    def test_no_flood_in_the_log(self) -> None:
        many = [entry(number) for number in range(1, 101)]
        self.driver.put(many)
        self.driver.remove(many[:1])
        self.driver.remove(many[1:2])
        self.assertServed(*many[2:])
        self.assertNotIn('duplicate', self.dnsmasq.log.read_text())


class TestSmallDisk(server.DnsmasqContract):
    """On a file system of its own, which the test fills and locks."""

    options = 'compact_above = 20'

    def make_hostsdir(self, folder: pathlib.Path) -> pathlib.Path:
        path = super().make_hostsdir(folder)
        lab.run('mount', '-t', 'tmpfs', '-o', 'size=256k,mode=755', 'none',
                str(path))
        self.addCleanup(lab.run, 'umount', '-l', str(path))
        return path

    def fill(self) -> None:
        with self.assertRaises(OSError), \
                open(self.hostsdir / '.filler', 'wb', buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def test_full(self) -> None:
        self.driver.put([entry(1), entry(2)])
        self.fill()
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver.put, [entry(3)])
        self.assertIn(str(self.hostsdir), str(error))
        self.assertIn('free some space', str(error))
        self.assertHeld(entry(1), entry(2))
        self.assertServed(entry(1), entry(2))
        # removing needs no space
        self.assertEqual({}, self.driver.remove([entry(1)]))
        self.assertNotServed(entry(1))
        (self.hostsdir / '.filler').unlink()
        self.assertEqual({}, self.driver.put([entry(3, 1)]))
        self.assertServed(entry(2), entry(3, 1))

    def test_full_in_the_middle(self) -> None:
        many = [entry(number) for number in range(1, 13)]
        self.driver.put(many[:1])
        self.fill()
        os.truncate(self.hostsdir / '.filler', os.path.getsize(
            self.hostsdir / '.filler') - 4 * 4096)
        failures = self.driver.put(many)
        self.assertTrue(0 < len(failures) < 12, failures)
        for error in failures.values():
            self.assertIn('free some space', str(error))
        self.assertHeld(*(e for e in many if e not in failures))
        self.assertServed(*(e for e in many if e not in failures))
        self.assertFalse([n for n in self.names() if n.endswith('.tmp')])

    def test_full_while_compacting(self) -> None:
        many = [entry(number) for number in range(1, 31)]
        for item in many:
            self.driver.put([item])
        self.fill()
        self.assertEqual({}, self.driver.remove(many[:1]))
        self.assertHeld(*many[1:])
        self.assertServed(*many[1:])

    def test_read_only(self) -> None:
        self.driver.put([entry(1)])
        lab.run('mount', '-o', 'remount,ro', str(self.hostsdir))
        for change in self.driver.put, self.driver.remove:
            error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                      change, [entry(1)])
            self.assertIn(str(self.hostsdir), str(error))
            self.assertIn('mount it for writing', str(error))
        self.assertHeld(entry(1))
        self.assertNotEqual([], self.driver.check())
