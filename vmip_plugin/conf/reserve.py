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
    cfg.FloatOpt(
        'hook_timeout', default=30, min=0,
        help='Seconds that each hook has before Nova sees a request, and '
             'again when Nova has answered. 0: as long as it takes.'),
    cfg.StrOpt(
        'on_error', default='fail', choices=['fail', 'pass'],
        help='What a request meets when no address can be reserved, or '
             'another hook fails or takes too long: an error, or a pass '
             'without what that hook would have done. A hook that refuses a '
             'request, as when an address asked for is taken, refuses it in '
             'either case.'),
    cfg.IntOpt(
        'ttl', default=600, min=10,
        help='Seconds after which a reservation ends that no port claimed.'),
    cfg.IntOpt(
        'project_limit', default=100, min=0,
        help='Most addresses of a pool that a project may hold in advance: '
             'reserved by its requests, and not yet claimed by a port. '
             'Beyond that a request is not refused: its addresses are picked '
             'when Neutron makes the ports. 0: nothing is reserved in '
             'advance but what is reserved by hand.'),
    cfg.IntOpt(
        'project_share', default=50, min=1, max=100,
        help='The same as a share in percent of the addresses that the '
             'project finds free, rounded down; the smaller of both counts. '
             'With less than 100, requests alone never take the last free '
             'address of a pool from others.'),
    cfg.IntOpt(
        'network_cache_time', default=60, min=0,
        help='Seconds for which it is remembered which networks a project '
             'may use. Addresses are reserved in advance only there. Neutron '
             'is asked for them with the credentials in [cloud], which need '
             'the role admin; without credentials every network counts as '
             'one that the project may use, unless the client leaves the '
             'network to Nova. 0: Neutron is not asked, with the same '
             'effect.'),
    cfg.FloatOpt(
        'network_timeout', default=2, min=0.1,
        help='Seconds that each of these questions may take. Without an '
             'answer the request goes on without a reservation in advance, '
             'and Neutron is left alone for ten times as long.'),
    cfg.StrOpt(
        'address_metadata_key', default='',
        help='Key of a server\'s metadata in which a client may ask for '
             'addresses, separated by commas: one for each IP version and '
             'network interface. Who may is said by the policy rule '
             'vmip:request_address. Empty: nobody.'),
    cfg.StrOpt(
        'address_hint_key', default='',
        help='The same for a scheduler hint, which may also be a list.'),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    return [(GROUP, OPTS)]
