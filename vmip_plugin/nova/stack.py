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

"""Room on the interpreter's stack for all that a middleware calls.

From 3.11 on CPython keeps the frames of a thread in chunks of 16 KiB, and
until gh-142183 was mended it gave a chunk back to the kernel whenever the
call returned that had needed it. A loop whose calls happen to begin just at
the end of a chunk maps and unmaps memory for each of them, which makes a call
a hundred times as dear. Every middleware moves all frames after it, so
whether that happens to a service's loops would depend on us.
"""

from collections.abc import Callable
from typing import ParamSpec
from typing import TypeVar

P = ParamSpec('P')
T = TypeVar('T')

#: What a frame asks for, in words. It gets a chunk of its own then, of
#: 128 KiB, and half of that is left to those that are called; what nobody
#: writes to takes no memory.
_SLOTS = 8200


def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function with room on the stack, and return what it does."""
    return function(*args, **kwargs)


call.__code__ = call.__code__.replace(co_stacksize=_SLOTS)
