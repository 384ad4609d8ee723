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

"""dnsmasq's control by D-Bus (``--enable-dbus``)."""

import jeepney
from jeepney.io import blocking

from vmip_plugin import exceptions
from vmip_plugin import types

#: the name that dnsmasq takes on the bus unless it is told another one
SERVICE = 'uk.org.thekelleys.dnsmasq'
_PATH = '/uk/org/thekelleys/dnsmasq'

_REMEDIES = {
    'org.freedesktop.DBus.Error.AccessDenied':
        'let this user send to it in the policy of the bus',
    'org.freedesktop.DBus.Error.ServiceUnknown':
        'start dnsmasq with --enable-dbus, or set dbus_service to the name '
        'that it has there',
    'org.freedesktop.DBus.Error.UnknownMethod':
        'use dnsmasq 2.81 or newer, built with DHCP and D-Bus',
}


class Bus:
    """The dnsmasq of one name on a bus; a connection for each call.

    :param name: the server's name in the configuration.
    :param address: of the bus; ``SYSTEM``: the system's.
    :param timeout: longest time in seconds for a call.
    """

    def __init__(self, name: str, service: str, address: str, timeout: float,
                 ) -> None:
        self._name = name
        self._service = service
        self._address = address
        self._timeout = timeout

    def delete_lease(self, address: types.Address) -> bool:
        """End a lease; False if there was none.

        :raises DHCPServerUnavailable: it is not known to be ended.
        """
        return bool(self._call('DeleteDhcpLease', str(address)))

    def version(self) -> str:
        """Return dnsmasq's version.

        :raises DHCPServerUnavailable: it does not answer.
        """
        return str(self._call('GetVersion'))

    def _call(self, method: str, *args: str) -> object:
        to = jeepney.DBusAddress(_PATH, self._service, self._service)
        message = jeepney.new_method_call(to, method, 's' * len(args), args)
        try:
            with blocking.open_dbus_connection(
                    self._address, auth_timeout=self._timeout) as connection:
                reply = connection.send_and_get_reply(
                    message, timeout=self._timeout)
        except (OSError, ValueError, RuntimeError) as exc:
            raise self._unavailable(
                f'{exc or type(exc).__name__}: start the bus, or set '
                'dbus_address to its address') from exc
        if reply.header.message_type is jeepney.MessageType.error:
            error = reply.header.fields[jeepney.HeaderFields.error_name]
            raise self._unavailable(f'{error}: ' + _REMEDIES.get(
                error, 'look at the logs of dnsmasq and of the bus'))
        return reply.body[0]

    def _unavailable(self, text: str) -> exceptions.DHCPServerUnavailable:
        return exceptions.DHCPServerUnavailable(
            f'dnsmasq {self._name}: {self._service} on the bus '
            f'{self._address}: {text}.')
