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
      │ └─expire/cancel──┘  │ (kept by hand) └──────release───────┤
      │                     │                                     ▼
      └──rest── quarantined ◀───────────finish──────────── releasing

``adopt`` takes a free address that was in use before the pool was made; it
is left by ``release`` like any other.
"""

import enum


class State(enum.StrEnum):
    """Where an address stands."""

    #: nobody holds it
    FREE = 'free'
    #: held for a create request, or by hand
    RESERVED = 'reserved'
    #: Neutron has made the port
    CLAIMED = 'claimed'
    #: Nova has told that the server runs
    ACTIVE = 'active'
    #: the port is gone; host entry and lease are still to be removed
    RELEASING = 'releasing'
    #: nobody holds it, and it rests before it is given away again
    QUARANTINED = 'quarantined'
    #: was in use before the pool was made
    ADOPTED = 'adopted'


class Event(enum.StrEnum):
    """What moves an address from one state to another."""

    RESERVE = 'reserve'
    BIND = 'bind'
    CANCEL = 'cancel'
    EXPIRE = 'expire'
    CLAIM = 'claim'
    ACTIVATE = 'activate'
    CHANGE = 'change'
    RELEASE = 'release'
    KEEP = 'keep'
    FINISH = 'finish'
    REST = 'rest'
    ADOPT = 'adopt'
    HOLD = 'hold'
    UNHOLD = 'unhold'


S = State

#: event -> the states it may leave and the states it may lead to
TRANSITIONS: dict[Event, tuple[frozenset[State], frozenset[State]]] = {
    Event.RESERVE: (frozenset({S.FREE, S.RESERVED}), frozenset({S.RESERVED})),
    # the request's server is known, or a reservation lives on
    Event.BIND: (frozenset({S.RESERVED}), frozenset({S.RESERVED})),
    Event.CANCEL: (frozenset({S.RESERVED}), frozenset({S.FREE, S.RESERVED})),
    Event.EXPIRE: (frozenset({S.RESERVED}), frozenset({S.FREE, S.RESERVED})),
    Event.CLAIM: (frozenset({S.FREE, S.RESERVED, S.QUARANTINED}),
                  frozenset({S.CLAIMED})),
    Event.ACTIVATE: (frozenset({S.CLAIMED}), frozenset({S.ACTIVE})),
    # the holder's MAC changed
    Event.CHANGE: (frozenset({S.CLAIMED, S.ACTIVE}),
                   frozenset({S.CLAIMED, S.ACTIVE})),
    Event.RELEASE: (frozenset({S.CLAIMED, S.ACTIVE, S.ADOPTED}),
                    frozenset({S.RELEASING})),
    # the delete of the port was rolled back
    Event.KEEP: (frozenset({S.RELEASING}), frozenset({S.CLAIMED})),
    Event.FINISH: (frozenset({S.RELEASING}),
                   frozenset({S.FREE, S.QUARANTINED, S.RESERVED})),
    Event.REST: (frozenset({S.QUARANTINED}), frozenset({S.FREE})),
    # or Neutron has given it away behind our back
    Event.ADOPT: (frozenset({S.FREE, S.CLAIMED}), frozenset({S.ADOPTED})),
    Event.HOLD: (frozenset({S.FREE, S.QUARANTINED}), frozenset({S.RESERVED})),
    Event.UNHOLD: (frozenset({S.RESERVED}), frozenset({S.FREE})),
}
