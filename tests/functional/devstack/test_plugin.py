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


"""The DevStack plugin, phase by phase, in a DevStack of stubs."""

import configparser
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import fixtures
import testtools

from vmip_plugin.cmd.manage import paste

HERE = pathlib.Path(__file__).parent
CHECKOUT = HERE.parents[2]
DEVSTACK = CHECKOUT / 'devstack'
STOCK = pathlib.Path(sys.prefix) / 'etc/nova/api-paste.ini'

STACK = ('stack pre-install', 'stack install', 'stack post-config',
         'stack extra', 'stack test-config')
#: what the plugin may take for granted on a machine with DevStack
COMMANDS = ('bash', 'cat', 'cp', 'dirname', 'dnsmasq', 'grep', 'install',
            'mkdir', 'mv', 'rm', 'tee', 'touch')
#: of which it is only written down that it was called
RECORDED = ('ip', 'kea-admin', 'openstack', 'ovs-vsctl', 'systemctl')

#: what DevStack leaves of Neutron's configuration
ML2 = '''\
[ml2]
mechanism_drivers = openvswitch

[ml2_type_flat]
flat_networks = public,

[ovs]
bridge_mappings = public:br-ex
'''


class PluginTestCase(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        for name in ('bin', 'venv/bin', 'etc/neutron', 'etc/nova', 'etc/kea',
                     'data'):
            (self.folder / name).mkdir(parents=True)
        for name in COMMANDS:
            path = shutil.which(name, path=os.environ['PATH']
                                + ':/usr/sbin:/sbin')
            assert path, name
            (self.folder / 'bin' / name).symlink_to(path)
        calls = self.folder / 'calls'
        for name in RECORDED:
            self.script(f'bin/{name}', f'echo {name} "$@" >>{calls}')
        self.script('bin/sudo', 'exec "$@"')
        self.script('bin/dpkg', 'echo /usr/lib/kea/libdhcp_lease_cmds.so')
        self.script('bin/openstack', f'echo openstack "$@" >>{calls}\n'
                    '[[ "$*" != *" subnet create "* ]] || echo subnet-id')
        self.script('venv/bin/vmip-manage',
                    f'echo vmip-manage "$@" >>{calls}')
        self.ml2 = self.folder / 'etc/neutron/ml2_conf.ini'
        self.paste = self.folder / 'etc/nova/api-paste.ini'
        self.kea = self.folder / 'etc/kea/kea-dhcp4.conf'
        self.kea.write_text('{ "of": "the package" }\n')
        self.fresh()

    def fresh(self) -> None:
        """Write what each run of stack.sh writes anew."""
        self.ml2.write_text(ML2)
        (self.folder / 'etc/neutron/neutron.conf').write_text('')
        self.paste.write_bytes(STOCK.read_bytes())
        (self.folder / 'vmip.sqlite').unlink(missing_ok=True)

    def use_vmip_manage(self) -> None:
        """Let the real one run, but for what needs a cloud."""
        self.script(
            'venv/bin/vmip-manage',
            f'echo vmip-manage "$@" >>{self.folder}/calls\n'
            'case " $* " in *" pool "*|*" dhcp "*) exit 0;; esac\n'
            f'PATH={os.environ["PATH"]} exec {sys.executable} -m '
            f'tests.functional.devstack.vmip_manage "$@" '
            f'>>{self.folder}/output')

    def script(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f'#!{shutil.which("bash")}\n{text}\n')
        path.chmod(0o755)

    def run_(self, *phases: str, code: int = 0, **settings: str) -> str:
        """Run phases in one shell; return what it said."""
        (self.folder / 'calls').write_text('')
        done = subprocess.run(
            ['bash', str(HERE / 'stub.sh'), str(CHECKOUT), str(self.folder),
             *phases], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=120, env={
                'PATH': os.environ['PATH'], 'PYTHON': sys.executable,
                'PYTHONPATH': str(CHECKOUT), 'LC_ALL': 'C.UTF-8',
                'HOME': str(self.folder), **settings})
        self.assertEqual(code, done.returncode, done.stdout)
        self.assertFalse((self.folder / 'unknown').exists(), done.stdout)
        return done.stdout

    def calls(self, phase: str = '') -> list[str]:
        """Return the calls, of one phase or all."""
        found: list[str] = []
        now = ''
        for line in (self.folder / 'calls').read_text().splitlines():
            words = ' '.join(shlex.split(line))
            if words.startswith('== '):
                now = words.removeprefix('== ')
            elif phase in ('', now):
                found.append(words)
        return found

    def ini(self, path: str | pathlib.Path) -> dict[str, dict[str, str]]:
        parser = configparser.RawConfigParser(default_section='')
        parser.read(self.folder / path)
        return {name: dict(parser.items(name)) for name in parser.sections()}

    def processes(self) -> dict[str, str]:
        return {words[1]: ' '.join(words[2:]) for words in (
            call.split() for call in self.calls())
            if words[0] == 'run_process'}


class TestStack(PluginTestCase):

    def test_install(self) -> None:
        self.run_(*STACK)
        self.assertEqual(
            ['echo_summary Installing the DHCP server of vmip',
             'install_package dnsmasq-base'], self.calls(STACK[0]))
        self.assertEqual(
            ['echo_summary Installing vmip',
             f'setup_develop {CHECKOUT} mysql'], self.calls(STACK[1]))
        self.assertEqual([], self.calls(STACK[4]))
        # DevStack finds the package's name in this way, or dies
        names = re.findall(r'(?m)^name.*= *(\S+)',
                           (CHECKOUT / 'setup.cfg').read_text())
        self.assertEqual(['vmip-plugin'], names)

    def test_order(self) -> None:
        self.run_(*STACK)
        calls = self.calls(STACK[2])
        for before, after in (
                ('recreate_database vmip', 'vmip-manage'),
                ('create_service_user vmip admin', 'vmip-manage')):
            self.assertIn(before, calls)
            self.assertLess(calls.index(before), next(
                n for n, call in enumerate(calls) if call.startswith(after)))
        for command in ('db upgrade', f'enable {self.paste}'):
            self.assertEqual(1, sum(call.endswith(command)
                                    for call in calls), command)
        # the L2 agent, which starts before "extra", needs it
        self.assertIn('_neutron_ovs_base_add_bridge br-vmip', calls)
        self.assertEqual(
            ['ip address replace 192.0.2.2/24 dev br-vmip',
             'ip address replace 192.0.2.1/24 dev br-vmip',
             'ip link set br-vmip up'],
            [call for call in calls if call.startswith('ip ')])

    def test_vmip_conf(self) -> None:
        self.run_(*STACK)
        path = self.folder / 'etc/vmip/vmip.conf'
        self.assertEqual(0o600, path.stat().st_mode & 0o777)
        data = f'{self.folder}/data/vmip'
        self.assertEqual({
            'DEFAULT': {'debug': 'True', 'transport_url':
                        'rabbit://stackrabbit:secret@192.0.2.250:5672/'},
            'oslo_messaging_notifications': {
                'transport_url':
                'rabbit://stackrabbit:secret@192.0.2.250:5672/'},
            'database': {'connection': f'sqlite:///{self.folder}/vmip.sqlite'},
            'cloud': {'auth_type': 'password', 'username': 'vmip',
                      'region_name': 'RegionOne',
                      'cafile': f'{self.folder}/data/ca-bundle.pem'},
            'reserve': {'address_metadata_key': 'vmip_address',
                        'address_hint_key': 'vmip_address'},
            'listener': {'poison_dir': f'{data}/poison'},
            'agent': {'interfaces': 'br-vmip',
                      'store': f'{data}/agent.sqlite'},
            'dhcp': {'servers': 'vmip'},
            'dhcp:vmip': {'driver': 'dnsmasq', 'server_id': '192.0.2.2',
                          'hostsdir': f'{data}/dhcp/hosts',
                          'pid_file': f'{data}/dhcp/dnsmasq.pid',
                          'lease_file': f'{data}/dhcp/leases'}},
            self.ini(path))
        self.assertIn(f'setup_logging {path}', self.calls())

    def test_nova(self) -> None:
        self.use_vmip_manage()
        self.run_(*STACK)
        found = paste.PasteFile(self.paste.read_text())
        self.assertEqual(2, len(found.pipelines))
        for pipeline in found.pipelines:
            self.assertIn(' keystonecontext vmip ', ' '.join(pipeline.words))
        self.assertEqual(f'{self.folder}/etc/vmip/vmip.conf',
                         found.sections['filter:vmip']['config_file'])
        format_ = self.folder / 'notification_format'
        self.assertEqual('both\n', format_.read_text())
        self.assertIn('schema none -> ',
                      (self.folder / 'output').read_text())
        self.run_(NOVA_NOTIFICATION_FORMAT='versioned')
        self.assertEqual('versioned\n', format_.read_text())

    def test_neutron(self) -> None:
        self.run_(*STACK)
        self.assertEqual({
            'DEFAULT': {'ipam_driver': 'vmip', 'service_plugins': 'vmip'},
            'oslo_messaging_notifications': {
                'driver': 'messagingv2', 'transport_url':
                'rabbit://stackrabbit:secret@192.0.2.250:5672/'}},
            self.ini('etc/neutron/neutron.conf'))
        self.assertEqual({
            'ml2': {'mechanism_drivers': 'openvswitch'},
            'ml2_type_flat': {'flat_networks': 'public,vmip'},
            'ovs': {'bridge_mappings': 'public:br-ex,vmip:br-vmip'}},
            self.ini(self.ml2))

    def test_strict(self) -> None:
        self.ml2.write_text(ML2.replace('= openvswitch',
                                        '= openvswitch, l2population'))
        for _ in range(2):
            self.run_(*STACK, VMIP_STRICT='True')
            self.assertEqual('openvswitch,l2population,vmip',
                             self.ini(self.ml2)['ml2']['mechanism_drivers'])
            self.assertEqual('public:br-ex,vmip:br-vmip',
                             self.ini(self.ml2)['ovs']['bridge_mappings'])

    def test_services(self) -> None:
        self.run_(*STACK)
        conf = f'{self.folder}/etc/vmip/vmip.conf'
        programs = f'{self.folder}/venv/bin'
        self.assertEqual({
            'vmip-dhcp': f'{self.folder}/bin/dnsmasq --keep-in-foreground '
                         f'--conf-file={self.folder}/etc/vmip/dnsmasq.conf'
                         f'  root',
            **{name: f'{programs}/{name} --config-file {conf}' for name in (
                'vmip-listener', 'vmip-reclaimer', 'vmip-agent')}},
            self.processes() | {
                'vmip-dhcp': self.processes()['vmip-dhcp'].replace(
                    ' root', '  root')})
        self.assertEqual(
            {'Service': {'ambientcapabilities': 'CAP_NET_RAW'}},
            self.ini('systemd/devstack@vmip-agent.service'))

    def test_network(self) -> None:
        self.run_(*STACK)
        cloud = 'openstack --os-cloud devstack-admin --os-region RegionOne '
        conf = f'vmip-manage --config-file {self.folder}/etc/vmip/vmip.conf '
        calls = self.calls(STACK[3])
        self.assertEqual([
            cloud + 'network create provider1 --share --provider-network-type'
            ' flat --provider-physical-network vmip',
            cloud + 'subnet create provider1-v4 --network provider1 --no-dhcp'
            ' --subnet-range 192.0.2.0/24 --gateway 192.0.2.1'
            ' --allocation-pool start=192.0.2.100,end=192.0.2.199'
            ' -f value -c id',
            conf + 'pool create provider1 --subnet subnet-id --allocator '
            'sequential --dhcp-server vmip',
            conf + 'dhcp check'], [call for call in calls if call.startswith(
                ('openstack ', 'vmip-manage '))])

    def test_options(self) -> None:
        self.run_(*STACK, DISABLED_SERVICES='vmip-agent,vmip-dhcp',
                  VMIP_ALLOCATOR='sticky', VMIP_ADDRESS_KEY='',
                  VMIP_SUBNET_RANGE='198.51.100.0/25')
        self.assertEqual({'vmip-dhcp', 'vmip-listener', 'vmip-reclaimer',
                          'vmip-agent'}, set(self.processes()))
        self.assertFalse((self.folder / 'systemd').exists())
        conf = self.ini('etc/vmip/vmip.conf')
        self.assertNotIn('dhcp', conf)
        self.assertEqual('', conf['reserve']['address_metadata_key'])
        pool = [c for c in self.calls() if ' pool create ' in c]
        self.assertNotIn('--dhcp-server', pool[0])
        self.assertIn('--allocator sticky', pool[0])

    def test_compute_node(self) -> None:
        """A host with neither database nor API, as subnodes are."""
        self.run_(*STACK, ENABLED_SERVICES='n-cpu,q-agt',
                  DISABLED_SERVICES='vmip-dhcp,vmip-listener,vmip-reclaimer')
        self.assertEqual(STOCK.read_bytes(), self.paste.read_bytes())
        self.assertEqual({}, self.ini('etc/neutron/neutron.conf'))
        self.assertEqual('public:br-ex,vmip:br-vmip',
                         self.ini(self.ml2)['ovs']['bridge_mappings'])
        for call in self.calls():
            self.assertFalse(call.startswith((
                'recreate_database', 'create_service_user', 'openstack',
                'vmip-manage')), call)

    def test_disabled(self) -> None:
        self.run_(*STACK, 'unstack', 'clean', DISABLED_SERVICES=(
            'vmip-dhcp,vmip-listener,vmip-reclaimer,vmip-agent'))
        self.assertEqual(['define_plugin vmip-plugin'], self.calls())

    def test_refused(self) -> None:
        self.assertIn('Q_AGENT=openvswitch', self.run_(
            STACK[0], code=1, Q_AGENT='ovn'))
        self.assertIn('dnsmasq or kea', self.run_(
            STACK[0], code=1, VMIP_DHCP_DRIVER='dhcpd'))
        self.assertIn('DHCP server', self.run_(
            STACK[0], code=1, DISTRO='rhel9'))

    def test_no_subnet(self) -> None:
        self.script('bin/openstack', 'exit 0')
        self.assertIn('was not made', self.run_(*STACK, code=1))


class TestKea(PluginTestCase):

    KEA = {'VMIP_DHCP_DRIVER': 'kea'}   # noqa: RUF012

    def test_stack(self) -> None:
        self.run_(*STACK, **self.KEA)
        self.assertEqual(
            ['echo_summary Installing the DHCP server of vmip',
             'install_package kea-dhcp4-server kea-admin',
             'stop_service kea-dhcp4-server'], self.calls(STACK[0]))
        self.assertIn(f'setup_develop {CHECKOUT} mysql,kea', self.calls())
        calls = self.calls(STACK[2])
        self.assertLess(
            calls.index('recreate_database kea'), calls.index(
                'kea-admin db-init mysql -h 127.0.0.1 -u root -p secret '
                '-n kea'))
        self.assertIn('add_user_to_group root _kea', calls)
        self.assertIn('systemctl daemon-reload', calls)
        self.assertEqual({'Service': {'umask': '0007'}}, self.ini(
            'systemd/kea-dhcp4-server.service.d/vmip.conf'))
        self.assertIn('restart_service kea-dhcp4-server',
                      self.calls(STACK[3]))
        self.assertNotIn('vmip-dhcp', self.processes())
        self.assertEqual({
            'driver': 'kea', 'server_id': '192.0.2.2',
            'control': '/run/kea/kea4-ctrl-socket',
            'subnets': '192.0.2.0/24=1',
            'hosts_database': f'sqlite:///{self.folder}/kea.sqlite'},
            self.ini('etc/vmip/vmip.conf')['dhcp:vmip'])

    def test_configuration(self) -> None:
        self.run_(*STACK, **self.KEA)
        dhcp4 = json.loads(self.kea.read_text())['Dhcp4']
        self.assertEqual(['br-vmip/192.0.2.2'],
                         dhcp4['interfaces-config']['interfaces'])
        subnet, = dhcp4['subnet4']
        self.assertEqual((1, '192.0.2.0/24', []), (
            subnet['id'], subnet['subnet'], subnet['pools']))
        self.assertEqual(['DROP'], [
            found['name'] for found in dhcp4['client-classes']])
        # Kea itself takes it, but for what is not on this machine
        path = self.folder / 'kea-test.conf'
        dhcp4['hooks-libraries'] = []
        dhcp4['interfaces-config']['interfaces'] = []
        del subnet['interface']
        path.write_text(json.dumps({'Dhcp4': dhcp4}))
        done = subprocess.run(['kea-dhcp4', '-t', str(path)],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)

    def test_again_and_clean(self) -> None:
        before = self.kea.read_text()
        for _ in range(2):
            self.fresh()
            self.run_(*STACK, **self.KEA)
            self.run_('unstack', **self.KEA)
            self.assertIn('stop_service kea-dhcp4-server', self.calls())
        self.run_('clean', **self.KEA)
        self.assertEqual(before, self.kea.read_text())
        self.assertEqual(['kea-dhcp4.conf'], os.listdir(self.kea.parent))


class TestEnd(PluginTestCase):

    def test_unstack(self) -> None:
        self.run_(*STACK)
        self.run_('unstack')
        calls = self.calls()
        self.assertEqual(
            {f'stop_process vmip-{name}' for name in (
                'agent', 'reclaimer', 'listener', 'dhcp')},
            {call for call in calls if call.startswith('stop_process')})
        self.assertIn('ovs-vsctl --if-exists del-br br-vmip', calls)
        self.assertNotIn('stop_service kea-dhcp4-server', calls)
        self.assertTrue((self.folder / 'etc/vmip/vmip.conf').exists())

    def test_restack(self) -> None:
        self.use_vmip_manage()
        files = {}
        for attempt in range(2):
            self.fresh()
            self.run_(*STACK)
            (self.folder / 'data/vmip/dhcp/hosts/vmip-192.0.2.100').touch()
            found = {path: path.read_text() for path in (
                self.folder / 'etc').rglob('*') if path.is_file()}
            if attempt:
                self.assertEqual(files, found)
            files = found
            self.run_('unstack')
        self.run_(*STACK)
        self.assertEqual([], os.listdir(self.folder / 'data/vmip/dhcp/hosts'))

    def test_clean(self) -> None:
        self.run_(*STACK)
        self.run_('unstack')
        self.run_('clean')
        self.assertFalse((self.folder / 'etc/vmip').exists())
        self.assertFalse((self.folder / 'data/vmip').exists())
        # again, and where nothing ever was
        self.run_('clean')

    def test_unstack_without_ovs(self) -> None:
        (self.folder / 'bin/ovs-vsctl').unlink()
        self.run_('unstack')


class TestStyle(testtools.TestCase):

    FILES = ('plugin.sh', 'settings', 'override-defaults')

    def text(self) -> str:
        return '\n'.join(line for name in self.FILES for line in
                         (DEVSTACK / name).read_text().splitlines()
                         if not line.lstrip().startswith('#'))

    def names(self, file: str) -> set[str]:
        return {line for line in (HERE / file).read_text().splitlines()
                if not line.startswith('#')}

    def test_variables(self) -> None:
        """Every variable is ours or one that DevStack sets."""
        read = set(re.findall(r'\$\{?([A-Z_a-z]\w*)', self.text()))
        own = set(re.findall(r'(?m)\b(?:local|for) (\w+)|^(\w+)=',
                             self.text()))
        own = {name for pair in own for name in pair}
        self.assertEqual(
            set(), read - own - self.names('variables.txt')
            - {'BASH_SOURCE', 'LINENO'})
        for name in read - self.names('variables.txt'):
            if name.isupper():
                self.assertTrue(name.startswith(('VMIP_', '_XTRACE_VMIP',
                                                 'BASH_', 'LINENO')), name)

    def test_every_function_is_documented_by_its_name(self) -> None:
        """None of ours has the name of one of DevStack's."""
        own = set(re.findall(r'(?m)^function (\w+)', self.text()))
        self.assertEqual(set(), own & self.names('functions.txt'))
        for name in own:
            self.assertIn('vmip', name)

    def test_bashate(self) -> None:
        # E006: DevStack has long lines as well. E005: it looks for a file
        # called "settings".
        done = subprocess.run(
            ['bashate', '-i', 'E005,E006', '-e', 'E042',
             *(str(DEVSTACK / name) for name in self.FILES)],
            capture_output=True, text=True)
        self.assertEqual((0, ''), (done.returncode, done.stdout))

    def test_shellcheck(self) -> None:
        # Set here and used there, or the other way round: DevStack sources
        # the files. Words that are to be split are of DevStack's making.
        done = subprocess.run(
            ['shellcheck', '-s', 'bash', '-e', 'SC2034,SC2086,SC2154',
             *(str(DEVSTACK / name) for name in self.FILES)],
            capture_output=True, text=True)
        self.assertEqual((0, ''), (done.returncode, done.stdout))
