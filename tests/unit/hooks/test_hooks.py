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

"""Loading the hooks, and the one that reserves."""

import dataclasses
from importlib import metadata
from typing import Any
from unittest import mock

from tests.unit import base
from vmip_plugin import conf as vmip_conf
from vmip_plugin import exceptions
from vmip_plugin.hooks import base as hooks
from vmip_plugin.hooks import manager
from vmip_plugin.hooks import reserve
from vmip_plugin.inventory import records

State = base.State


class TestLoad(base.TestCase):

    def load(self, *names: str) -> manager.Hooks:
        self.conf.set_override('hooks', list(names), 'reserve')
        return manager.Hooks(self.conf)

    def test_installed(self) -> None:
        self.assertEqual(['reserve'], self.conf.reserve.hooks)
        hook, = manager.Hooks(self.conf)._hooks
        self.assertEqual('reserve', hook.name)
        self.assertIsInstance(hook.plugin, reserve.ReserveHook)

    def test_none(self) -> None:
        request = hooks.Request(
            records.Requester('r', 'p'), ('web',), ())
        self.assertEqual([], self.load().before(request))

    def test_wrong_value(self) -> None:
        path = self.directory / 'vmip.conf'
        path.write_text('[reserve]\nttl = soon\n')
        error = self.assertRaises(exceptions.ConfigError, vmip_conf.load,
                                  str(path))
        self.assertIn('soon', str(error))
        self.assertIn('ttl', str(error))
        self.assertRaises(exceptions.ConfigError, vmip_conf.parse,
                          vmip_conf.new(), ['--config-file', str(path)], 'x')

    def test_missing(self) -> None:
        error = self.assertRaises(exceptions.ConfigError, self.load,
                                  'zebra', 'reserve', 'ape')
        self.assertIn('ape, zebra', str(error))
        self.assertNotIn('reserve,', str(error))

    def test_cannot_be_loaded(self) -> None:
        with mock.patch.object(metadata.EntryPoint, 'load',
                               side_effect=ImportError('no such thing')):
            error = self.assertRaises(exceptions.ConfigError, self.load,
                                      'reserve')
        self.assertIn('no such thing', str(error))
        self.assertIn('reserve', str(error))


class TestReserve(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.pool()
        self.hook = reserve.ReserveHook(self.conf)
        inventory = self.hook._inventory
        self.addCleanup(lambda: inventory.database.engine.dispose())

    def request(self, *networks: hooks.RequestedNetwork,
                names: tuple[str, ...] = ('web',)) -> hooks.Request:
        return hooks.Request(
            records.Requester('req-1', base.PROJECT), names,
            networks or (hooks.RequestedNetwork(base.NETWORK),))

    def test_ttl(self) -> None:
        self.conf.set_override('ttl', 77, 'reserve')
        reserved, = self.hook.before(self.request())
        assert reserved.expires_at is not None
        self.assertEqual(
            77, (reserved.expires_at - self.clock.now).total_seconds())

    def test_what_is_neutrons(self) -> None:
        chosen = hooks.RequestedNetwork(base.NETWORK, base.ip('10.0.0.9'))
        port = hooks.RequestedNetwork(None, None, base.port_id(1))
        self.assertEqual([], self.hook.before(self.request(chosen, port)))
        self.assertEqual(1, len(self.hook.before(self.request(
            chosen, port, hooks.RequestedNetwork(base.NETWORK)))))

    def after(self, status: int, server: str | None, *names: str) -> Any:
        request = self.request(names=names)
        self.hook.after(request, self.hook.before(request),
                        hooks.Outcome(status, server))
        return self.row('10.0.0.10')

    def test_outcomes(self) -> None:
        server = base.server_id(1)
        for status in (199, 300, 404, 500):
            self.assertEqual(State.FREE,
                             self.after(status, server, 'web').state)
        row = self.after(202, server, 'a', 'b')
        self.assertEqual((State.RESERVED, None), (row.state, row.server_id))

    def test_server_of_the_answer(self) -> None:
        for status, server in ((202, None), (200, base.server_id(1))):
            row = self.after(status, server, 'web')
            self.assertEqual(State.RESERVED, row.state)
        self.assertIsNone(row.server_id)
        self.assertEqual(base.server_id(1),
                         self.row('10.0.0.11').server_id)

    def test_nothing_to_settle(self) -> None:
        self.hook.after(self.request(), [], hooks.Outcome(500))

    def test_chosen_by_an_earlier_hook(self) -> None:
        """It is the operator's word: no rule of policy is asked."""
        request = dataclasses.replace(self.request(),
                                      addresses=(base.ip('10.0.0.15'),))
        self.assertEqual(['10.0.0.15'],
                         base.addresses(self.hook.before(request)))
        error = self.assertRaises(hooks.Refused, self.hook.before, request)
        self.assertEqual(409, error.status)
        self.assertNotIsInstance(error, hooks.Unable)

    def test_pool_becomes_smaller_meanwhile(self) -> None:
        request = dataclasses.replace(self.request(),
                                      addresses=(base.ip('10.0.0.15'),))
        with mock.patch.object(self.hook._inventory, 'reserve',
                               side_effect=exceptions.AddressNotFound):
            error = self.assertRaises(hooks.Refused, self.hook.before,
                                      request)
        self.assertEqual(400, error.status)
