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

"""The driver of the second fake host."""

from typing import Any

from nova import exception
from nova.virt import fake


class Driver(fake.FakeDriverWithoutFakeNodes):
    """Of a host that is chosen first, and fails by a server's name."""

    # twice of all that the other host has
    vcpus = 2 * fake.FakeDriver.vcpus
    memory_mb = 2 * fake.FakeDriver.memory_mb
    local_gb = 2 * fake.FakeDriver.local_gb

    def spawn(self, context: Any, instance: Any, *args: Any, **kwargs: Any,
              ) -> None:
        if instance.display_name == 'spawn-error':
            raise exception.BuildAbortException(
                instance_uuid=instance.uuid, reason='of its name')
        if instance.display_name == 'reschedule':
            raise exception.ComputeResourcesUnavailable(reason='of its name')
        super().spawn(context, instance, *args, **kwargs)
