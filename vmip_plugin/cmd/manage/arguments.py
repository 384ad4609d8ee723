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

"""Command line arguments parsed into the types that the list works with."""

import argparse
import datetime

from vmip_plugin import types

#: what an INTEGER column holds
_MAX_SECONDS = 2**31 - 1


def address(text: str) -> types.Address:
    """Parse an IP address."""
    try:
        return types.parse_address(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not an IP address') from exc


def address_range(text: str) -> tuple[types.Address, types.Address]:
    """Parse FIRST-LAST, or one address."""
    first, _, last = text.partition('-')
    return address(first), address(last or first)


def moment(text: str) -> datetime.datetime:
    """Parse a date and time in ISO 8601; without a zone it is UTC."""
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no time such as 2026-11-20T12:00') from exc
    return when if when.tzinfo else when.replace(tzinfo=datetime.UTC)


def seconds(text: str) -> int:
    """Parse a number of seconds that is not negative."""
    if not text.isdecimal() or int(text) > _MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a number of seconds from 0 to {_MAX_SECONDS}')
    return int(text)


def count(text: str) -> int:
    """Parse a number of things that is not 0."""
    if not text.isdecimal() or not 0 < int(text) <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a number from 1 to {_MAX_SECONDS}')
    return int(text)


def show(when: datetime.datetime | None) -> str:
    """Write a moment as ISO 8601, UTC."""
    return '' if when is None else when.astimezone(datetime.UTC).isoformat(
        sep=' ', timespec='milliseconds').removesuffix('+00:00')


def text(words: str | None) -> str:
    """Write a tenant's words so that a terminal takes none for a command."""
    return ''.join(c if c.isprintable() else c.encode(
        'unicode_escape').decode() for c in words or '')
