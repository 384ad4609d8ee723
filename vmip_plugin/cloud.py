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

from collections.abc import Iterator
import dataclasses
import threading
from typing import Any

from keystoneauth1 import exceptions as ksa_exc
from keystoneauth1 import loading
import openstack
from openstack import exceptions as sdk_exc
from oslo_config import cfg

from vmip_plugin import exceptions
from vmip_plugin import types
from vmip_plugin import version

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


class Cloud:
    """Nova and Neutron behind one keystoneauth session.

    :param conf: options with a group ``[cloud]``.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._lock = threading.Lock()
        self._connection: Any = None

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
            raise exceptions.CloudUnavailable(f'Neutron: {exc}') from exc

    def ports(self, **query: Any) -> Iterator[Port]:
        """Yield the ports that match, page by page.

        :param query: Neutron's own filters: ``network_id``, ``mac_address``,
            ``fixed_ips``, ``device_id``.
        :raises CloudUnavailable: also in the middle of the list; what was
            yielded till then is not all.
        """
        try:
            for port in self._ask().network.ports(**query):
                yield _port(port)
        except _UNUSABLE as exc:
            raise exceptions.CloudUnavailable(f'Neutron: {exc}') from exc

    def server_status(self, server_id: str) -> str | None:
        """Return a server's status (``ACTIVE``, ``SHUTOFF``, ...).

        None if Nova says that there is no such server.

        :raises CloudUnavailable: Nova gave no usable answer.
        """
        try:
            status = self._ask().compute.get_server(server_id).status
        except sdk_exc.NotFoundException as exc:
            _check_own(exc, 'Nova', 'itemNotFound')
            return None
        except _UNUSABLE as exc:
            raise exceptions.CloudUnavailable(f'Nova: {exc}') from exc
        if not isinstance(status, str):
            raise exceptions.CloudUnavailable('Nova: an answer without status')
        return status

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
            raise exceptions.CloudUnavailable(f'Neutron: {exc}') from exc

    def sees_all_projects(self) -> bool:
        """Tell whether what these credentials do not see is not there.

        To a user who sees only their own project, every port of another one
        looks deleted. Neutron's policy shows all of them to the role admin.

        :raises CloudUnavailable: Keystone gave no usable answer.
        """
        try:
            session = self._ask().session
            access = session.auth.get_access(session)
            return 'admin' in access.role_names
        except _UNUSABLE as exc:
            raise exceptions.CloudUnavailable(f'Keystone: {exc}') from exc

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
    raise exceptions.CloudUnavailable(
        f'{service}: 404 that is not its own: {exc}') from exc


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
