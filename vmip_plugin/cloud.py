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

"""The one place that asks Nova and Neutron.

Every answer is either certain or :class:`CloudUnavailable`: "not there" is
said only where the API itself said 404 or gave a complete list.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import dataclasses
import datetime
import operator
import threading
import time
from typing import Any
from typing import TypeVar

from keystoneauth1 import exceptions as ksa_exc
from keystoneauth1 import loading
import openstack
from openstack import exceptions as sdk_exc
from oslo_config import cfg

from vmip_plugin import exceptions
from vmip_plugin import metrics
from vmip_plugin import types
from vmip_plugin import version

T = TypeVar('T')

#: Ids in one question: a longer one would be no URL for some proxies.
_IDS = 50
#: Ports or servers in a page of a long list; Nova gives no more at a time.
PAGE = 1000
#: What makes a :class:`Port`: a list of them need not tell the rest.
_PORT_FIELDS = ('id', 'network_id', 'project_id', 'mac_address', 'fixed_ips',
                'device_id', 'device_owner', 'status')

#: Items of a page that are tried as its end, where the last ones are deleted
#: before the next page is asked for.
_MARKERS = 50
#: Seconds for which the answer about rights is used again where a wrong one
#: takes nothing from anybody.
_RIGHTS_AGE = 60.0

#: Servers in these states have no guest and will get none.
GONE = frozenset({'DELETED'})


@dataclasses.dataclass(frozen=True)
class Port:
    """A Neutron port, as far as vmip cares.

    :param addresses: (subnet id, address) of each fixed IP.
    :param device_id: UUID of the server, '' where there is none.
    """

    id: str
    network_id: str
    project_id: str
    mac: str
    addresses: tuple[tuple[str, types.Address], ...]
    device_id: str
    device_owner: str
    status: str

    @property
    def server_id(self) -> str | None:
        """The server that has the port, as far as can be told."""
        return types.server_of_port(self.device_id, self.device_owner)


@dataclasses.dataclass(frozen=True)
class Subnet:
    """A Neutron subnet.

    :param ranges: (first, last) of each allocation pool.
    """

    id: str
    name: str
    network_id: str
    cidr: str
    gateway: types.Address | None
    ranges: tuple[tuple[types.Address, types.Address], ...]
    enable_dhcp: bool


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that a project may use.

    :param auto: also for a server whose networks are ``auto``.
    """

    id: str
    auto: bool


class Cloud:
    """Nova and Neutron behind one keystoneauth session.

    :param conf: options with a group ``[cloud]``.
    :param timeout: longest time in seconds of a call, where that is less
        than ``[cloud] timeout``.
    """

    def __init__(self, conf: cfg.ConfigOpts,
                 timeout: float | None = None) -> None:
        self._conf = conf
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: Any = None
        self._sees_all_until = 0.0

    def port(self, port_id: str) -> Port | None:
        """Return a port, or None if Neutron says that there is none.

        :raises CloudUnavailable: Neutron gave no usable answer.
        """
        try:
            return _port(self._ask().network.get_port(port_id))
        except sdk_exc.NotFoundException as exc:
            _check_own(exc, 'Neutron', 'NeutronError')
            return None
        except _UNUSABLE as exc:
            raise _unusable('Neutron', exc) from exc

    def ports(self, **query: Any) -> Iterator[Port]:
        """Yield the ports that match, page by page.

        :param query: Neutron's own filters: ``id``, ``network_id``,
            ``mac_address``, ``fixed_ips``, ``device_id``.
        :raises CloudUnavailable: also in the middle of the list; what was
            yielded till then is not all.
        """
        try:
            for port in self._ask().network.ports(**query):
                yield _port(port)
        except _UNUSABLE as exc:
            raise _unusable('Neutron', exc) from exc

    def all_ports(self, network_id: str) -> Iterator[Port]:
        """Yield all ports of a network, by id, page by page.

        :raises CloudUnavailable: as :meth:`ports` does.
        """
        return self._pages(
            'network', 'ports', '/ports', _raw_port, network_id=network_id,
            sort_key='id', sort_dir='asc', fields=_PORT_FIELDS)

    def ports_with(self, network_id: str, addresses: Sequence[types.Address],
                   ) -> Iterator[Port]:
        """Yield the network's ports that have one of these addresses.

        :raises CloudUnavailable: as :meth:`ports` does.
        """
        for part in range(0, len(addresses), _IDS):
            yield from self.ports(network_id=network_id, fixed_ips=[
                f'ip_address={a}' for a in addresses[part:part + _IDS]])

    def these_ports(self, port_ids: Sequence[str]) -> list[Port]:
        """Return those of the ports that Neutron shows.

        That one is not among them proves nothing by itself: see
        :mod:`vmip_plugin.openstack.presence`.

        :raises CloudUnavailable: Neutron gave no usable answer.
        """
        return [port for part in range(0, len(port_ids), _IDS)
                for port in self.ports(id=list(port_ids[part:part + _IDS]))]

    def server_status(self, server_id: str) -> str | None:
        """Return a server's status (``ACTIVE``, ``SHUTOFF``, ...).

        None if Nova says that there is no such server.

        :raises QuestionFailed: Nova answered 500, as it does for each server
            of a cell that is down.
        :raises CloudUnavailable: Nova gave no usable answer.
        """
        try:
            status = self._ask().compute.get_server(server_id).status
        except sdk_exc.NotFoundException as exc:
            _check_own(exc, 'Nova', 'itemNotFound')
            return None
        except sdk_exc.HttpException as exc:
            if exc.status_code == 500:
                metrics.CLOUD_ERRORS.labels('nova').inc()
                raise exceptions.QuestionFailed(f'Nova: {exc}') from exc
            raise _unusable('Nova', exc) from exc
        except _UNUSABLE as exc:
            raise _unusable('Nova', exc) from exc
        if not isinstance(status, str):
            raise _unusable('Nova', 'an answer without status')
        return status

    def has_deleted(self, server_id: str) -> bool:
        """Tell whether Nova shows a server as one that it has deleted.

        It does so until the operator archives or purges it. Only an admin may
        use the filter (nova.api.openstack.compute.servers, ``deleted``).

        :raises CloudUnavailable: Nova gave no usable answer.
        """
        return any(found == server_id for found in self._pages(
            'compute', 'servers', '/servers', operator.itemgetter('id'),
            all_tenants='true', deleted='true', uuid=server_id))

    def all_servers(self) -> Iterator[str]:
        """Yield the ids of the servers that Nova lists.

        Creates that no host has yet come first; the rest is in the order of
        the ids, and one of the former may come again there. A cell that is
        down is left out: who is not in the list may still be there.

        :raises CloudUnavailable: also in the middle of the list.
        """
        return self._pages(
            'compute', 'servers', '/servers', operator.itemgetter('id'),
            all_tenants='true', sort_key='uuid', sort_dir='asc')

    def deleted_servers(self, since: datetime.datetime) -> Iterator[str]:
        """Yield the ids of the servers that were deleted since.

        Nova refuses the status to who is no admin; of "deleted" it would list
        the living ones instead. Without details: a single deleted server that
        has lost its flavor is an error 500 of the whole list of those.

        :raises CloudUnavailable: also in the middle of the list.
        """
        return self._pages(
            'compute', 'servers', '/servers', operator.itemgetter('id'),
            all_tenants='true', status='DELETED',
            **{'changes-since': since.isoformat()})

    def _pages(self, service: str, key: str, path: str,
               make: Callable[[Any], T], **query: Any) -> Iterator[T]:
        """Yield what a list has, of any length, page by page.

        The SDK's own objects would take most of the time.

        :param key: what has the items in each page.
        """
        last: list[str] = []
        repeated = False
        name = {'network': 'Neutron', 'compute': 'Nova'}[service]
        while True:
            try:
                page = self._page(service, key, path, last, query)
                made = [make(item) for item in page]
                ids = [item['id'] for item in page]
            except _UNUSABLE as exc:
                raise _unusable(name, exc) from exc
            # Behind an earlier item than the last one some come again.
            known = set(last)
            yield from (one for one, id in zip(made, ids, strict=True)
                        if id not in known)
            # A short page may be the service's own idea: an empty one is
            # the end.
            if not ids:
                return
            # a create may come once more, when it has become a server
            if known.issuperset(ids):
                if repeated or ids[-1] == last[-1]:
                    raise _unusable(
                        name, f'its list does not go on after {last[-1]}')
                repeated = True
            else:
                repeated = False
            last = ids

    def _page(self, service: str, key: str, path: str, last: Sequence[str],
              query: Mapping[str, Any]) -> list[Any]:
        """Return the page that comes after what the last one had.

        Neutron and Nova find a page by the last item before it, and answer
        404 or 400 where that was deleted meanwhile. Another one of the last
        page serves as well.
        """
        markers: list[str | None] = [*reversed(last[-_MARKERS:])] or [None]
        for number, marker in enumerate(markers, 1):
            response = getattr(self._ask(), service).get(path, params={
                **query, 'limit': PAGE,
                **({'marker': marker} if marker else {})})
            if (response.status_code not in (400, 404)
                    or number == len(markers)):
                break
        sdk_exc.raise_from_response(response)
        page: list[Any] = response.json()[key]
        return page

    def subnet(self, name_or_id: str) -> Subnet | None:
        """Return the one subnet of that id or name, or None.

        :raises CloudUnavailable: Neutron gave no usable answer.
        :raises VmipError: several subnets have that name.
        """
        try:
            found = self._ask().network.find_subnet(name_or_id)
            return None if found is None else _subnet(found)
        except sdk_exc.DuplicateResource as exc:
            raise exceptions.VmipError(
                f'Several subnets are called {name_or_id}: give the id'
            ) from exc
        except _UNUSABLE as exc:
            raise _unusable('Neutron', exc) from exc

    def has_network(self, network_id: str | None) -> bool:
        """Tell whether Neutron has a network; with None: any at all.

        :raises CloudUnavailable: Neutron gave no usable answer.
        """
        try:
            network = self._ask().network
            if network_id is None:
                return next(iter(network.networks(limit=1)), None) is not None
            return network.get_network(network_id) is not None
        except sdk_exc.NotFoundException as exc:
            _check_own(exc, 'Neutron', 'NeutronError')
            return False
        except _UNUSABLE as exc:
            raise _unusable('Neutron', exc) from exc

    def usable_networks(self, project_id: str) -> list[Network]:
        """Return the networks out of which Nova takes one by itself.

        They are what nova.network.neutron.API finds with the user's own
        token: the project's, and those that are shared with it.

        :raises CloudUnavailable: Neutron gave no usable answer, or these
            credentials do not show all of it.
        """
        if not self._saw_all_lately():
            raise exceptions.CloudUnavailable(
                'Nova and Neutron do not show everything to the [cloud] user')
        try:
            network = self._ask().network
            shared = {policy.object_id for policy in network.rbac_policies(
                object_type='network', action='access_as_shared',
                target_project_id=[project_id, '*'])}
            # with "auto" Nova passes over its own that are down
            found = {own.id: Network(own.id, bool(own.is_admin_state_up))
                     for own in network.networks(project_id=project_id)}
        except _UNUSABLE as exc:
            raise _unusable('Neutron', exc) from exc
        return list({**found, **{
            id: Network(id, auto=True) for id in shared}}.values())

    def sees_all_projects(self) -> bool:
        """Tell whether what these credentials do not see is not there.

        To a user who sees only their own project, everything of the others
        looks deleted. No name of a role tells that: a site's
        ``context_is_admin`` may be any. So both APIs are asked for something
        that their policies keep for those to whom they show everything:
        Nova's ``os_compute_api:servers:index:get_all_tenants``
        (nova/policies/servers.py: ``rule:context_is_admin``), and Neutron's
        ``get_network:provider:network_type`` (neutron/conf/policies/
        network.py: the same rule there), which a network is shown without.

        :raises CloudUnavailable: an API gave no usable answer.
        """
        return self._nova_shows_all() and self._neutron_shows_all()

    def _nova_shows_all(self) -> bool:
        try:
            response = self._ask().compute.get(
                '/servers', params={'all_tenants': 'true', 'limit': 1})
            if response.status_code == 403:
                return False
            sdk_exc.raise_from_response(response)
            return 'servers' in response.json()
        except _UNUSABLE as exc:
            raise _unusable('Nova', exc) from exc

    def _neutron_shows_all(self) -> bool:
        try:
            response = self._ask().network.get('/networks',
                                               params={'limit': 1})
            if response.status_code == 403:
                return False
            sdk_exc.raise_from_response(response)
            found = response.json()['networks']
            return bool(found) and 'provider:network_type' in found[0]
        except _UNUSABLE as exc:
            raise _unusable('Neutron', exc) from exc

    def _saw_all_lately(self) -> bool:
        if time.monotonic() >= self._sees_all_until:
            if not self.sees_all_projects():
                return False
            self._sees_all_until = time.monotonic() + _RIGHTS_AGE
        return True

    def renew(self) -> None:
        """Forget the token: the next question is asked with a new one.

        A token that is at hand tells of the roles of when it was made.

        :raises CloudUnavailable: [cloud] cannot be used.
        """
        self._ask().session.invalidate()

    def project_id(self) -> str:
        """Return the project of these credentials, '' where there is none.

        :raises CloudUnavailable: Keystone gave no usable answer.
        """
        try:
            return self._ask().session.get_project_id() or ''
        except _UNUSABLE as exc:
            raise _unusable('Keystone', exc) from exc

    def check_region(self) -> None:
        """See that the catalogue and [cloud] leave no choice of regions.

        Without a region, the first endpoint of the catalogue is taken,
        whosever it is.

        :raises ConfigError: several regions, and no ``[cloud] region_name``;
            or it names none of them.
        :raises CloudUnavailable: Keystone gave no usable answer.
        """
        options = self._conf.cloud
        try:
            session = self._ask().session
            catalog = session.auth.get_access(session).service_catalog
            found = {
                endpoint['region_id'] or endpoint['region']
                for kind in ('network', 'compute')
                for endpoints in catalog.get_endpoints(
                    service_type=kind, interface=options.interface).values()
                for endpoint in endpoints}
        except _UNUSABLE as exc:
            raise _unusable('Keystone', exc) from exc
        names = ', '.join(sorted(map(str, found)))
        if options.region_name is None and len(found) > 1:
            raise exceptions.ConfigError(
                f'The catalogue has the regions {names}: set [cloud] '
                'region_name to the one that this vmip serves')
        if options.region_name is not None and found and (
                options.region_name not in found):
            raise exceptions.ConfigError(
                f'[cloud] region_name is {options.region_name}, but the '
                f'catalogue has {names}')

    def _ask(self) -> Any:
        # Made at the first question, so that a daemon starts while Keystone
        # is still away.
        with self._lock:
            if self._connection is None:
                options = self._conf.cloud
                auth = loading.load_auth_from_conf_options(
                    self._conf, 'cloud')
                if auth is None:
                    raise exceptions.CloudUnavailable(
                        'no [cloud] auth_type is configured')
                session = loading.load_session_from_conf_options(
                    self._conf, 'cloud', auth=auth)
                if self._timeout is not None:
                    session.timeout = min(self._timeout,
                                          session.timeout or self._timeout)
                self._connection = openstack.connection.Connection(
                    session=session, region_name=options.region_name,
                    compute_api_version='2.1',
                    interface=options.interface,
                    app_name='vmip', app_version=version.version_string())
            return self._connection


# Whatever an SDK call can end with short of an answer. A body that is not
# what the API promises ends in one of the last four.
_UNUSABLE = (sdk_exc.SDKException, ksa_exc.ClientException, OSError,
             ValueError, KeyError, TypeError, AttributeError)


def _check_own(exc: sdk_exc.NotFoundException, service: str,
               fault: str) -> None:
    """Tell whether it was the API itself that said 404.

    A proxy says it too, and whoever is at a wrong address of the catalogue.

    :raises CloudUnavailable: it was not.
    """
    try:
        if fault in exc.response.json():
            return
    except _UNUSABLE:
        pass
    raise _unusable(service, f'404 that is not its own: {exc}') from exc


def _unusable(service: str, why: object) -> exceptions.CloudUnavailable:
    metrics.CLOUD_ERRORS.labels(service.lower()).inc()
    return exceptions.CloudUnavailable(f'{service}: {why}')


def _raw_port(port: Mapping[str, Any]) -> Port:
    return Port(
        id=port['id'], network_id=port['network_id'],
        project_id=port['project_id'] or '',
        mac=types.parse_mac(port['mac_address']),
        addresses=tuple((ip['subnet_id'], types.parse_address(
            ip['ip_address'])) for ip in port['fixed_ips']),
        device_id=port['device_id'] or '',
        device_owner=port['device_owner'] or '', status=port['status'] or '')


def _subnet(found: Any) -> Subnet:
    return Subnet(
        id=found.id, name=found.name, network_id=found.network_id,
        cidr=found.cidr,
        gateway=(types.parse_address(found.gateway_ip)
                 if found.gateway_ip else None),
        ranges=tuple((types.parse_address(pool['start']),
                      types.parse_address(pool['end']))
                     for pool in found.allocation_pools),
        enable_dhcp=bool(found.is_dhcp_enabled))


def _port(port: Any) -> Port:
    return Port(
        id=port.id, network_id=port.network_id,
        project_id=port.project_id or '',
        mac=types.parse_mac(port.mac_address),
        addresses=tuple((ip['subnet_id'], types.parse_address(
            ip['ip_address'])) for ip in port.fixed_ips),
        device_id=port.device_id or '', device_owner=port.device_owner or '',
        status=port.status or '')
