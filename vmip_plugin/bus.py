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

"""The message bus of the cloud, as oslo.messaging's options name it."""

from collections.abc import Callable
from typing import Any

from oslo_config import cfg
import oslo_messaging

from vmip_plugin import exceptions

NO_BROKER = 'rabbit://'


def rpc_transport(conf: cfg.ConfigOpts) -> Any:
    """Return the transport for calls between the services.

    Nothing is connected yet.

    :raises ConfigError: transport_url makes no sense.
    """
    return _transport(oslo_messaging.get_rpc_transport, conf)


def is_named(conf: cfg.ConfigOpts) -> bool:
    """Tell whether transport_url, once it was looked at, names a broker.

    oslo.messaging's default names none.
    """
    return bool(conf.transport_url != NO_BROKER)


def notification_transport(conf: cfg.ConfigOpts) -> Any:
    """Return the transport of the notifications.

    :raises ConfigError: as for :func:`rpc_transport`.
    """
    return _transport(oslo_messaging.get_notification_transport, conf)


def _transport(get: Callable[[cfg.ConfigOpts], Any],
               conf: cfg.ConfigOpts) -> Any:
    try:
        return get(conf)
    except (oslo_messaging.MessagingException, cfg.Error) as exc:
        raise exceptions.ConfigError(f'transport_url: {exc}') from exc
    except ValueError:
        # its text may be a part of a password
        raise exceptions.ConfigError(
            'transport_url cannot be parsed: special characters in its '
            'password have to be percent-encoded') from None
