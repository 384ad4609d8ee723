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

"""``make demo``: brings the cloud up and tells the story."""

import argparse
from pathlib import Path
import signal
import sys
import threading
import time
from typing import Any

from tests.cloud import harness
from tests.cloud import story


def _table(results: list[story.Result]) -> str:
    what = max(len(result.what) for result in results)
    seen = max(len(result.seen) for result in results)
    line = f'+------+-{"-" * what}-+-{"-" * seen}-+'
    rows = [f'| {result.step:<4} | {result.what:<{what}} | '
            f'{result.seen:<{seen}} |' for result in results]
    return '\n'.join([line, f'| step | {"what":<{what}} | {"seen":<{seen}} |',
                      line, *rows, line])


def _interrupted(signum: int, frame: Any) -> None:
    # Once is enough: the way down is not to be cut short.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


class _Memory:
    """How much less memory was available than at the beginning."""

    def __init__(self) -> None:
        self.most = 0.0
        self._before = self._available()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, self._before - self._available())
            time.sleep(1)

    @staticmethod
    def _available() -> float:
        """Return what the kernel says is available, in GiB."""
        for line in Path('/proc/meminfo').read_text().splitlines():
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) / (1 << 20)
        raise OSError('/proc/meminfo tells no MemAvailable')


def main() -> int:
    """Return 0, or 1 if an assertion failed."""
    parser = argparse.ArgumentParser(prog='make demo')
    parser.add_argument('--keep', action='store_true',
                        help='leave the cloud up, to look around')
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    began = time.monotonic()

    def say(line: str) -> None:
        print(f'[{time.monotonic() - began:6.1f} s] {line}', flush=True)

    memory = _Memory()
    results: list[story.Result] = []
    code = 1
    say('bringing up Keystone, Placement, Glance, Neutron, Nova, RabbitMQ, '
        'MariaDB and dnsmasq on this machine')
    try:
        harness.minicloud.up('libvirt')
        told = story.Story(harness.Cloud(), say)
        say('the cloud is up')
        told.prepare()
        for _, step in told.steps():
            assert step.__doc__
            say(f'--- {step.__doc__}')
            results += step()
        told.all_gone()
        code = 0
    except (AssertionError, harness.process.Failure) as exc:
        say(f'FAILED: {exc}')
    except KeyboardInterrupt:
        say('interrupted')
        code = 130
    finally:
        if results:
            print(_table(results))
        if args.keep and code == 0:
            say(f'the cloud stays up: ". {harness.settings.STATE}/demorc", '
                f'and "make clean" when you are done')
        else:
            say('taking the cloud down')
            harness.minicloud.down()
    say(f'memory in use at most: {memory.most:.1f} GiB')
    say('all as it should be' if code == 0 else f'exit code {code}')
    return code


if __name__ == '__main__':
    sys.exit(main())
