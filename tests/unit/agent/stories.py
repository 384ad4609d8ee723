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

"""Random lives of guests, with the real tracker, store, worker and rules.

Simulated are the wire, the DHCP server, the cloud and the clock; all chances
come from one seed. Guests are paused, filter ARP, reboot, move, are deleted in
any order and forge messages; the agent is killed and misses frames; the cloud
is away, answers with empty lists or shows nothing; the clock is set back.
"""

from collections.abc import Collection, Iterator
import contextlib
import dataclasses
import ipaddress
import itertools
import random
import threading
import time
from typing import Any
from unittest import mock

from tests.unit.agent import test_tracker
from vmip_plugin.agent import decide
from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import rpc
from vmip_plugin.agent import servers
from vmip_plugin.agent import store as store_
from vmip_plugin.agent import tracker
from vmip_plugin.agent import worker
from vmip_plugin import cloud as cloud_
from vmip_plugin import conf as conf_
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import packet
from vmip_plugin import exceptions

_LEASE = 600.0
_SERVER = test_tracker.SERVER
_SERVER_MAC = test_tracker.SERVER_MAC
_FIRST = ipaddress.IPv4Address('10.66.2.1')
#: share of frames that the agent does not hear
_LOST = 0.03
#: how the cloud is, and how often
_MODES = {'well': 20, 'keystone': 1, 'ports': 1, 'port': 1, 'server': 1,
          'network': 1, 'empty': 2, 'blind': 2}
_STATUSES = ('PAUSED', 'SUSPENDED', 'SHELVED_OFFLOADED', 'REBOOT', 'RESIZE',
             'MIGRATING', 'RESCUE', 'SHUTOFF', 'ERROR')


@dataclasses.dataclass
class Guest:
    """One guest and the truth about it.

    :param status: Nova's word; None: deleted.
    :param port: Neutron has its port.
    :param runs: it would answer.
    :param filters: it answers no ARP.
    """

    number: int
    mac: str
    client_id: bytes | None
    status: str | None = 'BUILD'
    port: bool = True
    runs: bool = True
    filters: bool = False
    address: ipaddress.IPv4Address | None = None

    @property
    def port_id(self) -> str:
        return f'00000000-0000-4000-8000-{self.number:012x}'

    @property
    def server_id(self) -> str:
        return f'00000000-0000-4000-9000-{self.number:012x}'

    @property
    def gone(self) -> bool:
        return self.status is None and not self.port

    @property
    def answers(self) -> bool:
        return self.runs and not self.filters and self.address is not None


@dataclasses.dataclass
class Given:
    """A lease of the DHCP server."""

    mac: str
    client_id: bytes | None
    until: float


class World:
    """One agent, one DHCP server, and guests that come and go.

    :ivar false: releases of what is in use, a line each.
    :ivar released: leases that the dead held and that were freed.
    :ivar held: leases of the dead that are left at the end.
    """

    name = 'site'

    def __init__(self, seed: int, stories: int) -> None:
        self.chance = random.Random(seed)
        self.wall, self.ticks = 1e9, 1e6
        self.mode = 'well'
        self.guests: list[Guest] = []
        self.by_mac: dict[str, Guest] = {}
        self.left = stories
        self.given: dict[ipaddress.IPv4Address, Given] = {}
        self.false: list[str] = []
        self.released = self.held = 0
        self.server_id = (_SERVER if self.chance.random() < 0.3 else None)
        self.capabilities = base.Capability.LEASE_LIST
        if self.chance.random() < 0.5:
            self.capabilities |= base.Capability.LEASE_RELEASE
        self.conf = conf_.new()
        self.conf([], default_config_files=[], default_config_dirs=[])
        self.conf.set_override('interfaces', ['br0'], 'agent')
        self.store = store_.LeaseStore(':memory:', 10000, lambda: self.wall,
                                       lambda: self.ticks)
        self.start()

    def start(self) -> None:
        """Start the agent; after the first time: kill it before."""
        world: Any = self
        self.tracker = tracker.Tracker('br0')
        self.worker: Any = worker.Worker(
            self.conf, world, self.store, servers.Servers({'site': world}),
            lambda: True, threading.Event())
        self.worker._prober = mock.Mock(probe=self.probe)
        self.worker._releaser = mock.Mock(release=self.packet,
                                          reaches=lambda server: True)

    # the wire and the DHCP server

    def wire(self, *frames: bytes) -> None:
        heard = []
        for frame in frames:
            if self.chance.random() >= _LOST:
                heard.append(self.tracker.hear(frame))
        if self.store.record([one for one in heard if one is not None]):
            self.worker.news()

    def probe(self, leases: list[lease_.Lease]
              ) -> dict[lease_.Key, decide.Probe]:
        def one(lease: lease_.Lease) -> decide.Probe:
            guest = self.by_mac.get(lease.mac)
            if (guest is not None and guest.answers
                    and guest.address == lease.address):
                return decide.Probe.ANSWERED
            return decide.Probe.SILENT
        return {lease.key: one(lease) for lease in leases}

    def packet(self, lease: lease_.Lease, client_id: bytes | None) -> None:
        """Take a DHCPRELEASE as dnsmasq does."""
        self.judge(self.by_mac[lease.mac], lease.address,
                   'a release was sent')
        found = self.given.get(lease.address)
        if found is None or self.chance.random() < _LOST:
            return
        if (found.client_id == client_id if client_id is not None
                and found.client_id is not None
                else found.mac == lease.mac):
            self.free(lease.address)

    def free(self, address: ipaddress.IPv4Address) -> None:
        holder = self.by_mac[self.given.pop(address).mac]
        self.judge(holder, address, 'a lease was ended')
        self.released += holder.gone

    def judge(self, guest: Guest, address: ipaddress.IPv4Address,
              what: str) -> None:
        if not guest.gone or guest.answers and guest.address == address:
            self.false.append(f'{what}: {guest}, the cloud is {self.mode}')

    def leases_of(self, addresses: Collection[ipaddress.IPv4Address]
                  ) -> Iterator[base.Lease]:
        for address in addresses:
            found = self.given.get(address)
            if found is not None and found.until > self.ticks:
                yield base.Lease(address, found.mac, found.client_id, None)

    def release(self, lease: base.Lease) -> None:
        self.free(ipaddress.IPv4Address(str(lease.address)))

    # the cloud

    def renew(self) -> None:
        pass

    def check_region(self) -> None:
        pass

    def has_deleted(self, server_id: str) -> bool:
        return self.server_status(server_id) is None

    def sees_all_projects(self) -> bool:
        self.ask('keystone')
        return self.mode != 'blind'

    def has_network(self, network_id: str | None) -> bool:
        self.ask('network')
        return self.mode != 'empty'

    def ports(self, mac_address: list[str]) -> Iterator[cloud_.Port]:
        if self.mode not in ('empty', 'blind'):
            for guest in filter(None, map(self.by_mac.get, mac_address)):
                if guest.port:
                    yield cloud_.Port(
                        guest.port_id, 'network', 'project', guest.mac, (),
                        guest.server_id, 'compute:nova', 'ACTIVE')
        self.ask('ports')

    def port(self, port_id: str) -> cloud_.Port | None:
        self.ask('port')
        guest = self.guests[int(port_id[-12:], 16)]
        return next(self.ports([guest.mac]), None)

    def server_status(self, server_id: str) -> str | None:
        self.ask('server')
        if self.mode in ('empty', 'blind'):
            return None
        return self.guests[int(server_id[-12:], 16)].status

    def ask(self, what: str) -> None:
        if self.mode == what:
            raise exceptions.CloudUnavailable(what)

    # what happens

    def run(self) -> None:
        """Live all stories to their end."""
        with mock.patch.multiple(time, time=lambda: self.wall,
                                 monotonic=lambda: self.ticks):
            while self.left or not all(one.gone for one in self.guests):
                self.step()
            self.mode = 'well'
            for _ in range(8):
                self.agent(20)
        # Of what was never overheard nobody can know, and who answers stays.
        known = {lease.key for lease in self.store.page(None, 10000)
                 if lease.identified}
        self.held = sum((str(address), found.mac) in known
                        for address, found in self.given.items()
                        if found.until > self.ticks
                        and not self.by_mac[found.mac].answers)
        self.store.close()

    def step(self) -> None:
        if self.chance.random() < 0.3:
            self.mode, = self.chance.choices(
                list(_MODES), list(_MODES.values()))
        for _ in range(min(self.left, self.chance.randrange(4))):
            self.born()
        for guest in self.guests:
            if not guest.gone and self.chance.random() < 0.4:
                getattr(self, self.chance.choice((
                    'obtain', 'obtain', 'obtain', 'change', 'change',
                    'forge', 'hint', 'delete')))(guest)
        if self.chance.random() < 0.02:
            self.start()
        if self.chance.random() < 0.02:
            self.wall -= self.chance.randrange(1000)
        self.agent(self.chance.choice((1, 3, 10, 15, 40)))

    def agent(self, seconds: float) -> None:
        """Let time pass, and the agent do what is due."""
        self.wall += seconds
        self.ticks += seconds
        keys = dict.fromkeys(self.worker._pop(self.ticks))
        if None in keys:
            self.worker.identify()
        leases = [lease for key in keys if key
                  and (lease := self.store.get(key)) is not None]
        self.worker.check(leases)
        self.worker.verify(leases)
        if self.chance.random() < 0.5:
            self.worker.sweep()

    def born(self) -> None:
        self.left -= 1
        number = len(self.guests)
        mac = f'fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}'
        client_id = self.chance.choice((
            None, b'\x01' + bytes.fromhex(mac.replace(':', '')),
            # a golden image with one DUID for all
            b'\xff\0\0\0\1\0\2same'))
        guest = Guest(number, mac, client_id)
        self.guests.append(guest)
        self.by_mac[mac] = guest

    def obtain(self, guest: Guest) -> None:
        """Boot, or renew."""
        if guest.status in ('BUILD', 'REBOOT', 'RESCUE', 'RESIZE'):
            guest.status = 'ACTIVE'
        if guest.status not in ('ACTIVE', None) or not guest.runs:
            return
        renews = guest.address is not None and self.chance.random() < 0.7
        address = self.choose(guest)
        if address is None:
            return
        guest.address = address
        self.given[address] = Given(guest.mac, guest.client_id,
                                    self.ticks + _LEASE)
        said: dict[str, Any] = {
            'xid': self.chance.getrandbits(32), 'client_id': guest.client_id}
        self.wire(
            test_tracker.frame(
                guest.mac, packet.MessageType.REQUEST, guest.mac,
                **({'ciaddr': str(address)} if renews else {
                    'requested': str(address), 'server': str(_SERVER)}),
                **said),
            test_tracker.frame(
                _SERVER_MAC, packet.MessageType.ACK, guest.mac, op=2,
                yiaddr=str(address), server=str(_SERVER), xid=said['xid']))

    def choose(self, guest: Guest) -> ipaddress.IPv4Address | None:
        """Return the address that the server gives; of few there are."""
        for address, found in list(self.given.items()):
            if found.until <= self.ticks:
                del self.given[address]
            elif found.mac == guest.mac:
                return address
        alive = sum(not one.gone for one in self.guests)
        free = [_FIRST + n for n in range(alive + 5)
                if _FIRST + n not in self.given]
        return self.chance.choice(free) if free else None

    def change(self, guest: Guest) -> None:
        if guest.status is None:
            return
        guest.filters = self.chance.random() < 0.2
        if self.chance.random() < 0.5:
            guest.status, guest.runs = 'ACTIVE', True
        else:
            guest.status = self.chance.choice(_STATUSES)
            guest.runs = guest.status in ('ERROR', 'MIGRATING')

    def delete(self, guest: Guest) -> None:
        """Delete server or port, in any order, at one time or at two."""
        if self.chance.random() < 0.8:
            guest.status = None
            # on a host that is cut off it runs on
            guest.runs = guest.runs and self.chance.random() < 0.1
            if self.chance.random() < 0.5:
                self.hint(guest)
        if self.chance.random() < (0.8 if guest.status is None else 0.2):
            guest.port = False
        if guest.gone and self.chance.random() < 0.8:
            guest.runs = False

    def hint(self, guest: Guest) -> None:
        if guest.address is not None:
            self.worker.hint(rpc.Hint(
                guest.address, guest.mac, guest.server_id, guest.port_id,
                self.chance.choice((None, _SERVER))))

    def forge(self, villain: Guest) -> None:
        """Send something in the name of another guest, or of the server."""
        victim = self.chance.choice(self.guests)
        if victim is villain or victim.address is None:
            return
        said: dict[str, Any] = {
            'xid': 7, 'client_id': victim.client_id,
            'giaddr': self.chance.choice(('0.0.0.0', '10.66.0.9'))}
        chaddr = self.chance.choice((villain.mac, victim.mac))
        kind = self.chance.choice((
            packet.MessageType.REQUEST, packet.MessageType.RELEASE,
            packet.MessageType.DECLINE))
        self.wire(
            test_tracker.frame(
                villain.mac, kind, chaddr, ciaddr=str(victim.address),
                requested=str(victim.address), server=str(_SERVER), **said),
            test_tracker.frame(
                self.chance.choice((_SERVER_MAC, villain.mac)),
                self.chance.choice((packet.MessageType.ACK,
                                    packet.MessageType.NAK)), chaddr, op=2,
                yiaddr=str(victim.address), server=str(_SERVER), xid=7))


@dataclasses.dataclass
class Outcome:
    """What came of many stories."""

    stories: int
    false: list[str]
    released: int
    held: int


def live(seed: int, stories: int) -> Outcome:
    """Live some stories, in worlds with few guests and with many."""
    total = Outcome(0, [], 0, 0)
    with contextlib.ExitStack() as stack:
        for module in (worker, store_):
            if hasattr(module, 'LOG'):
                stack.enter_context(mock.patch.object(module, 'LOG'))
        stack.enter_context(mock.patch('vmip_plugin.agent.guests.LOG'))
        sizes = itertools.cycle((2, 5, 10, 50))
        while total.stories < stories:
            together = min(next(sizes), stories - total.stories)
            world = World(seed + total.stories, together)
            world.run()
            total.stories += together
            total.false += world.false
            total.released += world.released
            total.held += world.held
    return total

