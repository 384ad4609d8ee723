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

"""A little network of namespaces: a bridge, a DHCP server and guests."""

from collections.abc import Callable
import contextlib
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
from typing import Any
import uuid

import testtools

from tests import lab as hosts

ROOT = pathlib.Path(__file__).parents[3]
SERVER = '10.9.8.1'
#: the whole pool
POOL = ('10.9.8.10', '10.9.8.11')
#: the shortest that dnsmasq grants
LEASE_SECONDS = 120
#: for tests, which know both as one
PATIENCE = hosts.PATIENCE
wait_for = hosts.wait_for

_UDHCPC = """#!/bin/sh
case "$1" in
bound|renew) ip addr flush dev "$interface"
    ip addr add "$ip/24" dev "$interface" ;;
deconfig) ip link set "$interface" up ;;
esac
"""
_DHCLIENT = """#!/bin/sh
case "$reason" in
BOUND|RENEW|REBIND|REBOOT) ip addr flush dev "$interface"
    ip addr add "$new_ip_address/24" dev "$interface" ;;
PREINIT) ip link set "$interface" up ;;
esac
"""


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True,
                          text=True).stdout


class Guest:
    """A namespace with one interface on the bridge."""

    def __init__(self, lab: 'Lab', name: str, mac: str) -> None:
        self.lab, self.name, self.mac = lab, name, mac
        self.port_id, self.server_id = str(uuid.uuid4()), str(uuid.uuid4())
        self.namespace = lab.namespace(name)
        self.tap = f'tap-{name}'
        run('ip', 'link', 'add', self.tap, 'netns', lab.host, 'type', 'veth',
            'peer', 'name', 'eth0', 'address', mac, 'netns', self.namespace)
        run('ip', '-n', lab.host, 'link', 'set', self.tap, 'master', 'br0',
            'up')
        run('ip', '-n', self.namespace, 'link', 'set', 'lo', 'up')
        run('ip', '-n', self.namespace, 'link', 'set', 'eth0', 'up')

    def udhcpc(self) -> None:
        self.lab.start(
            'udhcpc', '-f', '-i', 'eth0', '-t', '100', '-T', '1', '-A', '1',
            '-s', self.lab.script('udhcpc', _UDHCPC),
            namespace=self.namespace)

    def dhclient(self) -> None:
        base = self.lab.path / self.name
        self.lab.start(
            'dhclient', '-4', '-d', '-sf',
            self.lab.script('dhclient', _DHCLIENT), '-cf', '/dev/null',
            '-lf', f'{base}.leases', '-pf', f'{base}.pid', 'eth0',
            namespace=self.namespace)

    @property
    def address(self) -> str | None:
        found = re.search(r'inet (\S+)/', run(
            'ip', '-n', self.namespace, '-4', 'addr', 'show', 'eth0'))
        return found[1] if found else None

    def wait_address(self) -> str:
        return str(wait_for(lambda: self.address))

    def pause(self) -> None:
        """Lose every frame, with the link up: like a paused VM."""
        run('ip', '-n', self.lab.host, 'link', 'set', self.tap, 'nomaster')

    def resume(self) -> None:
        run('ip', '-n', self.lab.host, 'link', 'set', self.tap, 'master',
            'br0')

    def send(self, *frames: bytes) -> None:
        run('ip', 'netns', 'exec', self.namespace, 'env',
            f'PYTHONPATH={ROOT}', sys.executable, '-m',
            'tests.functional.agent.send', 'eth0',
            *(frame.hex() for frame in frames))

    def destroy(self) -> None:
        self.lab.kill(self.namespace)
        run('ip', '-n', self.lab.host, 'link', 'del', self.tap)


class Lab(testtools.TestCase):
    """Base of the tests; all it makes is gone when a test ends."""

    #: dnsmasq on the bridge itself, in the agent's own namespace
    server_on_bridge = False
    #: the agent reads dnsmasq's leases
    ask_server = False
    #: what the agent's command begins with
    privileges: tuple[str, ...] = ()
    #: where the agent runs; None: on the host with the bridge
    agent_namespace: str | None = None

    def setUp(self) -> None:
        super().setUp()
        self._id = uuid.uuid4().hex[:6]
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        directory = tempfile.TemporaryDirectory(prefix='vmip-')
        self.addCleanup(directory.cleanup)
        self.path = pathlib.Path(directory.name)
        (self.path / 'agent.log').touch()
        self.addOnException(lambda _: self._add_logs())
        self.addCleanup(self._kill_all)
        self.host = self.namespace('host')
        run('ip', '-n', self.host, 'link', 'add', 'br0', 'type', 'bridge')
        run('ip', '-n', self.host, 'link', 'set', 'br0', 'up')
        run('ip', '-n', self.host, 'link', 'set', 'lo', 'up')
        self.said: dict[str, Any] = {'up': True, 'ports': [], 'servers': {}}
        self.say()
        self._serve()

    def _add_logs(self) -> None:
        for path in self.path.glob('*.log'):
            self.addDetail(path.name, testtools.content.text_content(
                path.read_text(errors='replace')))

    def namespace(self, name: str) -> str:
        namespace = f'vmip-{self._id}-{name}'
        run('ip', 'netns', 'add', namespace)
        self.addCleanup(run, 'ip', 'netns', 'del', namespace)
        return namespace

    @property
    def bridge_mac(self) -> str:
        return self._mac(self.host, 'br0')

    @property
    def server_mac(self) -> str:
        return self._mac(self.dhcp_namespace, 'eth0')

    def _mac(self, namespace: str, interface: str) -> str:
        return str(json.loads(run(
            'ip', '-n', namespace, '-j', 'link', 'show', interface
        ))[0]['address'])

    def script(self, name: str, text: str) -> str:
        path = self.path / name
        if not path.exists():
            path.write_text(text)
            path.chmod(0o755)
        return str(path)

    def start(self, *command: str, namespace: str,
              log: str = 'other.log') -> subprocess.Popen[bytes]:
        with (self.path / log).open('ab') as output:
            process = subprocess.Popen(
                ('ip', 'netns', 'exec', namespace, *command),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)})
        self._processes.append((namespace, process))
        return process

    def kill(self, namespace: str) -> None:
        """Kill what was started in a namespace, as a host kills a VM."""
        for where, process in self._processes:
            if where == namespace:
                process.kill()
                process.wait()

    def guest(self, name: str, known: bool = True) -> Guest:
        """Return a new guest; ``known``: the cloud has it."""
        number = int(name[1:])
        guest = Guest(self, name, f'fa:16:3e:{self._id[:2]}:00:{number:02x}')
        if known:
            self.said['ports'].append(
                [guest.port_id, guest.mac, guest.server_id])
            self.said['servers'][guest.server_id] = 'ACTIVE'
            self.say()
        return guest

    def forget(self, guest: Guest) -> None:
        """Make the cloud say that a guest is gone."""
        self.said['ports'] = [
            port for port in self.said['ports'] if port[0] != guest.port_id]
        self.said['servers'].pop(guest.server_id, None)
        self.say()

    def say(self) -> None:
        path = self.path / 'cloud.json'
        path.with_suffix('.new').write_text(json.dumps(self.said))
        path.with_suffix('.new').rename(path)

    def watch(self) -> Callable[[], list[str]]:
        """Return what tells the DHCP frames that reach the server."""
        self.start(sys.executable, '-m', 'tests.functional.agent.receive',
                   'eth0', namespace=self.dhcp_namespace, log='server.log')
        wait_for((self.path / 'server.log').read_text)
        return lambda: (
            self.path / 'server.log').read_text().splitlines()[1:]

    def agent(self, transport_url: str = '', **options: Any
              ) -> subprocess.Popen[bytes]:
        """Start an agent; return when it listens."""
        self.configure(transport_url, **options)
        heard = self.log().count('Listening for DHCP on')
        process = self.daemon()
        wait_for(lambda: process.poll() is not None or self.log().count(
            'Listening for DHCP on') > heard)
        self.assertIsNone(process.poll(), self.log())
        return process

    def configure(self, transport_url: str = '', **options: Any) -> None:
        """Write the agent's configuration."""
        values = {
            'interfaces': 'br0', 'store': self.path / 'agent.sqlite',
            'sweep_interval': 1, 'confirm_delay': 1, 'probe_timeout': 0.5,
            **options}
        # as dnsmasq was started with, but for the folder it does not need
        server = {
            'driver': 'dnsmasq', 'hostsdir': self.path / 'hosts',
            'pid_file': self.path / 'dnsmasq.pid',
            'lease_file': self.path / 'dnsmasq.leases', 'server_id': SERVER}
        (self.path / 'vmip.conf').write_text(
            '[DEFAULT]\ndebug = true\n'
            + (f'transport_url = {transport_url}\n' if transport_url else '')
            + '[cloud]\nauth_type = password\n[agent]\n'
            + ''.join(f'{key} = {value}\n' for key, value in values.items())
            + ('[dhcp]\nservers = site\n[dhcp:site]\n' + ''.join(
                f'{key} = {value}\n' for key, value in server.items())
               if self.ask_server else ''))

    def daemon(self) -> subprocess.Popen[bytes]:
        return self.start(
            *self.privileges, sys.executable, '-m',
            'tests.functional.agent.daemon',
            str(self.path / 'cloud.json'), '--config-file',
            str(self.path / 'vmip.conf'),
            namespace=self.agent_namespace or self.host, log='agent.log')

    def identified(self, guest: Guest, path: str = 'agent.sqlite') -> None:
        """Wait until the agent knows whose a guest's lease is."""
        store = sqlite3.connect(f'file:{self.path}/{path}?mode=ro', uri=True)
        try:
            wait_for(lambda: store.execute(
                'SELECT 1 FROM lease WHERE mac = ? AND port_id IS NOT NULL',
                (guest.mac,)).fetchone())
        finally:
            store.close()

    def log(self) -> str:
        return (self.path / 'agent.log').read_text()

    def released(self, address: str) -> int:
        """Return how often the agent says to have released an address."""
        return self.log().count(f'Released {address} of ')

    def leases(self) -> dict[str, str]:
        """Return dnsmasq's leases: address to MAC."""
        lines = (self.path / 'dnsmasq.leases').read_text().splitlines()
        return {line.split()[2]: line.split()[1] for line in lines}

    def _serve(self) -> None:
        if self.server_on_bridge:
            namespace, interface = self.host, 'br0'
        else:
            namespace, interface = self.namespace('dhcp'), 'eth0'
            run('ip', 'link', 'add', 'tap-dhcp', 'netns', self.host, 'type',
                'veth', 'peer', 'name', 'eth0', 'netns', namespace)
            run('ip', '-n', self.host, 'link', 'set', 'tap-dhcp', 'master',
                'br0', 'up')
            run('ip', '-n', namespace, 'link', 'set', 'eth0', 'up')
            # a guest that forges its frames does not lead the bridge astray
            run('bridge', '-n', self.host, 'fdb', 'replace',
                self._mac(namespace, 'eth0'), 'dev', 'tap-dhcp', 'master',
                'static')
        run('ip', '-n', namespace, 'addr', 'add', f'{SERVER}/24', 'dev',
            interface)
        self.dhcp_namespace = namespace
        self.start(
            'dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null',
            '--port=0', '--no-ping', '--dhcp-authoritative', '--user=root',
            f'--interface={interface}', '--bind-interfaces', '--log-dhcp',
            '--log-facility=-', f'--pid-file={self.path}/dnsmasq.pid',
            f'--dhcp-leasefile={self.path}/dnsmasq.leases',
            f'--dhcp-range={POOL[0]},{POOL[-1]},{LEASE_SECONDS}',
            namespace=namespace, log='dnsmasq.log')
        wait_for((self.path / 'dnsmasq.leases').exists)

    def _kill_all(self) -> None:
        for _, process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                process.wait()
