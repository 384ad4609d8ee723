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

"""Random lives of guests: what is released that is in use, and what is not.

Wire, DHCP server, cloud and clock are simulated; the agent's tracker, store,
rules and worker are the real ones.
"""

import argparse
import time

from tests.benchmarks import base
from tests.unit.agent import stories


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--stories', type=int, default=10000,
                        help='stories: lives that are lived '
                             '(default: %(default)s)')


def run(args: argparse.Namespace) -> None:
    report = base.Report('stories')
    began = time.monotonic()
    found = stories.live(seed=20, stories=args.stories)
    base.say(f'stories: {found.stories} lives in '
             f'{time.monotonic() - began:.0f} s')
    for line in found.false[:10]:
        base.say(line)
    report.add('lives', found.stories, 'lives')
    report.add('false releases', len(found.false), 'releases')
    report.add('leases of the dead that were freed', found.released,
               'leases')
    report.add('leases of the dead that were left', found.held, 'leases')
    report.end()
