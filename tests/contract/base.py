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


"""What every DHCP driver must do, as tests.

A driver's own test module brings a :class:`Server` and derives from
:class:`DriverContract`, or from :class:`WireContract` where its server
answers real clients.
"""

import abc
import ipaddress
import pathlib
import random
import signal
import subprocess
import sys
import time

import testtools

from oslo_config import cfg
from tests import lab
from vmip_plugin.conf import dhcp
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import manager
from vmip_plugin import exceptions

ROOT = pathlib.Path(__file__).parents[2]

#: what a tenant may call a server
HOSTILE = [
    'a\nfa:16:3e:00:00:ff,10.66.0.255', 'a,10.66.0.255', '"', "'", 'a"b',
    'ignore', 'infinite', '10m', '3600', '7w', 'set:red', 'tag:red', 'id:*',
    'net:red', '10.66.0.255', 'fa:16:3e:00:00:ff', 'a b', 'a\0b', 'a\rb',
    '#', 'a#b', '*', '-a', 'a-', 'x' * 300, 'b\u00fccher', '\u202etxt',
    '\U0001f600', 'xn--a', 'ab--cd', '', ' ', '.', 'a.b', '$(reboot)', '%s',
    '\\', '{}',
]


def entry(number: int, host: int | None = None,
          hostname: str | None = None) -> base.HostEntry:
    """Return an entry of the lab's network.

    :param number: makes the MAC.
    :param host: makes the address; default: as ``number``.
    """
    return base.HostEntry(
        f'fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}',
        ipaddress.IPv4Address('10.66.0.0')
        + (number if host is None else host),
        hostname)


def load(path: pathlib.Path) -> base.DHCPDriver:
    """Return the driver of the first server in a configuration file."""
    conf = cfg.ConfigOpts()
    dhcp.register_opts(conf)
    conf(['--config-file', str(path)])
    return next(iter(manager.load_drivers(conf).values()))


class Server(abc.ABC):
    """What the contract asks of a driver's server, made by its tests."""

    @abc.abstractmethod
    def driver(self) -> base.DHCPDriver:
        """Return a new instance of the driver, as another process has it."""


class WireServer(Server):
    """A server on a bridge.

    Its subnet is 10.66.0.0/16 and it serves nobody without an entry.
    """

    #: a configuration that loads the driver
    config: pathlib.Path
    bridge: lab.Bridge

    @abc.abstractmethod
    def stop(self) -> None:
        """Stop the server."""

    @abc.abstractmethod
    def resume(self) -> None:
        """Start the server again, and return when it answers."""

    @abc.abstractmethod
    def add_foreign(self, item: base.HostEntry) -> None:
        """Add an entry as the operator does it by hand."""

    @abc.abstractmethod
    def foreign(self) -> str:
        """Return all the operator's own configuration, to compare."""


class DriverContract(testtools.TestCase):
    """Holds of every driver."""

    server: Server

    def setUp(self) -> None:
        super().setUp()
        self.server = self.make_server()
        self.driver = self.server.driver()

    def make_server(self) -> Server:
        raise NotImplementedError

    def assertHeld(self, *expected: base.HostEntry) -> None:
        self.assertEqual(sorted(expected), sorted(self.driver.entries()))

    def test_empty(self) -> None:
        self.assertHeld()
        self.assertEqual({}, self.driver.put([]))
        self.assertEqual({}, self.driver.remove([]))

    def test_round_trip(self) -> None:
        self.assertEqual({}, self.driver.put(
            [entry(1, hostname='web'), entry(2)]))
        self.assertHeld(entry(1, hostname='web'), entry(2))
        self.assertEqual({}, self.driver.remove([entry(1)]))
        self.assertHeld(entry(2))

    def test_put_twice(self) -> None:
        for _ in range(2):
            self.assertEqual({}, self.driver.put([entry(1), entry(1)]))
            self.assertHeld(entry(1))

    def test_put_replaces_mac_and_address(self) -> None:
        self.driver.put([entry(1, 10), entry(2, 20)])
        self.assertEqual({}, self.driver.put([entry(3, 10), entry(2, 21)]))
        self.assertHeld(entry(3, 10), entry(2, 21))

    def test_last_in_one_call_holds(self) -> None:
        self.assertEqual({}, self.driver.put(
            [entry(1, 10), entry(2, 10), entry(1, 11), entry(1, 12)]))
        self.assertHeld(entry(2, 10), entry(1, 12))
        self.assertEqual({}, self.driver.put(
            [entry(1, 10), entry(2, 10), entry(2, 11), entry(1, 12)]))
        self.assertHeld(entry(2, 11), entry(1, 12))

    def test_swap(self) -> None:
        self.driver.put([entry(1, 10), entry(2, 20)])
        self.assertEqual({}, self.driver.put([entry(1, 20), entry(2, 10)]))
        self.assertHeld(entry(1, 20), entry(2, 10))

    def test_remove_unknown(self) -> None:
        self.driver.put([entry(1)])
        self.assertEqual({}, self.driver.remove([entry(2)]))
        self.assertHeld(entry(1))

    def test_remove_leaves_new_holder(self) -> None:
        self.driver.put([entry(2, 10)])
        self.assertEqual({}, self.driver.remove([entry(1, 10)]))
        self.assertHeld(entry(2, 10))

    def test_hostname_changes(self) -> None:
        self.driver.put([entry(1, hostname='old')])
        self.driver.put([entry(1, hostname='new')])
        self.assertHeld(entry(1, hostname='new'))

    def test_capabilities_are_kept(self) -> None:
        self.driver.put([entry(1)])
        if base.Capability.LEASE_LIST in self.driver.capabilities:
            self.assertEqual([], list(self.driver.leases()))
        else:
            self.assertRaises(exceptions.DHCPError,
                              lambda: list(self.driver.leases()))
        if base.Capability.LEASE_RELEASE not in self.driver.capabilities:
            self.assertRaises(
                exceptions.DHCPError, self.driver.release,
                base.Lease(entry(1).address, entry(1).mac, None, None))


class WireContract(DriverContract):
    """Holds of every driver whose server answers clients."""

    server: WireServer

    def setUp(self) -> None:
        super().setUp()
        self.prober = self.enter(lab.Prober(self.server.bridge))

    def enter(self, manager: lab.ManagedT) -> lab.ManagedT:
        """Enter a context until the end of the test."""
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def assertServed(self, *expected: base.HostEntry) -> None:
        """The next DISCOVER of each MAC is offered its address."""
        self.assertEqual(
            {e.mac: e.address for e in expected},
            {e.mac: self.prober.discover(e.mac) for e in expected})

    def assertNotServed(self, *entries: base.HostEntry) -> None:
        for item in entries:
            self.assertIsNone(self.prober.discover(item.mac, 0.3))

    def churn(self, first: int, seed: int) -> 'subprocess.Popen[bytes]':
        return subprocess.Popen(
            [sys.executable, '-m', 'tests.contract.churn',
             str(self.server.config), str(first), str(seed)], cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def client(self, number: int, kind: str = 'udhcpc') -> lab.Client:
        return self.enter(
            lab.Client(self.server.bridge, entry(number).mac, kind))

    def _first_discover(self, kind: str) -> None:
        client = self.client(1, kind)
        self.assertEqual({}, self.driver.put([entry(1, 10, 'web')]))
        self.assertEqual(entry(1, 10).address, client.obtain())

    def test_udhcpc(self) -> None:
        self._first_discover('udhcpc')

    def test_dhclient(self) -> None:
        self._first_discover('dhclient')

    def test_dhcpcd(self) -> None:
        self._first_discover('dhcpcd')

    def test_unknown_mac_gets_nothing(self) -> None:
        self.driver.put([entry(1)])
        self.assertIsNone(self.client(2).obtain(2))
        self.assertNotServed(entry(2))

    def test_served_after_each_put(self) -> None:
        for number in range(1, 30):
            self.driver.put([entry(number)])
            self.assertServed(entry(number))

    def test_address_moves_to_another_mac(self) -> None:
        """Removed, given to the next, and served to its first DISCOVER."""
        for number in range(1, 10):
            self.assertEqual({}, self.driver.put([entry(number, 10)]))
            self.assertServed(entry(number, 10))
            self.assertEqual({}, self.driver.remove([entry(number, 10)]))
        self.assertNotServed(*(entry(number) for number in range(1, 10)))
        self.driver.put([entry(11, 10)])
        self.assertEqual(entry(11, 10).address, self.client(11).obtain())

    def test_mac_moves_to_another_address(self) -> None:
        self.driver.put([entry(1, 10)])
        self.driver.put([entry(1, 11)])
        self.assertServed(entry(1, 11))
        self.driver.put([entry(2, 10)])
        self.assertServed(entry(1, 11), entry(2, 10))

    def test_put_over_another_mac(self) -> None:
        self.driver.put([entry(1, 10)])
        self.driver.put([entry(2, 10)])
        self.assertServed(entry(2, 10))
        self.assertNotServed(entry(1))

    def test_swap_on_the_wire(self) -> None:
        self.driver.put([entry(1, 10), entry(2, 20)])
        self.driver.put([entry(1, 20), entry(2, 10)])
        self.assertServed(entry(1, 20), entry(2, 10))

    def test_remove_leaves_new_holder_served(self) -> None:
        self.driver.put([entry(2, 10)])
        self.driver.remove([entry(1, 10)])
        self.assertServed(entry(2, 10))

    def test_operators_entries_stay(self) -> None:
        self.server.add_foreign(entry(1))
        self.server.stop()
        self.server.resume()
        before = self.server.foreign()
        self.driver.put([entry(2), entry(3)])
        self.driver.remove([entry(1), entry(2)])
        self.assertHeld(entry(3))
        self.assertServed(entry(1), entry(3))
        self.assertEqual(before, self.server.foreign())

    def test_200_entries(self) -> None:
        many = [entry(number) for number in range(1, 201)]
        self.assertEqual({}, self.driver.put(many))
        self.assertHeld(*many)
        self.assertServed(*many)
        self.assertEqual({}, self.driver.remove(many[:100]))
        self.assertHeld(*many[100:])
        self.assertServed(*many[100:])
        moved = [entry(1000 + number, number) for number in range(1, 101)]
        self.assertEqual({}, self.driver.put(moved))
        self.assertServed(*moved)
        self.assertNotServed(many[0], many[50], many[99])

    def test_hostile_hostnames(self) -> None:
        bystanders = [entry(1, hostname='web'), entry(255 + 2, 255)]
        self.driver.put(bystanders)
        hostile = [entry(300 + number, hostname=name)
                   for number, name in enumerate(HOSTILE)]
        self.assertEqual({}, self.driver.put(hostile))
        self.assertServed(*bystanders, *hostile)
        self.assertNotServed(entry(255))
        self.server.stop()
        self.server.resume()
        self.assertServed(*bystanders, *hostile)
        self.assertNotServed(entry(255))
        self.assertEqual(
            sorted((e.mac, e.address) for e in bystanders + hostile),
            sorted((e.mac, e.address) for e in self.driver.entries()))
        self.driver.remove(hostile)
        self.assertHeld(*bystanders)

    def test_leases(self) -> None:
        if base.Capability.LEASE_LIST not in self.driver.capabilities:
            self.fail('a driver that cannot list leases needs its own test')
        self.driver.put([entry(1), entry(2), entry(3)])
        started = time.time()
        self.assertEqual(entry(1).address, self.client(1).obtain())
        self.assertEqual(entry(2).address,
                         self.client(2, 'dhclient').obtain())
        self.assertEqual(entry(3).address, self.prober.acquire(
            entry(3).mac, client_id=b'\xff\x01\x02'))
        found = {lease.address: lease for lease in self.driver.leases()}
        self.assertEqual({entry(n).address: entry(n).mac for n in (1, 2, 3)},
                         {a: lease.mac for a, lease in found.items()})
        self.assertEqual(
            [b'\x01' + bytes.fromhex(entry(1).mac.replace(':', '')), None,
             b'\xff\x01\x02'],
            [found[entry(n).address].client_id for n in (1, 2, 3)])
        for lease in found.values():
            assert lease.expires is not None
            self.assertTrue(
                60 < lease.expires.timestamp() - started < 3700, lease)

    def test_down_and_up_again(self) -> None:
        self.driver.put([entry(1), entry(2)])
        self.server.stop()
        self.server.resume()
        self.assertServed(entry(1), entry(2))
        self.driver.remove([entry(1)])
        self.driver.put([entry(3, 1)])
        self.assertServed(entry(2), entry(3, 1))

    def test_check_is_content(self) -> None:
        self.driver.put([entry(1)])
        self.assertEqual([], self.driver.check())

    def test_check_sees_that_it_is_down(self) -> None:
        self.server.stop()
        self.assertNotEqual([], self.driver.check())

    def test_one_bad_entry_holds_up_nobody(self) -> None:
        if base.Capability.IPV6 in self.driver.capabilities:
            self.fail('a driver with IPv6 needs a test of it')
        six = base.HostEntry(entry(2).mac,
                             ipaddress.IPv6Address('2001:db8::2'))
        failures = self.driver.put([entry(1), six, entry(3)])
        self.assertEqual([six], list(failures))
        self.assertIsInstance(failures[six], exceptions.DHCPError)
        self.assertServed(entry(1), entry(3))

    def test_two_processes(self) -> None:
        """Two change the same addresses at once; then list and wire agree."""
        churns = [self.churn(first, first) for first in (1, 100)]
        for process in churns:
            self.addCleanup(process.kill)
        time.sleep(4)
        for process in churns:
            self.assertIsNone(process.poll())
            process.terminate()
        for process in churns:
            output, _ = process.communicate(timeout=60)
            self.assertEqual((0, b'ready\n'), (process.returncode, output))
        self._assert_agreement()

    def test_killed_at_any_moment(self) -> None:
        chance = random.Random(1)
        for attempt in range(12):
            process = self.churn(1, attempt)
            try:
                assert process.stdout is not None
                self.assertEqual(b'ready\n', process.stdout.readline())
                time.sleep(chance.uniform(0, 0.25))
            finally:
                process.send_signal(signal.SIGKILL)
                process.communicate()
            # whoever comes next takes over what is owed
            self.assertEqual({}, self.server.driver().put([]))
            self._assert_agreement(full=attempt % 4 == 3)

    def _assert_agreement(self, full: bool = True) -> None:
        """What is listed is served, the rest is free for new MACs."""
        held = list(self.driver.entries())
        self.assertEqual(len(held), len({e.mac for e in held}), str(held))
        self.assertEqual(len(held), len({e.address for e in held}), str(held))
        self.assertServed(*held)
        if not full:
            return
        macs = {e.mac for e in held}
        self.assertNotServed(*(
            e for e in map(entry, [*range(1, 9), *range(100, 108)])
            if e.mac not in macs))
        addresses = {e.address for e in held}
        fresh = [entry(1000 + number, number) for number in range(1, 9)
                 if entry(number).address not in addresses]
        self.assertEqual({}, self.driver.put(fresh))
        self.assertServed(*fresh)
        self.assertEqual({}, self.driver.remove(fresh))
