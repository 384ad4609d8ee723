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

"""A plan of many reservations, as a CSV file."""

import argparse
from collections.abc import Callable
import csv
import io
from typing import Any
from typing import BinaryIO

from vmip_plugin.cmd.manage import arguments
from vmip_plugin.cmd.manage import output
from vmip_plugin import exceptions
from vmip_plugin.inventory import records

COLUMNS = {'address', 'server_name', 'project', 'any_project', 'until',
           'pool'}
#: columns of "reservation list" that say nothing of what is wanted
IGNORED = {'line', 'state'}
#: that a reservation is for any project
YES = 'yes'


def read(file: BinaryIO, pool: str | None,
         ) -> tuple[dict[int, records.Hold], dict[int, str]]:
    """Read a plan.

    :param pool: of the lines that name none.
    :returns: reservations, and what is wrong with the other lines; both by
        number of the line.
    :raises VmipError: it is no CSV file in UTF-8 with such columns.
    """
    try:
        text = file.read().decode('utf-8-sig')
    except UnicodeDecodeError as exc:
        raise exceptions.VmipError(f'The plan is not UTF-8: {exc}') from exc
    # csv ends a line also where a name has a lone carriage return
    rows = csv.reader(io.StringIO(text, newline=''), strict=True)
    wanted: dict[int, records.Hold] = {}
    errors: dict[int, str] = {}
    number = 1
    try:
        columns = [name.strip() for name in next(rows, [])]
        _check(columns)
        number = rows.line_num + 1
        for row in rows:
            try:
                if row:
                    wanted[number] = _hold(columns, row, pool)
            except (argparse.ArgumentTypeError, ValueError) as exc:
                errors[number] = str(exc)
            number = rows.line_num + 1
    except csv.Error as exc:
        raise exceptions.VmipError(f'line {number}: {exc}') from exc
    return wanted, errors


def _check(columns: list[str]) -> None:
    unknown = sorted(set(columns) - COLUMNS - IGNORED)
    if unknown or not {'address', 'server_name'} & set(columns) or len(
            set(columns)) != len(columns):
        raise exceptions.VmipError(
            'line 1: it has to name the columns, each once: address or '
            'server_name or both, and project, any_project, until and pool '
            'where they are needed' + (f'; not {", ".join(map(repr, unknown))}'
                            if unknown else ''))


def _hold(columns: list[str], row: list[str], pool: str | None,
          ) -> records.Hold:
    if len(row) != len(columns):
        raise ValueError(f'{len(row)} values for {len(columns)} columns')
    values = {column: output.of_cell(value.strip()) for column, value in
              zip(columns, row, strict=True)}

    def get(column: str, parse: Callable[[str], Any] = str) -> Any:
        return parse(values[column]) if values.get(column) else None

    where = get('pool') or pool
    if where is None:
        raise ValueError('no pool: name it here or with --pool')
    for column, most in (('server_name', 255), ('project', 64)):
        if len(values.get(column, '')) > most:
            raise ValueError(f'{column} is longer than {most} characters')
    if values.get('any_project', '') not in ('', YES):
        raise ValueError(f'any_project is neither {YES} nor nothing')
    return records.Hold(
        where, get('address', arguments.address), get('server_name'),
        get('project'), get('until', arguments.moment),
        values.get('any_project') == YES)
