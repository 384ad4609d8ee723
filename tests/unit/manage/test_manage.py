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

import csv
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
from vmip_plugin import exceptions
from vmip_plugin.inventory import records

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
                     ('reservation', 'create', A),
                     ('address', 'predict', 'web', '--project', 'p'),
                     ('address', 'predict', 'web', '--pool', 'pool'),
                     ('address', 'export', '-', '--format', 'xml'),
                     ('reservation', 'import'),
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
        self.cloud.subnets[base.SUBNET] = self.subnet()

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
        self.assertEqual(
            'nova-api and Neutron use the pool within 2 seconds\n', self.err)
        found, = self.json('pool', 'list')
        self.assertEqual(('pool', 60, 'a', 10, 0, 0), tuple(
            found[key] for key in ('name', 'reuse_delay', 'dhcp_servers',
                                   'free', 'claimed', 'adopted')))

    def test_gateway_is_never_given(self) -> None:
        for expected, *ranges in (
                ('10.0.0.11, 10.0.0.13-10.0.0.14',
                 '10.0.0.11-10.0.0.14'),
                ('10.0.0.13-10.0.0.14', '10.0.0.12-10.0.0.14'),
                ('10.0.0.11', '10.0.0.11-10.0.0.12'),
                ('10.0.0.15', '10.0.0.12', '10.0.0.15'),
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
        self.assertIn(
            f'in use: 10.0.0.15 by compute:nova, port {base.port_id(1)}, '
            f'server {base.server_id(1)}\n', self.err)
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
        self.cloud.add(1, '10.0.0.15')
        dry = ('pool', 'create', 'pool', '--subnet', 'net-a', '--dry-run')
        self.fails('in use: 10.0.0.15', *dry)
        self.assertEqual(1, self.json(*dry, '--adopt')['adopted'])
        self.assertEqual([], self.inventory.pools())
        self.create('--adopt')
        self.fails('already', *dry, '--adopt')

    def test_serve(self) -> None:
        """Servers get host entries, what is no server gets none."""
        self.cloud.add(1, '10.0.0.15')
        self.cloud.add(2, '10.0.0.16', owner='network:dhcp')
        self.fails('--adopt', 'pool', 'create', 'pool', '--subnet', 'net-a',
                   '--serve')
        self.create('--adopt', '--serve', '--dhcp-server', 'a')
        self.assertEqual([State.CLAIMED, State.ADOPTED], [
            self.state('10.0.0.15'), self.state('10.0.0.16')])
        self.assertEqual([('a', '10.0.0.15', base.mac(1), True, False)],
                         self.entries())

    def test_serve_later(self) -> None:
        self.cloud.add(1, '10.0.0.15')
        self.create('--adopt', '--dhcp-server', 'a')
        adopt = ('pool', 'set', 'pool', '--adopt')
        self.assertEqual(0, self.json(*adopt)['adopted'])
        self.assertEqual([], self.entries())
        self.fails('give both', 'pool', 'set', 'pool', '--serve')
        self.assertEqual(1, self.json(*adopt, '--serve')['adopted'])
        self.assertEqual([('a', '10.0.0.15', base.mac(1), True, False)],
                         self.entries())
        self.assertEqual(0, self.json(*adopt, '--serve')['adopted'])

    def test_older_list(self) -> None:
        """Neutron knows better who has an address."""
        self.create('--dhcp-server', 'a')
        self.assertEqual('10.0.0.10', self.claim(1))
        self.assertEqual('10.0.0.11', self.claim(2))
        self.hold('10.0.0.13')
        for number, address in (1, '10.0.0.10'), (3, '10.0.0.11'), (
                4, '10.0.0.13'), (5, '10.0.0.14'):
            self.cloud.add(number, address)
        self.fails('3 addresses', 'pool', 'set', 'pool', '--range',
                   '10.0.0.10-10.0.0.20')
        for number, address, said in (
                (3, '10.0.0.11', '; the list says claimed, port '
                                 + base.port_id(2)),
                (4, '10.0.0.13', '; the list says reserved'),
                (5, '10.0.0.14', '')):
            self.assertIn(
                f'in use: {address} by compute:nova, port '
                f'{base.port_id(number)}, server {base.server_id(number)}'
                f'{said}\n', self.err)
        self.assertEqual(3, self.json('pool', 'set', 'pool', '--adopt')[
            'adopted'])
        self.assertEqual(
            ['claimed', 'adopted', 'adopted', 'adopted'],
            [self.state(f'10.0.0.{n}') for n in (10, 11, 13, 14)])
        self.assertEqual(base.port_id(3), self.row('10.0.0.11').port_id)
        self.assertIn(('a', '10.0.0.11', base.mac(2), False, False),
                      self.entries())

    def test_exclude(self) -> None:
        self.assertEqual(
            '10.0.0.11, 10.0.0.13-10.0.0.15, 10.0.0.17-10.0.0.18',
            self.create('--exclude', '10.0.0.10', '--exclude', '10.0.0.16',
                        '--exclude', '10.0.0.19-10.0.0.30')['ranges'])
        self.fails('at least one range', 'pool', 'create', 'x', '--subnet',
                   'net-a', '--exclude', '10.0.0.0-10.0.0.255')

    def test_show(self) -> None:
        self.create()
        self.reserve()
        found = self.json('pool', 'show', 'pool')
        self.assertEqual(('pool', 9, 1, 0), tuple(
            found[key] for key in ('name', 'free', 'reserved', 'outside')))
        self.fails('There is no pool', 'pool', 'show', 'x')

    def test_set(self) -> None:
        self.create('--range', '10.0.0.10-10.0.0.11')
        held = self.reserve('a', 'b')
        self.cloud.add(1, '10.0.0.15')
        new = ('pool', 'set', 'pool', '--range', '10.0.0.11-10.0.0.16',
               '--exclude', '10.0.0.14')
        self.fails('in use: 10.0.0.15', *new)
        for more in ('--dry-run',), ():
            found = self.json(*new, '--adopt', *more)
            self.assertEqual('10.0.0.11, 10.0.0.13, 10.0.0.15-10.0.0.16',
                             found['ranges'])
        # who has an address keeps it; once it is free, nobody gets it
        self.assertEqual(State.RESERVED, self.state('10.0.0.10'))
        found = self.json('pool', 'show', 'pool')
        self.assertEqual((1, 1, 1, 2), tuple(found[key] for key in (
            'outside', 'reserved', 'adopted', 'free')))
        self.inventory.cancel(held, '')
        self.assertEqual(['10.0.0.11', '10.0.0.13', '10.0.0.16'],
                         base.addresses(self.reserve('x', 'y', 'z')))
        self.assertEqual(0, self.json('pool', 'show', 'pool')['outside'])
        self.fails('No free address', 'address', 'predict', 'x', '--pool',
                   'pool', '--project', 'p')
        self.fails('There is no pool', 'pool', 'set', 'x')
        self.fails('no allocator', 'pool', 'set', 'pool', '--allocator', 'x')
        self.assertEqual(('sticky', 7), tuple(self.json(
            'pool', 'set', 'pool', '--allocator', 'sticky', '--reuse-delay',
            '7')[key] for key in ('allocator', 'reuse_delay')))

    def test_set_dhcp_servers(self) -> None:
        self.config.write_text(self.config.read_text().replace(
            'servers = a', 'servers = a, b'))
        self.create('--dhcp-server', 'a')
        self.claim()
        self.claim(2, request='', serve=False)
        self.fails('does not name c', 'pool', 'set', 'pool', '--dhcp-server',
                   'c')
        self.json('pool', 'set', 'pool', '--dhcp-server', 'b')
        self.assertEqual([('a', A, base.mac(1), False, False),
                          ('b', A, base.mac(1), True, False)],
                         self.entries())

    def test_shared_by_dhcp_servers(self) -> None:
        self.config.write_text(self.config.read_text().replace(
            'servers = a', 'servers = a, b'))
        self.create('--dhcp-server', 'a=10.0.0.0/25')
        shares = ('--dhcp-server', 'a=10.0.0.0-10.0.0.15',
                  '--dhcp-server', 'b=10.0.0.16/29')
        self.fails('does not name c', 'pool', 'set', 'pool', *shares,
                   '--dhcp-server', 'c=10.0.0.0/24')
        self.fails('10.0.0.16-10.0.0.20', 'pool', 'set', 'pool', *shares[:2])
        self.fails('NAME=FIRST-LAST', 'pool', 'set', 'pool',
                   '--dhcp-server', 'a=10.0.0.0')
        self.assertEqual(
            'a=10.0.0.0-10.0.0.15,b=10.0.0.16/29',
            self.json('pool', 'set', 'pool', *shares)['dhcp_servers'])
        self.claim()
        self.assertEqual([('a', A, base.mac(1), True, False)],
                         self.entries())

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
        held, = self.json('address', 'history', A, '--at', at)
        self.assertEqual(
            ('pool', 'claimed', 'web', base.PROJECT, base.mac(1)), tuple(
                held[key] for key in ('pool', 'state', 'server_name',
                                      'project_id', 'mac')))
        self.clock.now = begin
        self.clock.forward(-1)
        for when in (self.clock.now.isoformat(),
                     self.clock.now.replace(tzinfo=None).isoformat()):
            held, = self.json('address', 'history', A, '--at', when,
                              '--pool', 'pool')
            self.assertEqual(('free', '', ''), (
                held['state'], held['server_name'], held['since']))
        self.assertEqual([], self.json('address', 'history', '10.9.9.9'))
        self.fails('never was', 'address', 'history', '10.9.9.9', '--at', at)
        self.fails('There is no pool', 'address', 'history', A, '--pool', 'x')

    def test_a_name_is_no_command_for_the_terminal(self) -> None:
        self.reserve('\x1b]0;evil\x07\nweb', request='req-9')
        for command in (('address', 'list'),
                        ('address', 'history', '10.0.0.12')):
            self.assertEqual(0, self.run_(*command))
            self.assertIn('\\x1b]0;evil\\x07\\nweb', self.out)
            self.assertNotIn('\x1b', self.out)

    def test_predict(self) -> None:
        for allocator in ('sequential', 'random', 'sticky'):
            self.inventory.change_pool('pool', allocator=allocator)
            where = (('--pool', 'pool') if allocator == 'random' else
                     ('--network', base.NETWORK))
            found = self.json('address', 'predict', 'x', 'y', '--project',
                              base.PROJECT, *where)
            self.assertEqual(['x', 'y'], [f['server_name'] for f in found])
            before = self.found(state=list(State))
            self.assertEqual(before, self.found(state=list(State)))
            self.assertEqual(
                [f['address'] for f in found], base.addresses(self.reserve(
                    'x', 'y', request=f'req-{allocator}')))
        self.fails('There is no pool', 'address', 'predict', 'x', '--project',
                   'p', '--pool', 'x')
        self.fails('has no pool', 'address', 'predict', 'x', '--project',
                   'p', '--network', base.SUBNET)
        self.fails('No free address', 'address', 'predict', *'abcdefghijkl',
                   '--project', 'p', '--pool', 'pool')

    def test_export(self) -> None:
        path = self.directory / 'list'
        self.assertEqual(0, self.run_('address', 'export', str(path)))
        self.assertIn('2 addresses written', self.err)
        with open(path, encoding='utf-8', newline='') as file:
            rows = list(csv.DictReader(file))
        self.assertEqual(0o600, path.stat().st_mode & 0o777)
        self.assertEqual(0, self.run_('address', 'export', str(path),
                                      '--format', 'json'))
        self.assertEqual(rows, json.loads(path.read_text()))
        self.assertEqual([A, '10.0.0.11'], [r['address'] for r in rows])
        self.assertEqual(base.mac(1), rows[0]['mac'])
        self.assertEqual(0, self.run_('address', 'export', '-', '--format',
                                      'json', '--state', 'active'))
        self.assertEqual([], json.loads(self.out))
        self.assertEqual(0, self.run_('address', 'export', '-', '--state',
                                      'claimed'))
        self.assertEqual(2, len(self.out.splitlines()))

    def test_export_that_fails_leaves_the_old_file(self) -> None:
        path = self.directory / 'list'
        path.write_text('old')
        self.fails('There is no pool', 'address', 'export', str(path),
                   '--pool', 'x')
        self.fails('No such file', 'address', 'export',
                   str(self.directory / 'none' / 'list'))
        self.assertEqual('old', path.read_text())
        self.assertEqual({'list', 'vmip.conf'}, {
            p.name for p in self.directory.iterdir()
            if not p.name.startswith('vmip.sqlite')})


class TestReservation(ManageTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()

    def create(self, address: str, *argv: str) -> Any:
        return self.json('reservation', 'create', address, '--pool', 'pool',
                         '--server-name', 'web', *(
                             argv if '--project' in argv
                             else ('--any-project', *argv)))

    def test_way(self) -> None:
        self.assertEqual(
            {'pool': 'pool', 'address': '10.0.0.15', 'server_name': 'web',
             'project': '', 'any_project': 'yes', 'until': '',
             'state': 'reserved'},
            self.create('10.0.0.15'))
        self.assertEqual('vmip-manage (eve)', self.inventory.history(
            ip('10.0.0.15'))[0].actor)
        self.assertEqual(
            {'pool': 'pool', 'address': '10.0.0.16', 'server_name': 'web',
             'project': 'p', 'any_project': '',
             'until': '2027-01-02 02:04:00.000', 'state': 'reserved'},
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
        rest = ('--server-name', 'web', '--any-project', '--pool')
        self.fails('in no range', *create, '10.0.0.99', *rest, 'pool')
        self.fails('There is no pool', *create, A, *rest, 'x')
        self.fails('Say for whom', *create, '--pool', 'pool')
        self.fails('ended already', *create, A, *rest, 'pool', '--until',
                   '2001-01-01')
        self.claim()
        self.fails('is claimed', *create, A, *rest, 'pool')

    def test_whose_server(self) -> None:
        """A name is any project's to choose."""
        create = ('reservation', 'create', A, '--pool', 'pool')
        self.fails('of one project, or of any', *create, '--server-name',
                   'web')
        self.fails('its name is missing', *create, '--any-project')
        self.assertEqual(2, self.run_(
            *create, '--server-name', 'web', '--project', 'p',
            '--any-project'))
        self.assertEqual([], self.found())
        for both in (records.Hold('pool', ip(A), 'web', 'p',
                                  any_project=True),
                     records.Hold('pool', ip(A), 'web')):
            self.assertRaises(exceptions.VmipError, self.inventory.hold, both)
        self.json(*create, '--server-name', 'web', '--project', base.PROJECT)
        self.assertEqual(['10.0.0.11'], base.addresses(self.reserve(
            'web', project=base.OTHER_PROJECT)))
        self.assertEqual([A], base.addresses(self.reserve('web')))

    def test_for_a_project(self) -> None:
        self.assertEqual('10.0.0.10', self.json(
            'reservation', 'create', '--pool', 'pool', '--project',
            base.PROJECT)['address'])
        self.assertEqual(['10.0.0.11'], base.addresses(
            self.reserve(project=base.OTHER_PROJECT)))
        self.assertEqual(['10.0.0.10'], base.addresses(self.reserve('any')))
        self.assertEqual(['10.0.0.12'], base.addresses(self.reserve('more')))
        self.assertEqual(1, len(self.json(
            'reservation', 'list', '--project', base.PROJECT)))
        self.assertEqual([], self.json('reservation', 'list', '--project',
                                       base.OTHER_PROJECT))

    def test_kept_back(self) -> None:
        self.json('reservation', 'create', A, '--pool', 'pool')
        self.assertEqual(['10.0.0.11'], base.addresses(self.reserve()))
        self.assertEqual(A, self.claim(2, request='', address=ip(A)))

    def test_of_a_running_server(self) -> None:
        self.reserve('web')
        self.claim()
        self.assertEqual('claimed', self.create(A)['state'])
        self.assertEqual('claimed', self.create(
            A, '--until', '2099-01-01')['state'])
        self.inventory.release(self.row(A), 'deleted')
        self.finish(A)
        self.assertEqual(State.RESERVED, self.state(A))
        self.assertEqual([A], base.addresses(self.reserve('web')))

    def plan(self, text: str, *argv: str) -> tuple[str, ...]:
        path = self.directory / 'plan.csv'
        path.write_bytes(text.encode())
        return ('reservation', 'import', str(path), *argv)

    PLAN = ('address,server_name,project,any_project,until,pool\n'
            ',db,p,,,\n'
            '10.0.0.10,web,,yes,2099-01-02T03:04,pool\n'
            '\n'
            '10.0.0.12,,p,,,\n')

    def test_import(self) -> None:
        argv = self.plan(self.PLAN, '--pool', 'pool')
        expected = [(2, '10.0.0.11', 'db', 'p', ''),
                    (3, '10.0.0.10', 'web', '', '2099-01-02 03:04:00.000'),
                    (5, '10.0.0.12', '', 'p', '')]
        for more in ('--dry-run',), ():
            self.assertEqual([], self.found())
            self.assertEqual(expected, [
                tuple(line[key] for key in (
                    'line', 'address', 'server_name', 'project', 'until'))
                for line in self.json(*argv, *more)])
        self.assertEqual(3, len(self.found()))
        # again: what is there stays, what names no address has one
        self.fails('line 2: db has 10.0.0.11', *argv)
        self.assertEqual(3, len(self.found()))

    def test_what_list_writes_is_a_plan(self) -> None:
        self.json(*self.plan(self.PLAN, '--pool', 'pool'))
        self.assertEqual(0, self.run_('reservation', 'list', '-f', 'csv'))
        listed = self.out
        self.json(*self.plan(listed))
        self.assertEqual(0, self.run_('reservation', 'list', '-f', 'csv'))
        self.assertEqual(listed, self.out)
        self.assertEqual(4, len(listed.splitlines()))

    def test_import_names_every_bad_line(self) -> None:
        self.claim(address=ip('10.0.0.20'), request='')
        self.fails('line 3: ', *self.plan(
            'pool,address,server_name,until,any_project\r\n'
            'pool,10.0.0.10,good,,yes\r\n'
            'pool,10.0.0,web,,yes\r\n'
            'pool,10.0.0.99,web,,yes\r\n'
            'pool,10.0.0.20,web,,yes\r\n'
            'pool,10.0.0.11,"two\r\nlines",,yes\r\n'
            'none,10.0.0.12,web,,yes\r\n'
            ',10.0.0.12,web,,yes\r\n'
            'pool,10.0.0.12,web,noon,yes\r\n'
            'pool,10.0.0.12,web,2001-01-01,yes\r\n'
            'pool,10.0.0.12,web\r\n'
            'pool,10.0.0.10,again,,yes\r\n'
            'pool,,,,\r\n'
            f'pool,10.0.0.13,{"x" * 256},,yes\r\n'))
        lines = dict(line.split(': ', 1) for line in self.err.splitlines()
                     if line.startswith('line '))
        self.assertEqual([f'line {n}' for n in (
            3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15)], list(lines))
        self.assertEqual(1, len(self.found()))

    def test_import_of_what_is_no_plan(self) -> None:
        for text, word in (
                ('', 'name the columns'), ('a,b\n1,2\n', "'a'"),
                ('address,address\n', 'each once'), ('pool\n', 'address'),
                ('address,server_name\n"x', 'line 2')):
            self.fails(word, *self.plan(text, '--pool', 'pool'))
        self.fails('of one project, or of any', *self.plan(
            'address,server_name\n10.0.0.10,web\n', '--pool', 'pool'))
        self.fails('neither yes nor nothing', *self.plan(
            'address,server_name,any_project\n10.0.0.10,web,on\n',
            '--pool', 'pool'))
        self.fails('line 2', *self.plan(
            'address,server_name,project\n10.0.0.10,"\'""x",p\n',
            '--pool', 'pool'))
        path = self.directory / 'plan.csv'
        path.write_bytes(b'address\n\xff\n')
        self.fails('UTF-8', 'reservation', 'import', str(path))
        self.fails('No such file', 'reservation', 'import', '/nowhere')


class Terminal(io.StringIO):

    def isatty(self) -> bool:
        return True


class TestDhcp(ManageTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.driver, self.other = fakes.Server('a'), fakes.Server('b')
        self.config.write_text(
            self.config.read_text().replace('servers = a', 'servers = a, b'))
        self.patch(manage_dhcp.manager, 'load_drivers',
                   lambda conf: {'a': self.driver, 'b': self.other})
        self.pool()
        self.claim()

    def serve(self, address: str, number: int) -> None:
        self.driver.put([dhcp.HostEntry(base.mac(number), ip(address))])

    def away(self) -> None:
        def entries() -> Any:
            raise exceptions.DHCPServerUnavailable('b is away: start it')

        self.patch(self.other, 'entries', entries)

    def rows(self, *argv: str, code: int = 0) -> list[tuple[Any, ...]]:
        return [tuple(line.values())
                for line in self.json('dhcp', *argv, code=code)]

    def test_check_agrees(self) -> None:
        self.serve(A, 1)
        self.assertEqual([], self.json('dhcp', 'check'))

    def test_check_differs(self) -> None:
        """In both directions, and whether the list knows of it."""
        B, C = '10.0.0.11', '10.0.0.12'
        for number in (2, 3):
            self.claim(number)
        for work in self.inventory.work(port_ids=[
                base.port_id(2), base.port_id(3)]):
            self.inventory.work_done(work)
        self.serve(C, 9)
        self.serve('10.0.0.99', 8)
        self.driver.complaints.append('not for this command')
        expected = [('a', A, base.mac(1), 'nothing', 'to be done'),
                    ('a', B, base.mac(2), 'nothing', 'lost'),
                    ('a', C, base.mac(3), base.mac(9), 'changed'),
                    ('a', '10.0.0.99', 'nothing', base.mac(8),
                     'wanted by nobody')]
        self.assertEqual(expected, self.rows('check', code=1))
        work, = self.inventory.work(port_ids=[base.port_id(1)])
        self.inventory.work_failed(work, 'no room', 1)
        self.assertEqual('to be done: no room',
                         self.rows('check', code=1)[0][4])
        self.assertEqual([], self.rows('check', '--server', 'b'))
        self.assertEqual(
            4, len(self.rows('check', '--server', 'b', '--server', 'a',
                             '--server', 'a', code=1)))

    def test_check_of_a_removal_that_waits(self) -> None:
        self.serve(A, 1)
        self.inventory.release(self.row(A), '')
        self.assertEqual([('a', A, 'nothing', base.mac(1), 'to be done')],
                         self.rows('check', code=1))

    def test_one_is_away(self) -> None:
        """It is told of, and the others are looked at."""
        self.serve('10.0.0.99', 8)
        self.away()
        for command, columns in (('check', 5), ('sync', 5)):
            found = self.rows(command, '--server', 'b', '--server', 'a',
                              code=1)
            self.assertEqual(
                ('b', *[''] * (columns - 2), 'b is away: start it'),
                found[0])
            self.assertEqual({'a'}, {row[0] for row in found[1:]})

    def test_no_such_server(self) -> None:
        for command in 'check', 'sync', 'doctor':
            self.fails('does not name c', 'dhcp', command, '--server', 'c')

    def test_doctor(self) -> None:
        expected = [('a', 'none', True, ''), ('b', 'none', True, '')]
        self.assertEqual(expected, self.rows('doctor'))
        self.driver.complaints += ['It is too small: raise it.', 'It leaks.']
        expected[:1] = [('a', 'none', False, 'It is too small: raise it.'),
                        ('a', 'none', False, 'It leaks.')]
        self.assertEqual(expected, self.rows('doctor', code=1))
        self.assertEqual(expected[2:], self.rows('doctor', '--server', 'b'))

        def check() -> list[str]:
            raise exceptions.DHCPServerUnavailable('away')

        self.patch(self.driver, 'check', check)
        self.assertEqual([('a', '', False, 'away'), expected[2]],
                         self.rows('doctor', code=1))

    def test_sync(self) -> None:
        self.serve('10.0.0.99', 8)
        expected = [('a', A, 'write', base.mac(1)),
                    ('a', '10.0.0.99', 'remove', base.mac(8))]
        before = self.inventory.entries(), self.driver.served()
        self.assertEqual(
            [(*row, 'would be done') for row in expected],
            self.rows('sync', '--dry-run', code=1))
        self.assertEqual(before, (self.inventory.entries(),
                                  self.driver.served()))
        self.assertEqual([], self.rows('sync', '--server', 'b'))
        self.assertEqual([(*row, 'done') for row in expected],
                         self.rows('sync'))
        self.assertEqual({A: base.mac(1)}, self.driver.served())
        for more in (), ('--dry-run',):
            self.assertEqual([], self.rows('sync', *more))
        self.assertEqual([], self.rows('check'))
        self.assertEqual('', self.err)

    def test_sync_names_what_is_left(self) -> None:
        self.claim(2)
        self.serve('10.0.0.99', 8)
        self.driver.failing = {A: 'no room: make some', '10.0.0.99': 'locked'}
        self.assertEqual([
            ('a', A, 'write', base.mac(1), 'no room: make some'),
            ('a', '10.0.0.11', 'write', base.mac(2), 'done'),
            ('a', '10.0.0.99', 'remove', base.mac(8), 'locked')],
            self.rows('sync', code=1))
        self.driver.failing.clear()
        self.assertEqual(['done'] * 2,
                         [row[4] for row in self.rows('sync')])

    def test_sync_tells_a_terminal_how_far_it_is(self) -> None:
        self.patch(io, 'StringIO', Terminal)
        self.assertEqual(0, self.run_('dhcp', 'sync'))
        self.assertEqual('\ra: 0 of 1\ra: 1 of 1\n', self.err)

    def test_list(self) -> None:
        found, = self.json('dhcp', 'list')
        self.assertEqual(('a', A, base.mac(1), 'present', False), tuple(
            found[key] for key in ('server', 'address', 'mac', 'wanted',
                                   'done')))
        work, = self.inventory.work(port_ids=[base.port_id(1)])
        self.inventory.work_done(work)
        self.assertEqual([], self.json('dhcp', 'list', '--pending'))
        self.assertEqual(1, len(self.json('dhcp', 'list')))
