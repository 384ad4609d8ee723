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

"""How long before the guest's first DISCOVER the host entry is there."""

import argparse
import statistics

from tests.benchmarks import base
from tests.cloud import harness
from tests.cloud import story


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--boots', type=int, default=20,
                        help='margin: real guests that are booted '
                             '(default: %(default)s)')


def run(args: argparse.Namespace) -> None:
    """Boot real guests one after the other and look at the wire."""
    report = base.Report('margin')
    harness.minicloud.up('libvirt')
    told = story.Story(harness.Cloud(), lambda line: None)
    told.prepare()
    margins = []
    for number in range(1, args.boots + 1):
        name = f'margin-{number}'
        asked = told.create(name)
        address = told.reserved(name)[name]
        server = told.active(name)
        margins.append(told.first_discover(server, address, asked))
        base.say(f'margin: boot {number} of {args.boots}: '
                 f'{margins[-1]:.2f} s')
        told.cloud.forget_servers()
    report.add('boots', len(margins), 'boots')
    report.add('margin min', min(margins), 's')
    report.add('margin median', statistics.median(margins), 's')
    report.end()
