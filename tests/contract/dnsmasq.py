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


"""dnsmasq for the contract."""

import pathlib

from tests.contract import base
from tests import lab
from vmip_plugin.dhcp import base as driver_base


class DnsmasqServer(base.WireServer):
    """dnsmasq.

    :param options: further lines of the server's section.
    """

    def __init__(self, dnsmasq_: lab.Dnsmasq, options: str) -> None:
        self.dnsmasq = dnsmasq_
        self.bridge = dnsmasq_.bridge
        self.config = dnsmasq_.folder / 'vmip.conf'
        self.config.write_text(
            '[dhcp]\nservers = test\n[dhcp:test]\ndriver = dnsmasq\n'
            f'hostsdir = {dnsmasq_.hostsdir}\n'
            f'pid_file = {dnsmasq_.pid_file}\n'
            f'lease_file = {dnsmasq_.lease_file}\n{options}\n')

    def driver(self) -> driver_base.DHCPDriver:
        return base.load(self.config)

    def stop(self) -> None:
        self.dnsmasq.end()

    def resume(self) -> None:
        self.dnsmasq.up()

    def add_foreign(self, item: driver_base.HostEntry) -> None:
        path = self.dnsmasq.hostsdir / 'by-hand'
        with path.open('a') as file:
            address = f'[{item.address}]' if item.address.version == 6 \
                else item.address
            file.write(f'# mine\n{item.mac},{address},printer\n')

    def foreign(self) -> str:
        return repr(sorted(
            (path.name, path.read_text(), path.stat().st_mtime_ns)
            for path in self.dnsmasq.hostsdir.iterdir()
            if 'vmip' not in path.name))


class DnsmasqContract(base.WireContract6):
    """With a dnsmasq in a namespace of its own for each test."""

    server: DnsmasqServer
    bus: lab.Bus | None = None
    #: further lines of the server's section
    options = ''

    def client_ids(self, *sent: bytes | None) -> list[bytes | None]:
        # our lines have it forget them
        return [None] * len(sent)

    def make_server(self) -> DnsmasqServer:
        folder = self.enter(lab.Folder()).path
        self.hostsdir = self.make_hostsdir(folder)
        bridge = self.enter(lab.Bridge())
        self.dnsmasq = self.enter(lab.Dnsmasq(
            bridge, folder, self.hostsdir, bus=self.bus))
        return DnsmasqServer(self.dnsmasq, self.options)

    def make_hostsdir(self, folder: pathlib.Path) -> pathlib.Path:
        path = folder / 'hosts'
        path.mkdir()
        return path

    def reloads(self) -> int:
        """Return how many SIGHUPs dnsmasq has taken, from its log.

        A file that is read without a change before it is read at a SIGHUP.
        """
        probe = self.hostsdir / 'probe'
        log = self.dnsmasq.log.read_text(errors='replace')
        return log.count(f'read {probe}') - log.count(f'{probe} new or mod')

    def count_reloads(self) -> None:
        (self.hostsdir / 'probe').write_text('# nothing\n')
        lab.wait_for(lambda: 'probe new or mod'
                     in self.dnsmasq.log.read_text(errors='replace'))

    def names(self) -> set[str]:
        return {path.name for path in self.hostsdir.iterdir()}
