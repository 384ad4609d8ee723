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

"""Who answers for an address now, whoever its holder should be."""

import collections
from collections.abc import Collection
import threading

from vmip_plugin.agent import probe
from vmip_plugin.agent import store as store_
from vmip_plugin import types

#: addresses for which one MAC may answer before it must hold a lease of each
ANSWERS_LIMIT = store_.MAC_LIMIT
#: most MACs whose answers are remembered
_MACS_LIMIT = 1000


class Hearer:
    """Asks all stations for addresses.

    All interfaces are asked, but that nobody answers is told only where the
    agent overheard a DHCP server grant a neighbour's lease: there the network
    is. A guest that answers for every address (proxy ARP) holds up nobody:
    past some addresses a MAC is believed only where it has the lease.
    """

    def __init__(self, interfaces: Collection[str],
                 store: store_.LeaseStore, prober: probe.Prober) -> None:
        self._interfaces = interfaces
        self._store = store
        self._prober = prober
        self._lock = threading.Lock()
        self._claimed: collections.OrderedDict[
            str, set[types.Address]] = collections.OrderedDict()

    def hear(self, addresses: Collection[types.Address]
             ) -> dict[types.Address, bool]:
        """Return which addresses answer; leave out what cannot be told."""
        everywhere = [(name, None) for name in self._interfaces]
        near = {address: {(one.interface, one.vlan)
                          for one in self._store.near(address)
                          if one.interface in self._interfaces}
                for address in addresses}
        heard = self._prober.hear({
            address: {*everywhere, *near[address]} for address in addresses})
        with self._lock:
            for address, macs in heard.items():
                for mac in macs or ():
                    self._note(mac, address)
            found = {}
            for address, macs in heard.items():
                if macs and any(self._credible(mac, address)
                                for mac in macs):
                    found[address] = True
                elif near[address] and macs is not None:
                    found[address] = False
        return found

    def _note(self, mac: str, address: types.Address) -> None:
        claimed = self._claimed.setdefault(mac, set())
        self._claimed.move_to_end(mac)
        if len(claimed) <= ANSWERS_LIMIT:
            claimed.add(address)
        while len(self._claimed) > _MACS_LIMIT:
            self._claimed.popitem(last=False)

    def _credible(self, mac: str, address: types.Address) -> bool:
        return (len(self._claimed.get(mac, ())) <= ANSWERS_LIMIT
                or self._store.get((str(address), mac)) is not None)
