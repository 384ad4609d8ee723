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

"""ISC dhcpd for the contract."""

import contextlib
import pathlib
import select
import socket
import struct
import threading

from tests.contract import base
from tests import lab
from vmip_plugin.dhcp import base as driver_base

CONF = pathlib.Path(__file__).with_name('dhcpd.conf')
KEY = 'c2VjcmV0IG9mIHRoZSB0ZXN0cywgdXNlIGFub3RoZXI='


class Dhcpd(lab.Process):
    """A dhcpd on a bridge.

    :param text: its configuration; default: that of :data:`CONF`.
    """

    def __init__(self, bridge: lab.Bridge, folder: pathlib.Path,
                 text: str | None = None) -> None:
        super().__init__()
        self._text = text
        self.bridge = bridge
        self.folder = folder
        self.config = folder / 'dhcpd.conf'
        self.lease_file = folder / 'dhcpd.leases'
        self.log = folder / 'dhcpd.log'

    def start(self) -> None:
        self.config.write_text(
            CONF.read_text() if self._text is None else self._text)
        self.lease_file.touch()
        self._stack.callback(self.end)
        self.up()

    def up(self) -> None:
        """Start it, also once more after :meth:`end`."""
        with open(self.log, 'ab') as log:
            mark = log.tell()
            self.process = self.bridge.popen(
                'dhcpd', '-4', '-f', '-d', '--no-pid', '-cf',
                str(self.config), '-lf', str(self.lease_file), 'br0',
                output=log)
        process = self.process

        def serves() -> bool:
            if process.poll() is not None:
                raise RuntimeError(self.log.read_text(errors='replace'))
            return b'Server starting' in self.log.read_bytes()[mark:]

        lab.wait_for(serves)


class Tunnel(lab.Managed):
    """A port of the loopback interface that leads into a namespace."""

    def __init__(self, namespace: lab.Namespace, port: int) -> None:
        super().__init__()
        self._namespace = namespace
        self._inner = port

    def start(self) -> None:
        self._listener = self._stack.enter_context(
            socket.create_server(('127.0.0.1', 0)))
        self.port = self._listener.getsockname()[1]
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(self._listener.shutdown, socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                outer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(outer,),
                             daemon=True).start()

    def _serve(self, outer: socket.socket) -> None:
        with outer:
            try:
                inner = self._namespace.inside(
                    lambda: socket.create_connection(
                        ('127.0.0.1', self._inner)))
            except OSError:
                # a reset, as from a port where nobody listens
                outer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                 struct.pack('ii', 1, 0))
                return
            other = {inner: outer, outer: inner}
            with inner, contextlib.suppress(OSError):
                while True:
                    for ready in select.select(list(other), [], [])[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        other[ready].sendall(data)


class IscServer(base.WireServer):
    """ISC dhcpd.

    :param port: where its OMAPI can be reached.
    """

    def __init__(self, dhcpd: Dhcpd, port: int) -> None:
        self.dhcpd = dhcpd
        self.bridge = dhcpd.bridge
        self.config = dhcpd.folder / 'vmip.conf'
        self.configure(port=port)

    def configure(self, **options: object) -> None:
        """Write the configuration, with options other than usual."""
        values = {
            'driver': 'isc', 'key_name': 'vmip', 'key': KEY,
            'key_algorithm': 'hmac-sha256',
            'lease_file': self.dhcpd.lease_file,
            'config_file': self.dhcpd.config, **options}
        self.config.write_text(
            '[dhcp]\nservers = test\n[dhcp:test]\n' + ''.join(
                f'{name} = {value}\n' for name, value in values.items()))

    def driver(self) -> driver_base.DHCPDriver:
        return base.load(self.config)

    def stop(self) -> None:
        self.dhcpd.end()

    def resume(self) -> None:
        self.dhcpd.up()

    def add_foreign(self, item: driver_base.HostEntry) -> None:
        self.append(f'host printer {{ hardware ethernet {item.mac};'
                    f' fixed-address {item.address}; }}')

    def append(self, text: str) -> None:
        with self.dhcpd.config.open('a') as file:
            file.write(f'{text}\n')

    def foreign(self) -> str:
        return self.dhcpd.config.read_text()

    def lend(self, *items: driver_base.HostEntry) -> None:
        """Give each MAC a range of its own: hosts have no lease in dhcpd."""
        classes = ''.join(
            f'class "{item.mac}" {{ match if hardware = 1:{item.mac}; }}\n'
            for item in items)
        pools = ''.join(
            f'pool {{ allow members of "{item.mac}"; range {item.address}; }}'
            '\n' for item in items)
        head, subnet, _ = self.dhcpd.config.read_text().partition('subnet ')
        self.dhcpd.config.write_text(
            f'{head}{classes}allow unknown-clients; ping-check false;\n'
            'ignore-client-uids false;\n'
            f'{subnet}10.66.0.0 netmask 255.255.0.0 {{\n{pools}}}\n')
        self.stop()
        self.resume()


class IscContract(base.WireContract):
    """With a dhcpd in a namespace of its own for each test."""

    server: IscServer

    def make_server(self) -> IscServer:
        bridge = self.enter(lab.Bridge())
        folder = self.enter(lab.Folder()).path
        self.dhcpd = self.enter(Dhcpd(bridge, folder))
        self.tunnel = self.enter(Tunnel(bridge, 7911))
        return IscServer(self.dhcpd, self.tunnel.port)
