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

"""Sends the frames given in hexadecimal on an interface.

The first argument is the interface's name.
"""

import sys

from vmip_plugin.agent import link

if __name__ == '__main__':
    with link.Link(sys.argv[1], link.NOTHING) as opened:
        for text in sys.argv[2:]:
            opened.send(bytes.fromhex(text))
