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

"""What the isc driver reads: lease files and dhcpd.conf.

What dhcpd itself does is in tests/contract.
"""

import datetime
import ipaddress
import pathlib
import shutil
import tempfile
from typing import Any
from unittest import mock

import hypothesis
from hypothesis import strategies
import testtools

from oslo_config import cfg
import tests
from vmip_plugin.conf import dhcp
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import dhcpdconf
from vmip_plugin.dhcp import isc
from vmip_plugin import exceptions

KEY = 'c2VjcmV0'
FUTURE = datetime.datetime(2199, 12, 31, 23, 59, 58, tzinfo=datetime.UTC)

LEASE = r'''lease 192.0.2.9 {
  starts 2 2026/11/24 23:04:06;
  ends 2 2199/12/31 23:59:58;
  tstp 2 2199/12/31 23:59:58;
  cltt 2 2026/11/24 23:04:06;
  binding state active;
  next binding state free;
  rewind binding state free;
  hardware ethernet fa:16:3e:00:00:09;
  uid "\001a\"\\\377}";
  set vendor-class-identifier = "x { ends never; }";
  client-hostname "} binding state free; {";
}
'''


def entry(number: int, host: int | None = None,
          hostname: str | None = None) -> base.HostEntry:
    return base.HostEntry(
        f'fa:16:3e:00:00:{number:02x}',
        ipaddress.IPv4Address(f'192.0.2.{host or number}'), hostname)


def block(item: base.HostEntry) -> str:
    """Write an entry as dhcpd does."""
    name = '' if item.hostname is None else (
        f'        supersede host-name = "{item.hostname}";\n')
    return (f'host vmip-{str(item.address).replace(".", "-")} {{\n'
            f'  dynamic;\n  hardware ethernet {item.mac};\n'
            f'  fixed-address {item.address};\n{name}}}\n')


def deleted(item: base.HostEntry) -> str:
    return (f'host vmip-{str(item.address).replace(".", "-")} {{\n'
            '  dynamic;\n  deleted;\n}\n')


class Base(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.lease_file = self.root / 'dhcpd.leases'

    def driver(self, **values: Any) -> isc.IscDriver:
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[])
        group = dhcp.register_server(conf, 'test', isc.IscDriver.OPTS)
        for name, value in ({'key_name': 'vmip', 'key': KEY,
                             'lease_file': str(self.lease_file)}
                            | values).items():
            conf.set_override(name, value, 'dhcp:test')
        return isc.IscDriver('test', group)

    def entries(self, text: str | bytes) -> list[base.HostEntry]:
        self.lease_file.write_bytes(
            text if isinstance(text, bytes) else text.encode())
        return list(self.driver().entries())

    def leases(self, text: str | bytes) -> list[base.Lease]:
        self.entries(text)
        return list(self.driver().leases())


class TestOptions(Base):

    def test_needed(self) -> None:
        for name in 'key_name', 'key', 'lease_file':
            error = self.assertRaises(exceptions.ConfigError, self.driver,
                                      **{name: None})
            self.assertIn(name, str(error))

    def test_key(self) -> None:
        for values in ({'key': 'not base64!'}, {'key': '\u00fc'},
                       {'key': 'c2Vj\n!'}, {'key_name': '\u00fc'}):
            error = self.assertRaises(exceptions.ConfigError, self.driver,
                                      **values)
            self.assertNotIn(values.get('key', KEY), str(error))
            self.assertIsNone(error.__cause__)

    def test_secret(self) -> None:
        self.assertTrue(next(option for option in isc.IscDriver.OPTS
                             if option.name == 'key').secret)

    def test_server_id(self) -> None:
        self.assertIsNone(self.driver().server_id)
        self.assertEqual(ipaddress.IPv4Address('192.0.2.1'),
                         self.driver(server_id='192.0.2.1').server_id)


class TestLast(testtools.TestCase):

    def test_last_holds(self) -> None:
        for given, expected in (
                ([entry(1), entry(1)], [entry(1)]),
                ([entry(1, 10), entry(2, 10)], [entry(2, 10)]),
                ([entry(1, 10), entry(1, 11)], [entry(1, 11)]),
                ([entry(1, 10), entry(2, 10), entry(1, 11), entry(2, 11)],
                 [entry(2, 11)]),
                ([entry(1, 10), entry(2, 11), entry(1, 11)],
                 [entry(1, 11)])):
            self.assertEqual(expected, list(isc._last(given)))

    @hypothesis.given(strategies.lists(strategies.tuples(
        strategies.integers(1, 4), strategies.integers(1, 4))))
    def test_one_of_each(self, pairs: list[tuple[int, int]]) -> None:
        given = [entry(*pair) for pair in pairs]
        held = list(isc._last(given))
        self.assertEqual(len(held), len({e.mac for e in held}))
        self.assertEqual(len(held), len({e.address for e in held}))
        self.assertEqual(given[-1:], held[-1:])
        for item in given:
            # whoever is not there was replaced by a later one
            if item not in held:
                later = given[given.index(item) + 1:]
                self.assertTrue(any(item.mac == e.mac
                                    or item.address == e.address
                                    for e in later))


class TestEntries(Base):

    def test_journal(self) -> None:
        self.assertEqual(
            [entry(1, hostname='b'), entry(3, 2)],
            self.entries(block(entry(1, hostname='a')) + block(entry(2))
                         + deleted(entry(1)) + deleted(entry(2))
                         + block(entry(3, 2))
                         + block(entry(1, hostname='b'))))

    def test_only_ours(self) -> None:
        mine = block(entry(1))
        for text in (
                mine.replace('vmip-', 'printer-'),
                mine.replace('vmip-192-0-2-1', 'vmip-192-0-2-2'),
                mine.replace('vmip-192-0-2-1', 'vmip-192.0.2.1'),
                mine.replace('vmip-192-0-2-1', 'vmip-192-0-2-01'),
                mine.replace('.2.1;', '.2.1, 192.0.2.2;'),
                mine.replace('.2.1;', '.2.300;'),
                mine.replace('fa:16:3e', 'fa:16:'),
                mine.replace('ethernet', 'token-ring'),
                mine.replace('hardware', '# hardware'),
                mine.replace('}', ' }')):
            self.assertEqual([], self.entries(text), text)

    def test_hostname_of_somebody_else(self) -> None:
        mine = block(entry(1, hostname='web'))
        for name in 'a"b', '-a', 'A' * 64, 'a b', '\\"', 'a.b':
            self.assertEqual([entry(1)],
                             self.entries(mine.replace('web', name)))

    def test_cut_off_anywhere(self) -> None:
        text = (block(entry(1)) + block(entry(2, hostname='web'))
                + deleted(entry(1)) + LEASE + block(entry(3, 1)))
        for end in range(len(text)):
            done = text[:end]
            expected = []
            if block(entry(3, 1)) in done:
                expected.append(entry(3, 1))
            elif block(entry(1)) in done and deleted(entry(1)) not in done:
                expected.append(entry(1))
            if block(entry(2, hostname='web')) in done:
                expected.append(entry(2, hostname='web'))
            self.assertEqual(expected, self.entries(done), done[-60:])

    def test_cut_off_and_gone_on(self) -> None:
        """After a full disk, say."""
        for end in range(len(block(entry(1))) - 1):
            self.assertEqual(
                [entry(2)],
                self.entries(block(entry(1))[:end] + '\n' + LEASE
                             + block(entry(2))))

    def test_chunks(self) -> None:
        text = ''.join(block(entry(n, hostname=f'h{n}')) + LEASE
                       for n in range(1, 30))
        expected = [entry(n, hostname=f'h{n}') for n in range(1, 30)]
        for size in 700, 1000, 4096:
            with mock.patch.object(isc, '_CHUNK', size):
                self.assertEqual(expected, self.entries(text))

    def test_endless_block(self) -> None:
        for number in range(900, 960):
            with mock.patch.object(isc, '_CHUNK', 512):
                self.assertEqual([entry(1), entry(2)], self.entries(
                    'host vmip-192-0-2-3 {\n' + '  dynamic;\n' * number
                    + block(entry(1)) + block(entry(2))))

    @hypothesis.given(strategies.binary())
    def test_any_bytes(self, data: bytes) -> None:
        self.assertEqual([], self.entries(data))
        self.assertEqual([], self.leases(data))

    @hypothesis.given(strategies.lists(strategies.sampled_from([
        block(entry(1)), deleted(entry(1)), LEASE, '}', '{', '\n', 'host ',
        'lease ', 'vmip-192-0-2-1', '  deleted;\n', '"', '\\', '\0', '  ',
        '  fixed-address 192.0.2.1;\n', '\r', '#', 'b\u00fccher'])))
    def test_pieces(self, pieces: list[str]) -> None:
        self.assertIn(self.entries(''.join(pieces)), ([], [entry(1)]))
        self.assertIn(len(self.leases(''.join(pieces))), (0, 1))

    @hypothesis.given(strategies.text(strategies.characters(
        min_codepoint=32, max_codepoint=126)))
    def test_what_a_guest_calls_itself(self, name: str) -> None:
        quoted = name.replace('\\', '\\\\').replace('"', '\\"')
        text = LEASE.replace('} binding state free; {', quoted)
        self.assertEqual(self.leases(LEASE), self.leases(text))
        self.assertEqual([entry(1)], self.entries(text + block(entry(1))))


class TestLeases(Base):

    def test_lease(self) -> None:
        self.assertEqual(
            [base.Lease(ipaddress.IPv4Address('192.0.2.9'),
                        'fa:16:3e:00:00:09', b'\x01a"\\\xff}', FUTURE)],
            self.leases(LEASE))

    def test_client_id(self) -> None:
        for text, expected in (
                ('01:fa:16:3e:0:0:9', bytes.fromhex('01fa163e000009')),
                ('"\\000"', b'\0'), ('""', b''), ('"\\477"', None),
                ('"\\x"', None), ('"a', None), ('1:', None),
                ('abc', None)):
            lease, = self.leases(
                LEASE.replace(r'"\001a\"\\\377}"', text))
            self.assertEqual(expected, lease.client_id, text)
        lease, = self.leases(LEASE.replace('  uid', '  #uid'))
        self.assertIsNone(lease.client_id)

    def test_ends(self) -> None:
        for text, expected in (
                ('never', None),
                ('epoch 7258118398; # Tue', FUTURE)):
            lease, = self.leases(LEASE.replace(
                'ends 2 2199/12/31 23:59:58', f'ends {text}'))
            self.assertEqual(expected, lease.expires)
        for text in ('2 2026/11/24 00:00:00', 'epoch 1', '2 2199/13/31 1',
                     '2 2199/13/31 23:59:58', '', 'epoch 99999999999'):
            self.assertIn(len(self.leases(LEASE.replace(
                'ends 2 2199/12/31 23:59:58', f'ends {text}'))),
                (0, 1) if '999' in text else (0,), text)

    def test_not_running(self) -> None:
        for state in 'free', 'expired', 'released', 'abandoned', 'backup':
            self.assertEqual([], self.leases(LEASE.replace(
                'binding state active', f'binding state {state}')))
            self.assertEqual([], self.leases(LEASE + LEASE.replace(
                'binding state active', f'binding state {state}')))
        self.assertEqual([], self.leases(LEASE.replace('.2.9 {', '.2.999 {')))

    def test_last_holds(self) -> None:
        other = LEASE.replace('00:09;', '00:0a;')
        self.assertEqual(['fa:16:3e:00:00:0a'], [
            lease.mac for lease in self.leases(LEASE + other)])

    def test_no_ethernet(self) -> None:
        for text in 'token-ring fa:16:3e:00:00:09', 'ethernet fa:16':
            lease, = self.leases(LEASE.replace(
                'ethernet fa:16:3e:00:00:09', text))
            self.assertIsNone(lease.mac)


class TestConf(Base):

    def read(self, text: str) -> dhcpdconf.Conf:
        path = self.root / 'dhcpd.conf'
        path.write_text(text)
        return dhcpdconf.read(str(path))

    def test_hosts(self) -> None:
        conf = self.read('''
            # host no { fixed-address 192.0.2.1; }
            group { option domain-name "} host no { fixed-address 192.0.2.2;";
              host "a" { hardware ethernet FA:16:3e:0:0:1;
                fixed-address 192.0.2.3, b.example,192.0.2.4; } }
            host c { hardware token-ring 1:2; fixed-address c.example; }''')
        self.assertEqual({ipaddress.IPv4Address('192.0.2.3'): 'a',
                          ipaddress.IPv4Address('192.0.2.4'): 'a'},
                         conf.addresses)
        self.assertEqual({'fa:16:3e:00:00:01': 'a'}, conf.macs)

    def test_scopes(self) -> None:
        good = ('subnet 192.0.2.0 netmask 255.255.255.0 { %s }'
                'deny unknown-clients; ignore-client-uids true;')
        for text in ('authoritative;', 'pool { range 192.0.2.1; }'):
            conf = self.read(good % text)
            self.assertEqual('authoritative' not in text,
                             bool(conf.complaints), conf.complaints)
        self.assertEqual([ipaddress.IPv4Network('192.0.2.0/24')],
                         conf.subnets)
        for text, said in (
                ('pool { allow unknown-clients; range 192.0.2.1; }', 1),
                ('pool { allow known-clients; range 192.0.2.1; }', 0),
                ('range 192.0.2.1; pool { allow unknown-clients; }', 0),
                ('boot-unknown-clients true; range 192.0.2.1;', 1),
                ('ignore-client-uids off; range 192.0.2.1;', 1),
                ('ignore-client-uids off; ping-check off;', 0)):
            conf = self.read(good % f'authoritative; {text}')
            self.assertEqual(said, len(conf.complaints), text)

    def test_include(self) -> None:
        other = self.root / 'other.conf'
        other.write_text('authoritative; host a { fixed-address 192.0.2.1; '
                         f'}} include "{self.root}/dhcpd.conf";')
        text = f'include "{other}"; subnet 10.0.0.0 netmask 255.0.0.0 {{ }}'
        conf = self.read(text)
        self.assertEqual(['a'], list(conf.addresses.values()))
        self.assertEqual([], conf.complaints)
        self.assertTrue(conf.is_current())
        other.write_text('')
        self.assertFalse(conf.is_current())
        other.unlink()
        self.assertFalse(conf.is_current())
        self.assertRaises(FileNotFoundError, self.read, text)

    def test_deep(self) -> None:
        self.read('a {' * 100000)

    def test_include_of_no_file(self) -> None:
        """It is told of as any file that cannot be read."""
        error = self.assertRaises(OSError, self.read, 'include "\0";')
        self.assertEqual(("'\\x00'", 'Invalid argument'),
                         (error.filename, error.strerror))
        for name in ('', '.', 'a' * 5000, '\udcff'):
            self.assertRaises(OSError, self.read,
                              f'include "{name}";'.encode(
                                  'utf-8', 'replace').decode())

    @hypothesis.settings(max_examples=tests.examples(300))
    @hypothesis.given(strategies.lists(strategies.sampled_from([
        '{', '}', ';', '"', '#', '\n', ' ', '\\', 'host a ', 'range', '\0',
        'subnet 10.0.0.0 netmask 255.0.0.0 ', 'fixed-address ', '10.0.0.1',
        'hardware ethernet ', 'a:b:c', 'include ', 'b\u00fccher', ','])))
    def test_any_text(self, pieces: list[str]) -> None:
        try:
            self.read(''.join(pieces))
        except OSError as exc:
            self.assertIn('include ', pieces)
            self.assertNotEqual('', exc.strerror)
