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

"""Configuration: a ConfigOpts of our own, never a host service's CONF."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import functools
import os
import pwd
import re
from typing import Any

from oslo_config import cfg

from vmip_plugin.conf import agent
from vmip_plugin.conf import cloud
from vmip_plugin.conf import database
from vmip_plugin.conf import dhcp
from vmip_plugin.conf import listener
from vmip_plugin.conf import monitoring
from vmip_plugin.conf import reclaimer
from vmip_plugin.conf import reserve
from vmip_plugin.conf import urls
from vmip_plugin import exceptions
from vmip_plugin import version

DEFAULT_FILE = '/etc/vmip/vmip.conf'

GROUPS = (agent, cloud, database, dhcp, listener, monitoring, reclaimer,
          reserve)


_URLS = {
    ('database', 'connection'): urls.check_database,
    ('database', 'slave_connection'): urls.check_database,
    ('reclaimer', 'coordination_url'): urls.check_coordination}


def path() -> str:
    """Return the file that a host service without options of ours reads."""
    return os.environ.get('VMIP_CONFIG', DEFAULT_FILE)


def new() -> cfg.ConfigOpts:
    """Return a ConfigOpts that knows every option of ours, not yet parsed."""
    conf = cfg.ConfigOpts()
    for module in GROUPS:
        module.register_opts(conf)
    return conf


def parse(conf: cfg.ConfigOpts, args: Sequence[str], prog: str) -> None:
    """Read the command line and the files it names.

    :param args: without the program's name.
    :raises SystemExit: from oslo.config, for a wrong command line.
    :raises ConfigError: a file cannot be read or has a wrong value.
    """
    with reading():
        # no vmip.conf.d: host services read the one file alone
        conf(list(args), project='vmip', prog=prog, default_config_dirs=[],
             version=version.version_string())
        check_values(conf)


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Say in words of ours what is wrong with a file of oslo.config's.

    :raises ConfigError: it cannot be read or understood. The message has no
        line of it.
    """
    try:
        yield
    except (cfg.ConfigFilesNotFoundError,
            cfg.ConfigFilesPermissionDeniedError) as exc:
        name = exc.config_files[0]
        why = ('cannot be read' if os.path.exists(name)
               else 'is not there or cannot be reached')
        raise exceptions.ConfigError(
            f'{name} {why} by the user {_user()}: see that the file exists '
            'and that this user may read it') from None
    except OSError as exc:
        raise exceptions.ConfigError(
            f'{exc.filename} cannot be read: {exc.strerror}') from None
    except UnicodeDecodeError:
        raise exceptions.ConfigError(
            'the configuration file is not text in UTF-8') from None
    except cfg.ConfigFileParseError as exc:
        # without the line that it quotes
        raise exceptions.ConfigError(
            re.sub(r": '.*", '', str(exc), flags=re.DOTALL)) from None
    except cfg.Error as exc:
        raise exceptions.ConfigError(str(exc)) from None


def check_values(conf: cfg.ConfigOpts) -> None:
    """Look at every value; oslo.config does so only when it is used.

    :raises ConfigError: there is a wrong one. The message has no part of a
        password.
    """
    for name in conf:
        group = _value(conf, name, name)
        if isinstance(group, cfg.ConfigOpts.GroupAttr):
            for each in group:
                _value(group, each, f'[{name}] {each}')
    for (section, name), check in _URLS.items():
        if conf[section][name]:
            check(f'[{section}] {name}', conf[section][name])


def _value(values: Mapping[str, Any], name: str, option: str) -> Any:
    try:
        return values[name]
    except (cfg.TemplateSubstitutionError, cfg.NoSuchOptError):
        # their text has what follows the $, which may be a part of a password
        raise exceptions.ConfigError(
            f'{option}: oslo.config takes a $ for the beginning of another '
            'option\'s name: write $$ for a $') from None
    except cfg.ConfigFileValueError as exc:
        raise exceptions.ConfigError(
            f'{option}: {str(exc).partition("is not valid: ")[2] or exc}'
        ) from exc
    except cfg.Error as exc:
        raise exceptions.ConfigError(str(exc)) from exc


@functools.cache
def load(path: str = DEFAULT_FILE) -> cfg.ConfigOpts:
    """Return the options in one file, for use inside a host service.

    The host's command line and its global CONF are left alone; each process
    reads a file once.

    :raises ConfigError: the file cannot be read or has a wrong value.
    """
    conf = new()
    try:
        with reading():
            conf([], project='vmip', default_config_files=[path],
                 default_config_dirs=[])
            check_values(conf)
    except exceptions.ConfigError as exc:
        if str(exc).startswith(path):
            raise
        raise exceptions.ConfigError(f'{path}: {exc}') from None
    return conf


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
