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

"""Hints and questions to agents over a real RabbitMQ."""

import queue
from typing import Any

import oslo_messaging
import testtools

from tests import lab
from tests import rabbit
from tests.unit.agent import test_rpc
from vmip_plugin.agent import rpc
from vmip_plugin import conf as conf_


class RabbitTest(testtools.TestCase):
    def setUp(self) -> None:
        super().setUp()
        broker = self.useFixture(rabbit.RabbitMQ())
        conf = conf_.new()
        conf([], default_config_files=[], default_config_dirs=[])
        transport: Any = oslo_messaging.get_rpc_transport(
            conf, url=broker.url)
        self.addCleanup(transport.cleanup)
        self.hints: queue.Queue[rpc.Hint] = queue.Queue()
        self.agents = {'one': test_rpc.FakeAgent(2 * rpc.PAGE + 1),
                       'two': test_rpc.FakeAgent(3)}
        for host, agent in self.agents.items():
            server = rpc.server(
                transport, host, self.hints.put,
                rpc.Questions(transport, host, agent))
            server.start()
            self.addCleanup(server.wait)
            self.addCleanup(server.stop)
        self.client = rpc.AgentClient(transport)

    def test_all(self) -> None:
        for _ in range(2):
            lab.wait_for(lambda: self.client.hosts() == ['one', 'two'])
        for host, agent in self.agents.items():
            self.assertEqual(agent.held, list(self.client.leases(host)))
        look = self.client.look('two')
        self.assertEqual(self.agents['two'].held, look.judged)
        one, two = test_rpc.ADDRESSES
        self.agents['one'].wire = {one: False}
        self.agents['two'].wire = {one: True, two: False}
        for _ in range(2):
            self.assertEqual({one: True, two: False},
                             self.client.probe([one, two], lab.PATIENCE))
        self.client.release_lease(*test_rpc.GOOD)
        for _ in range(2):
            self.assertEqual(rpc.Hint.parse(*test_rpc.GOOD),
                             self.hints.get(timeout=lab.PATIENCE))
