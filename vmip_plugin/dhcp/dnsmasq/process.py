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

"""The running dnsmasq, as /proc shows it (proc(5))."""

import collections
from collections.abc import Callable, Iterator, Mapping
import contextlib
import itertools
import os
import re
import signal
import time

from oslo_log import log

from vmip_plugin import exceptions

LOG = log.getLogger(__name__)

#: After a reload that took longer than allowed the next one comes no sooner
#: than after this many times as long.
_REST = 9

_SHORT = {'-1': 'enable-dbus', '-7': 'conf-dir', '-C': 'conf-file',
          '-F': 'dhcp-range', '-J': 'dhcp-ignore', '-K': 'dhcp-authoritative',
          '-X': 'dhcp-lease-max'}


def wait_for(done: Callable[[], bool], timeout: float) -> bool:
    """Wait until something is true, some seconds at most."""
    end = time.monotonic() + timeout
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


class Process:
    """A dnsmasq on this machine.

    :param name: the server's name in the configuration.
    :param pid_file: of its ``--pid-file``.
    :param timeout: longest time in seconds that it may need for a reload.
    :param max_pause: seconds that a reload may take without a rest after it.
    """

    def __init__(self, name: str, pid_file: str, timeout: float,
                 max_pause: float) -> None:
        self._name = name
        self._pid_file = pid_file
        self._timeout = timeout
        self._max_pause = max_pause
        self._rests_until = 0.0
        #: how long the last reload took, in seconds
        self.pause = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[tuple[int, int]]:
        """Give dnsmasq's process id and a descriptor of the process.

        The descriptor keeps a signal from whoever inherits the id.

        :raises DHCPServerUnavailable: if it is not running.
        """
        path = self._pid_file
        remedy = ('start dnsmasq, or set pid_file to the value of its '
                  '--pid-file')
        try:
            with open(path, encoding='ascii', errors='replace') as file:
                text = file.read(32).strip()
            if not re.fullmatch('[1-9][0-9]{0,8}', text):
                raise self._unavailable(
                    f'{path} holds no process id: {remedy}.')
            process = os.pidfd_open(int(text))
        except OSError as exc:
            raise self._unavailable(
                f'{path}: {exc.strerror}: {remedy}.') from exc
        try:
            if _proc(int(text), 'comm').strip() != 'dnsmasq':
                raise self._unavailable(
                    f'process {text} in {path} is not dnsmasq: {remedy}.')
            yield int(text), process
        finally:
            os.close(process)

    def rest(self) -> float:
        """Return for how many seconds it shall not be made to reload."""
        return max(0.0, self._rests_until - time.monotonic())

    def reload(self) -> None:
        """Make dnsmasq read its files again and return when it has.

        :raises DHCPServerUnavailable: it has not.
        """
        with self.running() as (pid, process):
            started = time.monotonic()
            try:
                signal.pidfd_send_signal(process, signal.SIGHUP)
            except PermissionError as exc:
                raise self._unavailable(
                    f'this process may not signal process {pid}: run as the '
                    'same user or root, or with CAP_KILL.') from exc
            except ProcessLookupError as exc:
                raise self._unavailable(
                    f'process {pid} is gone: start dnsmasq.') from exc
            done = wait_for(lambda: _idle(pid), self._timeout)
            self.pause = time.monotonic() - started
            # one that hangs is not at work
            if self.pause > self._max_pause and (
                    done or _status(pid).get('State', '').startswith('R')):
                self._rests_until = time.monotonic() + _REST * self.pause
                LOG.warning('dnsmasq %s took %.1f s to read its files again '
                            'and answered nobody meanwhile: split the pool '
                            'over several dnsmasqs', self._name, self.pause)
            if not done:
                raise self._unavailable(
                    f'process {pid} has not read its files again in '
                    f'{self._timeout} s: keep fewer entries for each '
                    'dnsmasq, or raise timeout.')
            if not _proc(pid, 'comm'):
                raise self._unavailable(
                    f'process {pid} ended while it read its files: start '
                    'dnsmasq.')

    def _unavailable(self, text: str) -> exceptions.DHCPServerUnavailable:
        return exceptions.DHCPServerUnavailable(
            f'dnsmasq {self._name}: {text}')


def _proc(pid: int, name: str) -> str:
    """Return a file of /proc/PID, '' of a process that is gone."""
    try:
        with open(f'/proc/{pid}/{name}', encoding='utf-8',
                  errors='replace') as file:
            return file.read()
    except OSError:
        return ''


def command(pid: int) -> str:
    """Return the name of a process, '?' of one that is gone."""
    return ascii(_proc(pid, 'comm').strip())[1:-1] or '?'


def _status(pid: int) -> dict[str, str]:
    return dict(line.split(':\t', 1) for line
                in _proc(pid, 'status').splitlines() if ':\t' in line)


def _idle(pid: int) -> bool:
    """Tell whether a process waits for work and has no SIGHUP left to take.

    dnsmasq has one thread and reads the folder without a pause: when it
    sleeps again after the signal, it has read everything.
    """
    status = _status(pid)
    bit = 1 << (signal.SIGHUP - 1)
    return not status or (
        status['State'].startswith('S')
        and not (int(status['SigPnd'], 16) | int(status['ShdPnd'], 16)) & bit)


def watches(pid: int, path: str) -> bool | None:
    """Tell whether a process has an inotify watch on a folder.

    :returns: None where this process may not see it.
    """
    wanted = f'ino:{os.stat(path).st_ino:x}'
    folder = f'/proc/{pid}/fdinfo'
    try:
        return any(line.startswith('inotify ') and wanted in line.split()
                   for name in os.listdir(folder)
                   for line in _proc(pid, f'fdinfo/{name}').splitlines())
    except OSError:
        return None


def settings(pid: int) -> tuple[Mapping[str, list[str]], list[str]]:
    """Return a dnsmasq's options.

    :returns: the values of each long option on its command line and in its
        files, and the files that cannot be read.
    """
    found = collections.defaultdict(list)
    words = _proc(pid, 'cmdline').split('\0')[1:]
    for word, following in itertools.pairwise([*words, '']):
        if word[:2] in _SHORT:
            word = f'--{_SHORT[word[:2]]}={word[2:]}'
        name, _, value = word.partition('=')
        if name.startswith('--'):
            if not value and not following.startswith('-'):
                value = following
            found[name[2:]].append(value)
    unreadable = []
    files = found['conf-file'] or ['/etc/dnsmasq.conf']
    folders = found['conf-dir']
    seen = set()
    while files or folders:
        if not files:
            folder, *suffixes = folders.pop().split(',')
            only = tuple(s[1:] for s in suffixes if s.startswith('*'))
            never = tuple(s for s in suffixes if not s.startswith('*'))
            try:
                files = [os.path.join(folder, name)
                         for name in os.listdir(folder)
                         if name[0] != '.' and not name.endswith(never)
                         and (not only or name.endswith(only))]
            except (OSError, ValueError):     # a NUL is no name of a file
                unreadable.append(folder)
            continue
        path = files.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            with open(path, encoding='utf-8', errors='replace') as file:
                text = file.read()
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            unreadable.append(path)
            continue
        for line in text.splitlines():
            name, _, value = line.partition('#')[0].partition('=')
            found[name.strip()].append(value.strip())
            if name.strip() == 'conf-file':
                files.append(value.strip())
            elif name.strip() == 'conf-dir':
                folders.append(value.strip())
    return found, unreadable
