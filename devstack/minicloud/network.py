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

"""The wires: a bridge for each physical network, a DHCP server's namespace.

No bridge has an address of the machine: what is on a wire cannot reach it.
"""

from pathlib import Path
import subprocess

from minicloud import process
from minicloud import settings

NET = Path('/sys/class/net')
NETNS = Path('/run/netns')


def ip(*words: str) -> None:
    """Run ip(8).

    :raises Failure: it failed.
    """
    done = subprocess.run(['ip', *words], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        raise process.Failure(f'ip {" ".join(words)}: {done.stderr.strip()}')


def quiet(device: str, netns: str | None = None) -> None:
    """Keep IPv6, which talks without being asked, off a device."""
    path = f'/proc/sys/net/ipv6/conf/{device}/disable_ipv6'
    if netns:
        ip('netns', 'exec', netns, 'sh', '-c', f'echo 1 >{path}')
    elif Path(path).exists():
        Path(path).write_text('1')


def up() -> None:
    """Make what is missing."""
    for bridge in settings.BRIDGES.values():
        if not (NET / bridge).exists():
            ip('link', 'add', bridge, 'type', 'bridge', 'stp_state', '0',
               'forward_delay', '0')
        quiet(bridge)
        ip('link', 'set', bridge, 'up')
    name = settings.DHCP_NETNS
    outer = f'{name}-br'
    if (NET / outer / 'master').exists() and (NETNS / name).exists():
        return
    # Half made by one who was killed: again from the beginning.
    _remove_netns(name)
    ip('netns', 'add', name)
    ip('link', 'add', outer, 'type', 'veth', 'peer', 'name', 'eth0',
       'netns', name)
    quiet('all', name)
    ip('-n', name, 'link', 'set', 'lo', 'up')
    for cidr in (settings.DHCP_CIDR, settings.GATEWAY_CIDR):
        ip('-n', name, 'address', 'add', cidr, 'dev', 'eth0')
    ip('-n', name, 'link', 'set', 'eth0', 'up')
    quiet(outer)
    ip('link', 'set', outer, 'master', settings.BRIDGES['physnet1'], 'up')


def delete(device: str) -> None:
    """Remove a device, if it is there."""
    try:
        if (NET / device).exists():
            ip('link', 'delete', device)
    except process.Failure:
        # The kernel may have been about to do so on its own.
        if not process.wait_until(lambda: not (NET / device).exists(), 2):
            raise


def _remove_netns(name: str) -> None:
    # Its other end, in the namespace, goes with it.
    delete(f'{name}-br')
    if (NETNS / name).exists():
        ip('netns', 'delete', name)


def down() -> None:
    """Remove every device and namespace of ours."""
    ours = [name for name in (path.name for path in NETNS.glob('*'))
            if name.startswith(settings.GUEST_NETNS_PREFIX)]
    for name in (settings.DHCP_NETNS, *ours):
        _remove_netns(name)
    # Taps outlive their guests. Those that had no bridge yet have a note.
    taps = {path.name for path in settings.TAPS.glob('tap*')}
    for bridge in settings.BRIDGES.values():
        taps |= {path.name for path in (NET / bridge / 'brif').glob('tap*')}
    for device in (*taps, *settings.BRIDGES.values()):
        delete(device)
