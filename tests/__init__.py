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

"""The tests; see "Running the tests" in doc/source/contributing.rst.

What decides about a change is deterministic: property tests have the same
examples each time. "make soak" sets VMIP_EXAMPLES, and they have so many
times as many, other ones each time, and say how one that fails is had again.
"""

import os

import hypothesis

#: so many times as many examples, random ones if it is more than 1
TIMES = int(os.environ.get('VMIP_EXAMPLES', '1'))

hypothesis.settings.register_profile(
    'vmip', derandomize=TIMES == 1, print_blob=True, database=None,
    # a busy machine stretches every time
    deadline=None, max_examples=100 * TIMES,
    suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile('vmip')


def examples(count: int) -> int:
    """Return how many examples a test has that asks for so many."""
    return count * TIMES
