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

"""Makes Nova's databases and its cells; runs with the venv's Python.

As nova-manage would, but loading Nova once instead of five times.
Usage: nova_db.py CELL0_URL CELL1_URL TRANSPORT_URL CONFIG_FILE...
"""

import sys

from nova.cmd import manage
from nova import config
from nova import objects


def main() -> int:
    cell0, cell1, transport, *files = sys.argv[1:]
    config.parse_args(
        ['nova-manage', *(f'--config-file={path}' for path in files)])
    objects.register_all()
    cells = manage.CellV2Commands()
    return (manage.ApiDbCommands().sync()
            or cells.map_cell0(cell0)
            or cells.create_cell('cell1', cell1, transport)
            # Both cells': the files name cell1's, and cell0 is mapped.
            or manage.DbCommands().sync() or 0)


if __name__ == '__main__':
    sys.exit(main())
