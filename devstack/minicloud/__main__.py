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

"""Command line: python3 devstack/minicloud COMMAND."""

import argparse
import os
from pathlib import Path
import signal
import sys

if not __package__:
    # Run by its directory's name, not as a part of a package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from minicloud import cloud  # noqa: E402
from minicloud import process  # noqa: E402
from minicloud import settings  # noqa: E402


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='minicloud', description='A whole cloud on one machine.')
    commands = parser.add_subparsers(dest='command', required=True)

    up = commands.add_parser('up', help='bring the cloud up')
    up.add_argument('--compute', choices=settings.COMPUTES, default='libvirt',
                    help='real guests (the default) or Nova\'s fake driver')
    up.add_argument('--no-vmip', dest='vmip', action='store_false',
                    help='without the plugin')
    up.add_argument('--strict', action='store_true',
                    help='no port before its host entry')
    up.add_argument('--fresh', action='store_true',
                    help='forget all state first')

    down = commands.add_parser('down', help='stop everything')
    down.add_argument('--purge', action='store_true',
                      help='remove databases and other state, too')

    commands.add_parser('status', help='show the services')
    commands.add_parser('install', help='install packages, build the guest')

    logs = commands.add_parser('logs', help='show the ends of logs')
    logs.add_argument('name', nargs='?', help='a service (default: all)')
    logs.add_argument('-n', dest='lines', type=int, default=20)
    logs.add_argument('-f', dest='follow', action='store_true')

    for name, text in (('start', 'start services that are stopped'),
                       ('stop', 'stop services'),
                       ('restart', 'stop services and start them'),
                       ('kill', 'kill services with SIGKILL')):
        command = commands.add_parser(name, help=text)
        command.add_argument('names', nargs='+', metavar='NAME')
    return parser


def _status() -> int:
    rows = cloud.status()
    line = '{:<16} {:>8} {:<5} {:>6} {:>8} {:>10}'
    print(line.format('SERVICE', 'PID', 'STATE', 'PORT', 'RSS MiB', 'UPTIME'))
    for row in rows:
        print(line.format(
            row.name, row.pid or '-', 'up' if row.running else 'down',
            row.port or '-', row.rss >> 20,
            f'{row.uptime:.0f} s' if row.running else '-'))
    print(line.format('total', '', '', '', sum(row.rss for row in rows) >> 20,
                      ''))
    if not any(row.wanted for row in rows):
        print('the cloud is down')
        return 1
    return int(any(row.wanted and not row.running for row in rows))


def _logs(name: str | None, lines: int, follow: bool) -> None:
    pattern = f'{name or "*"}.log'
    paths = sorted(str(path) for path in settings.LOG.glob(pattern))
    if not paths:
        raise process.Failure(f'no {settings.LOG}/{pattern}')
    os.execvp('tail', ['tail', f'-n{lines}', *(['-F'] if follow else []),
                       *paths])


def _interrupt(_number: int, _frame: object) -> None:
    # Once is enough: what follows cleans up, and is not to be cut short.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    args = _parser().parse_args()
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        match args.command:
            case 'up':
                cloud.up(args.compute, args.vmip, args.fresh, args.strict)
            case 'down':
                cloud.down(args.purge)
            case 'install':
                cloud.install()
            case 'status':
                return _status()
            case 'logs':
                _logs(args.name, args.lines, args.follow)
            case command:
                getattr(cloud, command)(*args.names)
    except process.Failure as exc:
        print(f'minicloud: {exc}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('minicloud: interrupted', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
