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


"""vmip-status upgrade check."""

import io
import json
import os
from typing import Any

import fixtures

from tests.unit import base
from tests.unit import fakes
from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.cmd import status
from vmip_plugin.inventory import api

GOOD = {
    'DEFAULT': 'transport_url = rabbit://user:secret@192.0.2.250/',
    'cloud': 'auth_type = password',
    'dhcp': 'servers = a',
    'dhcp:a': 'driver = none',
}
WELL = dict.fromkeys((
    'Configuration', 'Database schema', 'Pools and DHCP servers',
    'Notification transport', 'Credentials'), 0)


class TestStatus(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.path = self.directory / 'vmip.conf'
        self.useFixture(fixtures.EnvironmentVariable(
            'VMIP_CONFIG', str(self.path)))
        self.cloud = fakes.Cloud()
        self.patch(vmip_cloud, 'Cloud', lambda conf, timeout: self.cloud)
        self.pool(dhcp_servers=('a',))
        self.out = self.err = ''

    def run_(self, *argv: str) -> int:
        out, err = io.StringIO(), io.StringIO()
        with fixtures.MonkeyPatch('sys.stdout', out), \
                fixtures.MonkeyPatch('sys.stderr', err):
            code = status.main(argv)
        self.out, self.err = out.getvalue(), err.getvalue()
        return code

    def check(self, code: int, wrong: dict[str, int] | None = None,
              **changes: str) -> str:
        """Run the checks.

        :param wrong: results that are not 0.
        :returns: what they said.
        """
        sections = {'database': f'connection = {self.connection}',
                    **GOOD, **changes}
        self.path.write_text('\n'.join(
            f'[{name}]\n{text}' for name, text in sections.items()))
        self.assertEqual(code, self.run_('upgrade', 'check', '--json'),
                         self.out + self.err)
        found: list[dict[str, Any]] = json.loads(self.out)['checks']
        self.assertEqual(WELL | (wrong or {}),
                         {f['check']: f['result'] for f in found}, self.out)
        return '\n'.join(f['details'] or '' for f in found)

    def test_well(self) -> None:
        self.assertEqual('', self.check(0).strip())
        self.assertEqual(0, self.run_('upgrade', 'check'))
        self.assertIn('Upgrade Check Results', self.out)

    def test_configuration(self) -> None:
        for group, text, word in (
                ('reclaimer', 'check_interval = often', 'check_interval'),
                ('dhcp:a', 'driver = pigeon', "'pigeon'"),
                ('dhcp:a', 'driver = dnsmasq', 'hostsdir is not set'),
                ('reserve', 'hooks = reserve, magic', 'magic')):
            self.assertIn(word, self.check(2, {'Configuration': 2},
                                           **{group: text}))

    def test_no_configuration(self) -> None:
        self.assertEqual(255, self.run_('upgrade', 'check'))
        self.assertIn(str(self.path), self.err)
        self.path.write_text('no section')
        self.assertEqual(255, self.run_('upgrade', 'check'))
        self.assertIn('vmip-status: ', self.err)
        self.assertEqual('', self.out)

    def test_another_configuration(self) -> None:
        self.check(0)
        other = self.directory / 'other.conf'
        other.write_text(self.path.read_text().replace('servers = a',
                                                       'servers ='))
        self.assertEqual(2, self.run_('--config-file', str(other),
                                      'upgrade', 'check'))
        self.path.unlink()
        self.assertEqual(2, self.run_('--config-file', str(other),
                                      'upgrade', 'check'))

    def test_schema(self) -> None:
        os.unlink(self.directory / 'vmip.sqlite')
        self.assertIn('vmip-manage db upgrade', self.check(
            2, {'Database schema': 2, 'Pools and DHCP servers': 2}))

    def test_no_database(self) -> None:
        self.assertIn('unable to open', self.check(
            2, {'Database schema': 2, 'Pools and DHCP servers': 2},
            database='connection = sqlite:////nowhere/db'))

    def test_pools(self) -> None:
        where = 'Pools and DHCP servers'
        self.assertIn('servers a, which', self.check(
            2, {where: 2}, dhcp='servers = b', **{'dhcp:b': 'driver = none'}))
        self.claim()
        self.inventory.change_pool('pool', dhcp_servers=())
        self.assertIn('entries of a, which', self.check(
            1, {where: 1}, dhcp='servers ='))

    def test_allocator(self) -> None:
        self.inventory.change_pool('pool', allocator='random')

        def gone(name: str) -> None:
            raise status.exceptions.ConfigError(f'no allocator {name!r}')

        self.patch(status.allocators, 'load', gone)
        self.assertIn("no allocator 'random'", self.check(
            2, {'Pools and DHCP servers': 2}))

    def test_no_pool(self) -> None:
        self.inventory.delete_pool('pool')
        self.assertIn('vmip-manage pool create', self.check(
            1, {'Pools and DHCP servers': 1}))

    def test_transport(self) -> None:
        where = 'Notification transport'
        for text, word in (('debug = false', 'No transport_url'),
                           ('transport_url = pigeon://x/', 'pigeon'),
                           ('transport_url = nowhere', 'transport_url ')):
            self.assertIn(word, self.check(2, {where: 2}, DEFAULT=text))
        self.check(0, DEFAULT='debug = false', oslo_messaging_notifications=(
            'transport_url = rabbit://user:secret@192.0.2.250/'))
        said = self.check(1, {where: 1}, listener='nova_exchanges =')
        self.assertIn('nova_exchanges is empty', said)

    def test_credentials(self) -> None:
        where = 'Credentials'
        self.assertIn('No [cloud] auth_type', self.check(
            2, {where: 2}, cloud='region_name = RegionOne'))
        self.cloud.away = True
        self.assertIn('Not known: ', self.check(1, {where: 1}))
        self.cloud.away = False
        self.cloud.blind = True
        self.assertIn('do not show everything', self.check(2, {where: 2}))

    def test_worst_counts(self) -> None:
        self.cloud.blind = True
        self.inventory.delete_pool('pool')
        self.check(2, {'Credentials': 2, 'Pools and DHCP servers': 1})

    def test_error_in_a_check(self) -> None:
        self.check(0)
        self.patch(api.Inventory, 'pools', lambda self: 1 / 0)
        self.assertEqual(255, self.run_('upgrade', 'check'))
