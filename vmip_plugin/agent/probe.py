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

"""Asks guests whether they are there, by unicast ARP or NDP.

An ARP probe comes from 0.0.0.0 (RFC 5227 section 2.1.1), so that the agent
needs no address of its own, a neighbour solicitation (RFC 4861 section 7.2)
from the link-local address of its MAC. Both go to the guest's own MAC: nobody
else sees them, and nobody who has taken over the address answers in the
guest's stead.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
import contextlib
import ipaddress
import selectors
import time

from oslo_log import log as logging

from vmip_plugin.agent import decide
from vmip_plugin.agent import frames
from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import link
from vmip_plugin import types

LOG = logging.getLogger(__name__)

_DRAIN_EVERY = 64
#: most frames read before the clock is looked at: a guest that floods answers
#: never lets a socket run dry
_DRAIN_LIMIT = 256


#: an interface, and the id of a VLAN on it
Place = tuple[str, int | None]
#: most MACs noted for one address
_MACS = 8


class Prober:
    """Probes many guests at once.

    :param interfaces: those of the agent.
    :param count: probes sent before a guest counts as silent.
    :param timeout: seconds waited for the answers to each.
    """

    def __init__(self, interfaces: Collection[str], count: int,
                 timeout: float) -> None:
        self._interfaces = interfaces
        self._count = count
        self._timeout = timeout

    def probe(self, leases: Iterable[lease_.Lease]
              ) -> dict[lease_.Key, decide.Probe]:
        """Return for each lease what came of probing its holder.

        Takes ``count * timeout`` seconds, however many they are, and less
        where all answer.
        """
        with contextlib.ExitStack() as stack:
            links = self._open(stack)
            asked = {lease.key: lease for lease in leases}
            silent, unsent = set(asked), set[lease_.Key]()
            with selectors.DefaultSelector() as selector:
                for opened in links.values():
                    selector.register(opened, selectors.EVENT_READ, opened)
                for _ in range(self._count):
                    unsent |= self._send(
                        [asked[key] for key in asked if key in silent],
                        links, selector, silent)
                    self._receive(selector, silent, self._timeout)
                    if not silent:
                        break
        return {key: decide.Probe.ANSWERED if key not in silent
                else decide.Probe.UNSENT if key in unsent
                else decide.Probe.SILENT for key in asked}

    def _open(self, stack: contextlib.ExitStack) -> dict[str, link.Link]:
        links = {}
        for name in self._interfaces:
            try:
                links[name] = stack.enter_context(
                    link.Link(name, link.ANSWER_FILTER, timeout=0))
            except OSError as exc:
                LOG.warning('Cannot probe on %s: %s', name, exc)
        return links

    def _send(self, leases: list[lease_.Lease], links: dict[str, link.Link],
              selector: selectors.BaseSelector,
              silent: set[lease_.Key]) -> set[lease_.Key]:
        """Send one probe each; return those to whom it could not be sent."""
        unsent = set()
        macs: dict[str, str] = {}
        for number, lease in enumerate(leases):
            if number % _DRAIN_EVERY == 0:
                self._receive(selector, silent, 0)
            for name in where(lease, self._interfaces):
                try:
                    opened = links[name]
                    if name not in macs:
                        macs[name] = opened.mac
                    opened.send(_probe(macs[name], lease))
                except (KeyError, OSError):
                    unsent.add(lease.key)
        return unsent

    def _receive(self, selector: selectors.BaseSelector,
                 silent: set[lease_.Key], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while silent:
            for reply in self._answers(selector, deadline):
                silent.discard((str(reply.address), reply.mac))
            if time.monotonic() >= deadline:
                return

    def _answers(self, selector: selectors.BaseSelector, deadline: float
                 ) -> Iterator[frames.Answer]:
        """Wait until the deadline for answers; yield a bounded part."""
        for key, _ in selector.select(
                max(0.0, deadline - time.monotonic())):
            opened: link.Link = key.data
            try:
                for _ in range(_DRAIN_LIMIT):
                    got = opened.receive()
                    if got is None:
                        break
                    with contextlib.suppress(frames.FrameError):
                        yield frames.parse_answer(got[0])
            except OSError as exc:
                LOG.warning('Cannot probe on %s: %s', opened.name, exc)
                selector.unregister(opened)

    def hear(self, places: Mapping[types.Address, Collection[Place]]
             ) -> dict[types.Address, set[str] | None]:
        """Ask all stations for addresses; return the MACs that answered.

        Takes ``count * timeout`` seconds at most, less where all answer.

        :param places: where each address is asked for.
        :return: None for an address that could be asked for nowhere.
        """
        heard = {address: set[str]() for address in places}
        sent = set[types.Address]()
        with contextlib.ExitStack() as stack:
            links = self._open(stack)
            with selectors.DefaultSelector() as selector:
                for opened in links.values():
                    selector.register(opened, selectors.EVENT_READ, opened)
                for _ in range(self._count):
                    silent = [one for one in places if not heard[one]]
                    for number, address in enumerate(silent):
                        for name, vlan in places[address]:
                            with contextlib.suppress(KeyError, OSError):
                                links[name].send(_broadcast(
                                    links[name].mac, address, vlan))
                                sent.add(address)
                        if number % _DRAIN_EVERY == 0:
                            self._gather(selector, heard, 0)
                    self._gather(selector, heard, self._timeout)
                    if all(heard.values()):
                        break
        return {address: heard[address] if address in sent else None
                for address in places}

    def _gather(self, selector: selectors.BaseSelector,
                heard: dict[types.Address, set[str]], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not all(heard.values()):
            for reply in self._answers(selector, deadline):
                macs = heard.get(reply.address)
                if macs is not None and len(macs) < _MACS:
                    macs.add(reply.mac)
            if time.monotonic() >= deadline:
                return


def _broadcast(source: str, address: types.Address, vlan: int | None
               ) -> bytes:
    if isinstance(address, ipaddress.IPv6Address):
        return frames.build_solicitation(source, None, address, vlan)
    return frames.build_arp_request(source, frames.BROADCAST, address, vlan)


def _probe(source: str, lease: lease_.Lease) -> bytes:
    if isinstance(lease.address, ipaddress.IPv6Address):
        return frames.build_solicitation(source, lease.mac, lease.address,
                                         lease.vlan)
    return frames.build_arp_request(source, lease.mac, lease.address,
                                    lease.vlan)


def where(lease: lease_.Lease, interfaces: Collection[str]
          ) -> Collection[str]:
    """Return the interfaces on which a lease's holder and server may be."""
    return [lease.interface] if lease.interface else interfaces
