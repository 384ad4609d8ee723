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

"""The state machine next to a model of it, at random."""

import contextlib
import dataclasses
import datetime
import functools
import pathlib
import shutil
import tempfile
from typing import Any
from unittest import mock

import hypothesis
from hypothesis import stateful
from hypothesis import strategies
import testtools

import tests
from tests import databases
from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

State = states.State

SIZE = 5
TTL = 60
DELAY = 100
NAMES = strategies.sampled_from(['a', 'b', 'c', 'd'])
PROJECTS = strategies.sampled_from([base.PROJECT, base.OTHER_PROJECT])
PLACES = strategies.integers(0, SIZE - 1)


@dataclasses.dataclass
class Address:
    """How the model takes an address to stand."""

    state: State = State.FREE
    request: str | None = None
    project: str | None = None
    name: str | None = None
    port: str | None = None
    mac: str | None = None
    #: end of the reservation or of the quarantine
    until: datetime.datetime | None = None
    #: (name, project) it is reserved for by hand
    hold: tuple[str, str | None] | None = None
    #: (name, project) of the server that had it last
    former: tuple[str, str] | None = None
    #: MAC that the DHCP server has still to forget
    forget: str | None = None
    #: Neutron has said that the port is gone
    gone: bool = False
    #: Neutron has committed that; so the next holder need not wait
    proof: bool = False

    def leave(self) -> None:
        """Lose the holder; what proves that the one before is gone, stays."""
        self.request = self.project = self.name = None
        self.port = self.mac = self.until = None
        self.gone = False
        self.proof = self.proof and self.forget is not None


class Machine(stateful.RuleBasedStateMachine):
    """One pool of a few addresses, and everybody who uses it."""

    allocator: str
    reuse_delay: int

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.now = clock.now()
        self.stack.enter_context(mock.patch.object(
            clock, 'now', lambda: self.now))
        server = databases.given()
        if server is None:
            folder = self.stack.enter_context(tempfile.TemporaryDirectory())
            path = pathlib.Path(folder) / 'db'
            shutil.copyfile(base.template(), path)
            url = f'sqlite:///{path}'
        else:
            url = server.create(base.template())
            self.stack.callback(server.drop, url)
        self.list = api.Inventory(base.new_conf(url), 'test')
        self.stack.callback(lambda: self.list.database.engine.dispose())
        first = base.ip('10.0.0.1')
        self.list.create_pool(
            name='pool', network_id=base.NETWORK, subnet_id=base.SUBNET,
            cidr='10.0.0.0/24', ranges=[(first, first + SIZE - 1)],
            allocator=self.allocator, reuse_delay=self.reuse_delay,
            dhcp_servers=['a'])
        self.model = {str(first + n): Address() for n in range(SIZE)}
        self.count = 0

    def teardown(self) -> None:
        self.stack.close()

    def ip(self, place: int) -> str:
        return list(self.model)[place]

    def free(self) -> list[str]:
        """Return what may be picked: free, or rested long enough."""
        free = [ip for ip, a in self.model.items() if a.state is State.FREE]
        return free or [
            ip for ip, a in self.model.items()
            if a.state is State.QUARANTINED and a.until is not None
            and a.until <= self.now]

    def handed_over(self) -> list[str]:
        """Return what may be picked where nothing is free."""
        return [] if self.free() or self.reuse_delay else [
            ip for ip, a in self.model.items()
            if a.state is State.RELEASING and a.proof and a.hold is None]

    def picked(self, address: str) -> Address:
        """Check and note that an address was picked."""
        if address in self.handed_over():
            return self.model[address]
        found = self.free()
        assert address in found, (address, found)
        if self.model[address].state is State.QUARANTINED:
            # those whose rest was over were all freed on the way
            for a in self.model.values():
                if (a.state is State.QUARANTINED and a.until is not None
                        and a.until <= self.now):
                    a.state, a.until = State.FREE, None
        if self.allocator == 'sequential':
            assert address == min(found), (address, found)
        return self.model[address]

    @stateful.rule(name=NAMES, project=PROJECTS)
    def reserve(self, name: str, project: str) -> None:
        self.count += 1
        requester = records.Requester(f'req-{self.count}', project)
        wanted = [records.Wanted(base.NETWORK, (name,))]
        held = [ip for ip, a in self.model.items()
                if a.state is State.RESERVED and a.request is None
                and a.hold is not None and a.hold[0] == name
                and a.hold[1] in (None, project)]
        former = [] if self.allocator != 'sticky' else [
            ip for ip, a in self.model.items()
            if a.former == (name, project) and a.hold is None
            and (a.state in states.VACANT
                 or a.state is State.RELEASING and (a.gone or a.proof))]
        try:
            predicted, = self.list.rehearsal().reserve(requester, wanted, TTL)
            found, = self.list.reserve(requester, wanted, TTL)
        except exceptions.PoolExhausted:
            assert not held and not former and not self.free()
            assert not self.handed_over()
            return
        assert predicted.address == found.address
        address = str(found.address)
        if held:
            assert address in held
            # what is kept for the project goes before what is for any
            assert self.model[address].hold[1] == project or all(
                self.model[ip].hold[1] is None for ip in held)
            a = self.model[address]
        elif former:
            assert address in former
            a = self.model[address]
        else:
            a = self.picked(address)
        a.leave()
        a.state, a.request, a.project = (
            State.RESERVED, requester.request_id, project)
        a.name, a.until = name, self.now + datetime.timedelta(seconds=TTL)

    def reserved(self, place: int) -> tuple[str, Address] | None:
        address = self.ip(place)
        a = self.model[address]
        if a.state is State.RESERVED and a.request is not None:
            return address, a
        return None

    def given_up(self, a: Address) -> None:
        """Note that a reservation ended without a port."""
        rests = a.former is not None and a.former == (a.name, a.project)
        a.leave()
        if a.forget:
            a.state, a.gone = State.RELEASING, True
        elif a.hold:
            a.state = State.RESERVED
        elif rests and self.reuse_delay:
            a.state = State.QUARANTINED
            a.until = self.now + datetime.timedelta(seconds=DELAY)
        else:
            a.state = State.FREE

    @stateful.rule(place=PLACES)
    def cancel(self, place: int) -> None:
        found = self.reserved(place)
        if found is None:
            return
        row = self.row(found[0])
        assert self.list.cancel([row], 'no') == 1
        assert self.list.cancel([row], 'no') == (
            self.row(found[0]).request_id == row.request_id)
        self.given_up(found[1])

    @stateful.rule(seconds=strategies.sampled_from([1, TTL, DELAY]))
    def time_goes_on(self, seconds: int) -> None:
        self.now += datetime.timedelta(seconds=seconds)

    @stateful.rule()
    def expire(self) -> None:
        over = {ip for ip, a in self.model.items()
                if a.state is State.RESERVED and a.until is not None
                and a.until <= self.now}
        found = self.list.expired()
        assert {str(a.address) for a in found} == over
        for reservation in found:
            assert self.list.expire(reservation, 'late')
            assert not self.list.expire(reservation, 'late')
            self.given_up(self.model[str(reservation.address)])

    def claimed(self, a: Address, request: str, project: str) -> None:
        a.state, a.request, a.project = State.CLAIMED, request, project
        a.port, a.mac = base.port_id(self.count), base.mac(self.count)
        a.until, a.forget, a.gone = None, None, False

    def claim(self, request: str, project: str, **values: Any
              ) -> records.Claim:
        self.count += 1
        ask = functools.partial(
            self.list.claim,
            subnet_id=base.SUBNET, requester=records.Requester(
                request, project), port_id=base.port_id(self.count),
            mac=base.mac(self.count), server_id=base.server_id(self.count),
            **values)
        try:
            claim = ask()
        except exceptions.AddressReleasing as exc:
            for held in exc.held:
                a = self.model[str(held.address)]
                assert a.proof and a.forget, held
                assert a.state in (State.RELEASING, State.RESERVED), held
            claim = ask(silent=exc.held)
        assert claim is not None and not claim.repeated
        return claim

    @stateful.rule(place=PLACES)
    def claim_reserved(self, place: int) -> None:
        found = self.reserved(place)
        if found is None:
            return
        address, a = found
        assert a.request and a.project
        claim = self.claim(a.request, a.project)
        assert str(claim.address) == address
        self.claimed(a, a.request, a.project)

    @stateful.rule(project=PROJECTS)
    def claim_any(self, project: str) -> None:
        try:
            claim = self.claim('', project)
        except exceptions.PoolExhausted:
            assert not self.free() and not self.handed_over()
            return
        a = self.picked(str(claim.address))
        a.leave()
        self.claimed(a, '', project)

    @stateful.rule(place=PLACES, project=PROJECTS)
    def claim_given(self, place: int, project: str) -> None:
        address = self.ip(place)
        a = self.model[address]
        may = a.state in states.VACANT or (
            a.state is State.RESERVED and a.request is None
            and a.hold is not None and a.hold[1] == project) or (
            a.state is State.RELEASING and a.proof
            and (a.hold is None or a.hold[1] == project))
        try:
            self.claim('', project, address=base.ip(address))
        except exceptions.AddressInUse:
            assert not may
            return
        assert may
        if not a.hold:
            a.leave()
        a.name = None
        self.claimed(a, '', project)

    def in_use(self, place: int) -> tuple[str, Address] | None:
        address = self.ip(place)
        a = self.model[address]
        if a.state in (State.CLAIMED, State.ACTIVE):
            return address, a
        return None

    @stateful.rule(place=PLACES, name=NAMES)
    def activate(self, place: int, name: str) -> None:
        found = self.in_use(place)
        if found is None:
            return
        row = self.row(found[0])
        assert row.server_id and row.mac
        self.list.activate(row.server_id, name, [row.mac])
        if found[1].state is State.CLAIMED:
            found[1].state, found[1].name = State.ACTIVE, name
            found[1].proof = False

    @stateful.rule(place=PLACES)
    def change_mac(self, place: int) -> None:
        found = self.in_use(place)
        if found is None or found[1].port is None:
            return
        self.count += 1
        found[1].mac = base.mac(self.count)
        self.list.change_mac(found[1].port, found[1].mac)

    @stateful.rule(place=PLACES, proof=strategies.booleans())
    def release(self, place: int, proof: bool) -> None:
        address = self.ip(place)
        a = self.model[address]
        released = self.list.release_address(
            base.SUBNET, base.ip(address), 'deleted',
            states.Evidence.COMMITTED if proof else None)
        if released or a.state is State.RELEASING and proof:
            a.proof = proof
        assert released == (a.state in states.IN_USE)
        if released:
            a.state, a.forget, a.until = State.RELEASING, a.mac, None
            a.gone = False
            if a.name is not None and a.project is not None:
                a.former = (a.name, a.project)

    def removal(self, place: int) -> tuple[Address, records.Work] | None:
        """Return the work of taking an old MAC out of the DHCP server."""
        address = self.ip(place)
        for work in self.all_work():
            if str(work.address) == address and not work.present:
                return self.model[address], work
        return None

    def all_work(self) -> list[records.Work]:
        with mock.patch.object(clock, 'now', lambda: self.now
                               + datetime.timedelta(days=1)):
            return self.list.work()

    @stateful.rule(place=PLACES)
    def forgotten(self, place: int) -> None:
        found = self.removal(place)
        if found is None:
            assert self.model[self.ip(place)].forget is None
            return
        a, work = found
        assert work.mac == a.forget
        assert self.list.work_done(work)
        assert not self.list.work_done(work)
        a.forget = None
        if a.state is not State.RELEASING:
            return
        a.proof = False
        a.leave()
        if a.hold:
            a.state = State.RESERVED
        elif self.reuse_delay:
            a.state = State.QUARANTINED
            a.until = self.now + datetime.timedelta(seconds=DELAY)
        else:
            a.state = State.FREE

    @stateful.rule(place=PLACES, gone=strategies.booleans())
    def not_forgotten(self, place: int, gone: bool) -> None:
        found = self.removal(place)
        if found is None:
            return
        a, work = found
        self.list.work_failed(work, 'no', 1, port_gone=gone)
        if gone and a.state is State.RELEASING:
            a.gone = True

    @stateful.rule(place=PLACES)
    def keep(self, place: int) -> None:
        found = self.removal(place)
        if found is None or found[0].gone or found[0].proof:
            return
        a, work = found
        if a.state is State.RELEASING:
            self.list.keep(work)
            a.state, a.forget = State.CLAIMED, None

    @stateful.rule()
    def written(self) -> None:
        for work in self.all_work():
            if work.present:
                assert self.list.work_done(work)

    @stateful.rule()
    def rest(self) -> None:
        over = [a for a in self.model.values()
                if a.state is State.QUARANTINED and a.until is not None
                and a.until <= self.now]
        assert self.list.rest_over() == len(over)
        for a in over:
            a.state, a.until = State.FREE, None

    @stateful.rule(place=PLACES, name=NAMES, project=strategies.one_of(
        strategies.none(), PROJECTS))
    def hold(self, place: int, name: str, project: str | None) -> None:
        address = self.ip(place)
        a = self.model[address]
        elsewhere = any(ip != address and other.hold == (name, project)
                        for ip, other in self.model.items())
        has_it = a.hold == (name, project) if a.hold else (
            a.state in (State.RESERVED, State.CLAIMED, State.ACTIVE)
            and a.name == name and project in (None, a.project))
        may = not elsewhere and (a.state in states.VACANT or has_it)
        try:
            self.list.hold(records.Hold('pool', base.ip(address), name,
                                        project,
                                        any_project=project is None))
        except exceptions.AddressInUse:
            assert not may
            return
        assert may
        a.hold = (name, project)
        if a.state in states.VACANT:
            a.leave()
            a.state = State.RESERVED

    @stateful.rule(place=PLACES)
    def unhold(self, place: int) -> None:
        address = self.ip(place)
        a = self.model[address]
        try:
            self.list.unhold('pool', base.ip(address))
        except exceptions.AddressNotFound:
            assert a.hold is None
            return
        assert a.hold is not None
        a.hold = None
        if a.state is State.RESERVED and a.request is None:
            a.state = State.FREE

    def row(self, address: str) -> records.Address:
        (_, row), = self.list.addresses(address=base.ip(address))
        return row

    @stateful.invariant()
    def list_is_the_model(self) -> None:
        rows = {str(a.address): a
                for _, a in self.list.addresses(state=list(State))}
        for address, a in self.model.items():
            row = rows.get(address)
            if row is None:
                assert a == Address(), address
                continue
            assert (row.state, row.request_id, row.project_id,
                    row.server_name, row.port_id, row.mac, row.expires_at
                    ) == (a.state, a.request, a.project, a.name, a.port,
                          a.mac, a.until), address
            assert a.hold == (None if row.hold_name is None else (
                row.hold_name, row.hold_project)), address

    @stateful.invariant()
    def entries_are_those_of_the_holders(self) -> None:
        wanted = {address: (a.mac, True) for address, a in self.model.items()
                  if a.state in (State.CLAIMED, State.ACTIVE)}
        wanted.update({address: (a.forget, False) for address, a in
                       self.model.items() if a.forget})
        assert wanted == {str(e.address): (e.mac, e.present)
                          for e in self.list.entries()}

    @stateful.invariant()
    def history_replays_to_the_list(self) -> None:
        replayed = {change.address: change.standing()
                    for change in self.list.changes()}
        for _, a in self.list.addresses(state=list(State)):
            standing = replayed.pop(a.address, None)
            if standing is not None:
                assert standing == records.Standing.of(a)
            else:
                assert (a.state, a.generation) == (State.FREE, 0)
        assert not replayed


class TestMachine(testtools.TestCase):

    def check(self, allocator: str, reuse_delay: int) -> None:
        machine = type('Machine', (Machine,), {
            'allocator': allocator, 'reuse_delay': reuse_delay})
        stateful.run_state_machine_as_test(
            machine, settings=hypothesis.settings(
                max_examples=tests.examples(8), stateful_step_count=30,
                suppress_health_check=list(hypothesis.HealthCheck)))

    def test_sequential(self) -> None:
        self.check('sequential', 0)

    def test_sequential_and_quarantine(self) -> None:
        self.check('sequential', DELAY)

    def test_random(self) -> None:
        self.check('random', DELAY)

    def test_sticky(self) -> None:
        self.check('sticky', 0)

    def test_sticky_and_quarantine(self) -> None:
        self.check('sticky', DELAY)
