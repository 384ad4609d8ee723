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


"""Networks, servers and clients in namespaces that a test makes for itself.

Every name has this process's id in it, every process is ended by its own
handle, and everything is a context manager. Needs root.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import ctypes
import ipaddress
import itertools
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from types import TracebackType
from typing import IO, Self, TypeVar

T = TypeVar('T')
ManagedT = TypeVar('ManagedT', bound='Managed')

_COUNT = itertools.count()
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def run(*args: str) -> str:
    """Run a command to its end and return what it prints."""
    done = subprocess.run(args, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f'{" ".join(args)}: {done.stdout}')
    return done.stdout


#: seconds after which something hangs; a busy machine has them
PATIENCE = 300


def wait_for(what: Callable[[], T], timeout: float = PATIENCE) -> T:
    """Return the first true value of ``what()`` within some seconds.

    By default they only end a test that fails: a busy machine has them, too.

    :raises TimeoutError: there was none.
    """
    end = time.monotonic() + timeout
    while not (value := what()):
        if time.monotonic() > end:
            raise TimeoutError(f'not within {timeout} s')
        time.sleep(0.005)
    return value


class Managed:
    """A context manager that leaves nothing behind, on any way out."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None,
                 value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stack.close()


class Folder(Managed):
    """A throw-away folder that every user may read."""

    def start(self) -> None:
        self.path = pathlib.Path(tempfile.mkdtemp(prefix='vmip-test-'))
        self._stack.callback(shutil.rmtree, self.path, ignore_errors=True)
        self.path.chmod(0o755)


class Namespace(Managed):
    """A network namespace of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.name = f'vmip{os.getpid()}-{next(_COUNT)}'

    def start(self) -> None:
        run('ip', 'netns', 'add', self.name)
        self._stack.callback(run, 'ip', 'netns', 'del', self.name)
        self._stack.callback(self._empty)
        self.run('ip', 'link', 'set', 'lo', 'up')
        # a link-local address may be used at once (RFC 4862, 5.4)
        self.run('sh', '-c',
                 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad')

    def _empty(self) -> None:
        # what a client has forked off holds the namespace
        for pid in run('ip', 'netns', 'pids', self.name).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def command(self, *args: str) -> list[str]:
        return ['ip', 'netns', 'exec', self.name, *args]

    def run(self, *args: str) -> str:
        return run(*self.command(*args))

    def popen(self, *args: str,
              output: IO[bytes] | int = subprocess.DEVNULL,
              ) -> subprocess.Popen[bytes]:
        """Start a process inside; its id is that of ``args``' process."""
        return subprocess.Popen(self.command(*args), stdout=output,
                                stderr=subprocess.STDOUT,
                                stdin=subprocess.DEVNULL)

    def inside(self, function: Callable[[], T]) -> T:
        """Call a function in a thread that has entered the namespace."""
        result: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                with open(f'/run/netns/{self.name}', 'rb') as file:
                    if _LIBC.setns(file.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), 'setns')
                result.append(function())
            except BaseException as exc:
                errors.append(exc)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return result[0]


class Bridge(Namespace):
    """A namespace with a bridge ``br0`` where a DHCP server may listen.

    :param address: the bridge's address with its prefix.
    :param address6: the same of IPv6.
    """

    def __init__(self, address: str = '10.66.255.254/16',
                 address6: str = '2001:db8:66::ffff:fffe/64') -> None:
        super().__init__()
        self.address = ipaddress.IPv4Interface(address)
        self.address6 = ipaddress.IPv6Interface(address6)
        self._ports = itertools.count()

    def start(self) -> None:
        super().start()
        self.run('ip', 'link', 'add', 'br0', 'type', 'bridge',
                 'forward_delay', '0', 'mcast_snooping', '0')
        for address in self.address, self.address6:
            self.run('ip', 'address', 'add', str(address), 'dev', 'br0')
        self.run('ip', 'link', 'set', 'br0', 'up')

    def attach(self, other: Namespace, mac: str | None = None) -> None:
        """Give another namespace an ``eth0`` on this bridge."""
        port = f'p{next(self._ports)}'
        run('ip', 'link', 'add', port, 'netns', self.name, 'type', 'veth',
            'peer', 'name', 'eth0', 'netns', other.name)
        if mac:
            other.run('ip', 'link', 'set', 'eth0', 'address', mac)
        self.run('ip', 'link', 'set', port, 'master', 'br0', 'up')
        other.run('ip', 'link', 'set', 'eth0', 'up')
        # The kernel tells the bridge, and the interface's queue, within a
        # second; what is sent before that is lost.
        wait_for(lambda: 'state forwarding' in self.run(
            'bridge', 'link', 'show', 'dev', port)
            and ' state UP ' in other.run('ip', 'link', 'show', 'eth0'))

    def join(self, other: 'Bridge') -> None:
        """Make one network of this bridge and another."""
        self.attach(other)
        other.run('ip', 'link', 'set', 'eth0', 'master', 'br0')


class Process(Managed):
    """A process that is ended, at the latest, with the test."""

    process: subprocess.Popen[bytes] | None = None

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(how)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


class Bus(Process):
    """A D-Bus bus where only root may talk to dnsmasq."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__()
        self.folder = folder
        self.address = f'unix:path={folder}/bus'

    def start(self) -> None:
        name = 'uk.org.thekelleys.dnsmasq'
        config = self.folder / 'bus.conf'
        config.write_text(f'''<busconfig>
          <listen>{self.address}</listen>
          <auth>EXTERNAL</auth>
          <policy context="default">
            <allow user="*"/>
            <allow send_type="signal"/>
            <allow send_destination="org.freedesktop.DBus"/>
            <allow receive_type="method_call"/>
            <allow receive_type="method_return"/>
            <allow receive_type="error"/>
            <allow receive_type="signal"/>
            <allow send_requested_reply="true" send_type="method_return"/>
            <allow send_requested_reply="true" send_type="error"/>
            <deny own="{name}"/>
            <deny send_destination="{name}"/>
          </policy>
          <policy user="root">
            <allow own="{name}"/>
            <allow send_destination="{name}"/>
          </policy>
          <include ignore_missing="yes">{self.folder}/policy.conf</include>
        </busconfig>''')
        self._stack.callback(self.end)
        self.up()

    def up(self) -> None:
        """Start it, also once more after :meth:`end`."""
        path = self.folder / 'bus'
        path.unlink(missing_ok=True)
        with open(self.folder / 'bus.log', 'ab') as log:
            self.process = subprocess.Popen(
                ['dbus-daemon', f'--config-file={self.folder}/bus.conf',
                 '--nofork', '--nopidfile', '--nosyslog'], stdout=log,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        wait_for(path.exists)


class Dnsmasq(Process):
    """A dnsmasq that serves host entries, and nobody else, on a bridge.

    :param hostsdir: its ``--dhcp-hostsdir``; default: ``hosts`` in
        :attr:`folder`.
    :param bus: the bus where it is to be found; default: none.
    """

    def __init__(self, bridge: Bridge, folder: pathlib.Path,
                 hostsdir: pathlib.Path | None = None,
                 extra: Sequence[str] = ('--dhcp-authoritative',),
                 bus: Bus | None = None) -> None:
        super().__init__()
        self.bus = bus
        self.bridge = bridge
        self.folder = folder
        self.hostsdir = hostsdir or folder / 'hosts'
        self.pid_file = folder / 'dnsmasq.pid'
        self.lease_file = folder / 'dnsmasq.leases'
        self.log = folder / 'dnsmasq.log'
        self.extra = list(extra)
        self.known_only = True

    def start(self) -> None:
        self.hostsdir.mkdir(exist_ok=True)
        self._stack.callback(self.end)
        self.up()

    def up(self) -> None:
        """Start it, also once more after :meth:`end`."""
        self.pid_file.unlink(missing_ok=True)
        with open(self.log, 'ab') as log:
            mark = log.tell()
            # it gives up root for nobody, as it does in earnest
            self.process = self.bridge.popen(
                *self._environment(),
                'dnsmasq', '--keep-in-foreground', '--log-facility=-',
                *self.settings(), output=log)
        process = self.process
        watch = f'ino:{self.hostsdir.stat().st_ino:x} '
        infos = pathlib.Path(f'/proc/{process.pid}/fdinfo')

        def listens() -> bool:
            if process.poll() is not None:
                raise RuntimeError(self.log.read_text(errors='replace'))
            if not (self.pid_file.exists()
                    and b'started' in self.log.read_bytes()[mark:]):
                return False
            # it watches the folder some time after it says that it started
            with contextlib.suppress(FileNotFoundError):
                return any(watch in info.read_text()
                           for info in infos.iterdir())
            return False

        wait_for(listens)

    def settings(self) -> list[str]:
        subnet = self.bridge.address.network
        subnet6 = self.bridge.address6.network
        return [
            '--port=0', '--conf-file=/dev/null', '--interface=br0',
            '--bind-interfaces', '--dhcp-lease-max=70000',
            f'--dhcp-range={subnet.network_address},static,'
            f'{subnet.netmask},10m',
            f'--dhcp-range={subnet6.network_address},static,'
            f'{subnet6.prefixlen},10m', '--enable-ra',
            *(['--dhcp-ignore=tag:!known'] if self.known_only else []),
            f'--dhcp-hostsdir={self.hostsdir}',
            f'--pid-file={self.pid_file}',
            f'--dhcp-leasefile={self.lease_file}',
            *(['--enable-dbus'] if self.bus else []), *self.extra]

    def _environment(self) -> list[str]:
        if self.bus is None:
            return []
        return ['env', f'DBUS_SYSTEM_BUS_ADDRESS={self.bus.address}']


class Client(Process):
    """A machine on the bridge with a real DHCP client.

    :param kind: ``udhcpc``, ``dhclient`` or ``dhcpcd``.
    """

    def __init__(self, bridge: Bridge, mac: str, kind: str = 'udhcpc',
                 ) -> None:
        super().__init__()
        self.bridge = bridge
        self.mac = mac
        self.kind = kind

    def start(self) -> None:
        self.namespace = self._stack.enter_context(Namespace())
        self.folder = self._stack.enter_context(Folder()).path
        self._stack.callback(self.end)
        self.bridge.attach(self.namespace, self.mac)
        script = self.folder / 'script'
        script.write_text(
            '#!/bin/sh\n'
            # dhclient's, udhcpc's and dhcpcd's names of what they do
            'case "$reason$1" in PREINIT*) exit 0;;\n'
            'BOUND|REBOOT|bound) a=${new_ip_address:-$ip};;\n'
            'BOUND6|REBOOT6)'
            ' a=${new_ip6_address:-$new_dhcp6_ia_na1_ia_addr1};;\n'
            'esac\n'
            'test -z "$a" && exit\n'
            f'echo "$a" > {self.folder}/tmp;'
            f' mv {self.folder}/tmp {self.folder}/address\n')
        script.chmod(0o755)

    def obtain(self, timeout: float = PATIENCE,
               ) -> ipaddress.IPv4Address | None:
        """Start the client anew and return the address it gets.

        udhcpc sends one DISCOVER only.
        """
        got = self._obtain(getattr(self, f'_{self.kind}')(timeout), timeout)
        return ipaddress.IPv4Address(got) if got else None

    def obtain6(self, timeout: float = PATIENCE,
                ) -> ipaddress.IPv6Address | None:
        """Start the client anew for DHCPv6 and return what it gets.

        udhcpc cannot.
        """
        # the kernel gives it some time after the interface is up
        wait_for(lambda: 'fe80:' in self.namespace.run(
            'ip', '-6', 'address', 'show', 'dev', 'eth0', 'scope', 'link',
            '-tentative'))
        got = self._obtain(getattr(self, f'_{self.kind}6')(timeout), timeout)
        return ipaddress.IPv6Address(got) if got else None

    def _obtain(self, command: list[str], timeout: float) -> str | None:
        self.end(signal.SIGKILL)
        got = self.folder / 'address'
        got.unlink(missing_ok=True)
        with open(self.folder / 'log', 'ab') as log:
            self.process = self.namespace.popen(*command, output=log)
        try:
            wait_for(got.exists, timeout)
        except TimeoutError:
            return None
        return got.read_text().strip()

    def _udhcpc(self, timeout: float) -> list[str]:
        return ['udhcpc', '-f', '-n', '-t', '1', '-T', str(int(timeout)),
                '-i', 'eth0', '-s', str(self.folder / 'script')]

    def _dhclient(self, timeout: float, version: int = 4) -> list[str]:
        (self.folder / 'conf').write_text(
            f'timeout {int(timeout)}; initial-interval 1;\n')
        return ['dhclient', f'-{version}', '-d', '-1',
                '-cf', f'{self.folder}/conf',
                '-lf', f'{self.folder}/leases{version}',
                '-pf', f'{self.folder}/pid', '-sf', f'{self.folder}/script',
                'eth0']

    def _dhclient6(self, timeout: float) -> list[str]:
        return self._dhclient(timeout, 6)

    def _dhcpcd(self, timeout: float, version: int = 4) -> list[str]:
        # its folders are compiled in: the mounts are the namespace's own
        inner = self.folder / 'dhcpcd'
        inner.mkdir(exist_ok=True)
        # without a router that tells it to, too
        (self.folder / 'conf').write_text('noipv6rs\nia_na\n')
        return ['sh', '-c',
                'for d in /run /var/lib; do mount -t tmpfs none $d &&'
                f' mkdir $d/dhcpcd && mount --bind {inner} $d/dhcpcd'
                ' || exit; done;'
                f'exec dhcpcd -{version} -B -A -L -f {self.folder}/conf'
                f' -t {int(timeout)} -c {self.folder}/script eth0']

    def _dhcpcd6(self, timeout: float) -> list[str]:
        return self._dhcpcd(timeout, 6)


class Prober(Managed):
    """Speaks DHCP for any number of MACs, for what a client is too slow.

    It asks for answers by broadcast (RFC 2131, 4.1), as its interface has
    none of the MACs. With DHCPv6 each MAC has a link-local address, and the
    prober tells the server whose it is.

    It asks once, and waits for the answer as long as a busy machine may take.
    Who expects none says with ``timeout`` how many seconds it shall wait.
    """

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge
        # answers come by broadcast, also those to other probers
        self._xids = itertools.count(random.getrandbits(31))

    def start(self) -> None:
        namespace = self._stack.enter_context(Namespace())
        self.bridge.attach(namespace)

        def listen(protocol: int) -> socket.socket:
            sock = self._stack.enter_context(
                namespace.inside(lambda: socket.socket(
                    socket.AF_PACKET, socket.SOCK_RAW, 0)))
            sock.bind(('eth0', protocol))
            return sock

        self._socket = listen(0x0800)
        self._socket6 = listen(0x86dd)

    def discover(self, mac: str, timeout: float = PATIENCE,
                 ) -> ipaddress.IPv4Address | None:
        """Return what one DISCOVER is offered, or None."""
        offer = self.ask(mac, {53: b'\x01'}, timeout)
        return offer[0] if offer else None

    def acquire(self, mac: str, timeout: float = PATIENCE,
                client_id: bytes | None = None,
                ) -> ipaddress.IPv4Address | None:
        """Take a lease: DISCOVER, OFFER, REQUEST, ACK."""
        ident = {61: client_id} if client_id else {}
        offer = self.ask(mac, {53: b'\x01'} | ident, timeout)
        if offer is None:
            return None
        address, options = offer
        answer = self.ask(
            mac, {53: b'\x03', 50: address.packed, 54: options[54]} | ident,
            timeout)
        if answer is None or answer[1][53] != b'\x05':
            return None
        return answer[0]

    def reboot(self, mac: str, address: object, expected: int,
               timeout: float = 0.5) -> list[int]:
        """Ask for a remembered address (RFC 2131, 4.3.2, INIT-REBOOT).

        :param expected: how many answers to wait for.
        :param timeout: seconds to wait for more than those.
        :returns: the type of every answer: 5, DHCPACK; 6, DHCPNAK.
        """
        xid = self._send(mac, {
            53: b'\x03', 50: ipaddress.IPv4Address(str(address)).packed})
        answers = [*itertools.islice(self._answers(xid, PATIENCE), expected),
                   *self._answers(xid, timeout)]
        return [options[53][0] for _, options in answers]

    def ask(self, mac: str, options: dict[int, bytes],
            timeout: float = PATIENCE,
            ) -> tuple[ipaddress.IPv4Address, dict[int, bytes]] | None:
        """Send options; return yiaddr and options of the first answer."""
        return next(self._answers(self._send(mac, options), timeout), None)

    def _send(self, mac: str, options: dict[int, bytes]) -> int:
        """Send a message; return the xid of its answers."""
        xid = next(self._xids) & 0xffffffff
        hardware = bytes.fromhex(mac.replace(':', ''))
        self._socket.send(_frame(hardware, xid, options))
        return xid

    def _answers(self, xid: int, timeout: float,
                 ) -> Iterator[tuple[ipaddress.IPv4Address,
                                     dict[int, bytes]]]:
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                answer = _parse(self._socket.recv(2048), xid)
            except TimeoutError:
                return
            if answer:
                yield answer

    def solicit(self, mac: str, timeout: float = PATIENCE,
                duid: bytes | None = None) -> ipaddress.IPv6Address | None:
        """Return what one SOLICIT is offered (RFC 8415, 18.2.1), or None.

        :param duid: default: made of the MAC (DUID-LL).
        """
        offer = self._ask6(mac, 1, {}, timeout, duid)
        return _ia_address(offer) if offer else None

    def acquire6(self, mac: str, timeout: float = PATIENCE,
                 duid: bytes | None = None,
                 ) -> ipaddress.IPv6Address | None:
        """Take a lease: SOLICIT, ADVERTISE, REQUEST, REPLY."""
        offer = self._ask6(mac, 1, {}, timeout, duid)
        if offer is None or _ia_address(offer) is None:
            return None
        reply = self._ask6(mac, 3, {2: offer[2], 3: offer[3]}, timeout, duid)
        return _ia_address(reply) if reply else None

    def _ask6(self, mac: str, kind: int, options: dict[int, bytes],
              timeout: float, duid: bytes | None) -> dict[int, bytes] | None:
        hardware = bytes.fromhex(mac.replace(':', ''))
        source = (b'\xfe\x80' + bytes(6) + bytes((hardware[0] ^ 2,))
                  + hardware[1:3] + b'\xff\xfe' + hardware[3:])
        xid = (next(self._xids) & 0xffffff).to_bytes(3)
        # client's identity, elapsed time, and a wish for one address
        wanted = {1: duid or b'\0\3\0\1' + hardware, 8: bytes(2),
                  3: hardware[2:] + bytes(8)} | options
        dhcp = bytes((kind,)) + xid + b''.join(
            struct.pack('!HH', code, len(value)) + value
            for code, value in wanted.items())
        self._socket6.send(_frame6(
            b'\x33\x33\0\1\0\2', hardware, source,
            socket.inet_pton(socket.AF_INET6, 'ff02::1:2'), 17,
            struct.pack('!HHHH', 546, 547, 8 + len(dhcp), 0) + dhcp))
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            self._socket6.settimeout(left)
            try:
                frame = self._socket6.recv(2048)
            except TimeoutError:
                break
            ip, rest = frame[14:54], frame[54:]
            if ip[6] == 58 and rest[0] == 135 and rest[8:24] == source:
                # a neighbour solicitation (RFC 4861, 4.3 and 4.4)
                self._socket6.send(_frame6(
                    frame[6:12], hardware, source, ip[8:24], 58,
                    b'\x88\0\0\0\x60\0\0\0' + source + b'\2\1'
                    + hardware))
            elif ip[6] == 17 and ip[24:40] == source \
                    and rest[:4] == struct.pack('!HH', 547, 546) \
                    and rest[8] in (2, 7) and rest[9:12] == xid:
                return _options6(rest[12:])
        return None


def _frame(mac: bytes, xid: int, options: dict[int, bytes]) -> bytes:
    dhcp = struct.pack('!BBBBIHH16x', 1, 1, 6, 0, xid, 0, 0x8000)
    dhcp += mac.ljust(16, b'\0') + bytes(192) + b'\x63\x82\x53\x63'
    for code, value in options.items():
        dhcp += bytes((code, len(value))) + value
    dhcp = (dhcp + b'\xff').ljust(300, b'\0')
    udp = struct.pack('!HHHH', 68, 67, 8 + len(dhcp), 0)
    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 28 + len(dhcp), 0, 0, 64, 17,
                       0, bytes(4), b'\xff' * 4)
    head = head[:10] + struct.pack('!H', _sum(head)) + head[12:]
    return b'\xff' * 6 + mac + b'\x08\x00' + head + udp + dhcp


def _parse(frame: bytes, xid: int,
           ) -> tuple[ipaddress.IPv4Address, dict[int, bytes]] | None:
    ip = frame[14:]
    if ip[9] != 17:
        return None
    udp = ip[(ip[0] & 15) * 4:]
    dhcp = udp[8:]
    if udp[2:4] != b'\0\x44' or dhcp[4:8] != struct.pack('!I', xid):
        return None
    options = {}
    rest: Iterator[int] = iter(dhcp[240:])
    for code in rest:
        if code == 255:
            break
        if code:
            options[code] = bytes(itertools.islice(rest, next(rest)))
    return ipaddress.IPv4Address(dhcp[16:20]), options


def _sum(data: bytes) -> int:
    """Return the checksum of the Internet (RFC 1071)."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f'!{len(data) // 2}H', data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def _frame6(to: bytes, mac: bytes, source: bytes, target: bytes,
            protocol: int, payload: bytes) -> bytes:
    total = _sum(source + target
                 + struct.pack('!IxxxB', len(payload), protocol) + payload)
    at = 6 if protocol == 17 else 2
    payload = payload[:at] + struct.pack('!H', total) + payload[at + 2:]
    return (to + mac + b'\x86\xdd'
            + struct.pack('!IHBB', 6 << 28, len(payload), protocol, 255)
            + source + target + payload)


def _options6(data: bytes) -> dict[int, bytes]:
    options = {}
    while data:
        code, size = struct.unpack_from('!HH', data)
        options[code] = data[4:4 + size]
        data = data[4 + size:]
    return options


def _ia_address(options: dict[int, bytes]) -> ipaddress.IPv6Address | None:
    """Return the address in an IA_NA (RFC 8415, 21.4 and 21.6)."""
    inner = _options6(options.get(3, b'')[12:]).get(5)
    return ipaddress.IPv6Address(inner[:16]) if inner else None
