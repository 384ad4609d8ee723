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

"""Sends hostile frames on an interface.

The arguments are the interface, a seed, how many frames, and how many of them
in a second.
"""

import sys
import time

from tests.unit.agent import hostile
from vmip_plugin.agent import link

_BURST = 100

if __name__ == '__main__':
    interface, seed, count, rate = sys.argv[1], *map(int, sys.argv[2:])
    frames = list(hostile.frames(seed, count))
    with link.Link(interface, link.NOTHING) as opened:
        began = time.monotonic()
        for number, frame in enumerate(frames):
            if number % _BURST == 0:
                time.sleep(max(0.0, began + number / rate
                               - time.monotonic()))
            opened.send(frame)
