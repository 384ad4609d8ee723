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

"""Recorded streams out of order, doubled and with losses: one end state.

A stream is cut anywhere, and Nova and Neutron answer as they would have at
that moment: what the list and the DHCP server then have to have follows from
that alone.
"""

import itertools
import random

import hypothesis
from hypothesis import strategies

import tests
from tests import notifications
from tests.notifications import stream
from tests.unit import base
from tests.unit import fakes
from vmip_plugin import cloud as vmip_cloud
from vmip_plugin.dhcp import work
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states
from vmip_plugin.notifications import event
from vmip_plugin.notifications import handler
from vmip_plugin.notifications import listener
from vmip_plugin.reclaim import tasks

Kind = event.Kind
State = base.State
TTL = 600
SETTINGS = hypothesis.settings(
    max_examples=tests.examples(10),
    suppress_health_check=list(hypothesis.HealthCheck))

scenarios = strategies.sampled_from(notifications.SCENARIOS)
cuts = strategies.one_of(strategies.just(1.0), strategies.floats(0, 1))
seeds = strategies.integers(0, 2 ** 32)


def events(messages: list[notifications.Message]) -> list[event.Event]:
    found = []
    for message in messages:
        normalise = listener.NORMALISERS.get(message.body['event_type'])
        told = normalise and normalise(
            message.ctxt, '', message.body['event_type'],
            message.body['payload'], message.body)
        if told:
            found.append(told)
    return found


class TestReplay(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.numbers = itertools.count()

    def new_site(self, scenario: str, cut: float) -> list[event.Event]:
        """Make a list and a cloud as they are at the cut.

        :returns: what was told till then.
        """
        self.connection = self.new_database(f'replay-{next(self.numbers)}')
        self.conf = base.new_conf(self.connection)
        self.inventory = self.new_inventory('test')
        self.pool('192.0.2.10', '192.0.2.250', '192.0.2.0/24')
        messages = notifications.messages(scenario)
        messages = messages[:round(cut * len(messages))]
        told = events(messages)
        self.cloud = fakes.Cloud()
        self.driver = fakes.Server('a')
        worker = work.Worker(self.conf, self.inventory, {'a': self.driver},
                             self.cloud, None)
        self.handler = handler.Handler(self.conf, self.inventory, worker,
                                       self.cloud)
        self.reclaimer = tasks.Reclaimer(self.conf, self.inventory, worker,
                                         self.cloud)
        made = stream.ports(messages)
        deleted = {found.server_id for found in told
                   if found.kind is Kind.SERVER_DELETED}
        gone = {port.port_id for found in told
                if found.kind is Kind.PORT_DELETED for port in found.ports}
        servers = {found.server_id for found in told if found.server_id}
        for server_id in sorted(servers - deleted):
            self.cloud.servers[server_id] = 'ACTIVE'
        running = {(found.server_id, port.mac) for found in told
                   if found.kind in (Kind.SERVER_CREATED,
                                     Kind.INTERFACE_ATTACHED)
                   for port in found.ports}
        # another server stays, and shows that Neutron has its ports
        stays = self.claim(99, address=base.ip('192.0.2.250'))
        self.cloud.add(99, stays)
        self.expected: dict[str, tuple[State, str | None]] = {
            stays: (State.CLAIMED, base.mac(99))}
        for number, port in enumerate(made):
            claim = self.inventory.claim(
                subnet_id=base.SUBNET, port_id=port.id, mac=port.mac,
                server_id=port.server_id or None,
                address=base.ip(port.address),
                requester=records.Requester(f'req-{number}', base.PROJECT))
            self.assertIsNotNone(claim)
            if port.id in gone:
                self.expected[port.address] = State.FREE, None
                if port.server_id not in deleted:
                    # while Nova has the server, only Neutron's own word does
                    self.inventory.release_address(
                        base.SUBNET, base.ip(port.address),
                        'Neutron gave it back', states.Evidence.COMMITTED)
                continue
            self.cloud.known[port.id] = vmip_cloud.Port(
                id=port.id, network_id=base.NETWORK, project_id=base.PROJECT,
                mac=port.mac, device_id=port.server_id, status='ACTIVE',
                device_owner='compute:nova',
                addresses=((base.SUBNET, base.ip(port.address)),))
            self.expected[port.address] = (
                State.ACTIVE if (port.server_id, port.mac) in running
                else State.CLAIMED, port.mac)
        # who got no port has a reservation
        for server_id in sorted(servers - {port.server_id for port in made}):
            held = self.reserve('web', request=f'req-{server_id}', ttl=TTL)
            self.inventory.bind(held, server_id)
            self.expected[str(held[0].address)] = (
                State.FREE if server_id in deleted
                else State.RESERVED, None)
        return told

    def replay(self, told: list[event.Event], chance: random.Random) -> None:
        """Hand events over in batches of any size."""
        while told:
            size = chance.choice((1, 2, 5, 50))
            self.handler.handle(told[:size])
            told = told[size:]

    def check(self, *same: State) -> None:
        """Compare the list and the server with what the cloud says.

        :param same: states between which only a notification tells.
        """
        def norm(state: State) -> State:
            return same[0] if state in same else state

        self.assertEqual(
            {address: (norm(state), mac)
             for address, (state, mac) in self.expected.items()},
            {address: (norm(self.row(address).state), self.row(address).mac)
             for address in self.expected})
        self.assertEqual(
            {address: mac for address, (_, mac) in self.expected.items()
             if mac is not None}, self.driver.served())
        self.assertEqual([], self.inventory.entries(pending=True))

    @SETTINGS
    @hypothesis.given(scenarios, cuts, seeds)
    def test_as_it_was(self, scenario: str, cut: float, seed: int) -> None:
        told = self.new_site(scenario, cut)
        self.replay(told, random.Random(seed))
        self.confirm()
        self.check()

    @SETTINGS
    @hypothesis.given(scenarios, cuts, seeds)
    def test_shuffled(self, scenario: str, cut: float, seed: int) -> None:
        told = self.new_site(scenario, cut)
        chance = random.Random(seed)
        chance.shuffle(told)
        self.replay(told, chance)
        self.confirm()
        self.check()

    @SETTINGS
    @hypothesis.given(scenarios, cuts, seeds)
    def test_doubled_and_shuffled(self, scenario: str, cut: float,
                                  seed: int) -> None:
        told = self.new_site(scenario, cut) * 2
        chance = random.Random(seed)
        chance.shuffle(told)
        self.replay(told, chance)
        self.confirm()
        self.check()
        before = self.found()
        self.replay(told, chance)
        self.assertEqual(before, self.found())

    @SETTINGS
    @hypothesis.given(scenarios, cuts, seeds,
                      strategies.sampled_from((0.1, 0.5, 1.0)))
    def test_losses(self, scenario: str, cut: float, seed: int,
                    share: float) -> None:
        told = self.new_site(scenario, cut)
        chance = random.Random(seed)
        told = [found for found in told if chance.random() >= share]
        chance.shuffle(told)
        self.replay(told, chance)
        self.reclaim()
        self.check(State.CLAIMED, State.ACTIVE)

    @SETTINGS
    @hypothesis.given(scenarios, seeds)
    def test_late(self, scenario: str, seed: int) -> None:
        """All of it comes once more, when the reclaimer has been there."""
        told = self.new_site(scenario, 1)
        self.reclaim()
        self.check(State.CLAIMED, State.ACTIVE)
        chance = random.Random(seed)
        chance.shuffle(told)
        self.replay(told, chance)
        self.check()

    def confirm(self) -> None:
        """Let the reclaimer release what a notification alone proves not.

        Such as a port without a server, of which only Neutron can tell.
        """
        self.clock.forward(self.conf.reclaimer.confirm_delay + 1)
        self.reclaimer.confirm()
        self.clock.forward(5)
        self.reclaimer.work()

    def reclaim(self) -> None:
        """Let the reclaimer do what it does in some minutes."""
        self.clock.forward(TTL - 100)
        for _ in range(3):
            self.reclaimer.check_ports()
            self.reclaimer.confirm()
            self.reclaimer.work()
            self.clock.forward(
                self.conf.reclaimer.confirm_delay + 1)
        for reserved, (state, _) in self.expected.items():
            if state is State.RESERVED:
                # one that lives on is built
                held = self.row(reserved)
                self.cloud.servers[held.server_id or ''] = 'BUILD'
        self.clock.forward(TTL)
        self.reclaimer.work()
