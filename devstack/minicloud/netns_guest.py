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

"""A guest that is only a network namespace with a real DHCP client in it.

    with NetnsGuest('fa:16:3e:00:00:01') as guest:
        lease = guest.wait_lease(10)

It is on the wire in some ten milliseconds, so that a test can have many.
"""

from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from types import TracebackType

from minicloud import network
from minicloud import settings

CLIENTS = ('udhcpc', 'dhclient')

# One script for both clients: it only tells, in the same words. The address
# is set as well, so that the guest answers ARP and renews by unicast.
SCRIPT = '''#!/bin/sh
event=${reason:-$1}
iface=${interface:-eth0}
address=${new_ip_address:-$ip}
mask=${new_subnet_mask:-$mask}
case $event in
  bound|renew|BOUND|RENEW|REBIND|REBOOT)
    ip addr flush dev "$iface"
    ip addr add "$address/$mask" dev "$iface"
    ;;
  deconfig|EXPIRE|FAIL|RELEASE|STOP)
    ip addr flush dev "$iface"
    address=
    ;;
  *)
    address=
    ;;
esac
echo "EVENT $event $address" \\
  "${new_dhcp_server_identifier:-$serverid}" \\
  "${new_dhcp_lease_time:-$lease}" "${new_host_name:-$hostname}"
'''


@dataclasses.dataclass(frozen=True)
class Event:
    """What the client's script was told."""

    # Lower case: 'bound', 'renew', 'deconfig', 'nak', 'timeout'...
    name: str
    address: str
    server: str
    lease: str
    hostname: str
    # time.time(), and seconds since the client was started.
    at: float
    seconds: float


class NetnsGuest:
    """One guest; a context manager that cleans up."""

    def __init__(self, mac: str | None = None, bridge: str = 'vmbr1',
                 client: str = 'udhcpc', arguments: Sequence[str] = ()
                 ) -> None:
        """Prepare, but do nothing yet.

        :param mac: of its interface; any if None.
        :param client: one of CLIENTS.
        :param arguments: more of them for the client.
        """
        self.mac = mac or 'fa:16:3e:' + ':'.join(
            secrets.token_hex(1) for _ in range(3))
        self.bridge = bridge
        self.client = client
        self.arguments = arguments
        token = secrets.token_hex(4)
        self.netns = f'{settings.GUEST_NETNS_PREFIX}{token}'
        # On the bridge; short enough for the kernel.
        self.device = f'{self.netns}-br'
        self.events: list[Event] = []
        self.output: list[str] = []
        self._news = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._folder: Path | None = None
        self._begin = 0.0

    @property
    def leases(self) -> list[Event]:
        return [event for event in list(self.events) if event.address]

    @property
    def address(self) -> str | None:
        """The address it has now."""
        last = next(iter(reversed(self.events)), None)
        return last.address or None if last else None

    def plug(self) -> None:
        """Put the guest on the wire, without a client."""
        network.ip('netns', 'add', self.netns)
        network.quiet('all', self.netns)
        network.ip('link', 'add', self.device, 'type', 'veth', 'peer', 'name',
                   'eth0', 'address', self.mac, 'netns', self.netns)
        network.quiet(self.device)
        network.ip('link', 'set', self.device, 'master', self.bridge, 'up')
        network.ip('-n', self.netns, 'link', 'set', 'lo', 'up')
        network.ip('-n', self.netns, 'link', 'set', 'eth0', 'up')

    def start(self) -> None:
        """Start the client; it goes on until it is stopped."""
        folder = self._folder = Path(tempfile.mkdtemp(prefix='vmg-'))
        script = folder / 'script'
        script.write_text(SCRIPT)
        script.chmod(0o755)
        if self.client == 'udhcpc':
            command = [shutil.which('udhcpc') or 'udhcpc', '-f', '-i', 'eth0',
                       '-s', str(script), '-t', '100', '-T', '1', '-A', '1']
        else:
            # Without a file it would take /etc/dhcp/dhclient.conf.
            (folder / 'conf').write_text(
                'timeout 30; retry 2; initial-interval 1;\n')
            command = ['dhclient', '-d', '-cf', str(folder / 'conf'),
                       '-sf', str(script), '-lf', str(folder / 'leases'),
                       '-pf', str(folder / 'pid'), 'eth0']
        self._begin = time.time()
        self._process = subprocess.Popen(
            ['ip', 'netns', 'exec', self.netns, *command, *self.arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process and self._process.stdout
        for line in self._process.stdout:
            now = time.time()
            words = line.rstrip('\n').split(' ')
            with self._news:
                self.output.append(line.rstrip('\n'))
                if words[0] == 'EVENT':
                    words += [''] * 6
                    self.events.append(Event(
                        words[1].lower(), words[2], words[3], words[4],
                        words[5], now, now - self._begin))
                self._news.notify_all()

    def wait_lease(self, timeout: float = 10, count: int = 1
                   ) -> Event | None:
        """Return the lease number `count`, or None if none comes in time."""
        with self._news:
            self._news.wait_for(lambda: len(self.leases) >= count, timeout)
            leases = self.leases
        return leases[count - 1] if len(leases) >= count else None

    def renew(self) -> None:
        """Let udhcpc ask again now, by unicast."""
        assert self._process
        self._process.send_signal(signal.SIGUSR1)

    def release(self) -> None:
        """Let udhcpc give its address back."""
        assert self._process
        self._process.send_signal(signal.SIGUSR2)

    def kill(self) -> None:
        """End the client without a word to the server, as a crash does."""
        if not self._process:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        assert self._reader and self._process.stdout
        self._reader.join()
        self._process.stdout.close()
        self._process = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Take the guest off the wire."""
        self.kill()
        network.delete(self.device)
        if (network.NETNS / self.netns).exists():
            network.ip('netns', 'delete', self.netns)

    def __enter__(self) -> 'NetnsGuest':
        try:
            self.plug()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None,
                 error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()
