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

"""[listener]: vmip-listener."""

from collections.abc import Sequence

from oslo_config import cfg

GROUP = 'listener'

OPTS = [
    cfg.ListOpt(
        'neutron_exchanges', default=['neutron'],
        help='Exchanges (Neutron\'s [DEFAULT] control_exchange) on which '
             'Neutron sends its notifications.'),
    cfg.ListOpt(
        'nova_exchanges', default=['nova'],
        help='Exchanges (Nova\'s [DEFAULT] control_exchange) on which Nova '
             'sends its notifications.'),
    cfg.ListOpt(
        'topics', default=['notifications'],
        help='Topics of Neutron\'s and of Nova\'s unversioned notifications.'),
    cfg.ListOpt(
        'versioned_topics', default=['versioned_notifications'],
        help='Topics of Nova\'s versioned notifications.'),
    cfg.StrOpt(
        'pool', default='vmip',
        help='Notification pool. Listeners with the same pool share the '
             'messages among them; other consumers lose none.'),
    cfg.IntOpt(
        'batch_size', default=500, min=1,
        help='How many messages are handled in one go where so many wait. '
             'Twice as many are taken from the broker in advance.'),
    cfg.FloatOpt(
        'batch_timeout', default=0.01, min=0.001,
        help='Longest time in seconds that a message waits for others to be '
             'handled with it, while there is nothing else to do.'),
    cfg.StrOpt(
        'poison_dir', default='/var/lib/vmip/poison',
        help='Folder in which notifications are kept that could not be '
             'handled, a JSON file each, only for this process\'s user to '
             'read.'),
    cfg.IntOpt(
        'poison_limit', default=1000, min=0,
        help='Most notifications kept there; past that the oldest goes. '
             '0: none is kept.'),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    return [(GROUP, OPTS)]
