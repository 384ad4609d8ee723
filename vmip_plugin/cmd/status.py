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

"""vmip-status: is everything ready for this version?"""

import sys

from oslo_upgradecheck import upgradecheck

from vmip_plugin import conf as vmip_conf
from vmip_plugin import exceptions
from vmip_plugin.inventory import api

Code = upgradecheck.Code


class Checks(upgradecheck.UpgradeCommands):
    """``vmip-status upgrade check``."""

    def _schema(self) -> upgradecheck.Result:
        try:
            database = api.Inventory(
                vmip_conf.load(vmip_conf.path()), 'vmip-status').database
            found, needed = database.revision(), database.head()
        except exceptions.VmipError as exc:
            return upgradecheck.Result(Code.FAILURE, str(exc))
        if found == needed:
            return upgradecheck.Result(Code.SUCCESS)
        return upgradecheck.Result(
            Code.FAILURE, f'The schema is {found or "none"}, {needed} is '
                          f'needed: run "vmip-manage db upgrade"')

    _upgrade_checks = (('Database schema', _schema),)


def main() -> int:
    """Run the checks: 0 well, 1 a warning, 2 a failure."""
    return int(upgradecheck.main(vmip_conf.new(), 'vmip', Checks()))


if __name__ == '__main__':
    sys.exit(main())
