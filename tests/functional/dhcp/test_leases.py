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

"""vmip-manage lease on a real DHCP server with a real client's leases."""

import fixtures

from tests.functional.dhcp import releasing
from tests.functional.dhcp import test_agreement
from tests import lab
from tests.unit import base

A = test_agreement.A
#: what the host entry's ``id:*`` keeps out of the lease
CLIENT_ID = b'\xff\x00\x01'


class TestLeases(test_agreement.AgreementTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.driver = releasing.made(self.drivers['a'], self.bridges[0])
        self.useFixture(fixtures.MonkeyPatch(
            'vmip_plugin.cmd.manage.lease.manager.load_drivers',
            lambda conf: self.drivers))
        with self.config.open('a', encoding='utf-8') as file:
            file.write('[reclaimer]\nconfirm_delay = 1\n')
        self.serve(1)
        self.inventory.activate(base.server_id(1), 'web', [base.mac(1)])
        self.assertEqual(A, str(self.guests.acquire(
            base.mac(1), client_id=CLIENT_ID)))
        lab.wait_for(lambda: list(self.driver.leases()))

    def shown(self) -> tuple[object, ...]:
        row, = self.manage('lease', 'show', A)
        return row['gone'], row['mac'], row['client_id']

    def test_life_and_death(self) -> None:
        row, = self.manage('lease', 'list')
        self.assertEqual(('a', A, base.mac(1), '', 'active', 'web'),
                         tuple(row[key] for key in (
                             'source', 'address', 'mac', 'client_id', 'list',
                             'server_name')))
        self.assertEqual((False, base.mac(1), ''), self.shown())
        row, = self.manage('lease', 'release', A, code=1)
        self.assertEqual('spared', row['result'])
        self.assertEqual(1, len(list(self.driver.leases())))
        self.cloud.delete(1)
        self.inventory.release_address(base.SUBNET, base.ip(A), 'deleted')
        self.assertEqual((True, base.mac(1), ''), self.shown())
        row, = self.manage('lease', 'release', A)
        self.assertEqual('released', row['result'])
        self.assertEqual([], list(self.driver.leases()))
        self.assertEqual([], self.manage('lease', 'list'))
        self.reclaim()
        self.assertEqual(base.State.FREE, self.state(A))

    def test_agents_have_to_do_it(self) -> None:
        """dnsmasq by files has no command to end a lease."""
        self.driver.capabilities &= ~releasing.dhcp.Capability.LEASE_RELEASE
        self.cloud.delete(1)
        row, = self.manage('lease', 'release', A, code=1)
        self.assertIn('no transport_url', row['result'])
        self.assertEqual(1, len(list(self.driver.leases())))
