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


"""Load the pipelines of an api-paste.ini as nova-api does, and show them.

A program of its own, as Nova's configuration is its process's.
"""

import json
import pathlib
import sys

from nova import config
from paste import deploy


def main(paste: str, nova_conf: str, *names: str) -> None:
    config.parse_args(['nova'], default_config_files=[nova_conf],
                      configure_db=False)
    found = []
    for name in names:
        app = deploy.loadapp(f'config:{pathlib.Path(paste).resolve()}', name)
        chain = []
        while app is not None:
            chain.append(type(app).__name__)
            inner = vars(app)
            app = next((inner[key] for key in ('application', '_app')
                        if key in inner), None)
        found.append(chain)
    print(json.dumps(found))


if __name__ == '__main__':
    main(*sys.argv[1:])
