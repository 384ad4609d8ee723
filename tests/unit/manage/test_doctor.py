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

"""vmip-manage doctor: a real list, real files, a stub of the cloud."""

import os
import pathlib
import socket
import subprocess
import sys
import time
from typing import Any

from tests import stubs
from tests.unit import base
from tests.unit.manage import test_manage
from vmip_plugin.agent import rpc
from vmip_plugin.cmd.manage import agents as manage_agents
from vmip_plugin.cmd.manage import doctor
from vmip_plugin.cmd.manage.doctor import point
from vmip_plugin.cmd.manage import paste
from vmip_plugin import conf as vmip_conf
from vmip_plugin.inventory import database
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin.reclaim import tasks

#: asks nobody outside
HERE = ('configuration', 'options', 'rights', 'plugins', 'database', 'schema',
        'clocks', 'pools', 'space', 'dhcp', 'work', 'reclaimer')

TEMPLATES = (pathlib.Path(__file__).parents[3]
             / 'deploy/ansible/roles/vmip/templates')
PASTE = '''\
[composite:openstack_compute_api_v21]
use = call:nova.api.auth:pipeline_factory_v21
keystone = cors keystonecontext osapi_compute_app_v21
noauth2 = cors noauth2 osapi_compute_app_v21

[filter:keystonecontext]
paste.filter_factory = nova.api.auth:NovaKeystoneContext.factory

[filter:noauth2]
paste.filter_factory = nova.api.openstack.auth:NoAuthMiddleware.factory

[app:osapi_compute_app_v21]
paste.app_factory = nova.api.openstack.compute:APIRouterV21.factory
'''
NEUTRON = '''\
[DEFAULT]
ipam_driver = vmip
service_plugins = router, vmip
transport_url = rabbit://n:neutron-secret@bus.example:5672/
[oslo_messaging_notifications]
driver = messagingv2
'''
NOVA = NEUTRON.replace('ipam_driver = vmip', '') + '''\
[notifications]
notification_format = both
'''
ML2 = '[ml2]\nmechanism_drivers = openvswitch,vmip\n'

WaitingFor = states.WaitingFor


class DoctorTestCase(test_manage.ManageTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.sections = {
            'DEFAULT': 'transport_url = '
                       'rabbit://vmip:bus-secret@bus.example:5672/',
            'database': f'connection = {self.connection}',
            'dhcp': 'servers = a',
            'dhcp:a': 'driver = none'}
        self.stub = self.useFixture(stubs.Cloud())
        self.files = {name: self.directory / name for name in (
            'api-paste.ini', 'nova.conf', 'neutron.conf', 'ml2_conf.ini')}

    def configure(self, **changes: str) -> None:
        # each process reads a file once, and each run is to be a process
        self.config = self.directory / f'{time.monotonic_ns()}.conf'
        self.config.write_text('\n'.join(
            f'[{name}]\n{text}' for name, text in
            {**self.sections, **changes}.items()))
        self.config.chmod(0o640)

    def look(self, *only: str, code: int = 0, options: tuple[str, ...] = (),
             ) -> list[tuple[str, str, str, str, str]]:
        paths = zip(('--paste-file', '--nova-conf', '--neutron-conf',
                     '--ml2-conf'), map(str, self.files.values()),
                    strict=True)
        found = self.json(
            'doctor', *(word for pair in paths for word in pair),
            *(word for name in only for word in ('--only', name)), *options,
            code=code)
        rows = [tuple(row[key] for key in (
            'point', 'subject', 'result', 'finding', 'what_to_do'))
            for row in found]
        for row in rows:
            if row[2] in ('WARNING', 'FAIL'):
                self.assertNotEqual('', row[4], row)
            if row[2] != 'OK':
                self.assertNotEqual('', row[3], row)
            self.assertNotIn('Traceback', row[3])
        return rows

    def one(self, name: str, result: str,
            options: tuple[str, ...] = ()) -> str:
        """Return what the only finding of a point says and advises."""
        rows = self.look(name, code=int(result == 'FAIL'), options=options)
        self.assertEqual([(name, result)], [(r[0], r[2]) for r in rows], rows)
        return f'{rows[0][1]}: {rows[0][3]}: {rows[0][4]}'

    def did(self, name: str, error: str | None = None,
            ago: float = 1.0) -> None:
        """Note a run of a task of vmip-reclaimer."""
        at = base.clock.after(-ago)
        self.inventory.note_run(records.Run(
            name, 'host:1', at, at, error=error))


class TestHere(DoctorTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.configure()

    def test_well(self) -> None:
        for name in tasks.intervals(self.conf):
            self.did(name)
        rows = self.look(*HERE)
        self.assertEqual({'OK'}, {row[2] for row in rows}, rows)
        self.assertEqual(set(HERE), {row[0] for row in rows})

    def test_formats(self) -> None:
        for form in ('table', 'csv', 'yaml'):
            self.assertEqual(0, self.run_('doctor', '--only', 'database',
                                          '-f', form), self.err)
            self.assertIn('OK', self.out)

    def test_wrong_command_line(self) -> None:
        self.wrong('doctor', '--only', 'nothing')
        self.wrong('doctor', '--timeout', '0')

    def test_skip(self) -> None:
        rows = self.look('database', 'schema', options=('--skip', 'schema'))
        self.assertEqual(['database'], [row[0] for row in rows])

    def test_no_configuration(self) -> None:
        self.config = self.directory / 'missing.conf'
        rows = self.look(code=1, options=('--no-cloud',))
        results = {row[0]: row[2:4] for row in rows}
        self.assertEqual('FAIL', results['configuration'][0])
        self.assertIn('missing.conf', results['configuration'][1])
        for name in ('options', 'rights', 'plugins', 'database', 'schema',
                     'pools', 'dhcp', 'keystone', 'bus', 'listener'):
            self.assertEqual('NOT CHECKED', results[name][0], name)
        self.assertIn('"configuration"', results['options'][1])
        self.assertEqual(set(doctor.NAMES), set(results))

    def test_configuration_cannot_be_parsed(self) -> None:
        self.config.write_text('[cloud]\nusername = vmip\nhush-hush word\n')
        said = self.one('configuration', 'FAIL')
        self.assertIn('line 3', said)
        self.assertNotIn('hush', said)
        self.config.write_bytes(b'[cloud]\nusername = \xff\n')
        self.assertIn('is not text', self.one('configuration', 'FAIL'))

    def test_wrong_value(self) -> None:
        self.configure(reclaimer='check_interval = often')
        self.assertIn('check_interval', self.one('configuration', 'FAIL'))

    def test_options(self) -> None:
        self.configure(
            reclaimer='chek_interval = 5', lissener='pool = x',
            cloud='auth_type = password\nusername = vmip\nfoo = bar',
            **{'dhcp:b': 'driver = none', 'oslo_messaging_rabbit':
               'amqp_durable_queues = true\nheartbeat_timeout_threshold = 9'})
        rows = self.look('options')
        self.assertEqual(
            {'[reclaimer] chek_interval', '[lissener]', '[cloud] foo',
             '[dhcp:b]'}, {row[1] for row in rows})
        self.assertEqual({'WARNING'}, {row[2] for row in rows})
        advice = {row[1]: row[4] for row in rows}
        self.assertIn('check_interval', advice['[reclaimer] chek_interval'])
        self.assertIn('listener', advice['[lissener]'])

    def test_options_of_a_driver(self) -> None:
        self.configure(**{'dhcp:a': 'driver = none\nhostsdir = /x'})
        self.assertIn('[dhcp:a] hostsdir', self.one('options', 'WARNING'))
        self.configure(**{'dhcp:a': 'driver = dnsmasq\nhostsdir = /x'})
        self.one('options', 'OK')

    def test_rights(self) -> None:
        self.config.chmod(0o644)
        said = self.one('rights', 'WARNING')
        self.assertIn('[DEFAULT] transport_url', said)
        self.assertNotIn('connection', said)     # SQLite's has no password
        self.assertNotIn('bus-secret', said)
        self.config.chmod(0o662)
        self.assertIn('chmod o-w', self.one('rights', 'FAIL'))
        self.configure(DEFAULT='debug = false')
        self.config.chmod(0o644)
        self.one('rights', 'OK')

    def test_plugins(self) -> None:
        self.configure(reserve='hooks = reserve, magic')
        self.assertIn('magic', self.one('plugins', 'FAIL'))
        self.configure(**{'dhcp:a': 'driver = dnsmasq'})
        self.assertIn('hostsdir', self.one('plugins', 'FAIL'))
        self.one('dhcp', 'NOT CHECKED')

    def test_database(self) -> None:
        self.configure(database='connection = sqlite:////nowhere/db')
        self.assertIn('unable to open', self.one('database', 'FAIL'))
        self.one('pools', 'NOT CHECKED')

    def test_no_secret_of_a_broken_url(self) -> None:
        self.configure(database='connection = nowhere-topsecret')
        said = self.one('configuration', 'FAIL')
        self.assertIn('[database] connection', said)
        self.assertNotIn('topsecret', self.out)
        self.configure(database=f'connection = {self.connection}',
                       DEFAULT='transport_url = hush:topsecret@bus')
        self.one('bus', 'FAIL')
        self.assertNotIn('topsecret', self.out)

    def test_no_secret_of_a_password_with_a_slash(self) -> None:
        for url in 'rabbit://vmip:hush/word@bus:5672/', 'rabbit://v:[hu@bus/':
            self.configure(DEFAULT=f'transport_url = {url}')
            self.assertIn('percent-encoded', self.one('bus', 'FAIL'))
            self.assertNotIn('hu', self.out)

    def test_another_option_of_the_bus(self) -> None:
        self.configure(oslo_messaging_rabbit='conn_pool_min_size = often')
        self.assertIn('conn_pool_min_size', self.one('bus', 'FAIL'))

    def test_schema(self) -> None:
        empty = self.new_database('empty', empty=True)
        self.configure(database=f'connection = {empty}')
        self.assertIn('vmip-manage db upgrade', self.one('schema', 'FAIL'))
        self.one('space', 'NOT CHECKED')

    def test_clocks(self) -> None:
        for apart, outcome in ((0.0, 'OK'), (0.9, 'OK'), (1.7, 'WARNING'),
                               (60.0, 'FAIL')):
            self.patch(database.Database, 'skew',
                       lambda self, apart=apart: apart)
            self.assertIn(f'{apart:.1f} seconds apart',
                          self.one('clocks', outcome))

    def test_no_other_clock(self) -> None:
        """A file has none; this host's would be compared with itself."""
        self.patch(database.Database, 'skew', lambda self: None)
        self.clock.forward(60)
        self.assertIn('no clock but', self.one('clocks', 'OK'))

    def test_pools(self) -> None:
        self.inventory.change_pool('pool', dhcp_servers=('b',))
        self.assertIn('servers b', self.one('pools', 'FAIL'))
        self.inventory.change_pool('pool', dhcp_servers=())
        self.assertIn('--dhcp-server', self.one('pools', 'WARNING'))
        self.inventory.delete_pool('pool')
        self.assertIn('pool create', self.one('pools', 'WARNING'))
        self.one('space', 'NOT CHECKED')

    def test_space(self) -> None:
        for number in range(10):
            self.claim(number, request='')
        self.assertIn('1 of 11', self.one('space', 'WARNING'))
        self.claim(10, request='')
        self.assertIn('pool set', self.one('space', 'FAIL'))

    def test_dhcp(self) -> None:
        self.configure(
            dhcp='servers = a, b', **{'dhcp:b': (
                f'driver = dnsmasq\nhostsdir = {self.directory}/none\n'
                f'pid_file = {self.directory}/pid\n'
                f'lease_file = {self.directory}/leases')})
        rows = self.look('dhcp', code=1)
        self.assertIn(('a', 'OK'), [row[1:3] for row in rows])
        self.assertIn(('b', 'FAIL'), [row[1:3] for row in rows])

    def test_work(self) -> None:
        self.claim()
        self.one('work', 'OK')
        work, = self.inventory.work(limit=10, port_ids=[base.port_id(1)])
        self.inventory.work_failed(work, 'full', 30)
        self.assertIn('after 1 tries: full', self.one('work', 'WARNING'))
        self.clock.forward(30)
        work, = self.inventory.work()
        self.inventory.wait([work], WaitingFor.LEASE, 'a lease', 30)
        self.assertIn('since 20', self.one('work', 'WARNING'))
        self.clock.forward(100)
        said = self.one('work', 'FAIL')
        self.assertIn('since 70 seconds', said)
        self.assertIn('start vmip-reclaimer', said)

    def test_work_that_answers_on_the_wire(self) -> None:
        addresses = [self.claim(n, request=f'req-{n}') for n in range(1, 12)]
        self.inventory.release_ports(
            [base.port_id(n) for n in range(1, 12)], 'x')
        self.clock.forward(5)
        self.inventory.wait(self.inventory.work(), WaitingFor.WIRE,
                            'answers', 60)
        rows = [row for row in self.look('work') if row[2] == 'WARNING']
        self.assertEqual(10, len(rows))
        for address, row in zip(addresses, rows, strict=False):
            self.assertIn(f'{address} is given to nobody: it answers on the '
                          'wire since', row[3])
            self.assertIn('ip neighbour show', row[4])
        self.assertIn('the same of 1 others', rows[-1][3])

    def test_reclaimer(self) -> None:
        rows = self.look('reclaimer', code=1)
        self.assertEqual(('reclaimer', 'owner', 'FAIL'), rows[0][:3])
        self.did('work')
        self.did('ports', 'Neutron: away')
        self.did('confirm', ago=10000)
        found = {row[1]: row[2:4] for row in self.look('reclaimer', code=1)}
        self.assertEqual('OK', found['owner'][0])
        self.assertEqual('OK', found['work'][0])
        self.assertEqual('WARNING', found['servers'][0])
        self.assertIn('Neutron: away', found['ports'][1])
        self.assertEqual('FAIL', found['confirm'][0])

    def test_a_check_that_breaks_off(self) -> None:
        found = point._look(
            point.Point('x', lambda context: iter([1 // 0]), 'y'),
            point.Context(None, _options(5)))
        self.assertEqual([point.Level.FAIL], [f.level for f in found])
        self.assertIn('ZeroDivisionError', found[0].text)

    def test_a_check_that_hangs(self) -> None:
        found = point._look(
            point.Point('x', lambda context: time.sleep(60) or (), 'y'),
            point.Context(None, _options(0.1)))
        self.assertIn('no answer within', found[0].text)


class TestFiles(DoctorTestCase):
    """Files of Nova and Neutron."""

    def setUp(self) -> None:
        super().setUp()
        self.configure()
        self.write('api-paste.ini',
                   paste.PasteFile(PASTE).enabled(str(self.config)))
        self.write('nova.conf', NOVA)
        self.write('neutron.conf', NEUTRON)
        self.write('ml2_conf.ini', ML2)

    def write(self, name: str, text: str) -> None:
        self.files[name].write_text(text)

    def test_well(self) -> None:
        rows = self.look('nova-api', 'neutron-server', 'notifications')
        self.assertEqual(['OK'] * 5, [row[2] for row in rows], rows)
        self.assertEqual('strict mode', rows[2][3])
        self.assertNotIn('secret', self.out)

    def test_none_on_this_host(self) -> None:
        for path in self.files.values():
            path.unlink()
        rows = self.look('nova-api', 'neutron-server', 'notifications')
        self.assertEqual(['NOT CHECKED'] * 4, [row[2] for row in rows])

    def test_not_enabled(self) -> None:
        self.write('api-paste.ini', PASTE)
        said = self.one('nova-api', 'FAIL')
        for word in ('keystone', 'noauth2', 'vmip-manage enable'):
            self.assertIn(word, said)

    def test_one_pipeline_only(self) -> None:
        text = self.files['api-paste.ini'].read_text()
        self.write('api-paste.ini', text.replace('noauth2 vmip', 'noauth2'))
        self.assertIn(
            'not in [composite:openstack_compute_api_v21] noauth2:',
            self.one('nova-api', 'FAIL'))

    def test_wrong_place(self) -> None:
        text = self.files['api-paste.ini'].read_text()
        self.write('api-paste.ini', text.replace(
            'keystonecontext vmip', 'vmip keystonecontext'))
        self.assertIn('after keystonecontext', self.one('nova-api', 'FAIL'))

    def test_another_vmip_conf(self) -> None:
        self.write('api-paste.ini',
                   paste.PasteFile(PASTE).enabled('/other/vmip.conf'))
        self.assertIn('config_file', self.one('nova-api', 'FAIL'))

    def test_ipam_driver(self) -> None:
        self.write('neutron.conf', NEUTRON.replace('ipam_driver', '#'))
        rows = self.look('neutron-server', code=1)
        self.assertEqual(['FAIL', 'FAIL'], [row[2] for row in rows])
        self.assertIn('internal', rows[0][3])

    def test_mechanism_drivers(self) -> None:
        for drivers, result, word in (
                ('openvswitch', 'OK', 'best effort'),
                ('vmip,openvswitch', 'WARNING', 'not the last')):
            self.write('ml2_conf.ini', f'[ml2]\nmechanism_drivers={drivers}')
            rows = self.look('neutron-server')
            self.assertEqual(result, rows[1][2])
            self.assertIn(word, rows[1][3])

    def test_mechanism_drivers_in_the_other_file(self) -> None:
        self.write('neutron.conf', NEUTRON + ML2)
        self.write('ml2_conf.ini', '[ml2]\ntype_drivers = flat\n')
        self.assertIn('strict mode', self.look('neutron-server')[1][3])

    def test_cannot_be_parsed(self) -> None:
        self.write('neutron.conf', 'admin_password topsecret\n')
        said = self.one('neutron-server', 'FAIL')
        self.assertIn('line 1', said)
        self.assertNotIn('topsecret', said)

    def drop_in(self, name: str, file: str, text: str) -> pathlib.Path:
        """Write a file into the folder beside one."""
        folder = self.files[name].with_name(f'{name}.d')
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(text)
        return folder

    def test_folders(self) -> None:
        """What the role of deploy/ansible installs is well."""
        for name in 'nova', 'neutron':
            text = (TEMPLATES / f'{name}.conf.j2').read_text()
            self.drop_in(f'{name}.conf', 'vmip.conf', text)
            self.write(f'{name}.conf', '[DEFAULT]\nservice_plugins = vmip\n')
        rows = self.look('neutron-server', 'notifications')
        self.assertEqual(['OK'] * 4, [row[2] for row in rows], rows)

    def test_the_last_file_wins(self) -> None:
        driver = ('[DEFAULT]\nipam_driver = {}\n'
                  'service_plugins = vmip\n')
        for file, value in (('b.conf', 'vmip'), ('a.conf', 'other'),
                            ('z.conf.old', 'old'), ('.z.conf', 'hidden')):
            self.drop_in('neutron.conf', file, driver.format(value))
        self.write('neutron.conf', driver.format('internal'))
        self.assertEqual(['OK'] * 2, [
            row[2] for row in self.look('neutron-server')])
        self.drop_in('neutron.conf', 'c.conf', driver.format('third'))
        rows = self.look('neutron-server', code=1)
        self.assertIn('ipam_driver is third', rows[0][3])

    def test_folder_cannot_be_read(self) -> None:
        folder = self.drop_in('neutron.conf', 'x.conf', 'password topsecret')
        said = self.one('neutron-server', 'FAIL')
        self.assertIn('x.conf cannot be parsed, line 1', said)
        self.assertNotIn('topsecret', said)
        (folder / 'x.conf').unlink()
        folder.rmdir()
        folder.write_text('')
        self.assertIn('neutron.conf.d', self.one(
            'neutron-server', 'NOT CHECKED'))

    def notifications(self, name: str, text: str, result: str) -> str:
        self.write(name, text)
        rows = self.look('notifications', code=int(result == 'FAIL'))
        mine = [row for row in rows if row[1].endswith(name)]
        self.assertEqual([result], [row[2] for row in mine], rows)
        return mine[0][3]

    def test_notifications(self) -> None:
        for name, text, word in (
                ('nova.conf', NOVA.replace('driver = messagingv2', ''),
                 'driver is not set'),
                ('neutron.conf', NEUTRON.replace('messagingv2', 'noop'),
                 'driver is noop'),
                ('nova.conf', NOVA.replace(
                    '[DEFAULT]', '[DEFAULT]\ncontrol_exchange = nova2'),
                 'nova2'),
                ('neutron.conf', NEUTRON + 'topics = elsewhere',
                 'elsewhere')):
            self.assertIn(word, self.notifications(name, text, 'FAIL'))
            self.write('nova.conf', NOVA)
        self.assertIn('other.example:5672/', self.notifications(
            'neutron.conf', NEUTRON.replace('bus.ex', 'other.ex'),
            'WARNING'))
        self.assertNotIn('neutron-secret', self.out)

    def test_notification_formats(self) -> None:
        for form in ('unversioned', 'versioned', 'both'):
            self.notifications('nova.conf', NOVA.replace('both', form), 'OK')
        self.configure(listener='versioned_topics =')
        self.notifications('nova.conf', NOVA, 'OK')
        self.assertIn('versioned_notifications', self.notifications(
            'nova.conf', NOVA.replace('both', 'versioned'), 'FAIL'))


class TestCloud(DoctorTestCase):

    names = ('keystone', 'nova', 'neutron', 'subnets')

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.subnet = self.stub.subnets[base.SUBNET] = {
            'id': base.SUBNET, 'name': 'net-a', 'cidr': '10.0.0.0/24',
            'network_id': base.NETWORK, 'gateway_ip': '10.0.0.1',
            'enable_dhcp': False, 'allocation_pools': [
                {'start': '10.0.0.2', 'end': '10.0.0.254'}]}
        self.sections['cloud'] = self.stub.config.partition('\n')[2]
        self.configure()

    def test_well(self) -> None:
        rows = self.look(*self.names)
        self.assertEqual([(name, 'OK') for name in self.names],
                         [(row[0], row[2]) for row in rows], rows)

    def test_no_cloud(self) -> None:
        self.stub.failing = 0
        rows = self.look(*self.names, options=('--no-cloud',))
        self.assertEqual(['NOT CHECKED'] * 4, [row[2] for row in rows])
        self.assertEqual(0, self.stub.asked)

    def test_not_admin(self) -> None:
        self.stub.roles = ['member']
        rows = self.look(*self.names, code=1)
        self.assertEqual(['FAIL'] + ['NOT CHECKED'] * 3,
                         [row[2] for row in rows])
        self.assertIn('role admin', rows[0][3])

    def test_no_credentials(self) -> None:
        self.configure(cloud='region_name = one')
        self.assertIn('auth_type', self.one('keystone', 'FAIL'))
        self.configure(cloud='auth_type = magic')
        self.assertIn('magic', self.one('keystone', 'FAIL'))

    def test_keystone_is_away(self) -> None:
        with socket.socket() as sock:
            sock.bind(('127.0.0.1', 0))
            port = sock.getsockname()[1]
        self.configure(cloud=self.sections['cloud'].replace(
            self.stub.url, f'http://127.0.0.1:{port}'))
        self.assertIn('Keystone: ', self.one('keystone', 'FAIL'))

    def test_nova_and_neutron_are_away(self) -> None:
        self.stub.failing = 0
        rows = self.look(*self.names, code=1)
        self.assertEqual(['OK', 'FAIL', 'FAIL', 'NOT CHECKED'],
                         [row[2] for row in rows])

    def test_subnets(self) -> None:
        for changes, result, word in (
                ({'enable_dhcp': True}, 'FAIL', '--no-dhcp'),
                ({'gateway_ip': '10.0.0.12'}, 'FAIL', '10.0.0.12'),
                ({'gateway_ip': None}, 'OK', 'pool'),
                ({'cidr': '10.0.0.0/23'}, 'FAIL', '10.0.0.0/23'),
                ({'allocation_pools': [
                    {'start': '10.0.0.2', 'end': '10.0.0.17'}]}, 'WARNING',
                 '10.0.0.18-10.0.0.20')):
            self.stub.subnets[base.SUBNET] = {**self.subnet, **changes}
            self.assertIn(word, self.one('subnets', result))
        self.stub.subnets.clear()
        self.assertIn('no subnet', self.one('subnets', 'FAIL'))


class _Client(rpc.AgentClient):

    def __init__(self, *names: str) -> None:
        self.names = names

    def hosts(self, wait: float = 2.0) -> list[str]:
        return list(self.names)


class TestAgents(DoctorTestCase):
    """The roll call's answers; the bus itself is in the functional tests."""

    def setUp(self) -> None:
        super().setUp()
        self.configure()

    def hosts(self, *names: str) -> list[tuple[str, str]]:
        self.patch(manage_agents, 'client', lambda app: _Client(*names))
        context = point.Context(_App(self.config), _options(5))
        return [(f.subject, str(f.level))
                for f in doctor.bus.hosts(context)]

    def test_answers(self) -> None:
        self.assertEqual([('a', 'OK'), ('b', 'OK')], self.hosts('a', 'b'))
        self.assertEqual([('', 'WARNING')], self.hosts())

    def test_needed(self) -> None:
        self.configure(agent='interfaces = br0')
        self.assertEqual([('', 'FAIL')], self.hosts())
        self.configure(**{'dhcp:a': 'driver = remote\nhost = dhcp1'})
        self.assertEqual([('b', 'OK'), ('dhcp1', 'FAIL')], self.hosts('b'))


class TestDeadServers(DoctorTestCase):
    """Servers that take a connection and say nothing."""

    def test_ends(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as server:
            where = f'127.0.0.1:{server.getsockname()[1]}'
            self.configure(
                DEFAULT=f'transport_url = rabbit://a:b@{where}/',
                cloud=self.stub.config.partition('\n')[2].replace(
                    self.stub.url, f'http://{where}'))
            # it ends at all
            done = subprocess.run(
                [sys.executable, '-c', 'import sys; from vmip_plugin.cmd '
                 'import manage; sys.exit(manage.main())', '--config-file',
                 str(self.config), 'doctor', '--timeout', '3', '-f', 'csv',
                 '--only', 'bus', '--only', 'keystone'],
                capture_output=True, text=True, timeout=120,
                cwd=pathlib.Path(__file__).parents[3],
                env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)})
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertEqual(2, done.stdout.count('"FAIL"'), done.stdout)
        self.assertNotIn('Traceback', done.stdout + done.stderr)


def _options(timeout: float) -> Any:
    return doctor.argparse.Namespace(timeout=timeout)


class _App:
    """As much of the program as the points use."""

    def __init__(self, config: pathlib.Path) -> None:
        self.conf = vmip_conf.load(str(config))

    def inventory(self) -> None:
        pass

