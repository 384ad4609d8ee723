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

"""Which files the programs read."""

import fixtures

from tests.unit import base
from vmip_plugin import conf as vmip_conf


class TestParse(base.TestCase):

    def test_the_one_file_alone(self) -> None:
        """As the host services do: nobody has options that others miss."""
        self.useFixture(fixtures.EnvironmentVariable(
            'HOME', str(self.directory)))
        folder = self.directory / '.vmip/vmip.conf.d'
        folder.mkdir(parents=True)
        (folder / 'more.conf').write_text('[reserve]\nttl = 1234\n')
        path = self.directory / 'vmip.conf'
        path.write_text('[reserve]\nhook_timeout = 7\n')
        conf = vmip_conf.new()
        vmip_conf.parse(conf, ['--config-file', str(path)], 'vmip')
        self.assertEqual(7, conf.reserve.hook_timeout)
        self.assertNotEqual(1234, conf.reserve.ttl)
