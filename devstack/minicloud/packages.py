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

"""What has to be on the machine: Debian's packages, the driver of ours."""

from collections.abc import Iterator
import contextlib
import hashlib
import os
from pathlib import Path
import shutil
import subprocess

from minicloud import process
from minicloud import settings

# The servers without the packages that would start them, where there are
# such; for RabbitMQ, PostgreSQL and Prometheus there are not.
PACKAGES = (
    'rabbitmq-server', 'mariadb-server-core', 'mariadb-client-core',
    'libvirt-daemon', 'libvirt-daemon-driver-qemu', 'libvirt-clients',
    'qemu-system-x86', 'qemu-utils', 'dnsmasq-base', 'iproute2', 'tcpdump',
    'isc-dhcp-client', 'udhcpc', 'dhcpcd-base', 'busybox-static', 'cpio',
    # dhcp_release, beside which the agent is measured
    'dnsmasq-utils',
    'xz-utils', 'libvirt-dev', 'pkg-config', 'gcc', 'python3-dev',
    # for the tests of the list on other databases
    'postgresql-15', 'galera-4',
    # for the tests of the DHCP drivers
    'dbus-daemon', 'isc-dhcp-server', 'kea-dhcp4-server', 'kea-dhcp6-server',
    'kea-ctrl-agent', 'kea-admin',
    # for the tests of the DevStack plugin
    'patch', 'shellcheck',
    # for the commands of the documentation
    'sqlite3',
    # for the tests of etc/; of Prometheus only promtool
    'logrotate', 'prometheus', 'systemd')

POLICY = Path('/usr/sbin/policy-rc.d')
POLICY_TEXT = '''#!/bin/sh
# Of vmip-plugin's devstack/minicloud, for the time of one apt-get.
exit 101
'''

CREATECLUSTER = Path(
    '/etc/postgresql-common/createcluster.d/vmip-minicloud.conf')


def missing() -> list[str]:
    """Return the packages that are not installed."""
    done = subprocess.run(
        ['dpkg-query', '-W', '-f', '${Package} ${db:Status-Status}\\n',
         *PACKAGES], capture_output=True, text=True, check=False)
    have = {name for name, _, status in
            (line.partition(' ') for line in done.stdout.splitlines())
            if status == 'installed'}
    return [name for name in PACKAGES if name not in have]


@contextlib.contextmanager
def _no_daemons() -> Iterator[None]:
    """Let no package start its daemon."""
    # One of ours that is there was left by an install that was killed.
    if POLICY.exists() and POLICY.read_text() != POLICY_TEXT:
        yield
        return
    POLICY.write_text(POLICY_TEXT)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


@contextlib.contextmanager
def _no_cluster() -> Iterator[None]:
    """Let PostgreSQL's package make no databases of its own."""
    parents = [folder for folder in CREATECLUSTER.parents
               if not folder.exists()]
    CREATECLUSTER.parent.mkdir(parents=True, exist_ok=True)
    CREATECLUSTER.write_text('create_main_cluster = false\n')
    try:
        yield
    finally:
        CREATECLUSTER.unlink()
        for folder in parents:
            # the package is in its own by now
            with contextlib.suppress(OSError):
                folder.rmdir()


def install() -> None:
    """Install the packages that are missing.

    :raises Failure: apt-get failed.
    """
    names = missing()
    if not names:
        return
    command = ['apt-get', 'install', '-y', '--no-install-recommends', *names]
    extra = {'DEBIAN_FRONTEND': 'noninteractive'}
    with _no_daemons(), _no_cluster():
        try:
            process.run(command, 'apt', extra)
        except process.Failure:
            # The lists of packages may be old, or there may be none.
            process.run(['apt-get', 'update'], 'apt')
            process.run(command, 'apt', extra)


def digest(folder: Path) -> str:
    """Return a fingerprint of the files in a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            total.update(path.name.encode() + b'\0' + path.read_bytes())
    return total.hexdigest()


def check_venv() -> None:
    """See that the services are there.

    :raises Failure: they are not.
    """
    for name in ('nova-compute', 'neutron-rpc-server', 'keystone-manage',
                 'glance-manage', 'placement-manage', 'uwsgi'):
        if not (settings.VENV / 'bin' / name).exists():
            raise process.Failure(
                f'{settings.VENV} has no bin/{name}. Make it with\n'
                f'  python3 -m venv {settings.VENV}\n'
                f'  {settings.VENV}/bin/pip install'
                f' -c {settings.HERE}/constraints.txt'
                f' -r {settings.HERE}/requirements.txt\n'
                'or name another one in VMIP_VENV. (libvirt-python needs the'
                ' packages of "minicloud install".)')


def check_vmip() -> None:
    """See that the plugin is in the venv.

    :raises Failure: it is not.
    """
    names = ('vmip-manage', 'vmip-listener', 'vmip-reclaimer', 'vmip-agent')
    absent = [name for name in names
              if not (settings.VENV / 'bin' / name).exists()]
    if absent:
        raise process.Failure(
            f'the plugin is not in {settings.VENV}: no {", ".join(absent)}.'
            f' Install it with\n  {settings.VENV}/bin/pip install -e'
            f' {settings.CHECKOUT}\nor leave it out with --no-vmip.')


def install_driver() -> None:
    """Put Neutron's mechanism driver into the venv, unless it is there."""
    source = settings.HERE / 'mech'
    # In the venv, since one venv may serve many states.
    mark = settings.VENV / 'minicloud-tap.digest'
    wanted = digest(source)
    if mark.exists() and mark.read_text() == wanted:
        return
    # A copy: setuptools would leave its build beside the source.
    copy = settings.STATE / 'build/mech'
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(source, copy)
    process.run([settings.VENV / 'bin/python', '-m', 'pip', 'install',
                 '--no-deps', '--force-reinstall', copy], 'pip', {
                     'PIP_DISABLE_PIP_VERSION_CHECK': '1'})
    mark.write_text(wanted)


def check_root() -> None:
    """See that the user may do all this.

    :raises Failure: not root, or not Debian.
    """
    if os.geteuid():
        raise process.Failure('only root can make bridges and namespaces')
    if not shutil.which('apt-get'):
        raise process.Failure('no apt-get: this is written for Debian 12')
