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

"""A list that cannot be used, on any database."""

from collections.abc import Callable
from typing import Any

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records

SECRET = 'a-tenants-own-words'


class TestCase(base.TestCase):

    def message(self, connection: str, call: str = 'reserve') -> str:
        """Return what a user of a list that is not there is told."""
        inventory = api.Inventory(base.new_conf(connection), 'x')
        calls: dict[str, Callable[[], Any]] = {
            'reserve': lambda: inventory.reserve(
                records.Requester('req', SECRET),
                [records.Wanted(base.NETWORK, (SECRET,))], 600),
            'read': lambda: inventory.addresses(server=SECRET)}
        error = self.assertRaises(exceptions.InventoryUnavailable,
                                  calls[call])
        for word in (SECRET, 'FROM', 'INTO', 'sqlalche', '[SQL'):
            self.assertNotIn(word, str(error))
        self.assertNotIn(SECRET, self.log.output)
        self.assertNotIn('\n', str(error))
        return str(error)
