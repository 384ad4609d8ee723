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

"""Loads the allocators."""

import functools

from stevedore import driver

from vmip_plugin.allocation import base
from vmip_plugin import exceptions

NAMESPACE = 'vmip_plugin.allocators'


@functools.cache
def load(name: str) -> base.Allocator:
    """Return the allocator of that name.

    :raises ConfigError: there is none.
    """
    try:
        found: base.Allocator = driver.DriverManager(
            NAMESPACE, name, invoke_on_load=True).driver
    except RuntimeError as exc:
        raise exceptions.ConfigError(
            f'There is no allocator {name!r}') from exc
    return found
