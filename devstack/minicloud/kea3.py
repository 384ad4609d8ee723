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

"""Kea 3, which Debian 12 does not have: its files in a folder of ours.

They are those of Debian's newer packages, and of the libraries that these
need, from the machine's own mirror. The machine's packages and lists are not
touched, and the programs run beside them: see :func:`command`.
"""

from pathlib import Path
import shutil
import subprocess

from minicloud import process
from minicloud import settings

SUITE = 'sid'
PACKAGES = ('kea-dhcp4-server', 'kea-dhcp6-server', 'kea-admin')
STAMP = f'{SUITE} {" ".join(PACKAGES)}\n'

ROOT = settings.STATE / 'kea3'
KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'


def ready() -> bool:
    """Tell whether the folder is complete."""
    try:
        return (ROOT / 'complete').read_text() == STAMP
    except FileNotFoundError:
        return False


def command(name: str) -> list[str]:
    """Return the command of a program with the libraries it was built for.

    :param name: such as ``kea-dhcp4``.
    """
    libraries = _libraries()
    # the loader by its own name: links to it are absolute, or lie in /lib64
    loader = next(libraries.glob('ld-linux*.so.*'))
    return [str(loader), '--library-path', str(libraries),
            str(ROOT / 'usr/sbin' / name)]


def hook(name: str) -> str:
    """Return the path of a hook library, such as ``lease_cmds``."""
    return str(_libraries() / f'kea/hooks/libdhcp_{name}.so')


def _libraries() -> Path:
    return next(ROOT.glob('usr/lib/*-linux-gnu'))


def _mirror() -> str:
    """Return where the machine gets Debian from.

    :raises Failure: from nowhere.
    """
    found = _main_archive()
    if found is None:
        # apt tells nothing of a mirror whose lists it does not have
        process.run(['apt-get', 'update'], 'apt')
        found = _main_archive()
    if found is None:
        raise process.Failure('apt knows no mirror of Debian\'s main archive')
    return found


def _main_archive() -> str | None:
    done = subprocess.run(
        ['apt-get', 'indextargets', '--format',
         '$(LABEL) $(COMPONENT) $(REPO_URI)', 'Created-By: Packages'],
        capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        label, component, *uri = line.split(' ')
        if (label, component) == ('Debian', 'main'):
            return uri[0]
    return None


def install() -> None:
    """Make the folder, unless it is there.

    :raises Failure: apt-get or dpkg failed.
    """
    if ready():
        return
    shutil.rmtree(ROOT, ignore_errors=True)
    apt = ROOT / 'apt'
    for folder in ('lists/partial', 'cache/archives/partial'):
        (apt / folder).mkdir(parents=True)
    # What is installed there, as dpkg would have it: nothing.
    (apt / 'status').touch()
    (apt / 'sources.list').write_text(
        f'deb [signed-by={KEYRING}] {_mirror()} {SUITE} main\n')
    get: list[str | Path] = ['apt-get']
    for option in (f'Dir::Etc::sourcelist={apt}/sources.list',
                   'Dir::Etc::sourceparts=/dev/null',
                   'Dir::Etc::preferencesparts=/dev/null',
                   f'Dir::State::lists={apt}/lists',
                   f'Dir::State::status={apt}/status',
                   f'Dir::Cache={apt}/cache',
                   'APT::Sandbox::User=root'):
        get += ['-o', option]
    process.run([*get, 'update'], 'kea3')
    process.run([*get, 'install', '--download-only', '-y',
                 '--no-install-recommends', *PACKAGES], 'kea3')
    for package in (apt / 'cache/archives').glob('*.deb'):
        process.run(['dpkg', '--extract', package, ROOT], 'kea3')
    shutil.rmtree(apt)
    (ROOT / 'complete').write_text(STAMP)
