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


"""What goes out: to a terminal, to a spreadsheet, to a shell.

Much of it is tenants' text. Each command gives it as it is; what the form of
the output needs is done here, for all of them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import csv
import io
import json
import logging
import os
import sys
from typing import Any
from typing import TextIO

from cliff import command
from cliff import display
from cliff.formatters import commaseparated
from cliff import show

from vmip_plugin.cmd.manage import arguments

#: What a spreadsheet takes for the beginning of a formula (OWASP, "CSV
#: Injection"), also in full width.
_FORMULA = '=+-@\uff1d\uff0b\uff0d\uff20'


def cell(text: str) -> str:
    """Write a text for a CSV file; :func:`of_cell` reads it again.

    A spreadsheet takes it for text, a terminal for nothing else either: a
    formula has an apostrophe before it, and what has control characters is a
    JSON string behind one.
    """
    if not text.isprintable():
        return f"'{json.dumps(text)}"
    if text.startswith(tuple(_FORMULA)) or _is_written(text):
        return f"'{text}"
    return text


def of_cell(text: str) -> str:
    """Read what :func:`cell` has written, and any other text as it is.

    :raises ValueError: it begins as a JSON string does and is none.
    """
    if not _is_written(text):
        return text
    if not text.startswith("'\""):
        return text[1:]
    read = json.loads(text[1:])
    if not isinstance(read, str):
        raise ValueError(f'{text} is no text')
    return read


def _is_written(text: str) -> bool:
    return text[:1] == "'" and text[1:2] != '' and (
        text[1] in _FORMULA + "'\"")


def _quoted(text: str) -> str:
    # the formatter itself puts a backslash before a double quote
    text = arguments.text(text)
    for special in '\\$`':
        text = text.replace(special, '\\' + special)
    return text


#: By cliff's formatter; JSON and YAML have escapes of their own.
_CLEAN: dict[str, Callable[[str], str] | None] = {
    'csv': cell, 'shell': _quoted, 'json': None, 'yaml': None}


class _Csv(commaseparated.CSVLister):
    """The same without doubled backslashes, which no reader takes away."""

    def emit_list(self, column_names: Sequence[str],
                  data: Iterable[Sequence[Any]], stdout: TextIO,
                  parsed_args: Any) -> None:
        quoting = self.QUOTE_MODES[parsed_args.quote_mode]
        writer = csv.writer(
            stdout, quoting=quoting, lineterminator=os.linesep,
            escapechar='\\' if quoting == csv.QUOTE_NONE else None)
        writer.writerow(column_names)
        writer.writerows(data)


def make_safe(cmd: command.Command) -> None:
    """Have a command write what it tells as its form of output needs it."""
    if not isinstance(cmd, display.DisplayCommandBase):
        return
    produce = cmd.produce_output
    one = isinstance(cmd, show.ShowOne)

    def safe(parsed_args: Any, column_names: Sequence[str], data: Any) -> int:
        clean = _CLEAN.get(parsed_args.formatter, arguments.text)
        if parsed_args.formatter == 'csv':
            cmd.formatter = _Csv()
        if clean is not None:
            data = (_row(clean, data) if one else
                    (_row(clean, row) for row in data))
        return produce(parsed_args, column_names, data)

    cmd.produce_output = safe


def _row(clean: Callable[[str], str], row: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(clean(value) if isinstance(value, str) else value
                 for value in row)


def write_csv(file: TextIO, columns: Sequence[str],
              rows: Iterator[tuple[Any, ...]]) -> None:
    """Write a whole list as CSV."""
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows(_row(cell, row) for row in rows)


class Formatter(logging.Formatter):
    """Of messages for a terminal, which may quote a tenant."""

    def format(self, record: logging.LogRecord) -> str:
        return '\n'.join(map(arguments.text,
                             super().format(record).split('\n')))


def accept_any_text() -> None:
    """Let standard output take every name.

    What its encoding does not have is written with backslashes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
