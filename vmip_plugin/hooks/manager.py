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

"""Loads the hooks and runs them around a request."""

from collections.abc import Sequence
import dataclasses
import functools
import time
from typing import Any

from oslo_config import cfg
from oslo_log import log as logging
from stevedore import named

from vmip_plugin import exceptions
from vmip_plugin.hooks import base
from vmip_plugin.hooks import limit

LOG = logging.getLogger(__name__)

NAMESPACE = 'vmip_plugin.hooks'


@dataclasses.dataclass(frozen=True)
class _Hook:
    name: str
    plugin: base.PreCreateHook
    before: limit.Limit
    after: limit.Limit


@dataclasses.dataclass(frozen=True)
class Ran:
    """A hook that ran and has to be settled."""

    hook: _Hook
    request: base.Request
    memo: Any


class Hooks:
    """The hooks of one process, in their order.

    :raises ConfigError: a hook is not installed or cannot be loaded.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        def failed(manager: Any, entry_point: Any, exc: Exception) -> None:
            raise exceptions.ConfigError(
                f'Hook {entry_point.name} cannot be loaded: {exc}') from exc

        names = conf.reserve.hooks
        found = named.NamedExtensionManager(
            NAMESPACE, names, name_order=True,
            warn_on_missing_entrypoint=False,
            on_load_failure_callback=failed)
        missing = sorted(set(names) - set(found.names()))
        if missing:
            raise exceptions.ConfigError(
                f'[reserve] hooks names {", ".join(missing)}, which no '
                f'installed package has in {NAMESPACE}')
        self._passes = conf.reserve.on_error == 'pass'
        self._hooks = [self._make(conf, extension.name, extension.plugin)
                       for extension in found]

    @staticmethod
    def _make(conf: cfg.ConfigOpts, name: str,
              plugin: type[base.PreCreateHook]) -> _Hook:
        if plugin.OPTS:
            group = f'hook:{name}'
            conf.register_opts(plugin.OPTS, group=group)
            try:
                dict(conf[group])
            except cfg.Error as exc:
                raise exceptions.ConfigError(f'[{group}]: {exc}') from exc
        try:
            made = plugin(conf)
        except Exception as exc:
            raise exceptions.ConfigError(
                f'Hook {name} cannot be made: {exc}') from exc
        seconds = conf.reserve.hook_timeout
        return _Hook(name, made, limit.Limit(f'Hook {name}', seconds),
                     limit.Limit(f'Hook {name}, after', seconds))

    def before(self, request: base.Request) -> list[Ran]:
        """Run every hook.

        :returns: what :meth:`after` needs.
        :raises Refused: one said no or failed; those before it were settled.
        """
        ran: list[Ran] = []
        for hook in self._hooks:
            if request.action not in hook.plugin.ACTIONS:
                continue
            try:
                request = self._run(hook, request, ran)
            except base.Refused as exc:
                self.after(ran, base.Outcome(exc.status))
                raise
            except BaseException:
                self.after(ran, base.Outcome(500))
                raise
        return ran

    def _run(self, hook: _Hook, request: base.Request,
             ran: list[Ran]) -> base.Request:
        """Run one hook.

        :returns: the request as later hooks see it.
        """
        seen = request
        if hook.before.seconds:
            seen = dataclasses.replace(
                request, deadline=time.monotonic() + hook.before.seconds)

        def late(result: Any) -> None:
            memo = result.memo if isinstance(result, base.AskFor) else result
            hook.plugin.after(seen, memo, base.Outcome(503))

        try:
            result = hook.before.run(lambda: hook.plugin.before(seen), late)
        except base.Unable as exc:
            return self._unable(hook, request, exc.__cause__ or exc, exc)
        except base.Refused as exc:
            LOG.info('Hook %s refused a request: %s', hook.name, exc)
            raise
        except limit.TimeUp as exc:
            if not self._concerns(hook, seen):
                LOG.warning('A request that does not concern hook %s passes '
                            'without it: %s', hook.name, exc)
                return request
            return self._unable(hook, request, exc, base.Unable(
                503, 'The request could not be prepared in time, try again '
                     'later.'))
        except Exception as exc:
            LOG.exception('Hook %s failed', hook.name)
            return self._unable(hook, request, exc, base.Unable(
                500, 'The request could not be prepared.'))
        if isinstance(result, base.AskFor):
            ran.append(Ran(hook, seen, result.memo))
            return dataclasses.replace(request, addresses=result.addresses)
        ran.append(Ran(hook, seen, result))
        return request

    @staticmethod
    def _concerns(hook: _Hook, request: base.Request) -> bool:
        try:
            return hook.plugin.concerns(request)
        except Exception:
            LOG.exception('Hook %s', hook.name)
            return True

    def _unable(self, hook: _Hook, request: base.Request,
                exc: BaseException, answer: base.Unable) -> base.Request:
        if self._passes:
            LOG.warning('A request passes without hook %s: %s', hook.name,
                        exc)
            return request
        LOG.error('A request is refused, hook %s: %s', hook.name, exc)
        raise answer from exc

    def after(self, ran: Sequence[Ran], outcome: base.Outcome) -> None:
        """Settle every hook that ran. The answer stands, come what may."""
        for done in reversed(ran):
            hook = done.hook
            try:
                hook.after.run(functools.partial(
                    hook.plugin.after, done.request, done.memo, outcome))
            except exceptions.VmipError as exc:
                LOG.warning('Hook %s could not settle a request: %s',
                            hook.name, exc)
            except Exception:
                LOG.exception('Hook %s failed to settle a request', hook.name)
