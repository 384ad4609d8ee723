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

"""Loads the hooks and runs them around a create request."""

from typing import Any

from oslo_config import cfg
from oslo_log import log as logging
from stevedore import named

from vmip_plugin import exceptions
from vmip_plugin.hooks import base

LOG = logging.getLogger(__name__)

NAMESPACE = 'vmip_plugin.hooks'


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
        self._hooks: list[tuple[str, base.PreCreateHook]] = []
        for extension in found:
            conf.register_opts(extension.plugin.OPTS,
                               group=f'hook:{extension.name}')
            self._hooks.append((extension.name, extension.plugin(conf)))

    def before(self, request: base.CreateRequest) -> list[Any]:
        """Run every hook.

        :returns: the memo of each.
        :raises Refused: one said no; those before it were settled.
        """
        memos: list[Any] = []
        try:
            for _, hook in self._hooks:
                memos.append(hook.before(request))
        except base.Refused as exc:
            LOG.info('Hook %s refused a create request: %s',
                     self._hooks[len(memos)][0], exc)
            self.after(request, memos, base.Outcome(exc.status))
            raise
        except Exception:
            self.after(request, memos, base.Outcome(500))
            raise
        return memos

    def after(self, request: base.CreateRequest, memos: list[Any],
              outcome: base.Outcome) -> None:
        """Settle every hook that ran. Nova's answer stands, come what may."""
        for (name, hook), memo in reversed(
                list(zip(self._hooks, memos, strict=False))):
            try:
                hook.after(request, memo, outcome)
            except exceptions.VmipError as exc:
                LOG.warning('Hook %s could not settle a request: %s', name,
                            exc)
            except Exception:
                LOG.exception('Hook %s failed to settle a request', name)
