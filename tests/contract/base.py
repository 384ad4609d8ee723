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
answers real clients, or from :class:`WireContract6` where it answers those of
DHCPv6 (``IPV6``), too.
"""

import abc
from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import ipaddress
import itertools
import pathlib
import random
import signal
import subprocess
import sys
import time

import hypothesis
from hypothesis import strategies
import testtools

from oslo_config import cfg
import tests
from tests import lab
from vmip_plugin.agent import lease as agent_lease
from vmip_plugin.agent import release
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


#: of what is any server's syntax
PIECES = ['\n', '\r\n', '\0', ',', ';', '"', "'", '\\', '{', '}', '#', '//',
          '/*', '--', '%', '$(', '`', ' ', '\t', '=', ':', '*', '-', '.',
          'host', 'hardware ethernet', 'fixed-address', 'set:', 'tag:', 'id:',
          'infinite', 'ignore', '10m', '10.66.0.255', 'fa:16:3e:00:00:ff',
          '2001:db8::1', 'DROP TABLE hosts', '\u2028', '\u00e9', '\ufeff',
          'web']


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


def entry6(number: int, host: int | None = None,
           hostname: str | None = None) -> base.HostEntry:
    """Return an IPv6 entry of the lab's network for the MAC of :func:`entry`.

    :param host: makes the address; default: as ``number``.
    """
    return base.HostEntry(
        entry(number).mac,
        ipaddress.IPv6Address('2001:db8:66::')
        + (number if host is None else host),
        hostname)


def key(item: base.HostEntry) -> tuple[str, int]:
    """Return what no two entries have in common: MAC and IP version."""
    return item.mac, item.address.version


def overheard(item: base.HostEntry, server: ipaddress.IPv4Address,
              ) -> agent_lease.Lease:
    """Return a lease as vmip-agent knows it."""
    return agent_lease.Lease(**{
        **dict.fromkeys(f.name for f in dataclasses.fields(agent_lease.Lease)),
        'address': ipaddress.IPv4Address(str(item.address)), 'mac': item.mac,
        'interface': 'eth0', 'dhcp_server': server, 'confirmed': True,
        'first_seen': 0, 'last_seen': 0, 'tries': 0, 'remote': False})


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

    Its subnets are 10.66.0.0/16 and, with ``IPV6``, 2001:db8:66::/64; it
    serves nobody without an entry.
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

    def lend(self, *items: base.HostEntry) -> None:
        """Have these MACs get leases of these addresses.

        A server that keeps no leases of host entries lends them otherwise.
        """
        self.driver().put(items)


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
        self.assertEqual(sorted(expected, key=repr),
                         sorted(self.driver.entries(), key=repr))

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

    def test_ipv6(self) -> None:
        """A driver without IPv6 says so of each entry, and goes on."""
        failures = self.driver.put([entry(1), entry6(1), entry(2)])
        if base.Capability.IPV6 in self.driver.capabilities:
            self.assertEqual({}, failures)
            self.assertHeld(entry(1), entry6(1), entry(2))
        else:
            self.assertEqual([entry6(1)], list(failures))
            self.assertIsInstance(failures[entry6(1)], exceptions.DHCPError)
            self.assertHeld(entry(1), entry(2))
        self.assertEqual({}, self.driver.remove([entry6(1)]))
        self.assertHeld(entry(1), entry(2))

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

    def check_bystanders(self, bystanders: list[base.HostEntry]) -> None:
        """See that others have what they had."""

    @contextlib.contextmanager
    def put_names(self, names: Sequence[str]) -> Iterator[None]:
        """Put entries with these names, and see that nothing else changes.

        Whatever the names say, the driver tells exactly the pairs of MAC and
        address that it was given.
        """
        bystanders = [entry(1, hostname='web'), entry(255 + 2, 255)]
        many = [entry(300 + number, hostname=name)
                for number, name in enumerate(names)]
        self.assertEqual({}, self.driver.put([*bystanders, *many]))
        self.assertEqual(
            sorted((e.mac, e.address) for e in [*bystanders, *many]),
            sorted((e.mac, e.address) for e in self.driver.entries()))
        self.check_bystanders(bystanders)
        yield
        self.assertEqual({}, self.driver.remove(many))
        self.assertHeld(*bystanders)

    def test_any_hostname(self) -> None:
        """Arbitrary text, and pieces of what servers' files are made of."""
        text = strategies.one_of(
            strategies.text(max_size=300),
            strategies.lists(strategies.sampled_from(PIECES), max_size=8)
            .map(''.join),
            strategies.from_regex(r'[a-z0-9-]{1,64}', fullmatch=True))

        @hypothesis.settings(max_examples=tests.examples(60))
        @hypothesis.given(strategies.lists(text, min_size=1, max_size=20))
        def put(names: list[str]) -> None:
            with self.put_names(names):
                pass

        put()

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
        """The next DISCOVER or SOLICIT of each MAC is offered its address."""
        self.assertEqual(
            {key(e): e.address for e in expected},
            {key(e): self.prober.solicit(e.mac) if e.address.version == 6
             else self.prober.discover(e.mac) for e in expected})

    def assertNotServed(self, *entries: base.HostEntry) -> None:
        for item in entries:
            self.assertIsNone(
                self.prober.solicit(item.mac, 0.6)
                if item.address.version == 6
                else self.prober.discover(item.mac, 0.3))

    def client_ids(self, *sent: bytes | None) -> list[bytes | None]:
        """Return what the server keeps of clients' options 61."""
        return list(sent)

    def churn(self, first: int, seed: int) -> 'subprocess.Popen[bytes]':
        return subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-m', 'tests.contract.churn',
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

    def test_guest_of_another_server(self) -> None:
        """What it got there is not refused here (RFC 2131, 4.3.2)."""
        self.driver.put([entry(1)])
        self.prober.acquire(entry(1).mac)
        for item, answers in (entry(1), [5]), (entry(2), []):
            self.assertEqual(answers, self.prober.reboot(
                item.mac, item.address, len(answers)))

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

    def check_bystanders(self, bystanders: list[base.HostEntry]) -> None:
        self.assertServed(*bystanders)

    def test_hostile_hostnames(self) -> None:
        with self.put_names(HOSTILE):
            everybody = list(self.driver.entries())
            for _ in range(2):
                self.assertServed(*everybody)
                self.assertNotServed(entry(255))
                # what it has made of them it reads again
                self.server.stop()
                self.server.resume()
        self.assertServed(entry(1), entry(255 + 2, 255))

    def test_leases(self) -> None:
        if base.Capability.LEASE_LIST not in self.driver.capabilities:
            self.fail('a driver that cannot list leases needs its own test')
        self.server.lend(entry(1), entry(2), entry(3))
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
            self.client_ids(
                b'\x01' + bytes.fromhex(entry(1).mac.replace(':', '')), None,
                b'\xff\x01\x02'),
            [found[entry(n).address].client_id for n in (1, 2, 3)])
        self.assertEqual(
            [found[entry(2).address]],
            list(self.driver.leases_of({entry(2).address,
                                        entry(4).address})))
        self.assertEqual([], list(self.driver.leases_of([])))
        for lease in found.values():
            assert lease.expires is not None
            self.assertTrue(
                60 < lease.expires.timestamp() - started < 3700, lease)

    def _ways_to_end(self, item: base.HostEntry, client_id: bytes | None,
                     ) -> Iterator[Callable[[], None]]:
        """Yield what ends a dead guest's lease, one after the other."""
        def by_packet(ident: bytes | None) -> None:
            self.agent.inside(lambda: release.Releaser(
                ['eth0'], 'guest', 1).release(overheard(
                    item, self.server.bridge.address.ip), ident))

        def by_server() -> None:
            lease, = self.driver.leases_of([item.address])
            self.driver.release(lease)
            self.assertEqual([], list(self.driver.leases_of([item.address])))

        # as vmip-agent does in turns: see its _client_id()
        yield lambda: by_packet(None)
        if client_id is not None:
            yield lambda: by_packet(client_id)
        if base.Capability.LEASE_RELEASE in self.driver.capabilities:
            yield by_server

    def assertOver(self, item: base.HostEntry) -> None:
        if base.Capability.LEASE_LIST in self.driver.capabilities:
            lab.wait_for(lambda: not list(
                self.driver.leases_of([item.address])))

    def _stale_lease(self, client_id_of: Callable[[str], bytes | None],
                     ) -> None:
        """A dead guest's address is the next one's at its first DISCOVER.

        :param client_id_of: of a MAC.
        """
        self.agent = self.enter(lab.Namespace())
        self.server.bridge.attach(self.agent)
        ways = len(list(self._ways_to_end(entry(1), client_id_of(''))))
        for number, removed in itertools.product(
                range(ways), (True, False)):
            host = 10 + 2 * number + removed
            old, new = entry(host), entry(100 + host, host)
            client_id = client_id_of(old.mac)
            end = list(self._ways_to_end(old, client_id))[number]
            self.driver.put([old])
            self.assertEqual(old.address, self.prober.acquire(
                old.mac, client_id=client_id))
            # and is gone, without a RELEASE
            if removed:
                self.driver.remove([old])
            end()
            self.assertOver(old)
            self.assertEqual({}, self.driver.put([new]))
            self.assertEqual(new.address, self.prober.acquire(new.mac))

    def test_stale_lease_without_client_id(self) -> None:
        self._stale_lease(lambda mac: None)

    def test_stale_lease_of_mac_client_id(self) -> None:
        # RFC 2132 section 9.14
        self._stale_lease(
            lambda mac: b'\x01' + bytes.fromhex(mac.replace(':', '')))

    def test_stale_lease_of_duid(self) -> None:
        # RFC 4361: IAID and DUID-EN, as systemd-networkd has it
        self._stale_lease(lambda mac: bytes.fromhex(
            'ff 3e000001 0002 0000ab11 0123456789ab') + mac[-2:].encode())

    def _stale_lease_of(self, kind: str) -> None:
        """The same with a real client that is killed."""
        self.agent = self.enter(lab.Namespace())
        self.server.bridge.attach(self.agent)
        self.driver.put([entry(1, 10)])
        with lab.Client(self.server.bridge, entry(1).mac, kind) as guest:
            self.assertEqual(entry(1, 10).address, guest.obtain())
            guest.end(signal.SIGKILL)
        self.driver.remove([entry(1, 10)])
        *_, end = self._ways_to_end(entry(1, 10), None)
        end()
        self.assertOver(entry(1, 10))
        self.driver.put([entry(2, 10)])
        self.assertEqual(entry(2, 10).address, self.client(2).obtain())

    def test_stale_lease_of_udhcpc(self) -> None:
        self._stale_lease_of('udhcpc')

    def test_stale_lease_of_dhclient(self) -> None:
        self._stale_lease_of('dhclient')

    def test_stale_lease_of_dhcpcd(self) -> None:
        self._stale_lease_of('dhcpcd')

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
        bad = base.HostEntry('fa:16:3e', entry(2).address)
        failures = self.driver.put([entry(1), bad, entry(3)])
        self.assertEqual([bad], list(failures))
        self.assertIsInstance(failures[bad], exceptions.DHCPError)
        self.assertServed(entry(1), entry(3))

    def test_two_processes(self) -> None:
        """Two change the same addresses at once; then list and wire agree."""
        churns = [self.churn(first, first) for first in (1, 100)]
        for process in churns:
            self.addCleanup(process.kill)
        for process in churns:
            assert process.stdout is not None
            self.assertEqual(b'ready\n', process.stdout.readline())
        time.sleep(4)
        for process in churns:
            self.assertIsNone(process.poll())
            process.terminate()
        for process in churns:
            output, _ = process.communicate(timeout=lab.PATIENCE)
            self.assertEqual((0, b''), (process.returncode, output))
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
        self.assertEqual(len(held), len({key(e) for e in held}), str(held))
        self.assertEqual(len(held), len({e.address for e in held}), str(held))
        self.assertServed(*held)
        if not full:
            return
        makers = [entry]
        if base.Capability.IPV6 in self.driver.capabilities:
            makers.append(entry6)
        keys = {key(e) for e in held}
        self.assertNotServed(*(
            e for make in makers
            for e in map(make, [*range(1, 9), *range(100, 108)])
            if key(e) not in keys))
        addresses = {e.address for e in held}
        fresh = [make(1000 + number, number) for make in makers
                 for number in range(1, 9)
                 if make(number).address not in addresses]
        self.assertEqual({}, self.driver.put(fresh))
        self.assertServed(*fresh)
        self.assertEqual({}, self.driver.remove(fresh))


class ReleaseContract(WireContract):
    """Holds of every driver that can end a lease (``LEASE_RELEASE``)."""

    def test_has_release(self) -> None:
        self.assertIn(base.Capability.LEASE_RELEASE,
                      self.driver.capabilities)

    def lease_of(self, item: base.HostEntry) -> base.Lease:
        # a server may write it down after it has answered
        lease, = lab.wait_for(lambda: [
            lease for lease in self.driver.leases()
            if lease.address == item.address])
        return lease

    def test_release_twice(self) -> None:
        self.driver.put([entry(1)])
        self.prober.acquire(entry(1).mac)
        lease = self.lease_of(entry(1))
        for _ in range(2):
            self.driver.release(lease)
            self.assertEqual([], list(self.driver.leases()))

    def test_release_spares_the_next_owner(self) -> None:
        self.driver.put([entry(1, 10)])
        self.prober.acquire(entry(1).mac)
        lease = self.lease_of(entry(1, 10))
        self.driver.release(lease)
        self.driver.put([entry(2, 10)])
        self.prober.acquire(entry(2).mac)
        self.driver.release(lease)
        self.assertEqual(entry(2).mac, self.lease_of(entry(2, 10)).mac)

    def test_release_while_it_is_down(self) -> None:
        self.driver.put([entry(1)])
        self.prober.acquire(entry(1).mac)
        lease = self.lease_of(entry(1))
        self.server.stop()
        self.assertRaises(exceptions.DHCPServerUnavailable,
                          self.driver.release, lease)
        self.server.resume()
        self.driver.release(lease)
        self.assertEqual([], list(self.driver.leases()))


class WireContract6(WireContract):
    """Holds of every driver whose server answers clients of DHCPv6, too."""

    def test_has_ipv6(self) -> None:
        self.assertIn(base.Capability.IPV6, self.driver.capabilities)

    def test_round_trip6(self) -> None:
        self.assertEqual({}, self.driver.put(
            [entry6(1, hostname='web'), entry6(2)]))
        self.assertHeld(entry6(1, hostname='web'), entry6(2))
        self.assertServed(entry6(1), entry6(2))
        self.assertEqual({}, self.driver.remove([entry6(1)]))
        self.assertHeld(entry6(2))
        self.assertServed(entry6(2))
        self.assertNotServed(entry6(1))

    def test_forms_of_an_address(self) -> None:
        many = [base.HostEntry(entry(number).mac,
                               ipaddress.IPv6Address(f'2001:db8:66::{text}'))
                for number, text in enumerate(
                    ['1:0:0:1', 'ffff:ffff:ffff:ffff', '10.0.0.7', 'a:b'], 1)]
        self.assertEqual({}, self.driver.put(many))
        self.assertHeld(*many)
        self.assertServed(*many)
        self.assertEqual({}, self.driver.remove(many))
        self.assertHeld()

    def test_unknown_mac_gets_nothing6(self) -> None:
        self.driver.put([entry(1), entry(2), entry6(2)])
        self.assertIsNone(self.client(1, 'dhclient').obtain6(4))
        self.assertNotServed(entry6(1), entry6(3))

    def _dual_stack(self, kind: str) -> None:
        self.driver.put([entry(1, 10, 'web'), entry6(1, 20, 'web')])
        client = self.client(1, kind)
        self.assertEqual(entry6(1, 20).address, client.obtain6())
        self.assertEqual(entry(1, 10).address, client.obtain())

    def test_dual_stack_dhclient(self) -> None:
        self._dual_stack('dhclient')

    def test_dual_stack_dhcpcd(self) -> None:
        self._dual_stack('dhcpcd')

    def test_versions_do_not_meet(self) -> None:
        """A change of one version leaves the MAC's other entry alone."""
        self.driver.put([entry(1)])
        self.driver.put([entry6(1)])
        self.assertHeld(entry(1), entry6(1))
        self.driver.put([entry(1, 10)])
        self.assertHeld(entry(1, 10), entry6(1))
        self.assertServed(entry(1, 10), entry6(1))
        self.driver.put([entry6(1, 20)])
        self.assertHeld(entry(1, 10), entry6(1, 20))
        self.assertServed(entry(1, 10), entry6(1, 20))
        self.driver.remove([entry6(1, 20)])
        self.assertHeld(entry(1, 10))
        self.assertServed(entry(1, 10))
        self.assertNotServed(entry6(1))
        self.driver.put([entry6(1)])
        self.driver.remove([entry(1, 10)])
        self.assertHeld(entry6(1))
        self.assertServed(entry6(1))
        self.assertNotServed(entry(1))

    def test_last_in_one_call_holds6(self) -> None:
        self.assertEqual({}, self.driver.put(
            [entry6(1, 10), entry(1, 10), entry6(2, 10), entry(1, 11),
             entry6(1, 12)]))
        self.assertHeld(entry(1, 11), entry6(2, 10), entry6(1, 12))
        self.assertServed(entry(1, 11), entry6(2, 10), entry6(1, 12))

    def test_address_moves_to_another_mac6(self) -> None:
        for number in range(1, 5):
            self.assertEqual({}, self.driver.put([entry6(number, 10)]))
            self.assertServed(entry6(number, 10))
            self.assertEqual({}, self.driver.remove([entry6(number, 10)]))
        self.assertNotServed(*(entry6(number) for number in range(1, 5)))
        self.driver.put([entry6(11, 10)])
        self.assertEqual(entry6(11, 10).address,
                         self.client(11, 'dhclient').obtain6())

    def test_mac_moves_to_another_address6(self) -> None:
        self.driver.put([entry6(1, 10)])
        self.driver.put([entry6(1, 11)])
        self.driver.put([entry6(2, 10)])
        self.assertServed(entry6(1, 11), entry6(2, 10))

    def test_put_over_another_mac6(self) -> None:
        self.driver.put([entry6(1, 10), entry6(2, 20)])
        self.driver.put([entry6(1, 20), entry6(2, 10)])
        self.assertServed(entry6(1, 20), entry6(2, 10))
        self.driver.put([entry6(3, 10)])
        self.assertServed(entry6(1, 20), entry6(3, 10))
        self.assertNotServed(entry6(2))

    def test_operators_entries_stay6(self) -> None:
        self.server.add_foreign(entry6(1))
        self.server.stop()
        self.server.resume()
        before = self.server.foreign()
        self.driver.put([entry6(2), entry6(3)])
        self.driver.remove([entry6(1), entry6(2)])
        self.assertHeld(entry6(3))
        self.assertServed(entry6(1), entry6(3))
        self.assertEqual(before, self.server.foreign())

    def test_100_entries6(self) -> None:
        many = [make(number) for number in range(1, 51)
                for make in (entry, entry6)]
        self.assertEqual({}, self.driver.put(many))
        self.assertHeld(*many)
        self.assertServed(*many)
        self.assertEqual({}, self.driver.remove(many[:50]))
        self.assertHeld(*many[50:])
        self.assertServed(*many[50:])
        moved = [make(1000 + number, number) for number in range(1, 26)
                 for make in (entry, entry6)]
        self.assertEqual({}, self.driver.put(moved))
        self.assertServed(*moved)
        self.assertNotServed(many[0], many[1], many[48], many[49])

    def test_hostile_hostnames6(self) -> None:
        hostile = [entry6(300 + number, hostname=name)
                   for number, name in enumerate(HOSTILE)]
        self.assertEqual({}, self.driver.put([entry(1), *hostile]))
        self.assertServed(entry(1), *hostile)
        self.server.stop()
        self.server.resume()
        self.assertServed(entry(1), *hostile)
        self.driver.remove(hostile)
        self.assertHeld(entry(1))

    def test_leases6(self) -> None:
        if base.Capability.LEASE_LIST not in self.driver.capabilities:
            self.fail('a driver that cannot list leases needs its own test')
        self.driver.put([entry(1), entry6(1), entry6(2)])
        self.prober.acquire(entry(1).mac)
        self.assertEqual(entry6(1).address,
                         self.prober.acquire6(entry(1).mac))
        self.assertEqual(entry6(2).address, self.prober.acquire6(
            entry(2).mac, duid=b'\0\2\0\0\0\11some'))
        addresses = {entry(1).address, entry6(1).address, entry6(2).address}
        # a server may write them down after it has answered
        lab.wait_for(lambda: addresses == {
            lease.address for lease in self.driver.leases()})
        found = {lease.address: lease for lease in self.driver.leases()}
        self.assertEqual(
            [b'\0\3\0\1' + bytes.fromhex(entry(1).mac.replace(':', '')),
             b'\0\2\0\0\0\11some'],
            [found[entry6(n).address].client_id for n in (1, 2)])
        for number in 1, 2:
            # what the server does not tell
            self.assertIn(found[entry6(number).address].mac,
                          (None, entry(number).mac))
            self.assertIsNotNone(found[entry6(number).address].expires)

    def test_down_and_up_again6(self) -> None:
        self.driver.put([entry6(1), entry6(2)])
        self.server.stop()
        self.server.resume()
        self.assertServed(entry6(1), entry6(2))
        self.driver.remove([entry6(1)])
        self.driver.put([entry6(3, 1)])
        self.assertServed(entry6(2), entry6(3, 1))
