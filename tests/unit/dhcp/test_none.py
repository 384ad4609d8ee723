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


"""The driver in memory; what it must do is in tests/contract."""

import ipaddress

import testtools

from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import none


class TestNone(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.driver = none.NoneDriver('test', None)

    def test_live(self) -> None:
        self.assertEqual(
            base.Capability.LIVE_ADD | base.Capability.LIVE_REMOVE
            | base.Capability.IPV6,
            self.driver.capabilities)
        self.assertEqual([], self.driver.check())

    def test_entries_while_it_changes(self) -> None:
        entry = base.HostEntry('fa:16:3e:00:00:01',
                               ipaddress.ip_address('192.0.2.1'))
        self.driver.put([entry])
        for found in self.driver.entries():
            self.driver.remove([found])
        self.assertEqual([], list(self.driver.entries()))
