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

"""What a point of ``vmip-manage doctor`` is, and how points are gone through.

A point is a function that yields what it finds. It may raise any error of
vmip's, which is a failure of the point, or :class:`NotChecked`.
"""

import argparse
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
import dataclasses
import enum
import os
import re
from typing import Any, Self

from oslo_config import cfg

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.cmd.manage import agents
from vmip_plugin.cmd.manage import arguments
from vmip_plugin import exceptions
from vmip_plugin.inventory import api

#: values by section and option
Sections = dict[str, dict[str, list[str]]]

#: Shorter ones are words, too, which a finding may need.
_SHORTEST_SECRET = 6
_SECRET_NAME = re.compile(r'pass|secret|token', re.IGNORECASE)
_URL_PASSWORD = re.compile(r'[^:@/,\s]*:([^:@/,\s]+)@')


class Level(enum.StrEnum):
    """How a point is."""

    OK = 'OK'
    WARNING = 'WARNING'
    FAIL = 'FAIL'
    NOT_CHECKED = 'NOT CHECKED'


class NotChecked(Exception):
    """A point cannot be looked at; the text says why."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found of a subject (a pool, a server, a file).

    :param what_to_do: '': what the point says in general.
    """

    level: Level
    subject: str
    text: str
    what_to_do: str = ''

    @classmethod
    def ok(cls, subject: str = '', text: str = '') -> Self:
        return cls(Level.OK, subject, text)

    @classmethod
    def warning(cls, subject: str, text: str, what_to_do: str = '') -> Self:
        return cls(Level.WARNING, subject, text, what_to_do)

    @classmethod
    def fail(cls, subject: str, text: str, what_to_do: str = '') -> Self:
        return cls(Level.FAIL, subject, text, what_to_do)


@dataclasses.dataclass(frozen=True)
class Context:
    """What the points look with.

    :param app: the program (:class:`vmip_plugin.cmd.manage.Manage`).
    :param options: the command line: ``paste_file``, ``nova_conf``,
        ``neutron_conf``, ``ml2_conf``, ``timeout`` (seconds).
    """

    app: Any
    options: argparse.Namespace

    @property
    def inventory(self) -> api.Inventory:
        """The list.

        :raises ConfigError: the configuration cannot be read.
        """
        found: api.Inventory = self.app.inventory()
        return found

    @property
    def conf(self) -> cfg.ConfigOpts:
        """The configuration, with the same errors."""
        self.app.inventory()
        found: cfg.ConfigOpts = self.app.conf
        return found

    @property
    def config_file(self) -> str:
        return str(self.app.options.config_file)

    def cloud(self) -> vmip_cloud.Cloud:
        """Return the way to Nova and Neutron, where no call hangs."""
        return vmip_cloud.Cloud(self.conf, timeout=self.options.timeout / 3)


Check = Callable[[Context], Iterable[Finding]]


@dataclasses.dataclass(frozen=True)
class Point:
    """A point.

    :param needs: points without which this one cannot be looked at.
    :param what_to_do: where a finding does not say it itself.
    :param cloud: it asks Keystone, Nova or Neutron.
    """

    name: str
    check: Check
    what_to_do: str
    needs: tuple[str, ...] = ()
    cloud: bool = False


def examine(points: Sequence[Point], context: Context, wanted: Collection[str],
            no_cloud: bool) -> Iterator[tuple[str, Finding]]:
    """Yield the names of the wanted points with what is found.

    What they need is looked at, too, and not told.
    """
    needed = set(wanted)
    for point in reversed(points):
        if point.name in needed:
            needed.update(point.needs)
    not_well: set[str] = set()
    for point in points:
        if point.name not in needed:
            continue
        missing = [name for name in point.needs if name in not_well]
        if missing:
            found = [Finding(Level.NOT_CHECKED, '',
                             f'it needs "{missing[0]}", which is not well')]
        elif point.cloud and no_cloud:
            found = [Finding(Level.NOT_CHECKED, '', '--no-cloud was given')]
        else:
            found = _look(point, context)
        if any(f.level in (Level.FAIL, Level.NOT_CHECKED) for f in found):
            not_well.add(point.name)
        if point.name in wanted:
            hide = secrets(context.config_file)
            for finding in found:
                yield point.name, _presentable(finding, point, hide)


def _look(point: Point, context: Context) -> list[Finding]:
    """Return what a point finds, also where its check hangs or breaks off."""
    found: list[Finding] = []

    def run() -> None:
        found.extend(point.check(context))

    # what the check bounds itself comes first, and says more
    error = agents.within(context.options.timeout + 1, run)
    if isinstance(error, NotChecked):
        found.append(Finding(Level.NOT_CHECKED, '', str(error)))
    elif isinstance(error, exceptions.VmipError | TimeoutError):
        found.append(Finding.fail('', str(error)))
    elif error is not None:
        found.append(Finding.fail(
            '', f'{type(error).__name__}: {error}'))
    return list(found)


def secrets(config_file: str) -> list[str]:
    """Return what must not be shown of a file, the longest first.

    The file may be one that cannot be parsed.
    """
    try:
        with open(config_file, errors='replace') as file:
            lines = file.readlines()
    except OSError:
        return []
    found: set[str] = set()
    for line in lines:
        name, _, value = line.partition('=')
        if _SECRET_NAME.search(name):
            found.add(value.strip())
        if '://' in line:
            found.update(_URL_PASSWORD.findall(line.partition('://')[2]))
    return sorted((s for s in found if len(s) >= _SHORTEST_SECRET),
                  key=len, reverse=True)


def _presentable(finding: Finding, point: Point, hide: Sequence[str],
                 ) -> Finding:
    def shown(text: str) -> str:
        for secret in hide:
            text = text.replace(secret, '***')
        return arguments.text(' '.join(text.split()))

    what_to_do = finding.what_to_do or (
        point.what_to_do if finding.level in (Level.WARNING, Level.FAIL)
        else '')
    return Finding(finding.level, shown(finding.subject), shown(finding.text),
                   shown(what_to_do))


def read(path: str) -> Sections:
    """Return the values in a file of oslo.config, by section and option.

    :raises NotChecked: it cannot be read.
    :raises ConfigError: it cannot be parsed.
    """
    sections: Sections = {}
    _parse(path, sections)
    return sections


def read_with_folder(path: str) -> Sections:
    """Return the same of a file and of those in the folder beside it.

    Nova and Neutron read both, the folder's later ones last, unless they are
    started with other ones
    (:func:`oslo_config.cfg.find_config_dirs`).

    :param path: FILE, beside which the folder is FILE.d.
    :raises NotChecked: one cannot be read.
    :raises ConfigError: one cannot be parsed.
    """
    sections = read(path)
    folder = f'{path}.d'
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        names = []
    except OSError as exc:
        raise NotChecked(f'{folder}: {exc.strerror}') from exc
    # as the pattern *.conf, which finds no hidden ones
    for name in names:
        if name.endswith('.conf') and not name.startswith('.'):
            _parse(os.path.join(folder, name), sections)
    return sections


def _parse(path: str, sections: Sections) -> None:
    """Add the values in a file behind those that are there."""
    try:
        cfg.ConfigParser(path, sections).parse()
    except OSError as exc:
        raise NotChecked(f'{path}: {exc.strerror}') from exc
    except ValueError as exc:
        raise exceptions.ConfigError(f'{path} is not text') from exc
    except Exception as exc:
        # an error of oslo.config's parser, which has the line in its text
        number = getattr(exc, 'lineno', '?')
        raise exceptions.ConfigError(
            f'{path} cannot be parsed, line {number}: '
            f'{getattr(exc, "msg", type(exc).__name__)}') from None
