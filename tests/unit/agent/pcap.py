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

"""Reads the captures in tests/pcaps (the classic format of libpcap)."""

from collections.abc import Iterator
import pathlib
import struct

DIRECTORY = pathlib.Path(__file__).parents[2] / 'pcaps'
NAMES = tuple(sorted(path.stem for path in DIRECTORY.glob('*.pcap')))


def frames(name: str) -> Iterator[bytes]:
    """Yield the frames of one capture."""
    data = (DIRECTORY / f'{name}.pcap').read_bytes()
    order = {0xa1b2c3d4: '<', 0xd4c3b2a1: '>'}[
        struct.unpack_from('<I', data)[0]]
    at = 24
    while at < len(data):
        size = struct.unpack_from(f'{order}IIII', data, at)[2]
        yield data[at + 16:at + 16 + size]
        at += 16 + size
