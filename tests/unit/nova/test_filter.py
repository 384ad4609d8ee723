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

"""What the filter does with requests and answers, whatever is in them."""

from collections.abc import Iterator
import io
import json
import os
import threading
from typing import Any
from unittest import mock

import fixtures
from stevedore import extension
from stevedore import named
import webob.exc

from tests.unit import base
from tests.unit.nova import harness
from vmip_plugin import exceptions
from vmip_plugin.hooks import base as hooks
from vmip_plugin.inventory import database
from vmip_plugin.inventory import known
from vmip_plugin.nova import filter as vmip_filter

State = base.State
A = harness.A


class TestFilter(harness.FilterTestCase):

    def test_accepted(self) -> None:
        during: list[Any] = []
        self.nova.look = lambda: during.append(self.row(A))
        status, headers, body = self.call()
        self.assertEqual(('202 Accepted', {'X-Nova': 'yes'},
                          b''.join(self.nova.body)), (status, headers, body))
        # held before Nova sees the request
        self.assertEqual((State.RESERVED, None, 'req-1', base.PROJECT),
                         (during[0].state, during[0].server_id,
                          during[0].request_id, during[0].project_id))
        row = self.row(A)
        self.assertEqual((State.RESERVED, base.server_id(1), 'web'),
                         (row.state, row.server_id, row.server_name))
        self.assertEqual('nova-api', self.inventory.history(
            base.ip(A))[-1].actor)

    def test_nova_gets_the_same_bytes(self) -> None:
        body = (b'  {"server":{ "networks":[{"uuid":"'
                + base.NETWORK.upper().encode()
                + b'"}],"x":1.50,"name":"\xc3\xbc\\u00fc"} }\n')
        self.post(body)
        self.assertEqual([body], self.nova.bodies)
        self.assertEqual(str(len(body)),
                         self.nova.seen[0]['CONTENT_LENGTH'])
        self.assertEqual('\xfc\xfc', self.row(A).server_name)

    def test_several_servers(self) -> None:
        self.post({**harness.SERVER, 'min_count': 3, 'max_count': 3})
        self.assertEqual(3, len(self.held()))
        self.assertEqual({None}, {a.server_id for _, a in
                                  self.found()})

    def test_global_request_id(self) -> None:
        self.post(context=harness.Context(global_request_id='req-global'))
        self.assertEqual('req-global', self.row(A).request_id)

    def test_refused_by_nova(self) -> None:
        for status in ('400 Bad Request', '403 Forbidden',
                       '500 Internal Server Error', '302 Found'):
            self.nova.status = status
            self.assertEqual(status, self.post())
            self.assertEqual(State.FREE, self.state(A))
            self.assertEqual([], self.inventory.history(base.ip(A)))

    def test_exception_of_the_app(self) -> None:
        for error in (ZeroDivisionError(), SystemExit(3)):
            self.nova.error = error
            self.assertIs(error, self.assertRaises(type(error), self.post))
            self.assertEqual(State.FREE, self.state(A))

    def test_exception_after_an_accepting_status(self) -> None:
        def answer() -> Iterator[bytes]:
            yield b'{'
            raise ZeroDivisionError

        self.nova.answer = answer  # type: ignore[method-assign]
        self.assertRaises(ZeroDivisionError, self.post)
        self.assertEqual(State.FREE, self.state(A))

    def test_claimed_before_the_answer(self) -> None:
        """A fast cloud: the port is there before the 202 is."""
        self.nova.look = lambda: self.claim(1)
        for status in ('202 Accepted', '500 Oops'):
            self.nova.status = status
            self.post()
            self.assertEqual(State.CLAIMED, self.state(A))

    def test_answer_names_no_server(self) -> None:
        for body in ([b'<html>'], [], [b'{"reservation_id": "r-1"}']):
            self.nova.body = body
            self.assertEqual(b''.join(body), self.call()[2])
        self.assertEqual({State.RESERVED}, set(self.held().values()))

    def test_exc_info_by_keyword(self) -> None:
        def app(environ: Any, start_response: Any) -> list[bytes]:
            start_response('500 Oops', [], exc_info=None)
            return [b'x']

        self.app._app = app
        self.assertEqual(('500 Oops', {}, b'x'), self.call())

    def test_paths(self) -> None:
        for path in ('/servers', '/servers/', '/some-project/servers',
                     f'/{base.PROJECT}/servers/', '/os-volumes_boot',
                     f'/{base.PROJECT}/os-volumes_boot'):
            self.post(path=path)
        self.assertEqual(6, len(self.held()))

    def test_passed_untouched(self) -> None:
        for values in (
                {'method': 'GET'}, {'method': 'PUT'}, {'method': 'DELETE'},
                {'path': '/servers/x'}, {'path': '/servers/x/action'},
                {'path': '/a/b/servers'}, {'path': '/server'},
                {'path': '/servers/x/os-interface/y'},
                {'path': '/servers/x/os-interfaces'},
                {'path': '/os-volumes_boot/detail'},
                {'path': '/servers/x/os-interface', 'method': 'GET'},
                {'path': '/servers/x/os-interface/y', 'method': 'DELETE'},
                {'path': '/flavors'}, {'path': '/'}, {'path': ''},
                {'path': '/servers\n'}, {'path': '/servers.json'}):
            path = values.pop('path', '/servers')
            environ = self.environ(PATH_INFO=path, **values)
            self.untouched(environ)
        self.untouched(self.environ(PATH_INFO='/servers'), 'nova.context')
        self.assertEqual({}, self.held())

    def untouched(self, environ: dict[str, Any], *without: str) -> None:
        """See that the app gets this environ, and an input never read."""
        for key in without:
            del environ[key]
        before = dict(environ)
        unread = mock.Mock(spec=io.BytesIO())
        environ['wsgi.input'] = before['wsgi.input'] = unread
        got: list[Any] = []

        def app(environ: Any, start_response: Any) -> list[bytes]:
            got.append(environ)
            return answer

        answer = [b'the very same']
        self.app._app = app
        self.assertIs(answer, self.app(environ, lambda *args: None))
        self.assertIs(environ, got[0])
        self.assertEqual(before, environ)
        self.assertEqual([], unread.mock_calls)

    def test_what_nova_will_refuse(self) -> None:
        for body in (b'', b'{', b'[]', b'\xff', b'[' * 50000,
                     b'{"server": {"name": "x", "min_count": 1e999, '
                     b'"networks": []}}',
                     b'{"server": {"name": "\\ud800", "networks": '
                     b'[{"uuid": "' + base.NETWORK.encode() + b'"}]}}'):
            self.assertEqual('202 Accepted', self.post(body), body[:40])
            self.assertEqual(body, self.nova.bodies[-1])
        self.assertEqual({}, self.held())

    def test_chunked(self) -> None:
        body = json.dumps({'server': harness.SERVER}).encode()
        environ = self.environ(body)
        for empty in ({}, {'CONTENT_LENGTH': ''}):
            environ = self.environ(body, HTTP_TRANSFER_ENCODING='Chunked')
            del environ['CONTENT_LENGTH']
            environ.update(empty)
            self.assertEqual('202 Accepted', self.call(environ)[0])
            self.assertEqual(body, self.nova.bodies[-1])
        self.assertEqual(2, len(self.held()))

    def test_no_body(self) -> None:
        for length in ({}, {'CONTENT_LENGTH': ''}, {'CONTENT_LENGTH': '-1'},
                       {'CONTENT_LENGTH': 'x'}):
            environ = self.environ()
            unread = environ['wsgi.input']
            del environ['CONTENT_LENGTH']
            environ.update(length)
            self.nova.error = webob.exc.HTTPBadRequest()
            self.assertRaises(webob.exc.HTTPBadRequest, self.call, environ)
            self.assertIs(unread, self.nova.seen[-1]['wsgi.input'])
            self.assertEqual(0, unread.tell())
        self.assertEqual({}, self.held())

    def test_size_limit(self) -> None:
        """oslo.middleware's limit speaks by an exception that is an app."""
        class Limited(io.BytesIO):

            def read(self, *args: Any) -> bytes:
                raise webob.exc.HTTPRequestEntityTooLarge('too large')

        environ = self.environ()
        environ['wsgi.input'] = Limited()
        status, _, body = self.call(environ)
        self.assertEqual('413 Request Entity Too Large', status)
        self.assertIn(b'too large', body)
        self.assertEqual([], self.nova.seen)

    def test_client_is_gone(self) -> None:
        class Broken(io.BytesIO):

            def read(self, *args: Any) -> bytes:
                raise OSError('gone')

        environ = self.environ()
        environ['wsgi.input'] = Broken()
        self.assertRaises(OSError, self.call, environ)
        self.assertEqual([], self.nova.seen)

    def test_full(self) -> None:
        status, headers, body = self.call(self.environ(
            {**harness.SERVER, 'min_count': 12}))
        self.assertEqual('409 Conflict', status)
        self.assertEqual({'conflictingRequest': {
            'code': 409, 'message': 'No more addresses are free on the '
                                    'requested network.'}},
            json.loads(body))
        self.assertEqual({'Content-Type': 'application/json',
                          'Content-Length': str(len(body))}, headers)
        self.assertEqual([], self.nova.seen)
        self.assertEqual({}, self.held())

    def test_secrets_are_not_logged(self) -> None:
        logger = self.useFixture(fixtures.FakeLogger(level=1))
        self.post()
        self.post({**harness.SERVER, 'min_count': 12})
        self.nova.status = '500 Oops'
        self.post()
        os.rename(self.directory / 'vmip.sqlite', self.directory / 'away')
        self.app._hooks._hooks[0].plugin._inventory.database.engine.dispose()
        self.assertEqual('503 Service Unavailable', self.post(
            {**harness.SERVER, 'user_data': harness.PASSWORD}))
        self.assertNotEqual('', logger.output)
        for word in (harness.PASSWORD, 'adminPass', '"web"', 'networks'):
            self.assertNotIn(word, logger.output)

    def test_many_at_once(self) -> None:
        """One instance serves all threads; its hooks are made once."""
        statuses: list[str] = []
        threads = [threading.Thread(
            target=lambda: statuses.append(self.post()))
            for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(['202 Accepted'] * 8, statuses)
        self.assertEqual(8, len(self.held()))


class TestAnswerGoesFirst(harness.FilterTestCase):

    def test_settled_when_sent_and_once(self) -> None:
        answer = self.app(self.environ(), lambda *args: None)
        self.assertEqual(b''.join(self.nova.body), b''.join(answer))
        self.assertIsNone(self.row(A).server_id)
        answer.close()
        self.assertEqual(base.server_id(1), self.row(A).server_id)
        changed = self.row(A).generation
        answer.close()
        self.assertEqual(changed, self.row(A).generation)

    def test_refusal_gives_back_before_it_is_sent(self) -> None:
        self.nova.status = '403 Forbidden'
        self.app(self.environ(), lambda *args: None)
        self.assertEqual(State.FREE, self.state(A))


class TestGenerator(harness.FilterTestCase):

    nova_class = harness.LazyNova

    def test_accepted(self) -> None:
        self.assertEqual(('202 Accepted', {'X-Nova': 'yes'},
                          b''.join(self.nova.body)), self.call())
        self.assertEqual(base.server_id(1), self.row(A).server_id)
        self.assertEqual(1, self.nova.closed)

    def test_refused(self) -> None:
        self.nova.status = '403 Forbidden'
        self.post()
        self.assertEqual(State.FREE, self.state(A))

    def test_exception(self) -> None:
        self.nova.error = ZeroDivisionError()
        self.assertRaises(ZeroDivisionError, self.post)
        self.assertEqual(State.FREE, self.state(A))
        self.assertEqual(1, self.nova.closed)


class AwayTestCase(harness.FilterTestCase):

    def away(self) -> None:
        os.rename(self.directory / 'vmip.sqlite', self.directory / 'away')

    def known(self) -> None:
        """Let the filter see the list once before it goes away."""
        self.post()
        self.nova.seen.clear()
        self.app._hooks._hooks[0].plugin._inventory.database.engine.dispose()
        self.away()

    def other(self) -> str:
        return self.post({**harness.SERVER, 'networks': [
            {'uuid': '11111111-0000-0000-0000-000000000009'}]})


class TestAwayFail(AwayTestCase):

    def test_never_seen(self) -> None:
        self.away()
        status, _, body = self.call()
        self.assertEqual('503 Service Unavailable', status)
        self.assertEqual(503, json.loads(body)['serviceUnavailable']['code'])
        self.assertEqual([], self.nova.seen)
        self.assertEqual('503 Service Unavailable', self.other())

    def test_network_without_pool_passes(self) -> None:
        self.known()
        self.assertEqual('503 Service Unavailable', self.post())
        self.assertEqual('202 Accepted', self.other())
        self.assertEqual('202 Accepted', self.post({'name': 'x'}))
        self.assertEqual(2, len(self.nova.seen))

    def test_silent(self) -> None:
        """Those on networks without a pool do not wait for it."""
        self.post()
        self.nova.seen.clear()
        hangs = threading.Event()
        self.addCleanup(hangs.set)

        def silent(database: object) -> Any:
            hangs.wait(60)
            raise exceptions.InventoryUnavailable

        self.patch(database.Database, '_guarded', silent)
        self.patch(known, 'PATIENCE', 0)
        # what was read a moment ago is read anew, in vain
        self.patch(known, 'MAX_AGE', 0)
        for _ in range(20):
            self.assertEqual('202 Accepted', self.other())
        self.assertEqual(20, len(self.nova.seen))
        limit = self.app._hooks._hooks[0].before
        self.assertEqual(0, limit._late)
        limit.seconds = 0.1
        self.assertEqual('503 Service Unavailable', self.post())
        self.assertEqual(20, len(self.nova.seen))
        self.assertFalse(hangs.is_set())

    def test_too_many_hang(self) -> None:
        """What is over its time and of other networks refuses nobody."""
        self.known()
        limit = self.app._hooks._hooks[0].before
        limit._late = limit.MAX_LATE
        self.assertEqual('503 Service Unavailable', self.post())
        self.assertEqual('202 Accepted', self.other())

    def test_goes_away_before_the_answer(self) -> None:
        """Settling fails, and the answer stands."""
        def away() -> None:
            self.app._hooks._hooks[0].plugin._inventory.database.engine.dispose()
            self.away()

        self.nova.look = away
        self.assertEqual('202 Accepted', self.post())
        self.assertIn('could not settle', self.log.output)


class TestAwayPass(AwayTestCase):

    config = '[reserve]\non_error = pass\n'

    def test_passes(self) -> None:
        self.away()
        self.assertEqual('202 Accepted', self.post())
        self.assertIn('passes without hook reserve', self.log.output)

    def test_full_passes(self) -> None:
        self.assertEqual('202 Accepted', self.post(
            {**harness.SERVER, 'min_count': 12}))
        self.assertEqual({}, self.held())


class TestConfig(harness.FilterTestCase):
    """A service that could make no port does not start."""

    def refused(self, path: str) -> str:
        factory = vmip_filter.filter_factory({}, config_file=path)
        error = self.assertRaises(exceptions.ConfigError, factory, self.nova)
        self.assertIn(str(error), self.log.output)
        return str(error)

    def test_wrong_values(self) -> None:
        for number, (text, wrong) in enumerate((
                ('[reserve]\nhooks = nothing-of-that-name\n',
                 'nothing-of-that-name'),
                ('[reserve]\nttl = soon\n', 'ttl'),
                ('[database]\nconnection = oracle://h/d\n',
                 '[database] connection'))):
            path = self.directory / f'{number}.conf'
            path.write_text(text)
            self.assertIn(wrong, self.refused(str(path)))

    def test_no_file(self) -> None:
        missing = str(self.directory / 'missing.conf')
        self.useFixture(fixtures.EnvironmentVariable('VMIP_CONFIG', missing))
        self.assertIn(missing, self.refused(''))
        self.assertIn('by the user', self.refused(missing))


CALLS: list[Any] = []


class Recorder(hooks.PreCreateHook):
    """A hook that tells when it is called."""

    name = ''
    error: Exception | None = None
    after_error: Exception | None = None

    def before(self, request: hooks.Request) -> Any:
        CALLS.append(('before', self.name))
        if self.error is not None:
            raise self.error
        return self.name.upper()

    def after(self, request: hooks.Request, memo: Any,
              outcome: hooks.Outcome) -> None:
        CALLS.append(('after', self.name, memo, outcome.status,
                      outcome.server_id))
        if self.after_error is not None:
            raise self.after_error


class One(Recorder):
    name = 'one'


class Two(Recorder):
    name = 'two'


class Three(Recorder):
    name = 'three'


class TestHooks(harness.FilterTestCase):

    def setUp(self) -> None:
        super().setUp()
        CALLS.clear()
        manager = named.NamedExtensionManager.make_test_instance([
            extension.Extension(hook.name, mock.Mock(), hook, None)
            for hook in (One, Two, Three)])
        self.patch(vmip_filter.manager.named, 'NamedExtensionManager',
                   lambda *args, **kwargs: manager)
        self.path = self.directory / 'hooks.conf'
        self.path.write_text('[reserve]\nhooks = one, two, three\n')
        self.app = vmip_filter.filter_factory(
            {}, config_file=str(self.path))(self.nova)

    def test_order(self) -> None:
        self.nova.look = lambda: CALLS.append('nova')
        self.post()
        server = base.server_id(1)
        self.assertEqual([
            ('before', 'one'), ('before', 'two'), ('before', 'three'),
            'nova', ('after', 'three', 'THREE', 202, server),
            ('after', 'two', 'TWO', 202, server),
            ('after', 'one', 'ONE', 202, server)], CALLS)

    def test_refusal(self) -> None:
        self.patch(Two, 'error', hooks.Refused(403, 'Not "today".'))
        status, headers, body = self.call()
        self.assertEqual('403 Forbidden', status)
        self.assertEqual({'forbidden': {
            'code': 403, 'message': 'Not "today".'}}, json.loads(body))
        self.assertEqual('application/json', headers['Content-Type'])
        self.assertEqual([], self.nova.seen)
        self.assertEqual([('before', 'one'), ('before', 'two'),
                          ('after', 'one', 'ONE', 403, None)], CALLS)

    def test_unusual_refusal(self) -> None:
        self.patch(One, 'error', hooks.Refused(418, 'tea'))
        status, _, body = self.call()
        self.assertEqual('418', status.split()[0])
        self.assertEqual({'computeFault': {'code': 418, 'message': 'tea'}},
                         json.loads(body))

    def test_bug(self) -> None:
        self.patch(Three, 'error', ZeroDivisionError('inner words'))
        status, _, body = self.call()
        self.assertEqual('500 Internal Server Error', status)
        self.assertNotIn(b'inner words', body)
        self.assertEqual([], self.nova.seen)
        self.assertEqual([('after', 'two', 'TWO', 500, None),
                          ('after', 'one', 'ONE', 500, None)], CALLS[-2:])

    def test_settling_fails(self) -> None:
        self.patch(Two, 'after_error', ZeroDivisionError())
        self.assertEqual('202 Accepted', self.post())
        self.assertEqual(['three', 'two', 'one'],
                         [call[1] for call in CALLS[-3:]])

    def test_settling_fails_after_a_refusal(self) -> None:
        self.patch(Three, 'error', hooks.Refused(403, 'no'))
        self.patch(Two, 'after_error', ZeroDivisionError())
        self.assertEqual('403 Forbidden', self.post())
        self.assertEqual(('after', 'one', 'ONE', 403, None), CALLS[-1])
