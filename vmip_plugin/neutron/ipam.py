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

"""Neutron's IPAM driver: a port gets the address that was reserved for it.

Neutron's own driver stays in charge of its tables: this one only says *which*
address, for subnets that have a pool. All other subnets are the internal
driver's, call by call.
"""

import ipaddress
from typing import Any

import netaddr
from neutron.ipam.drivers.neutrondb_ipam import driver as internal
from neutron.ipam import exceptions as ipam_exc
from neutron.ipam import requests as ipam_req
from neutron.ipam import subnet_alloc
from neutron_lib import constants
from neutron_lib import exceptions as n_exc
from oslo_db import exception as db_exc
from oslo_log import log as logging

from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records
from vmip_plugin.neutron import claims
from vmip_plugin.neutron import shared
from vmip_plugin import types

LOG = logging.getLogger(__name__)

#: How many addresses that Neutron has given away behind our back are passed
#: over before a port create fails.
MAX_SKIPS = 16


#: How often what is still being released is looked at on the wire.
MAX_LOOKS = 3


class IpAddressAlreadyAllocated(ipam_exc.IpAddressAlreadyAllocated):
    """Neutron's error, by whose name its clients know it; says why."""

    message = ('IP address %(ip)s in subnet %(subnet_id)s is not free yet: '
               'its former holder still answers on the wire.')


class AddressRequestFactory(ipam_req.AddressRequestFactory):
    """Neutron's factory, whose requests also name their port."""

    @classmethod
    def get_request(cls, context: Any, port: dict[str, Any],
                    ip_dict: dict[str, Any]) -> ipam_req.AddressRequest:
        request = super().get_request(context, port, ip_dict)
        request.vmip_port = port
        request.vmip_requester = records.Requester(
            request_id=claims.request_id(context),
            project_id=context.project_id or port.get('project_id') or '')
        return request


class VmipSubnet(internal.NeutronDbSubnet):
    """A subnet whose addresses may be those of a pool."""

    #: what is being allocated because we, not the caller, chose it
    _picked: str | None = None

    def __init__(self, internal_id: str, ctx: Any, *args: Any,
                 **kwargs: Any) -> None:
        super().__init__(internal_id, ctx, *args, **kwargs)
        # What the base class keeps has changed its names between releases.
        self.context = ctx
        self.subnet_id: str = self.subnet_manager.neutron_id

    def allocate(self, address_request: ipam_req.AddressRequest) -> str:
        """Allocate one address, claiming it first where there is a pool.

        :raises IpAddressGenerationFailure: the pool is full.
        :raises IpAddressAlreadyAllocated: the address asked for is held.
        :raises InventoryAway: the list cannot be reached. There is no
            going on without it: the address might be another's.
        """
        given: types.Address | None = None
        if isinstance(address_request, ipam_req.SpecificAddressRequest):
            given = types.parse_address(str(address_request.address))
        skip: list[types.Address] = []
        while len(skip) < MAX_SKIPS:
            claim = self._claim(address_request, given, skip)
            if claim is None:
                return str(super().allocate(address_request))
            if not claim.repeated:
                claims.note(self.context, self.subnet_id, claim.address,
                            claim.port_id)
            self._picked = str(claim.address) if given is None else None
            specific = ipam_req.SpecificAddressRequest(
                netaddr.IPAddress(str(claim.address)))
            try:
                allocated = str(super().allocate(specific))
                if claim.repeated:
                    self._hand_over(address_request, claim)
                return allocated
            except ipam_exc.IpAddressAlreadyAllocated:
                if not claim.repeated:
                    # Neutron gave it away while we were not its driver.
                    claims.forget(self.context, self.subnet_id, claim.address)
                    shared.inventory().disown(self.subnet_id, claim.address)
                if given is not None:
                    raise
                # A repeated claim is one that the port, or another of the
                # server, has already: this is a second address in the subnet.
                skip.append(claim.address)
        raise ipam_exc.IpAddressGenerationFailure(subnet_id=self.subnet_id)

    def bulk_allocate(self, address_request: ipam_req.AddressRequest
                      ) -> list[str]:
        """Allocate several addresses."""
        if not isinstance(address_request, ipam_req.BulkAddressRequest):
            return [self.allocate(address_request)]
        if not self._has_pool():
            return list(super().bulk_allocate(address_request))
        return [self.allocate(ipam_req.AnyAddressRequest())
                for _ in range(address_request.num_addresses)]

    def _verify_ip(self, context: Any, ip_address: str) -> None:
        try:
            super()._verify_ip(context, ip_address)
        except ipam_exc.InvalidIpForSubnet:
            # The internal driver so checks what it is asked for, not what it
            # picks: of a /31 (RFC 3021) and a /32 every address.
            if ip_address != self._picked:
                raise

    def deallocate(self, address: str) -> None:
        """Give an address back; its release starts at Neutron's commit.

        What the same call of Neutron's API claimed is not released but as if
        it had never been claimed: its port was refused.

        The port's delete never fails because of us: what cannot be written
        down is found by vmip-reclaimer.
        """
        super().deallocate(address)
        given_back = ipaddress.ip_address(str(address))
        try:
            held = shared.inventory().find_address(
                self.subnet_id, given_back) if self._has_pool() else None
        except exceptions.VmipError as exc:
            LOG.warning('Address %s will be released by vmip-reclaimer: %s',
                        address, exc)
            return
        if held is not None:
            claims.release(self.context, self.subnet_id, held)

    def _has_pool(self) -> bool:
        return shared.inventory().may_have_pool(subnet_id=self.subnet_id)

    def _hand_over(self, request: ipam_req.AddressRequest,
                   claim: records.Claim) -> None:
        port = getattr(request, 'vmip_port', {})
        port_id = port.get('id') or ''
        if claim.port_id == port_id:
            # given back, and asked for again in the same transaction
            claims.keep(self.context, self.subnet_id, claim.address)
            return
        claims.note(self.context, self.subnet_id, claim.address, port_id)
        try:
            shared.inventory().hand_over(
                self.subnet_id, claim.address, claim.port_id, port_id,
                _mac(port.get('mac_address')), _is_served(port))
        except exceptions.ClaimLost as exc:
            # The other try was undone after we had met its claim. Neutron
            # begins anew, and finds what is reserved again.
            raise db_exc.RetryRequest(n_exc.ServiceUnavailable()) from exc
        except exceptions.InventoryUnavailable as exc:
            raise shared.InventoryAway() from exc

    def _claim(self, request: ipam_req.AddressRequest,
               given: types.Address | None, skip: list[types.Address],
               ) -> records.Claim | None:
        """Claim an address, and look on the wire where that is needed first.

        :param skip: grows by what answered there.
        """
        if not self._has_pool():
            return None
        silent: list[records.Address] = []
        try:
            for _ in range(MAX_LOOKS):
                try:
                    return self._claim_once(request, given, skip, silent)
                except exceptions.AddressReleasing as exc:
                    silent = self._silent(exc.held)
                    if given is not None and not silent:
                        raise IpAddressAlreadyAllocated(
                            subnet_id=self.subnet_id, ip=given) from exc
                    skip += [held.address for held in exc.held
                             if held not in silent]
            # others take them as fast as we look at them
            raise exceptions.PoolExhausted('No free address is left')
        except exceptions.PoolExhausted as exc:
            LOG.warning('%s', exc)
            raise ipam_exc.IpAddressGenerationFailure(
                subnet_id=self.subnet_id) from exc
        except exceptions.AddressInUse as exc:
            raise ipam_exc.IpAddressAlreadyAllocated(
                subnet_id=self.subnet_id, ip=given) from exc
        except exceptions.InventoryUnavailable as exc:
            LOG.error('No address for subnet %s: %s', self.subnet_id, exc)
            raise shared.InventoryAway() from exc

    def _claim_once(self, request: ipam_req.AddressRequest,
                    given: types.Address | None,
                    skip: list[types.Address],
                    silent: list[records.Address]) -> records.Claim | None:
        port = getattr(request, 'vmip_port', {})
        requester = getattr(
            request, 'vmip_requester',
            records.Requester('', self.context.project_id or ''))
        return shared.inventory().claim(
            subnet_id=self.subnet_id, requester=requester,
            port_id=port.get('id') or '', mac=_mac(port.get('mac_address')),
            server_id=_server_id(port), address=given, skip=skip,
            serve=_is_served(port), silent=silent)

    def _silent(self, found: list[records.Address],
                ) -> list[records.Address]:
        """Return those of the addresses at which nobody answers any more."""
        answers = shared.probe([held.address for held in found])
        silent = []
        for held in found:
            answer = answers.get(held.address)
            if answer:
                LOG.warning('%s still answers on the wire: it goes to nobody',
                            held.address)
                shared.inventory().note_answered(held, clock.now())
            elif answer is False or held.answered_at is None:
                silent.append(held)
        return silent


class VmipSubnetGroup(subnet_alloc.IpamSubnetGroup):
    """Subnets of a network any of which will do."""

    def __init__(self, pool: 'VmipPool', subnet_ids: list[str]) -> None:
        super().__init__(pool, subnet_ids)
        self._pool = pool
        self._ids = subnet_ids

    def allocate(self, address_request: ipam_req.AddressRequest
                 ) -> tuple[str, str]:
        # Neutron takes the first that has an address left; what was reserved
        # may be in another.
        requester = getattr(address_request, 'vmip_requester', None)
        ids = self._ids
        if (len(ids) > 1 and requester is not None
                and any(shared.inventory().may_have_pool(subnet_id=id)
                        for id in ids)):
            try:
                reserved = shared.inventory().reserved_subnets(
                    requester, _server_id(address_request.vmip_port))
            except exceptions.InventoryUnavailable:
                # whether that matters is said where the address is claimed
                reserved = set()
            ids = sorted(ids, key=lambda id: id not in reserved)
        address, subnet_id = subnet_alloc.IpamSubnetGroup(
            self._pool, ids).allocate(address_request)
        return address, subnet_id


class VmipPool(internal.NeutronDbPool):
    """The driver: ``[DEFAULT] ipam_driver = vmip`` in neutron.conf."""

    def __init__(self, subnetpool: Any, context: Any) -> None:
        super().__init__(subnetpool, context)
        self.context = context

    def get_subnet(self, subnet_id: str) -> VmipSubnet:
        return VmipSubnet.load(subnet_id, self.context)

    def get_allocator(self, subnet_ids: list[str]) -> VmipSubnetGroup:
        return VmipSubnetGroup(self, subnet_ids)

    def get_address_request_factory(self) -> type[AddressRequestFactory]:
        return AddressRequestFactory

    def needs_rollback(self) -> bool:
        # Claims undo themselves, also where Neutron would not ask for it and
        # where it would ask with a session that is beyond use.
        return False


def _is_served(port: dict[str, Any]) -> bool:
    owner = port.get('device_owner') or ''
    return _mac(port.get('mac_address')) is not None and not owner.startswith(
        constants.DEVICE_OWNER_NETWORK_PREFIX)


def _server_id(port: dict[str, Any]) -> str | None:
    # While Nova creates a port its owner is still empty.
    owner = port.get('device_owner') or constants.DEVICE_OWNER_COMPUTE_PREFIX
    if not owner.startswith(constants.DEVICE_OWNER_COMPUTE_PREFIX):
        return None
    try:
        return types.parse_uuid(port.get('device_id') or '')
    except ValueError:
        return None


def _mac(text: Any) -> str | None:
    # It is no Ethernet address where the port was not told, or is Infiniband.
    try:
        return types.parse_mac(str(text))
    except ValueError:
        return None
