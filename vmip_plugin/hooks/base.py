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

"""The contract of a pre-create hook.

Hooks run in nova-api, in the order of ``[reserve] hooks``, before Nova sees a
create request: each :meth:`PreCreateHook.before`. When Nova has answered, or
a later hook has refused, each hook that ran gets :meth:`PreCreateHook.after`,
in the opposite order.

A hook is a stevedore plugin of the namespace ``vmip_plugin.hooks``.
"""

import abc
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import ClassVar

from oslo_config import cfg

from vmip_plugin import exceptions
from vmip_plugin.inventory import records
from vmip_plugin import types


class Refused(exceptions.VmipError):
    """A hook's no: the user gets this answer, in Nova's own fault form.

    :param status: HTTP status, 400 to 599.
    :param message: words for the user of the API.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True)
class RequestedNetwork:
    """One entry of a create request's ``networks``."""

    network_id: str | None
    fixed_ip: types.Address | None = None
    port_id: str | None = None


@dataclasses.dataclass(frozen=True)
class CreateRequest:
    """A request to create servers, as the client sent it.

    :param server_names: the name of each server that may be made, as Nova
        will call it; tenant's text, not checked.
    :param networks: one for each network interface of each server; empty
        where the client leaves the choice to Nova.
    """

    requester: records.Requester
    server_names: tuple[str, ...]
    networks: tuple[RequestedNetwork, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What Nova made of the request.

    :param status: HTTP status of the answer, 500 where there is none.
    :param server_id: the server that the answer names, if it names one.
    """

    status: int
    server_id: str | None = None

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


class PreCreateHook(abc.ABC):
    """Base of the hooks. One instance serves all threads of a process."""

    #: options of this hook, registered in the group ``hook:NAME``
    OPTS: ClassVar[Sequence[cfg.Opt]] = ()

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf

    @abc.abstractmethod
    def before(self, request: CreateRequest) -> Any:
        """Act before Nova does.

        :returns: anything; :meth:`after` gets it back.
        :raises Refused: the request ends here.
        """

    def after(  # noqa: B027 - a hook may have nothing to settle
            self, request: CreateRequest, memo: Any, outcome: Outcome
    ) -> None:
        """Settle what :meth:`before` did.

        :param memo: what :meth:`before` returned.
        """
