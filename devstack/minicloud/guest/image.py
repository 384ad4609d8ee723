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

"""The guest: Debian's cloud kernel with an initramfs of busybox."""

from pathlib import Path
import re
import shutil
import subprocess
import time

from minicloud import packages
from minicloud import process
from minicloud import settings

HERE = Path(__file__).resolve().parent
KERNEL = settings.GUEST / 'vmlinuz'
INITRD = settings.GUEST / 'initrd'
# edd=off and nokaslr: less to do for an emulated machine.
COMMAND_LINE = 'console=ttyS0 panic=-1 loglevel=4 edd=off nokaslr'

APPLETS = ('sh', 'mount', 'insmod', 'ip', 'udhcpc', 'echo', 'cat', 'sleep',
           'poweroff', 'cut', 'acpid')
MODULES = ('failover', 'net_failover', 'virtio_ring', 'virtio',
           'virtio_pci_modern_dev', 'virtio_pci_legacy_dev', 'virtio_pci',
           'virtio_net', 'button', 'evdev')

PROBE_SECONDS = 10


def build() -> None:
    """Make kernel and initramfs, unless they are there."""
    mark = settings.GUEST / 'digest'
    wanted = packages.digest(HERE)
    if mark.exists() and mark.read_text() == wanted:
        return
    work = settings.GUEST / 'build'
    shutil.rmtree(work, ignore_errors=True)
    root = work / 'root'
    for name in ('bin', 'dev', 'proc', 'sys', 'etc/acpi/PWRF', 'lib/modules'):
        (root / name).mkdir(parents=True)
    tree = _kernel(work)
    [modules] = (tree / 'lib/modules').iterdir()
    shutil.copy('/bin/busybox', root / 'bin/busybox')
    for name in APPLETS:
        (root / 'bin' / name).symlink_to('busybox')
    for name in MODULES:
        # What is not there is built into the kernel.
        for path in modules.rglob(f'{name}.ko'):
            shutil.copy(path, root / 'lib/modules')
    for source, target in (('init', 'init'), ('lease', 'etc/lease'),
                           ('poweroff', 'etc/acpi/PWRF/00000080')):
        shutil.copy(HERE / source, root / target)
    # Not compressed: an emulated machine would take long to undo it.
    with open(INITRD, 'wb') as initrd:
        names = '\n'.join(str(path.relative_to(root))
                          for path in sorted(root.rglob('*')))
        subprocess.run(['cpio', '-o', '-H', 'newc', '--quiet'], cwd=root,
                       input=names.encode(), stdout=initrd, check=True)
    [kernel] = (tree / 'boot').glob('vmlinuz-*')
    shutil.copy(kernel, KERNEL)
    shutil.rmtree(work)
    (settings.GUEST / 'command_line').write_text(COMMAND_LINE)
    (settings.GUEST / 'kvm').unlink(missing_ok=True)
    mark.write_text(wanted)


def _kernel(work: Path) -> Path:
    """Fetch and unpack, but not install, the kernel's package."""
    cached = settings.GUEST / 'kernel.deb'
    if not cached.exists():
        text = subprocess.run(
            ['apt-cache', 'depends', 'linux-image-cloud-amd64'],
            capture_output=True, text=True, check=False).stdout
        match = re.search(r'Depends: (linux-image-\S+)', text)
        if not match:
            raise process.Failure('apt knows no linux-image-cloud-amd64; '
                                  'apt-get update may help')
        process.run(['sh', '-c', 'cd "$1" && apt-get download "$2"', 'sh',
                     work, match[1]], 'apt')
        [package] = work.glob('linux-image-*.deb')
        package.rename(cached)
    process.run(['dpkg', '-x', cached, work / 'tree'], 'apt')
    return work / 'tree'


def virt_type() -> str:
    """Return 'kvm' if a guest boots with it, else 'qemu'.

    That /dev/kvm can be opened is not enough: inside another virtual
    machine a guest may still hang.
    """
    answer = settings.GUEST / 'kvm'
    if not answer.exists():
        answer.write_text('kvm' if Path('/dev/kvm').exists() and _probe()
                          else 'qemu')
    return answer.read_text()


def _probe() -> bool:
    log = settings.LOG / 'kvm-probe.log'
    log.unlink(missing_ok=True)
    service = process.Service('kvm-probe')
    child = service.start(
        ['qemu-system-x86_64', '-accel', 'kvm', '-m', '192', '-nodefaults',
         '-display', 'none', '-serial', 'stdio', '-no-reboot', '-kernel',
         str(KERNEL), '-initrd', str(INITRD), '-append', COMMAND_LINE], {}, '')
    end = time.monotonic() + PROBE_SECONDS
    try:
        while time.monotonic() < end and child.poll() is None:
            if b'GUEST up' in log.read_bytes():
                return True
            time.sleep(0.1)
        return False
    finally:
        process.kill(['kvm-probe'])
