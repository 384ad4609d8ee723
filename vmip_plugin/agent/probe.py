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

from collections.abc import Collection, Iterable
import contextlib
import ipaddress
import selectors
import time

from oslo_log import log as logging

from vmip_plugin.agent import decide
from vmip_plugin.agent import frames
from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import link

LOG = logging.getLogger(__name__)

_DRAIN_EVERY = 64


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
            ready = selector.select(deadline - time.monotonic())
            for key, _ in ready:
                self._drain(key.data, selector, silent)
            if not ready and time.monotonic() >= deadline:
                return

    def _drain(self, opened: link.Link, selector: selectors.BaseSelector,
               silent: set[lease_.Key]) -> None:
        try:
            while (got := opened.receive()) is not None:
                with contextlib.suppress(frames.FrameError):
                    reply = frames.parse_answer(got[0])
                    silent.discard((str(reply.address), reply.mac))
        except OSError as exc:
            LOG.warning('Cannot probe on %s: %s', opened.name, exc)
            selector.unregister(opened)


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
