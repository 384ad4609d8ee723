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

"""The errors that cross from one room to another."""


from collections.abc import Mapping


class VmipError(Exception):
    """Base of every error that vmip raises on purpose."""


class ConfigError(VmipError):
    """The configuration cannot work; the message says what to change."""


class PoolNotFound(VmipError):
    """No pool of that name, subnet or network."""


class PoolExists(VmipError):
    """The subnet or the name already has a pool."""


class PoolInUse(VmipError):
    """The pool still has addresses that servers hold."""


class PoolExhausted(VmipError):
    """No free address is left in the pool."""


class AddressNotFound(VmipError):
    """The address is in no range of the pool."""


class AddressInUse(VmipError):
    """The address is held by somebody else."""


class PlanRefused(VmipError):
    """A plan of many reservations cannot be carried out; nothing was done.

    :param errors: what is wrong, by number of the line.
    """

    def __init__(self, errors: Mapping[int, str]) -> None:
        super().__init__('\n'.join(
            f'line {number}: {error}'
            for number, error in sorted(errors.items())))
        self.errors = dict(errors)


class ClockSetBack(VmipError):
    """This host's clock is behind the list's newest change."""


class InventoryUnavailable(VmipError):
    """The database cannot be reached or its schema is not there."""


class CloudUnavailable(VmipError):
    """Nova, Neutron or Keystone gave no usable answer: nothing is known."""


class QuestionFailed(CloudUnavailable):
    """The API works but cannot answer this one question.

    It may well answer the same question about something else.
    """


class DHCPError(VmipError):
    """One host entry or lease could not be written or removed."""


class DHCPServerUnavailable(DHCPError):
    """The DHCP server as a whole cannot be written to; try again later."""
