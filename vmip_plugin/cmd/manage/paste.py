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


"""An api-paste.ini of Nova, with the filter in it or without.

Only words and lines of ours are put in and taken out: layout, comments and
line ends stay. Whether the file was understood is decided by how
configparser, with which PasteDeploy reads it, takes the new text.
"""

from collections.abc import Callable
import configparser
import dataclasses
import io
import re

from vmip_plugin import exceptions

FILTER = 'vmip'
FACTORY = 'vmip_plugin.nova.filter:filter_factory'
MARK = ('# Put in by "vmip-manage enable"; "vmip-manage disable" takes it '
        'out again.')

# The compute API, not the list of its versions.
_APP = re.compile(r'nova\.api\.openstack\.compute(\.(?!versions\b)\w+)*'
                  r':\w+\.factory')
# Where the environment gets nova.context: with Keystone and without.
_CONTEXT = re.compile(r'nova\.api\.auth:NovaKeystoneContext\.factory'
                      r'|nova\.api\.openstack\.auth:NoAuthMiddleware\w*'
                      r'\.factory')

#: values by option, by section
Sections = dict[str, dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A value that leads to the compute API, as ``[section] option``."""

    section: str
    option: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f'[{self.section}] {self.option}'


class PasteFile:
    """The text of an api-paste.ini.

    :raises ConfigError: it is not understood.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.sections = _parse(text)
        self.pipelines = self._find_pipelines()

    def enabled(self, config_file: str) -> str:
        """Return the text with the filter in every pipeline.

        :param config_file: path of vmip.conf.
        :raises ConfigError: the filter cannot be put in.
        """
        if not re.fullmatch(r'/[^%\x00-\x1f\x7f]*[^%\s\x00-\x1f\x7f]',
                            config_file):
            raise exceptions.ConfigError(
                f'{config_file!r} cannot be written into a paste file: use '
                f'an absolute path without % and control characters')
        for section, options in self.sections.items():
            if section != f'filter:{FILTER}' and any(
                    value == FACTORY or value.startswith('egg:vmip-plugin')
                    for value in options.values()):
                raise exceptions.ConfigError(
                    f'[{section}] has the filter under another name: take '
                    f'it out by hand first')
        wanted = {'paste.filter_factory': FACTORY, 'config_file': config_file}
        present = self.sections.get(f'filter:{FILTER}')
        if present not in (None, wanted):
            raise exceptions.ConfigError(
                f'[filter:{FILTER}] is there already and is not as it would '
                f'be put in, with "config_file = {config_file}": change it '
                f'by hand, or take it out with "vmip-manage disable"')
        lines = _lines(self.text)
        for pipeline in self.pipelines:
            if FILTER not in pipeline.words:
                _replace(lines, pipeline,
                         rf'(?<!\S)({re.escape(self._context(pipeline))})'
                         rf'(?!\S)', rf'\1 {FILTER}')
        if present is None:
            self._add_section(lines, wanted)
        expected = self._with(
            lambda p: _insert(p.words, self._context(p)))
        expected[f'filter:{FILTER}'] = wanted
        return _checked(lines, expected)

    def disabled(self) -> str:
        """Return the text without the filter.

        A section that does not bear ``MARK`` was not put in by
        :meth:`enabled` and stays.

        :raises ConfigError: the filter cannot be taken out.
        """
        lines = _lines(self.text)
        for pipeline in self.pipelines:
            if FILTER in pipeline.words:
                _replace(lines, pipeline, rf'(?<=\S)[ \t]+{FILTER}(?!\S)', '')
        expected = self._with(
            lambda p: tuple(w for w in p.words if w != FILTER))
        if _take_section(lines):
            expected.pop(f'filter:{FILTER}', None)
        return _checked(lines, expected)

    def has_section(self) -> bool:
        """Tell whether the filter is defined."""
        return f'filter:{FILTER}' in self.sections

    def _find_pipelines(self) -> tuple[Pipeline, ...]:
        apps = {name.removeprefix('app:')
                for name, options in self.sections.items()
                if name.startswith('app:') and _APP.fullmatch(
                    options.get('paste.app_factory', ''))}
        found = [Pipeline(section, option, tuple(value.split()))
                 for section, options in self.sections.items()
                 for option, value in options.items()
                 if not section.startswith('app:')
                 and apps & set(value.split())]
        if not found:
            raise exceptions.ConfigError(
                'no pipeline of the compute API is in it: is it the '
                'api-paste.ini of nova-api?')
        for pipeline in found:
            self._check(pipeline, apps)
        return tuple(found)

    def _check(self, pipeline: Pipeline, apps: set[str]) -> None:
        words = pipeline.words
        if words[-1] not in apps or sum(w in apps for w in words) != 1:
            raise exceptions.ConfigError(
                f'{pipeline} is not a list of filters that ends with the '
                f'compute API: put the filter in by hand')
        context = self._context(pipeline)
        if words.count(FILTER) > 1 or (
                FILTER in words
                and words.index(FILTER) < words.index(context)):
            raise exceptions.ConfigError(
                f'{FILTER} has to stand in {pipeline} once, after {context}: '
                f'change it by hand')

    def _context(self, pipeline: Pipeline) -> str:
        """Return the filter of a pipeline that knows who asks."""
        found = [word for word in pipeline.words if _CONTEXT.fullmatch(
            self.sections.get(f'filter:{word}', {}).get(
                'paste.filter_factory', ''))]
        if len(found) != 1:
            raise exceptions.ConfigError(
                f'{pipeline} has {len(found)} filters of Nova that make the '
                f'request\'s context, not one: put {FILTER} in by hand, '
                f'where "nova.context" is in the environment')
        return found[0]

    def _with(self, change: Callable[[Pipeline], tuple[str, ...]],
              ) -> Sections:
        """Return the sections with other words in the pipelines."""
        sections = {name: dict(options)
                    for name, options in self.sections.items()}
        for pipeline in self.pipelines:
            sections[pipeline.section][pipeline.option] = ' '.join(
                change(pipeline))
        return sections

    def _add_section(self, lines: list[str], options: dict[str, str],
                     ) -> None:
        # Before another filter, not at the end: a last line that does not
        # end stays as it is.
        context = self._context(self.pipelines[0])
        at = next((n for n, line in enumerate(lines)
                   if _header(line) == f'filter:{context}'), 0)
        while at and lines[at - 1].startswith(('#', ';')):
            at -= 1
        end = '\r\n' if lines[at].endswith('\r\n') else '\n'
        lines[at:at] = [line + end for line in (
            MARK, f'[filter:{FILTER}]',
            *(f'{name} = {value}' for name, value in options.items()), '')]


def _parse(text: str) -> Sections:
    # [DEFAULT] is a section like any other: nothing is to show up twice.
    parser = configparser.RawConfigParser(default_section='')
    # as PasteDeploy has it
    parser.optionxform = str    # type: ignore[assignment, method-assign]
    try:
        parser.read_file(io.StringIO(text, newline=None), 'the file')
    except configparser.Error as exc:
        raise exceptions.ConfigError(f'it cannot be read: {exc}') from exc
    return {name: {option: ' '.join(value.split())
                   for option, value in parser.items(name)}
            for name in parser.sections()}


def _lines(text: str) -> list[str]:
    return io.StringIO(text, newline='\n').readlines()


def _insert(words: tuple[str, ...], after: str) -> tuple[str, ...]:
    if FILTER in words:
        return words
    at = words.index(after) + 1
    return (*words[:at], FILTER, *words[at:])


def _header(line: str) -> str | None:
    found = re.match(r'\[(.+)\]', line)
    return found[1] if found else None


def _replace(lines: list[str], pipeline: Pipeline, pattern: str,
             by: str) -> None:
    """Replace one word in the value of one option."""
    section = None
    inside = False
    for number, line in enumerate(lines):
        if line.lstrip().startswith(('#', ';')):
            continue
        at = 0
        if not line[:1].isspace():
            section = _header(line) or section
            name = re.match(r'[^=:]*[=:]?', line)[0]  # type: ignore[index]
            inside = (section == pipeline.section
                      and name[:-1].strip() == pipeline.option)
            at = len(name)
        if inside:
            value, count = re.subn(pattern, by, line[at:], count=1)
            if count:
                lines[number] = line[:at] + value
                return


def _take_section(lines: list[str]) -> bool:
    """Take out the lines that were put in, if they are there."""
    marked = [n for n, line in enumerate(lines) if line.rstrip() == MARK]
    if len(marked) != 1:
        return False
    first = last = marked[0] + 1
    if first == len(lines) or _header(lines[first]) != f'filter:{FILTER}':
        return False
    while last + 1 < len(lines) and not lines[last + 1].startswith(
            ('[', '#', ';')):
        last += 1
        if not lines[last].strip():
            break
    del lines[marked[0]:last + 1]
    return True


def _checked(lines: list[str], expected: Sections) -> str:
    """Return the text if it means what it should and nothing else."""
    text = ''.join(lines)
    if _parse(text) != expected:
        raise exceptions.ConfigError(
            'its layout is not understood: change it by hand')
    return text
