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

"""The state machine of an address.

::

    free ──reserve──▶ reserved ──claim──▶ claimed ──activate──▶ active
      ▲ ▲                │  ▲                │                    │
      │ └─cancel/expire──┘  │ (kept by hand) └──────release───────┤
      │                     │                                     ▼
      └──rest── quarantined ◀───────────finish──────────── releasing

``free``
    Nobody holds it.
``reserved``
    Held for a create request, or by hand (``hold``, ``unhold``).
``claimed``
    Neutron has made the port. One that is asked for by its address, or made
    without a request, is claimed when it is free.
``active``
    Nova has told that the server runs. When the server lets go of a port that
    is kept, it is ``claimed`` again (``change``).
``releasing``
    The port is gone; host entry and lease are still to be removed. Where
    Neutron has the port after all it is ``claimed`` again (``keep``). On
    evidence that is a proof (:data:`PROOF`) it may be ``claimed`` or
    ``reserved`` by the next holder before that is done, if it is silent on
    the wire; if that comes to nothing, it is ``releasing`` as before.
``quarantined``
    Nobody holds it, and it rests for the pool's reuse delay.
``adopted``
    Was in use before it came into the pool (``adopt``); left by ``release``
    like any other. Where its server is to have a host entry it is ``claimed``
    instead. Also what an older list, put back, has as another's.

With the allocator ``sticky`` a server that comes back under its name takes
its old address also out of ``quarantined`` and, once the old port is known to
be gone, out of ``releasing``. If it then gets no port after all, the address
goes back to where it was taken from.
"""

from collections.abc import Iterable
import enum
import itertools


class State(enum.StrEnum):
    """Where an address stands."""

    FREE = 'free'
    RESERVED = 'reserved'
    CLAIMED = 'claimed'
    ACTIVE = 'active'
    RELEASING = 'releasing'
    QUARANTINED = 'quarantined'
    ADOPTED = 'adopted'


class Evidence(enum.StrEnum):
    """What shows that the holder of an address is gone, strongest first."""

    #: Neutron gave the address back in a transaction that is committed
    COMMITTED = 'committed'
    #: Nova says that the server is deleted, or no longer knows it
    SERVER_DELETED = 'server_deleted'
    #: Neutron answers 404 for the port
    PORT_MISSING = 'port_missing'
    #: nobody answers on the wire
    SILENT = 'silent'

    @property
    def rank(self) -> int:
        """1 for the strongest."""
        return list(type(self)).index(self) + 1


#: What lets the next holder in before the DHCP servers have forgotten the
#: last one.
PROOF = (Evidence.COMMITTED, Evidence.SERVER_DELETED)


class WaitingFor(enum.StrEnum):
    """What a pending host entry waits for; waiting is not failing."""

    #: a lease that is in the way has to end
    LEASE = 'lease'
    #: the DHCP server cannot be used
    DHCP_SERVER = 'dhcp_server'
    #: Nova or Neutron gives no usable answer
    CLOUD = 'cloud'
    #: Neutron still has the port
    PORT = 'port'
    #: the address answers on the wire although its holder is gone
    WIRE = 'wire'


class Event(enum.StrEnum):
    """What moves an address from one state to another."""

    #: a create request takes it
    RESERVE = 'reserve'
    #: the request's server is known, or its reservation lives on
    BIND = 'bind'
    #: the request failed
    CANCEL = 'cancel'
    #: no port came in time
    EXPIRE = 'expire'
    #: Neutron makes a port with it
    CLAIM = 'claim'
    #: the server runs
    ACTIVATE = 'activate'
    #: the holder's port, MAC or server is another one
    CHANGE = 'change'
    #: the port is deleted
    RELEASE = 'release'
    #: Neutron has the port after all
    KEEP = 'keep'
    #: the DHCP servers have forgotten it
    FINISH = 'finish'
    #: the quarantine is over
    REST = 'rest'
    #: it was in use before, or Neutron gave it away behind our back
    ADOPT = 'adopt'
    #: reserved by hand
    HOLD = 'hold'
    #: the reservation by hand is given up
    UNHOLD = 'unhold'


S = State

#: What has a holder whom Neutron knows.
IN_USE = (S.CLAIMED, S.ACTIVE, S.ADOPTED)


def _to(sources: Iterable[State], targets: Iterable[State]
        ) -> set[tuple[State, State]]:
    return set(itertools.product(sources, targets))


def _stay(*states: State) -> set[tuple[State, State]]:
    return {(state, state) for state in states}


#: event -> what it may lead from and to
TRANSITIONS: dict[Event, frozenset[tuple[State, State]]] = {
    event: frozenset(pairs) for event, pairs in {
        Event.RESERVE: _to({S.FREE, S.RESERVED, S.QUARANTINED, S.RELEASING},
                           {S.RESERVED}),
        Event.BIND: _stay(S.RESERVED),
        # What was taken back while it rested, or while its old entry was
        # still to be removed, goes back to that.
        Event.CANCEL: _to({S.RESERVED}, {S.FREE, S.RESERVED, S.QUARANTINED,
                                         S.RELEASING}),
        Event.EXPIRE: _to({S.RESERVED}, {S.FREE, S.RESERVED, S.QUARANTINED,
                                         S.RELEASING}),
        Event.CLAIM: _to({S.FREE, S.RESERVED, S.QUARANTINED, S.RELEASING},
                         {S.CLAIMED}),
        Event.ACTIVATE: _to({S.CLAIMED}, {S.ACTIVE}),
        Event.CHANGE: (_stay(S.CLAIMED, S.ACTIVE)
                       | _to({S.ACTIVE}, {S.CLAIMED})),
        Event.RELEASE: _to(IN_USE, {S.RELEASING}),
        Event.KEEP: _to({S.RELEASING}, {S.CLAIMED}),
        Event.FINISH: _to({S.RELEASING},
                          {S.FREE, S.QUARANTINED, S.RESERVED}),
        Event.REST: _to({S.QUARANTINED}, {S.FREE}),
        # Whoever the list had it for: Neutron says whose it is.
        Event.ADOPT: _to(S, {S.ADOPTED, S.CLAIMED}),
        Event.HOLD: (_to({S.FREE, S.QUARANTINED}, {S.RESERVED})
                     | _stay(S.RESERVED, S.CLAIMED, S.ACTIVE, S.RELEASING,
                             S.ADOPTED)),
        Event.UNHOLD: (_to({S.RESERVED}, {S.FREE})
                       | _stay(S.RESERVED, S.CLAIMED, S.ACTIVE, S.RELEASING,
                               S.ADOPTED)),
    }.items()}

#: In these nobody holds an address.
VACANT = frozenset({S.FREE, S.QUARANTINED})

#: After these nobody holds it either, though it may be reserved by hand.
ENDING = frozenset({Event.CANCEL, Event.EXPIRE, Event.FINISH})

#: What tells the holder of an address.
HOLDER = ('request_id', 'project_id', 'server_id', 'server_name', 'port_id',
          'mac')


def is_legal(event: Event, old: State, new: State) -> bool:
    """Tell whether an event may lead from one state to another."""
    return (old, new) in TRANSITIONS[event]
