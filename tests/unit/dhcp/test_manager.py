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


"""Loading of drivers."""

from importlib import metadata
from unittest import mock

import testtools

from oslo_config import cfg
from vmip_plugin.conf import dhcp
from vmip_plugin.dhcp import base
from vmip_plugin.dhcp import dnsmasq
from vmip_plugin.dhcp import manager
from vmip_plugin.dhcp import none
from vmip_plugin import exceptions


class TestLoadDrivers(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.conf = cfg.ConfigOpts()
        dhcp.register_opts(self.conf)
        # the module's group, and what is overridden in it, is shared
        self.addCleanup(self.conf.clear_override, 'servers', 'dhcp')
        self.conf([], default_config_files=[], default_config_dirs=[])

    def configure(self, *servers: str, **drivers: str) -> None:
        self.conf.set_override('servers', list(servers), 'dhcp')
        for name, driver in drivers.items():
            dhcp.register_server(self.conf, name)
            self.conf.set_override('driver', driver, dhcp.server_group(name))

    def refused(self) -> str:
        return str(self.assertRaises(exceptions.ConfigError,
                                     manager.load_drivers, self.conf))

    def test_no_server(self) -> None:
        self.assertEqual({}, manager.load_drivers(self.conf))

    def test_two(self) -> None:
        self.configure('b', 'a.1', b='dnsmasq')
        group = dhcp.register_server(self.conf, 'b',
                                     dnsmasq.DnsmasqDriver.OPTS)
        self.conf.set_override('hostsdir', '/h', 'dhcp:b')
        self.conf.set_override('pid_file', '/p', 'dhcp:b')
        drivers = manager.load_drivers(self.conf)
        self.assertEqual(['b', 'a.1'], list(drivers))
        self.assertIsInstance(drivers['b'], dnsmasq.DnsmasqDriver)
        self.assertEqual('/h', drivers['b'].options.hostsdir)
        self.assertEqual(group.pid_file, drivers['b'].options.pid_file)
        self.assertIsInstance(drivers['a.1'], none.NoneDriver)
        self.assertEqual('a.1', drivers['a.1'].name)

    def test_twice_in_one_process(self) -> None:
        self.configure('a')
        self.assertEqual(['a'], list(manager.load_drivers(self.conf)))
        self.assertEqual(['a'], list(manager.load_drivers(self.conf)))

    def test_bad_names(self) -> None:
        for name in ('', 'a b', 'a]', 'a\n', 'x' * 65, 'b\u00fccher', 'a:b'):
            self.configure(name)
            self.assertIn('use 1 to 64 letters', self.refused())

    def test_name_twice(self) -> None:
        self.configure('a', 'a')
        self.assertIn('a is there twice', self.refused())

    def test_unknown_driver(self) -> None:
        self.configure('a', a='dnsmask')
        message = self.refused()
        self.assertIn('[dhcp:a] driver', message)
        self.assertIn('dnsmask', message)
        self.assertRegex(message, r'use one of .*\bdnsmasq\b.*\bnone\b')

    def test_import_fails(self) -> None:
        self.configure('a', a='none')
        with mock.patch.object(metadata.EntryPoint, 'load',
                               side_effect=ImportError('no pymysql')):
            message = self.refused()
        self.assertIn('pip install "vmip-plugin[none]"', message)
        self.assertIn('no pymysql', message)

    def test_driver_refuses(self) -> None:
        self.configure('a', a='dnsmasq')
        self.assertIn('[dhcp:a] hostsdir', self.refused())

    def test_bad_value(self) -> None:
        class Driver(none.NoneDriver):
            OPTS = (cfg.IntOpt('port'),)

            def __init__(self, name: str,
                         options: cfg.ConfigOpts.GroupAttr) -> None:
                super().__init__(name, options)
                self.port = options.port

        self.configure('a')

        def get(self: object, namespace: object, group_name: str,
                ) -> tuple[str, None]:
            raise ValueError('many is no number')

        with mock.patch.object(metadata.EntryPoint, 'load',
                               return_value=Driver), \
                mock.patch.object(cfg.IntOpt, '_get_from_namespace', get):
            self.assertIn('[dhcp:a]', self.refused())

    def test_is_a_driver(self) -> None:
        self.configure('a')
        for driver in manager.load_drivers(self.conf).values():
            self.assertIsInstance(driver, base.DHCPDriver)
