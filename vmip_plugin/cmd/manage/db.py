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

"""vmip-manage db ..."""

import argparse
from typing import Any

from cliff import command
from cliff import show

from vmip_plugin.cmd import manage


class Upgrade(command.Command):
    """Create the database's tables, or bring them to this version."""

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        database = manage.inventory(self).database
        before = database.revision()
        database.upgrade()
        self.app.stdout.write(
            f'schema {before or "none"} -> {database.revision()}\n')


class Version(show.ShowOne):
    """Show the schema's version and the one that is needed."""

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        database = manage.inventory(self).database
        return ('found', 'needed'), (database.revision() or 'none',
                                     database.head())
