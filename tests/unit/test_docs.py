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


"""The documentation says only what the programs understand.

Commands go through the programs' own parsers, options through oslo.config,
and messages that are quoted are looked for in the source.
"""

import ast
from collections.abc import Iterator
import contextlib
import functools
import io
import itertools
import pathlib
import re
import shlex
import tempfile

from oslo_config import cfg
from oslo_log import log as logging
from oslo_messaging import opts as messaging_opts
from oslo_policy import opts as policy_opts
from oslo_upgradecheck import upgradecheck
import testtools

from vmip_plugin.cmd import manage
from vmip_plugin.cmd import status
from vmip_plugin import conf as vmip_conf
from vmip_plugin.conf import opts

ROOT = pathlib.Path(__file__).parents[2]
SOURCE = ROOT / 'doc' / 'source'
PAGES = sorted([*SOURCE.glob('*.rst'), *ROOT.glob('*.md'),
                *ROOT.glob('devstack/*.md'), *ROOT.glob('deploy/**/*.md')])
DAEMONS = ('vmip-agent', 'vmip-listener', 'vmip-reclaimer')
#: sections of Nova's and Neutron's own files
FOREIGN = {'ml2', 'notifications', 'service', 'oslo_messaging_notifications'}
#: options of theirs in [DEFAULT]
FOREIGN_DEFAULT = {'ipam_driver', 'service_plugins'}

_END = re.compile(r'[|;&<>]+')


class Wrong(Exception):
    """What a page says is not so."""


def unfold(text: str) -> str:
    """Put the lines of a command together."""
    return re.sub(r'\\\n\s*', ' ', text)


def blocks(path: pathlib.Path) -> Iterator[str]:
    """Yield each line in a block of code, without prompt or indent."""
    text = unfold(path.read_text())
    if path.suffix == '.md':
        text = '\n'.join(re.findall(
            r'(?ms)^```(?:console|bash|sh)\n(.*?)^```', text))
        lines = text.splitlines()
    else:
        lines = [line for line in text.splitlines() if line.startswith(' ')]
    for line in lines:
        yield re.sub(r'^[$#] ', '', line.strip())


def inline(path: pathlib.Path) -> Iterator[str]:
    """Yield each literal in running text."""
    text = path.read_text()
    if path.suffix == '.md':
        text = re.sub(r'(?ms)^```.*?^```', '', text)
        found = re.findall(r'(?s)`([^`]+)`', text)
    else:
        found = re.findall(r'(?s)``(.+?)``', text)
    for literal in found:
        yield ' '.join(literal.split())


def commands(line: str) -> Iterator[list[str]]:
    """Yield the commands of a line that run a program of ours."""
    line = re.sub(r'\$\([^)]*\)', 'VALUE', line)
    try:
        words = shlex.split(line, comments=True)
    except ValueError:      # running text in an indented paragraph
        return
    command: list[str] = []
    for word in [*words, ';']:
        first, end = (word[:-1], True) if word.endswith(';') else (
            word, _END.fullmatch(word) is not None)
        if first and not _END.match(first):
            command.append(first)
        if end:
            yield from ours(command)
            command = []


def ours(command: list[str]) -> Iterator[list[str]]:
    """Yield a command from our program's name on."""
    for number, word in enumerate(command):
        name = word.rpartition('/')[2].removeprefix('ExecStart=')
        if name in ('vmip-manage', 'vmip-status') or (
                name in DAEMONS and (not number or '/' in word)):
            yield [name, *command[number + 1:]]
            return


@functools.cache
def app() -> manage.Manage:
    return manage.Manage()


def parse(command: list[str]) -> None:
    """Have a program's parser read a command.

    :raises Wrong: it does not understand.
    """
    said = io.StringIO()
    with tempfile.NamedTemporaryFile(suffix='.conf') as empty, \
            contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        args = [empty.name if before == '--config-file' else word
                for before, word in itertools.pairwise(command)]
        try:
            if command[0] == 'vmip-manage':
                parser, left = find(args)
                parser.parse_args(left)
            elif command[0] == 'vmip-status':
                conf = vmip_conf.new()
                upgradecheck.register_cli_options(conf, status.Checks(conf))
                conf(args, default_config_files=[])
            else:
                conf = vmip_conf.new()
                logging.register_options(conf)
                vmip_conf.parse(conf, args, command[0])
        except SystemExit as exc:
            if exc.code:
                raise Wrong(f'{shlex.join(command)}: {said.getvalue()}'
                            ) from exc
        except (ValueError, cfg.Error) as exc:
            raise Wrong(f'{shlex.join(command)}: {exc}') from exc


def find(args: list[str]) -> tuple[manage.argparse.ArgumentParser, list[str]]:
    """Return the parser of a command of vmip-manage, and what is left."""
    _, left = app().parser.parse_known_args(args)
    factory, name, left = app().command_manager.find_command(left)
    return factory(app(), None).get_parser(name), left


def mention(literal: str) -> None:
    """Look at a command in running text, which may be only its beginning.

    :raises Wrong: there is none that begins so, or it has not the options.
    """
    program, *words = shlex.split(literal)
    if program in DAEMONS:
        return parse([program, *words]) if words else None
    if program != 'vmip-manage':
        return parse([program, *words]) if words else None
    words = [word for word in words if word != '...']
    if not words:
        return None
    try:
        parser, left = find(words)
    except ValueError as exc:
        known = [name for name, _ in app().command_manager]
        if not any(name.split()[:len(words)] == words for name in known):
            raise Wrong(f'{literal}: {exc}') from exc
        return None
    known = parser._option_string_actions
    for word in left:
        if word.startswith('-') and word.partition('=')[0] not in known:
            raise Wrong(f'{literal}: there is no {word}')
    return None


@functools.cache
def options() -> dict[str, set[str]]:
    """Return the names of all options by group."""
    found: dict[str, set[str]] = {}
    log = cfg.ConfigOpts()
    logging.register_options(log)
    listed = [*opts.list_opts(), *messaging_opts.list_opts(),
              *policy_opts.list_opts()]
    for group, some in listed:
        found.setdefault(str(group or 'DEFAULT'), set()).update(
            opt.dest for opt in some)
    found['DEFAULT'].update(name for name in log if name != 'config_file')
    return found


def option(group: str, name: str) -> None:
    """See that there is an option.

    :raises Wrong: there is none.
    """
    if group in FOREIGN or group.startswith('hook:'):
        return
    if not group:
        known = set().union(*options().values())
    elif group.startswith('dhcp:') and group not in options():
        known = set().union(*(names for where, names in options().items()
                              if where.startswith('dhcp:')))
    elif group in options():
        known = options()[group]
    else:
        raise Wrong(f'There is no group [{group}]')
    if name and name not in known:
        if group != 'DEFAULT' or name not in FOREIGN_DEFAULT:
            raise Wrong(f'There is no [{group}] {name}')


def settings(text: str) -> Iterator[tuple[str, str]]:
    """Yield (group, option) of each line of a configuration file.

    The group is empty where a part of a file does not tell it.
    """
    group = ''
    for line in text.splitlines():
        if match := re.match(r'\s*\[([^]]+)\]\s*$', line):
            group = match[1]
        elif match := re.match(r'\s*([a-z][a-z0-9_]*)\s*=', line):
            yield group, match[1]


def inis(path: pathlib.Path) -> Iterator[str]:
    """Yield the blocks of a page that are configuration files."""
    for match in re.finditer(
            r'(?m)^( *)\.\. code-block:: ini\n((?:\1 +.*\n|\n)+)',
            path.read_text() + '\n'):
        yield match[2]


@functools.cache
def messages() -> str:
    """Return every text in the source, one a line."""
    found = []
    for path in sorted((ROOT / 'vmip_plugin').rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(' '.join(node.value.split()))
    return '\n'.join(found)


def quoted(message: str) -> None:
    """See that a message, with ``...`` for what varies, is in the source.

    :raises Wrong: it is not.
    """
    for part in message.split('...'):
        if part.strip() and part.strip() not in messages():
            raise Wrong(f'No program says {part.strip()!r}')


class TestDocs(testtools.TestCase):

    def each(self, found: Iterator[tuple[pathlib.Path, Wrong]],
             ) -> None:
        self.assertEqual([], [f'{path.relative_to(ROOT)}: {wrong}'
                              for path, wrong in found])

    def test_commands(self) -> None:
        seen = set()

        def wrong() -> Iterator[tuple[pathlib.Path, Wrong]]:
            for path in PAGES:
                for line in blocks(path):
                    for command in commands(line):
                        seen.add(' '.join(command[:2]))
                        try:
                            parse(command)
                        except Wrong as exc:
                            yield path, exc

        self.each(wrong())
        self.assertLess({'vmip-manage enable', 'vmip-manage pool',
                         'vmip-status upgrade', 'vmip-manage db',
                         'vmip-listener --config-file'}, seen)

    def test_commands_in_running_text(self) -> None:
        def wrong() -> Iterator[tuple[pathlib.Path, Wrong]]:
            for path in PAGES:
                for literal in inline(path):
                    if re.match(r'vmip-(manage|status) |'
                                r'vmip-(agent|listener|reclaimer) --',
                                literal):
                        try:
                            mention(literal)
                        except Wrong as exc:
                            yield path, exc

        self.each(wrong())

    def test_every_command_is_there(self) -> None:
        text = ' '.join(' '.join(path.read_text().split()) for path in PAGES)
        self.assertEqual(
            [], [name for name, _ in app().command_manager
                 if name not in ('help', 'complete') and name not in text])

    def test_options(self) -> None:
        def wrong() -> Iterator[tuple[pathlib.Path, Wrong]]:
            for path in PAGES:
                found = [
                    (match[1], match[2] or '') for literal in inline(path)
                    if (match := re.match(r'\[([a-z_A-Z:]+)\] ?([a-z_0-9]*)',
                                          literal))]
                for text in inis(path):
                    found.extend(settings(text))
                for group, name in found:
                    try:
                        option(group, name)
                    except Wrong as exc:
                        yield path, exc

        self.each(wrong())

    def test_examples(self) -> None:
        def wrong() -> Iterator[tuple[pathlib.Path, Wrong]]:
            files = [path for path in (ROOT / 'doc/examples').rglob('*.conf')
                     if re.search(r'(?m)^\[(dhcp|agent)', path.read_text())]
            self.assertGreater(len(files), 3)
            for path in files:
                for group, name in settings(path.read_text()):
                    try:
                        option(group, name)
                    except Wrong as exc:
                        yield path, exc

        self.each(wrong())

    def test_messages(self) -> None:
        """The terms of troubleshooting.rst are said by the programs."""
        path = SOURCE / 'troubleshooting.rst'
        terms = [' '.join(term.split()) for term in re.findall(
            r'(?m)^``(.+?)``(?=\n   )', path.read_text())]
        self.assertGreater(len(terms), 20)

        def wrong() -> Iterator[tuple[pathlib.Path, Wrong]]:
            for term in terms:
                try:
                    quoted(term)
                except Wrong as exc:
                    yield path, exc

        self.each(wrong())


class TestItself(testtools.TestCase):
    """What is wrong is seen."""

    def test_commands(self) -> None:
        for line in ('vmip-manage pool make x',
                     'vmip-manage pool create x --subnet s --colour red',
                     'vmip-manage pool create x',
                     'sudo -u vmip vmip-manage address list --state lost',
                     'vmip-manage db upgrade; vmip-manage db downgrade',
                     'cat x | vmip-manage reservation import - --pool',
                     'vmip-status downgrade check', 'vmip-listener --fast',
                     'ExecStart=/opt/vmip/bin/vmip-agent --fast'):
            self.assertRaises(
                Wrong, lambda line=line: [parse(c) for c in commands(line)])
        for line in ('vmip-manage --config-file x.conf db upgrade && true',
                     'vmip-manage address list -f csv > list.csv',
                     'for name in vmip-listener vmip-agent; do',
                     'systemctl enable --now vmip-listener'):
            for command in commands(line):
                parse(command)

    def test_mentions(self) -> None:
        mention('vmip-manage pool')
        mention('vmip-manage pool set --dhcp-server')
        for literal in ('vmip-manage pond', 'vmip-manage pool sell',
                        'vmip-manage pool set --colour'):
            self.assertRaises(Wrong, mention, literal)

    def test_options(self) -> None:
        for group, name in (('reclaimer', 'check_interval'),
                            ('dhcp:site1', 'hostsdir'),
                            ('DEFAULT', 'log_dir'), ('cloud', 'auth_type')):
            option(group, name)
        for group, name in (('reclaimer', 'colour'), ('dhcp:site1', 'colour'),
                            ('DEFAULT', 'colour'), ('colours', '')):
            self.assertRaises(Wrong, option, group, name)

    def test_messages(self) -> None:
        quoted('Port ... still has ...: its release is taken back')
        self.assertRaises(Wrong, quoted, 'Port ... was sold')
