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

"""[monitoring]: metrics and health of the daemons."""

from collections.abc import Sequence

from oslo_config import cfg

GROUP = 'monitoring'

OPTS = [
    cfg.IPOpt(
        'listen_address', default='127.0.0.1',
        help='Address on which the daemons answer GET /metrics, /live and '
             '/ready over HTTP. Nobody has to log in, and the answers name '
             'pools and DHCP servers: it should be a loopback address, or '
             'one that only the monitoring reaches.'),
    *(cfg.PortOpt(
        f'{name}_port', min=1,
        help=f'Port on which vmip-{name} answers there. Several of them on '
             'one host need a port each. Default: it does not answer.')
      for name in ('listener', 'reclaimer', 'agent')),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    return [(GROUP, OPTS)]
