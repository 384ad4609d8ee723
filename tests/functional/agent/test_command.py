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

from tests.unit.agent import test_command

CLOUD = test_command.CLOUD


class InterfaceTest(test_command.MainTestCase):
    """What asks the kernel for an interface, for which it takes rights."""

    def test_unknown_interface(self) -> None:
        code, errors = self.main(
            CLOUD + '[agent]\ninterfaces = vmip-none\n')
        self.assertEqual(1, code)
        self.assertIn('vmip-none: [Errno 19] No such device', errors)

    def test_interface_with_too_long_a_name(self) -> None:
        _, errors = self.main(CLOUD + f'[agent]\ninterfaces = {"x" * 16}\n')
        self.assertIn('No such device', errors)
