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

"""[reclaimer]: vmip-reclaimer."""

from collections.abc import Sequence

from oslo_config import cfg

GROUP = 'reclaimer'

OPTS = [
    cfg.FloatOpt(
        'work_interval', default=2, min=0.1,
        help='Seconds between two looks for host entries and releases that '
             'still have to be done.'),
    cfg.FloatOpt(
        'check_interval', default=60, min=1,
        help='Seconds between two looks at what Nova has deleted since the '
             'last one, at what was missing then, and at what the DHCP '
             'servers have.'),
    cfg.FloatOpt(
        'full_interval', default=600, min=1,
        help='Seconds between two comparisons of the whole list with all '
             'ports of Neutron and all servers of Nova.'),
    cfg.IntOpt(
        'confirm_delay', default=30, min=1,
        help='Least seconds between the first time that Neutron does not '
             'know the port of an address and the second; only then it is '
             'taken for deleted. Also the least age of a reservation whose '
             'server Nova is asked about.'),
    cfg.IntOpt(
        'max_releases', default=100, min=1,
        help='Most addresses taken for deleted in one pass.'),
    cfg.BoolOpt(
        'dry_run', default=False,
        help='Only log what is found out by comparing: no address is '
             'released, no host entry that nobody wants is removed, none '
             'that a server lost is written, no history is forgotten. What '
             'the inventory was told goes on: pending host entries are '
             'written and removed, reservations and reuse delays end.'),
    cfg.StrOpt(
        'coordination_url', secret=True,
        help='Where several vmip-reclaimers agree which of them does the '
             'work: a URL of tooz, such as etcd3+http://HOST:2379 or '
             'mysql://USER:PASSWORD@HOST/DATABASE. Default: a lock in the '
             'database of [database] connection; where that is SQLite, in '
             'the folder "coordination" beside it.'),
    cfg.IntOpt(
        'history_days', default=90, min=0,
        help='Days for which the history of addresses is kept; 0: for ever. '
             'Who held an address at any moment of these days is told as '
             'before; of each address the one line that tells who had it at '
             'their beginning is kept for that, however old it is.'),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    return [(GROUP, OPTS)]
