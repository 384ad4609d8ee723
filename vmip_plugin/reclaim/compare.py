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

"""Two long lists side by side, in constant memory."""

from collections.abc import Callable, Iterable, Iterator
import itertools
from typing import TypeVar

from vmip_plugin import exceptions

Ours = TypeVar('Ours')
Theirs = TypeVar('Theirs')


def merge(ours: Iterable[Ours], our_id: Callable[[Ours], str | None],
          theirs: Iterable[Theirs], their_id: Callable[[Theirs], str],
          ) -> Iterator[tuple[Ours, Theirs | None]]:
    """Yield each of ours with the one of theirs that has its id, or None.

    Both are in the order of their ids; ours may have an id several times.
    Without any of ours, theirs is not read.

    :raises CloudUnavailable: a list is not in order, or theirs breaks off;
        also after the last of ours, so that who has come to the end knows
        that theirs was whole.
    """
    rest = iter(ours)
    first = list(itertools.islice(rest, 1))
    if not first:
        return
    others = _in_order(theirs, their_id, strictly=True)
    other = next(others, None)
    for one in _in_order(itertools.chain(first, rest), our_id,
                         strictly=False):
        id = our_id(one) or ''
        while other is not None and their_id(other) < id:
            other = next(others, None)
        yield one, (other if other is not None and their_id(other) == id
                    else None)
    for _ in others:
        pass


def _in_order(found: Iterable[Theirs], id_of: Callable[[Theirs], str | None],
              strictly: bool) -> Iterator[Theirs]:
    last = ''
    for one in found:
        id = id_of(one) or ''
        if id < last or strictly and id == last:
            raise exceptions.CloudUnavailable(
                f'A list is not sorted by id: {id} comes after {last}')
        last = id
        yield one
