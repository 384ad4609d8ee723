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

"""Points of the cloud: Nova's and Neutron's files, and what they answer."""

from collections.abc import Iterator, Sequence
import itertools
import os
import uuid

from oslo_config import cfg
import oslo_messaging

from vmip_plugin import bus as vmip_bus
from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.cmd.manage.doctor import bus
from vmip_plugin.cmd.manage.doctor import point
from vmip_plugin.cmd.manage import paste
from vmip_plugin import exceptions
from vmip_plugin.inventory import ranges as vmip_ranges
from vmip_plugin.inventory import records

Finding = point.Finding
Sections = point.Sections

#: of which Nova and Neutron are asked, to see that they answer
_NOBODY = str(uuid.UUID(int=0))
_NOTIFICATIONS = 'oslo_messaging_notifications'


def paste_file(context: point.Context) -> Iterator[Finding]:
    path = context.options.paste_file
    try:
        with open(path, encoding='utf-8', errors='surrogateescape',
                  newline='') as opened:
            text = opened.read()
    except OSError as exc:
        raise point.NotChecked(f'{path}: {exc.strerror}') from exc
    enable = f'vmip-manage enable {path}'
    try:
        file = paste.PasteFile(text)
        right = file.enabled(os.path.abspath(context.config_file)) == text
    except exceptions.ConfigError as exc:
        yield Finding.fail(path, str(exc),
                           f'do what the finding says, then {enable}')
        return
    without = [str(pipeline) for pipeline in file.pipelines
               if paste.FILTER not in pipeline.words]
    if right:
        yield Finding.ok(path, ', '.join(map(str, file.pipelines)))
    elif without:
        yield Finding.fail(
            path, f'the filter is not in {", ".join(without)}',
            f'{enable}, then restart nova-api')
    else:
        yield Finding.fail(
            path, f'the filter is in the pipelines and there is no '
            f'[filter:{paste.FILTER}]', f'{enable}, then restart nova-api')


def neutron_files(context: point.Context) -> Iterator[Finding]:
    neutron, ml2 = context.options.neutron_conf, context.options.ml2_conf
    sections = point.read_with_folder(neutron)
    driver = _last(sections, 'DEFAULT', 'ipam_driver', 'internal')
    if driver != 'vmip':
        yield Finding.fail(
            neutron, f'[DEFAULT] ipam_driver is {driver}',
            f'set ipam_driver = vmip in {neutron}, then restart '
            f'neutron-server')
    elif 'vmip' not in _list(_last(
            sections, 'DEFAULT', 'service_plugins', '')):
        yield Finding.warning(
            neutron, 'vmip is not among the service plugins: a Neutron that '
            'cannot use vmip.conf starts all the same, and refuses every port',
            f'add vmip to [DEFAULT] service_plugins in {neutron}, then '
            f'restart neutron-server')
    else:
        yield Finding.ok(neutron)
    # as neutron-server reads both, the later one wins
    drivers = _list(_last(
        point.read(ml2), 'ml2', 'mechanism_drivers',
        _last(sections, 'ml2', 'mechanism_drivers', '')))
    if 'vmip' not in drivers:
        yield Finding.ok(ml2, 'best effort: vmip is not among the mechanism '
                              'drivers')
    elif driver != 'vmip':
        yield Finding.fail(
            ml2, 'the mechanism driver vmip needs ipam_driver = vmip',
            f'set ipam_driver = vmip in {neutron}, or take vmip out of [ml2] '
            f'mechanism_drivers')
    elif drivers[-1] != 'vmip':
        yield Finding.warning(
            ml2, 'strict mode, but vmip is not the last mechanism driver',
            'put vmip behind the others in [ml2] mechanism_drivers')
    else:
        yield Finding.ok(ml2, 'strict mode')


def notifications(context: point.Context) -> Iterator[Finding]:
    ours = context.conf.listener
    for name, path, exchanges in (
            ('nova', context.options.nova_conf, ours.nova_exchanges),
            ('neutron', context.options.neutron_conf,
             ours.neutron_exchanges)):
        try:
            sections = point.read_with_folder(path)
        except point.NotChecked as exc:
            yield Finding(point.Level.NOT_CHECKED, path, str(exc))
            continue
        complaints = list(_told(name, sections, path, exchanges,
                                context.conf))
        yield from complaints or [Finding.ok(path)]


def _told(name: str, sections: Sections, path: str, exchanges: Sequence[str],
          conf: cfg.ConfigOpts) -> Iterator[Finding]:
    """Yield why vmip-listener does not hear what a service tells."""
    restart = f'then restart the services of {name}'
    drivers = sections.get(_NOTIFICATIONS, {}).get('driver', [])
    if not {'messagingv2', 'messaging'} & set(drivers):
        yield Finding.fail(
            path, f'no notification is sent: [{_NOTIFICATIONS}] driver is '
            f'{", ".join(drivers) or "not set"}',
            f'set driver = messagingv2 there, {restart}')
    exchange = _last(sections, 'DEFAULT', 'control_exchange', name)
    if exchange not in exchanges:
        yield Finding.fail(
            path, f'[DEFAULT] control_exchange is {exchange}, which '
            f'[listener] {name}_exchanges does not name',
            'add it there, then restart vmip-listener')
    topics = _list(_last(sections, _NOTIFICATIONS, 'topics', 'notifications'))
    heard = set(topics) & set(conf.listener.topics)
    if name == 'nova':
        form = _last(sections, 'notifications', 'notification_format',
                     'unversioned')
        versioned = _list(_last(
            sections, 'notifications', 'versioned_notifications_topics',
            'versioned_notifications'))
        if form == 'versioned':
            heard = set()
        if form != 'unversioned':
            heard |= set(versioned) & set(conf.listener.versioned_topics)
        topics = {'unversioned': topics, 'versioned': versioned}.get(
            form, topics + versioned)
    if not heard:
        yield Finding.fail(
            path, f'notifications go to {", ".join(topics)}, of which '
            f'[listener] topics and versioned_topics name none',
            'add one there, then restart vmip-listener')
    yield from _same_broker(sections, path, conf)


def _same_broker(sections: Sections, path: str, conf: cfg.ConfigOpts,
                 ) -> Iterator[Finding]:
    theirs = (_last(sections, _NOTIFICATIONS, 'transport_url', '')
              or _last(sections, 'DEFAULT', 'transport_url', ''))
    try:
        own = bus.transport_url(conf)
    except exceptions.ConfigError:
        return      # the point "bus" tells it
    try:
        vmip_bus.check_url(path, theirs)
        url = oslo_messaging.TransportURL.parse(conf, theirs or 'rabbit:')
    except (exceptions.ConfigError, oslo_messaging.MessagingException,
            ValueError):
        return      # the service itself tells it
    where = [_brokers(found) for found in (url, own)]
    if theirs and not where[0] & where[1]:
        names = [', '.join(sorted(found)) or 'none' for found in where]
        yield Finding.warning(
            path, f'the message bus there is {names[0]}, in vmip.conf '
            f'{names[1]}', 'set transport_url in vmip.conf to the one of '
            'Nova and Neutron, unless both are names of one bus')


def _brokers(url: oslo_messaging.TransportURL) -> set[str]:
    """Return host, port and virtual host of each broker of a URL."""
    virtual_host = (url.virtual_host or '').lstrip('/')
    return {f'{host.hostname}:{host.port or 5672}/{virtual_host}'
            for host in url.hosts}


def keystone(context: point.Context) -> Iterator[Finding]:
    if context.cloud().sees_all_projects():
        yield Finding.ok('', 'the user of [cloud] has the role admin')
    else:
        yield Finding.fail(
            '', 'the user of [cloud] does not have the role admin: what '
            'others own looks deleted to it, so that nothing is taken back',
            'openstack role add --user USER --project PROJECT admin')


def nova(context: point.Context) -> Iterator[Finding]:
    context.cloud().server_status(_NOBODY)
    yield Finding.ok()


def neutron(context: point.Context) -> Iterator[Finding]:
    context.cloud().port(_NOBODY)
    yield Finding.ok()


def subnets(context: point.Context) -> Iterator[Finding]:
    found = [pool for pool, _ in context.inventory.pools()]
    if not found:
        raise point.NotChecked('there is no pool')
    cloud = context.cloud()
    for pool in found:
        complaints = list(_subnet(pool, cloud.subnet(pool.subnet_id)))
        yield from complaints or [Finding.ok(pool.name)]


def _subnet(pool: records.Pool, subnet: vmip_cloud.Subnet | None,
            ) -> Iterator[Finding]:
    if subnet is None:
        yield Finding.fail(
            pool.name, f'Neutron has no subnet {pool.subnet_id}',
            f'vmip-manage pool delete {pool.name}')
        return
    if (subnet.network_id, subnet.cidr) != (pool.network_id, pool.cidr):
        yield Finding.fail(
            pool.name, f'subnet {subnet.id} is {subnet.cidr} of network '
            f'{subnet.network_id}, the pool is for {pool.cidr} of '
            f'{pool.network_id}', 'make the pool anew: "vmip-manage pool '
            'delete", then "vmip-manage pool create"')
        return
    if subnet.enable_dhcp:
        yield Finding.fail(
            pool.name, 'the subnet has enable_dhcp=True, so that Neutron\'s '
            'own DHCP may answer the guests, too',
            f'openstack subnet set --no-dhcp {subnet.id}')
    within = vmip_ranges.Ranges(pool.ranges)
    if subnet.gateway and within.position(subnet.gateway) is not None:
        yield Finding.fail(
            pool.name, f'the subnet\'s gateway {subnet.gateway} is in its '
            f'ranges', f'vmip-manage pool set {pool.name} --exclude '
            f'{subnet.gateway}')
        within = within.without([(subnet.gateway, subnet.gateway)])
    outside = within.without(subnet.ranges).runs
    if outside:
        runs = ', '.join(f'{first}-{last}'
                         for first, last in itertools.islice(outside, 3))
        yield Finding.warning(
            pool.name, f'{runs}{", ..." if len(outside) > 3 else ""} is in '
            f'none of the subnet\'s allocation pools: it may be meant for '
            f'something else', 'take it out with "vmip-manage pool set '
            '--range", or add it with "openstack subnet set '
            '--allocation-pool"')


def _last(sections: Sections, section: str, option: str, default: str) -> str:
    """Return the value that counts of an option that is given once."""
    return sections.get(section, {}).get(option, [default])[-1].strip()


def _list(text: str) -> list[str]:
    return [word.strip() for word in text.split(',') if word.strip()]


POINTS = (
    point.Point('nova-api', paste_file, 'vmip-manage enable',
                ('configuration',)),
    point.Point('neutron-server', neutron_files,
                'set [DEFAULT] ipam_driver = vmip in neutron.conf'),
    point.Point(
        'notifications', notifications, 'set [oslo_messaging_notifications] '
        'driver = messagingv2', ('configuration',)),
    point.Point(
        'keystone', keystone, 'mend [cloud], or see that Keystone answers at '
        'its auth_url', ('configuration',), cloud=True),
    point.Point(
        'nova', nova, 'see that nova-api runs and that the catalogue has '
        'its endpoint for [cloud] region_name and interface', ('keystone',),
        cloud=True),
    point.Point(
        'neutron', neutron, 'see that neutron-server runs and that the '
        'catalogue has its endpoint for [cloud] region_name and interface',
        ('keystone',), cloud=True),
    point.Point(
        'subnets', subnets, 'see "openstack subnet show"',
        ('schema', 'neutron'), cloud=True),
)
