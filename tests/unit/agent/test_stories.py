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

"""Random lives: nothing in use is released, and the dead hold nothing."""

from unittest import mock

import testtools

from tests.unit.agent import stories
from vmip_plugin.agent import decide
from vmip_plugin.agent import guests


class StoriesTest(testtools.TestCase):
    def test_stories(self) -> None:
        found = stories.live(seed=1, stories=1000)
        self.assertEqual((1000, []), (found.stories, found.false))
        self.assertGreater(found.released, 500)
        # Where nobody answers but one whom Neutron does not know, it is not
        # believed, and the dead keep theirs.
        self.assertLess(found.held, 0.02 * found.released)

    def test_faults_are_noticed(self) -> None:
        def word(self: guests.Guests, *args: object) -> decide.Word:
            return decide.Word.GONE

        with mock.patch.object(guests.Guests, '_word', word):
            self.assertNotEqual([], stories.live(seed=1, stories=100).false)
        with mock.patch.object(guests.Guests, '_has', return_value=True):
            self.assertNotEqual([], stories.live(seed=1, stories=500).false)
