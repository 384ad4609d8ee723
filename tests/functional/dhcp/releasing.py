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

"""A driver that can end leases, whatever the server can."""

import socket

from tests import lab
from tests.unit import base
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin.dhcp import dnsmasq
from vmip_plugin.dhcp import packet
from vmip_plugin import exceptions


class Releasing(dnsmasq.DnsmasqDriver):
    """dnsmasq's, with packets from its own host."""

    bridge: lab.Bridge
    refuses = False

    def release(self, lease: dhcp.Lease) -> None:
        if self.refuses:
            raise exceptions.DHCPError('busy: try later')
        server = self.bridge.address.ip
        assert lease.mac is not None
        message = packet.build_release(
            base.ip(str(lease.address)), lease.mac, server, lease.client_id)
        with self.bridge.inside(lambda: socket.socket(
                socket.AF_INET, socket.SOCK_DGRAM)) as sender:
            sender.sendto(message, (str(server), packet.SERVER_PORT))
        lab.wait_for(lambda: not list(self.leases_of([lease.address])))


def made(driver: dhcp.DHCPDriver, bridge: lab.Bridge) -> Releasing:
    """Turn dnsmasq's driver into such a one."""
    driver.__class__ = Releasing
    assert isinstance(driver, Releasing)
    driver.bridge = bridge
    driver.capabilities |= dhcp.Capability.LEASE_RELEASE
    return driver
