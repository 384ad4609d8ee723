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

"""Frames: real, tagged, cut off and made by us."""

import ipaddress
import socket

import hypothesis
from hypothesis import strategies
import testtools

from tests.unit.agent import pcap
from vmip_plugin.agent import frames
from vmip_plugin.agent import link

GUEST, AGENT = 'fa:16:3e:00:00:01', 'fa:16:3e:00:00:02'
ADDRESS = ipaddress.IPv4Address('10.66.1.1')


def datagram(vlan: int | None = None, payload: bytes = b'abc',
             ports: tuple[int, int] = (68, 67)) -> frames.Datagram:
    return frames.Datagram(
        GUEST, AGENT, vlan, ADDRESS, ipaddress.IPv4Address('10.66.0.1'),
        *ports, payload)


def untagged(frame: bytes) -> bytes:
    return frame[:12] + frame[16:]


def arp_reply(sender: str = GUEST, source: str = GUEST) -> bytes:
    request = frames.build_arp_request(source, AGENT, ADDRESS)
    return (request[:20] + b'\0\2' + bytes.fromhex(sender.replace(':', ''))
            + ADDRESS.packed + request[32:])


class DatagramTest(testtools.TestCase):
    def test_round_trip(self) -> None:
        for vlan in (None, 7, 4094):
            for payload in (b'', b'a', bytes(300)):
                one = datagram(vlan, payload)
                self.assertEqual(one, frames.parse_datagram(
                    frames.build_datagram(one)))

    def test_checksums(self) -> None:
        frame = frames.build_datagram(datagram(payload=bytes(range(33))))
        total = int.from_bytes(frame[16:18], 'big')
        ip = frame[14:14 + total]
        self.assertEqual(0, frames._checksum(ip[:20]))
        pseudo = ip[12:20] + b'\0\x11' + ip[24:26]
        self.assertEqual(0, frames._checksum(pseudo + ip[20:]))

    def test_tag_taken_off_by_kernel(self) -> None:
        frame = untagged(frames.build_datagram(datagram(9)))
        self.assertEqual(9, frames.parse_datagram(frame, 9).vlan)

    def test_priority_tag(self) -> None:
        self.assertIsNone(frames.parse_datagram(
            frames.build_datagram(datagram()), 0).vlan)

    def test_fragment(self) -> None:
        for field in (b'\x20\0', b'\0\1'):
            frame = frames.build_datagram(datagram())
            self.assertRaises(
                frames.FrameError, frames.parse_datagram,
                frame[:20] + field + frame[22:])

    @hypothesis.given(strategies.binary(max_size=100))
    def test_random(self, frame: bytes) -> None:
        for parse in (frames.parse_datagram, frames.parse_answer,
                      frames.parse_arp_reply):
            for start in (b'', bytes(12) + b'\x08\x00\x45',
                          bytes(12) + b'\x81\0', bytes(12) + b'\x08\x06',
                          bytes(12) + b'\x86\xdd\x60'):
                try:
                    parse(start + frame)
                except frames.FrameError:
                    pass

    def test_truncated(self) -> None:
        for name in pcap.NAMES:
            for frame in pcap.frames(name):
                for size in range(60):
                    self.assertRaises(frames.FrameError,
                                      frames.parse_datagram, frame[:size])


class ArpTest(testtools.TestCase):
    def test_request(self) -> None:
        frame = frames.build_arp_request(AGENT, GUEST, ADDRESS)
        self.assertEqual(60, len(frame))
        self.assertEqual(bytes.fromhex(GUEST.replace(':', '')), frame[:6])
        self.assertEqual(bytes(4), frame[28:32])
        self.assertEqual(ADDRESS.packed, frame[38:42])

    def test_tagged_request(self) -> None:
        self.assertEqual(
            b'\x81\0\0\x09\x08\x06',
            frames.build_arp_request(AGENT, GUEST, ADDRESS, 9)[12:18])

    def test_reply(self) -> None:
        self.assertEqual(frames.Answer(GUEST, ADDRESS),
                         frames.parse_arp_reply(arp_reply()))

    def test_reply_in_anothers_name(self) -> None:
        self.assertRaises(frames.FrameError, frames.parse_arp_reply,
                          arp_reply(source=AGENT))

    def test_request_is_no_reply(self) -> None:
        self.assertRaises(
            frames.FrameError, frames.parse_arp_reply,
            frames.build_arp_request(AGENT, GUEST, ADDRESS))


SIX = ipaddress.IPv6Address('2001:db8::10')


def datagram6(vlan: int | None = None, payload: bytes = b'abc',
              ports: tuple[int, int] = (546, 547)) -> frames.Datagram:
    return frames.Datagram(
        GUEST, AGENT, vlan, frames.link_local(GUEST),
        ipaddress.IPv6Address('ff02::1:2'), *ports, payload)


def advertisement(target_mac: str = GUEST, flags: int = 0x60,
                  limit: int = 255, option_size: int = 1) -> bytes:
    payload = (bytes((136, 0, 0, 0, flags, 0, 0, 0)) + SIX.packed
               + bytes((2, option_size))
               + bytes.fromhex(target_mac.replace(':', '')))
    return (bytes.fromhex((AGENT + GUEST).replace(':', '')) + b'\x86\xdd'
            + frames._ipv6(58, limit, SIX.packed,
                           frames.link_local(AGENT).packed, payload, 2))


class SixTest(testtools.TestCase):
    def test_round_trip(self) -> None:
        for vlan in (None, 7):
            for payload in (b'', b'a', bytes(300)):
                one = datagram6(vlan, payload)
                self.assertEqual(one, frames.parse_datagram(
                    frames.build_datagram(one)))

    def test_checksum(self) -> None:
        for frame in (frames.build_datagram(datagram6(payload=b'odd')),
                      frames.build_solicitation(AGENT, GUEST, SIX)):
            size = int.from_bytes(frame[18:20], 'big')
            self.assertEqual(0, frames._checksum(
                frame[22:54] + size.to_bytes(4, 'big')
                + frame[20:21].rjust(4, b'\0') + frame[54:54 + size]))

    def test_link_local(self) -> None:
        # the example of RFC 4291 appendix A, more or less
        self.assertEqual(ipaddress.IPv6Address('fe80::f816:3eff:fe00:1'),
                         frames.link_local(GUEST))

    def test_truncated(self) -> None:
        frame = frames.build_datagram(datagram6(payload=bytes(20)))
        for size in range(len(frame)):
            self.assertRaises(frames.FrameError, frames.parse_datagram,
                              frame[:size])

    def test_solicitation(self) -> None:
        frame = frames.build_solicitation(AGENT, GUEST, SIX)
        self.assertEqual(bytes.fromhex(GUEST.replace(':', '')), frame[:6])
        self.assertEqual(255, frame[21])
        self.assertEqual(SIX.packed, frame[62:78])
        self.assertRaises(frames.FrameError, frames.parse_answer, frame)

    def test_advertisement(self) -> None:
        self.assertEqual(frames.Answer(GUEST, SIX),
                         frames.parse_answer(advertisement()))
        for wrong in (advertisement(target_mac=AGENT),
                      advertisement(flags=0x20), advertisement(limit=64),
                      advertisement(option_size=0),
                      advertisement()[:60], advertisement()[:54]):
            self.assertRaises(frames.FrameError, frames.parse_answer, wrong)

    def test_filters(self) -> None:
        takes = FilterTest.takes
        case = FilterTest('takes')
        tag = b'\x81\0\0\x09'
        for vlan in (None, 9):
            for ports, taken in {(546, 547): True, (547, 546): True,
                                 (1, 547): True, (546, 1): True,
                                 (53, 1): False}.items():
                frame = frames.build_datagram(datagram6(vlan, ports=ports))
                self.assertEqual(taken, takes(case, link.DHCP_FILTER, frame))
        answer = advertisement()
        for frame in (answer, answer[:12] + tag + answer[12:]):
            self.assertTrue(takes(case, link.ANSWER_FILTER, frame))
            self.assertFalse(takes(case, link.DHCP_FILTER, frame))
        for frame in (frames.build_solicitation(AGENT, GUEST, SIX),
                      frames.build_solicitation(AGENT, GUEST, SIX, 9)):
            self.assertFalse(takes(case, link.ANSWER_FILTER, frame))


class FilterTest(testtools.TestCase):
    """The kernel's own verdict, on a socket pair."""

    def takes(self, program: list[link.Instruction], frame: bytes) -> bool:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with one, other:
            link.attach(one, program)
            other.send(frame)
            one.setblocking(False)
            try:
                return one.recv(65535) == frame
            except BlockingIOError:
                return False

    def test_captures(self) -> None:
        for name in pcap.NAMES:
            for frame in pcap.frames(name):
                dhcp = frame[12:14] == b'\x08\0'
                self.assertEqual(dhcp, self.takes(link.DHCP_FILTER, frame))
                self.assertEqual(
                    not dhcp and frame[21] == 2,
                    self.takes(link.ANSWER_FILTER, frame))

    def test_dhcp(self) -> None:
        for vlan in (None, 9):
            for ports, taken in {
                    (68, 67): True, (67, 68): True, (67, 67): True,
                    (1, 67): True, (68, 1): True, (53, 1): False,
                    (66, 69): False}.items():
                frame = frames.build_datagram(datagram(vlan, ports=ports))
                self.assertEqual(taken, self.takes(link.DHCP_FILTER, frame),
                                 f'{vlan} {ports}')

    def test_other(self) -> None:
        frame = frames.build_datagram(datagram())
        for changed in (
                frame[:12] + b'\x86\xdd' + frame[14:],
                frame[:23] + b'\x06' + frame[24:],
                frame[:20] + b'\0\1' + frame[22:],
                frame[:13]):
            self.assertFalse(self.takes(link.DHCP_FILTER, changed))

    def test_arp(self) -> None:
        request = frames.build_arp_request(AGENT, GUEST, ADDRESS)
        reply = arp_reply()
        tag = b'\x81\0\0\x09'
        self.assertTrue(self.takes(link.ANSWER_FILTER, reply))
        self.assertTrue(self.takes(
            link.ANSWER_FILTER, reply[:12] + tag + reply[12:]))
        self.assertFalse(self.takes(link.ANSWER_FILTER, request))
        self.assertFalse(self.takes(
            link.ANSWER_FILTER, request[:12] + tag + request[12:]))
        self.assertFalse(self.takes(link.NOTHING, reply))
