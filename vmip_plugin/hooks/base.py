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

"""The contract of a pre-create hook; doc/source/hooks.rst tells it in full.

Hooks run in nova-api, in the order of ``[reserve] hooks``, before Nova sees a
request that makes ports: each :meth:`PreCreateHook.before`. When Nova has
answered, or the request has ended before it came to Nova, each hook that ran
gets :meth:`PreCreateHook.after`, in the opposite order.

A hook is a stevedore plugin of the namespace ``vmip_plugin.hooks``.
"""

import abc
from collections.abc import Collection, Mapping, Sequence
import dataclasses
import enum
import math
import time
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
    :raises ValueError: any other status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        if not 400 <= status <= 599:
            raise ValueError(f'not the status of an error: {status}')
        self.status = status


class Unable(Refused):
    """The hook could not do its work.

    With ``[reserve] on_error = fail`` the user gets this answer; with
    ``pass`` the request goes on as if the hook were not there.
    """


class Action(enum.StrEnum):
    """What a request wants of Nova."""

    #: ``POST /servers``
    CREATE = 'create'
    #: ``POST /servers/{id}/os-interface``
    ATTACH = 'attach'


class Choice(enum.StrEnum):
    """Who chooses the networks of a request."""

    #: the client: they are in :attr:`Request.networks`
    LISTED = 'listed'
    #: nobody: Nova takes the project's only network, if there is one
    ABSENT = 'absent'
    #: likewise, or has Neutron make one (2.37 and later)
    AUTO = 'auto'
    #: the client wants none (2.37 and later)
    NONE = 'none'


@dataclasses.dataclass(frozen=True)
class RequestedNetwork:
    """One network interface that a request asks for."""

    network_id: str | None
    fixed_ip: types.Address | None = None
    port_id: str | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """A request that makes ports, as the client sent it.

    :param requester: the request's id and project.
    :param server_names: the name of each server that may be made, as Nova
        will call it; tenant's text, not checked. Empty for an attachment.
    :param min_count: how many of them, from the first name on, Nova makes if
        it accepts the request; None: all. It makes the others only as far as
        the project's quota allows.
    :param networks: one for each network interface of each server; empty
        where the client does not choose (:attr:`choice`).
    :param server_id: the server of an attachment.
    :param metadata: the servers' metadata; tenant's text.
    :param hints: the scheduler hints; tenant's, and of any type.
    :param addresses: what an earlier hook has chosen (:class:`AskFor`).
    :param credentials: what oslo.policy wants to know of the caller:
        ``user_id``, ``project_id``, ``roles``, ...; no token.
    :param deadline: when the hook's time is over (:func:`time.monotonic`).
    """

    requester: records.Requester
    server_names: tuple[str, ...]
    networks: tuple[RequestedNetwork, ...]
    choice: Choice = Choice.LISTED
    action: Action = Action.CREATE
    server_id: str | None = None
    metadata: Mapping[str, str] = dataclasses.field(
        default_factory=dict, repr=False)
    hints: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, repr=False)
    addresses: tuple[types.Address, ...] = ()
    min_count: int | None = None
    credentials: Mapping[str, Any] = dataclasses.field(
        default_factory=dict, repr=False, compare=False)
    deadline: float = dataclasses.field(default=math.inf, compare=False)

    @property
    def remaining(self) -> float:
        """Seconds left for the hook, 0 where its time is over."""
        return max(self.deadline - time.monotonic(), 0.0)


@dataclasses.dataclass(frozen=True)
class AskFor:
    """What :meth:`PreCreateHook.before` returns to choose addresses.

    Hooks that come later see them in :attr:`Request.addresses`, and
    ``reserve`` reserves them, or refuses the request. They replace what the
    client or an earlier hook asked for.

    :param addresses: for the only server of the request; in the order of its
        network interfaces where several of them would do.
    :param memo: as :meth:`PreCreateHook.before` returns it otherwise.
    :raises TypeError: one of them is no address.
    """

    addresses: tuple[types.Address, ...]
    memo: Any = None

    def __post_init__(self) -> None:
        if not all(isinstance(address, types.Address)
                   for address in self.addresses):
            raise TypeError('only what ipaddress makes is an address')


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of the request.

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
    #: the requests that this hook is called for
    ACTIONS: ClassVar[Collection[Action]] = (Action.CREATE,)

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf

    @abc.abstractmethod
    def before(self, request: Request) -> Any:
        """Act before Nova does.

        :returns: anything; :meth:`after` gets it back. An :class:`AskFor`
            chooses addresses besides.
        :raises Refused: the request ends here.
        :raises Unable: it ends here if the operator says so, like any other
            exception, but with words of the hook's own.
        """

    def concerns(self, request: Request) -> bool:
        """Tell whether :meth:`before` has anything to do with a request.

        Asked when :meth:`before` has taken too long. A request that does not
        concern the hook goes on without it, whatever ``[reserve] on_error``
        says. It must answer at once, from what the process knows.
        """
        return True

    def after(  # noqa: B027 - a hook may have nothing to settle
            self, request: Request, memo: Any, outcome: Outcome) -> None:
        """Settle what :meth:`before` did.

        :param request: as :meth:`before` got it.
        :param memo: what :meth:`before` returned.
        """
