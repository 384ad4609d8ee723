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

"""[dhcp] and a group [dhcp:NAME] for each server."""

from collections.abc import Sequence

from oslo_config import cfg

GROUP = 'dhcp'

OPTS = [
    cfg.ListOpt(
        'servers', default=[],
        help='Names of the DHCP servers that answer the guests. Each has a '
             'section [dhcp:NAME] with its driver and the options of that '
             'driver; a pool names the servers that answer in its subnet.'),
    cfg.IntOpt(
        'retry_min', default=1, min=1,
        help='Seconds until a failed write to a server is tried again; '
             'doubled after each further failure.'),
    cfg.IntOpt(
        'retry_max', default=300, min=1,
        help='Longest time in seconds between two tries.'),
    cfg.FloatOpt(
        'strict_timeout', default=20, min=0.1,
        help='Where Neutron has the mechanism driver vmip: longest time in '
             'seconds for which the create of a port waits until the DHCP '
             'servers of the pool have its host entry; then the create fails. '
             'It has to be shorter than what Nova, or a proxy in between, '
             'waits for Neutron. Another guest\'s lease that is in the way '
             'takes the [agent] confirm_delay to end.'),
    cfg.StrOpt(
        'strict_servers', default='all',
        choices=[
            ('all', 'each must have it: no guest can come to one that does '
                    'not know it, but none is made while one server is away'),
            ('any', 'one is enough, for pools whose servers all answer every '
                    'guest: the others are caught up later')],
        help='Which DHCP servers of the pool the create of a port waits for, '
             'where Neutron has the mechanism driver vmip.'),
]

SERVER_OPTS = [
    cfg.StrOpt(
        'driver', default='none',
        help='Driver of this server: a plugin of the namespace '
             'vmip_plugin.dhcp.'),
]


def server_group(name: str) -> str:
    """Return the section of one server."""
    return f'dhcp:{name}'


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)


def register_server(conf: cfg.ConfigOpts, name: str,
                    opts: Sequence[cfg.Opt] = ()) -> cfg.ConfigOpts.GroupAttr:
    """Register one server's section and return its values."""
    group = server_group(name)
    conf.register_opts(SERVER_OPTS, group=group)
    conf.register_opts(opts, group=group)
    return conf[group]


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    return [(GROUP, OPTS), (server_group('NAME'), SERVER_OPTS)]
