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

"""The leases that the agent remembers, in one SQLite file.

Whatever a method has returned from survives a kill and a reboot. Addresses
and MACs are kept as text, times in seconds since the epoch; but
``gone_since`` and ``released_at``, from which delays are measured, in seconds
since the host's start, so that a step of the wall clock makes no delay longer
or shorter.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import functools
import ipaddress
import sqlite3
import threading
import time

from vmip_plugin.agent import decide
from vmip_plugin.agent import lease as lease_
from vmip_plugin.agent import schema
from vmip_plugin.agent import tracker
from vmip_plugin import exceptions
from vmip_plugin import types

#: Most leases of one MAC: else one guest could push out all the others'.
MAC_LIMIT = 16
#: most leases without an ACK that Neutron is asked for in one pass
UNCONFIRMED_LIMIT = 50
#: releases sent for one lease: UDP loses some, and no server confirms
MAX_TRIES = 3
#: seconds that a lease which ended is still kept
KEEP = 86400
_THIS = 'FROM lease WHERE address = :address AND mac = :mac'

# What any sign of life undoes.
_ALIVE = 'last_seen = max(last_seen, :seen), gone_since = NULL, tries = 0, ' \
    'released_at = NULL'

_TOUCH = f"""
UPDATE lease SET {_ALIVE}, interface = :interface, vlan = :vlan
 WHERE address = :address AND mac = :mac AND remote >= :remote"""

_UPDATE = f"""
UPDATE lease SET {_ALIVE}, interface = :interface, vlan = :vlan,
    dhcp_server = :dhcp_server,
    dhcp_server_mac = coalesce(:dhcp_server_mac, dhcp_server_mac),
    client_id = :client_id, server_duid = :server_duid, iaid = :iaid,
    lease_seconds = coalesce(:lease_seconds, lease_seconds),
    confirmed = max(confirmed, :confirmed), remote = :remote
 WHERE address = :address AND mac = :mac AND remote >= :remote"""

# One that is there, and was not to be changed, is left alone.
_INSERT = """
INSERT INTO lease (address, mac, interface, vlan, dhcp_server,
                   dhcp_server_mac, client_id, lease_seconds, confirmed,
                   first_seen, last_seen, remote, server_duid, iaid)
VALUES (:address, :mac, :interface, :vlan, :dhcp_server, :dhcp_server_mac,
        :client_id, :lease_seconds, :confirmed, :seen, :seen, :remote,
        :server_duid, :iaid)
ON CONFLICT (address, mac) DO NOTHING"""

_SETTLED = 'tries = ?, reason = ?'

# Whom the server has given the address, nobody else has it from it.
_GIVEN_ON = """
UPDATE lease SET tries = :tries, reason = :reason
 WHERE address = :address AND mac != :mac AND released_at IS NOT NULL
   AND dhcp_server = :dhcp_server AND interface IN ('', :interface)"""

# First who is beyond a relay, then who was never a guest, then who has no
# ACK, then the oldest.
_EVICT = """
DELETE FROM lease WHERE rowid IN (
    SELECT rowid FROM lease
     ORDER BY remote DESC, port_id IS NOT NULL OR server_id IS NOT NULL,
              confirmed, last_seen
     LIMIT max(0, (SELECT count(*) FROM lease) - ?))"""

_EVICT_MAC = """
DELETE FROM lease WHERE mac = :mac AND rowid NOT IN (
    SELECT rowid FROM lease WHERE mac = :mac
     ORDER BY remote, confirmed DESC, last_seen DESC LIMIT :limit)"""

# Long past its end the server has it back without us.
_PRUNE = """
DELETE FROM lease WHERE released_at < :steady - :keep
    OR (coalesce(lease_seconds, 0) < 4294967295
        AND last_seen < :now - 7 * :keep - 2 * coalesce(lease_seconds, 0))"""


# Times of another run of the host say nothing in this one: suspicion begins
# anew, and a release was long enough ago.
_REBOOTED = """
UPDATE lease SET gone_since = NULL,
    released_at = CASE WHEN released_at IS NOT NULL THEN 0 END"""


def boot_time() -> float:
    """Return the seconds since the host's start, also those asleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return what tells this run of the host (random(4)).

    :raises OSError: /proc is not there.
    """
    with open('/proc/sys/kernel/random/boot_id', encoding='ascii') as file:
        return file.read().strip()


class LeaseStore:
    """The file; its methods may be called from any thread.

    :param path: made if it is not there.
    :param limit: most leases kept.
    :param clock: the wall clock.
    :param steady: a clock that is never set, and begins at a start.
    :param boot: of which start.
    :raises ConfigError: the file cannot be written or is not ours.
    """

    def __init__(self, path: str, limit: int,
                 clock: Callable[[], float] = time.time,
                 steady: Callable[[], float] = boot_time,
                 boot: str | None = None) -> None:
        self._limit = limit
        self._clock = clock
        self.steady = steady
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            self._db.execute('PRAGMA journal_mode = WAL')
            self._db.execute('PRAGMA synchronous = FULL')
            with self._transaction():
                self._migrate(path)
                self._begin(boot_id() if boot is None else boot)
        except (OSError, sqlite3.Error) as exc:
            raise exceptions.ConfigError(
                f'[agent] store {path} cannot be used: {exc}') from exc

    def check(self) -> str | None:
        """Tell why nothing can be stored now; None: it can."""
        try:
            with self._transaction():
                # as it is already, but written to the disk
                self._set_version()
        except sqlite3.Error as exc:
            return f'it cannot be written: {exc}'
        return None

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def record(self, batch: Iterable[tracker.Overheard]) -> int:
        """Store what was overheard, all or nothing.

        Storing the same again changes nothing.

        :return: how many leases are new.
        :raises sqlite3.Error: nothing was stored.
        """
        with self._transaction():
            new = [one.mac for one in _settled(batch) if self._record(one)]
            for mac in set(new):
                self._db.execute(
                    _EVICT_MAC, {'mac': mac, 'limit': MAC_LIMIT})
            if new:
                self._db.execute(_EVICT, (self._limit,))
            return len(new)

    def add(self, address: types.Address, mac: str,
            dhcp_server: ipaddress.IPv4Address) -> None:
        """Store a lease that was not overheard but told."""
        self.record([tracker.Overheard(
            tracker.Kind.REQUESTED, address, mac, '', self._clock(),
            dhcp_server=dhcp_server)])

    def get(self, key: lease_.Key) -> lease_.Lease | None:
        """Return one lease, or None."""
        found = self._select('address = ? AND mac = ?', key)
        return found[0] if found else None

    def watched(self) -> list[lease_.Lease]:
        """Return the leases that may have to be released, oldest first."""
        return self._select(
            'dhcp_server IS NOT NULL AND tries < ? AND NOT remote'
            ' AND (port_id IS NOT NULL OR server_id IS NOT NULL)'
            ' ORDER BY last_seen', (MAX_TRIES,))

    def latest(self, limit: int) -> list[lease_.Lease]:
        """Return the guests that were last known to be there."""
        return self._select(
            'gone_since IS NULL AND NOT remote'
            ' AND (port_id IS NOT NULL OR server_id IS NOT NULL)'
            ' ORDER BY last_seen DESC LIMIT ?', (limit,))

    def strangers(self, before: float, limit: int) -> list[lease_.Lease]:
        """Return leases whose MAC Neutron was not asked for since then.

        Anybody can make up a REQUEST, and as many as it likes. So those that
        a server confirmed come first, and of the others only a few; what a
        relay passed on is left to hints.
        """
        # A time to come is a clock that was set back.
        where = ('port_id IS NULL AND server_id IS NULL AND NOT remote'
                 ' AND {} AND (looked_at IS NULL OR looked_at < ?'
                 ' OR looked_at > ?)'
                 ' ORDER BY looked_at, last_seen DESC LIMIT ?')
        now = self._clock()
        found = self._select(where.format('confirmed'),
                             (before, now, limit))
        return found + self._select(
            where.format('NOT confirmed'),
            (before, now, min(limit - len(found), UNCONFIRMED_LIMIT)))

    def near(self, address: types.Address) -> list[lease_.Lease]:
        """Return the leases that show where an address's network is.

        Those of its /24 (IPv6: /64) that a server was heard to grant here.
        """
        prefix = 24 if address.version == 4 else 64
        network = ipaddress.ip_network((address, prefix), strict=False)
        if address.version == 4:
            like = str(network.network_address).rpartition('.')[0] + '.%'
        else:
            like = '%:%'
        return [one for one in self._select(
            'address LIKE ? AND confirmed AND NOT remote'
            " AND interface != ''", (like,))
            if one.address in network]

    def ambiguous(self, lease: lease_.Lease) -> bool:
        """Tell whether the client id of a lease may be another's too.

        It is a guest's own text. Where another MAC uses the same one, or
        was overheard with the same address, a server that goes by client id
        would end the other's lease.
        """
        return bool(self._select(
            'mac != ? AND (client_id = ? OR address = ?) LIMIT 1',
            (lease.mac, lease.client_id, str(lease.address))))

    def identify(self, key: lease_.Key, port_id: str | None,
                 server_id: str | None, network_id: str | None = None
                 ) -> None:
        """Note whose lease it is; what is known already stays."""
        self._update(
            'port_id = coalesce(port_id, ?),'
            ' server_id = coalesce(server_id, ?),'
            ' network_id = coalesce(network_id, ?)',
            (port_id, server_id, network_id), [key])

    def page(self, after: lease_.Key | None, limit: int
             ) -> list[lease_.Lease]:
        """Return the next leases, in the order of their keys as text.

        :param after: the last key of the page before; None begins.
        """
        return self._select(
            '(address, mac) > (?, ?) ORDER BY address, mac LIMIT ?',
            (*(after or ('', '')), limit))

    def looked(self, keys: Iterable[lease_.Key]) -> None:
        """Note that Neutron was asked for them."""
        self._update('looked_at = ?', (self._clock(),), keys)

    def decided(self, decisions: Mapping[lease_.Key, decide.Decision]
                ) -> None:
        """Note what was decided about them, for whoever asks."""
        now = self._clock()
        with self._transaction():
            self._db.executemany(
                'UPDATE lease SET verdict = ?, reason = ?, decided_at = ?'
                ' WHERE address = ? AND mac = ?',
                [(one.verdict.value, one.reason, now, *key)
                 for key, one in decisions.items()])

    def alive(self, keys: Iterable[lease_.Key]) -> None:
        """Note a sign of life: all suspicion is void."""
        self._update(
            'last_seen = ?, gone_since = NULL, tries = 0, released_at = NULL',
            (self._clock(),), keys)

    def unsuspect(self, keys: Iterable[lease_.Key]) -> None:
        """Note that the cloud has them: all suspicion is void."""
        self._update('gone_since = NULL, tries = 0, released_at = NULL', (),
                     keys)

    def suspect(self, keys: Iterable[lease_.Key]) -> None:
        """Note that they were found gone, for the first time."""
        self._update('gone_since = ?', (self.steady(),), keys)

    def claim(self, lease: lease_.Lease) -> bool:
        """Count a try to release it.

        :return: False if something was overheard since the lease was read:
            then it must not be released.
        """
        with self._transaction():
            return self._db.execute(
                'UPDATE lease SET tries = tries + 1, released_at = ?'
                ' WHERE address = ? AND mac = ? AND gone_since = ?'
                ' AND last_seen = ? AND tries = ?',
                (self.steady(), *lease.key, lease.gone_since,
                 lease.last_seen, lease.tries)).rowcount == 1

    def settle(self, key: lease_.Key, reason: str) -> None:
        """Note that its server has it no more: it is tried no further."""
        self._update(_SETTLED, (MAX_TRIES, reason), [key])

    def unclaim(self, lease: lease_.Lease) -> None:
        """Take a try back: nothing could be sent."""
        self._update('tries = ?, released_at = ?',
                     (lease.tries, lease.released_at), [lease.key])

    def prune(self) -> int:
        """Forget what has ended for sure; return how many."""
        with self._transaction():
            return self._db.execute(
                _PRUNE, {'now': self._clock(), 'steady': self.steady(),
                         'keep': KEEP}).rowcount

    def _record(self, one: tracker.Overheard) -> bool:
        """Store one thing; tell whether that made a row."""
        values = {
            **one._asdict(), 'address': _text(one.address),
            'dhcp_server': one.dhcp_server and _text(one.dhcp_server),
            'confirmed': one.kind is tracker.Kind.GRANTED}
        if one.kind is tracker.Kind.ENDED:
            self._db.execute(
                f'DELETE {_THIS} AND remote >= :remote', values)
        elif one.kind is tracker.Kind.REFUSED:
            self._db.execute(f'DELETE {_THIS} AND NOT confirmed'
                             ' AND remote >= :remote', values)
        elif one.dhcp_server is None:
            self._db.execute(_TOUCH, values)
        else:
            if one.kind is tracker.Kind.GRANTED and not one.remote:
                self._db.execute(_GIVEN_ON, {
                    **values, 'tries': MAX_TRIES,
                    'reason': f'released, and given to {one.mac}'})
            # Most leases are seen again and again.
            return (not self._db.execute(_UPDATE, values).rowcount
                    and self._db.execute(_INSERT, values).rowcount == 1)
        return False

    def _migrate(self, path: str) -> None:
        version = self._db.execute('PRAGMA user_version').fetchone()[0]
        tables = self._db.execute(
            'SELECT count(*) FROM sqlite_master').fetchone()[0]
        if version > len(schema.MIGRATIONS) or bool(version) != bool(tables):
            raise exceptions.ConfigError(
                f'[agent] store {path} is no store, or one of a later '
                'version: move it away, and the agent learns the leases anew')
        for script in schema.MIGRATIONS[version:]:
            for statement in script.split(';'):
                self._db.execute(statement)
        self._set_version()

    def _begin(self, boot: str) -> None:
        known = self._db.execute('SELECT id FROM boot').fetchone()
        if known is None or known[0] != boot:
            self._db.execute(_REBOOTED)
            self._db.execute('DELETE FROM boot')
            self._db.execute('INSERT INTO boot VALUES (?)', (boot,))

    def _set_version(self) -> None:
        self._db.execute(f'PRAGMA user_version = {len(schema.MIGRATIONS)}')

    def _select(self, where: str, values: Iterable[object] = ()
                ) -> list[lease_.Lease]:
        with self._lock:
            rows = self._db.execute(
                f'SELECT * FROM lease WHERE {where}',
                tuple(values)).fetchall()
        return [lease_.Lease.from_row(dict(row)) for row in rows]

    def _update(self, change: str, values: tuple[object, ...],
                keys: Iterable[lease_.Key]) -> None:
        with self._transaction():
            self._db.executemany(
                f'UPDATE lease SET {change} WHERE address = ? AND mac = ?',
                [(*values, *key) for key in keys])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute('BEGIN IMMEDIATE')
            try:
                yield
            except BaseException:
                self._db.execute('ROLLBACK')
                raise
            self._db.execute('COMMIT')


#: address to text; the same come again and again
_text = functools.lru_cache(4096)(str)


def _settled(batch: Iterable[tracker.Overheard]
             ) -> Iterator[tracker.Overheard]:
    """Leave out what a later grant of the same lease says once more."""
    kept: list[tracker.Overheard | None] = []
    last: dict[tuple[types.Address, str], int] = {}
    for one in batch:
        key = one.address, one.mac
        at = last.get(key)
        if (at is not None and one.kind is tracker.Kind.GRANTED
                and one.lease_seconds is not None):
            before = kept[at]
            if (before is not None and before.remote == one.remote
                    and before.kind in (tracker.Kind.REQUESTED,
                                        tracker.Kind.GRANTED)):
                kept[at] = None
        last[key] = len(kept)
        kept.append(one)
    return (one for one in kept if one is not None)
