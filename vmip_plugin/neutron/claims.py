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


"""What a call of Neutron's API has claimed, to be given back if it fails.

Neutron tells an IPAM driver of some failures only. Whatever else ends a
create, a quota or another driver's objection, rolls back Neutron's own
database, of which the list is no part.
"""

from typing import Any

from oslo_log import log as logging
from sqlalchemy import event

from vmip_plugin import exceptions
from vmip_plugin.neutron import shared
from vmip_plugin import types

LOG = logging.getLogger(__name__)


def note(context: Any, subnet_id: str, address: types.Address) -> None:
    """Note a claim; it is undone if Neutron's transaction is rolled back.

    :param context: of the call: Neutron makes one for each, and deletes with
        it the port that a mechanism driver refuses.
    """
    claims = _of(context)
    claims.add((subnet_id, address))
    session = context.session
    ours = session.get_transaction()

    def rolled_back(session: Any, transaction: Any) -> None:
        # a savepoint says nothing yet, a later transaction nothing of ours
        if transaction is ours and forget(context, subnet_id, address):
            undo(subnet_id, address)

    event.listen(session, 'after_soft_rollback', rolled_back)


def forget(context: Any, subnet_id: str, address: types.Address) -> bool:
    """Forget a claim; tell whether this call had made it."""
    claims = _of(context)
    known = (subnet_id, address) in claims
    claims.discard((subnet_id, address))
    return known


def undo(subnet_id: str, address: types.Address) -> None:
    """Give a claim back, to its request where it had been reserved.

    Never fails: it is done where something else has failed already, and what
    is left claimed without a port is found by vmip-reclaimer.
    """
    try:
        shared.inventory().undo_claim(
            subnet_id, address, shared.configuration().reserve.ttl)
    except exceptions.VmipError as exc:
        LOG.warning('The claim of %s will be undone by vmip-reclaimer: %s',
                    address, exc)


def _of(context: Any) -> set[tuple[str, types.Address]]:
    claims: set[tuple[str, types.Address]] = vars(context).setdefault(
        'vmip_claims', set())
    return claims
