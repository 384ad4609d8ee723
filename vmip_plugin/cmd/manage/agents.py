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

"""How the commands ask the agents."""

from collections.abc import Callable, Iterator
import functools
import threading
from typing import Any
from typing import TypeVar

from vmip_plugin.agent import rpc
from vmip_plugin import bus

T = TypeVar('T')

#: Seconds for the bus to take the roll call; it may be away.
ROLL = 15.0
#: Seconds for one agent.
ANSWER = rpc.LOOK_TIMEOUT + 5.0


def client(app: Any) -> rpc.AgentClient | None:
    """Return the way to the agents; None where no bus is configured.

    :raises ConfigError: transport_url makes no sense.
    """
    app.inventory()
    transport = bus.rpc_transport(app.conf)
    if not bus.is_named(app.conf):
        return None
    return rpc.AgentClient(transport)


def ask_all(app: Any, question: Callable[[rpc.AgentClient, str], T],
            ) -> Iterator[tuple[str, T | Exception]]:
    """Ask each agent; yield its name with its answer or why there is none.

    Without a bus there is nobody to ask.
    """
    agents = client(app)
    if agents is None:
        return
    hosts = within(ROLL, agents.hosts)
    if isinstance(hosts, Exception):
        yield 'all agents', hosts
        return
    for host in hosts:
        yield host, within(ANSWER, functools.partial(question, agents, host))


def within(seconds: float, call: Callable[[], T]) -> T | Exception:
    """Return what a call returns or raises; it may hang for ever."""
    result: list[T | Exception] = []

    def run() -> None:
        try:
            result.append(call())
        except Exception as exc:
            result.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return result[0] if result else TimeoutError(
        f'no answer within {seconds:.0f} seconds')
