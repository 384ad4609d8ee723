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

"""Checks leases, and releases those whose holders are gone."""

from collections.abc import Callable, Collection, Mapping, Sequence
import dataclasses
import heapq
import itertools
import threading
import time

from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin.agent import decide
from vmip_plugin.agent import guests
from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import probe
from vmip_plugin.agent import release
from vmip_plugin.agent import rpc
from vmip_plugin.agent import servers as servers_
from vmip_plugin.agent import store as store_
from vmip_plugin import cloud as cloud_
from vmip_plugin import exceptions
from vmip_plugin import health
from vmip_plugin import metrics

LOG = logging.getLogger(__name__)

#: seconds between two releases of one lease
RETRY_DELAY = 5.0
#: seconds in which newly overheard leases gather before Neutron is asked
#: whose they are
GATHER = 0.5
#: seconds until Neutron is asked again for a MAC that it did not know
LOOK_AGAIN = 600
#: seconds until it is asked again after it could not be: who is deleted
#: before that is never known
ASK_AGAIN = 10.0
#: most MACs that Neutron is asked for in one go
LOOK_LIMIT = 1000
#: most checks that wait
DUE_LIMIT = 100000
#: other guests probed along, who show that the cloud shows us its guests
WITNESSES = 5
#: most seconds that a pass takes: all its questions end with a time-out
_HUNG = 600.0

_SPARE = decide.Verdict.SPARE.value


class Worker(threading.Thread):
    """The thread that probes, asks and releases.

    :param servers: the DHCP servers that can be asked.
    :param settle: makes the store know all that was overheard till now;
        False if that was not possible.
    """

    def __init__(self, conf: cfg.ConfigOpts, cloud: cloud_.Cloud,
                 store: store_.LeaseStore, servers: servers_.Servers,
                 settle: Callable[[], bool], stop: threading.Event) -> None:
        super().__init__(name='worker', daemon=True)
        self._options = options = conf.agent
        self._store = store
        self._servers = servers
        self._settle = settle
        self._halt = stop
        self._guests = guests.Guests(cloud, options.reclaim_shutoff)
        self._prober = probe.Prober(
            options.interfaces, options.probe_count, options.probe_timeout)
        self._releaser = release.Releaser(
            options.interfaces, options.source, options.probe_timeout)
        self._wake = threading.Condition()
        # (when, on time.monotonic(); tie breaker; which lease, or None for
        # the newly overheard)
        self._due: list[tuple[float, int, lease_.Key | None]] = []
        self._ties = itertools.count()
        self._news = False
        self._ask_at = 0.0
        self._budget = options.max_releases
        self._told: set[lease_.Key] = set()
        self.pulse = health.Pulse('worker', options.sweep_interval + _HUNG)

    def hint(self, hint: rpc.Hint) -> None:
        """Check a lease now, and again after the delay."""
        key = str(hint.address), hint.mac
        known = self._store.get(key)
        if known is None or known.remote:
            if hint.dhcp_server is None:
                LOG.debug('A hint about %s of %s, which was never overheard',
                          *key)
                return
            # All agents are told; most are in other networks.
            if not self._releaser.reaches(hint.dhcp_server):
                LOG.debug('A hint about %s of %s, whose DHCP server is in '
                          'no network of ours', *key)
                return
            self._store.add(hint.address, hint.mac, hint.dhcp_server)
        self._store.identify(key, hint.port_id, hint.server_id)
        self._schedule(0, key)
        self._schedule(self._options.confirm_delay, key)

    def news(self) -> None:
        """Ask soon whose the newly overheard leases are."""
        with self._wake:
            if self._news:
                return
            self._news = True
        self._schedule(GATHER, None)

    def wake(self) -> None:
        with self._wake:
            self._wake.notify_all()

    def run(self) -> None:
        sweep_at = time.monotonic()
        while not self._halt.is_set():
            keys = self._wait(sweep_at)
            self.pulse.beat()
            try:
                if None in keys:
                    self.identify()
                leases = [lease for key in keys if key and (
                    lease := self._store.get(key)) is not None]
                self.check(leases)
                self.verify(leases)
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + self._options.sweep_interval
                    self.sweep()
            except Exception:
                # The next sweep finds everything where this one left it.
                LOG.exception('A check failed')
                self._halt.wait(1)

    def sweep(self) -> None:
        """Look at every lease."""
        self._budget = self._options.max_releases
        self.identify()
        self._store.prune()
        self.check(self._store.watched(), alone=True)
        if self._budget <= 0:
            LOG.warning('[agent] max_releases (%d) was reached in this '
                        'sweep; the rest waits for the next',
                        self._options.max_releases)

    def identify(self) -> None:
        """Ask Neutron whose leases they are, before the guests are gone."""
        with self._wake:
            self._news = False
        strangers = self._store.strangers(time.time() - LOOK_AGAIN,
                                          LOOK_LIMIT)
        for start in range(0, len(strangers), guests.BATCH):
            batch = strangers[start:start + guests.BATCH]
            try:
                ports = self._guests.identify(batch)
            except exceptions.CloudUnavailable as exc:
                LOG.warning('Neutron cannot be asked whose the leases are, '
                            'trying again later: %s', exc)
                self._ask_again()
                return
            self._store.looked(ports)
            self._store.decided({
                one.key: decide.STRANGER if ports[one.key] is None
                else decide.REMOTE for one in batch
                if one.remote or ports[one.key] is None})
            for key, port in ports.items():
                if port is not None:
                    self._store.identify(key, port.id, port.device_id or None,
                                         port.network_id)

    def _ask_again(self) -> None:
        # one at a time, however often it fails in between
        now = time.monotonic()
        if now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN
            self._schedule(ASK_AGAIN, None)

    def check(self, leases: Sequence[lease_.Lease], alone: bool = False
              ) -> None:
        """Probe, ask, decide and act, for many leases at once.

        :param alone: there are no others that could be witnesses.
        """
        leases = [lease for lease in leases if self._worth(lease)]
        if not leases:
            return
        others = [] if alone else self._others(leases)
        probes = self._prober.probe([*leases, *others])
        answered = {key: decide.ANSWERS for key, result in probes.items()
                    if result is decide.Probe.ANSWERED}
        self._store.alive(answered)
        self._store.decided(answered)
        self._told -= answered.keys()
        silent = [lease for lease in leases if lease.key not in answered]
        words = self._words(probes, [*leases, *others], silent,
                            self.pulse.beat)
        if not self._settle():
            LOG.error('What was overheard cannot be stored: nothing is '
                      'released')
            return
        decisions = self._decide(probes, words, silent)
        metrics.VERDICTS.labels('answers').inc(len(leases) - len(silent))
        for one in decisions.values():
            metrics.VERDICTS.labels(one.verdict.value).inc()
        self._store.decided(decisions)
        self._store.unsuspect(
            [key for key, one in decisions.items() if one.life])
        suspects = [key for key, one in decisions.items()
                    if one.verdict is decide.Verdict.SUSPECT]
        self._store.suspect(suspects)
        for key in suspects:
            LOG.debug('%s of %s: %s', *key, decisions[key].reason)
            self._schedule(self._options.confirm_delay, key)
        gone = [lease for lease in silent
                if decisions[lease.key].verdict is decide.Verdict.RELEASE]
        for lease in self._unsettled(gone):
            self._release(lease, decisions[lease.key].reason)

    def verify(self, leases: Sequence[lease_.Lease]) -> None:
        """See what has become of those that are tried no further."""
        self._unsettled([lease for lease in leases
                         if lease.tries == store_.MAX_TRIES], last=True)

    def _unsettled(self, leases: Sequence[lease_.Lease], last: bool = False
                   ) -> list[lease_.Lease]:
        """Return those that are to be released, for once or once more.

        :param last: there will be no more.
        """
        held = self._servers.held([lease for lease in leases if lease.tries])
        for key, found in held.items():
            if found is None:
                self._store.settle(key, 'released, and verified')
                _count('asked for again', 'verified')
                LOG.info('The DHCP server has no lease of %s for %s any '
                         'more', *key)
            elif last:
                _count('asked for again', 'kept')
                LOG.error('The DHCP server keeps the lease of %s for %s, '
                          'after %d releases: see its log', *key,
                          store_.MAX_TRIES)
        return [lease for lease in leases
                if held.get(lease.key, lease) is not None]

    def look(self) -> rpc.Look:
        """Judge every lease now, and change nothing.

        May be called from any thread.
        """
        leases = [lease for lease in self._store.watched()
                  if self._worth(lease)]
        probes = self._prober.probe(leases)
        silent = [lease for lease in leases
                  if probes[lease.key] is not decide.Probe.ANSWERED]
        words = self._words(probes, leases, silent)
        decisions = self._decide(probes, words, silent)
        now = time.time()
        judged = [dataclasses.replace(
            lease, verdict=one.verdict.value, reason=one.reason,
            decided_at=now) for lease in silent
            if (one := decisions[lease.key])]
        judged.sort(key=lambda lease: lease.verdict == _SPARE)
        return rpc.Look(len(leases), len(leases) - len(silent), judged)

    def _words(self, probes: Mapping[lease_.Key, decide.Probe],
               probed: Sequence[lease_.Lease],
               silent: Sequence[lease_.Lease],
               beat: Callable[[], None] = lambda: None,
               ) -> dict[lease_.Key, decide.Word]:
        if not silent:
            return {}
        answered = (lease for lease in probed
                    if probes[lease.key] is decide.Probe.ANSWERED)
        return self._guests.words(
            silent, list(itertools.islice(answered, WITNESSES)), beat)

    def _decide(self, probes: Mapping[lease_.Key, decide.Probe],
                words: Mapping[lease_.Key, decide.Word],
                silent: Sequence[lease_.Lease]
                ) -> dict[lease_.Key, decide.Decision]:
        now = self._store.steady()
        return {lease.key: decide.decide(
            probes[lease.key], words[lease.key], lease.gone_since, now,
            self._options.confirm_delay, self._options.reclaim_shutoff,
            lease.remote) for lease in silent}

    def _release(self, lease: lease_.Lease, reason: str) -> None:
        if self._halt.is_set():
            return
        if lease.tries == 0 and self._budget <= 0:
            return
        if lease.address.version == 6 and self._store.ambiguous(lease):
            # Without its client's DUID there is no RELEASE of DHCPv6.
            LOG.info('%s of %s is left to its end: another guest has the '
                     'same DUID or address', *lease.key)
            return
        if self._options.dry_run:
            if lease.key not in self._told:
                self._told.add(lease.key)
                LOG.info('Would release %s of %s to %s: %s (dry run)',
                         lease.address, lease.mac, lease.dhcp_server, reason)
            return
        if not self._store.claim(lease):
            LOG.info('%s of %s was overheard again: not released',
                     *lease.key)
            return
        try:
            if not self._servers.end(lease):
                self._releaser.release(lease, self._client_id(lease))
        except release.ReleaseError as exc:
            self._store.unclaim(lease)
            _count(reason, metrics.FAILED)
            LOG.warning('Cannot release %s of %s to %s: %s', lease.address,
                        lease.mac, lease.dhcp_server, exc)
            return
        _count(reason, 'sent')
        if lease.tries == 0:
            self._budget -= 1
        LOG.info('Released %s of %s to %s: %s (try %d of %d)', lease.address,
                 lease.mac, lease.dhcp_server, reason, lease.tries + 1,
                 store_.MAX_TRIES)
        self._schedule(RETRY_DELAY + 0.1, lease.key)

    def _client_id(self, lease: lease_.Lease) -> bytes | None:
        # Every server takes a release without it, but finds the wrong lease
        # where one MAC has two; a wrong one is refused. So both are tried.
        if lease.tries % 2 or lease.client_id is None:
            return None
        # Whose id it is that no server was heard to grant, nobody knows.
        if not lease.confirmed:
            return None
        return None if self._store.ambiguous(lease) else lease.client_id

    def _worth(self, lease: lease_.Lease) -> bool:
        return (lease.identified and not lease.remote
                and lease.dhcp_server is not None
                and lease.tries < store_.MAX_TRIES
                and (lease.released_at is None
                     or not 0 <= self._store.steady() - lease.released_at
                     < RETRY_DELAY))

    def _others(self, leases: Sequence[lease_.Lease]) -> list[lease_.Lease]:
        checked = {lease.key for lease in leases}
        latest = self._store.latest(len(leases) + WITNESSES)
        return [lease for lease in latest
                if lease.key not in checked][:WITNESSES]

    def _schedule(self, delay: float, key: lease_.Key | None) -> None:
        with self._wake:
            if len(self._due) >= DUE_LIMIT:
                LOG.warning('Too many checks wait; %s is left to the next '
                            'sweep', key)
                return
            heapq.heappush(self._due, (
                time.monotonic() + delay, next(self._ties), key))
            self._wake.notify_all()

    def _wait(self, until: float) -> Collection[lease_.Key | None]:
        """Wait for the next thing to do; return what is due."""
        with self._wake:
            while not self._halt.is_set():
                now = time.monotonic()
                due = dict.fromkeys(self._pop(now))
                if due or now >= until:
                    return due
                next_at = min(until, self._due[0][0]) if self._due else until
                self._wake.wait(next_at - now)
        return ()

    def _pop(self, now: float) -> list[lease_.Key | None]:
        keys = []
        while self._due and self._due[0][0] <= now:
            keys.append(heapq.heappop(self._due)[2])
        return keys


def _count(reason: str, outcome: str) -> None:
    metrics.LEASE_RELEASES.labels(reason, outcome).inc()
