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

"""The package: built, and installed where nothing else is.

pip takes what it needs from where it takes everything on this machine.
"""

import configparser
import functools
from importlib import metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import fixtures
from packaging import requirements
import testtools

CHECKOUT = pathlib.Path(__file__).parents[3]
MINICLOUD = CHECKOUT / 'devstack/minicloud'
CONSTRAINTS = MINICLOUD / 'constraints.txt'

#: Loads each entry point of the package; prints why those are not that fail.
_LOAD = '''
from importlib import metadata
import json
failed = {}
for point in metadata.distribution('vmip-plugin').entry_points:
    try:
        point.load()
    except ImportError as exc:
        failed[f'{point.group} {point.name}'] = str(exc)
print(json.dumps(failed))
'''


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(CHECKOUT / 'setup.cfg')
    return parser


class PackageTestCase(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.folder = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.venv = self.folder / 'venv'
        self.run_(sys.executable, '-m', 'venv', str(self.venv))

    def run_(self, *command: str, code: int = 0,
             cwd: pathlib.Path | None = None) -> str:
        env = {name: value for name, value in os.environ.items()
               if name not in ('PYTHONPATH', 'VMIP_CONFIG')}
        env.update(PIP_DISABLE_PIP_VERSION_CHECK='1', PIP_NO_INPUT='1',
                   PIP_ROOT_USER_ACTION='ignore', LC_ALL='C.UTF-8')
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=env, text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=600)
        self.assertEqual(code, done.returncode, done.stdout + done.stderr)
        return done.stdout if code == 0 else done.stdout + done.stderr

    def pip(self, *args: str) -> str:
        return self.run_(str(self.venv / 'bin/pip'), *args)

    def command(self, name: str, *args: str, code: int = 0) -> str:
        return self.run_(str(self.venv / 'bin' / name), *args, code=code)

    def python(self, script: str) -> str:
        return self.run_(str(self.venv / 'bin/python'), '-c', script)

    def build(self) -> tuple[pathlib.Path, pathlib.Path]:
        """Build the sdist of the files here, and the wheel of the sdist."""
        source = self.folder / 'source'
        self.run_('git', 'clone', '-q', str(CHECKOUT), str(source))
        for name in self.run_('git', 'ls-files', '-z', '-co',
                              '--exclude-standard', cwd=CHECKOUT
                              ).split('\0'):
            if name and (CHECKOUT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(CHECKOUT / name, source / name)
        # pbr packs what git knows
        self.run_('git', 'add', '-A', cwd=source)
        out = self.folder / 'dist'
        out.mkdir()
        self.run_(sys.executable, '-c', 'import sys; from pbr import build; '
                  f'build.build_sdist({str(out)!r})', cwd=source)
        sdist, = out.glob('*.tar.gz')
        self.run_(sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps',
                  '--no-build-isolation', '-w', str(out), str(sdist))
        wheel, = out.glob('*.whl')
        return sdist, wheel


class TestPackage(PackageTestCase):

    def test_alone(self) -> None:
        _, wheel = self.build()
        self.pip('install', '-q', '-c', str(CONSTRAINTS), str(wheel))
        self.pip('check')
        self._commands()
        self._entry_points()
        self._files()
        self._database()
        self._extras_are_named()

    def test_beside_nova_and_neutron(self) -> None:
        _, wheel = self.build()
        hosts = [line for line in (
            MINICLOUD / 'requirements.txt').read_text().splitlines()
            if line.startswith(('nova==', 'neutron=='))]
        self.assertEqual(2, len(hosts))
        # a newer pip than ensurepip's is not needed, only a resolver
        report = json.loads(self.pip(
            'install', '-q', '--dry-run', '--report', '-', '-c',
            str(CONSTRAINTS), *hosts, f'{wheel}[{",".join(_extras())}]'))
        found = {item['metadata']['name'].lower():
                 item['metadata']['version'] for item in report['install']}
        for line in hosts:
            name, _, version = line.partition('==')
            self.assertEqual(version, found[name])
        for name in _extras().values():
            self.assertIn(name.lower(), found)
        self.assertIn('vmip-plugin', found)

    def _commands(self) -> None:
        points = metadata.distribution('vmip-plugin').entry_points
        scripts = sorted(point.name for point in points
                         if point.group == 'console_scripts')
        self.assertIn('vmip-manage', scripts)
        for name in scripts:
            self.assertIn('usage: ', self.command(name, '--help'))
        for name in set(scripts) - {'vmip-status'}:
            self.assertRegex(self.command(name, '--version'), r'\d+\.\d+')
        text = self.command('vmip-manage', 'help')
        for point in points:
            if point.group == 'vmip_plugin.manage':
                self.assertIn(f'  {point.name.replace("_", " ")}  ', text)

    def _entry_points(self) -> None:
        """Each loads, but for those of an extra and of Neutron."""
        failed = json.loads(self.python(_LOAD).splitlines()[-1])
        for point, error in failed.items():
            group, name = point.split()
            if group.startswith('neutron.'):
                self.assertIn("'neutron", error)
            else:
                self.assertEqual('vmip_plugin.dhcp', group, error)
                self.assertIn(name, _extras())

    def _files(self) -> None:
        share = self.venv / 'share/vmip-plugin'
        for path in (CHECKOUT / 'etc').rglob('*'):
            if path.is_file() and path.suffix != '.sample':
                copy = share / path.relative_to(CHECKOUT / 'etc')
                self.assertEqual(path.read_bytes(), copy.read_bytes())
        package = pathlib.Path(self.python(
            'import vmip_plugin; print(vmip_plugin.__path__[0])').strip())
        self.assertTrue(package.is_relative_to(self.venv))
        for path in (CHECKOUT / 'vmip_plugin').rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                self.assertTrue((package / path.relative_to(
                    CHECKOUT / 'vmip_plugin')).is_file(), path)

    def _configure(self, text: str) -> str:
        path = self.folder / 'vmip.conf'
        path.write_text(text)
        return str(path)

    def _database(self) -> None:
        path = self._configure(
            f'[database]\nconnection = sqlite:///{self.folder}/db\n')
        manage = functools.partial(self.command, 'vmip-manage',
                                   '--config-file', path)
        self.assertIn('schema none -> ', manage('db', 'upgrade'))
        self.assertEqual([], json.loads(manage('pool', 'list', '-f', 'json')))
        found = {row['point']: row['result'] for row in json.loads(
            manage('doctor', '-f', 'json', '--only', 'schema', '--only',
                   'plugins', '--only', 'options'))}
        self.assertEqual(dict.fromkeys(('schema', 'plugins', 'options'),
                                       'OK'), found)

    def _extras_are_named(self) -> None:
        for extra, text in (
                ('isc', '[dhcp]\nservers=a\n[dhcp:a]\ndriver=isc\n'),
                ('dnsmasq', '[dhcp]\nservers=a\n[dhcp:a]\ndriver=dnsmasq\n'
                 'hostsdir=/h\npid_file=/p\nlease_file=/l\n'
                 'dbus_service=uk.org.thekelleys.dnsmasq\n'),
                ('mysql', '[database]\n'
                 'connection = mysql+pymysql://u:p@127.0.0.1/vmip\n'),
                ('postgresql', '[database]\n'
                 'connection = postgresql+psycopg2://u:p@127.0.0.1/vmip\n')):
            what = ('dhcp', 'doctor') if 'dhcp' in text else ('db', 'version')
            said = self.command(
                'vmip-manage', '--config-file', self._configure(text), *what,
                code=1)
            self.assertIn(f'pip install "vmip-plugin[{extra}]"'
                          if 'dhcp' in text else f'vmip-plugin[{extra}]',
                          said)
            self.assertNotIn('Traceback', said)


class TestExtras(testtools.TestCase):

    def test_the_tests_have_them_all(self) -> None:
        listed = {requirements.Requirement(line.partition('#')[0]).name
                  for line in (CHECKOUT / 'test-requirements.txt'
                               ).read_text().splitlines() if line}
        self.assertEqual(set(), set(_extras().values()) - listed)

    def test_documented(self) -> None:
        text = (CHECKOUT / 'doc/source/install.rst').read_text()
        self.assertEqual(
            set(_extras()), set(re.findall(
                r'`vmip-plugin\[(\w+)\]', text)))


def _extras() -> dict[str, str]:
    """Return the package that each extra brings."""
    return {name: requirements.Requirement(text.strip()).name
            for name, text in _setup()['extras'].items()}
