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

"""The reference driver: keeps the entries in memory and serves nobody."""

from collections.abc import Iterable, Iterator, Sequence

from oslo_config import cfg

from vmip_plugin.dhcp import base


class NoneDriver(base.DHCPDriver):
    """For pools whose DHCP server somebody else configures, and for tests."""

    capabilities = (base.Capability.LIVE_ADD | base.Capability.LIVE_REMOVE
                    | base.Capability.IPV6)

    def __init__(self, name: str, options: cfg.ConfigOpts.GroupAttr) -> None:
        super().__init__(name, options)
        self._entries: dict[object, base.HostEntry] = {}

    def put(self, entries: Sequence[base.HostEntry]) -> base.Failures:
        for entry in entries:
            self._entries = {
                a: e for a, e in self._entries.items() if e.mac != entry.mac
                or e.address.version != entry.address.version}
            self._entries[entry.address] = entry
        return {}

    def remove(self, entries: Iterable[base.HostEntry]) -> base.Failures:
        for entry in entries:
            held = self._entries.get(entry.address)
            if held is not None and held.mac == entry.mac:
                del self._entries[entry.address]
        return {}

    def entries(self) -> Iterator[base.HostEntry]:
        yield from tuple(self._entries.values())

    def check(self) -> list[str]:
        return []
