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

"""Notifications that nobody can handle, kept for a person to look at.

What is in them is anything: nested deeper than the stack, endless, no text.
Nothing here follows it further than a fixed depth and number of parts, and
nothing here raises: whoever puts a message aside acknowledges it then, and
one that is not acknowledged comes again, for ever.
"""

from collections.abc import Mapping
import contextlib
import datetime
import json
import os
import pathlib
import reprlib

from oslo_log import log

LOG = log.getLogger(__name__)

#: Most characters kept of what a message told and of one text in it, most
#: parts that it has, and how deep they are in each other.
LENGTH, TEXT, PARTS, DEPTH = 100_000, 10_000, 10_000, 30
#: Stands for what is left out.
MORE = '...'

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 3
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 200


def brief(value: object) -> str:
    """Return a value from outside in a form that is safe in a log.

    It has one line, at most 203 characters, and never raises.
    """
    try:
        text = _BRIEF.repr(value)
    except Exception:
        text = f'<{type(value).__name__}>'
    return text if len(text) <= 200 else f'{text[:200]}{MORE}'


class _Copy:
    """A copy of a value as JSON has it, of limited size."""

    def __init__(self) -> None:
        self._parts = PARTS
        self._length = LENGTH

    def of(self, value: object, depth: int = DEPTH) -> object:
        self._parts -= 1
        if self._parts < 0 or depth < 0:
            return MORE
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, int) and abs(value) < 2 ** 63:
            return value
        if isinstance(value, Mapping):
            made: dict[str, object] = {}
            # what kind of message it is before what it has at length
            for key, part in sorted(value.items(), key=lambda item: isinstance(
                    item[1], (Mapping, list, tuple))):
                if self._parts <= 0:
                    made[MORE] = MORE
                    break
                made[self._text(key if isinstance(key, str)
                                else brief(key))] = self.of(part, depth - 1)
            return made
        if isinstance(value, (list, tuple)):
            parts = []
            for part in value:
                parts.append(self.of(part, depth - 1))
                if self._parts <= 0:
                    break
            return parts
        return brief(value)

    def _text(self, text: str) -> str:
        kept = text[:max(min(self._length, TEXT), 0)]
        self._length -= len(kept)
        return kept if kept == text else kept + MORE


class Aside:
    """A folder with a JSON file for each of them, only for its owner to read.

    :param folder: made when it is needed.
    :param limit: most files in it, whichever process wrote them; past that
        the oldest goes. 0: none is kept.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self._folder = pathlib.Path(folder)
        self._limit = limit

    def keep(self, content: object, why: str) -> None:
        """Keep a message, if that can be done. Never raises.

        :param content: what oslo.messaging made of it. Its context, which
            may have a token, is no part of that.
        """
        if not self._limit:
            return
        try:
            self._write(content, why)
        except OSError as exc:
            # It must not keep the ones behind it waiting.
            LOG.warning('The notification is not kept: %s: %s: give this '
                        'process the right to write there, or set [listener] '
                        'poison_dir', self._folder, exc.strerror)
        except Exception as exc:
            LOG.warning('The notification is not kept: %s',
                        type(exc).__name__)

    def _write(self, content: object, why: str) -> None:
        now = datetime.datetime.now(datetime.UTC)
        text = json.dumps({'put_aside': now.isoformat(), 'why': why,
                           'message': _Copy().of(content)}, indent=2)
        path = self._folder / f'{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}.json'
        self._folder.mkdir(mode=0o700, exist_ok=True)
        kept = sorted(self._folder.glob('*.json'))
        for oldest in kept[:max(0, len(kept) - self._limit + 1)]:
            oldest.unlink(missing_ok=True)
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL,
                              0o600), 'w', encoding='utf-8') as file:
                file.write(text)
        except OSError:
            # the disk is full: half of it is of no use
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise
