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

"""Runs vmip-agent with a cloud that says what a file says.

The first argument is that file, the others are vmip-agent's own. At SIGUSR1
it gives itself the hint in the file's "hint", over oslo.messaging.
"""

from collections.abc import Callable, Iterator
import json
import pathlib
import signal
import sys
from typing import Any

from vmip_plugin.agent import rpc
from vmip_plugin.agent import worker
from vmip_plugin import cloud
from vmip_plugin.cmd import agent
from vmip_plugin import exceptions
from vmip_plugin import types


class FileCloud:
    """Answers like :class:`vmip_plugin.cloud.Cloud`.

    :param path: JSON: ``{"up": bool, "ports": [[id, mac, server], ...],
        "servers": {id: status}}``.
    """

    def __init__(self, path: str) -> None:
        self._path = pathlib.Path(path)

    def port(self, port_id: str) -> cloud.Port | None:
        return next((port for port in self._ports() if port.id == port_id),
                    None)

    def ports(self, mac_address: list[str]) -> Iterator[cloud.Port]:
        for port in self._ports():
            if port.mac in mac_address:
                yield port

    def renew(self) -> None:
        pass

    def check_region(self) -> None:
        pass

    def has_deleted(self, server_id: str) -> bool:
        return server_id not in self._read()['servers']

    def sees_all_projects(self) -> bool:
        return True

    def has_network(self, network_id: str | None) -> bool:
        return True

    def server_status(self, server_id: str) -> str | None:
        status: str | None = self._read()['servers'].get(server_id)
        return status

    def _read(self) -> Any:
        said = json.loads(self._path.read_text())
        if not said['up']:
            raise exceptions.CloudUnavailable('it is down')
        return said

    def _ports(self) -> list[cloud.Port]:
        return [cloud.Port(
            id=port_id, network_id='', project_id='',
            mac=types.parse_mac(mac), addresses=(), device_id=server,
            device_owner='compute:nova' if server else '', status='ACTIVE')
            for port_id, mac, server in self._read()['ports']]


if __name__ == '__main__':
    path = sys.argv[1]
    serve = rpc.server

    def server(transport: Any, host: str,
               take: Callable[[rpc.Hint], None], *endpoints: Any) -> Any:
        client = rpc.AgentClient(transport)
        signal.signal(signal.SIGUSR1, lambda *_: client.release_lease(
            **json.loads(pathlib.Path(path).read_text())['hint']))
        return serve(transport, host, take, *endpoints)

    rpc.server = server
    setattr(cloud, 'Cloud',  # noqa: B010
            lambda conf, timeout=None: FileCloud(path))
    worker.RETRY_DELAY = 1.0
    sys.exit(agent.main(sys.argv[2:]))
