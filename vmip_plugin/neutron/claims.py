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


"""What follows when a transaction of Neutron's ends.

The inventory is no part of Neutron's database. What was claimed in a
transaction is given back when that is rolled back, whatever ended it: of most
failures Neutron tells no IPAM driver. What was given back in a transaction is
released when that is committed, and not before.

What is to follow is kept with the session, until its outermost transaction
ends: neither with the context of the call, which may live long, nor with a
listener of its own, which would have to be removed.
"""

from collections.abc import Callable
import sys
from typing import Any

from neutron.objects import ports as port_obj
from neutron_lib import context as n_context
from oslo_log import log as logging
from sqlalchemy import event
from sqlalchemy import orm

from vmip_plugin import exceptions
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin.neutron import shared
from vmip_plugin import types

LOG = logging.getLogger(__name__)

_KEY = 'vmip_ending'


class _Ending:
    """What is to follow the end of one transaction."""

    def __init__(self) -> None:
        self.committed = False
        self.releases: dict[tuple[str, types.Address],
                            Callable[[], None]] = {}
        self.claims: dict[tuple[str, types.Address], str] = {}

    def follow(self) -> None:
        if self.committed:
            for release in self.releases.values():
                release()
        else:
            for (subnet_id, address), port_id in reversed(
                    self.claims.items()):
                _guarded(address, _undo, subnet_id, address, port_id)


def note(context: Any, subnet_id: str, address: types.Address,
         port_id: str) -> None:
    """Note a claim; it is undone if Neutron's transaction is rolled back.

    :param context: of the call, in its transaction.
    :param port_id: for which it was claimed: what another port has got by
        then stays its own.
    """
    ending = _ending(context)
    if ending is not None:
        ending.claims[subnet_id, address] = port_id


def forget(context: Any, subnet_id: str, address: types.Address) -> None:
    """Forget a claim that was noted."""
    ending = _ending(context)
    if ending is not None:
        ending.claims.pop((subnet_id, address), None)


def keep(context: Any, subnet_id: str, address: types.Address) -> None:
    """Keep an address: its port has got it again in the same transaction."""
    ending = _ending(context)
    if ending is not None:
        ending.releases.pop((subnet_id, address), None)


def release(context: Any, subnet_id: str, held: records.Address) -> None:
    """Release an address when Neutron's transaction is committed.

    Neutron takes a port back whose create has failed after all while it
    handles that error, in the same call. Such an address is as if it had
    never been claimed: what had been reserved is reserved again.

    Never fails: what cannot be written down is found by vmip-reclaimer.

    :param held: as it stands while Neutron's transaction is open.
    """
    undone = (sys.exception() is not None
              and held.state == states.State.CLAIMED
              and held.request_id == request_id(context))

    def follow() -> None:
        _guarded(held.address, _release, subnet_id, held, undone)

    ending = _ending(context)
    if ending is None:
        follow()
    else:
        ending.releases[subnet_id, held.address] = follow


def request_id(context: Any) -> str:
    """Return the id of the request that a call of Neutron's API serves."""
    return context.global_request_id or context.request_id or ''


def _ending(context: Any) -> _Ending | None:
    """Return what follows the call's transaction, None where there is none."""
    session = context.session
    if not session.in_transaction():
        return None
    found: _Ending = session.info.setdefault(_KEY, _Ending())
    return found


def _release(subnet_id: str, held: records.Address, undone: bool) -> None:
    if undone:
        # A create of many ports that fails gives back the addresses also of
        # those that it leaves there.
        if port_obj.IPAllocation.objects_exist(
                n_context.get_admin_context(), subnet_id=subnet_id,
                ip_address=str(held.address)):
            return
        if _undo(subnet_id, held.address, held.port_id or '',
                 states.Evidence.COMMITTED):
            return
    shared.inventory().release_address(
        subnet_id, held.address, 'Neutron gave it back',
        states.Evidence.COMMITTED, held.port_id)


def _undo(subnet_id: str, address: types.Address, port_id: str,
          evidence: states.Evidence | None = None) -> bool:
    return shared.inventory().undo_claim(
        subnet_id, address, port_id, shared.configuration().reserve.ttl,
        evidence)


def _guarded(address: types.Address, follow: Callable[..., Any],
             *args: Any) -> None:
    """Do what follows; Neutron, which has other work to do, never fails."""
    try:
        follow(*args)
    except exceptions.VmipError as exc:
        LOG.warning('Address %s is left to vmip-reclaimer: %s', address, exc)
    except Exception:
        LOG.exception('Address %s is left to vmip-reclaimer', address)


@event.listens_for(orm.Session, 'after_commit')
def _committed(session: orm.Session) -> None:
    ending = session.info.get(_KEY)
    # a savepoint says nothing yet
    if ending is not None and not session.in_nested_transaction():
        ending.committed = True


@event.listens_for(orm.Session, 'after_transaction_end')
def _ended(session: orm.Session, transaction: orm.SessionTransaction) -> None:
    # Its connection is back in the pool by now: what follows may take one.
    if transaction.parent is None:
        ending = session.info.pop(_KEY, None)
        if ending is not None:
            ending.follow()
