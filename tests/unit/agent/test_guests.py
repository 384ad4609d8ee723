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

"""The cloud's word."""

from collections.abc import Iterator
import ipaddress
import logging
from typing import Any

import fixtures
import testtools

from vmip_plugin.agent import decide
from vmip_plugin.agent import guests
from vmip_plugin.agent import lease as lease_
from vmip_plugin import cloud as cloud_
from vmip_plugin import exceptions

MAC = 'fa:16:3e:00:00:01'
ADDRESS = ipaddress.IPv4Address('10.66.1.1')
Word = decide.Word


def port(port_id: str = 'port', mac: str = MAC, server: str = 'server',
         owner: str = 'compute:nova', address: str = str(ADDRESS)
         ) -> cloud_.Port:
    return cloud_.Port(
        id=port_id, network_id='network', project_id='', mac=mac,
        addresses=(('', ipaddress.IPv4Address(address)),), device_id=server,
        device_owner=owner, status='ACTIVE')


def lease(mac: str = MAC, port_id: str | None = 'port',
          server_id: str | None = 'server', **changes: Any
          ) -> lease_.Lease:
    return lease_.Lease(**{
        'address': ADDRESS, 'mac': mac, 'interface': 'br0', 'vlan': None,
        'dhcp_server': ipaddress.IPv4Address('10.66.0.1'),
        'dhcp_server_mac': None, 'client_id': None, 'lease_seconds': 60,
        'confirmed': True, 'first_seen': 0.0, 'last_seen': 0.0,
        'port_id': port_id, 'server_id': server_id, 'looked_at': None,
        'gone_since': None, 'tries': 0, 'released_at': None,
        'verdict': None, 'reason': None, 'decided_at': None,
        'network_id': 'network', 'remote': False,
        'server_duid': None, 'iaid': None, **changes})


class FakeCloud:
    """Says what its attributes say."""

    def __init__(self) -> None:
        self.has: list[cloud_.Port] = []
        self.statuses: dict[str, str] = {}
        self.networks = {'network'}
        self.admin = True
        self.down: set[str] = set()
        self.asked: list[list[str]] = []

    def _ask(self, what: str) -> None:
        if what in self.down:
            raise exceptions.CloudUnavailable(what)

    def port(self, port_id: str) -> cloud_.Port | None:
        self._ask('port')
        return next((one for one in self.has if one.id == port_id), None)

    def ports(self, mac_address: list[str]) -> Iterator[cloud_.Port]:
        self.asked.append(mac_address)
        yield from (one for one in self.has if one.mac in mac_address)
        # as with pages: in the middle of the list
        self._ask('ports')

    def renew(self) -> None:
        pass

    def check_region(self) -> None:
        pass

    def has_deleted(self, server_id: str) -> bool:
        return server_id not in self.statuses

    def sees_all_projects(self) -> bool:
        self._ask('keystone')
        return self.admin

    def has_network(self, network_id: str | None) -> bool:
        self._ask('network')
        return bool(self.networks if network_id is None
                    else network_id in self.networks)

    def server_status(self, server_id: str) -> str | None:
        self._ask('server')
        return self.statuses.get(server_id)


class GuestsTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.cloud = FakeCloud()
        self.api: Any = self.cloud

    def word(self, one: lease_.Lease | None = None, shutoff: bool = False,
             witnesses: tuple[lease_.Lease, ...] = ()) -> decide.Word:
        one = one or lease()
        words = guests.Guests(self.api, shutoff).words([one], witnesses)
        return words[one.key]

    def test_signs_of_life(self) -> None:
        """A pass over many leases is long, and is no pass that hangs."""
        beats: list[None] = []
        found = [lease(address=ADDRESS + n) for n in range(guests.BATCH + 1)]
        guests.Guests(self.api).words(found, beat=lambda: beats.append(None))
        self.assertEqual(len(found), len(beats))

    def test_gone(self) -> None:
        self.assertEqual(Word.GONE, self.word())
        self.cloud.statuses['server'] = 'DELETED'
        self.assertEqual(Word.GONE, self.word())

    def test_not_gone(self) -> None:
        for status in ('ACTIVE', 'BUILD', 'ERROR', 'MIGRATING', 'PAUSED',
                       'REBOOT', 'RESCUE', 'RESIZE', 'SHELVED',
                       'SHELVED_OFFLOADED', 'SOFT_DELETED', 'SUSPENDED',
                       'UNKNOWN', 'VERIFY_RESIZE', 'of the future'):
            self.cloud.statuses['server'] = status
            for shutoff in (False, True):
                self.assertEqual(Word.EXISTS, self.word(shutoff=shutoff))

    def test_port_exists(self) -> None:
        for has in (port(), port('another'), port(server='', owner=''),
                    port(mac='fa:16:3e:00:00:02')):
            self.cloud.has = [has]
            for shutoff in (False, True):
                self.assertEqual(Word.EXISTS, self.word(shutoff=shutoff))

    def test_address_has_another_holder(self) -> None:
        self.cloud.has = [port('another', 'fa:16:3e:00:00:02', 'other')]
        self.assertEqual(Word.GONE, self.word())

    def test_shut_off(self) -> None:
        self.cloud.has = [port()]
        self.cloud.statuses['server'] = 'SHUTOFF'
        self.assertEqual(Word.EXISTS, self.word())
        self.assertEqual(Word.SHUT_OFF, self.word(shutoff=True))

    def test_half_known(self) -> None:
        self.assertEqual(Word.GONE, self.word(lease(server_id=None)))
        self.assertEqual(Word.GONE, self.word(lease(port_id=None)))
        self.cloud.statuses['server'] = 'ACTIVE'
        self.assertEqual(Word.EXISTS, self.word(lease(port_id=None)))

    def test_stranger(self) -> None:
        self.assertEqual(Word.STRANGER, self.word(
            lease(port_id=None, server_id=None)))

    def test_unavailable(self) -> None:
        for down in ('keystone', 'network', 'port', 'ports', 'server'):
            self.cloud.down = {down}
            self.assertEqual(Word.UNKNOWN, self.word())
            self.assertEqual(Word.UNKNOWN, self.word(shutoff=True))

    def test_unavailable_stops_asking(self) -> None:
        self.cloud.down = {'ports'}
        leases = [lease(f'fa:16:3e:00:{n >> 8:02x}:{n & 255:02x}')
                  for n in range(300)]
        words = guests.Guests(self.api).words(leases)
        self.assertEqual({Word.UNKNOWN}, set(words.values()))
        self.assertEqual(300, len(words))
        self.assertEqual(1, len(self.cloud.asked))

    def test_a_witness_that_was_deleted_a_moment_ago(self) -> None:
        """It is an error only where the next pass says the same."""
        log = self.useFixture(fixtures.FakeLogger(level=logging.ERROR))
        witness = lease('fa:16:3e:00:00:09')
        asking = guests.Guests(self.api)
        for has in ([], [port('w', witness.mac)], []):
            self.cloud.has = has
            asking.words([lease()], [witness])
            self.assertEqual('', log.output)
        asking.words([lease()], [witness])
        self.assertIn('knows none of the guests', log.output)

    def test_blind_neutron(self) -> None:
        witness = lease('fa:16:3e:00:00:09')
        self.assertEqual(Word.UNKNOWN, self.word(witnesses=(witness,)))
        self.cloud.has = [port('w', witness.mac)]
        self.assertEqual(Word.GONE, self.word(witnesses=(witness,)))

    def test_not_admin(self) -> None:
        self.cloud.admin = False
        self.assertEqual(Word.UNKNOWN, self.word())

    def test_empty_cloud(self) -> None:
        witness = lease('fa:16:3e:00:00:09')
        self.cloud.has = [port('w', witness.mac)]
        self.cloud.networks = set()
        for one in (lease(), lease(network_id=None)):
            self.assertEqual(Word.UNKNOWN, self.word(one))
            self.assertEqual(Word.GONE, self.word(one, witnesses=(witness,)))
        self.cloud.networks = {'another'}
        self.assertEqual(Word.UNKNOWN, self.word())
        self.assertEqual(Word.GONE, self.word(lease(network_id=None)))

    def test_batches(self) -> None:
        leases = [lease(f'fa:16:3e:00:00:{number:02x}')
                  for number in range(120)]
        self.cloud.has = [port(mac=leases[110].mac)]
        found = guests.Guests(self.api).identify(leases)
        self.assertEqual([50, 50, 20], [len(one) for one in self.cloud.asked])
        self.assertEqual([leases[110].key], [
            key for key, one in found.items() if one is not None])

    def test_identify(self) -> None:
        two = [port('a', address='10.66.1.9'), port('b')]
        for has, expected in (
                ([], None), ([port()], 'port'), (two, 'b'),
                ([two[0], two[0]], None),
                ([port(owner='network:dhcp')], None),
                ([port(owner='network:router_interface')], None),
                ([port(owner='', server='')], None),
                ([port(owner='baremetal:none')], 'port')):
            self.cloud.has = has
            one = lease(port_id=None, server_id=None)
            found = guests.Guests(self.api).identify([one])[one.key]
            self.assertEqual(expected, found and found.id)
