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

It reads requests that create servers or attach interfaces, lets the hooks act
before and after Nova, and passes every request on as it came: the body is
never changed. It imports nothing of Nova; identity and request id are in the
WSGI environment.

It runs under native threads and under eventlet alike.
"""

from collections.abc import Callable, Iterable, Iterator
import http.client
import io
import json
import re
import types
from typing import Any

from oslo_log import log as logging

from vmip_plugin import conf as vmip_conf
from vmip_plugin import exceptions
from vmip_plugin.hooks import base
from vmip_plugin.hooks import manager
from vmip_plugin.inventory import records
from vmip_plugin.nova import request as nova_request
from vmip_plugin.nova import stack

LOG = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], Iterable[bytes]]

# /servers, or /{project}/servers as older clients have it; os-volumes_boot is
# another name of it in old releases.
_CREATE = re.compile(r'(/[^/]+)?/(servers|os-volumes_boot)/?')
_ATTACH = re.compile(r'(/[^/]+)?/servers/(?P<server>[^/]+)/os-interface/?')

#: nova.api.openstack.wsgi.Fault's names of the kinds of fault
_FAULTS = {400: 'badRequest', 401: 'unauthorized', 403: 'forbidden',
           404: 'itemNotFound', 405: 'badMethod', 409: 'conflictingRequest',
           413: 'overLimit', 415: 'badMediaType', 429: 'overLimit',
           501: 'notImplemented', 503: 'serviceUnavailable'}

#: what oslo.policy may judge a caller by (oslo.context's policy values)
_CREDENTIALS = ('user_id', 'user_domain_id', 'project_id',
                'project_domain_id', 'domain_id', 'system_scope', 'roles',
                'is_admin_project', 'service_roles')


def filter_factory(global_conf: dict[str, str], **local_conf: str
                   ) -> Callable[[WSGIApp], 'VmipFilter']:
    """Make the filter (PasteDeploy's ``paste.filter_factory``).

    :param local_conf: ``config_file``: vmip's configuration, by default
        /etc/vmip/vmip.conf.
    :raises ConfigError: from what it returns; see :class:`VmipFilter`.
    """
    path = local_conf.get('config_file') or vmip_conf.path()
    return lambda app: VmipFilter(app, path)


class VmipFilter:
    """WSGI middleware around Nova's compute API.

    :param app: what comes after it in the pipeline.
    :param config_file: path of vmip.conf.
    :raises ConfigError: it cannot be read or has a wrong value. The service
        does not start then, rather than refuse each request that makes ports.
    """

    def __init__(self, app: WSGIApp, config_file: str) -> None:
        self._app = app
        try:
            self._hooks = manager.Hooks(vmip_conf.load(config_file))
        except exceptions.ConfigError as exc:
            LOG.critical('The filter vmip keeps this service from starting: '
                         '%s', exc)
            raise

    def __call__(self, environ: Environ,
                 start_response: StartResponse) -> Iterable[bytes]:
        parse = _parser(environ)
        if parse is None:
            return stack.call(self._app, environ, start_response)
        try:
            body = _read_body(environ)
        except Exception as exc:
            if callable(exc):
                # The size limit before us speaks by exceptions that are
                # WSGI applications (WebOb's HTTPException).
                return exc(environ, start_response)
            raise
        request = parse(body, _caller(environ['nova.context']))
        if request is None:
            return stack.call(self._app, environ, start_response)
        try:
            ran = self._hooks.before(request)
        except base.Refused as exc:
            return _fault(exc.status, str(exc), start_response)
        except Exception:
            LOG.exception('A request is refused')
            return _fault(500, 'The request could not be prepared.',
                          start_response)
        return self._run(environ, start_response, self._hooks, ran)

    def _run(self, environ: Environ, start_response: StartResponse,
             hooks: manager.Hooks, ran: list[manager.Ran],
             ) -> Iterable[bytes]:
        status = 500

        def started(line: str, headers: list[tuple[str, str]],
                    *args: Any, **kwargs: Any) -> Any:
            nonlocal status
            status = int(line.split()[0])
            return start_response(line, headers, *args, **kwargs)

        server_id = None
        try:
            answer = stack.call(self._app, environ, started)
            try:
                chunks = list(answer)
            finally:
                if hasattr(answer, 'close'):
                    answer.close()
            server_id = nova_request.server_id(b''.join(chunks))
        except BaseException:
            hooks.after(ran, base.Outcome(500, server_id))
            raise
        outcome = base.Outcome(status, server_id)
        if outcome.accepted:
            # What is reserved is used: its client need not wait for the rest.
            return _Answer(chunks, lambda: hooks.after(ran, outcome))
        hooks.after(ran, outcome)
        return chunks


class _Answer:
    """An answer after which something is done.

    :param then: called when the answer has gone out (PEP 3333: whoever sent
        it calls ``close``).
    """

    def __init__(self, chunks: list[bytes], then: Callable[[], None]) -> None:
        self._chunks = chunks
        self._then = then

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def close(self) -> None:
        """Do it, once."""
        then, self._then = self._then, _nothing
        then()


def _nothing() -> None:
    pass


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


def _parser(environ: Environ) -> Callable[
        [bytes, nova_request.Caller], base.Request | None] | None:
    """Return what reads a request's body, None for those of no concern."""
    if (environ.get('REQUEST_METHOD') != 'POST'
            or 'nova.context' not in environ):
        return None
    path = environ.get('PATH_INFO', '')
    if _CREATE.fullmatch(path):
        return nova_request.create
    attach = _ATTACH.fullmatch(path)
    if attach is None:
        return None
    return lambda body, caller: nova_request.attach(body, attach['server'],
                                                    caller)


def _caller(context: Any) -> nova_request.Caller:
    values = context.to_policy_values()
    return nova_request.Caller(
        records.Requester(
            request_id=(getattr(context, 'global_request_id', None)
                        or context.request_id),
            project_id=context.project_id or ''),
        types.MappingProxyType({
            key: values[key] for key in _CREDENTIALS if key in values}))


def _fault(status: int, message: str,
           start_response: StartResponse) -> list[bytes]:
    """Answer in the form of Nova's own faults."""
    body = json.dumps({_FAULTS.get(status, 'computeFault'): {
        'code': status, 'message': message}}).encode()
    start_response(
        f'{status} {http.client.responses.get(status, "Error")}',
        [('Content-Type', 'application/json'),
         ('Content-Length', str(len(body)))])
    return [body]
