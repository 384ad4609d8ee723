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

"""The filter between a client and a small stand-in for Nova."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import json
from typing import Any

from oslo_context import context
import webob

from tests.unit import base
from vmip_plugin.inventory import states
from vmip_plugin.nova import filter as vmip_filter

State = states.State

A = '10.0.0.10'
PASSWORD = 'correct-horse-battery'
SERVER = {'name': 'web', 'adminPass': PASSWORD,
          'networks': [{'uuid': base.NETWORK}]}


class Context(context.RequestContext):
    """The part of nova.context.RequestContext that is oslo.context's."""

    def __init__(self, request_id: str = 'req-1',
                 global_request_id: str | None = None,
                 project_id: str | None = base.PROJECT,
                 roles: Sequence[str] = ('member', 'reader')) -> None:
        super().__init__(
            request_id=request_id, global_request_id=global_request_id,
            project_id=project_id, user_id='user', roles=list(roles),
            auth_token=PASSWORD, overwrite=False)


class Nova:
    """The end of the pipeline: notes what comes, answers as it is told."""

    def __init__(self) -> None:
        self.status = '202 Accepted'
        self.body = [b'{"server": {"id": "', base.server_id(1).encode(),
                     b'", "adminPass": "', PASSWORD.encode(), b'"}}']
        self.error: BaseException | None = None
        self.seen: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        #: called before the answer
        self.look: Callable[[], Any] = lambda: None
        self.closed = 0

    def __call__(self, environ: dict[str, Any],
                 start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.seen.append(dict(environ))
        self.look()
        if self.error is not None:
            raise self.error
        if environ['REQUEST_METHOD'] == 'POST':
            # as Nova reads it
            self.bodies.append(webob.Request(environ).body)
        start_response(self.status, [('X-Nova', 'yes')])
        return self.answer()

    def answer(self) -> Iterable[bytes]:
        return self.body

    def close(self) -> None:
        self.closed += 1


class LazyNova(Nova):
    """Starts its answer only when somebody reads it."""

    def __call__(self, environ: dict[str, Any],
                 start_response: Callable[..., Any]) -> Iterable[bytes]:
        return Lazy(self, environ, start_response)


class Lazy:

    def __init__(self, nova: Nova, *args: Any) -> None:
        self.nova = nova
        self.args = args
        self.close = nova.close

    def __iter__(self) -> Iterator[bytes]:
        yield from Nova.__call__(self.nova, *self.args)


class FilterTestCase(base.TestCase):
    """A client, the filter and a stand-in for Nova, with one pool."""

    nova_class: type[Nova] = Nova
    config = ''
    #: what a project may hold in advance, in percent of what is free
    share = 100

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        path = self.directory / 'vmip.conf'
        path.write_text(
            f'[database]\nconnection = {self.connection}\n'
            f'[reserve]\nproject_share = {self.share}\n{self.config}')
        self.nova = self.nova_class()
        self.app = vmip_filter.filter_factory(
            {}, config_file=str(path))(self.nova)

    def environ(self, body: Any = None, *, path: str = '/servers',
                method: str = 'POST', context: Context | None = None,
                outer: dict[str, Any] | None = None, **values: Any,
                ) -> dict[str, Any]:
        raw = body if isinstance(body, bytes) else json.dumps(outer or {
            'server': SERVER if body is None else body}).encode()
        environ: dict[str, Any] = webob.Request.blank(
            path, method=method, body=raw).environ
        environ['CONTENT_TYPE'] = 'application/json'
        environ['SCRIPT_NAME'] = '/v2.1'
        environ['nova.context'] = context or Context()
        environ.update(values)
        return environ

    def call(self, environ: dict[str, Any] | None = None
             ) -> tuple[str, dict[str, str], bytes]:
        started: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]],
                           exc_info: Any = None) -> None:
            started.append((status, dict(headers)))

        answer = self.app(self.environ() if environ is None else environ,
                          start_response)
        body = b''.join(answer)
        if hasattr(answer, 'close'):
            answer.close()
        (status, headers), = started
        return status, headers, body

    def post(self, body: Any = None, **values: Any) -> str:
        return self.call(self.environ(body, **values))[0]

    def fault(self, environ: dict[str, Any]) -> tuple[int, str, str]:
        """Return (status, kind, message) of an answer that Nova never saw."""
        seen = len(self.nova.seen)
        status, headers, body = self.call(environ)
        self.assertEqual(seen, len(self.nova.seen))
        self.assertEqual({'Content-Type': 'application/json',
                          'Content-Length': str(len(body))}, headers)
        (kind, told), = json.loads(body).items()
        self.assertEqual(int(status.split()[0]), told['code'])
        self.assertEqual({'code', 'message'}, set(told))
        return told['code'], kind, told['message']

    def held(self) -> dict[str, State]:
        return {str(a.address): a.state
                for _, a in self.found()}
