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

"""The list on both nodes of a Galera cluster."""

import threading

import testtools

from tests import databases
from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import records


class TestGalera(testtools.TestCase):

    cluster: databases.Galera

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.cluster = databases.Galera()
        cls.cluster.setUp()
        cls.addClassCleanup(cls.cluster.cleanUp)

    def setUp(self) -> None:
        super().setUp()
        urls = self.cluster.create()
        self.addCleanup(self.cluster.drop, urls)
        for node in self.cluster.nodes:
            self.addCleanup(node.start)
        self.lists = [api.Inventory(base.new_conf(url), f'node {number}')
                      for number, url in enumerate(urls)]
        self.lists[0].database.upgrade()
        self.lists[0].create_pool(
            name='pool', network_id=base.NETWORK, subnet_id=base.SUBNET,
            cidr='10.0.0.0/23',
            ranges=[(base.ip('10.0.0.1'), base.ip('10.0.1.254'))])
        self.cluster.settle()

    def reserve(self, number: int, name: str) -> list[str]:
        """Reserve an address on one node."""
        return base.addresses(self.lists[number].reserve(
            records.Requester(f'req-{name}', base.PROJECT),
            [records.Wanted(base.NETWORK, (name,))], 600))

    def test_one_address_one_holder(self) -> None:
        """Where both nodes pick the same one, one has to pick again."""
        found: list[object] = []

        def reserve_many(number: int) -> None:
            for turn in range(12):
                try:
                    found.append(self.reserve(
                        number % 2, f'{number}-{turn}')[0])
                except BaseException as exc:
                    found.append(exc)

        workers = [threading.Thread(target=reserve_many, args=(number,))
                   for number in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.assertEqual(
            [], [one for one in found if not isinstance(one, str)])
        self.assertEqual(72, len(set(found)))
        self.cluster.settle()
        for each in self.lists:
            self.assertEqual(72, each.pools()[0][1]['reserved'])

    def test_a_node_crashes_and_comes_back(self) -> None:
        first, second = self.cluster.nodes
        self.reserve(1, 'before')
        self.cluster.settle()
        second.kill()
        self.assertRaises(exceptions.InventoryUnavailable, self.reserve, 1,
                          'while')
        self.reserve(0, 'while')
        second.start()
        self.assertEqual(['before', 'while'], [
            held.server_name for _, held in self.lists[1].addresses()])
        self.reserve(1, 'after')
        self.cluster.settle()
        self.assertEqual(3, len(list(self.lists[0].addresses())))

    def test_a_node_alone_refuses(self) -> None:
        """It cannot know whether the other one goes on."""
        first, second = self.cluster.nodes
        self.reserve(0, 'before')
        self.cluster.settle()
        first.kill()
        # until it has noticed, a commit waits
        for call in (lambda: self.reserve(1, 'while'),
                     self.lists[1].pools):
            self.assertRaises(exceptions.InventoryUnavailable, call)
        first.start()
        self.reserve(1, 'after')
