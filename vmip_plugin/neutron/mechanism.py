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


"""Strict mode: no port before its host entries.

ML2 calls a mechanism driver when a port is committed and before the caller of
the API has an answer. This one sees to it that by then the DHCP servers of
the pool have the port's host entry (``[dhcp] strict_servers`` says whether
each of them), so that no guest can ask before. Where that cannot be done in
time it refuses the port: ML2 deletes it, and the IPAM driver gives its
address back.
"""

import contextlib
import threading
import time
from typing import Any

from neutron_lib import exceptions as n_exc
from neutron_lib.plugins.ml2 import api as ml2
from oslo_config import cfg
from oslo_log import log as logging

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.cmd import common
from vmip_plugin.dhcp import breaker
from vmip_plugin.dhcp import manager
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin.neutron import shared

LOG = logging.getLogger(__name__)

#: Seconds between the first two tries; doubled up to the second value.
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
#: Seconds for which a create waits that happens to be the probe of a DHCP
#: server that is down.
_PROBE_WAIT = 1.0
_CANNOT_WRITE = 'it cannot be written to, the log of Neutron says why'
#: Most creates of one process that wait for longer than a moment: the others
#: of its threads are for who needs no DHCP server.
_MOST_WAITING = 16


class HostEntryMissing(n_exc.ServiceUnavailable):
    """A DHCP server does not serve a port's address; answered with 503."""

    # For any user to see: what else is known is in the log.
    message = ('DHCP server %(server)s does not serve %(address)s yet: '
               '%(reason)s.')


class VmipMechanismDriver(ml2.MechanismDriver):
    """``[ml2] mechanism_drivers = ...,vmip`` in ml2_conf.ini.

    It binds no port and has no say in anything but a port's create.
    """

    def initialize(self) -> None:
        """Check what strict mode needs, before neutron-server is up.

        A server that cannot be written to just now is only logged: ports in
        its subnets cannot be made until it can.

        :raises ConfigError: the configuration cannot work.
        """
        self._lock = threading.Lock()
        self._made: work.Worker | None = None
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)
        if cfg.CONF.ipam_driver != 'vmip':
            raise exceptions.ConfigError(
                'The mechanism driver vmip needs [DEFAULT] ipam_driver = vmip')
        for server in manager.load_drivers(shared.configuration()).values():
            for complaint in server.check():
                LOG.error('Strict mode, DHCP server %s as seen from this '
                          'host: %s', server.name, complaint)

    def create_port_postcommit(self, context: ml2.PortContext) -> None:
        """Return when the DHCP servers have what they need for the port.

        :raises HostEntryMissing: they have not, within strict_timeout.
        :raises InventoryAway: the list cannot be reached.
        """
        port = context.current
        # The claim has told this process of the network's pool.
        if port['fixed_ips'] and shared.inventory().may_have_pool(
                network_id=port['network_id']):
            self._serve(port)

    def update_port_postcommit(self, context: ml2.PortContext) -> None:
        """Do the same where a port's addresses or MAC have changed.

        ML2 only logs what is raised here. The entries stay work to do.

        :raises HostEntryMissing: see :meth:`create_port_postcommit`.
        :raises InventoryAway: the list cannot be reached.
        """
        port, before = context.current, context.original
        if not shared.inventory().may_have_pool(
                network_id=port['network_id']):
            return
        if port['mac_address'] != before['mac_address']:
            self._change_mac(port)
        elif port['fixed_ips'] == before['fixed_ips']:
            return
        self._serve(port)

    def filter_hosts_with_segment_access(
            self, context: Any, segments: Any, candidate_hosts: Any,
            agent_getter: Any) -> set[str]:
        """Return no host: those that the other drivers return count.

        One driver without this method would end the filtering by all.
        """
        return set()

    def _change_mac(self, port: dict[str, Any]) -> None:
        try:
            shared.inventory().change_mac(port['id'], port['mac_address'])
        except exceptions.InventoryUnavailable as exc:
            raise shared.InventoryAway() from exc

    def _serve(self, port: dict[str, Any]) -> None:
        began, asked = time.monotonic(), breaker.now()
        end = began + shared.configuration().dhcp.strict_timeout
        pause = 0.0
        trying: threading.Thread | None = None
        is_probe = has_turn = False
        with contextlib.ExitStack() as stack:
            while missing := self._missing(port):
                down = self._down(missing)
                if down and not is_probe:
                    if trying or self._worker().is_down(down.server):
                        raise self._refusal(port, down, _CANNOT_WRITE)
                    # this one finds out whether the server is back
                    is_probe, end = True, min(end, began + _PROBE_WAIT)
                left = end - time.monotonic()
                if left <= 0:
                    item = missing[0]
                    if self._made and (
                            item.error is None or item.waiting_for
                            is states.WaitingFor.DHCP_SERVER):
                        self._made.note_down(item.server, asked)
                    raise self._refusal(port, item)
                if not has_turn and (
                        time.monotonic() - began > breaker.GRACE):
                    has_turn = self._waiting.acquire(blocking=False)
                    if not has_turn:
                        raise self._refusal(port, missing[0], 'too many '
                                            'other ports wait')
                    stack.callback(self._waiting.release)
                if trying is None or not trying.is_alive():
                    time.sleep(min(pause, left))
                    trying = self._try(port['id'])
                pause = min(max(2 * pause, _FIRST_PAUSE), _LONGEST_PAUSE)
                # a server may be slow that need not be waited for
                trying.join(max(0, min(pause, end - time.monotonic())))

    def _missing(self, port: dict[str, Any]) -> list[records.Work]:
        """Return the host entries that the port still needs."""
        any_server = shared.configuration().dhcp.strict_servers == 'any'
        try:
            return shared.inventory().work(
                None, port_ids=[port['id']], present=True,
                unserved=any_server)
        except exceptions.InventoryUnavailable as exc:
            LOG.error('Port %s: %s', port['id'], exc)
            raise shared.InventoryAway() from exc

    def _down(self, missing: list[records.Work]) -> records.Work | None:
        """Return what no wait will help, as its server is known to be down."""
        worker = self._made
        down = [item for item in missing
                if worker and worker.is_suspect(item.server)]
        any_server = shared.configuration().dhcp.strict_servers == 'any'
        return down[0] if down and (
            not any_server or len(down) == len(missing)) else None

    def _refusal(self, port: dict[str, Any], item: records.Work,
                 reason: str | None = None) -> HostEntryMissing:
        LOG.error('Port %s: DHCP server %s has no host entry for %s: %s',
                  port['id'], item.server, item.address,
                  reason or item.error or 'no answer')
        return HostEntryMissing(
            server=item.server, address=item.address,
            reason=reason or _reason(item))

    def _try(self, port_id: str) -> threading.Thread:
        """Have a worker try once, for as long as it takes.

        A DHCP server that hangs has a timeout of its own, which may be
        longer. What it does after all is found to be overtaken then.
        """
        def run() -> None:
            try:
                self._worker().run([port_id], put_only=True)
            except exceptions.VmipError as exc:
                LOG.warning('Port %s: %s', port_id, exc)
            except Exception:
                LOG.exception('Port %s', port_id)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _worker(self) -> work.Worker:
        # Made when it is needed first: a web server forks after the start,
        # and a connection to the bus does not outlive that.
        with self._lock:
            if self._made is None:
                conf = shared.configuration()
                self._made = common.worker(
                    conf, shared.inventory(), vmip_cloud.Cloud(conf))
            return self._made


def _reason(missing: records.Work) -> str:
    match missing.waiting_for:
        case states.WaitingFor.LEASE:
            return 'the lease of a guest that had it before has not ended'
        case states.WaitingFor.WIRE:
            return 'whoever had it before still answers there'
    if missing.error is None:
        return 'it has not answered in time'
    return _CANNOT_WRITE
