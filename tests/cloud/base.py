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

"""What the tests on the one-machine cloud have in common."""

from typing import Any
import unittest

from tests.cloud import harness
from tests.cloud import story


class CloudTestCase(unittest.TestCase):
    """A cloud with fake compute, one pool and no servers.

    :cvar strict: whether Neutron is in strict mode.
    :cvar wanted: what a create request needs besides a name.
    """

    strict = False
    cloud: harness.Cloud
    story: story.Story
    network_id: str
    wanted: dict[str, Any]

    @classmethod
    def setUpClass(cls) -> None:
        harness.up('fake', strict=cls.strict)
        cls.cloud = harness.Cloud()
        cls.story = story.Story(cls.cloud, lambda line: None)
        cls.story.prepare()
        sdk = cls.cloud.sdk()
        cls.network_id = sdk.network.find_network(story.NETWORK).id
        cls.wanted = {
            'flavorRef': sdk.compute.find_flavor('tiny').id,
            'imageRef': sdk.image.find_image('guest').id,
            'networks': [{'uuid': cls.network_id}]}
