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

"""Reading untrusted notifications field by field."""

from collections.abc import Callable
from collections.abc import Mapping
import datetime
import re
from typing import Any
from typing import TypeVar

from vmip_plugin.notifications import event
from vmip_plugin import types

T = TypeVar('T')

#: The longest text that Nova and Neutron allow for what is read here.
LIMIT = 255

#: What oslo.context makes and what Nova and Neutron accept from outside.
_REQUEST_ID = re.compile(
    r'req-[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}')


def parse_address(text: str) -> types.Address:
    """Return an address without a scope, which may be any text (RFC 4007).

    :raises ValueError: if ``text`` is not exactly one address.
    """
    if '%' in text:
        raise ValueError(f'an address with a scope: {text!r}')
    return types.parse_address(text)


class Fields:
    """A mapping out of a message.

    :param values: what the message has in that place.
    :param name: how to call it in errors.
    :raises Malformed: ``values`` is not a mapping.
    """

    def __init__(self, values: object, name: str) -> None:
        if not isinstance(values, Mapping):
            raise event.Malformed(f'{name} is not a mapping')
        self._values: Mapping[Any, Any] = values
        self.name = name

    def has(self, name: str) -> bool:
        """Tell whether there is something, not null and not empty."""
        return bool(self._values.get(name))

    def text(self, name: str) -> str | None:
        """Return a text, None where it is absent, null or empty.

        :raises Malformed: it is no text, too long or not printable.
        """
        value = self._values.get(name)
        if value is None or value == '':
            return None
        if not isinstance(value, str):
            raise event.Malformed(f'{self.name}.{name} is not a text')
        if len(value) > LIMIT:
            raise event.Malformed(f'{self.name}.{name} is too long')
        if not value.isprintable():
            raise event.Malformed(f'{self.name}.{name} is not printable')
        return value

    def optional(self, name: str, parse: Callable[[str], T]) -> T | None:
        """Return a parsed text, None where it is absent, null or empty.

        :raises Malformed: ``parse`` raised ValueError, or it is no text.
        """
        value = self.text(name)
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError as exc:
            raise event.Malformed(f'{self.name}.{name}: {exc}') from exc

    def required(self, name: str, parse: Callable[[str], T]) -> T:
        """Return a parsed text.

        :raises Malformed: it is absent, or as for :meth:`optional`.
        """
        value = self.optional(name, parse)
        if value is None:
            raise event.Malformed(f'{self.name} has no {name}')
        return value

    def number(self, name: str) -> int | None:
        """Return a whole number, None where it is absent or null.

        :raises Malformed: it is something else.
        """
        value = self._values.get(name)
        if value is None:
            return None
        # a database's BIGINT has to hold it
        if type(value) is not int or abs(value) >= 2 ** 63:
            raise event.Malformed(f'{self.name}.{name} is not a number')
        return value

    def free_text(self, name: str) -> str | None:
        """Return a tenant's text, cut and made printable; None if absent.

        :raises Malformed: it is no text.
        """
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise event.Malformed(f'{self.name}.{name} is not a text')
        return ''.join(char if char.isprintable() else '\ufffd'
                       for char in value[:LIMIT])

    def child(self, name: str) -> 'Fields':
        """Return a mapping inside this one.

        :raises Malformed: there is none.
        """
        return Fields(self._values.get(name), f'{self.name}.{name}')

    def children(self, name: str) -> list['Fields']:
        """Return a list of mappings inside this one; [] where it is absent.

        :raises Malformed: it is something else.
        """
        values = self._values.get(name)
        if values is None:
            return []
        if not isinstance(values, (list, tuple)):
            raise event.Malformed(f'{self.name}.{name} is not a list')
        return [Fields(value, f'{self.name}.{name}') for value in values]


def message_id(metadata: Mapping[str, object]) -> str:
    """Return the id that oslo.messaging's Notifier gave the message, or ''.

    The envelope never makes a message malformed: nothing depends on it.
    """
    try:
        return Fields(metadata, 'metadata').text('message_id') or ''
    except event.Malformed:
        return ''


def emitted(metadata: Mapping[str, object]) -> datetime.datetime | None:
    """Return when the message was sent, UTC; None if that cannot be read.

    oslo.messaging's Notifier sends ``str(timeutils.utcnow())``: no zone.
    """
    try:
        moment = Fields(metadata, 'metadata').optional(
            'timestamp', datetime.datetime.fromisoformat)
        if moment is None or moment.tzinfo is not None:
            return moment and moment.astimezone(datetime.UTC)
        return moment.replace(tzinfo=datetime.UTC)
    except (event.Malformed, OverflowError):
        return None


def request_id(ctxt: Mapping[str, object], *names: str) -> str | None:
    """Return the first of these entries of a context that is a request id."""
    for name in names:
        try:
            value = Fields(ctxt, 'context').text(name)
        except event.Malformed:
            continue
        if value is not None and _REQUEST_ID.fullmatch(value):
            return value
    return None
