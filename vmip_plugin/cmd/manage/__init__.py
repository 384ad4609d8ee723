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

"""vmip-manage: the operator's tool."""

import argparse
from collections.abc import Iterator, Sequence
import contextlib
import logging
import os
import sys
from typing import Any

from cliff import app
from cliff import command
from cliff import commandmanager
from oslo_config import cfg

from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.cmd.manage import output
from vmip_plugin import conf as vmip_conf
from vmip_plugin.inventory import api
from vmip_plugin import version


class Manage(app.App):
    """The program; its commands are plugins of ``vmip_plugin.manage``."""

    def __init__(self) -> None:
        super().__init__(
            description='Manage pools and addresses of vmip',
            version=version.version_string(),
            command_manager=commandmanager.CommandManager(
                'vmip_plugin.manage'),
            deferred_help=True)
        self.conf: cfg.ConfigOpts
        self._inventory: api.Inventory | None = None

    def build_option_parser(self, *args: Any, **kwargs: Any
                            ) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().build_option_parser(
            *args, **kwargs)
        parser.add_argument(
            '--config-file', metavar='FILE', default=vmip_conf.path(),
            help='configuration (default: %(default)s)')
        return parser

    def configure_logging(self) -> None:
        super().configure_logging()
        for handler in logging.getLogger('').handlers:
            if getattr(handler, 'stream', None) is self.stderr:
                handler.setFormatter(output.Formatter(
                    self.CONSOLE_MESSAGE_FORMAT))
        # It tells how it works, not what was done.
        logging.getLogger('alembic').setLevel(logging.WARNING)

    def initialize_app(self, argv: Sequence[str]) -> None:
        # "help" and "complete" have to work without a configuration.
        pass

    def prepare_to_run_command(self, cmd: command.Command) -> None:
        output.make_safe(cmd)

    def inventory(self) -> api.Inventory:
        """Return the list.

        :raises ConfigError: the configuration cannot be read.
        """
        if self._inventory is None:
            self.conf = vmip_conf.load(self.options.config_file)
            user = os.environ.get('SUDO_USER') or os.environ.get('USER')
            self._inventory = api.Inventory(
                self.conf, f'vmip-manage ({user or os.getuid()})'[:64])
        return self._inventory

    def cloud(self) -> vmip_cloud.Cloud:
        """Return the way to Nova and Neutron."""
        self.inventory()
        return vmip_cloud.Cloud(self.conf)


def inventory(cmd: command.Command) -> api.Inventory:
    """Return the list for a command."""
    manage: Manage = cmd.app
    return manage.inventory()


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Leave out of the log of these modules what the result says."""
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    :returns: 0; 1 for an error, with a message; 2 for a wrong command line.
    """
    output.accept_any_text()
    return Manage().run(list(sys.argv[1:] if argv is None else argv))
