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

"""The contract of the isc driver, with dhcpd and real clients."""

import base64
import contextlib
import re
import signal
import socket
import threading
import time

from tests.contract import base
from tests.contract import isc as server
from tests import lab
from vmip_plugin.dhcp import base as driver_base
from vmip_plugin.dhcp import isc
from vmip_plugin import exceptions

entry = base.entry


class TestIsc(server.IscContract):

    def assertUnavailable(self, text: str, **options: object) -> None:
        """No call works, and each says what to do."""
        self.server.configure(**{'port': self.tunnel.port, **options})
        driver = self.server.driver()
        for change in driver.put, driver.remove:
            error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                      change, [entry(1)])
            self.assertIn(text, str(error))
            self.assertNotIn(server.KEY, str(error))
        self.assertEqual(1, len(driver.check()))
        self.assertIn(text, driver.check()[0])

    def by_hand(self, item: driver_base.HostEntry) -> None:
        """Make a host as the operator does it with omshell."""
        script = (f'server 127.0.0.1\nport 7911\nkey-algorithm hmac-sha256\n'
                  f'key vmip {server.KEY}\nconnect\nnew host\n'
                  f'set name = "scanner"\nset ip-address = {item.address}\n'
                  f'set hardware-address = {item.mac}\n'
                  'set hardware-type = 1\ncreate\n')
        path = self.dhcpd.folder / 'script'
        path.write_text(script)
        self.assertIn('hardware-type = 1', self.dhcpd.bridge.run(
            'sh', '-c', f'omshell < {path}'))

    def test_capabilities(self) -> None:
        self.assertEqual(driver_base.Capability.LIVE_ADD
                         | driver_base.Capability.LIVE_REMOVE
                         | driver_base.Capability.LEASE_LIST,
                         self.driver.capabilities)

    def test_hostname_is_told(self) -> None:
        self.driver.put([entry(1, hostname='web')])
        offer = self.prober.ask(entry(1).mac, {53: b'\x01'})
        assert offer is not None
        self.assertEqual(b'web', offer[1][12])

    def test_nothing_is_written_twice(self) -> None:
        items = [entry(1, hostname='web'), entry(2)]
        self.driver.put(items)
        before = self.dhcpd.lease_file.read_text()
        self.assertEqual({}, self.driver.put(items))
        self.assertEqual(before, self.dhcpd.lease_file.read_text())
        self.driver.put([entry(1, hostname='www'), entry(2)])
        added = self.dhcpd.lease_file.read_text().removeprefix(before)
        self.assertEqual(['vmip-10-66-0-1'] * 2,
                         re.findall(r'^host (\S+) \{', added, re.M))

    def test_stale_lease_of_a_range(self) -> None:
        """What :meth:`_stale_lease` cannot see: hosts have no lease here."""
        self.agent = self.enter(lab.Namespace())
        self.server.bridge.attach(self.agent)
        for number, ident in (1, None), (2, b'\xff\1\2'):
            old, new = entry(number), entry(10 + number, number)
            self.server.lend(old)
            self.assertEqual(old.address, self.prober.acquire(
                old.mac, client_id=ident))
            lease, = self.driver.leases_of([old.address])
            self.assertEqual((old.mac, ident), (lease.mac, lease.client_id))
            *_, end = self._ways_to_end(old, ident)
            end()
            self.assertOver(old)
            self.assertEqual({}, self.driver.put([new]))
            self.assertEqual(new.address, self.prober.acquire(new.mac))

    def test_algorithms(self) -> None:
        text = self.dhcpd.config.read_text()
        for algorithm in 'hmac-md5', 'hmac-sha1', 'hmac-sha512':
            self.server.stop()
            self.dhcpd.config.write_text(
                text.replace('hmac-sha256', algorithm))
            self.server.resume()
            self.server.configure(port=self.tunnel.port,
                                  key_algorithm=algorithm)
            driver = self.server.driver()
            self.assertEqual({}, driver.put([entry(1)]))
            self.assertServed(entry(1))
            self.assertEqual({}, driver.remove([entry(1)]))

    def test_wrong_key(self) -> None:
        self.assertUnavailable(
            'set key as', key=base64.b64encode(b'something else').decode())
        self.assertUnavailable('set key_name and key_algorithm',
                               key_name='other')
        self.assertUnavailable('set key_name and key_algorithm',
                               key_algorithm='hmac-md5')

    def test_no_key_in_dhcpd(self) -> None:
        self.server.stop()
        text = self.dhcpd.config.read_text()
        self.dhcpd.config.write_text(text[text.index('# A guest that'):])
        self.server.append('omapi-port 7911;')
        self.server.resume()
        self.assertUnavailable('as omapi-key there')

    def test_down(self) -> None:
        self.driver.put([entry(1)])
        self.server.stop()
        self.assertUnavailable('start dhcpd')
        self.assertHeld(entry(1))
        self.server.resume()
        self.assertServed(entry(1))

    def test_nobody_listens(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as listener:
            port = listener.getsockname()[1]
        self.assertUnavailable('Connection refused', port=port)

    def test_never_answers(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as listener:
            self.server.configure(port=listener.getsockname()[1], timeout=1)
            started = time.monotonic()
            error = self.assertRaises(
                exceptions.DHCPServerUnavailable,
                self.server.driver().put, [entry(1)])
            self.assertTrue(0.9 < time.monotonic() - started < lab.PATIENCE)
        self.assertIn('timed out', str(error))

    def test_stops_to_answer(self) -> None:
        assert self.dhcpd.process is not None
        self.server.configure(port=self.tunnel.port, timeout=1)
        driver = self.server.driver()
        self.assertEqual({}, driver.put([entry(1)]))
        self.dhcpd.process.send_signal(signal.SIGSTOP)
        try:
            error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                      driver.put, [entry(2)])
        finally:
            self.dhcpd.process.send_signal(signal.SIGCONT)
        self.assertIn('timed out', str(error))
        self.assertEqual({}, driver.put([entry(2)]))
        self.assertServed(entry(1), entry(2))

    def test_another_protocol(self) -> None:
        for answer in (b'HTTP/1.1 400 Bad Request\r\n\r\n', b'', b'\0' * 99,
                       b'\0\0\0\x64\0\0\0\x18' + b'\xff' * 4096):
            with socket.create_server(('127.0.0.1', 0)) as listener:

                def serve(answer: bytes = answer) -> None:
                    for _ in range(4):
                        connection, _ = listener.accept()
                        with connection:
                            connection.sendall(answer)
                            with contextlib.suppress(OSError):
                                connection.recv(1)

                thread = threading.Thread(target=serve)
                thread.start()
                self.assertUnavailable('omapi-port',
                                       port=listener.getsockname()[1],
                                       timeout=1)
                thread.join()

    def test_ends_in_the_middle(self) -> None:
        """What was put is there again, what was not can be put again."""
        many = [entry(number) for number in range(1, 2001)]
        errors: list[exceptions.DHCPError] = []

        def put() -> None:
            try:
                self.driver.put(many)
            except exceptions.DHCPServerUnavailable as exc:
                errors.append(exc)

        thread = threading.Thread(target=put)
        thread.start()
        lab.wait_for(lambda: any(self.driver.entries()))
        self.dhcpd.end(signal.SIGKILL)
        thread.join()
        self.assertEqual(1, len(errors))
        self.server.resume()
        held = list(self.driver.entries())
        self.assertTrue(0 < len(held) < 2000, len(held))
        self.assertServed(*held)
        self.assertEqual({}, self.driver.put(many[:len(held) + 20]))
        self.assertHeld(*many[:len(held) + 20])
        self.assertServed(*many[:len(held) + 20])

    def test_lease_file_is_away(self) -> None:
        for path in self.dhcpd.folder / 'none', self.dhcpd.folder:
            self.server.configure(port=self.tunnel.port, lease_file=path)
            driver = self.server.driver()
            for listed in driver.entries, driver.leases:
                error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                          lambda f=listed: list(f()))
                self.assertIn(str(path), str(error))
                self.assertIn('set lease_file', str(error))
            self.assertEqual(1, len(driver.check()))

    def test_lease_file_of_another(self) -> None:
        self.driver.put([entry(1)])
        other = self.dhcpd.folder / 'other'
        other.write_text(self.dhcpd.lease_file.read_text())
        self.driver.remove([entry(1)])
        self.server.configure(port=self.tunnel.port, lease_file=other)
        self.assertIn('set lease_file', ' '.join(
            self.server.driver().check()))

    def test_mac_of_the_operators(self) -> None:
        self.server.add_foreign(entry(1, 100))
        self.server.stop()
        self.server.resume()
        self.by_hand(entry(2, 200))
        failures = self.driver.put([entry(1), entry(2), entry(3)])
        self.assertEqual({entry(1), entry(2)}, set(failures))
        self.assertIn('printer', str(failures[entry(1)]))
        self.assertIn('scanner', str(failures[entry(2)]))
        self.assertHeld(entry(3))
        self.assertServed(entry(1, 100), entry(2, 200), entry(3))
        self.assertEqual({}, self.driver.remove([entry(1), entry(2)]))
        self.assertServed(entry(1, 100), entry(2, 200), entry(3))

    def test_address_of_the_operators(self) -> None:
        self.driver.put([entry(1)])
        self.server.add_foreign(entry(2, 20))
        failures = self.driver.put([entry(3, 20), entry(4)])
        self.assertEqual([entry(3, 20)], list(failures))
        self.assertIn('printer', str(failures[entry(3, 20)]))
        self.assertHeld(entry(1), entry(4))

    def test_check_finds_the_operators(self) -> None:
        self.driver.put([entry(number) for number in range(1, 6)])
        self.driver.remove([entry(5)])
        self.assertEqual([], self.driver.check())
        self.by_hand(entry(10, 1))
        self.server.append(
            f'host a {{ hardware ethernet {entry(2).mac}; }}'
            f'host b {{ fixed-address name.example, {entry(3).address}; }}')
        wrong = ' '.join(self.driver.check())
        for number, name in (1, 'scanner'), (2, 'a'), (3, 'b'):
            self.assertIn(f'{entry(number).address} of {entry(number).mac} '
                          f'has an entry, and the host {name}', wrong)
        self.assertNotIn(str(entry(4).address), wrong)

    def test_check_finds_what_we_did_not_make(self) -> None:
        with self.driver._server() as connection:
            message = isc.pypureomapi.OmapiMessage.open(b'host')
            message.message += [(b'create', isc._ONE)]
            message.obj = [(b'name', b'vmip-strange'),
                           (b'hardware-address', isc._packed(entry(1).mac)),
                           isc._ETHERNET]
            connection._ask(message)
        self.assertHeld()
        self.assertIn('vmip-strange', ' '.join(self.driver.check()))
        self.assertEqual({}, self.driver.put([entry(1)]))
        self.assertHeld(entry(1))
        self.assertServed(entry(1))

    def test_check_settings(self) -> None:
        self.driver.put([entry(1)])
        path = self.dhcpd.config
        text = path.read_text()
        for old, new, said in (
                ('authoritative;', 'not authoritative;',
                 'add "authoritative;"'),
                ('authoritative;', 'use-host-decl-names on; authoritative;',
                 'remove "use-host-decl-names"'),
                ('10.66.0.0', '10.67.0.0', 'declare the subnet')):
            path.write_text(text.replace(old, new))
            wrong = self.driver.check()
            self.assertEqual(1, len(wrong), wrong)
            self.assertIn(said, wrong[0])
        ranged = text.replace('.0 {\n', '.0 {\n range 10.66.9.1 10.66.9.9;\n')
        path.write_text(ranged)
        self.assertEqual([], self.driver.check())
        for old, new, said in (
                ('deny unknown', 'allow unknown', 'add "deny unknown-clien'),
                ('uids true', 'uids off', 'add "ignore-client-uids true;"'),
                ('range', 'ping-check false; range', 'remove "ping-check"')):
            path.write_text(ranged.replace(old, new))
            wrong = self.driver.check()
            self.assertEqual(1, len(wrong), wrong)
            self.assertIn(said, wrong[0])
        path.unlink()
        self.assertIn('set config_file', self.driver.check()[0])

    def test_threads(self) -> None:
        failures = {}

        def change(first: int) -> None:
            for number in range(first, first + 10):
                failures.update(self.driver.put([entry(number)]))
                failures.update(self.driver.remove([entry(number)]))
                failures.update(self.driver.put([entry(number)]))

        threads = [threading.Thread(target=change, args=(first,))
                   for first in (1, 21, 41, 61)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({}, failures)
        expected = [entry(n) for first in (1, 21, 41, 61)
                    for n in range(first, first + 10)]
        self.assertHeld(*expected)
        self.assertServed(*expected)

    def test_disk_is_full(self) -> None:
        disk = self.dhcpd.folder / 'disk'
        disk.mkdir()
        lab.run('mount', '-t', 'tmpfs', '-o', 'size=256k', 'none', str(disk))
        self.addCleanup(lab.run, 'umount', '-l', str(disk))
        self.server.stop()
        self.dhcpd.lease_file = disk / 'dhcpd.leases'
        self.dhcpd.lease_file.touch()
        self.server.resume()
        self.server.configure(port=self.tunnel.port)
        self.driver = self.server.driver()
        self.driver.put([entry(1), entry(2)])
        with self.assertRaises(OSError), \
                open(disk / 'filler', 'wb', buffering=0) as file:
            while True:
                file.write(bytes(512))
        many = [entry(number) for number in range(1, 63)]
        failures = self.driver.put(many)
        self.assertTrue(0 < len(failures) < 60, len(failures))
        for error in failures.values():
            self.assertIn('free some space', str(error))
        # dhcpd says that it is deleted, and has it in the file for ever
        for _ in range(2):
            gone = self.driver.remove(many[:1])
            self.assertEqual(many[:1], list(gone))
            self.assertIn('can write that file', str(gone[many[0]]))
            self.assertNotServed(many[0])
        (disk / 'filler').unlink()
        self.assertEqual({}, self.driver.put(list(failures)))
        self.assertEqual({}, self.driver.remove(many[:1]))
        self.assertHeld(*many[1:])
        self.assertServed(*many[1:])
        # What follows half of a host in the file dhcpd may not read again,
        # be it a host or that one is deleted. A comparison finds it.
        self.server.stop()
        self.server.resume()
        held = set(self.driver.entries())
        self.assertServed(*held)
        self.assertNotServed(*{many[0], many[-1]} - held)
        self.assertEqual({}, self.driver.remove(held - set(many[1:])))
        self.assertEqual({}, self.driver.put(many[1:]))
        self.assertHeld(*many[1:])
        self.assertServed(*many[1:])
        self.assertNotServed(many[0])
