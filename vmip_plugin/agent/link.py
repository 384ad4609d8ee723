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

"""A raw socket on one interface, with a filter in the kernel (packet(7)).

An interface of another network namespace is named ``NAMESPACE/INTERFACE``:
no interface's name has a slash in it.
"""

from collections.abc import Callable
import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import mmap
import os
import select
import socket
import struct
import sys
import threading
from typing import Self, TypeVar

from vmip_plugin import types

T = TypeVar('T')

ETH_P_ALL = 3
#: where ip-netns(8) keeps the namespaces that have a name
NAMESPACES = '/run/netns'
#: bytes asked of the kernel for frames not yet read
RECEIVE_BUFFER = 16 << 20
#: bytes of a block in which the kernel hands over frames, and how many of
#: them there are
BLOCK, BLOCKS = 1 << 18, 64
#: milliseconds until a block is handed over that is not full
_RETIRE = 10

#: seconds after which a frame has certainly come out of the ring
LATE = 2 * _RETIRE / 1000
_SNAPLEN = 9216     # a jumbo frame

# <linux/if_packet.h>, <linux/socket.h>, <linux/filter.h>: names that the
# socket module does not have
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_AUXDATA = 8
_PACKET_VERSION = 10
_TPACKET_V3 = 2
# struct tpacket_req3; of tpacket_block_desc what stands before the first
# frame's offset, and from its status on; tpacket3_hdr
_RING = struct.Struct('=7I')
_BLOCK = struct.Struct('=8xIII')
_FRAME = struct.Struct('=I8xIIIHHII')
_STATUS = struct.Struct('@I')   # one store
_LEAST_FRAME = 2048
_TP_STATUS_KERNEL, _TP_STATUS_USER = 0, 1
_PACKET_MR_PROMISC = 1
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_TP_STATUS_VLAN_VALID = 1 << 4
_AUXDATA = struct.Struct('=IIIHHHH')
_ANCILLARY = socket.CMSG_SPACE(_AUXDATA.size)
_SO_BINDTODEVICE = 25
_SIOCGIFADDR = 0x8915
_ARPHRD_ETHER = 1
_SIOCGIFHWADDR = 0x8927
_SIOCGIFINDEX = 0x8933
_LONGEST = 15       # IFNAMSIZ without the final 0
_CLONE_NEWNET = 0x40000000

_LIBC = ctypes.CDLL(None, use_errno=True)

#: (code, jump if true, jump if false, constant) of struct sock_filter
Instruction = tuple[int, int, int, int]


def _udp_ports(shift: int) -> list[Instruction]:
    # What tcpdump -dd makes of "udp and (port 67 or port 68)", for IPv4 that
    # begins at 14 + shift; ends in a return either way.
    return [
        (0x30, 0, 0, 23 + shift),       # ldb  protocol
        (0x15, 0, 10, 17),              # jeq  UDP, else ignore
        (0x28, 0, 0, 20 + shift),       # ldh  fragment offset
        (0x45, 8, 0, 0x1fff),           # jset ignore
        (0xb1, 0, 0, 14 + shift),       # ldxb 4*([14]&0xf)
        (0x48, 0, 0, 14 + shift),       # ldh  source port
        (0x15, 4, 0, 67),
        (0x15, 3, 0, 68),
        (0x48, 0, 0, 16 + shift),       # ldh  destination port
        (0x15, 1, 0, 67),
        (0x15, 0, 1, 68),
        (0x06, 0, 0, _SNAPLEN),         # take
        (0x06, 0, 0, 0),                # ignore
    ]


def _udp6_ports(shift: int) -> list[Instruction]:
    # "ip6 and udp and (port 546 or port 547)", without extension headers.
    return [
        (0x30, 0, 0, 20 + shift),       # ldb  next header
        (0x15, 0, 7, 17),               # jeq  UDP, else ignore
        (0x28, 0, 0, 54 + shift),       # ldh  source port
        (0x15, 4, 0, 546),
        (0x15, 3, 0, 547),
        (0x28, 0, 0, 56 + shift),       # ldh  destination port
        (0x15, 1, 0, 546),
        (0x15, 0, 1, 547),
        (0x06, 0, 0, _SNAPLEN),         # take
        (0x06, 0, 0, 0),                # ignore
    ]


def _arp_reply(shift: int) -> list[Instruction]:
    return [
        (0x28, 0, 0, 20 + shift),       # ldh  operation
        (0x15, 0, 1, 2),                # jeq  reply
        (0x06, 0, 0, _SNAPLEN),
        (0x06, 0, 0, 0),
    ]


def _advertisement(shift: int) -> list[Instruction]:
    return [
        (0x30, 0, 0, 20 + shift),       # ldb  next header
        (0x15, 0, 3, 58),               # jeq  ICMPv6, else ignore
        (0x30, 0, 0, 54 + shift),       # ldb  type
        (0x15, 0, 1, 136),              # jeq  neighbour advertisement
        (0x06, 0, 0, _SNAPLEN),
        (0x06, 0, 0, 0),
    ]


def _program(ethertype: int, part: Callable[[int], list[Instruction]],
             part6: Callable[[int], list[Instruction]]) -> list[Instruction]:
    """Return a program for frames untagged or with one 802.1Q tag.

    :param part: for what has this EtherType, as far behind the usual place as
        it is told; ends in a return either way.
    :param part6: the same for IPv6.
    """
    parts = [part(0), part(4), part6(0), part6(4)]
    plain, tagged, plain6, tagged6 = (
        8 + sum(map(len, parts[:number])) for number in range(4))
    return [
        (0x28, 0, 0, 12),                       # ldh  EtherType
        (0x15, plain - 2, 0, ethertype),
        (0x15, plain6 - 3, 0, 0x86dd),          # jeq  IPv6
        (0x15, 0, 3, 0x8100),                   # jeq  802.1Q
        (0x28, 0, 0, 16),                       # ldh  EtherType in the tag
        (0x15, tagged - 6, 0, ethertype),
        (0x15, tagged6 - 7, 0, 0x86dd),
        (0x06, 0, 0, 0),
        *(one for each in parts for one in each),
    ]


#: UDP from or to the ports of DHCP and DHCPv6
DHCP_FILTER = _program(0x0800, _udp_ports, _udp6_ports)

#: ARP replies and neighbour advertisements
ANSWER_FILTER = _program(0x0806, _arp_reply, _advertisement)

#: for a socket that only sends
NOTHING: list[Instruction] = [(0x06, 0, 0, 0)]


def attach(sock: socket.socket, program: list[Instruction]) -> None:
    """Make a socket take only the frames that a classic BPF program takes.

    :raises OSError: the kernel refuses the program.
    """
    code = b''.join(struct.pack('=HBBI', *one) for one in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER,
        struct.pack('@HP', len(program), ctypes.addressof(buffer)))


class Link:
    """A raw socket on an interface.

    :param name: the interface's, or NAMESPACE/INTERFACE.
    :param program: which frames are taken.
    :param promiscuous: also take frames for other stations.
    :param timeout: seconds that :meth:`receive` waits at most.
    :raises OSError: no such interface, or no permission (CAP_NET_RAW; to
        enter a namespace, CAP_SYS_ADMIN).
    """

    def __init__(self, name: str, program: list[Instruction],
                 promiscuous: bool = False, timeout: float = 0.5) -> None:
        self.name = name
        self.drops = 0
        namespace, _, self._interface = name.rpartition('/')
        self._path = f'{NAMESPACES}/{namespace}' if namespace else None
        # A socket stays in the namespace in which it was made.
        self._place, self._socket, self._inet = (
            _sockets() if self._path is None
            else _inside(self._path, _sockets))
        try:
            self.index = self._find()
            attach(self._socket, program)
            self._prepare()
            self._socket.bind((self._interface, ETH_P_ALL))
            if promiscuous:
                with contextlib.suppress(PermissionError):
                    self._socket.setsockopt(
                        _SOL_PACKET, _PACKET_ADD_MEMBERSHIP,
                        struct.pack('=iHH8s', self.index,
                                    _PACKET_MR_PROMISC, 0, b''))
            self._timeout = int(timeout * 1000)
            self._socket.setblocking(False)
            self._poll = select.poll()
            self._poll.register(self._socket, select.POLLIN)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def mac(self) -> str:
        """The interface's Ethernet address.

        :raises OSError: it is gone, or no Ethernet interface.
        """
        found = self._ioctl(_SIOCGIFHWADDR)
        if int.from_bytes(found[16:18], sys.byteorder) != _ARPHRD_ETHER:
            raise OSError(errno.EPFNOSUPPORT, 'not an Ethernet interface')
        return found[18:24].hex(':')

    @property
    def address(self) -> ipaddress.IPv4Address | None:
        """The interface's first IPv4 address, or None."""
        try:
            return ipaddress.IPv4Address(self._ioctl(_SIOCGIFADDR)[20:24])
        except OSError:
            return None

    def current(self) -> bool:
        """Tell whether the name still means the interface of this socket."""
        try:
            return (self._find() == self.index
                    and (self._path is None
                         or _identity(os.stat(self._path)) == self._place))
        except OSError:
            return False

    def receive(self) -> tuple[bytes, int | None] | None:
        """Return a frame and the id of the VLAN tag the kernel took off.

        None if none came within the timeout.

        :raises OSError: the interface is down or gone.
        """
        # Waiting first would be a second system call for each frame.
        try:
            frame, ancillary, _, _ = self._socket.recvmsg(
                _SNAPLEN, _ANCILLARY)
        except BlockingIOError:
            if not self._timeout or not self._poll.poll(self._timeout):
                return None
            try:
                frame, ancillary, _, _ = self._socket.recvmsg(
                    _SNAPLEN, _ANCILLARY)
            except BlockingIOError:
                return None
        for level, kind, data in ancillary:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and (
                    len(data) >= _AUXDATA.size):
                status, _, _, _, _, tci, _ = _AUXDATA.unpack_from(data)
                if status & _TP_STATUS_VLAN_VALID:
                    return frame, tci & 0xfff
        return frame, None

    def send(self, frame: bytes) -> None:
        """Send a frame as it is.

        :raises OSError: the interface is down, gone, or its queue is full.
        """
        self._socket.send(frame)

    def send_datagram(self, payload: bytes, address: types.Address,
                      port: int) -> None:
        """Send a UDP datagram by way of the kernel, out of this interface.

        :raises OSError: it cannot be sent.
        """
        if address.version == 6:
            with (_inet6() if self._path is None
                  else _inside(self._path, _inet6)) as inet6:
                inet6.sendto(payload, (str(address), port, 0, self.index))
            return
        self._inet.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE,
                              self._interface.encode() + b'\0')
        self._inet.sendto(payload, (str(address), port))

    def fileno(self) -> int:
        return self._socket.fileno()

    def count_drops(self) -> int:
        """Return how many frames the kernel has dropped since the start."""
        # reading resets the kernel's counter
        _, drops = struct.unpack('=II', self._socket.getsockopt(
            _SOL_PACKET, _PACKET_STATISTICS, 8))
        self.drops += drops
        return self.drops

    def close(self) -> None:
        self._socket.close()
        self._inet.close()

    def _prepare(self) -> None:
        """Make room for what is not yet read."""
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        # Past net.core.rmem_max only with CAP_NET_ADMIN.
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
            try:
                self._socket.setsockopt(
                    socket.SOL_SOCKET, option, RECEIVE_BUFFER)
                return
            except PermissionError:
                continue

    def _find(self) -> int:
        """Return the index of the interface that has the name now."""
        return int.from_bytes(self._ioctl(_SIOCGIFINDEX)[16:20],
                              sys.byteorder)

    def _ioctl(self, request: int) -> bytes:
        name = self._interface.encode()
        if len(name) > _LONGEST:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return fcntl.ioctl(self._inet, request, struct.pack('256s', name))


class Ring(Link):
    """A raw socket that is only read, in memory shared with the kernel.

    It takes one system call for a block of frames and not one for each, and
    net.core.rmem_max does not bound it (Documentation/networking/
    packet_mmap.rst of Linux, TPACKET_V3). A frame comes up to 10 ms late.
    """

    _ring: mmap.mmap | None = None
    #: the block that the kernel hands over next
    _next = 0

    def receive_all(self) -> list[tuple[bytes, int | None]]:
        """Return the frames of a block, as :meth:`receive` returns one.

        None of them if none came within the timeout.

        :raises OSError: the interface is down or gone.
        """
        # The kernel's locks order what is read after this, too.
        for _, event in self._poll.poll(self._timeout):
            if event & select.POLLERR:
                number = self._socket.getsockopt(socket.SOL_SOCKET,
                                                 socket.SO_ERROR)
                raise OSError(number, os.strerror(number))
        ring, block = self._ring, self._next * BLOCK
        assert ring is not None
        status, count, offset = _BLOCK.unpack_from(ring, block)
        if not status & _TP_STATUS_USER:
            return []
        frames, at = [], block + offset
        for _ in range(count):
            further, size, _, status, start, _, _, tci = _FRAME.unpack_from(
                ring, at)
            frames.append((
                ring[at + start:at + start + size],
                tci & 0xfff if status & _TP_STATUS_VLAN_VALID else None))
            at += further
        _STATUS.pack_into(ring, block + 8, _TP_STATUS_KERNEL)
        self._next = (self._next + 1) % BLOCKS
        return frames

    def close(self) -> None:
        if self._ring is not None:
            self._ring.close()
        super().close()

    def _prepare(self) -> None:
        self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, _RING.pack(
            BLOCK, BLOCKS, _LEAST_FRAME, BLOCK * BLOCKS // _LEAST_FRAME,
            _RETIRE, 0, 0))
        self._ring = mmap.mmap(self._socket.fileno(), BLOCK * BLOCKS)


def _inet6() -> socket.socket:
    return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)


_Sockets = tuple[tuple[int, int], socket.socket, socket.socket]


def _sockets() -> _Sockets:
    """Return what tells this namespace, a raw socket and an IPv4 socket."""
    place = _identity(os.stat('/proc/thread-self/ns/net'))
    # Protocol 0 takes nothing until bind(), by when the filter is there.
    raw = socket.socket(
        socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    return place, raw, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _inside(path: str, function: Callable[[], T]) -> T:
    """Call a function in a network namespace, in a thread for it alone.

    :raises OSError: the namespace cannot be entered.
    """
    result: list[T] = []
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            with open(path, 'rb') as file:
                if _LIBC.setns(file.fileno(), _CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, f'{os.strerror(number)} (setns)',
                                  path)
            result.append(function())
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]
