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

"""One address goes the whole way: the story that the demo tells.

Every step is a method that does something as an operator or a plain user
would, asserts what has to be true, and returns what was measured. The demo
prints it, the test asserts it, and both run the same.
"""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import time
from typing import Any

from tests.cloud import harness

POOL = 'provider1'
FIRST, LAST, HELD = '192.0.2.100', '192.0.2.119', '192.0.2.117'
NETWORK = 'provider1'

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Result:
    """A line of the table at the end."""

    step: str
    what: str
    seen: str


class Story:
    """The steps a to g, each on its own servers.

    :param say: gets a line for all that happens.
    """

    def __init__(self, cloud: harness.Cloud, say: Say) -> None:
        self.cloud = cloud
        self.say = say

    def prepare(self) -> None:
        """Make the pool, as an operator does it once."""
        self.cloud.forget_servers()
        for held in self.cloud.manage('reservation', 'list'):
            self.cloud.manage('reservation', 'delete', held['address'],
                              '--pool', held['pool'])
        self.cloud.pool(POOL, 'provider1-v4', FIRST, LAST)

    def steps(self) -> list[tuple[str, Callable[[], list[Result]]]]:
        """Return (letter, step) in the order in which they are told."""
        return [('a', self.known_before), ('c', self.three_at_once),
                ('d', self.given_by_hand), ('e', self.back_at_once),
                ('f', self.nobody_told), ('g', self.untouched)]

    # -- what users do -----------------------------------------------------

    def create(self, name: str, *args: str, network: str = NETWORK) -> float:
        """Create servers as a plain user; return when it was asked."""
        self.say(f'$ openstack server create --flavor tiny --image guest '
                 f'--network {network} {" ".join([*args, name])}')
        asked = time.time()
        self.cloud.openstack('server', 'create', '--flavor', 'tiny',
                             '--image', 'guest', '--network', network,
                             *args, name)
        return asked

    def reserved(self, *names: str) -> dict[str, str]:
        """Return name to address of what the list has for servers."""
        # in one look: who has which may still change
        found = {row['server_name']: row['address']
                 for row in self.cloud.manage('address', 'list')
                 if row['server_name'] in names}
        assert set(found) == set(names), f'{names} wanted, {found} found'
        return found

    def known_since(self, address: str) -> float:
        """Return when the address was last reserved, from the history."""
        changes = self.cloud.inventory.history(harness.address(address))
        return max(c.at for c in changes if c.event == 'reserve').timestamp()

    def active(self, name: str) -> Any:
        """Wait until a server is ACTIVE."""
        def check() -> Any:
            server = self.cloud.server(name)
            assert server is None or server.status != 'ERROR', (
                f'{name}: {server.fault}')
            return server if server and server.status == 'ACTIVE' else None
        return harness.wait_for(f'{name} is ACTIVE', check, every=0.3)

    def leased(self, server: Any, since: float) -> harness.Frame:
        """Wait until the guest has got its address by DHCP."""
        mac = self.cloud.port(server.id).mac_address
        return harness.wait_for(
            f'guest of {server.name} has its address',
            lambda: harness.acknowledged(mac, since), every=0.2)

    # -- the steps ---------------------------------------------------------

    def known_before(self) -> list[Result]:
        """a, b: known before ACTIVE; the first DISCOVER gets it."""
        asked = self.create('story-a')
        address = self.reserved('story-a')['story-a']
        self.say(f'vmip-manage address list: story-a has {address}')
        server = self.active('story-a')
        known = self.known_since(address)
        launched = harness.utc(server.launched_at).timestamp()
        assert known < launched, 'the address was not known before ACTIVE'
        port = self.cloud.port(server.id)
        assert port.fixed_ips[0]['ip_address'] == address
        margin = self.first_discover(server, address, asked)
        return [
            Result('a', 'address known after POST /servers',
                   f'{known - asked:.2f} s, ACTIVE {launched - asked:.0f} s'),
            Result('b', 'host entry before the first DISCOVER',
                   f'{margin:.2f} s'),
            Result('b', 'first DISCOVER answered with', address)]

    def first_discover(self, server: Any, address: str,
                       since: float) -> float:
        """Assert what the wire shows; return the margin in seconds."""
        mac = self.cloud.port(server.id).mac_address
        self.leased(server, since)
        seen = harness.discovered(mac, since)
        assert seen is not None, f'no DISCOVER of {mac} on the wire'
        discover, offer = seen
        assert offer is not None, 'the first DISCOVER was not answered'
        assert str(offer.message.yiaddr) == address, (
            f'{offer.message.yiaddr} was offered, not {address}')
        entry = next(e for e in self.cloud.inventory.entries()
                     if str(e.address) == address)
        assert entry.done_at is not None
        margin = discover.at - entry.done_at.timestamp()
        assert margin > 0, f'the host entry came {-margin:.2f} s too late'
        harness.wait_for(
            'the guest says so itself',
            lambda: f'GUEST LEASE bound eth0 {address}/'
            in self.cloud.console(server.id))
        self.say(f'{server.name}: DISCOVER, and '
                 f'{1000 * (offer.at - discover.at):.1f} ms later OFFER of '
                 f'{address}; the host entry was {margin:.2f} s old')
        return margin

    def three_at_once(self) -> list[Result]:
        """c: three servers in one request, three reserved addresses."""
        names = [f'story-c-{n}' for n in (1, 2, 3)]
        asked = self.create('story-c', '--min', '3', '--max', '3')
        reserved = self.reserved(*names)
        assert len(set(reserved.values())) == 3
        given = set()
        for name in names:
            server = self.active(name)
            port = self.cloud.port(server.id)
            address = port.fixed_ips[0]['ip_address']
            self.first_discover(server, address, asked)
            given.add(address)
        assert given == set(reserved.values()), (
            f'reserved {reserved}, given {given}')
        return [Result('c', 'three servers in one request',
                       ', '.join(sorted(given)))]

    def given_by_hand(self) -> list[Result]:
        """d: a reservation by the operator for a server's name."""
        self.say(f'$ vmip-manage reservation create {HELD} --pool {POOL} '
                 f'--server-name story-d --any-project')
        self.cloud.manage('reservation', 'create', HELD, '--pool', POOL,
                          '--server-name', 'story-d', '--any-project')
        asked = self.create('story-d')
        assert self.reserved('story-d') == {'story-d': HELD}
        self.first_discover(self.active('story-d'), HELD, asked)
        return [Result('d', 'reserved by hand for story-d', HELD)]

    def delete(self, name: str) -> tuple[str, str]:
        """Delete a server; return its address and MAC."""
        server = self.cloud.server(name)
        port = self.cloud.port(server.id)
        address = port.fixed_ips[0]['ip_address']
        assert harness.host_entries().get(address) == port.mac_address
        assert harness.leases().get(address) == port.mac_address
        self.say(f'$ openstack server delete {name}')
        self.cloud.openstack('server', 'delete', name)
        return address, port.mac_address

    def given_back(self, address: str, mac: str, deleted: float,
                   limit: float = harness.PATIENCE) -> dict[str, float]:
        """Wait for the end of all that a server held; return the seconds."""
        seen: dict[str, float] = {}

        def look() -> bool:
            now = time.time() - deleted
            if harness.host_entries().get(address) != mac:
                seen.setdefault('host entry gone', now)
            if harness.leases().get(address) != mac:
                seen.setdefault('lease gone', now)
            if self.cloud.address_state(address) in ('free', 'reserved'):
                seen.setdefault('address free', now)
            return len(seen) == 3

        harness.wait_for(f'{address} is given back', look, limit)
        return seen

    def back_at_once(self) -> list[Result]:
        """e: after a delete the next guest has the address in seconds."""
        deleted = time.time()
        address, mac = self.delete('story-a')
        seen = self.given_back(address, mac, deleted)
        asked = self.create('story-e')
        assert self.reserved('story-e') == {'story-e': address}
        server = self.active('story-e')
        again = self.leased(server, asked)
        assert str(again.message.yiaddr) == address
        reuse = again.at - deleted
        lease = again.message.lease_time
        assert lease is not None and reuse < lease
        self.say(f'{address} is with another guest after {reuse:.1f} s')
        return [Result('e', text, f'{value:.1f} s after the delete')
                for text, value in seen.items()] + [
            Result('e', 'another guest has the same address',
                   f'{reuse:.1f} s after the delete; lease time {lease} s')]

    @contextlib.contextmanager
    def without(self, service: str) -> Iterator[None]:
        """Stop a service for a while."""
        self.say(f'{service} is stopped')
        harness.minicloud.stop(service)
        try:
            yield
        finally:
            harness.minicloud.start(service)
            self.say(f'{service} is started')

    def nobody_told(self) -> list[Result]:
        """f: vmip-listener is stopped during a delete."""
        with self.without('vmip-listener'):
            deleted = time.time()
            address, mac = self.delete('story-c-1')
            seen = self.given_back(address, mac, deleted)
        actors = {c.new_state: c.actor for c in self.cloud.inventory.history(
            harness.address(address))}
        assert actors['free'] == 'vmip-reclaimer', actors
        return [Result('f', f'without vmip-listener: {text}',
                       f'{value:.1f} s after the delete')
                for text, value in seen.items()]

    def untouched(self) -> list[Result]:
        """g: a server on a network without a pool."""
        self.create('story-g', network='provider2')
        server = self.active('story-g')
        port = self.cloud.port(server.id)
        address = port.fixed_ips[0]['ip_address']
        assert not self.cloud.manage('address', 'list', '--server',
                                     server.id)
        assert not self.cloud.manage('address', 'list', '--address', address)
        self.cloud.openstack('server', 'delete', 'story-g')
        return [Result('g', 'a network without a pool',
                       f'{address}, by Neutron alone')]

    def all_gone(self) -> None:
        """Delete what is left; the list and the server must be empty."""
        self.cloud.forget_servers()
        self.cloud.manage('reservation', 'delete', HELD, '--pool', POOL)
        left = self.cloud.manage('address', 'list')
        assert not left, left
        harness.wait_for('no host entry is left',
                         lambda: not harness.host_entries())
        assert not self.cloud.manage('dhcp', 'check')

