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

"""The filter in a paste pipeline like Nova's, with what stands before it."""

from collections.abc import Callable
import io
import json
import subprocess
import sys
from typing import Any

import hypothesis
from hypothesis import strategies as st
from paste import deploy
import webob

import tests
from tests.unit import base
from tests.unit.nova import harness
from vmip_plugin import exceptions
from vmip_plugin.reclaim import tasks

State = base.State

# as nova's api-paste.ini has it, with a stand-in for the two ends
PIPELINES = '''
[composite:main]
use = egg:Paste#urlmap
/v2: v2
/v2.1: v21

[pipeline:v21]
pipeline = sizelimit keystonecontext vmip app

[pipeline:v2]
pipeline = sizelimit keystonecontext vmip app

[filter:sizelimit]
paste.filter_factory = oslo_middleware:RequestBodySizeLimiter.factory

[filter:keystonecontext]
paste.filter_factory = tests.unit.nova.test_pipeline:context_factory

[filter:vmip]
paste.filter_factory = vmip_plugin.nova.filter:filter_factory
config_file = {config_file}

[app:app]
paste.app_factory = tests.unit.nova.test_pipeline:app_factory
'''

#: what came to the end of the pipeline: (path, body)
CAME: list[tuple[str, bytes]] = []
ANSWER = b'  {"server":\n{"id": "%s"}}\xff\x00' % base.server_id(1).encode()
LIMIT = 114688


def context_factory(global_conf: Any, **local_conf: Any) -> Any:
    def factory(app: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(environ: dict[str, Any], start_response: Any) -> Any:
            environ['nova.context'] = harness.Context()
            return app(environ, start_response)
        return wrapped
    return factory


def app_factory(global_conf: Any, **local_conf: Any) -> Any:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        request = webob.Request(environ)
        CAME.append((request.path, request.body))
        start_response('202 Accepted', [('X-One', '1'), ('X-One', '2')])
        return [ANSWER[:5], b'', ANSWER[5:]]
    return app


class Stream(io.RawIOBase):
    """A chunked body as a web server hands it on."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._data.read(size)


class PipelineTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        config = self.directory / 'vmip.conf'
        config.write_text(f'[database]\nconnection = {self.connection}\n'
                          f'[reserve]\nproject_share = 100\n')
        path = self.directory / 'api-paste.ini'
        path.write_text(PIPELINES.format(config_file=config))
        self.app = deploy.loadapp(f'config:{path}')
        CAME.clear()

    def send(self, path: str, body: bytes, *, method: str = 'POST',
             chunked: bool = False) -> webob.Response:
        request = webob.Request.blank(path, method=method)
        request.content_type = 'application/json'
        if chunked:
            request.environ['wsgi.input'] = Stream(body)
            request.environ['wsgi.input_terminated'] = True
            request.headers['Transfer-Encoding'] = 'chunked'
            request.environ.pop('CONTENT_LENGTH', None)
        else:
            request.body = body
        return request.get_response(self.app)

    def test_configuration_is_broken(self) -> None:
        """A real pipeline cannot be loaded, so nova-api does not start."""
        (self.directory / 'wrong.conf').write_text('[reserve]\nttl = x\n')
        for name in ('wrong', 'missing'):
            path = self.directory / f'{name}.ini'
            path.write_text(PIPELINES.format(
                config_file=self.directory / f'{name}.conf'))
            error = self.assertRaises(exceptions.ConfigError, deploy.loadapp,
                                      f'config:{path}')
            self.assertIn(f'{name}.conf', str(error))

    def held(self) -> int:
        return len(self.found())


class TestPipeline(PipelineTestCase):

    BODY = json.dumps({'server': harness.SERVER}).encode()

    def test_composites(self) -> None:
        for path in ('/v2/servers', '/v2.1/servers',
                     f'/v2/{base.PROJECT}/servers',
                     f'/v2.1/{base.PROJECT}/servers'):
            for chunked in (False, True):
                answer = self.send(path, self.BODY, chunked=chunked)
                self.assertEqual(202, answer.status_int)
                self.assertEqual((path, self.BODY), CAME[-1])
        self.assertEqual(8, self.held())

    def test_answer_is_as_it_was(self) -> None:
        for body in (self.BODY, b'{'):
            answer = self.send('/v2.1/servers', body)
            self.assertEqual(ANSWER, answer.body)
            self.assertEqual([('X-One', '1'), ('X-One', '2')],
                             [h for h in answer.headerlist
                              if h[0] == 'X-One'])

    def test_huge(self) -> None:
        for chunked in (False, True):
            answer = self.send('/v2.1/servers', b' ' * (LIMIT + 1),
                               chunked=chunked)
            self.assertEqual(413, answer.status_int)
        self.assertEqual([], CAME)
        padded = self.BODY + b' ' * (LIMIT - len(self.BODY))
        for chunked in (False, True):
            self.assertEqual(202, self.send('/v2.1/servers', padded,
                                            chunked=chunked).status_int)
            self.assertEqual(padded, CAME[-1][1])

    def test_empty(self) -> None:
        for chunked in (False, True):
            self.send('/v2.1/servers', b'', chunked=chunked)
            self.assertEqual(b'', CAME[-1][1])

    @hypothesis.settings(max_examples=tests.examples(100))
    @hypothesis.given(
        st.sampled_from(['GET', 'POST', 'PUT', 'DELETE']),
        st.sampled_from(['/servers', '/servers/x/action', '/servers/detail',
                         f'/servers/{base.server_id(1)}/os-interface',
                         '/os-keypairs']),
        st.binary(max_size=300) | st.sampled_from([
            b'{"server": {"name": "x"}}',
            b'{"server": {"name": "x", "networks": "none"}}',
            b'{"server": {"name": "x", "networks": [{"port": "'
            + base.port_id(1).encode() + b'"}]}}',
            b'{"interfaceAttachment": {"port_id": "'
            + base.port_id(1).encode() + b'"}}']), st.booleans())
    def test_of_no_concern(self, method: str, path: str, body: bytes,
                           chunked: bool) -> None:
        """Byte for byte, there and back."""
        answer = self.send(f'/v2.1{path}', body, method=method,
                           chunked=chunked)
        self.assertEqual((f'/v2.1{path}', body), CAME[-1])
        self.assertEqual((202, ANSWER), (answer.status_int, answer.body))


# a nova-api that is killed in the middle of a request
KILLED = '''
import os
import signal
import sys

from tests.unit.nova import harness
from vmip_plugin.nova import filter as vmip_filter
import webob

def nova(environ, start_response):
    os.kill(os.getpid(), signal.SIGKILL)

app = vmip_filter.filter_factory({}, config_file=sys.argv[1])(nova)
environ = webob.Request.blank('/servers', method='POST', json_body={
    'server': harness.SERVER}).environ
environ['nova.context'] = harness.Context()
app(environ, lambda *args: None)
'''


class TestKilled(PipelineTestCase):

    def test_reclaimer_ends_the_reservation(self) -> None:
        done = subprocess.run(
            [sys.executable, '-c', KILLED,
             str(self.directory / 'vmip.conf')], check=False,
            capture_output=True)
        self.assertEqual(-9, done.returncode, done.stderr)
        self.assertEqual(State.RESERVED, self.state(harness.A))
        reclaimer = tasks.Reclaimer(self.conf, self.inventory, Idle(), None)
        # the other process has the real time
        self.clock.now = self.row(harness.A).changed_at
        reclaimer.expire()
        self.assertEqual(State.RESERVED, self.state(harness.A))
        self.clock.forward(self.conf.reserve.ttl + 1)
        reclaimer.expire()
        self.assertEqual(State.FREE, self.state(harness.A))


class Idle:
    """There is no DHCP server to work on."""

    def run(self, patience: float) -> int:
        return 0
