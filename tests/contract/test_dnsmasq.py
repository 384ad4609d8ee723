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

import ipaddress
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import testtools

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
                         | driver_base.Capability.LEASE_LIST
                         | driver_base.Capability.IPV6,
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

    def test_client_id_makes_no_difference(self) -> None:
        """Not one that changes, nor one that is another guest's."""
        self.driver.put([entry(1), entry(2), entry(3)])
        for client_id in None, b'\1\2', b'\xff\3':
            self.assertEqual(entry(1).address, self.prober.acquire(
                entry(1).mac, client_id=client_id))
            self.assertEqual(entry(2).address, self.prober.acquire(
                entry(2).mac, client_id=client_id))
        self.assertEqual({entry(1).mac, entry(2).mac},
                         {lease.mac for lease in self.driver.leases()})

    def test_a_burst_is_one_file(self) -> None:
        """dnsmasq looks through all leases for each file."""
        many = [entry(number) for number in range(1, 21)]
        self.driver.put(many)
        self.assertServed(*many)
        self.assertEqual(1, self.dnsmasq.log.read_text().count(
            'new or modified'))

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
        self.prober.discover(entry(1).mac)
        for number in range(1, 6):
            self.driver.remove([entry(number, 10)])
            self.driver.put([entry(number + 1, 10)])
            self.assertEqual(
                entry(1, 10).address,
                self.prober.discover(entry(number + 1).mac))

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
        self.dnsmasq.known_only = False
        (self.hostsdir.parent / 'more.conf').write_text(
            '# dhcp-authoritative\ndhcp-lease-max=2 # few\n')
        self.dnsmasq.extra = [f'--conf-file={self.hostsdir.parent}/more.conf',
                              '-F', '10.66.9.1,10.66.9.9,255.255.0.0',
                              '--no-ping']
        self.server.resume()
        self.driver.put([
            entry(1), entry(2), driver_base.HostEntry(
                entry(3).mac, ipaddress.ip_address('10.67.0.1')),
            driver_base.HostEntry(
                entry(4).mac, ipaddress.ip_address('2001:db8:67::1'))])
        (self.hostsdir / 'vmip-10.66.0.9').write_text('fa:16:3e\n')
        wrong = self.driver.check()
        for text in ('dhcp-authoritative', 'raise dhcp-lease-max',
                     'vmip-10.66.0.9', 'dhcp-range for 10.67.0.1 and',
                     'dhcp-range for 2001:db8:67::1 and',
                     'dhcp-range=10.66.9.1,10.66.9.9,255.255.0.0 to guests'):
            self.assertEqual(1, len([w for w in wrong if text in w]), wrong)
        self.assertEqual(6, len(wrong), wrong)
        # it is true
        self.assertNotServed(base.entry6(4))
        for number in 3, 9:
            self.assertIn('10.66.9.',
                          str(self.prober.discover(entry(number).mac)))

    def test_check_known_only(self) -> None:
        self.server.stop()
        self.dnsmasq.extra += ['-F', '10.66.9.1,10.66.9.9,255.255.0.0']
        self.server.resume()
        self.driver.put([entry(1)])
        self.assertEqual([], self.driver.check())
        self.assertServed(entry(1))
        self.assertNotServed(entry(9), base.entry6(9))
        self.server.stop()
        self.dnsmasq.known_only = False
        self.dnsmasq.extra = ['--dhcp-authoritative']
        self.server.resume()
        wrong, = self.driver.check()
        self.assertIn('add dhcp-ignore=tag:!known', wrong)
        # it is true
        self.assertEqual([6], self.prober.reboot(
            entry(9).mac, entry(9).address, 1))

    def test_duid_says_nothing(self) -> None:
        """dnsmasq asks the neighbour for its MAC."""
        self.driver.put([base.entry6(1), base.entry6(2)])
        mac = bytes.fromhex(entry(2).mac.replace(':', ''))
        self.assertEqual(base.entry6(1).address, self.prober.solicit(
            entry(1).mac, duid=b'\0\3\0\1' + mac))
        self.assertIsNone(self.prober.solicit(
            entry(3).mac, 2, b'\0\3\0\1' + mac))

    def test_reloads_are_rare_where_they_take_long(self) -> None:
        config = self.server.config
        config.write_text(config.read_text() + 'max_pause = 0.01\n')
        driver = self.server.driver()
        (self.hostsdir / 'by-hand').write_text(''.join(
            f'fa:16:3f:00:{n >> 8:02x}:{n & 255:02x},10.66.'
            f'{100 + (n >> 8)}.{n & 255}\n' for n in range(10000)))
        self.count_reloads()
        driver.put([entry(1), entry(2), entry(3)])
        self.assertEqual({}, driver.remove([entry(1)]))
        self.assertEqual(1, self.reloads())
        # from here on it rests
        for _ in range(2):
            failures = driver.remove([entry(2)])
            self.assertEqual([entry(2)], list(failures))
            self.assertIn('split the pool', str(failures[entry(2)]))
            # these do not wait for it
            self.assertEqual({}, driver.put([entry(4)]))
            self.assertEqual({}, driver.remove([entry(5)]))
            self.assertServed(entry(3), entry(4))
            # and this has to
            self.assertEqual([entry(6, 2)],
                             list(driver.put([entry(6, 2), entry(7)])))
        self.assertEqual(1, self.reloads())
        self.assertServed(entry(4))
        lab.wait_for(lambda: not driver.put([entry(6, 2)]))
        self.assertEqual(2, self.reloads())
        self.assertServed(entry(6, 2), entry(3), entry(4), entry(7))
        self.assertNotServed(entry(1), entry(2))
        self.assertEqual({}, driver.remove([entry(2)]))
        self.assertEqual(0, (self.hostsdir / '.vmip-lock').stat().st_size)

    def test_lock_is_held_too_long(self) -> None:
        config = self.server.config
        config.write_text(config.read_text() + 'timeout = 1\n')
        driver, other = self.server.driver(), self.server.driver()
        assert isinstance(other, dnsmasq.DnsmasqDriver)
        with other._folder.locked():
            started = time.monotonic()
            error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                      driver.put, [entry(1)])
            self.assertTrue(0.9 < time.monotonic() - started < lab.PATIENCE)
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
        self.assertIn('vmip-10.66.0.1+1', self.names())
        self.driver.put([entry(3)])
        self.driver.put([entry(6)])
        self.driver.remove([entry(6)])
        self.assertNotIn('vmip-hosts', self.names())
        self.driver.put([entry(6)])
        self.driver.put([entry(4)])
        self.driver.remove([entry(4)])
        self.assertEqual({'.vmip-hosts', '.vmip-lock', 'vmip-hosts'},
                         self.names())
        self.driver.put([entry(4)])
        self.driver.remove([entry(1), entry(6)])
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
        for item in many:
            self.driver.put([item])
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


class TestDnsmasqDBus(base.ReleaseContract, server.DnsmasqContract):
    """With leases ended by D-Bus."""

    def make_server(self) -> server.DnsmasqServer:
        self.bus = self.enter(lab.Bus(self.enter(lab.Folder()).path))
        self.options = ('dbus_service = uk.org.thekelleys.dnsmasq\n'
                        f'dbus_address = {self.bus.address}')
        return super().make_server()

    def test_without_a_release(self) -> None:
        """What it is good for."""
        self.driver.put([entry(1, 10)])
        self.prober.acquire(entry(1).mac)
        self.driver.remove([entry(1, 10)])
        self.driver.put([entry(2, 10)])
        self.assertNotServed(entry(2, 10))
        self.driver.release(self.lease_of(entry(1, 10)))
        self.assertServed(entry(2, 10))

    def test_release6(self) -> None:
        mac = bytes.fromhex('fa163e000001')
        for number, duid in enumerate((
                b'\0\1\0\1\x2c\0\0\0' + mac, b'\0\2\0\0\0\11' + mac,
                b'\0\3\0\1' + mac, b'\0\4' + bytes(range(16))), 1):
            old, new = base.entry6(number, 10), base.entry6(100 + number, 10)
            self.driver.put([old])
            self.assertEqual(old.address,
                             self.prober.acquire6(old.mac, duid=duid))
            self.driver.remove([old])
            self.driver.put([new])
            self.assertNotServed(new)
            self.driver.release(self.lease_of(old))
            self.assertEqual(new.address, self.prober.acquire6(new.mac))
            self.driver.release(self.lease_of(new))
            self.driver.remove([new])

    def test_bus_is_gone(self) -> None:
        self.driver.put([entry(1)])
        self.prober.acquire(entry(1).mac)
        lease = self.lease_of(entry(1))
        assert self.bus is not None
        self.bus.end()
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver.release, lease)
        self.assertIn('dbus_address', str(error))
        self.assertIn('dbus_address', ' '.join(self.driver.check()))
        # it finds its way back to the bus
        self.bus.up()
        self.server.stop()
        self.server.resume()
        self.driver.release(lease)
        self.assertEqual([], list(self.driver.leases()))

    def test_bus_hangs(self) -> None:
        config = self.server.config
        config.write_text(config.read_text() + 'timeout = 1\n')
        driver = self.server.driver()
        driver.put([entry(1)])
        self.prober.acquire(entry(1).mac)
        lease = self.lease_of(entry(1))
        for process in self.bus, self.dnsmasq:
            assert process is not None and process.process is not None
            process.process.send_signal(signal.SIGSTOP)
            started = time.monotonic()
            self.assertRaises(exceptions.DHCPServerUnavailable,
                              driver.release, lease)
            self.assertTrue(0.9 < time.monotonic() - started < lab.PATIENCE)
            process.process.send_signal(signal.SIGCONT)
        driver.release(lease)
        self.assertEqual([], list(self.driver.leases()))

    def test_another_name(self) -> None:
        config = self.server.config
        config.write_text(config.read_text().replace('thekelleys', 'else'))
        wrong = ' '.join(base.load(config).check())
        self.assertIn('set dbus_service', wrong)

    def test_check_sees_that_it_is_off(self) -> None:
        self.server.stop()
        self.dnsmasq.bus = None
        self.server.resume()
        wrong = ' '.join(self.driver.check())
        self.assertIn('without enable-dbus', wrong)


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
        self.driver.put([entry(1)])
        self.driver.put([entry(2)])
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
        many = [entry(number) for number in range(1, 200)]
        self.driver.put(many[:1])
        self.fill()
        os.truncate(self.hostsdir / '.filler', os.path.getsize(
            self.hostsdir / '.filler') - 4096)
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  self.driver.put, many)
        self.assertIn('free some space', str(error))
        self.assertFalse([n for n in self.names() if n.endswith('.tmp')])
        self.assertHeld(entry(1))
        self.assertServed(entry(1))
        self.assertNotServed(entry(2))

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


class Example(lab.Dnsmasq):
    """With the settings of the documentation."""

    def text(self, name: str) -> str:
        """Return an example for this lab's network and folders."""
        text = (base.ROOT / 'doc/examples/dnsmasq' / name).read_text()
        for ours, theirs in (
                ('br-provider', 'br0'),
                ('192.0.2.0,static,255.255.255.0',
                 '10.66.0.0,static,255.255.0.0'),
                ('2001:db8:1::', '2001:db8:66::'),
                ('/var/lib/vmip/dnsmasq/hosts', str(self.hostsdir)),
                ('/var/lib/vmip/dnsmasq/leases', str(self.lease_file)),
                ('/run/vmip-dnsmasq.pid', str(self.pid_file)),
                ('"vmip"', '"nobody"')):
            text = text.replace(ours, theirs)
        return text

    def settings(self) -> list[str]:
        path = self.folder / 'dnsmasq.conf'
        path.write_text(self.text('dnsmasq.conf'))
        return [f'--conf-file={path}']


class TestExample(testtools.TestCase):
    """What the documentation says works."""

    def test_example(self) -> None:
        with lab.Folder() as folder, lab.Bridge() as bridge, \
                lab.Bus(folder.path) as bus, \
                Example(bridge, folder.path, bus=bus) as dnsmasq_, \
                lab.Prober(bridge) as prober:
            config = folder.path / 'vmip.conf'
            config.write_text(dnsmasq_.text('vmip.conf')
                              + f'dbus_address = {bus.address}\n')
            driver = base.load(config)
            self.assertEqual([], driver.check())
            items = [entry(1), base.entry6(1)]
            self.assertEqual({}, driver.put(items))
            self.assertEqual(entry(1).address, prober.acquire(entry(1).mac))
            self.assertEqual(base.entry6(1).address,
                             prober.acquire6(entry(1).mac))
            self.assertIsNone(prober.discover(entry(2).mac, 0.5))
            self.assertIsNone(prober.solicit(entry(2).mac, 2))
            self.assertEqual({}, driver.remove(items))
            lab.wait_for(lambda: len(list(driver.leases())) == 2)
            for lease in list(driver.leases()):
                driver.release(lease)
            self.assertEqual([], list(driver.leases()))
            self.assertEqual([], driver.check())
            # the user who is let through to dnsmasq
            self.assertIn('in the policy', self.version(bus))
            (folder.path / 'policy.conf').write_text(
                dnsmasq_.text('vmip-dbus.conf'))
            assert bus.process is not None
            bus.process.send_signal(signal.SIGHUP)
            lab.wait_for(lambda: '2.' in self.version(bus))

    def version(self, bus: lab.Bus) -> str:
        """Return what nobody is told."""
        program = ('import os, pwd\n'
                   'from vmip_plugin.dhcp.dnsmasq import bus\n'
                   'os.setuid(pwd.getpwnam("nobody").pw_uid)\n'
                   'print(bus.Bus("test", bus.SERVICE, '
                   f'"{bus.address}", 5).version())')
        done = subprocess.run([sys.executable, '-c', program], text=True,
                              cwd=base.ROOT, capture_output=True)
        return done.stdout or done.stderr
