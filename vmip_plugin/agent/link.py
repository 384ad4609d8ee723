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

"""A raw socket on one interface, with a filter in the kernel (packet(7))."""

import contextlib
import ctypes
import errno
import fcntl
import ipaddress
import socket
import struct
import sys
from typing import Self

ETH_P_ALL = 3
#: bytes asked of the kernel for frames not yet read
RECEIVE_BUFFER = 4 << 20
_SNAPLEN = 9216     # a jumbo frame

# <linux/if_packet.h>, <linux/socket.h>, <linux/filter.h>: names that the
# socket module does not have
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP = 1
_PACKET_STATISTICS = 6
_PACKET_AUXDATA = 8
_PACKET_MR_PROMISC = 1
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_TP_STATUS_VLAN_VALID = 1 << 4
_AUXDATA = struct.Struct('=IIIHHHH')
_SIOCGIFADDR = 0x8915
_ARPHRD_ETHER = 1
_SIOCGIFHWADDR = 0x8927

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


#: UDP from or to port 67 or 68, untagged or with one 802.1Q tag in the frame
DHCP_FILTER: list[Instruction] = [
    (0x28, 0, 0, 12),                   # ldh  EtherType
    (0x15, 4, 0, 0x0800),               # jeq  IPv4: the untagged part
    (0x15, 0, 2, 0x8100),               # jeq  802.1Q
    (0x28, 0, 0, 16),                   # ldh  EtherType in the tag
    (0x15, 14, 0, 0x0800),              # jeq  IPv4: the tagged part
    (0x06, 0, 0, 0),
    *_udp_ports(0),
    *_udp_ports(4),
]

#: ARP replies, untagged or with one 802.1Q tag in the frame
ARP_FILTER: list[Instruction] = [
    (0x28, 0, 0, 12),
    (0x15, 3, 0, 0x0806),               # jeq  ARP
    (0x15, 0, 6, 0x8100),
    (0x28, 0, 0, 16),
    (0x15, 2, 4, 0x0806),
    (0x28, 0, 0, 20),                   # ldh  operation
    (0x15, 3, 2, 2),                    # jeq  reply
    (0x28, 0, 0, 24),
    (0x15, 1, 0, 2),
    (0x06, 0, 0, 0),
    (0x06, 0, 0, _SNAPLEN),
]

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

    :param name: the interface's.
    :param program: which frames are taken.
    :param promiscuous: also take frames for other stations.
    :param timeout: seconds that :meth:`receive` waits at most.
    :raises OSError: no such interface, or no permission (CAP_NET_RAW).
    """

    def __init__(self, name: str, program: list[Instruction],
                 promiscuous: bool = False, timeout: float = 0.5) -> None:
        self.name = name
        self.index = socket.if_nametoindex(name)
        self.drops = 0
        # Protocol 0 takes nothing until bind(), by when the filter is there.
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            attach(self._socket, program)
            self._grow()
            self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            self._socket.bind((name, ETH_P_ALL))
            if promiscuous:
                with contextlib.suppress(PermissionError):
                    self._socket.setsockopt(
                        _SOL_PACKET, _PACKET_ADD_MEMBERSHIP,
                        struct.pack('=iHH8s', self.index,
                                    _PACKET_MR_PROMISC, 0, b''))
            self._socket.settimeout(timeout)
        except BaseException:
            self._socket.close()
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
            # SIOCGIFADDR wants an IPv4 socket
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inet:
                return ipaddress.IPv4Address(
                    self._ioctl(_SIOCGIFADDR, inet)[20:24])
        except OSError:
            return None

    def current(self) -> bool:
        """Tell whether the name still means the interface of this socket."""
        try:
            return socket.if_nametoindex(self.name) == self.index
        except OSError:
            return False

    def receive(self) -> tuple[bytes, int | None] | None:
        """Return a frame and the id of the VLAN tag the kernel took off.

        None if none came within the timeout.

        :raises OSError: the interface is down or gone.
        """
        try:
            frame, ancillary, _, _ = self._socket.recvmsg(
                _SNAPLEN, socket.CMSG_SPACE(_AUXDATA.size))
        except (TimeoutError, BlockingIOError):
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

    def _grow(self) -> None:
        # Past net.core.rmem_max only with CAP_NET_ADMIN.
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
            try:
                self._socket.setsockopt(
                    socket.SOL_SOCKET, option, RECEIVE_BUFFER)
                return
            except PermissionError:
                continue

    def _ioctl(self, request: int, sock: socket.socket | None = None
               ) -> bytes:
        return fcntl.ioctl(sock or self._socket, request, struct.pack(
            '256s', self.name.encode()))
