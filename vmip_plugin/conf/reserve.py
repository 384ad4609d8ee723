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

"""[reserve]: what happens when a create request arrives."""

from collections.abc import Sequence

from oslo_config import cfg

GROUP = 'reserve'

OPTS = [
    cfg.ListOpt(
        'hooks', default=['reserve'],
        help='Pre-create hooks in the order in which they run: plugins of '
             'the namespace vmip_plugin.hooks.'),
    cfg.StrOpt(
        'on_error', default='fail', choices=['fail', 'pass'],
        help='What a create request meets when no address can be reserved: '
             'an error, or a pass without a reservation.'),
    cfg.IntOpt(
        'ttl', default=600, min=10,
        help='Seconds after which a reservation ends that no port claimed.'),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    return [(GROUP, OPTS)]
