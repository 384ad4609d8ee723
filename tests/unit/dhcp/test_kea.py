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

"""What the Kea driver makes of its options, and of any answer.

What Kea does is in tests/contract.
"""

import contextlib
import ipaddress
import json
import pathlib
import re
import shutil
import socket
import tempfile
import threading
from typing import Any
from unittest import mock

import hypothesis
from hypothesis import strategies
import testtools

from oslo_config import cfg
import tests
from vmip_plugin.conf import dhcp
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import kea
from vmip_plugin.dhcp.kea import daemon
from vmip_plugin.dhcp.kea import host
from vmip_plugin import exceptions

ENTRY = base.HostEntry('fa:16:3e:00:00:01',
                       ipaddress.IPv4Address('192.0.2.1'))
URL = 'mysql+pymysql://vmip:unguessed@db/kea'

_JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers()
    | strategies.text(max_size=8),
    lambda inner: strategies.lists(inner, max_size=3)
    | strategies.dictionaries(strategies.sampled_from(
        ['result', 'text', 'arguments', 'Dhcp4', 'subnet4', 'id', 'subnet',
         'hosts', 'reservations', 'user-context']), inner, max_size=4),
    max_leaves=12)


def driver(**options: Any) -> kea.KeaDriver:
    conf = cfg.ConfigOpts()
    group = dhcp.register_server(conf, 'test', kea.KeaDriver.OPTS)
    conf([])
    for name, value in options.items():
        conf.set_override(name, value, group='dhcp:test')
    return kea.KeaDriver('test', group)


class TestOptions(testtools.TestCase):

    def _refused(self, words: str, **options: Any) -> None:
        error = self.assertRaises(exceptions.ConfigError, driver, **options)
        self.assertIn(words, str(error))
        self.assertNotIn('unguessed', str(error))

    def test_refused(self) -> None:
        self._refused('set hosts_database to')
        self._refused('set subnets', hosts_database=URL)
        for subnet in '192.0.2.0/24', '192.0.2.0/24=', '=1', '192.0.2.1/24=1':
            self._refused('does not look like', hosts_database=URL,
                          subnets=[subnet])
        for target in ('run/kea', 'ftp://kea/', 'http:///', 'http://[',
                       'http://admin:unguessed@kea:8000/'):
            self._refused('control must be', control=target)
        for url in ('sqlite://', 'unguessed', 'mysql+pymysql://vmip@db',
                    'oracle://vmip:unguessed@db/kea',
                    'nosuch+driver://vmip:unguessed@db/kea'):
            self._refused('hosts_database', hosts_database=url,
                          subnets=['192.0.2.0/24=1'])

    def test_capabilities(self) -> None:
        live = base.Capability.LIVE_ADD | base.Capability.LIVE_REMOVE
        leases = base.Capability.LEASE_LIST | base.Capability.LEASE_RELEASE
        shared, six = base.Capability.SHARED_STORE, base.Capability.IPV6
        self.assertEqual(live | shared, driver(
            hosts_database=URL, subnets=['192.0.2.0/24=1']).capabilities)
        self.assertEqual(live | shared | six, driver(
            hosts_database=URL, control='/socket',
            subnets=['2001:db8::/64=1']).capabilities)
        self.assertEqual(live | leases,
                         driver(control='/socket').capabilities)
        self.assertEqual(live | leases | six, driver(
            control='/socket', control6='/socket6').capabilities)

    def test_server_id(self) -> None:
        self.assertIsNone(driver(control='/socket').server_id)
        self.assertEqual(ipaddress.IPv4Address('192.0.2.1'), driver(
            control='/socket', server_id='192.0.2.1').server_id)

    def test_longest_prefix(self) -> None:
        known = daemon.Known(driver(hosts_database=URL, subnets=[
            '192.0.2.0/24=1', '192.0.2.64/26=2', '192.0.0.0/16=3',
        ])._daemons[0].given)
        for address, number in (('192.0.2.1', 1), ('192.0.2.65', 2),
                                ('192.0.3.1', 3), ('198.51.100.1', None)):
            self.assertEqual(
                number, known.subnet_of(ipaddress.ip_address(address)))

    def test_version_that_is_not_configured(self) -> None:
        six = base.HostEntry(ENTRY.mac, ipaddress.IPv6Address('2001:db8::1'))
        failures = driver(control='/socket').put([six])
        self.assertIn('control6', str(failures[six]))


class TestRelease(testtools.TestCase):

    def ended(self, lease: base.Lease, **held: Any) -> bool:
        """Return whether a lease is ended while Kea has this one."""
        asked = []

        def ask(which: daemon.Daemon, command: str, **arguments: Any) -> Any:
            asked.append(command)
            return {'ip-address': str(lease.address), 'cltt': 2 ** 32,
                    'valid-lft': 60, 'state': 0, **held}

        with mock.patch.object(daemon.Daemon, 'ask', ask):
            driver(control='/socket').release(lease)
        self.assertEqual('lease4-get', asked[0])
        return 'lease4-del' in asked

    def test_another_mac_has_it_by_now(self) -> None:
        lease = base.Lease(ENTRY.address, ENTRY.mac, b'\1', None)
        mine = {'hw-address': ENTRY.mac, 'client-id': '01'}
        other = {'hw-address': 'fa:16:3e:00:00:02', 'client-id': '01'}
        self.assertTrue(self.ended(lease, **mine))
        self.assertFalse(self.ended(lease, **other))

    def test_without_a_mac(self) -> None:
        """Two clients may have none that Kea tells."""
        lease = base.Lease(ENTRY.address, None, b'\1', None)
        self.assertTrue(self.ended(lease, **{'client-id': '01'}))
        self.assertFalse(self.ended(lease, **{'client-id': '02'}))


class TestHost(testtools.TestCase):

    @hypothesis.given(strategies.text(max_size=300) | strategies.from_regex(
        r'[a-z0-9-]{1,70}'))
    def test_names(self, name: str) -> None:
        parsed = host.parse(base.HostEntry(ENTRY.mac, ENTRY.address, name), 1)
        self.assertTrue(re.fullmatch(
            '([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?', parsed.hostname))

    @hypothesis.given(strategies.text(max_size=20))
    def test_macs(self, mac: str) -> None:
        try:
            found = host.parse(base.HostEntry(mac, ENTRY.address), 1).mac
        except ValueError:
            return
        self.assertTrue(re.fullmatch('([0-9a-f]{2}:){5}[0-9a-f]{2}', found))


class TestAnswers(testtools.TestCase):
    """Whatever is at the other end of the socket."""

    def setUp(self) -> None:
        super().setUp()
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        self.path = str(folder / 'socket')
        self.answer = b''
        self.asked: list[dict[str, Any]] = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen()
        thread = threading.Thread(target=self._serve, args=(listener,))
        thread.start()
        self.addCleanup(listener.close)
        self.addCleanup(thread.join)
        self.addCleanup(listener.shutdown, socket.SHUT_RDWR)
        self.driver = driver(control=self.path, timeout=60)

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    self.asked.append(json.loads(connection.recv(65536)))
                    connection.sendall(self.answer)

    def _tell(self, value: object) -> None:
        self.answer = json.dumps(value).encode()

    def test_no_json(self) -> None:
        for answer in b'', b'{', b'HTTP/1.1 400 Bad Request', b'\xff', b'[]':
            self.answer = answer
            error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                      self.driver.put, [ENTRY])
            self.assertIn('set control', str(error))

    def test_refusal_has_keas_words(self) -> None:
        self._tell({'result': 1, 'text': 'no disk'})
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  lambda: list(self.driver.leases()))
        self.assertIn('no disk', str(error))

    def test_no_such_command(self) -> None:
        self._tell({'result': 2, 'text': 'not supported'})
        error = self.assertRaises(exceptions.DHCPServerUnavailable,
                                  lambda: list(self.driver.leases()))
        self.assertIn('load the hook library libdhcp_lease_cmds.so',
                      str(error))

    def test_any_answer(self) -> None:
        """None ends in anything but an error of ours."""
        @hypothesis.settings(max_examples=tests.examples(150))
        @hypothesis.given(_JSON | strategies.fixed_dictionaries(
            {'result': strategies.sampled_from([0, 0, 0, 1, 3]),
             'arguments': _JSON | strategies.fixed_dictionaries(
                 {'Dhcp4': _JSON})}))
        def ask(value: object) -> None:
            self._tell(value)
            self.driver._daemons[0].forget()
            for act in (lambda: self.driver.put([ENTRY]),
                        lambda: list(self.driver.leases()),
                        lambda: list(self.driver.entries()),
                        lambda: self.driver.remove([ENTRY]),
                        lambda: self.driver.release(base.Lease(
                            ENTRY.address, ENTRY.mac, None, None))):
                with contextlib.suppress(exceptions.DHCPError):
                    act()
            self.driver.check()

        ask()
