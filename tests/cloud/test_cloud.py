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

"""What the plugin asks a real Nova, and what Nova says to it."""

from tests.cloud import harness
from tests.cloud import test_lifecycle
from vmip_plugin import cloud as vmip_cloud


class TestCloud(test_lifecycle.LifecycleTestCase):

    def test_deleted_servers(self) -> None:
        """All of them, none that lives, and for an admin alone."""
        lives, _ = self.create('lives')
        server, address = self.create('listed')
        since = harness.utc(self.compute.get_server(server.id).created_at)
        self.cloud.sdk().compute.delete_server(server.id)
        self.free(address)
        # the port goes first
        self.vanishes(server)
        found = list(vmip_cloud.Cloud(self.cloud.conf).deleted_servers(since))
        self.assertIn(server.id, found)
        self.assertNotIn(lives.id, found)
        self.assertEqual(403, self.cloud.sdk().compute.get(
            '/servers', params={'status': 'DELETED'}).status_code)
