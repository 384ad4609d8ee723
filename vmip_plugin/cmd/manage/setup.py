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


"""vmip-manage enable, vmip-manage disable: the filter in nova-api."""

import argparse
from collections.abc import Iterator
import contextlib
import difflib
import fcntl
import io
import os
import pathlib
import shutil

from cliff import command

from vmip_plugin.cmd.manage import paste
from vmip_plugin import conf as vmip_conf
from vmip_plugin import exceptions

DEFAULT_FILE = '/etc/nova/api-paste.ini'

_LEFT_TO_ENABLE = '''\
What is left to do by hand (the documentation has each step):
  nova.conf       [oslo_messaging_notifications] driver = messagingv2
                  [notifications] notification_format = both
  neutron.conf    [DEFAULT] ipam_driver = vmip, and vmip as one more of
                  [DEFAULT] service_plugins
                  [oslo_messaging_notifications] driver = messagingv2
  ml2_conf.ini    in strict mode only: vmip as the last of [ml2]
                  mechanism_drivers
  the list        vmip-manage db upgrade, then vmip-manage pool create ...
  restart         nova-api, neutron-server (with its rpc server), and for
                  nova.conf nova-compute, nova-conductor and nova-scheduler
  start           vmip-listener, vmip-reclaimer; vmip-agent where the guests'
                  bridge is
  see             vmip-status upgrade check
'''

_LEFT_TO_DISABLE = '''\
What is left to do by hand (the documentation has each step):
  neutron.conf    [DEFAULT] ipam_driver as it was before; vmip out of
                  service_plugins
  ml2_conf.ini    vmip out of [ml2] mechanism_drivers
  restart         nova-api, neutron-server (with its rpc server)
  stop            vmip-listener, vmip-reclaimer, vmip-agent
  nova.conf, neutron.conf
                  notifications, if nobody else reads them
'''


class _Change(command.Command):
    """What both have in common."""

    left = ''

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            'file', nargs='?', type=pathlib.Path, metavar='FILE',
            default=pathlib.Path(DEFAULT_FILE),
            help='nova-api\'s paste file (default: %(default)s)')
        parser.add_argument('--dry-run', action='store_true',
                            help='show what would be changed, change nothing')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        # What a link leads to is changed, not the link.
        path = parsed_args.file.resolve()
        try:
            with _locked(path.parent):
                self._change(path, parsed_args.dry_run)
        except OSError as exc:
            raise exceptions.ConfigError(
                f'{path} was not changed: {exc.strerror or exc}') from exc
        except exceptions.ConfigError as exc:
            raise exceptions.ConfigError(
                f'{path} was not changed: {exc}') from exc
        print(self.left, end='', file=self.app.stderr)

    def _change(self, path: pathlib.Path, dry_run: bool) -> None:
        # Whatever is in a comment comes out as it went in.
        old = path.read_bytes().decode('utf-8', 'surrogateescape')
        new = self.text(paste.PasteFile(old))
        if new == old:
            self.tell(f'{path} is as it should be.')
        elif dry_run:
            self.app.stdout.write(_diff(path, old, new))
            self.tell(f'{path} would be changed so; nothing was done.')
        else:
            self.write(path, new.encode('utf-8', 'surrogateescape'))
            self.app.stdout.write(_diff(path, old, new))
            self.tell(f'{path} is changed.')

    def tell(self, text: str) -> None:
        print(text, file=self.app.stderr)

    def text(self, file: paste.PasteFile) -> str:
        """Return the text that the file should have."""
        raise NotImplementedError

    def write(self, path: pathlib.Path, data: bytes) -> None:
        """Change the file."""
        raise NotImplementedError


class Enable(_Change):
    """Put the filter into nova-api's paste file.

    It stands after the filter that makes the request's context, in every
    pipeline of the compute API. A copy of the file as it was stays beside it.
    Once it is in, nothing is changed.
    """

    left = _LEFT_TO_ENABLE

    def text(self, file: paste.PasteFile) -> str:
        config = os.path.abspath(self.app.options.config_file)
        # Without one, nova-api would refuse every server.
        vmip_conf.load(config)
        return file.enabled(config)

    def write(self, path: pathlib.Path, data: bytes) -> None:
        copy = _new_copy(path)
        if copy is not None:
            _replace(copy, path.read_bytes(), path)
            self.tell(f'{copy} is a copy of it.')
        _replace(path, data, path)


class Disable(_Change):
    """Take the filter out of nova-api's paste file again.

    The file is as it was before "enable", but for what others have changed
    since; a copy that "enable" left is removed if it says the same.
    """

    left = _LEFT_TO_DISABLE

    def text(self, file: paste.PasteFile) -> str:
        new = file.disabled()
        if paste.PasteFile(new).has_section():
            self.tell(f'[filter:{paste.FILTER}] was not put in by "enable" '
                      f'and stays, unused.')
        return new

    def write(self, path: pathlib.Path, data: bytes) -> None:
        _replace(path, data, path)
        for copy in _copies(path):
            if copy.read_bytes() == data:
                copy.unlink()
            else:
                self.tell(f'{copy} is older and stays.')


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Let nobody else of us change files in a folder."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as exc:
        raise exceptions.ConfigError(
            'another vmip-manage is about to change it') from exc
    finally:
        os.close(lock)


def _diff(path: pathlib.Path, old: str, new: str) -> str:
    def lines(text: str) -> list[str]:
        return io.StringIO(text, newline='\n').readlines()

    return ''.join(
        line if line.endswith('\n') else
        f'{line}\n\\ No newline at end of file\n'
        for line in difflib.unified_diff(lines(old), lines(new), str(path),
                                         str(path))
    ).encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')


def _copies(path: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path.parent.glob(f'{path.name}.before-vmip*'))


def _new_copy(path: pathlib.Path) -> pathlib.Path | None:
    """Return the name for one more copy; None if there is such a copy."""
    found = _copies(path)
    if any(copy.read_bytes() == path.read_bytes() for copy in found):
        return None
    names = (path.with_name(f'{path.name}.before-vmip{end}')
             for end in ('', *(f'.{n}' for n in range(1, len(found) + 1))))
    return next(name for name in names if name not in found)


def _replace(path: pathlib.Path, data: bytes, like: pathlib.Path) -> None:
    """Give a file its text at once, with another's owner and mode.

    :raises OSError: it could not be written; it is as it was.
    """
    # One that was killed has left its own; the lock says that it is gone.
    new = path.with_name(f'.{path.name}.vmip-new')
    new.unlink(missing_ok=True)
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
                  'wb') as file:
            stat = like.stat()
            if (stat.st_uid, stat.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), stat.st_uid, stat.st_gid)
            # after the owner, which takes some bits away
            shutil.copystat(like, new)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.utime(new)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
