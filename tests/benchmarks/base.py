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

"""What the benchmarks have in common: the door, progress, JSON lines."""

import argparse
from collections.abc import Callable, Sequence
import json
import math
import sys
import time

#: name -> (runs it, adds its sizes to the command line)
Run = Callable[[argparse.Namespace], None]
Sizes = Callable[[argparse.ArgumentParser], None]

_began = time.monotonic()


def say(text: str) -> None:
    """Tell what is being done."""
    print(f'[{time.monotonic() - _began:6.1f} s] {text}', file=sys.stderr,
          flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Report:
    """Collects figures and writes each as a JSON line.

    :param bench: name of the benchmark.
    """

    def __init__(self, bench: str) -> None:
        self._bench = bench
        self._lines: list[str] = []

    def add(self, figure: str, value: float, unit: str,
            peer: str | None = None, peer_value: float | None = None) -> None:
        """Note a figure and what its peer did in the same run."""
        ratio = (round(value / peer_value, 4)
                 if peer_value not in (None, 0) else None)
        self._lines.append(json.dumps({
            'bench': self._bench, 'figure': figure, 'value': round(value, 4),
            'unit': unit, 'peer': peer,
            'peer_value': (None if peer_value is None
                           else round(peer_value, 4)),
            'ratio': ratio}))

    def end(self) -> None:
        """Print the lines."""
        print('\n'.join(self._lines), flush=True)
