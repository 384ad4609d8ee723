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

"""Which networks a project may use."""

import threading
import time

import cachetools
from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin import exceptions

LOG = logging.getLogger(__name__)


class UsableNetworks:
    """Neutron's answers, remembered for a short while.

    A remembered answer that has become wrong costs little: Nova decides by
    itself, and a reservation on another network is not claimed and ends.

    :param conf: options with the groups ``[reserve]`` and ``[cloud]``.
    """

    #: answers kept at most
    MAX_PROJECTS = 10000
    #: seconds after which Neutron is asked again for a network that was not
    #: in its answer: it may have been made since
    RETRY = 5.0
    #: how many times the time-out Neutron is left alone after a failure
    PAUSE = 10

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        timeout = conf.reserve.network_timeout
        self._cloud = vmip_cloud.Cloud(conf, timeout)
        self._pause = self.PAUSE * timeout
        self._caches = conf.reserve.network_cache_time > 0
        #: whether Neutron can be asked at all
        self.asks = self._caches and bool(conf.cloud.auth_type)
        self._known: cachetools.TTLCache[
            str, tuple[list[vmip_cloud.Network], float]
        ] = cachetools.TTLCache(
            self.MAX_PROJECTS, conf.reserve.network_cache_time)
        self._lock = threading.Lock()
        self._quiet_until = 0.0

    def only(self, project_id: str, auto: bool) -> str | None:
        """Return the one network of the project, None where Nova takes none.

        :param auto: the client asked for ``auto``.
        :raises CloudUnavailable: Neutron did not tell.
        """
        found = [network.id for network in self._usable(project_id)
                 if network.auto or not auto]
        return found[0] if len(found) == 1 else None

    def has(self, project_id: str, network_id: str) -> bool:
        """Tell whether a project may use a network.

        :raises CloudUnavailable: Neutron did not tell.
        """
        return any(network.id == network_id for network in
                   self._usable(project_id, network_id))

    def _usable(self, project_id: str, network_id: str | None = None,
                ) -> list[vmip_cloud.Network]:
        """Return the networks that a project may use.

        :param network_id: should be one of them.
        """
        if not self._caches:
            raise exceptions.CloudUnavailable(
                '[reserve] network_cache_time is 0')
        now = time.monotonic()
        with self._lock:
            known, since = self._known.get(project_id, (None, 0.0))
            if known is not None and (
                    network_id is None or now - since < self.RETRY
                    or any(network.id == network_id for network in known)):
                return known
            if now < self._quiet_until:
                raise exceptions.CloudUnavailable(
                    'it did not answer a moment ago')
        try:
            answer = self._cloud.usable_networks(project_id)
        except exceptions.CloudUnavailable as exc:
            LOG.warning('It is not known which networks a project may use: '
                        '%s', exc)
            with self._lock:
                self._quiet_until = time.monotonic() + self._pause
            raise
        with self._lock:
            self._known[project_id] = answer, time.monotonic()
        return answer
