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

"""Files of Nova that vmip-manage changes as root, or may not change."""

import contextlib
import os
import stat
import subprocess

from tests.unit.manage import test_setup

MITAKA, ICEHOUSE = test_setup.MITAKA, test_setup.ICEHOUSE


class TestWriting(test_setup.SetupTestCase):

    def test_the_diff_is_a_patch(self) -> None:
        for text in MITAKA, ICEHOUSE, MITAKA.replace('\n', '\r\n'):
            self.write(text.rstrip())
            self.enable('--dry-run')
            # what a terminal shows of other bytes is no patch any more
            patch = self.out.replace('\\xe9', '\xe9').encode('latin-1')
            subprocess.run(
                ['patch', '--binary', '-s', self.file.name], input=patch,
                cwd=self.file.parent, check=True)
            patched = self.file.read_bytes()
            self.write(text.rstrip())
            self.enable()
            self.assertEqual(patched, self.file.read_bytes())
            self.disable()

    def test_owner_and_mode(self) -> None:
        self.write(MITAKA)
        os.chown(self.file, 1234, 4321)
        self.file.chmod(0o2440)
        for change, paths in ((self.enable, (self.file, self.copy)),
                              (self.disable, (self.file,))):
            change()
            for path in paths:
                found = path.stat()
                self.assertEqual((1234, 4321, 0o2440), (
                    found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)))

    def test_may_not_write(self) -> None:
        before = self.write(MITAKA)
        # loads what nobody may not read
        self.enable('--dry-run')
        for path in (self.directory, self.directory.parent):
            path.chmod(path.stat().st_mode | 0o55)
        with self._as_nobody():
            self.fails('Permission denied', 'enable', str(self.file))
        self.assertEqual(before, self.file.read_bytes())
        self.assertEqual({'api-paste.ini'}, self.names())

    @contextlib.contextmanager
    def _as_nobody(self):  # type: ignore[no-untyped-def]
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
