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

"""vmip-manage doctor: the installation, from its files to the wire."""

import argparse
from typing import Any

from cliff import lister

from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import arguments
from vmip_plugin.cmd.manage.doctor import bus
from vmip_plugin.cmd.manage.doctor import cloud
from vmip_plugin.cmd.manage.doctor import local
from vmip_plugin.cmd.manage.doctor import point as points
from vmip_plugin.cmd.manage import setup

#: Each after those that it needs.
POINTS = (*local.POINTS, *cloud.POINTS, *bus.POINTS)
NAMES = tuple(point.name for point in POINTS)


class Doctor(lister.Lister):
    """Look at the whole installation and say what to do where it is not well.

    Nothing is changed. A point of which something else has to be well first,
    or whose file is not on this host, is NOT CHECKED. The exit code is 1
    where a point is a FAIL.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            '--only', action='append', choices=NAMES, metavar='POINT',
            help='only this point (repeatable): ' + ', '.join(NAMES))
        parser.add_argument(
            '--skip', action='append', choices=NAMES, metavar='POINT',
            default=[], help='without this point (repeatable)')
        parser.add_argument(
            '--no-cloud', action='store_true',
            help='ask neither Keystone nor Nova nor Neutron')
        parser.add_argument(
            '--timeout', type=arguments.count, metavar='SECONDS', default=30,
            help='longest time for one point (default: %(default)s)')
        for name, path in (
                ('paste-file', setup.DEFAULT_FILE),
                ('nova-conf', '/etc/nova/nova.conf'),
                ('neutron-conf', '/etc/neutron/neutron.conf'),
                ('ml2-conf', '/etc/neutron/plugins/ml2/ml2_conf.ini')):
            parser.add_argument(f'--{name}', metavar='FILE', default=path,
                                help='(default: %(default)s)')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        wanted = set(parsed_args.only or NAMES) - set(parsed_args.skip)
        # the findings say it
        with manage.quiet('vmip_plugin', 'oslo_db', 'oslo_messaging',
                          'oslo.messaging', 'keystoneauth', 'stevedore'):
            found = list(points.examine(
                POINTS, points.Context(self.app, parsed_args), wanted,
                parsed_args.no_cloud))
        self._failed = any(finding.level is points.Level.FAIL
                           for _, finding in found)
        return ('point', 'subject', 'result', 'finding', 'what_to_do'), [
            (name, f.subject, str(f.level), f.text, f.what_to_do)
            for name, f in found]

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or int(self._failed)
