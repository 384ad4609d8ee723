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

"""Prints a line for each DHCP frame that comes in by an interface.

Type, VLAN id, Ethernet and IP source, client's MAC. The argument is the
interface's name.
"""

import sys

from vmip_plugin.agent import frames
from vmip_plugin.agent import link
from vmip_plugin.dhcp import packet

if __name__ == '__main__':
    with link.Link(sys.argv[1], link.DHCP_FILTER, promiscuous=True) as opened:
        print('ready', flush=True)
        while True:
            got = opened.receive()
            if got is None:
                continue
            datagram = frames.parse_datagram(*got)
            message = packet.parse(datagram.payload)
            print(message.message_type.name, datagram.vlan, datagram.source,
                  datagram.source_ip, message.chaddr, flush=True)
