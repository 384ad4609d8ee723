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

"""The contract of the hooks: order, changes, failures, time."""

import math
import threading
import time
from typing import Any
from unittest import mock

from oslo_config import cfg
from oslo_context import context
from stevedore import extension
from stevedore import named

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.hooks import base as hooks
from vmip_plugin.hooks import limit
from vmip_plugin.hooks import manager
from vmip_plugin.inventory import records

REQUEST = hooks.Request(records.Requester('req-1', base.PROJECT), ('web',),
                        (hooks.RequestedNetwork(base.NETWORK),))
ATTACH = hooks.Request(REQUEST.requester, (), REQUEST.networks,
                       action=hooks.Action.ATTACH,
                       server_id=base.server_id(1))
A, B = base.ip('10.0.0.10'), base.ip('10.0.0.11')


class Hook(hooks.PreCreateHook):
    """Does as it is told, and notes what it is given."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__(conf)
        self.seen: list[hooks.Request] = []
        self.settled: list[tuple[Any, int]] = []
        self.requests: list[hooks.Request] = []

    def act(self) -> Any:
        return 'memo'

    def settle(self) -> None:
        pass

    def before(self, request: hooks.Request) -> Any:
        self.seen.append(request)
        return self.act()

    def after(self, request: hooks.Request, memo: Any,
              outcome: hooks.Outcome) -> None:
        self.requests.append(request)
        self.settled.append((memo, outcome.status))
        self.settle()


class Both(Hook):

    ACTIONS = tuple(hooks.Action)


class WithOptions(Hook):

    OPTS = (cfg.IntOpt('size', default=5), cfg.StrOpt('word'))


class ManagerTestCase(base.TestCase):

    kinds: tuple[type[Hook], ...] = (Hook, Hook, Hook)

    def load(self, **options: Any) -> list[Any]:
        """Load the hooks; return them."""
        for name, value in options.items():
            self.conf.set_override(name, value, 'reserve')
        found = named.NamedExtensionManager.make_test_instance([
            extension.Extension(f'h{number}', mock.Mock(), kind, None)
            for number, kind in enumerate(self.kinds)])
        self.conf.set_override('hooks', found.names(), 'reserve')
        with mock.patch.object(manager.named, 'NamedExtensionManager',
                               return_value=found):
            self.manager = manager.Hooks(self.conf)
        return [hook.plugin for hook in self.manager._hooks]

    def refused(self, request: hooks.Request = REQUEST) -> hooks.Refused:
        error = self.assertRaises(hooks.Refused, self.manager.before, request)
        assert isinstance(error, hooks.Refused)
        return error


def raiser(error: BaseException) -> Any:
    return mock.Mock(side_effect=error)


class TestOrder(ManagerTestCase):

    def test_all(self) -> None:
        one, two, three = self.load()
        order: list[str] = []
        for name, hook in (('1', one), ('2', two), ('3', three)):
            hook.act = lambda name=name: order.append(f'before {name}')
            hook.settle = lambda name=name: order.append(f'after {name}')
        ran = self.manager.before(REQUEST)
        order.append('nova')
        self.manager.after(ran, hooks.Outcome(202))
        self.assertEqual(['before 1', 'before 2', 'before 3', 'nova',
                          'after 3', 'after 2', 'after 1'], order)
        self.assertEqual([REQUEST] * 3,
                         [hook.seen[0] for hook in (one, two, three)])

    def test_status_of_an_error_only(self) -> None:
        for status in (200, 302, 399, 600):
            self.assertRaises(ValueError, hooks.Refused, status, 'x')


class TestActions(ManagerTestCase):

    kinds = (Hook, Both)

    def test_only_what_it_is_for(self) -> None:
        creates, both = self.load()
        ran = self.manager.before(ATTACH)
        self.manager.after(ran, hooks.Outcome(200))
        self.assertEqual(([], []), (creates.seen, creates.settled))
        self.assertEqual(([ATTACH], [('memo', 200)]),
                         (both.seen, both.settled))


class TestOptions(ManagerTestCase):

    kinds = (WithOptions,)

    def test_of_its_own(self) -> None:
        path = self.directory / 'vmip.conf'
        path.write_text('[hook:h0]\nsize = 7\n')
        self.conf([], default_config_files=[str(path)])
        hook, = self.load()
        self.assertEqual(7, hook.conf['hook:h0'].size)

    def test_slip(self) -> None:
        path = self.directory / 'vmip.conf'
        path.write_text('[hook:h0]\nsize = large\n')
        self.conf([], default_config_files=[str(path)])
        error = self.assertRaises(exceptions.ConfigError, self.load)
        self.assertIn('[hook:h0]', str(error))


class TestAskFor(ManagerTestCase):

    def test_later_hooks_see_it(self) -> None:
        one, two, three = self.load()
        one.act = lambda: hooks.AskFor((A,), 'note')
        two.act = lambda: hooks.AskFor((B,))
        ran = self.manager.before(REQUEST)
        self.manager.after(ran, hooks.Outcome(202))
        self.assertEqual([(), (A,), (B,)], [
            hook.seen[0].addresses for hook in (one, two, three)])
        # each is settled with the request that it saw
        self.assertEqual([(), (A,), (B,)], [
            hook.requests[0].addresses for hook in (one, two, three)])
        self.assertEqual([('note', 202)], one.settled)
        self.assertEqual([(None, 202)], two.settled)

    def test_no_address(self) -> None:
        one, *_ = self.load()
        one.act = lambda: hooks.AskFor(('10.0.0.10',))  # type: ignore
        self.assertEqual(500, self.refused().status)
        self.assertEqual([], one.settled)

    def test_nothing_else_can_be_changed(self) -> None:
        self.assertRaises(AttributeError, setattr, REQUEST, 'server_names',
                          ('x',))


class TestFailures(ManagerTestCase):

    def test_refused(self) -> None:
        for on_error in ('fail', 'pass'):
            one, two, three = self.load(on_error=on_error)
            two.act = raiser(hooks.Refused(403, 'not today'))
            error = self.refused()
            self.assertEqual((403, 'not today'), (error.status, str(error)))
            self.assertEqual([('memo', 403)], one.settled)
            self.assertEqual(([], []), (two.settled, three.seen))

    def test_unable(self) -> None:
        one, two, three = self.load()
        two.act = raiser(hooks.Unable(503, 'later'))
        error = self.refused()
        self.assertEqual((503, 'later'), (error.status, str(error)))
        self.assertEqual([('memo', 503)], one.settled)
        self.assertEqual([], three.seen)

    def test_bug(self) -> None:
        one, two, three = self.load()
        two.act = raiser(ZeroDivisionError('inner words'))
        error = self.refused()
        self.assertEqual(500, error.status)
        self.assertNotIn('inner words', str(error))
        self.assertIn('inner words', self.log.output)
        self.assertEqual([('memo', 500)], one.settled)
        self.assertEqual([], three.seen)

    def test_pass(self) -> None:
        for error in (hooks.Unable(503, 'later'), ZeroDivisionError('x')):
            one, two, three = self.load(on_error='pass')
            two.act = raiser(error)
            ran = self.manager.before(REQUEST)
            self.manager.after(ran, hooks.Outcome(202))
            self.assertEqual([('memo', 202)], one.settled)
            self.assertEqual([('memo', 202)], three.settled)
            self.assertEqual([], two.settled)
            self.assertIn('passes without hook h1', self.log.output)

    def test_the_process_ends(self) -> None:
        for on_error in ('fail', 'pass'):
            one, two, _ = self.load(on_error=on_error)
            two.act = raiser(SystemExit(3))
            self.assertRaises(SystemExit, self.manager.before, REQUEST)
            self.assertEqual([('memo', 500)], one.settled)

    def test_settling_fails(self) -> None:
        one, two, three = self.load()
        two.settle = raiser(ZeroDivisionError())
        three.settle = raiser(exceptions.InventoryUnavailable('away'))
        self.manager.after(self.manager.before(REQUEST), hooks.Outcome(202))
        self.assertEqual([('memo', 202)], one.settled)
        self.assertIn('Hook h1 failed to settle', self.log.output)
        self.assertIn('Hook h2 could not settle a request: away',
                      self.log.output)


class TestTime(ManagerTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.go_on = threading.Event()
        self.addCleanup(self.go_on.set)

    def hang(self, result: Any = 'late') -> Any:
        def act() -> Any:
            self.go_on.wait(120)
            if isinstance(result, Exception):
                raise result
            return result
        return act

    def load_hanging(self, number: int, **options: Any) -> Any:
        """Load three hooks; one, which will hang, has little time."""
        hooks_ = self.load(hook_timeout=600, **options)
        hook = self.manager._hooks[number]
        hook.before.seconds = hook.after.seconds = 0.1
        return hooks_

    def settled(self, hook: Hook) -> list[tuple[Any, int]]:
        deadline = time.monotonic() + 60
        while not hook.settled and time.monotonic() < deadline:
            time.sleep(0.01)
        return hook.settled

    def test_is_told(self) -> None:
        one, *_ = self.load(hook_timeout=600)
        self.manager.before(REQUEST)
        self.assertTrue(300 < one.seen[0].remaining <= 600)
        self.assertEqual(math.inf, REQUEST.remaining)
        self.assertEqual(0.0, hooks.Request(
            REQUEST.requester, (), (), deadline=1.0).remaining)

    def test_none(self) -> None:
        one, *_ = self.load(hook_timeout=0)
        threads = []
        one.act = lambda: threads.append(threading.current_thread())
        self.manager.before(REQUEST)
        self.assertEqual([threading.current_thread()], threads)
        self.assertEqual(math.inf, one.seen[0].remaining)

    def test_over(self) -> None:
        one, two, three = self.load_hanging(1)
        two.act = self.hang()
        error = self.refused()
        self.assertEqual(503, error.status)
        self.assertIn('in time', str(error))
        self.assertEqual([('memo', 503)], one.settled)
        self.assertEqual(([], []), (two.settled, three.seen))
        # what it did after all is settled when it ends
        self.go_on.set()
        self.assertEqual([('late', 503)], self.settled(two))

    def test_over_and_pass(self) -> None:
        one, two, three = self.load_hanging(1, on_error='pass')
        two.act = self.hang(hooks.AskFor((A,), 'late'))
        ran = self.manager.before(REQUEST)
        self.manager.after(ran, hooks.Outcome(202))
        self.assertEqual([('memo', 202)], three.settled)
        self.assertEqual((), three.seen[0].addresses)
        self.go_on.set()
        self.assertEqual([('late', 503)], self.settled(two))

    def test_over_for_a_request_of_no_concern(self) -> None:
        """It goes on without that hook, whatever on_error says."""
        one, two, three = self.load(hook_timeout=2)
        two.act = self.hang(hooks.AskFor((A,), 'late'))
        asked: list[hooks.Request] = []
        self.patch(two, 'concerns', lambda request: bool(
            asked.append(request)))
        ran = self.manager.before(REQUEST)
        self.assertEqual([REQUEST], asked)
        self.manager.after(ran, hooks.Outcome(202))
        self.assertEqual(([('memo', 202)],) * 2, (one.settled, three.settled))
        self.assertEqual((), three.seen[0].addresses)
        self.go_on.set()
        self.assertEqual([('late', 503)], self.settled(two))

    def test_over_and_it_cannot_tell_of_what_concern(self) -> None:
        _, two, _ = self.load(hook_timeout=2)
        two.act = self.hang()
        self.patch(two, 'concerns', raiser(ZeroDivisionError()))
        self.assertEqual(503, self.refused().status)

    def test_fails_late(self) -> None:
        _, two, _ = self.load_hanging(1)
        two.act = self.hang(ZeroDivisionError('inner words'))
        self.refused()
        self.go_on.set()
        deadline = time.monotonic() + 60
        while ('ZeroDivisionError' not in self.log.output
               and time.monotonic() < deadline):
            time.sleep(0.01)
        self.assertIn('Hook h1 has failed after its time: ZeroDivisionError',
                      self.log.output)
        self.assertEqual([], two.settled)

    def test_its_own_timeout_is_a_failure_like_others(self) -> None:
        one, *_ = self.load()
        one.act = raiser(TimeoutError('its server'))
        self.assertEqual(500, self.refused().status)

    def test_settling_hangs(self) -> None:
        one, two, _ = self.load_hanging(1)
        two.settle = self.hang()
        self.manager.after(self.manager.before(REQUEST), hooks.Outcome(202))
        self.assertEqual([('memo', 202)], one.settled)
        self.assertIn('not done within 0.1 s', self.log.output)

    def test_too_many_hang(self) -> None:
        self.patch(limit.Limit, 'MAX_LATE', 2)
        one, *_ = self.load_hanging(0)
        one.act = self.hang()
        for _ in range(4):
            self.assertEqual(503, self.refused().status)
        self.assertEqual(2, len(one.seen))
        self.go_on.set()
        self.assertEqual([('late', 503)], self.settled(one)[:1])
        deadline = time.monotonic() + 60
        while self.manager._hooks[0].before._late:
            self.assertGreater(deadline, time.monotonic())
            time.sleep(0.01)
        self.manager._hooks[0].before.seconds = 600
        self.assertEqual(3, len(self.manager.before(REQUEST)))

    def test_request_id_in_what_it_logs(self) -> None:
        one, *_ = self.load()
        seen: list[Any] = []
        one.act = lambda: seen.append(context.get_current())
        nova = context.RequestContext(request_id='req-7')
        self.addCleanup(lambda: delattr(context._request_store, 'context'))
        self.manager.before(REQUEST)
        self.assertEqual([nova], seen)
