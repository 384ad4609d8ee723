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

"""The story of the demo, asserted."""

import sys
import unittest

from tests.cloud import harness
from tests.cloud import story


class TestStory(unittest.TestCase):
    """Real guests on the one-machine cloud, steps a to g."""

    def test_story(self) -> None:
        harness.up('libvirt')
        told = story.Story(harness.Cloud(), lambda line: print(
            line, file=sys.stderr))
        told.prepare()
        seen = [result.step for _, step in told.steps() for result in step()]
        self.assertEqual('abcdefg', ''.join(sorted(set(seen))))
        told.all_gone()
