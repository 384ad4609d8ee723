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


"""The role, run by ansible-playbook on this host, below a folder."""

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import fixtures
from oslo_config import cfg
import testtools
import yaml

from tests.unit import test_docs
from vmip_plugin import conf as vmip_conf
from vmip_plugin.dhcp import manager

ROOT = pathlib.Path(__file__).parents[3]
PLAYBOOK = '''
- hosts: localhost
  gather_facts: false
  roles: [vmip]
'''
#: of everything that a file, a template or a URL could stumble over
PASSWORD = 'a$b %c{{ d }}#e"\'f'
STOCK = pathlib.Path(sys.prefix) / 'etc/nova/api-paste.ini'


class TestRole(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.root = self.folder / 'root'
        (self.root / 'etc/nova').mkdir(parents=True)
        shutil.copy(STOCK, self.root / 'etc/nova')
        (self.root / 'etc/passwd').write_text('root:x:0:0::/root:/bin/sh\n')
        (self.root / 'etc/group').write_text('root:x:0:\n')
        self.venv = self.environment()
        self.playbook = self.folder / 'play.yml'
        self.playbook.write_text(PLAYBOOK)
        self.vars = {
            'vmip_transport_url': 'rabbit://openstack:a%24b@controller:5672/',
            'vmip_database_connection': f'sqlite:///{self.folder}/list',
            'vmip_auth_url': 'https://controller:5000/v3',
            'vmip_password': {'__ansible_unsafe': PASSWORD},
            'vmip_dhcp_servers': {
                'site1': {'driver': 'dnsmasq',
                          'hostsdir': '/var/lib/vmip-dnsmasq',
                          'pid_file': '/run/dnsmasq/dnsmasq.pid'},
                'far': {'driver': 'remote', 'host': 'dhcp1'}},
            'vmip_agent_interfaces': ['br0', 'br1'],
            'vmip_config': {'reserve': {'ttl': 700},
                            'cloud': {'timeout': 20},
                            'oslo_messaging_rabbit': {
                                'rabbit_quorum_queue': True}},
            'vmip_services': ['vmip-listener', 'vmip-reclaimer',
                              'vmip-agent'],
            'vmip_root': str(self.root), 'vmip_run_as': 'root',
            'vmip_venv': str(self.venv), 'vmip_package': self.source(),
            'vmip_pip_args': '--no-deps --no-build-isolation --no-index'}

    def environment(self) -> pathlib.Path:
        """Make an environment that has what the plugin needs, not itself."""
        venv = self.folder / 'venv'
        subprocess.run([sys.executable, '-m', 'venv', str(venv)], check=True)
        [packages] = venv.glob('lib/python*/site-packages')
        (packages / 'others.pth').write_text(
            sysconfig.get_path('purelib') + '\n')
        return venv

    def source(self) -> str:
        """Return a copy of the source, as a build leaves things behind."""
        source = self.folder / 'source'
        source.mkdir()
        for name in 'setup.cfg', 'setup.py', 'pyproject.toml', 'README.md', \
                'LICENSE', 'requirements.txt':
            shutil.copy(ROOT / name, source)
        shutil.copytree(ROOT / 'vmip_plugin', source / 'vmip_plugin')
        # pbr takes what git knows
        for command in ('init', '-q'), ('add', '.'):
            subprocess.run(['git', '-C', str(source), *command], check=True)
        return str(source)

    def play(self, code: int = 0, options: tuple[str, ...] = ()) -> str:
        path = self.folder / 'vars.json'
        path.write_text(json.dumps(self.vars))
        # the program that is beside this Python
        done = subprocess.run(
            [str(pathlib.Path(sys.executable).parent / 'ansible-playbook'),
             '--inventory', 'localhost,', '--connection', 'local',
             '--extra-vars', f'@{path}',
             '--extra-vars', f'ansible_python_interpreter={sys.executable}',
             str(self.playbook), *options],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=300,
            env={**{name: value for name, value in os.environ.items()
                    if name not in ('PYTHONPATH', 'VMIP_CONFIG')},
                 'ANSIBLE_ROLES_PATH': str(ROOT / 'deploy/ansible/roles'),
                 'ANSIBLE_HOME': str(self.folder / 'ansible'),
                 'ANSIBLE_NOCOLOR': '1', 'LC_ALL': 'C.UTF-8',
                 'PBR_VERSION': '1.0.0'})
        self.assertEqual(code, done.returncode, done.stdout)
        return done.stdout

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def test_all(self) -> None:
        said = self.play(options=('-vvv',))
        self.assertNotIn('a$b', said)
        self.check_pipelining(said)
        self.check_configuration()
        self.check_host()
        self.check_services()
        self.check_nova_and_neutron()
        version = json.loads(self.manage('db', 'version', '-f', 'json'))
        self.assertEqual(version['needed'], version['found'])
        self.assertNotEqual('none', version['found'])
        # and again: nothing is left to do
        self.vars['vmip_package'] = 'vmip-plugin'
        said = self.play()
        found = re.search(r'(?m)^localhost .*changed=(\d+)', said)
        assert found, said
        self.assertEqual('0', found[1], said)

    def check_pipelining(self, said: str) -> None:
        """See that the user vmip needs no file of Ansible's."""
        sent = {name: ' PUT ' in text for name, text in re.findall(
            r'(?s)TASK \[vmip : ([^]]+)\](.*?)(?=\nTASK|\nPLAY|\Z)', said)}
        self.assertTrue(sent['The user'], said)
        self.assertFalse(sent['The tables of the list'], said)

    def manage(self, *args: str) -> str:
        return subprocess.run(
            [str(self.venv / 'bin/vmip-manage'), '--config-file',
             str(self.root / 'etc/vmip/vmip.conf'), *args], check=True,
            capture_output=True, text=True).stdout

    def check_configuration(self) -> None:
        path = self.root / 'etc/vmip/vmip.conf'
        conf = vmip_conf.load(str(path))
        self.assertEqual(
            ('rabbit://openstack:a%24b@controller:5672/',
             ['br0', 'br1'], 700, 20),
            (self.option(path, 'DEFAULT', 'transport_url'),
             conf.agent.interfaces, conf.reserve.ttl,
             int(self.option(path, 'cloud', 'timeout'))))
        self.assertEqual(PASSWORD, self.option(path, 'cloud', 'password'))
        drivers = manager.load_drivers(conf)
        self.assertEqual(['site1', 'far'], list(drivers))
        # no option that nobody knows
        found = list(test_docs.settings(path.read_text()))
        self.assertGreater(len(found), 15)
        for group, name in found:
            test_docs.option(group, name)
        stat = path.stat()
        self.assertEqual((0o640, 0), (stat.st_mode & 0o777, stat.st_uid))
        self.assertIn(f'vmip:x:{stat.st_gid}:', self.read('etc/group'))

    def option(self, path: pathlib.Path, group: str, name: str) -> str:
        """Return a value as oslo.config reads it."""
        conf = cfg.ConfigOpts()
        conf.register_opt(cfg.StrOpt(name), group)
        conf([], default_config_files=[str(path)], default_config_dirs=[])
        return str(conf[group][name])

    def check_host(self) -> None:
        self.assertIn('vmip:x:', self.read('etc/passwd'))
        members = re.search(r'(?m)^vmip:x:\d+:(.*)$', self.read('etc/group'))
        assert members
        self.assertEqual({'nova', 'neutron'}, set(members[1].split(',')))

    def check_services(self) -> None:
        units = self.root / 'etc/systemd/system'
        for name in self.vars['vmip_services']:
            self.assertIn(
                f'ExecStart={self.venv}/bin/{name} ',
                (units / f'{name}.service.d/program.conf').read_text())
            self.assertTrue(
                (units / f'multi-user.target.wants/{name}.service')
                .is_symlink())
        self.assertEqual('', subprocess.run(
            ['systemd-analyze', 'verify', '--man=no',
             *(str(units / f'{name}.service')
               for name in self.vars['vmip_services'])],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=True).stdout)
        for name in 'vmip-listener', 'vmip-reclaimer':
            self.assertTrue(
                (units / f'{name}.service.d/dnsmasq.conf').exists())

    def check_nova_and_neutron(self) -> None:
        paste = self.read('etc/nova/api-paste.ini')
        self.assertIn(f'config_file = {self.root}/etc/vmip/vmip.conf', paste)
        nova = self.root / 'etc/nova/nova.conf.d/vmip.conf'
        self.assertEqual('both', self.option(
            nova, 'notifications', 'notification_format'))
        neutron = self.root / 'etc/neutron/neutron.conf.d/vmip.conf'
        self.assertEqual('vmip', self.option(
            neutron, 'DEFAULT', 'ipam_driver'))
        for path in nova, neutron:
            self.assertEqual('messagingv2', self.option(
                path, 'oslo_messaging_notifications', 'driver'))
        self.assertIn('VmipFilter', subprocess.run(
            [sys.executable, '-W', 'ignore', '-m',
             'tests.unit.manage.load_paste',
             str(self.root / 'etc/nova/api-paste.ini'), str(nova),
             'openstack_compute_api_v21'], cwd=ROOT, check=True,
            capture_output=True, text=True).stdout)

    def test_agent(self) -> None:
        """An agent alone gets no login to the database, and no readers."""
        _, play = yaml.safe_load(
            (ROOT / 'deploy/ansible/site.yml').read_text())
        [role] = play['roles']
        self.vars.update(role['vars'])
        del self.vars['vmip_database_connection']
        # another host's, as where the inventory has it for all
        for more in {}, {'vmip_database_connection':
                         f'sqlite:///{self.folder}/list'}:
            self.vars.update(more)
            self.play()
            text = self.read('etc/vmip/vmip.conf')
            self.assertIn('[cloud]', text)
            self.assertNotIn('[database]', text)
            vmip_conf.load(str(self.root / 'etc/vmip/vmip.conf'))
        self.assertFalse((self.folder / 'list').exists())
        self.assertIn('vmip:x:', self.read('etc/passwd'))
        for name in 'nova', 'neutron':
            self.assertNotIn(name, self.read('etc/passwd'))
            self.assertNotIn(name, self.read('etc/group'))

    def test_what_is_missing_is_named(self) -> None:
        for name in 'vmip_password', 'vmip_database_connection':
            before, self.vars[name] = self.vars[name], ''
            self.assertIn(f'{name} is not set', self.play(2))
            self.vars[name] = before
        self.assertFalse((self.root / 'etc/vmip').exists())


class TestDropIns(testtools.TestCase):

    def test_are_read(self) -> None:
        """Where there are files of options, the folder beside is read, too."""
        folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        (folder / 'nova.conf').write_text('[notifications]\n')
        found = functools.partial(cfg.find_config_dirs, 'nova', 'nova-api')
        self.useFixture(fixtures.MonkeyPatch(
            'os.path.exists', lambda path: path == '/etc/nova/nova.conf.d'))
        self.assertEqual(['/etc/nova/nova.conf.d'], found())
