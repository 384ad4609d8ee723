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


"""vmip-manage enable and disable, on the paste files of several Novas."""

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
from unittest import mock

from paste import deploy

from tests.unit.manage import test_manage
from vmip_plugin.cmd.manage import paste
from vmip_plugin import exceptions

#: as pip installs it
STOCK = pathlib.Path(sys.prefix) / 'etc/nova/api-paste.ini'

CONTEXT = '''
[filter:keystonecontext]
paste.filter_factory = nova.api.auth:NovaKeystoneContext.factory
'''

#: the compute API's part of a file of about 2016, with noauth2
MITAKA = '''\
[composite:osapi_compute]
use = call:nova.api.openstack.urlmap:urlmap_factory
/: oscomputeversions
/v2: openstack_compute_api_v21_legacy_v2_compatible
/v2.1: openstack_compute_api_v21

[composite:openstack_compute_api_v21]
use = call:nova.api.auth:pipeline_factory_v21
noauth2 = cors compute_req_id faultwrap sizelimit noauth2 osapi_compute_app_v21
keystone = cors compute_req_id faultwrap sizelimit authtoken keystonecontext osapi_compute_app_v21

[composite:openstack_compute_api_v21_legacy_v2_compatible]
use = call:nova.api.auth:pipeline_factory_v21
noauth2 = cors compute_req_id faultwrap sizelimit noauth2 legacy_v2_compatible osapi_compute_app_v21
keystone = cors compute_req_id faultwrap sizelimit authtoken keystonecontext legacy_v2_compatible osapi_compute_app_v21

[filter:noauth2]
paste.filter_factory = nova.api.openstack.auth:NoAuthMiddleware.factory

[app:osapi_compute_app_v21]
paste.app_factory = nova.api.openstack.compute:APIRouterV21.factory

[pipeline:oscomputeversions]
pipeline = faultwrap oscomputeversionapp

[app:oscomputeversionapp]
paste.app_factory = nova.api.openstack.compute.versions:Versions.factory

[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
''' + CONTEXT    # noqa: E501

#: of about 2014: two APIs, a rate limit, and values over several lines
ICEHOUSE = '''\
[composite:openstack_compute_api_v2]
use = call:nova.api.auth:pipeline_factory
noauth: faultwrap sizelimit noauth ratelimit osapi_compute_app_v2
keystone: faultwrap sizelimit authtoken
  # who asks
  keystonecontext
    ratelimit osapi_compute_app_v2
keystone_nolimit = faultwrap sizelimit authtoken keystonecontext osapi_compute_app_v2

[composite:openstack_compute_api_v3]
use = call:nova.api.auth:pipeline_factory_v3
keystone = faultwrap sizelimit authtoken keystonecontext osapi_compute_app_v3

; it says \xe9 in Latin-1
[filter:noauth]
paste.filter_factory = nova.api.openstack.auth:NoAuthMiddleware.factory

[app:osapi_compute_app_v2]
paste.app_factory = nova.api.openstack.compute:APIRouter.factory

[app:osapi_compute_app_v3]
paste.app_factory = nova.api.openstack.compute:APIRouterV3.factory
''' + CONTEXT    # noqa: E501


class SetupTestCase(test_manage.ManageTestCase):

    def setUp(self) -> None:
        super().setUp()
        folder = self.directory / 'nova'
        folder.mkdir()
        self.file = folder / 'api-paste.ini'
        self.copy = folder / 'api-paste.ini.before-vmip'

    def write(self, text: str) -> bytes:
        self.file.write_bytes(text.encode('latin-1'))
        return self.file.read_bytes()

    def enable(self, *argv: str) -> None:
        self.assertEqual(0, self.run_('enable', str(self.file), *argv),
                         self.err)

    def disable(self, *argv: str) -> None:
        self.assertEqual(0, self.run_('disable', str(self.file), *argv),
                         self.err)

    def names(self) -> set[str]:
        return {path.name for path in self.file.parent.iterdir()}

    def values(self) -> dict[str, dict[str, str]]:
        return paste.PasteFile(self.file.read_text('latin-1')).sections


class TestFiles(SetupTestCase):

    def test_as_it_was_again(self) -> None:
        for text in (STOCK.read_text(), MITAKA, ICEHOUSE,
                     MITAKA.rstrip('\n'), ICEHOUSE.replace('\n', '\r\n'),
                     '\n\n# first\n' + MITAKA + '\n\n[DEFAULT]\nx = y'):
            before = self.write(text)
            self.enable()
            enabled = self.file.read_bytes()
            self.assertNotEqual(before, enabled)
            self.assertEqual(before, self.copy.read_bytes())
            self.assertEqual('\r\n' in text, b'vmip_plugin.nova.filter:'
                             b'filter_factory\r\n' in enabled)
            self.enable()
            self.assertIn('is as it should be', self.err)
            self.assertEqual(('', enabled), (self.out,
                                             self.file.read_bytes()))
            self.disable()
            self.assertEqual(before, self.file.read_bytes())
            self.assertEqual({'api-paste.ini'}, self.names())
            self.disable()
            self.assertIn('is as it should be', self.err)
            self.assertEqual(before, self.file.read_bytes())

    def test_every_pipeline(self) -> None:
        self.write(MITAKA)
        self.enable()
        found = self.values()
        for name in ('openstack_compute_api_v21',
                     'openstack_compute_api_v21_legacy_v2_compatible'):
            options = found[f'composite:{name}']
            self.assertIn(' noauth2 vmip ', options['noauth2'])
            self.assertIn(' keystonecontext vmip ', options['keystone'])
        self.assertEqual('faultwrap oscomputeversionapp',
                         found['pipeline:oscomputeversions']['pipeline'])
        self.assertEqual({
            'paste.filter_factory': 'vmip_plugin.nova.filter:filter_factory',
            'config_file': str(self.config)}, found['filter:vmip'])

    def test_older(self) -> None:
        self.write(ICEHOUSE)
        self.enable()
        v2 = self.values()['composite:openstack_compute_api_v2']
        self.assertIn(' noauth vmip ratelimit ', v2['noauth'])
        self.assertIn(' keystonecontext vmip ratelimit ', v2['keystone'])
        self.assertIn(' keystonecontext vmip osapi', v2['keystone_nolimit'])
        self.assertIn('\n  keystonecontext vmip\n    ratelimit ',
                      self.file.read_text('latin-1'))
        self.assertIn(
            ' keystonecontext vmip osapi',
            self.values()['composite:openstack_compute_api_v3']['keystone'])

    def test_pastedeploy(self) -> None:
        """What PasteDeploy itself reads of the file."""
        self.write(MITAKA)
        self.enable()
        found = deploy.loadfilter(f'config:{self.file}', 'vmip')
        self.assertEqual('VmipFilter', type(found(None)).__name__)

    def test_nova_loads_it(self) -> None:
        self.file.write_bytes(STOCK.read_bytes())
        self.enable()
        conf = self.directory / 'nova.conf'
        conf.write_text('[DEFAULT]\ntransport_url = fake://\n')
        names = ('openstack_compute_api_v21',
                 'openstack_compute_api_v21_legacy_v2_compatible')
        done = subprocess.run(
            [sys.executable, '-m', 'tests.unit.manage.load_paste',
             str(self.file), str(conf), *names], capture_output=True,
            text=True, timeout=120)
        self.assertEqual(0, done.returncode, done.stderr)
        for chain, after in zip(
                json.loads(done.stdout.splitlines()[-1]),
                ('APIRouterV21', 'LegacyV2CompatibleWrapper'), strict=True):
            at = chain.index('VmipFilter')
            self.assertEqual(['NovaKeystoneContext', 'VmipFilter', after],
                             chain[at - 1:at + 2])

    def test_what_others_change_meanwhile_stays(self) -> None:
        self.write(MITAKA)
        self.enable()
        text = self.file.read_text().replace(
            'compute_req_id', 'audit compute_req_id')
        self.file.write_text(text + '\n[filter:audit]\nx = y\n')
        self.disable()
        self.assertEqual(
            MITAKA.replace('compute_req_id', 'audit compute_req_id')
            + '\n[filter:audit]\nx = y\n', self.file.read_text())
        # it has what was before, which nothing else has any more
        self.assertIn('is older and stays', self.err)
        self.assertEqual(MITAKA, self.copy.read_text())
        self.enable()
        self.assertEqual({'api-paste.ini', 'api-paste.ini.before-vmip',
                          'api-paste.ini.before-vmip.1'}, self.names())
        self.assertEqual(MITAKA, self.copy.read_text())

    def test_a_pipeline_that_an_upgrade_brought_back(self) -> None:
        self.write(MITAKA)
        self.enable()
        enabled = self.file.read_text()
        self.file.write_text(enabled.replace('context vmip', 'context', 1))
        self.enable()
        self.assertEqual(enabled, self.file.read_text())

    def test_by_hand(self) -> None:
        """A section without our mark was put in by somebody else."""
        section = (f'\n[filter:vmip]\npaste.filter_factory = {paste.FACTORY}'
                   f'\nconfig_file = {self.config}\n')
        self.write(MITAKA + section)
        self.enable()
        self.assertNotIn(paste.MARK, self.file.read_text())
        self.disable()
        self.assertIn('stays, unused', self.err)
        self.assertEqual(MITAKA + section, self.file.read_text())


class TestRefused(SetupTestCase):

    def refused(self, text: str, word: str) -> None:
        before = self.write(text)
        self.fails(word, 'enable', str(self.file))
        self.assertIn('was not changed', self.err)
        self.assertEqual(before, self.file.read_bytes())
        self.assertEqual({'api-paste.ini'}, self.names())

    def test_not_understood(self) -> None:
        for text, word in (
                ('', 'no pipeline of the compute API'),
                ('not an ini file', 'cannot be read'),
                ('[a]\nx = 1\n[a]\nx = 2\n', 'cannot be read'),
                (MITAKA.replace('APIRouterV21', 'versions:Versions'),
                 'no pipeline'),
                (MITAKA.replace('nova.api.auth:Nova', 'site.auth:Site'),
                 '0 filters'),
                (MITAKA.replace(' authtoken ', ' authtoken noauth2 '),
                 '2 filters'),
                (MITAKA + '[filter-app:x]\nnext = osapi_compute_app_v21\n',
                 '0 filters'),
                (MITAKA + '[pipeline:x]\npipeline = osapi_compute_app_v21 '
                 'keystonecontext\n', '[pipeline:x] pipeline is not'),
                (MITAKA.replace('authtoken keystonecontext',
                                'vmip authtoken keystonecontext'),
                 'once, after keystonecontext'),
                (MITAKA.replace('keystonecontext osapi',
                                'keystonecontext vmip vmip osapi'),
                 'once'),
                (MITAKA + '[filter:vmip]\nuse = egg:vmip-plugin#vmip\n',
                 'is there already'),
                (MITAKA + '[filter:addresses]\npaste.filter_factory = '
                 + paste.FACTORY, 'under another name'),
                (MITAKA.replace('\n', '\r'), 'layout is not understood'),
                ('\ufeff' + MITAKA, 'cannot be read')):
            if text.startswith('\ufeff'):
                text = text.encode('utf-8').decode('latin-1')
            self.refused(text, word)

    def test_configuration(self) -> None:
        """Without one nova-api would answer every create with an error."""
        self.config = self.directory / 'missing.conf'
        self.refused(MITAKA, 'missing.conf')
        self.config = self.directory / '100%.conf'
        self.config.write_text('[dhcp]\nservers = a\n')
        self.refused(MITAKA, 'without %')

    def test_another_configuration(self) -> None:
        self.write(MITAKA)
        self.enable()
        before = self.file.read_bytes()
        config, self.config = self.config, self.directory / 'other.conf'
        self.config.write_text(config.read_text())
        self.fails(str(self.config), 'enable', str(self.file))
        self.assertEqual(before, self.file.read_bytes())

    def test_no_file(self) -> None:
        self.fails('No such file', 'enable', str(self.file))
        self.fails('No such file', 'enable', '/nowhere/api-paste.ini')
        self.fails('No such file', 'disable', str(self.file))

    def test_two_at_once(self) -> None:
        self.write(MITAKA)
        folder = os.open(self.file.parent, os.O_RDONLY)
        self.addCleanup(os.close, folder)
        fcntl.flock(folder, fcntl.LOCK_EX)
        self.fails('another vmip-manage', 'enable', str(self.file))
        fcntl.flock(folder, fcntl.LOCK_UN)
        self.enable()


class TestWriting(SetupTestCase):

    def test_dry_run(self) -> None:
        before = self.write(MITAKA)
        for command in (self.enable, self.disable):
            command('--dry-run')
            self.assertEqual(before, self.file.read_bytes())
            self.assertEqual({'api-paste.ini'}, self.names())
            if command == self.enable:
                self.assertIn('would be changed', self.err)
                self.assertIn('ipam_driver = vmip', self.err)
        self.enable('--dry-run')
        shown = self.out
        self.enable()
        self.assertEqual(shown, self.out)

    def test_a_link_stays_one(self) -> None:
        before = self.write(MITAKA)
        link = self.directory / 'link.ini'
        link.symlink_to(self.file)
        self.assertEqual(0, self.run_('enable', str(link)))
        self.assertTrue(link.is_symlink())
        self.assertNotEqual(before, self.file.read_bytes())

    def test_disk_full(self) -> None:
        before = self.write(MITAKA)
        with mock.patch('os.fsync', side_effect=OSError(28, 'No space left')):
            self.fails('No space left', 'enable', str(self.file))
        self.assertEqual(before, self.file.read_bytes())
        self.assertEqual({'api-paste.ini'}, self.names())

    def test_killed(self) -> None:
        """At each step that leads to the new file."""
        before = self.write(MITAKA)
        self.enable()
        after = self.file.read_bytes()
        ends = []
        for step in range(20):
            self.copy.unlink(missing_ok=True)
            self.file.write_bytes(before)
            pid = os.fork()
            if not pid:
                self._die_at(step)
            code = os.waitpid(pid, 0)[1]
            self.assertIn(self.file.read_bytes(), (before, after))
            ends.append(self.file.read_bytes() == after)
            if self.copy.exists():
                self.assertEqual(before, self.copy.read_bytes())
            self.enable()
            self.assertEqual(after, self.file.read_bytes())
            self.assertEqual(before, self.copy.read_bytes())
            self.assertEqual({self.file.name, self.copy.name}, self.names())
            if code == 0:
                break
            self.assertEqual(signal.SIGKILL, code)
        else:
            self.fail('it never came to its end')
        self.assertEqual({False, True}, set(ends[:-1]))

    def _die_at(self, step: int) -> None:
        """Run the command; be killed at one of its calls to the system."""
        left = step

        def count(function):  # type: ignore[no-untyped-def]
            def called(*args, **kwargs):  # type: ignore[no-untyped-def]
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*args, **kwargs)
            return called

        code = 1
        try:
            with contextlib.ExitStack() as stack:
                for name in ('os.fsync', 'os.replace', 'os.utime',
                             'shutil.copystat', 'pathlib.Path.unlink'):
                    module, _, attr = name.rpartition('.')
                    target = {'os': os, 'shutil': __import__('shutil'),
                              'pathlib.Path': pathlib.Path}[module]
                    stack.enter_context(mock.patch(
                        name, count(getattr(target, attr))))
                code = self.run_('enable', str(self.file))
        finally:
            os._exit(code)


class TestPaths(SetupTestCase):

    def test_path_of_the_configuration(self) -> None:
        file = paste.PasteFile(MITAKA)
        self.assertIn('config_file = /a b/c.conf\n',
                      file.enabled('/a b/c.conf'))
        for path in ('a.conf', '/a\n[x]', '/%(here)s', '/a ', ''):
            self.assertRaises(exceptions.ConfigError, file.enabled, path)
