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

"""[database]: oslo.db's options, with SQLite as the default, and time-outs."""

from collections.abc import Sequence

from oslo_config import cfg
from oslo_db import options

GROUP = 'database'
DEFAULT_CONNECTION = 'sqlite:////var/lib/vmip/vmip.sqlite'

OPTS = [
    cfg.IntOpt(
        'connect_timeout', default=5, min=2,
        help='Seconds that a connect to MySQL, MariaDB or PostgreSQL may '
             'take. A value in the URL of the connection takes precedence.'),
    cfg.IntOpt(
        'statement_timeout', default=10, min=2,
        help='Seconds that MySQL, MariaDB or PostgreSQL may take to answer a '
             'statement of a request in nova-api or Neutron. Daemons and '
             'commands wait three times as long. A value in the URL of the '
             'connection takes precedence. After a time-out, requests that '
             'need the database fail at once until it answers again.'),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    options.set_defaults(conf, connection=DEFAULT_CONNECTION)
    conf.register_opts(OPTS, group=GROUP)


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    return [*options.list_opts(), (GROUP, OPTS)]
