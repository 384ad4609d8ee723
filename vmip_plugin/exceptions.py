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


from collections.abc import Mapping, Sequence
import typing

if typing.TYPE_CHECKING:
    from vmip_plugin.inventory import records


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


class TooManyReserved(VmipError):
    """The project holds as many addresses in advance as it may."""


class AddressNotFound(VmipError):
    """The address is in no range of the pool."""


class AddressInUse(VmipError):
    """The address is held by somebody else."""


class AddressAnswers(AddressInUse):
    """Its holder is gone, but somebody still answers at it on the wire."""


class AddressReleasing(VmipError):
    """The holder is gone for sure, and the DHCP servers still know it.

    :param held: addresses that may be handed over as they are, each of them
        if it is silent on the wire.
    """

    def __init__(self, held: Sequence['records.Address']) -> None:
        super().__init__('still being released: ' + ', '.join(
            str(each.address) for each in held))
        self.held = list(held)


class ClaimLost(VmipError):
    """The claim that was to be handed over is not there any more."""


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
