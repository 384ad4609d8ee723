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

"""[cloud]: how vmip speaks to Keystone, Neutron and Nova."""

from collections.abc import Sequence

from keystoneauth1 import loading
from oslo_config import cfg

GROUP = 'cloud'

OPTS = [
    cfg.StrOpt('region_name', help='Region whose Nova and Neutron are asked.'),
    cfg.StrOpt(
        'interface', default='internal',
        choices=['public', 'internal', 'admin'],
        help='Endpoint interface taken from the catalogue.'),
]


def _session_opts() -> list[cfg.Opt]:
    opts: list[cfg.Opt] = loading.get_session_conf_options()
    # Without one, an API that hangs would stop a daemon for good.
    cfg.set_defaults(opts, timeout=60)
    return opts


def register_opts(conf: cfg.ConfigOpts) -> None:
    conf.register_opts(OPTS, group=GROUP)
    loading.register_auth_conf_options(conf, GROUP)
    conf.register_opts(_session_opts(), group=GROUP)


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    auth = {opt.dest: opt for plugin in ('password', 'v3applicationcredential')
            for opt in loading.get_auth_plugin_conf_options(plugin)}
    return [(GROUP, [*OPTS, *loading.get_auth_common_conf_options(),
                          *auth.values(),
                          *_session_opts()])]
