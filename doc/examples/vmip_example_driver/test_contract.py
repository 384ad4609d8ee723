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

"""The contract of vmip's drivers, on this one."""

import pathlib
import sys

import fixtures

from tests.contract import base
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin import exceptions

CONFIG = '''
[dhcp]
servers = site

[dhcp:site]
driver = ethers
file = {folder}/ethers
reload = {python} -c "open('{folder}/told', 'a').write('x')"
'''


class Server(base.Server):

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.config = folder / 'vmip.conf'
        self.config.write_text(CONFIG.format(folder=folder,
                                             python=sys.executable))

    def driver(self) -> dhcp.DHCPDriver:
        return base.load(self.config)


class TestEthers(base.DriverContract):

    def make_server(self) -> Server:
        self.folder = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        return Server(self.folder)

    def test_operators_lines_stay(self) -> None:
        line = 'FA:16:3E:00:00:01  10.66.0.1   # mine'
        (self.folder / 'ethers').write_text(f'{line}\n')
        self.assertHeld()
        failures = self.driver.put([base.entry(1, 9), base.entry(2, 1),
                                    base.entry(3)])
        self.assertEqual([base.entry(1, 9), base.entry(2, 1)],
                         list(failures))
        self.driver.remove([base.entry(1), base.entry(3)])
        self.assertEqual(f'{line}\n', (self.folder / 'ethers').read_text())

    def test_server_is_told(self) -> None:
        self.driver.put([base.entry(1), base.entry(2)])
        self.assertEqual('x', (self.folder / 'told').read_text())

    def test_server_cannot_be_told(self) -> None:
        text = self.server.config.read_text()
        self.server.config.write_text(text.replace('open(', 'exit(1) or ('))
        driver = self.server.driver()
        self.assertRaises(exceptions.DHCPServerUnavailable,
                          driver.put, [base.entry(1)])
        # written all the same, and the call is repeated
        self.assertHeld(base.entry(1))

    def test_check(self) -> None:
        self.assertIn('create it', self.driver.check()[0])
        self.driver.put([base.entry(1)])
        self.assertEqual([], self.driver.check())
