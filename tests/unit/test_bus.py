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

"""A transport_url that makes no sense is said so, and not shown."""

from tests.unit import base
from vmip_plugin import bus
from vmip_plugin import conf as vmip_conf
from vmip_plugin import exceptions


class TestTransport(base.TestCase):

    def failure(self, url: str) -> str:
        path = self.directory / 'vmip.conf'
        path.write_text(f'[DEFAULT]\ntransport_url = {url}\n')
        conf = vmip_conf.load(str(path))
        errors = {str(self.assertRaises(exceptions.ConfigError, get, conf))
                  for get in (bus.rpc_transport, bus.notification_transport)}
        self.assertEqual(1, len(errors))
        return errors.pop()

    def test_slash_in_a_password(self) -> None:
        said = self.failure('rabbit://vmip:pa/ss@host/')
        self.assertIn('percent-encoded', said)
        self.assertNotIn("'pa'", said)

    def test_no_such_driver(self) -> None:
        self.assertIn('transport_url: ', self.failure('nonsense://'))
