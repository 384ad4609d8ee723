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


"""vmip-status: is everything ready for this version?"""

from collections.abc import Sequence
import functools
import sys

from oslo_config import cfg
from oslo_upgradecheck import upgradecheck

from vmip_plugin.allocation import manager as allocators
from vmip_plugin import bus
from vmip_plugin import cloud as vmip_cloud
from vmip_plugin import conf as vmip_conf
from vmip_plugin.dhcp import manager as dhcp
from vmip_plugin import exceptions
from vmip_plugin.hooks import manager as hooks
from vmip_plugin.inventory import api
from vmip_plugin.inventory import serving
from vmip_plugin.notifications import listener

Code = upgradecheck.Code
Result = upgradecheck.Result

#: seconds for an answer of Keystone
_TIMEOUT = 10


class Checks(upgradecheck.UpgradeCommands):
    """``vmip-status upgrade check``.

    A failure is what keeps a service from its work; a warning is what may be
    meant so, or cannot be told now.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        super().__init__()
        self._conf = conf

    @functools.cached_property
    def _inventory(self) -> api.Inventory:
        return api.Inventory(self._conf, 'vmip-status')

    def _configuration(self) -> upgradecheck.Result:
        try:
            vmip_conf.check_values(self._conf)
            dhcp.load_drivers(self._conf)
            hooks.Hooks(self._conf)
        except exceptions.VmipError as exc:
            return Result(Code.FAILURE, str(exc))
        return Result(Code.SUCCESS)

    def _schema(self) -> upgradecheck.Result:
        try:
            behind = self._inventory.database.behind()
        except exceptions.VmipError as exc:
            return Result(Code.FAILURE, str(exc))
        return Result(
            Code.FAILURE, f'{behind}: run "vmip-manage db upgrade"'
        ) if behind else Result(Code.SUCCESS)

    def pools(self) -> upgradecheck.Result:
        """Look for names that nothing answers to."""
        known = set(self._conf.dhcp.servers)
        try:
            pools = [pool for pool, _ in self._inventory.pools()]
            entries = self._inventory.entries()
        except exceptions.VmipError as exc:
            return Result(Code.FAILURE, f'The pools cannot be read: {exc}')
        for pool in pools:
            unknown = sorted({*serving.names(pool.dhcp_servers)} - known)
            if unknown:
                return Result(
                    Code.FAILURE, f'Pool {pool.name} has the DHCP servers '
                    f'{", ".join(unknown)}, which [dhcp] servers does not '
                    f'name: add them there, or change the pool with '
                    f'"vmip-manage pool set"')
            try:
                allocators.load(pool.allocator)
            except exceptions.ConfigError as exc:
                return Result(
                    Code.FAILURE, f'Pool {pool.name}: {exc}: install the '
                    f'package that brings it, or change the pool with '
                    f'"vmip-manage pool set"')
        left = sorted({e.server for e in entries} - known)
        if left:
            return Result(
                Code.WARNING, f'There are host entries of {", ".join(left)}, '
                f'which [dhcp] servers does not name: they cannot be removed '
                f'there, and their addresses stay held')
        if not pools:
            return Result(
                Code.WARNING, 'There is no pool, so that no address is given '
                              'away: make one with "vmip-manage pool create"')
        return Result(Code.SUCCESS)

    def _transport(self) -> upgradecheck.Result:
        """Look at where notifications are to come from; nobody is asked."""
        try:
            bus.rpc_transport(self._conf)
            listener.get_transport(self._conf)
        except (exceptions.ConfigError, cfg.Error) as exc:
            return Result(Code.FAILURE, str(exc))
        own = self._conf.oslo_messaging_notifications.transport_url
        if (own or self._conf.transport_url) == bus.NO_BROKER:
            return Result(
                Code.FAILURE, 'No transport_url is set, so that '
                'vmip-listener hears no notification: set it to the one of '
                'Nova and Neutron')
        options = self._conf.listener
        deaf = [name for name, needed in (
            ('neutron_exchanges', options.neutron_exchanges),
            ('nova_exchanges', options.nova_exchanges),
            ('topics', options.topics)) if not needed]
        if deaf:
            return Result(
                Code.WARNING, f'[listener] {", ".join(deaf)} is empty: '
                f'vmip-listener does not hear all that it needs, and '
                f'vmip-reclaimer is left to find it')
        return Result(Code.SUCCESS)

    def _credentials(self) -> upgradecheck.Result:
        if not self._conf.cloud.auth_type \
                and not self._conf.cloud.auth_section:
            return Result(
                Code.FAILURE, 'No [cloud] auth_type is set: without asking '
                'Nova and Neutron no address and no lease is taken back')
        cloud = vmip_cloud.Cloud(self._conf, timeout=_TIMEOUT)
        try:
            cloud.check_region()
            if cloud.sees_all_projects():
                return Result(Code.SUCCESS)
        except exceptions.ConfigError as exc:
            return Result(Code.FAILURE, str(exc))
        except exceptions.CloudUnavailable as exc:
            return Result(Code.WARNING, f'Not known: {exc}')
        return Result(
            Code.FAILURE, 'Nova and Neutron do not show everything to the '
            '[cloud] user: what others own looks deleted to it, so that '
            'nothing is taken back')

    _upgrade_checks = (
        ('Configuration', _configuration),
        ('Database schema', _schema),
        ('Pools and DHCP servers', pools),
        ('Notification transport', _transport),
        ('Credentials', _credentials),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks.

    :returns: 0 well, 1 a warning, 2 a failure, 255 an error before or in a
        check (oslo.upgradecheck).
    """
    conf = vmip_conf.new()
    try:
        with vmip_conf.reading():
            return int(upgradecheck.main(
                conf, 'vmip', Checks(conf),
                list(sys.argv[1:] if argv is None else argv),
                default_config_files=[vmip_conf.path()]))
    except exceptions.ConfigError as exc:
        print(f'vmip-status: {exc}', file=sys.stderr)
        return 255


if __name__ == '__main__':
    sys.exit(main())
