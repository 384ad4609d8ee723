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

"""``python -m tests.benchmarks [NAME ...] [--size ...]``; see --help."""

import argparse
import sys

from tests.benchmarks import allocation
from tests.benchmarks import delay
from tests.benchmarks import dhcp
from tests.benchmarks import events
from tests.benchmarks import latency
from tests.benchmarks import leases
from tests.benchmarks import margin
from tests.benchmarks import overhear
from tests.benchmarks import reclaim
from tests.benchmarks import release
from tests.benchmarks import reuse
from tests.benchmarks import scale
from tests.benchmarks import stories
from tests.benchmarks import sweep

BENCHES = {'allocation': allocation, 'delay': delay, 'dhcp': dhcp,
           'events': events, 'latency': latency, 'leases': leases,
           'margin': margin, 'overhear': overhear, 'reclaim': reclaim,
           'release': release, 'reuse': reuse, 'scale': scale,
           'stories': stories, 'sweep': sweep}


def main() -> int:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog='make bench')
    parser.add_argument('names', nargs='*', metavar='NAME',
                        help=', '.join(sorted(BENCHES)) + ' (default: all)')
    for name in sorted(BENCHES):
        BENCHES[name].add_sizes(parser)
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(BENCHES))
    if unknown:
        parser.error(f'no benchmark {", ".join(unknown)}; there are '
                     f'{", ".join(sorted(BENCHES))}')
    for name in args.names or sorted(BENCHES):
        BENCHES[name].run(args)
    return 0


if __name__ == '__main__':
    sys.exit(main())
