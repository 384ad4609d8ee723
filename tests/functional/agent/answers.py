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

"""Sends ARP replies on an interface for some seconds, as fast as it can.

The arguments are the interface, the MAC that they go to, and the seconds.
"""

import sys
import time

from vmip_plugin.agent import frames
from vmip_plugin.agent import link

if __name__ == '__main__':
    interface, mac, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    with link.Link(interface, link.NOTHING) as opened:
        frame = bytearray(frames._frame(
            mac, opened.mac, None, frames.ETH_ARP, frames._ARP.pack(
                1, frames.ETH_IPV4, 6, 4, 2, frames._packed(opened.mac),
                bytes((10, 66, 1, 250)), bytes(6), bytes(4))))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for _ in range(1000):
                try:
                    opened.send(bytes(frame))
                except OSError:
                    time.sleep(0.001)
