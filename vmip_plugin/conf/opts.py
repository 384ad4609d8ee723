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

"""Every option, for oslo-config-generator."""

from collections.abc import Sequence

from oslo_config import cfg

from vmip_plugin import conf
from vmip_plugin.dhcp import dnsmasq


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """Return (group, options) of every module of :mod:`vmip_plugin.conf`."""
    found = [entry for module in conf.GROUPS for entry in module.list_opts()]
    found.append(('dhcp:NAME', dnsmasq.DnsmasqDriver.OPTS))
    return found
