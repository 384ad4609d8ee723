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

"""Puts each tap device that Nova makes on its bridge; runs as a service.

The mechanism driver has noted the bridge before the device exists.
"""

from pathlib import Path
import socket
import subprocess
import sys

# From <linux/rtnetlink.h>: the group that hears of every link.
RTMGRP_LINK = 1


def plug(taps: Path) -> None:
    """Enslave every device that has a note and is on no bridge yet."""
    for device in Path('/sys/class/net').glob('tap*'):
        if (device / 'brport').exists():
            continue
        try:
            bridge = (taps / device.name).read_text()
        except FileNotFoundError:
            continue
        done = subprocess.run(['ip', 'link', 'set', device.name, 'master',
                               bridge, 'up'], check=False)
        print(f'{device.name} -> {bridge}: {done.returncode}', flush=True)


def main() -> None:
    taps = Path(sys.argv[1])
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW,
                       socket.NETLINK_ROUTE) as monitor:
        monitor.bind((0, RTMGRP_LINK))
        while True:
            # What happened does not matter, only that something did.
            plug(taps)
            try:
                monitor.recv(65536)
            except OSError as exc:
                # ENOBUFS: messages were lost, so look again.
                print(exc, flush=True)


if __name__ == '__main__':
    main()
