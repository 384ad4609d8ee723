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

"""The list and real DHCP servers agree, whatever fails in between."""

from collections.abc import Callable, Sequence
import contextlib
import fcntl
import io
import json
import os
import pathlib
import shutil
import signal
import threading
import time
from typing import Any

import fixtures

from tests.functional.dhcp import releasing
from tests import lab
from tests.unit import base
from tests.unit import fakes
from vmip_plugin.cmd import manage
from vmip_plugin import conf as vmip_conf
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin.dhcp import manager
from vmip_plugin.dhcp import work
from vmip_plugin.reclaim import tasks

State = base.State
ip = base.ip

A = '10.66.1.1'
B = '10.66.1.2'
#: seconds that a driver waits
TIMEOUT = 30
BY_HAND = dhcp.HostEntry('fa:16:3f:00:00:01', ip('10.66.9.9'), 'printer')


class AgreementTestCase(base.TestCase):
    """With a list, one or two dnsmasq on one network, and a prober."""

    servers = 'a'
    #: those of the pool; default: each for all of it
    dhcp_servers: Sequence[str] = ()

    def setUp(self) -> None:
        super().setUp()
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.dnsmasq: dict[str, lab.Dnsmasq] = {}
        self.bridges: list[lab.Bridge] = []
        text = (f'[database]\nconnection = {self.connection}\n'
                f'[dhcp]\nservers = {", ".join(self.servers)}\n')
        for number, name in enumerate(self.servers):
            folder = stack.enter_context(lab.Folder()).path
            bridge = stack.enter_context(
                lab.Bridge(f'10.66.255.{254 - number}/16'))
            if self.bridges:
                # what asks one of them asks all
                self.bridges[0].join(bridge)
            self.bridges.append(bridge)
            self.make_hostsdir(folder / 'hosts')
            one = stack.enter_context(lab.Dnsmasq(bridge, folder))
            self.dnsmasq[name] = one
            text += (f'[dhcp:{name}]\ndriver = dnsmasq\n'
                     f'timeout = {TIMEOUT}\n'
                     f'hostsdir = {one.hostsdir}\n'
                     f'pid_file = {one.pid_file}\n'
                     f'lease_file = {one.lease_file}\n')
        self.one = self.dnsmasq['a']
        self.config = self.directory / 'vmip.conf'
        self.config.write_text(text)
        self.guests = stack.enter_context(lab.Prober(self.bridges[0]))
        conf = vmip_conf.new()
        conf(['--config-file', str(self.config)], project='vmip')
        self.drivers = manager.load_drivers(conf)
        self.cloud = fakes.Cloud()
        self.agents = fakes.Agents()
        self.worker = work.Worker(conf, self.inventory, self.drivers,
                                  self.cloud, self.agents)
        self.reclaimer = tasks.Reclaimer(conf, self.inventory, self.worker,
                                         self.cloud)
        self.pool('10.66.1.1', '10.66.1.200', '10.66.0.0/16',
                  dhcp_servers=list(self.dhcp_servers or self.servers),
                  allocator='sticky')

    def make_hostsdir(self, path: pathlib.Path) -> None:
        path.mkdir()

    def port(self, number: int) -> str:
        """Make a port in Neutron; return its address."""
        address = self.claim(number, request=f'req-{number}')
        self.cloud.add(number, address)
        return address

    def serve(self, number: int) -> str:
        address = self.port(number)
        self.assertEqual(1 if self.dhcp_servers else len(self.servers),
                         self.worker.run([base.port_id(number)]))
        return address

    def delete(self, number: int) -> None:
        for _, address in self.cloud.known.pop(
                base.port_id(number)).addresses:
            self.inventory.release_address(base.SUBNET, address, 'deleted')

    def reclaim(self, mend: bool = False) -> None:
        """Do what vmip-reclaimer does in its period, a while later."""
        self.clock.forward(600)
        if mend:
            self.reclaimer.mend()
        self.reclaimer.work()

    def offered(self, number: int) -> str:
        return str(self.guests.discover(base.mac(number)))

    def assert_not_offered(self, number: int) -> None:
        self.assertIsNone(self.guests.discover(base.mac(number), 0.3))

    def held(self, name: str = 'a') -> dict[str, str]:
        return {str(e.address): e.mac for e in sorted(
            self.drivers[name].entries(), key=lambda e: int(e.address))}

    def manage(self, *argv: str, code: int = 0) -> Any:
        """Run vmip-manage; return what it prints as JSON."""
        out = io.StringIO()
        with fixtures.MonkeyPatch('sys.stdout', out), \
                fixtures.MonkeyPatch('sys.stderr', io.StringIO()), \
                fixtures.MonkeyPatch('vmip_plugin.cmd.manage.Manage.cloud',
                                     lambda app: self.cloud):
            self.assertEqual(code, manage.main([
                '--config-file', str(self.config), *argv, '-f', 'json']))
        return json.loads(out.getvalue())

    def pending(self) -> dict[tuple[str, str], str]:
        """Return (server, address) and error of what is still to do."""
        return {(line['server'], line['address']): line['error']
                for line in self.manage('dhcp', 'list', '--pending')}


class TestPair(AgreementTestCase):
    """Two servers for one pool."""

    servers = 'ab'

    @contextlib.contextmanager
    def only(self, name: str) -> Any:
        """Let only one of them answer."""
        other, = (d for n, d in self.dnsmasq.items() if n != name)
        other.end()
        try:
            yield
        finally:
            other.up()

    def served_by_each(self, *numbers: int) -> None:
        for name in self.servers:
            with self.only(name):
                self.assertEqual(
                    [str(row.address) for number in numbers for row in
                     self.inventory.of_ports([base.port_id(number)])],
                    [self.offered(number) for number in numbers])

    def test_both_get_it(self) -> None:
        self.serve(1)
        self.serve(2)
        self.served_by_each(1, 2)
        self.delete(1)
        self.reclaim()
        self.assertEqual(State.FREE, self.state(A))
        self.served_by_each(2)
        for name in self.servers:
            with self.only(name):
                self.assert_not_offered(1)

    def test_one_is_down(self) -> None:
        """It forgets what it has to when it is back, not before."""
        self.serve(1)
        self.serve(2)
        self.delete(1)
        self.dnsmasq['b'].end()
        for _ in range(5):
            self.reclaim()
        self.assertEqual({B: base.mac(2)}, self.held('a'))
        self.assertIn('start dnsmasq', self.pending()['b', A])
        self.assertNotIn(('a', A), self.pending())
        self.assertEqual(State.RELEASING, self.state(A))
        # whoever comes meanwhile is served
        self.assertEqual('10.66.1.3', self.port(3))
        self.assertEqual(1, self.worker.run([base.port_id(3)]))
        self.assertEqual('10.66.1.3', self.offered(3))
        self.dnsmasq['b'].up()
        self.reclaim()
        self.assertEqual(State.FREE, self.state(A))
        self.assertEqual({}, self.pending())
        self.served_by_each(2, 3)

    def test_one_cannot_be_written_to(self) -> None:
        folder = self.dnsmasq['b'].hostsdir
        folder.rename(folder.with_name('away'))
        for number in (1, 2):
            self.port(number)
        self.reclaim()
        self.assertEqual(A, self.offered(1))
        self.assertEqual([A, B], [address for _, address in self.pending()])
        for error in self.pending().values():
            self.assertIn('create the folder', error)
        self.dnsmasq['b'].end()
        folder.with_name('away').rename(folder)
        self.dnsmasq['b'].up()
        self.reclaim()
        self.served_by_each(1, 2)

    def test_one_hangs(self) -> None:
        """The other does not wait for it, and goes on being written to."""
        self.serve(1)
        self.delete(1)
        self.clock.forward(600)
        lock = os.open(self.dnsmasq['b'].hostsdir / '.vmip-lock',
                       os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            started = time.monotonic()
            self.worker.run(patience=0.2)
            self.port(2)
            self.clock.forward(600)
            self.worker.run(patience=0.2)
            lab.wait_for(lambda: self.held('a') == {B: base.mac(2)})
            self.assertEqual(B, self.offered(2))
            self.assertEqual({A: base.mac(1)}, self.held('b'))
            self.assertLess(time.monotonic() - started, TIMEOUT)
        finally:
            os.close(lock)
        lab.wait_for(lambda: self.reclaim() or self.held('b') == {
            B: base.mac(2)})
        self.served_by_each(2)

    def test_two_workers(self) -> None:
        """vmip-listener and vmip-reclaimer, at once, on both servers."""
        for number in range(1, 41):
            self.port(number)
        self.clock.forward(600)
        workers = [work.Worker(self.conf, self.new_inventory(name),
                               self.drivers, self.cloud, None)
                   for name in ('listener', 'reclaimer')]
        threads = [threading.Thread(target=worker.run, args=args)
                   for worker in workers for args in (
                       (), ([base.port_id(n) for n in range(1, 41, 3)],))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({}, self.pending())
        self.assertEqual([40, 40], [len(self.held(n)) for n in 'ab'])
        self.assertEqual([], self.manage('dhcp', 'check'))
        self.served_by_each(1, 20, 40)


class TestDrift(AgreementTestCase):
    """A server has lost what it had, or has what nobody wants."""

    def setUp(self) -> None:
        super().setUp()
        (self.one.hostsdir / 'by-hand').write_text(
            f'{BY_HAND.mac},{BY_HAND.address},{BY_HAND.hostname}\n')
        for number in range(1, 9):
            self.serve(number)
        self.wanted = self.held()
        self.assertEqual(8, len(self.wanted))

    def lose(self) -> None:
        """Restart it without its data."""
        self.one.end()
        for path in self.one.hostsdir.iterdir():
            if path.name != 'by-hand':
                path.unlink()
        self.one.up()
        self.assert_not_offered(1)

    def stray(self) -> None:
        self.drivers['a'].put([dhcp.HostEntry(base.mac(99),
                                              ip('10.66.1.99'))])
        self.assertEqual('10.66.1.99', self.offered(99))

    def assert_mended(self) -> None:
        self.assertEqual(self.wanted, self.held())
        self.assertEqual(list(self.wanted), [
            self.offered(number) for number in range(1, 9)])
        self.assert_not_offered(99)
        self.assertEqual(BY_HAND.address, self.guests.discover(BY_HAND.mac))
        self.assertEqual([], self.manage('dhcp', 'check'))

    def test_mended_by_the_reclaimer(self) -> None:
        self.lose()
        self.stray()
        self.reclaim(mend=True)
        self.assert_mended()

    def test_synced_by_the_operator(self) -> None:
        self.lose()
        self.stray()
        self.assertEqual(9, len(self.manage('dhcp', 'check', code=1)))
        expected = {(address, 'write') for address in self.wanted} | {
            ('10.66.1.99', 'remove')}
        for argv, code, result in ((['--dry-run'], 1, 'would be done'),
                                   ([], 0, 'done')):
            found = self.manage('dhcp', 'sync', *argv, code=code)
            self.assertEqual(expected, {
                (line['address'], line['action']) for line in found})
            self.assertEqual({result}, {line['result'] for line in found})
        self.assert_mended()

    def test_synced_while_the_cloud_lives(self) -> None:
        """Ports come and go while it is synced again and again."""
        stop = threading.Event()
        errors = []

        def live() -> None:
            worker = work.Worker(self.conf, self.new_inventory('listener'),
                                 self.drivers, self.cloud, None)
            number = 100
            while not stop.is_set():
                number += 1
                try:
                    self.port(number)
                    worker.run([base.port_id(number)])
                    if number % 2:
                        self.delete(number)
                        worker.run([base.port_id(number)])
                except Exception as exc:
                    errors.append(exc)

        thread = threading.Thread(target=live)
        thread.start()
        try:
            for _ in range(10):
                self.stray()
                self.worker.sync('a')
                self.assertNotIn('10.66.1.99', self.held())
        finally:
            stop.set()
            thread.join()
        self.assertEqual([], errors)
        self.assertEqual({}, self.worker.sync('a'))
        self.assertEqual([], work.differences(self.inventory,
                                              self.drivers['a']))
        self.assertEqual('10.66.1.1', self.offered(1))

    def test_sync_says_what_is_left(self) -> None:
        self.stray()
        self.one.end()
        for _ in range(2):
            # it may still serve what is in none of its files any more
            line, = self.manage('dhcp', 'sync', code=1)
            self.assertIn('start dnsmasq', line['result'])
        self.one.up()
        self.assertEqual([], self.manage('dhcp', 'sync'))
        self.assert_mended()

    def test_mended_where_a_reload_is_owed(self) -> None:
        """A removal that was cut off between the folder and the SIGHUP."""
        self.stray()
        (self.one.hostsdir / 'vmip-10.66.1.99').unlink()
        os.truncate(self.one.hostsdir / '.vmip-lock', 1)
        self.assertEqual('10.66.1.99', self.offered(99))
        self.reclaim(mend=True)
        self.assert_mended()

    def test_doctor(self) -> None:
        line, = self.manage('dhcp', 'doctor')
        self.assertEqual(('a', 'dnsmasq', True, ''), tuple(line.values()))
        self.one.end()
        line, = self.manage('dhcp', 'doctor', code=1)
        self.assertIn('start dnsmasq', line['finding'])
        # what it has to serve is a question of its own
        self.assertEqual([], self.manage('dhcp', 'check'))


class TestFailures(AgreementTestCase):
    """Each is named, tried again with back-off, and loses nothing."""

    def make_hostsdir(self, path: pathlib.Path) -> None:
        super().make_hostsdir(path)
        lab.run('mount', '-t', 'tmpfs', '-o', 'size=256k,mode=755', 'none',
                str(path))
        self.addCleanup(lab.run, 'umount', '-l', str(path))

    def assert_waits(self, says: str, number: int, heal: Callable[[], Any],
                     ) -> None:
        """The work of a port waits, and is done when it can be.

        :param says: what is said of it.
        """
        address = str(self.inventory.of_ports(
            [base.port_id(number)])[0].address)
        delays = []
        self.clock.forward(10)
        for _ in range(3):
            self.worker.run()
            entry, = self.inventory.entries(pending=True)
            self.assertEqual(address, str(entry.address))
            delays.append((entry.next_try_at
                           - self.clock.now).total_seconds())
            self.clock.now = entry.next_try_at
        # an entry that fails waits twice as long each time, one that waits for
        # its server never long
        self.assertEqual([1.0, 2.0], delays[:2])
        self.assertTrue(2 < delays[2] <= work.PARTY_WAIT, delays)
        self.assertIn(says, self.pending()['a', address])
        self.assertIn(says, self.log.output)
        heal()
        self.worker.run()
        self.assertEqual({}, self.pending())

    def test_disk_is_full(self) -> None:
        self.serve(1)
        filler = self.one.hostsdir / '.filler'
        with contextlib.suppress(OSError), \
                open(filler, 'wb', buffering=0) as file:
            while True:
                file.write(bytes(4096))
        address = self.port(2)
        self.assert_waits('free some space', 2, filler.unlink)
        self.assertEqual([A, address], [self.offered(n) for n in (1, 2)])

    def test_read_only(self) -> None:
        self.serve(1)
        mount = ('mount', '-o')
        folder = str(self.one.hostsdir)
        lab.run(*mount, 'remount,ro', folder)
        address = self.port(2)
        self.assert_waits('mount it for writing', 2, lambda: lab.run(
            *mount, 'remount,rw', folder))
        self.assertEqual([A, address], [self.offered(n) for n in (1, 2)])

    def test_down(self) -> None:
        self.serve(1)
        self.serve(2)
        self.delete(1)
        self.one.end()
        self.assert_waits('start dnsmasq', 1, self.one.up)
        self.assert_not_offered(1)
        self.assertEqual(B, self.offered(2))
        self.assertEqual(State.FREE, self.state(A))

    def test_slow(self) -> None:
        self.serve(1)
        self.serve(2)
        self.delete(1)
        process = self.one.process
        assert process is not None
        patient = self.worker
        self.config.write_text(self.config.read_text().replace(
            f'timeout = {TIMEOUT}', 'timeout = 1'))
        conf = vmip_conf.load(str(self.config))
        self.worker = work.Worker(conf, self.inventory,
                                  manager.load_drivers(conf), self.cloud,
                                  self.agents)

        def heal() -> None:
            process.send_signal(signal.SIGCONT)
            self.worker = patient

        process.send_signal(signal.SIGSTOP)
        try:
            self.assert_waits('has not read', 1, heal)
        finally:
            process.send_signal(signal.SIGCONT)
        self.assert_not_offered(1)
        self.assertEqual(B, self.offered(2))

    def test_folder_is_lost(self) -> None:
        """With the whole file system, and all that was in it."""
        for number in range(1, 5):
            self.serve(number)
        wanted = self.held()
        self.one.end()
        lab.run('umount', '-l', str(self.one.hostsdir))
        shutil.rmtree(self.one.hostsdir)
        self.port(5)
        self.assert_waits('create the folder', 5, self.one.hostsdir.mkdir)
        lab.run('mount', '--bind', *[str(self.one.hostsdir)] * 2)
        self.one.up()
        self.reclaim(mend=True)
        self.assertEqual(wanted | {'10.66.1.5': base.mac(5)}, self.held())
        self.assertEqual(list(wanted), [
            self.offered(number) for number in range(1, 5)])


class TestLeases(AgreementTestCase):
    """The address that still has another's lease."""

    def setUp(self) -> None:
        super().setUp()
        self.driver = releasing.made(self.drivers['a'], self.bridges[0])

    def lease(self, number: int) -> str:
        address = str(self.guests.acquire(base.mac(number),
                                          client_id=b'\xff\x00\x01'))
        lab.wait_for(lambda: list(self.driver.leases_of([ip(address)])))
        return address

    def test_freed_in_one_pass(self) -> None:
        self.serve(1)
        self.assertEqual(A, self.lease(1))
        self.delete(1)
        self.reclaim()
        self.assertEqual(State.FREE, self.state(A))
        self.assertEqual([], list(self.driver.leases()))

    def test_first_discover_of_the_next(self) -> None:
        """Which comes while the lease of the one before is still there."""
        self.reserve('web', request='req-1')
        self.serve(1)
        self.assertEqual(A, self.lease(1))
        self.delete(1)
        self.driver.refuses = True
        self.reclaim()
        self.assertEqual('busy: try later', self.pending()['a', A])
        self.driver.refuses = False
        # with its old name it has its old address
        self.reserve('web', request='req-2')
        self.assertEqual(A, self.serve(2))
        self.assertEqual(A, self.offered(2))
        self.assert_not_offered(1)
        self.assertEqual([], self.agents.hints)

    def test_of_somebody_who_may_be_alive(self) -> None:
        """Who has it by the operator's hand is nobody's to throw out."""
        mac = 'fa:16:3f:00:00:02'
        path = self.one.hostsdir / 'by-hand'
        path.write_text(f'{mac},{A}\n')
        lab.wait_for(lambda: self.guests.acquire(mac, 0.2))
        lab.wait_for(lambda: list(self.driver.leases()))
        self.port(1)
        self.reclaim()
        self.assertIn('the list knows no server', self.pending()['a', A])
        self.assertEqual([mac], [e.mac for e in self.driver.leases()])
        self.assertEqual(A, str(self.guests.acquire(mac)))
