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

"""No daemon starts that could not know which cloud to ask."""

import fixtures
import testtools

from tests import daemon
from tests import lab


class TestRegions(testtools.TestCase):
    """The catalogue has two, and the configuration names none of them."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.FakeLogger())
        folder = self.useFixture(fixtures.TempDir()).path
        self.site = self.useFixture(daemon.Site(
            f'sqlite:///{folder}/vmip.sqlite', 'fake:', 'driver = none'))
        self.site.cloud.regions = ['one', 'two']
        self.config = self.site.config().replace('region_name = one\n', '') + (
            f'[agent]\ninterfaces = lo\nstore = {folder}/agent.sqlite\n')

    def refused(self, program: str) -> None:
        made = self.useFixture(daemon.Daemon(
            f'vmip_plugin.cmd.{program}', self.config))
        self.assertEqual(1, made.process.wait(lab.PATIENCE))
        said = made.log.read_text()
        self.assertRegex(said, 'has the regions one, two: set .*region_name')
        self.assertNotIn('Traceback', said)

    def test_reclaimer(self) -> None:
        self.refused('reclaimer')

    def test_listener(self) -> None:
        self.refused('listener')

    def test_agent(self) -> None:
        self.refused('agent')
