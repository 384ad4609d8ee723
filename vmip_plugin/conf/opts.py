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
import contextlib
from importlib import metadata

from oslo_config import cfg

from vmip_plugin import conf
from vmip_plugin.conf import dhcp
from vmip_plugin.dhcp import manager


def list_opts() -> list[tuple[str, Sequence[cfg.Opt]]]:
    """Return (group, options) of every module of :mod:`vmip_plugin.conf`.

    Those of a DHCP driver are in a group as if a server had its name.
    """
    found = [entry for module in conf.GROUPS for entry in module.list_opts()]
    for point in sorted(metadata.entry_points(group=manager.NAMESPACE)):
        # one that lacks its extra is left out
        with contextlib.suppress(ImportError):
            found.append((dhcp.server_group(point.name), point.load().OPTS))
    return found
