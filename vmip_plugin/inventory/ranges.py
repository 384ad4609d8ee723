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

"""The addresses of a pool: ranges, less what is excluded, as one line."""

import bisect
from collections.abc import Iterable, Sequence
import ipaddress
import itertools

from vmip_plugin import exceptions
from vmip_plugin import types

#: first and last address of a run
Run = tuple[types.Address, types.Address]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Ranges:
    """Runs of addresses in their order.

    :ivar runs: (first, last) of each; they do not meet.
    :ivar size: how many addresses there are.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = tuple(sorted(runs, key=lambda run: int(run[0])))
        self._ends = list(itertools.accumulate(
            int(last) - int(first) + 1 for first, last in self.runs))
        self.size = self._ends[-1] if self._ends else 0

    def at(self, position: int) -> types.Address:
        """Return the address at a position, 0 ... size - 1."""
        number = bisect.bisect_right(self._ends, position)
        return self.runs[number][1] - (self._ends[number] - 1 - position)

    def position(self, address: types.Address) -> int | None:
        """Return where an address is, None where it is in no run."""
        for (first, last), end in zip(self.runs, self._ends, strict=True):
            if (first.version == address.version
                    and int(first) <= int(address) <= int(last)):
                return end - 1 - (int(last) - int(address))
        return None

    def without(self, excluded: Iterable[Run]) -> 'Ranges':
        """Return what is left without some runs of the same IP version."""
        runs = list(self.runs)
        for gone, end in excluded:
            left: list[Run] = []
            for first, last in runs:
                if int(end) < int(first) or int(gone) > int(last):
                    left.append((first, last))
                    continue
                if first < gone:        # type: ignore[operator]
                    left.append((first, gone - 1))
                if end < last:          # type: ignore[operator]
                    left.append((end + 1, last))
            runs = left
        return Ranges(runs)


def check(network: Network, runs: Sequence[Run]) -> Ranges:
    """Return a subnet's ranges.

    :raises VmipError: there is none, or one is outside the subnet, is the
        wrong way round or meets another.
    """
    if not runs:
        raise exceptions.VmipError('A pool needs at least one range')
    for first, last in runs:
        if first not in network or last not in network:
            raise exceptions.VmipError(
                f'Range {first}-{last} is not within {network}')
        if network.num_addresses > 2 and (
                first == network.network_address or network.version == 4
                and last == network.broadcast_address):
            raise exceptions.VmipError(
                f'Range {first}-{last} has the network\'s own address or its '
                f'broadcast address, which Neutron gives to no port')
        if int(first) > int(last):
            raise exceptions.VmipError(
                f'Range {first}-{last} ends before it starts')
    found = Ranges(runs)
    for (first, last), (begin, end) in itertools.pairwise(found.runs):
        if int(begin) <= int(last):
            raise exceptions.VmipError(
                f'Ranges {first}-{last} and {begin}-{end} overlap')
    return found
