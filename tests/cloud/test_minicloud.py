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

"""The one-machine cloud itself."""

import unittest

from tests.cloud import harness


class TestMinicloud(unittest.TestCase):

    def test_begins_with_nothing_of_what_was_left(self) -> None:
        """As tools/with-cloud begins, after a benchmark that was killed."""
        harness.up()
        network = harness.Cloud().sdk('admin').network
        network.create_network(
            name='left', shared=True, provider_network_type='local')
        harness.minicloud.kill('nova-api', 'vmip-listener')
        self.assertFalse(harness.minicloud.is_up('fake'))
        harness.minicloud.down(purge=True)
        harness.up()
        self.assertTrue(harness.minicloud.is_up('fake'))
        self.assertFalse(harness.minicloud.is_up('libvirt'))
        sdk = harness.Cloud().sdk()
        self.assertEqual({'provider1', 'provider2'}, {
            network.name for network in sdk.network.networks()})
        self.assertEqual([], list(sdk.compute.servers()))
