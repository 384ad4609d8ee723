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

"""Points of the message bus: the broker, our queue, the agents."""

from collections.abc import Iterator
import contextlib
from typing import Any

import kombu
from kombu import exceptions as kombu_exc
from oslo_config import cfg
import oslo_messaging

from vmip_plugin.cmd.manage import agents
from vmip_plugin.cmd.manage.doctor import point
from vmip_plugin.dhcp import manager
from vmip_plugin.dhcp import remote
from vmip_plugin import exceptions
from vmip_plugin.notifications import listener

Finding = point.Finding

#: Batches of the listener that may wait until that is told.
BATCHES = 20
#: The same in a queue that nobody reads, in messages.
UNREAD = 10000

#: AMQP 0-9-1, 1.2: a queue that is not there
_NOT_FOUND = 404


def broker(context: point.Context) -> Iterator[Finding]:
    found = _connections(context)
    errors = {}
    for name, connection in found.items():
        try:
            with connection:
                connection.connect()
        except _errors(connection) as exc:
            errors[name] = str(exc) or type(exc).__name__
    for name in found:
        if name not in errors:
            yield Finding.ok(name)
        # one of several is enough
        elif len(errors) < len(found):
            yield Finding.warning(name, errors[name])
        else:
            yield Finding.fail(name, errors[name])


def queues(context: point.Context) -> Iterator[Finding]:
    options = context.conf.listener
    with _connected(context) as connection:
        own = _queue(connection, options.pool)
        if own is None:
            yield Finding.fail(
                options.pool, 'vmip-listener\'s queue is not there',
                'start vmip-listener')
        elif not own.consumer_count:
            yield Finding.fail(
                options.pool, f'no vmip-listener reads it; '
                f'{own.message_count} messages wait', 'start vmip-listener')
        elif own.message_count > BATCHES * options.batch_size:
            yield Finding.warning(
                options.pool, f'{own.message_count} messages wait',
                'see the log of vmip-listener; start another one, on any '
                'host that reaches the DHCP servers')
        else:
            yield Finding.ok(
                options.pool, f'{own.consumer_count} read it, '
                f'{own.message_count} messages wait')
        for topic in {*options.topics, *options.versioned_topics}:
            name = f'{topic}.info'
            other = _queue(connection, name)
            if (other and not other.consumer_count
                    and other.message_count > UNREAD):
                yield Finding.warning(
                    name, f'nobody reads it, and it has '
                    f'{other.message_count} messages',
                    'set a TTL policy for it on the broker')


def hosts(context: point.Context) -> Iterator[Finding]:
    client = agents.client(context.app)
    if client is None:
        raise point.NotChecked('no transport_url is set')
    conf = context.conf
    needed = {driver.options.host
              for driver in manager.load_drivers(conf).values()
              if isinstance(driver, remote.RemoteDriver)}
    found = agents.within(context.options.timeout, client.hosts)
    if isinstance(found, Exception):
        yield Finding.fail('', f'they cannot be asked: {found}')
        return
    for host in found:
        yield Finding.ok(host)
    for host in sorted(needed - set(found)):
        yield Finding.fail(host, 'it does not answer; a server of [dhcp] '
                           'servers with the driver remote needs it')
    if not found and not needed:
        # where no interface is named, there may be none on purpose
        yield (Finding.fail if conf.agent.interfaces else Finding.warning)(
            '', 'no vmip-agent answers: a dead guest\'s lease stays until it '
            'runs out')


def transport_url(conf: cfg.ConfigOpts) -> oslo_messaging.TransportURL:
    """Return where the notifications come from.

    :raises ConfigError: that makes no sense.
    """
    # registers the options of oslo.messaging, and has looked at the URL
    listener.get_transport(conf)
    return oslo_messaging.TransportURL.parse(
        conf, conf.oslo_messaging_notifications.transport_url
        or conf.transport_url)


def _connections(context: point.Context) -> dict[str, Any]:
    """Return a connection to each broker, not yet opened.

    :raises NotChecked: it is no RabbitMQ.
    """
    conf = context.conf
    url = transport_url(conf)
    if url.transport not in ('rabbit', 'amqp', 'kombu'):
        raise point.NotChecked(f'{url.transport} is no RabbitMQ')
    if not url.hosts:
        raise exceptions.ConfigError('no transport_url is set')
    rabbit = conf.oslo_messaging_rabbit
    tls: Any = False
    if rabbit.ssl:
        files = {'ca_certs': rabbit.ssl_ca_file,
                 'certfile': rabbit.ssl_cert_file,
                 'keyfile': rabbit.ssl_key_file}
        tls = {key: path for key, path in files.items() if path} or True
    return {f'{host.hostname}:{host.port or 5672}': kombu.Connection(
        hostname=host.hostname, port=host.port or 5672, transport='pyamqp',
        userid=host.username, password=host.password,
        virtual_host=url.virtual_host or '/', ssl=tls,
        login_method=rabbit.rabbit_login_method,
        connect_timeout=context.options.timeout / (3 * len(url.hosts)))
        for host in url.hosts}


@contextlib.contextmanager
def _connected(context: point.Context) -> Iterator[Any]:
    """Give a connection to the first broker that takes one."""
    for connection in _connections(context).values():
        with connection:
            try:
                connection.connect()
            except _errors(connection):
                continue
            yield connection
            return
    raise exceptions.ConfigError('no broker takes a connection')


def _errors(connection: Any) -> tuple[type[Exception], ...]:
    # a login that is refused counts as the channel's
    return (OSError, kombu_exc.OperationalError,
            *connection.connection_errors, *connection.channel_errors)


def _queue(connection: Any, name: str) -> Any:
    """Return how a queue stands, None where there is none."""
    # the broker closes the channel where there is none
    channel = connection.channel()
    try:
        return channel.queue_declare(name, passive=True)
    except connection.channel_errors as exc:
        if getattr(exc, 'reply_code', None) == _NOT_FOUND:
            return None
        raise exceptions.VmipError(f'queue {name}: {exc}') from exc
    finally:
        with contextlib.suppress(*connection.channel_errors,
                                 *connection.connection_errors):
            channel.close()


POINTS = (
    point.Point(
        'bus', broker, 'start the broker, or set transport_url to the one '
        'of Nova and Neutron', ('configuration',)),
    point.Point('listener', queues, 'see the log of the broker', ('bus',)),
    point.Point(
        'agents', hosts, 'start vmip-agent there, with the same '
        'transport_url', ('bus', 'plugins')),
)
