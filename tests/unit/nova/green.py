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

"""Run by test_eventlet: the filter in a service that eventlet has patched.

Prints what was seen as JSON.
"""

import eventlet

eventlet.monkey_patch()

import http.client  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402
from unittest import mock  # noqa: E402

from eventlet import wsgi  # noqa: E402
from stevedore import extension  # noqa: E402
from stevedore import named  # noqa: E402

from tests.unit.nova import harness  # noqa: E402
from vmip_plugin.hooks import base  # noqa: E402
from vmip_plugin.hooks import manager  # noqa: E402
from vmip_plugin.hooks import reserve  # noqa: E402
from vmip_plugin.nova import filter as vmip_filter  # noqa: E402

#: requests at once, and how many of them meet a hook that hangs
CLIENTS, SLOW = 12, 3


#: seconds that a hook has which hangs
SLOW_TIME = 1


class Hanging(base.PreCreateHook):
    """Hangs until everybody has an answer: its server is away."""

    settled: list[int] = []
    everybody = threading.Event()

    def before(self, request: base.Request) -> str:
        if 'slow' in request.server_names:
            self.everybody.wait()
        return 'done'

    def after(self, request: base.Request, memo: Any,
              outcome: base.Outcome) -> None:
        self.settled.append(outcome.status)


def nova(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    length = environ.get('CONTENT_LENGTH')
    body = environ['wsgi.input'].read(int(length))
    time.sleep(0.05)
    start_response('202 Accepted', [])
    return [body]


def serve(path: str) -> int:
    loaded = named.NamedExtensionManager.make_test_instance([
        extension.Extension('hanging', mock.Mock(), Hanging, None),
        extension.Extension('reserve', mock.Mock(), reserve.ReserveHook,
                            None)])
    manager.named.NamedExtensionManager = lambda *args, **kwargs: loaded
    filtered = vmip_filter.filter_factory({}, config_file=path)(nova)
    # The others have more than a busy machine takes.
    filtered._hooks._hooks[0].before.seconds = SLOW_TIME

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        environ['nova.context'] = harness.Context()
        return filtered(environ, start_response)

    listener = eventlet.listen(('127.0.0.1', 0))
    eventlet.spawn(wsgi.server, listener, app, log_output=False)
    port: int = listener.getsockname()[1]
    return port


def main(path: str) -> None:
    port = serve(path)
    seen: list[tuple[str, int, bool]] = []

    def client(name: str, chunked: bool) -> None:
        body = json.dumps({'server': {**harness.SERVER,
                                      'name': name}}).encode()
        connection = http.client.HTTPConnection('127.0.0.1', port,
                                                timeout=90)
        connection.request(
            'POST', '/servers', iter([body[:10], body[10:]])
            if chunked else body, encode_chunked=chunked,
            headers={'Transfer-Encoding': 'chunked'} if chunked else {})
        answer = connection.getresponse()
        same = answer.read() == body
        seen.append((name, answer.status, same))

    threads = [threading.Thread(target=client, args=(
        'slow' if number < SLOW else f'web{number}', bool(number % 2)))
        for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Hanging.everybody.set()
    deadline = time.monotonic() + 90
    while len(Hanging.settled) < CLIENTS and time.monotonic() < deadline:
        time.sleep(0.05)
    print(json.dumps({'seen': seen, 'settled': Hanging.settled}))


if __name__ == '__main__':
    main(sys.argv[1])
