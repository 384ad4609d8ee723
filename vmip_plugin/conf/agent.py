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

"""[agent]: vmip-agent."""

from collections.abc import Sequence

from oslo_config import cfg

GROUP = 'agent'

OPTS = [
    cfg.ListOpt(
        'interfaces', default=[],
        help='Bridges or other interfaces on which DHCP is overheard and '
             'from which probes and releases are sent. On a bridge, name the '
             'bridge itself: a single port of it does not see what the '
             'server answers to the others. NAMESPACE/INTERFACE is one in '
             'the network namespace of that name; it needs CAP_SYS_ADMIN.'),
    cfg.StrOpt(
        'store', default='/var/lib/vmip/agent.sqlite',
        help='The file in which the agent keeps the leases it overheard.'),
    cfg.IntOpt(
        'store_limit', default=200000, min=1,
        help='Most leases kept; past that the one not seen for longest goes.'),
    cfg.IntOpt(
        'sweep_interval', default=30, min=1,
        help='Seconds between two sweeps that probe every lease.'),
    cfg.IntOpt(
        'probe_count', default=3, min=1,
        help='Unicast probes sent before a guest counts as silent.'),
    cfg.FloatOpt(
        'probe_timeout', default=0.3, min=0.01,
        help='Seconds waited for the answer to each probe.'),
    cfg.IntOpt(
        'confirm_delay', default=10, min=1,
        help='Least seconds between the first time that Nova and Neutron '
             'say a guest is gone and the second; only then a lease is '
             'released.'),
    cfg.IntOpt(
        'max_releases', default=100, min=1,
        help='Most leases released in one sweep.'),
    cfg.BoolOpt(
        'dry_run', default=False,
        help='Log what would be released, and release nothing.'),
    cfg.BoolOpt(
        'reclaim_shutoff', default=False,
        help='Take a server that is shut off as gone. Its lease is released, '
             'its address stays its own.'),
    cfg.StrOpt(
        'source', default='guest', choices=['guest', 'agent'],
        help='Source address of a DHCPRELEASE: the guest\'s own, and if that '
             'does not help the one that the agent\'s interface has; or '
             'always the latter, where a spoofed source cannot reach the '
             'server.'),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    return [(GROUP, OPTS)]
