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


"""Put and remove at random until SIGTERM: ``churn CONFIG FIRST SEED``.

FIRST is the first of eight MACs. The addresses are the same for every
instance, which is what they fight for.
"""

import pathlib
import random
import signal
import sys

from tests.contract import base
from vmip_plugin.dhcp import base as driver_base


def main() -> None:
    config, first, seed = sys.argv[1:]
    driver = base.load(pathlib.Path(config))
    chance = random.Random(int(seed))
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stop.append(number))
    makers = [base.entry]
    if driver_base.Capability.IPV6 in driver.capabilities:
        makers.append(base.entry6)
    print('ready', flush=True)
    while not stop:
        entries = [chance.choice(makers)(int(first) + chance.randrange(8),
                                         1 + chance.randrange(8))
                   for _ in range(chance.randrange(1, 4))]
        change = driver.put if chance.random() < 0.6 else driver.remove
        if failures := change(entries):
            sys.exit(str(failures))


if __name__ == '__main__':
    main()
