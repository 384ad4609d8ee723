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

"""vmip-manage, command by command."""

import io
import json
import os
from typing import Any

import fixtures

from tests.unit import base
from tests.unit import fakes
from vmip_plugin import cloud
from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import dhcp as manage_dhcp
from vmip_plugin.dhcp import base as dhcp

State = base.State
ip = base.ip
A = '10.0.0.10'


class ManageTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.config = self.directory / 'vmip.conf'
        self.config.write_text(
            f'[database]\nconnection = {self.connection}\n'
            '[dhcp]\nservers = a\n')
        self.cloud = fakes.Cloud()
        self.patch(manage.Manage, 'cloud', lambda app: self.cloud)
        self.useFixture(fixtures.EnvironmentVariable('SUDO_USER', 'eve'))
        self.out = ''
        self.err = ''

    def run_(self, *argv: str) -> int:
        """Run one command; return its exit code, 2 for argparse's own."""
        out, err = io.StringIO(), io.StringIO()
        with fixtures.MonkeyPatch('sys.stdout', out), \
                fixtures.MonkeyPatch('sys.stderr', err):
            try:
                code = manage.main(['--config-file', str(self.config),
                                    *argv])
            except SystemExit as exc:
                code = int(str(exc.code))
        self.out, self.err = out.getvalue(), err.getvalue()
        return code

    def json(self, *argv: str, code: int = 0) -> Any:
        self.assertEqual(code, self.run_(*argv, '-f', 'json'), self.err)
        return json.loads(self.out)

    def fails(self, word: str, *argv: str) -> None:
        self.assertEqual(1, self.run_(*argv))
        self.assertIn(word, self.err)
        self.assertNotIn('Traceback', self.err + self.out)
        self.assertEqual('', self.out)

    def wrong(self, *argv: str) -> None:
        self.assertEqual(2, self.run_(*argv), argv)
        # cliff tells of a command that is none on stdout
        self.assertNotEqual('', self.err + self.out)


class TestDb(ManageTestCase):

    def test_upgrade(self) -> None:
        os.unlink(self.directory / 'vmip.sqlite')
        head = self.inventory.database.head()
        self.assertEqual({'found': 'none', 'needed': head},
                         self.json('db', 'version'))
        self.fails('vmip-manage db upgrade', 'pool', 'list')
        self.assertEqual(0, self.run_('db', 'upgrade'))
        self.assertEqual(f'schema none -> {head}\n', self.out)
        self.assertEqual({'found': head, 'needed': head},
                         self.json('db', 'version'))
        self.assertEqual(0, self.run_('db', 'upgrade'))
        self.assertEqual(f'schema {head} -> {head}\n', self.out)

    def test_no_configuration(self) -> None:
        self.config = self.directory / 'missing.conf'
        self.fails('missing.conf', 'db', 'version')
        self.assertEqual(0, self.run_('help'))

    def test_no_database(self) -> None:
        self.config.write_text(
            '[database]\nconnection = sqlite:////nowhere/db\n')
        self.fails('unable to open database file', 'db', 'upgrade')

    def test_wrong_command_line(self) -> None:
        for argv in (('nothing',), ('pool', 'create'), ('pool', 'nothing'),
                     ('pool', 'list', '--nothing'), ('--nothing',),
                     ('address', 'list', '--state', 'lost'),
                     ('address', 'list', '--address', '10.0.0'),
                     ('address', 'history', 'x'),
                     ('address', 'history', A, '--at', 'noon'),
                     ('reservation', 'create', A, '--pool', 'pool'),
                     ('pool', 'create', 'x', '--subnet', 's', '--range',
                      '10.0.0.1-x'),
                     ('pool', 'create', 'x', '--subnet', 's',
                      '--reuse-delay', '-1'),
                     ('pool', 'create', 'x', '--subnet', 's',
                      '--reuse-delay', str(2 ** 31))):
            self.wrong(*argv)


class TestPool(ManageTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.cloud.subnets['net-a'] = self.subnet()

    def subnet(self, **values: Any) -> cloud.Subnet:
        return cloud.Subnet(**{
            'id': base.SUBNET, 'name': 'net-a', 'network_id': base.NETWORK,
            'cidr': '10.0.0.0/24', 'gateway': ip('10.0.0.12'),
            'ranges': ((ip('10.0.0.10'), ip('10.0.0.20')),),
            'enable_dhcp': False, **values})

    def create(self, *argv: str) -> Any:
        return self.json('pool', 'create', 'pool', '--subnet', 'net-a',
                         *argv)

    def test_create(self) -> None:
        self.assertEqual({
            'name': 'pool', 'cidr': '10.0.0.0/24', 'subnet_id': base.SUBNET,
            'network_id': base.NETWORK, 'allocator': 'sequential',
            'reuse_delay': 60, 'dhcp_servers': 'a', 'adopted': 0,
            'ranges': '10.0.0.10-10.0.0.11, 10.0.0.13-10.0.0.20'},
            self.create('--reuse-delay', '60', '--dhcp-server', 'a'))
        self.assertEqual('', self.err)
        found, = self.json('pool', 'list')
        self.assertEqual(('pool', 60, 'a', 10, 0, 0), tuple(
            found[key] for key in ('name', 'reuse_delay', 'dhcp_servers',
                                   'free', 'claimed', 'adopted')))

    def test_gateway_is_never_given(self) -> None:
        for expected, *ranges in (
                ('10.0.0.11-10.0.0.11, 10.0.0.13-10.0.0.14',
                 '10.0.0.11-10.0.0.14'),
                ('10.0.0.13-10.0.0.14', '10.0.0.12-10.0.0.14'),
                ('10.0.0.11-10.0.0.11', '10.0.0.11-10.0.0.12'),
                ('10.0.0.15-10.0.0.15', '10.0.0.12', '10.0.0.15'),
                ('10.0.0.13-10.0.0.14', '10.0.0.13-10.0.0.14')):
            found = self.create('--dry-run', *[
                word for one in ranges for word in ('--range', one)])
            self.assertEqual(expected, found['ranges'])
        self.cloud.subnets['net-a'] = self.subnet(gateway=None)
        self.assertEqual('10.0.0.10-10.0.0.20',
                         self.create('--dry-run')['ranges'])

    def test_in_use(self) -> None:
        self.cloud.add(1, '10.0.0.15')
        self.cloud.add(2, '10.0.0.16', owner='network:dhcp')
        self.cloud.add(3, '10.0.0.99')
        self.fails('--adopt', 'pool', 'create', 'pool', '--subnet', 'net-a')
        self.assertIn(f'in use: 10.0.0.15 by port {base.port_id(1)}',
                      self.err)
        self.assertEqual([], self.inventory.pools())
        self.assertEqual(2, self.create('--adopt')['adopted'])
        self.assertEqual(
            (State.ADOPTED, base.port_id(1), base.server_id(1)),
            (self.row('10.0.0.15').state, self.row('10.0.0.15').port_id,
             self.row('10.0.0.15').server_id))
        self.assertIsNone(self.row('10.0.0.16').server_id)

    def test_dry_run(self) -> None:
        self.create('--dry-run')
        self.assertEqual([], self.inventory.pools())

    def test_dhcp_of_neutron(self) -> None:
        self.cloud.subnets['net-a'] = self.subnet(enable_dhcp=True)
        self.create()
        self.assertIn('--no-dhcp', self.err)

    def test_refused(self) -> None:
        create = ('pool', 'create', 'pool', '--subnet')
        self.fails('openstack subnet list', *create, 'other')
        self.fails('[dhcp] servers does not name b', *create, 'net-a',
                   '--dhcp-server', 'b')
        self.fails('no allocator', *create, 'net-a', '--allocator', 'dice')
        self.fails('not within', *create, 'net-a', '--range',
                   '10.0.1.1-10.0.1.2')
        self.cloud.away = True
        self.fails('the cloud is away', *create, 'net-a')
        self.cloud.away = False
        self.create()
        self.fails('already', *create, 'net-a')

    def test_delete(self) -> None:
        self.create()
        reserved = self.reserve()
        self.fails('1 addresses of pool pool are held', 'pool', 'delete',
                   'pool')
        self.inventory.cancel(reserved, '')
        self.assertEqual(0, self.run_('pool', 'delete', 'pool'))
        self.assertEqual([], self.json('pool', 'list'))
        self.fails('There is no pool', 'pool', 'delete', 'pool')


class TestAddress(ManageTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.reserve('web', 'db')
        self.claim()

    def test_list(self) -> None:
        found = self.json('address', 'list')
        self.assertEqual([(A, 'claimed', 'web', base.mac(1)),
                          ('10.0.0.11', 'reserved', 'db', '')],
                         [(f['address'], f['state'], f['server_name'],
                           f['mac']) for f in found])
        for count, *argv in (
                (1, '--state', 'claimed'), (0, '--state', 'active'),
                (2, '--state', 'claimed', '--state', 'reserved'),
                (1, '--address', A), (1, '--server', 'db'),
                (1, '--server', base.server_id(1)), (2, '--pool', 'pool'),
                (9, '--state', 'free')):
            self.assertEqual(count, len(self.json('address', 'list', *argv)),
                             argv)
        self.fails('There is no pool', 'address', 'list', '--pool', 'x')

    def test_history(self) -> None:
        begin = self.clock.now
        self.clock.forward(3600)
        self.inventory.release(self.row(A), 'gone')
        found = self.json('address', 'history', A)
        self.assertEqual(['reserve', 'claim', 'release'],
                         [f['event'] for f in found])
        self.assertEqual({'test'}, {f['by'] for f in found})
        self.clock.forward(-1)
        at = self.clock.now.isoformat()
        change, = self.json('address', 'history', A, '--at', at)
        self.assertEqual(('claimed', 'web', base.mac(1)), (
            change['to'], change['server_name'], change['mac']))
        self.clock.now = begin
        self.clock.forward(-1)
        for when in (self.clock.now.isoformat(),
                     self.clock.now.replace(tzinfo=None).isoformat()):
            self.assertEqual([], self.json('address', 'history', A, '--at',
                                           when))
        self.assertEqual([], self.json('address', 'history', '10.9.9.9'))


class TestReservation(ManageTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()

    def create(self, address: str, *argv: str) -> Any:
        return self.json('reservation', 'create', address, '--pool', 'pool',
                         '--server-name', 'web', *argv)

    def test_way(self) -> None:
        self.assertEqual(
            {'address': '10.0.0.15', 'server_name': 'web',
             'project_id': 'any', 'until': '', 'state': 'reserved'},
            self.create('10.0.0.15'))
        self.assertEqual('vmip-manage (eve)', self.inventory.history(
            ip('10.0.0.15'))[0].actor)
        self.assertEqual(
            {'address': '10.0.0.16', 'server_name': 'web',
             'project_id': 'p', 'until': '2027-01-02 02:04:00.000',
             'state': 'reserved'},
            self.create('10.0.0.16', '--project', 'p', '--until',
                        '2027-01-02T03:04+01:00'))
        self.assertEqual(['10.0.0.15', '10.0.0.16'], [
            f['address'] for f in self.json('reservation', 'list')])
        self.assertEqual(['10.0.0.15'], base.addresses(self.reserve('web')))
        delete = ('reservation', 'delete', '10.0.0.16', '--pool', 'pool')
        self.assertEqual(0, self.run_(*delete))
        self.assertEqual(['10.0.0.15'], [
            f['address'] for f in self.json('reservation', 'list',
                                            '--pool', 'pool')])
        self.fails('not reserved by hand', *delete)

    def test_refused(self) -> None:
        create = ('reservation', 'create')
        rest = ('--server-name', 'web', '--pool')
        self.fails('in no range', *create, '10.0.0.99', *rest, 'pool')
        self.fails('There is no pool', *create, A, *rest, 'x')
        self.claim()
        self.fails('is claimed', *create, A, *rest, 'pool')


class TestDhcp(ManageTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.driver = fakes.Server('a')
        self.patch(manage_dhcp.manager, 'load_drivers',
                   lambda conf: {'a': self.driver})
        self.pool()
        self.claim()

    def serve(self, address: str, number: int) -> None:
        self.driver.put([dhcp.HostEntry(base.mac(number), ip(address))])

    def test_agree(self) -> None:
        self.serve(A, 1)
        self.assertEqual([], self.json('dhcp', 'check'))

    def test_differ(self) -> None:
        self.serve('10.0.0.11', 2)
        self.driver.complaints.append('It is not well: start it.')
        self.assertEqual([
            ('server', '', 'It is not well: start it.'),
            (A, base.mac(1), 'nothing'),
            ('10.0.0.11', 'nothing', base.mac(2))],
            [tuple(line.values())[1:]
             for line in self.json('dhcp', 'check', code=1)])

    def test_list(self) -> None:
        found, = self.json('dhcp', 'list')
        self.assertEqual(('a', A, base.mac(1), 'present', False), tuple(
            found[key] for key in ('server', 'address', 'mac', 'wanted',
                                   'done')))
        work, = self.inventory.work(port_ids=[base.port_id(1)])
        self.inventory.work_done(work)
        self.assertEqual([], self.json('dhcp', 'list', '--pending'))
        self.assertEqual(1, len(self.json('dhcp', 'list')))
