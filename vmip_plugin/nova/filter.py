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

"""The filter in nova-api's paste pipeline.

It reads requests that create servers, lets the hooks act before and after
Nova, and passes every request on as it came: the body is never changed. It
imports nothing of Nova; identity and request id are in the WSGI environment.

It runs under native threads and under eventlet alike.
"""

from collections.abc import Callable, Iterable
import io
import json
import re
import threading
from typing import Any

from oslo_log import log as logging

from vmip_plugin import conf as vmip_conf
from vmip_plugin.hooks import base
from vmip_plugin.hooks import manager
from vmip_plugin.inventory import records
from vmip_plugin.nova import create_request

LOG = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

# /servers, or /{project}/servers as older clients have it
_CREATE = re.compile(r'(/[^/]+)?/servers/?')

#: nova.api.openstack.wsgi.Fault's names of the kinds of fault
_FAULTS = {400: 'badRequest', 403: 'forbidden', 404: 'itemNotFound',
           409: 'conflictingRequest', 413: 'overLimit', 429: 'overLimit',
           501: 'notImplemented', 503: 'serviceUnavailable'}
_REASONS = {400: 'Bad Request', 403: 'Forbidden', 404: 'Not Found',
            409: 'Conflict', 413: 'Request Entity Too Large',
            429: 'Too Many Requests', 500: 'Internal Server Error',
            501: 'Not Implemented', 503: 'Service Unavailable'}


def filter_factory(global_conf: dict[str, str], **local_conf: str
                   ) -> Callable[[WSGIApp], 'VmipFilter']:
    """Make the filter (PasteDeploy's ``paste.filter_factory``).

    :param local_conf: ``config_file``: vmip's configuration, by default
        /etc/vmip/vmip.conf.
    """
    path = local_conf.get('config_file') or vmip_conf.path()
    return lambda app: VmipFilter(app, path)


class VmipFilter:
    """WSGI middleware around Nova's compute API.

    :param app: what comes after it in the pipeline.
    :param config_file: path of vmip.conf.
    """

    def __init__(self, app: WSGIApp, config_file: str) -> None:
        self._app = app
        self._config_file = config_file
        self._lock = threading.Lock()
        self._hooks: manager.Hooks | None = None

    def __call__(self, environ: Environ,
                 start_response: StartResponse) -> Iterable[bytes]:
        if (environ.get('REQUEST_METHOD') != 'POST'
                or not _CREATE.fullmatch(environ.get('PATH_INFO', ''))
                or 'nova.context' not in environ):
            return self._app(environ, start_response)
        try:
            body = _read_body(environ)
        except Exception as exc:
            if callable(exc):
                # The size limit before us speaks by exceptions that are
                # WSGI applications (WebOb's HTTPException).
                return exc(environ, start_response)
            raise
        request = create_request.parse(body, _requester(environ))
        if request is None:
            return self._app(environ, start_response)
        try:
            hooks = self._loaded_hooks()
            memos = hooks.before(request)
        except base.Refused as exc:
            return _fault(exc.status, str(exc), start_response)
        except Exception:
            LOG.exception('A create request is refused')
            return _fault(500, 'The request could not be prepared.',
                          start_response)
        return self._run(environ, start_response, hooks, request, memos)

    def _run(self, environ: Environ, start_response: StartResponse,
             hooks: manager.Hooks, request: base.CreateRequest,
             memos: list[Any]) -> Iterable[bytes]:
        status = 500

        def started(line: str, headers: list[tuple[str, str]],
                    *args: Any, **kwargs: Any) -> Any:
            nonlocal status
            status = int(line.split()[0])
            return start_response(line, headers, *args, **kwargs)

        server_id = None
        try:
            answer = self._app(environ, started)
            try:
                chunks = list(answer)
            finally:
                if hasattr(answer, 'close'):
                    answer.close()
            server_id = create_request.server_id(b''.join(chunks))
        except BaseException:
            status = 500
            raise
        finally:
            hooks.after(request, memos, base.Outcome(status, server_id))
        return chunks

    def _loaded_hooks(self) -> manager.Hooks:
        # Not while nova-api starts: a slip in vmip.conf is then answered to
        # requests that create servers, and all others are served.
        with self._lock:
            if self._hooks is None:
                self._hooks = manager.Hooks(vmip_conf.load(self._config_file))
            return self._hooks


def _read_body(environ: Environ) -> bytes:
    """Read the body and put it back for Nova."""
    source = environ['wsgi.input']
    length = environ.get('CONTENT_LENGTH')
    if length:
        if not length.isdecimal():
            return b''
        body: bytes = source.read(int(length))
    elif 'chunked' in environ.get('HTTP_TRANSFER_ENCODING', '').lower():
        body = source.read()
        environ['CONTENT_LENGTH'] = str(len(body))
    else:
        return b''
    environ['wsgi.input'] = io.BytesIO(body)
    return body


def _requester(environ: Environ) -> records.Requester:
    context = environ['nova.context']
    return records.Requester(
        request_id=(getattr(context, 'global_request_id', None)
                    or context.request_id),
        project_id=context.project_id or '')


def _fault(status: int, message: str,
           start_response: StartResponse) -> list[bytes]:
    """Answer in the form of Nova's own faults."""
    body = json.dumps({_FAULTS.get(status, 'computeFault'): {
        'code': status, 'message': message}}).encode()
    start_response(
        f'{status} {_REASONS.get(status, "Error")}',
        [('Content-Type', 'application/json'),
         ('Content-Length', str(len(body)))])
    return [body]
