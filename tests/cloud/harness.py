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

"""What the tests and the demo see of the one-machine cloud.

All of it is looked at from outside: the clients' own commands, the DHCP
server's files, the frames on the wire, the guests' consoles.
"""

from collections.abc import Callable, Iterator
from concurrent import futures
import contextlib
import dataclasses
import datetime
import json
import os
from pathlib import Path
import re
import struct
import subprocess
import time
from typing import Any
from typing import TypeVar

from minicloud import cloud as minicloud
from minicloud import process
from minicloud import settings
import openstack

from vmip_plugin import conf as vmip_conf
from vmip_plugin.dhcp import packet
from vmip_plugin.inventory import api
from vmip_plugin import types

T = TypeVar('T')
Type = packet.MessageType

BIN = settings.VENV / 'bin'
HOSTS = settings.DHCP1 / 'hosts'
LEASES = settings.DHCP1 / 'leases'
WIRE = settings.LOG / 'wire1.pcap'


class TooLate(AssertionError):
    """What was waited for did not come."""


#: seconds that end the waiting of a test that fails; a busy machine has them
PATIENCE = 300


def wait_for(what: str, check: Callable[[], T], seconds: float = PATIENCE,
             every: float = 0.05) -> T:
    """Wait until a check returns something true, and return that.

    :raises TooLate: it did not within the time.
    """
    deadline = time.monotonic() + seconds
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > deadline:
            raise TooLate(f'{what}: not within {seconds:g} s')
        time.sleep(every)


def up(compute: str = 'fake', vmip: bool = True, strict: bool = False,
       ) -> None:
    """Bring the cloud up, unless it is."""
    if not minicloud.is_up(compute, vmip, strict):
        minicloud.up(compute, vmip, strict=strict)


@dataclasses.dataclass(frozen=True)
class Frame:
    """A DHCP message and when it passed the bridge (seconds since 1970)."""

    at: float
    message: packet.Message


def wire(since: float = 0.0) -> Iterator[Frame]:
    """Yield the DHCP messages that tcpdump wrote down."""
    data = WIRE.read_bytes()
    offset = 24
    while offset + 16 <= len(data):
        seconds, fraction, length, _ = struct.unpack_from('<IIII', data,
                                                          offset)
        frame = data[offset + 16:offset + 16 + length]
        offset += 16 + length
        if len(frame) < length:
            return      # tcpdump is writing it
        at = seconds + fraction / 1e6
        header = (frame[14] & 0x0f) * 4
        if at >= since:
            yield Frame(at, packet.parse(frame[14 + header + 8:]))


def acknowledged(mac: str, since: float) -> Frame | None:
    """Return the first DHCPACK for a MAC on the wire."""
    return next((f for f in wire(since) if f.message.chaddr == mac
                 and f.message.message_type is Type.ACK), None)


def discovered(mac: str, since: float) -> tuple[Frame, Frame | None] | None:
    """Return a MAC's first DHCPDISCOVER and the DHCPOFFER that answers it."""
    frames = [f for f in wire(since) if f.message.chaddr == mac]
    first = next((f for f in frames
                  if f.message.message_type is Type.DISCOVER), None)
    if first is None:
        return None
    following = [f for f in frames if f.at > first.at]
    answer = next((f for f in following
                   if f.message.message_type is Type.OFFER), None)
    again = next((f for f in following
                  if f.message.message_type is Type.DISCOVER), None)
    if answer and again and again.at < answer.at:
        answer = None
    return first, answer


def host_entries() -> dict[str, str]:
    """Return address to MAC, as the DHCP server's folder has it."""
    found = {}
    for path in HOSTS.iterdir():
        if path.name.startswith('.'):
            continue
        try:
            lines = path.read_text().splitlines()
        except FileNotFoundError:
            continue    # removed between the two
        for line in lines:
            if line and not line.startswith('#'):
                mac, *rest = line.split(',')
                address, = (part for part in rest if re.fullmatch(
                    r'[0-9]+(\.[0-9]+){3}', part))
                found[address] = mac
    return found


def leases() -> dict[str, str]:
    """Return address to MAC of the leases in dnsmasq's lease file."""
    if not LEASES.exists():
        return {}
    return {words[2]: words[1]
            for words in map(str.split, LEASES.read_text().splitlines())
            if len(words) >= 4 and int(words[0]) > time.time()}


@contextlib.contextmanager
def configured(name: str, text: str, *services: str) -> Iterator[None]:
    """Run services with more in a configuration file for a while."""
    path = settings.MORE / name
    before = path.read_text() if path.exists() else None
    settings.write_private(path, text)
    try:
        _start(*services)
        yield
    finally:
        if before is None:
            path.unlink()
        else:
            settings.write_private(path, before)
        _start(*services)


def _start(*services: str) -> None:
    minicloud.start(*services)
    if 'neutron-api' in services:
        # A process of Neutron's fails if ports are the first thing that it
        # is asked for.
        network = Cloud().sdk('admin').network
        with futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: list(network.networks()), range(32)))


class Cloud:
    """The cloud that is up, seen by a plain user and by the operator."""

    def __init__(self) -> None:
        # Not as a host service reads it: once, whatever becomes of it.
        self.conf = vmip_conf.new()
        vmip_conf.parse(self.conf, ['--config-file', str(settings.VMIP_CONF)],
                        'test')
        self.inventory = api.Inventory(self.conf, 'test')
        self._connections: dict[str, Any] = {}

    def sdk(self, name: str = 'demo') -> Any:
        """Return an SDK connection of one of the cloud's users."""
        if name not in self._connections:
            os.environ['OS_CLIENT_CONFIG_FILE'] = str(
                settings.STATE / 'clouds.yaml')
            self._connections[name] = openstack.connect(cloud=name)
        return self._connections[name]

    def openstack(self, *args: str, user: str = 'demo') -> Any:
        """Run the unmodified ``openstack`` client; return its JSON."""
        return _run([BIN / 'openstack', *args], user,
                    'list' in args or 'show' in args or 'create' in args)

    def manage(self, *args: str) -> Any:
        """Run ``vmip-manage``; return its JSON."""
        return _run(
            [BIN / 'vmip-manage', '--config-file', settings.VMIP_CONF,
             *args], 'admin', args[-1] != 'upgrade' and 'delete' not in args)

    def server(self, name: str) -> Any:
        """Return a server of the demo user by its name."""
        return next(iter(self.sdk().compute.servers(
            name=f'^{name}$', details=True)), None)

    def port(self, server_id: str) -> Any:
        """Return a server's only port."""
        return next(iter(self.sdk('admin').network.ports(
            device_id=server_id)), None)

    def address_state(self, address: str) -> str:
        """Return the state of an address in the list."""
        found = list(self.inventory.addresses(
            address=types.parse_address(address)))
        return found[0][1].state.value if found else 'free'

    def console(self, server_id: str) -> str:
        """Return what a guest wrote on its serial line."""
        path: Path = (settings.STATE / 'compute-libvirt/instances'
                      / server_id / 'console.log')
        try:
            return path.read_text(errors='replace')
        except FileNotFoundError:
            return ''

    def forget_servers(self) -> None:
        """Delete every server of the demo user, and wait for the end."""
        servers = list(self.sdk().compute.servers())
        for server in servers:
            self.sdk().compute.delete_server(server.id)
        wait_for('servers are deleted',
                 lambda: not list(self.sdk().compute.servers()))
        wait_for('addresses are released', lambda: not [
            a for _, a in self.inventory.addresses()
            if a.hold_name is None])

    def pool(self, name: str, subnet: str, first: str, last: str) -> None:
        """Make a pool unless it is there."""
        if name not in {pool.name for pool, _ in self.inventory.pools()}:
            self.manage('pool', 'create', name, '--subnet', subnet,
                        '--range', f'{first}-{last}', '--dhcp-server',
                        'dnsmasq1', '--adopt')


def _run(command: list[Any], user: str, json_wanted: bool) -> Any:
    if json_wanted:
        command = [*command, '-f', 'json']
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True,
        env={**os.environ, 'OS_CLOUD': user,
             'OS_CLIENT_CONFIG_FILE': str(settings.STATE / 'clouds.yaml')},
        timeout=PATIENCE, check=False)
    if done.returncode:
        raise AssertionError(
            f'{" ".join(map(str, command))}: exit code {done.returncode}\n'
            f'{done.stdout}{done.stderr}')
    return json.loads(done.stdout) if json_wanted else done.stdout


def address(text: str) -> types.Address:
    """Return an address."""
    return types.parse_address(text)


def utc(text: str) -> datetime.datetime:
    """Return one of Nova's moments."""
    return datetime.datetime.fromisoformat(
        text.removesuffix('Z')).replace(tzinfo=datetime.UTC)


__all__ = ['Cloud', 'Frame', 'PATIENCE', 'TooLate', 'acknowledged', 'address',
           'configured', 'discovered', 'host_entries', 'leases', 'minicloud',
           'process', 'settings', 'up', 'utc', 'wait_for', 'wire']
