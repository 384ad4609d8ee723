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

"""dnsmasq's own time for a change, when its guests have leases.

It looks for the line of each lease, one after the other, whenever a file
comes into its folder: entries without leases tell little about a site.
Measured is its processor time, in which it answers nobody.
"""

import argparse
import ipaddress
import pathlib
import time

from tests.benchmarks import base
from tests.contract import dnsmasq
from tests import lab
from vmip_plugin.dhcp import base as dhcp

CHANGES = 3


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--guests', type=int, nargs='+', metavar='N',
                        default=[1000, 2000, 5000, 8000, 10000],
                        help='leases: guests of a dnsmasq (default: 1000 2000 '
                             '5000 8000 10000)')


def run(args: argparse.Namespace) -> None:
    """Measure each number of guests, with and without D-Bus."""
    report = base.Report('leases')
    for guests in args.guests:
        for dbus in False, True:
            title = f'{guests} guests{", D-Bus" if dbus else ""}'
            for figure, value in _measure(guests, guests, dbus).items():
                base.say(f'leases: {title}: {figure}: {value:.4f} s')
                report.add(f'{title}: {figure}', value, 's')
    report.end()


def _entry(number: int) -> dhcp.HostEntry:
    return dhcp.HostEntry(
        ':'.join(f'{byte:02x}' for byte in (
            0xfa163e000000 + number).to_bytes(6)),
        ipaddress.IPv4Address('10.66.0.0') + number)


def _measure(guests: int, leased: int, dbus: bool) -> dict[str, float]:
    """Return dnsmasq's seconds.

    :param leased: guests that have a lease.
    """
    found: dict[str, float] = {}
    with lab.Folder() as folder, lab.Bridge('10.67.255.254/15') as bridge, \
            lab.Bus(folder.path) as bus, lab.Prober(bridge) as prober:
        expires = int(time.time()) + 86400
        (folder.path / 'dnsmasq.leases').write_text(''.join(
            f'{expires} {item.mac} {item.address} * *\n'
            for item in map(_entry, range(1, leased + 1))))
        with lab.Dnsmasq(bridge, folder.path,
                         extra=['--dhcp-authoritative', '--quiet-dhcp'],
                         bus=bus if dbus else None) as server:
            assert server.process is not None
            times = pathlib.Path(f'/proc/{server.process.pid}/schedstat')
            driver = dnsmasq.DnsmasqServer(
                server, 'timeout = 600\nmax_pause = 600').driver()

            def spent() -> float:
                return int(times.read_text().split()[0]) / 1e9

            def live(item: dhcp.HostEntry) -> None:
                lab.wait_for(lambda: prober.discover(item.mac, 1), 600)

            def least(figure: str, taken: list[float]) -> None:
                found[f'{figure}, least of {len(taken)}'] = min(taken)

            many = [_entry(number) for number in range(1, guests + 1)]
            driver.put(many)
            live(many[-1])
            # into the file of the many
            driver.remove(many[:1])
            taken = []
            for item in many[1:1 + CHANGES]:
                before = spent()
                driver.remove([item])
                taken.append(spent() - before)
            least('removal', taken)
            taken = []
            for item in map(_entry, range(guests + 1, guests + 1 + CHANGES)):
                before = spent()
                driver.put([item])
                live(item)
                taken.append(spent() - before)
            least('put', taken)
            before = spent()
            for _ in range(20):
                live(many[guests // 2])
            found['DISCOVER to OFFER'] = (spent() - before) / 20
    return found
