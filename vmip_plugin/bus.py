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

from vmip_plugin.conf import urls
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
        # nothing is connected yet
        transport = get(conf)
        _check(conf)
        return transport
    except exceptions.ConfigError:
        raise
    except oslo_messaging.DriverLoadFailure as exc:
        raise exceptions.ConfigError(
            f'transport_url: no driver {exc.driver} can be loaded') from None
    except cfg.Error as exc:
        _check(conf)
        raise exceptions.ConfigError(f'transport_url: {exc}') from None
    except (oslo_messaging.MessagingException, ValueError):
        _check(conf)
        # their text may have a part of a password
        raise exceptions.ConfigError(
            'transport_url cannot be parsed: special characters in its '
            'password have to be percent-encoded, and a $ written $$'
        ) from None


def check_url(option: str, url: str | None) -> None:
    """Check a URL of oslo.messaging before it is parsed.

    :param option: its name, for the message.
    :raises ConfigError: it can be read in two ways.
    """
    # those of the drivers without a broker need no host
    if url and '@' in url:
        urls.check_transport(option, url)


def _check(conf: cfg.ConfigOpts) -> None:
    sections: list[tuple[str, Any]] = [('', conf)]
    if 'oslo_messaging_notifications' in conf:
        sections.append(('[oslo_messaging_notifications] ',
                         conf.oslo_messaging_notifications))
    for prefix, values in sections:
        option = f'{prefix}transport_url'
        try:
            url = values.transport_url
        except (cfg.TemplateSubstitutionError, cfg.NoSuchOptError):
            raise exceptions.ConfigError(
                f'{option}: oslo.config takes a $ for the beginning of '
                'another option\'s name: write $$ for a $') from None
        check_url(option, url)
