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

"""The driver of dnsmasq's ``--dhcp-hostsdir``.

=========  ===============================================================
driver     what the contract asks for, put together from the rest
line       the syntax of a host entry
folder     the files in the hostsdir: lock, index, what is owed
process    the running dnsmasq: its process id, SIGHUP, settings
lease      the lease file
bus        D-Bus, which ends a lease
doctor     what is wrong with a dnsmasq's settings
=========  ===============================================================
"""

from vmip_plugin.dhcp.dnsmasq.driver import DnsmasqDriver

__all__ = ('DnsmasqDriver',)
