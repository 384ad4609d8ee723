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

"""From a guest's death to the next one's lease, on a pool that is full.

For each DHCP server, on the agent's own host: with vmip-agent as it is
configured by default, once told of the delete and once not; with its
DHCPRELEASE alone; with dhcp_release(1), which only dnsmasq takes; and with
nothing but the end of the lease. The cloud is simulated: it knows what a file
says.
"""

import argparse
from collections.abc import Callable
import ipaddress
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
import uuid

from tests.benchmarks import base
from tests.functional.agent import pools
from tests import lab
from tests.unit.agent import test_guests
from vmip_plugin.agent import release

_SERVER = '10.66.255.254'
_MACS = tuple(f'fa:16:3e:66:00:0{number}' for number in range(1, 4))


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--releases', type=int, default=5,
                        help='release: times that each way is gone which '
                             'takes less than a second (default: '
                             '%(default)s)')
    parser.add_argument('--server', action='append',
                        choices=list(pools.SERVERS),
                        help='release: only this server (repeatable)')
    parser.add_argument('--lease', type=int, default=pools.LEAST_SECONDS,
                        metavar='SECONDS',
                        help='release: lease time; of dnsmasq it is no less '
                             'than the default, %(default)s')


def run(args: argparse.Namespace) -> None:
    report = base.Report('release')
    for name in args.server or pools.SERVERS:
        def measure(way: str, how: Callable[[Scene], None], times: int = 1,
                    name: str = name) -> float:
            return statistics.median(
                _measure(name, way, pools.SERVERS[name], args.lease, how)
                for _ in range(times))

        waited = measure('the lease ends', lambda one: None)
        # The others do not get what it sends: it goes by the loopback
        # interface, and they read from the network card.
        helped = args.releases if name == 'dnsmasq' else 1
        for way, how, times in (
                ('vmip-agent, told', Scene.agent_told, 1),
                ('vmip-agent, not told', Scene.agent_alone, 1),
                ('its DHCPRELEASE alone', Scene.packet, args.releases),
                ('dhcp_release', Scene.dhcp_release, helped)):
            report.add(f'{name}, {way}', measure(way, how, times), 's',
                       'the lease ends', waited)
    report.end()


def _measure(name: str, way: str, server: pools.Server, lease: int,
             how: Callable[['Scene'], None]) -> float:
    with (lab.Bridge(f'{_SERVER}/16') as bridge, lab.Folder() as folder,
          server(bridge, folder.path, lease), lab.Prober(bridge) as prober):
        scene = Scene(bridge, folder.path)
        try:
            if how in (Scene.agent_told, Scene.agent_alone):
                scene.start_agent(how is Scene.agent_told)
            leased = [prober.acquire(mac, 10) for mac in _MACS[:2]]
            assert sorted(map(str, leased)) == sorted(pools.POOL), leased
            assert prober.acquire(_MACS[2], 0.3) is None
            scene.address = str(leased[0])
            # the agent asks whose they are
            time.sleep(1.5)
            died = time.monotonic()
            scene.die()
            how(scene)
            while prober.acquire(_MACS[2], 0.2) is None:
                pass
            seconds = time.monotonic() - died
        finally:
            scene.end()
    base.say(f'release: {name}, {way}: {seconds:.3f} s')
    return seconds


class Scene:
    """Two guests that hold the pool, the cloud's word, and the agent."""

    def __init__(self, bridge: lab.Bridge, folder: pathlib.Path) -> None:
        self._bridge = bridge
        self._folder = folder
        self._ids = [(str(uuid.uuid4()), mac, str(uuid.uuid4()))
                     for mac in _MACS[:2]]
        self._agent: subprocess.Popen[bytes] | None = None
        self.address = ''
        self._say(self._ids)

    def _say(self, guests: list[tuple[str, str, str]],
             **more: object) -> None:
        path = self._folder / 'cloud.json'
        path.with_suffix('.new').write_text(json.dumps({
            'up': True, 'ports': guests,
            'servers': {server: 'ACTIVE' for _, _, server in guests},
            **more}))
        path.with_suffix('.new').rename(path)

    def start_agent(self, told: bool) -> None:
        log = self._folder / 'agent.log'
        (self._folder / 'vmip.conf').write_text(
            ('[DEFAULT]\ntransport_url = fake://\n' if told else '')
            + '[cloud]\nauth_type = password\n[agent]\ninterfaces = br0\n'
            f'store = {self._folder}/agent.sqlite\n')
        with log.open('wb') as output:
            self._agent = self._bridge.popen(
                'env', f'PYTHONPATH={os.pathsep.join(sys.path)}',
                sys.executable, '-m', 'tests.functional.agent.daemon',
                str(self._folder / 'cloud.json'), '--config-file',
                str(self._folder / 'vmip.conf'), output=output)
        lab.wait_for(lambda: b'Listening for DHCP' in log.read_bytes(), 30)

    def die(self) -> None:
        """Take the first guest out of the cloud, and tell of it."""
        port, mac, server = self._ids[0]
        self._say(self._ids[1:], hint={
            'address': self.address, 'mac': mac, 'port_id': port,
            'server_id': server})

    def agent_told(self) -> None:
        assert self._agent is not None
        self._agent.send_signal(signal.SIGUSR1)

    def agent_alone(self) -> None:
        pass

    def packet(self) -> None:
        lease = test_guests.lease(
            _MACS[0], address=ipaddress.IPv4Address(self.address),
            dhcp_server=ipaddress.IPv4Address(_SERVER))
        self._bridge.inside(lambda: release.Releaser(
            ['br0'], 'guest', 0.3).release(lease, None))

    def dhcp_release(self) -> None:
        self._bridge.run('dhcp_release', 'br0', self.address, _MACS[0])

    def end(self) -> None:
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()
