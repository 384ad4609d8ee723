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

"""DHCP servers that give out two addresses to whoever asks."""

from collections.abc import Callable
import functools
import pathlib

from tests.contract import isc
from tests.contract import kea
from tests import lab

#: the whole pool
POOL = ('10.66.1.1', '10.66.1.2')
#: the shortest that dnsmasq grants
LEAST_SECONDS = 120


class Dnsmasq(lab.Process):
    """dnsmasq, without its ping of three seconds."""

    def __init__(self, bridge: lab.Bridge, folder: pathlib.Path,
                 seconds: int) -> None:
        super().__init__()
        self.bridge = bridge
        self.folder = folder
        self.seconds = max(seconds, LEAST_SECONDS)

    def start(self) -> None:
        self._stack.callback(self.end)
        self.process = self.bridge.popen(
            'dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null',
            '--port=0', '--no-ping', '--dhcp-authoritative',
            '--interface=br0', '--bind-interfaces', '--user=root',
            f'--pid-file={self.folder}/pid',
            f'--dhcp-leasefile={self.folder}/leases',
            f'--dhcp-range={POOL[0]},{POOL[1]},{self.seconds}')
        lab.wait_for((self.folder / 'leases').exists)


def _kea(version: str, bridge: lab.Bridge, folder: pathlib.Path,
         seconds: int) -> kea.Daemon:
    return kea.Daemon('kea-dhcp4', version, bridge, folder, {'Dhcp4': {
        'interfaces-config': {'interfaces': ['br0']},
        'lease-database': {'type': 'memfile',
                           'name': str(folder / 'kea-leases4.csv')},
        'authoritative': True, 'valid-lifetime': seconds,
        'subnet4': [{'id': 1, 'subnet': str(bridge.address.network),
                     'pools': [{'pool': '-'.join(POOL)}]}],
        'loggers': [{'name': 'kea-dhcp4', 'severity': 'INFO',
                     'output_options': [{'output': 'stdout'}]}]}}, {})


def _dhcpd(bridge: lab.Bridge, folder: pathlib.Path, seconds: int
           ) -> isc.Dhcpd:
    """Return a dhcpd without its ping of a second."""
    return isc.Dhcpd(
        bridge, folder, 'authoritative; ping-check false;\n'
        'ddns-update-style none;\n'
        f'default-lease-time {seconds}; min-lease-time {seconds};'
        f' max-lease-time {seconds};\n'
        f'subnet {bridge.address.network.network_address}'
        f' netmask {bridge.address.netmask} {{\n'
        f'range {POOL[0]} {POOL[1]}; }}\n')


Server = Callable[[lab.Bridge, pathlib.Path, int], lab.Process]

#: name -> makes the server that gives out :data:`POOL` on a bridge, for so
#: many seconds
SERVERS: dict[str, Server] = {
    'dnsmasq': Dnsmasq,
    'Kea 2.2': functools.partial(_kea, '2.2'),
    'Kea 3.0': functools.partial(_kea, '3.0'),
    'dhcpd': _dhcpd,
}
