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

"""Processes of the cloud: started, found again and stopped.

Every process gets three environment variables, which its children inherit.
So all that belongs to a service is found, workers whose master was killed
included, and nothing is ever taken for ours because of its name or because
a number was used again.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import os
from pathlib import Path
import signal
import subprocess
import threading
import time

from minicloud import settings

SERVICE = 'MINICLOUD_SERVICE'
STATE = 'MINICLOUD_STATE'
CHECKOUT = 'MINICLOUD_CHECKOUT'
# What a job, not a service, runs as.
JOB = 'job'

PAGE = os.sysconf('SC_PAGE_SIZE')
TICKS = os.sysconf('SC_CLK_TCK')

# Set once the cloud is to come down: nothing is started from then on.
closing = threading.Event()
_starting = threading.Lock()


class Failure(Exception):
    """The cloud does not come up; the message says why, for a person."""


class Closing(Exception):
    """Work was given up since the cloud is to come down."""


@dataclasses.dataclass(frozen=True)
class Process:
    pid: int
    # Clock ticks between the machine's start and the process's: with the
    # pid they name one process.
    started: int

    @property
    def uptime(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / TICKS

    @property
    def rss(self) -> int:
        try:
            text = Path(f'/proc/{self.pid}/statm').read_text()
        except OSError:
            return 0
        return int(text.split()[1]) * PAGE


def find(pid: int) -> Process | None:
    """Return the process that has a pid now, if it is not a zombie."""
    try:
        text = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return None
    # The name before the last parenthesis may hold blanks.
    fields = text.rpartition(')')[2].split()
    return None if fields[0] in 'ZX' else Process(pid, int(fields[19]))


def _boot() -> str:
    return Path('/proc/sys/kernel/random/boot_id').read_text().strip()


def _environ(pid: int) -> dict[str, str]:
    try:
        data = Path(f'/proc/{pid}/environ').read_bytes()
    except OSError:
        return {}
    pairs = (item.partition(b'=') for item in data.split(b'\0') if item)
    return {os.fsdecode(key): os.fsdecode(value) for key, _, value in pairs}


def _marked() -> Iterable[tuple[Process, dict[str, str]]]:
    """Yield each process that belongs to a cloud, of any checkout."""
    for name in os.listdir('/proc'):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        environ = _environ(int(name))
        if SERVICE not in environ:
            continue
        process = find(int(name))
        if process:
            yield process, environ


def members() -> dict[str, list[Process]]:
    """Return the processes of this cloud, by service."""
    result: dict[str, list[Process]] = {}
    for process, environ in _marked():
        if environ.get(STATE) == str(settings.STATE):
            result.setdefault(environ[SERVICE], []).append(process)
    return result


def strangers() -> set[tuple[str, str]]:
    """Return checkout and state of each other cloud that runs here."""
    return {(environ.get(CHECKOUT, '?'), environ.get(STATE, '?'))
            for _, environ in _marked()
            if environ.get(STATE) != str(settings.STATE)}


def environment(service: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process of the cloud."""
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(('OS_', 'PYTHON', 'VIRTUAL_ENV',
                                    'NOTIFY_SOCKET'))}
    path = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
    return {**kept, 'PATH': f'{settings.VENV}/bin:{path}', 'LC_ALL': 'C.UTF-8',
            SERVICE: service, STATE: str(settings.STATE),
            CHECKOUT: str(settings.CHECKOUT),
            # VMIP_VENV may have the plugin of another checkout in it.
            'PYTHONPATH': str(settings.CHECKOUT),
            # setproctitle would write over the environment we look for.
            'SPT_NOENV': '1', **extra}


def _popen(command: Sequence[str | Path], service: str, log: Path,
           extra: Mapping[str, str]) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    # Under the lock: either the process is there when the cloud comes down,
    # or it is not started any more.
    with _starting, open(log, 'ab') as output:
        if closing.is_set():
            raise Closing
        return subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env=environment(service, extra), cwd='/')


def close() -> None:
    """Start nothing any more."""
    closing.set()
    with _starting:
        pass


def run(command: Sequence[str | Path], log: str,
        extra: Mapping[str, str] | None = None) -> None:
    """Run a job to its end.

    :param log: name of its log.
    :raises Failure: it failed; the message has the end of its log.
    """
    path = settings.LOG / f'{log}.log'
    begin = path.stat().st_size if path.exists() else 0
    status = _popen(command, JOB, path, extra or {}).wait()
    if closing.is_set():
        raise Closing
    if status:
        raise Failure(f'{" ".join(map(str, command[:3]))} ... failed '
                      f'({status}), {path} ends:\n{tail(path, since=begin)}')


def tail(path: Path, lines: int = 25, since: int = 0) -> str:
    """Return the last lines of a log, from a position on."""
    try:
        with open(path, 'rb') as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(since, end - 20000))
            text = log.read().decode(errors='replace')
    except OSError as exc:
        return f'  ({exc})'
    return '\n'.join(f'  {line}' for line in text.splitlines()[-lines:])


class Service:
    """The recorded process of one service."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.log = settings.LOG / f'{name}.log'
        self._record = settings.PID / f'{name}.json'

    def _read(self) -> dict[str, str | int]:
        record: dict[str, str | int] = {}
        try:
            record = json.loads(self._record.read_text())
        except (OSError, ValueError):
            pass
        return record

    @property
    def process(self) -> Process | None:
        """The main process, if it runs."""
        record = self._read()
        process = find(int(record.get('pid', 0)))
        if process and process.started == record.get('started'):
            # After a reboot, pid and start may be another process's.
            if _boot() == record.get('boot'):
                return process
        return None

    @property
    def digest(self) -> str:
        """What the running process was made of."""
        return str(self._read().get('digest', ''))

    def start(self, command: Sequence[str | Path],
              extra: Mapping[str, str], digest: str
              ) -> subprocess.Popen[bytes]:
        child = _popen(command, self.name, self.log, extra)
        process = find(child.pid)
        settings.write_private(self._record, json.dumps({
            'pid': child.pid, 'started': process and process.started,
            'boot': _boot(), 'digest': digest}))
        return child


def _alive(processes: Iterable[Process]) -> list[Process]:
    return [item for item in processes if find(item.pid) == item]


def send(processes: Iterable[Process], number: int) -> None:
    """Send a signal to those that still are the processes they were."""
    for process in _alive(processes):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            pass


def wait_until(condition: Callable[[], bool], seconds: float,
               step: float = 0.05) -> bool:
    """Wait for a condition; return whether it came true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(step)
    return True


def stop(names: Iterable[str], patience: float = 6) -> None:
    """End services: SIGTERM to the recorded process, then SIGKILL to all."""
    names = set(names)
    main = [process for name in names
            if (process := Service(name).process)]
    send(main, signal.SIGTERM)
    wait_until(lambda: not _alive(main), patience)
    kill(names)


def kill(names: Iterable[str]) -> None:
    """SIGKILL every process of some services."""
    names = set(names)

    def left() -> list[Process]:
        return [process for name, processes in members().items()
                if name in names for process in processes]

    # More than once: a process may just have had a child.
    def gone() -> bool:
        processes = left()
        send(processes, signal.SIGKILL)
        return not processes

    wait_until(gone, 5)
    for name in names:
        (settings.PID / f'{name}.json').unlink(missing_ok=True)
