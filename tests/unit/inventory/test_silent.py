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

"""A database that accepts connections and never says a word."""

from collections.abc import Callable
import os
import socket
import threading
from typing import Any

from oslo_db import exception as db_exc

from tests.unit import base
from vmip_plugin import exceptions
from vmip_plugin.inventory import api
from vmip_plugin.inventory import breaker
from vmip_plugin.inventory import known
from vmip_plugin.inventory import pools
from vmip_plugin.inventory import records

#: Far more than a time-out takes here, and less than any default without one.
PATIENCE = 60

#: a network without a pool
OTHER = '11111111-0000-0000-0000-000000000099'


class BlackHole:
    """A socket whose kernel accepts connections, and nobody answers them."""

    def __init__(self) -> None:
        self._socket = socket.create_server(('127.0.0.1', 0), backlog=100)
        self._socket.setblocking(False)
        self._came: list[socket.socket] = []
        self.port = int(self._socket.getsockname()[1])

    def url(self, scheme: str, query: str = '') -> str:
        return f'{scheme}://vmip:secret@127.0.0.1:{self.port}/vmip{query}'

    def count(self) -> int:
        """Return how many connections have come so far."""
        try:
            while True:
                self._came.append(self._socket.accept()[0])
        except BlockingIOError:
            return len(self._came)

    def close(self) -> None:
        self.count()
        for each in [*self._came, self._socket]:
            each.close()


class SilentTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.hole = BlackHole()
        self.addCleanup(self.hole.close)
        # no probe asks during the test
        self.patch(breaker, 'INTERVAL', 10 ** 6)

    def silent(self, scheme: str, query: str = '') -> api.Inventory:
        """Return a list whose database never answers."""
        conf = base.new_conf(self.hole.url(scheme, query))
        for name in ('connect_timeout', 'statement_timeout'):
            conf.set_override(name, 2, 'database')
        return api.Inventory(conf, 'nova-api', in_request=True)

    def in_time(self, call: Callable[[], Any]) -> Any:
        """Return what a call returns, or its error; it must not hang."""
        results: list[Any] = []

        def run() -> None:
            try:
                results.append(call())
            except Exception as exc:
                results.append(exc)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        self.assertFalse(thread.is_alive(), 'it hangs')
        return results[0]

    def reserved(self, inventory: api.Inventory) -> Any:
        return self.in_time(lambda: inventory.reserve(
            records.Requester('req-1', base.PROJECT),
            [records.Wanted(base.NETWORK, ('web',))], 600))


class TestSilent(SilentTestCase):

    def check(self, scheme: str) -> None:
        inventory = self.silent(scheme)
        self.assertIsInstance(self.reserved(inventory),
                              exceptions.InventoryUnavailable)
        self.assertTrue(inventory.database.breaker.is_open)
        came = self.hole.count()
        self.assertGreater(came, 0)
        for _ in range(100):
            error = self.reserved(inventory)
            self.assertIsInstance(error, exceptions.InventoryUnavailable)
            self.assertIn('The database cannot be used', str(error))
            self.assertIsInstance(self.in_time(inventory.pools),
                                  exceptions.InventoryUnavailable)
        self.assertEqual(came, self.hole.count())
        self.assertNotIn('secret', self.log.output)

    def test_mysql(self) -> None:
        """The first call ends, and those after it do not even ask."""
        self.check('mysql+pymysql')

    def test_postgresql(self) -> None:
        self.check('postgresql+psycopg2')

    def test_upgrade(self) -> None:
        """It takes as long as it takes, but not to find nobody there."""
        for scheme in ('mysql+pymysql', 'postgresql+psycopg2'):
            self.assertIsInstance(
                self.in_time(self.silent(scheme).database.upgrade),
                exceptions.InventoryUnavailable)

    def test_values_in_the_url_win(self) -> None:
        given = {'connect_timeout': '9', 'read_timeout': '8',
                 'write_timeout': '7'}
        every = '?' + '&'.join('='.join(item) for item in given.items())
        for query, wanted in ((every, given), ('?read_timeout=5', {
                **dict.fromkeys(given, '2'), 'read_timeout': '5'})):
            url = self.silent('mysql+pymysql', query).database.engine.url
            self.assertEqual(wanted, {key: url.query[key] for key in given})

    def test_daemons_wait_longer(self) -> None:
        url = api.Inventory(base.new_conf(self.hole.url('mysql+pymysql')),
                            'x').database.engine.url
        self.assertEqual('30', url.query['read_timeout'])

    def test_deadlocks_do_not_add_up(self) -> None:
        """A wait for a lock is taken for one, and may be a long one."""
        self.pool()
        calls: list[object] = []

        def locked(*args: Any) -> None:
            calls.append(args)
            raise db_exc.DBDeadlock

        self.patch(pools, 'of_network', locked)
        self.inventory.database.timeout = -1
        self.assertRaises(exceptions.InventoryUnavailable, self.reserve)
        self.assertEqual(1, len(calls))


class TestBreaker(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.patch(breaker, 'INTERVAL', 0)

    def test_closes_when_a_probe_is_answered(self) -> None:
        asked, answer = threading.Event(), threading.Event()
        tries: list[int] = []

        def probe() -> None:
            tries.append(len(tries))
            asked.set()
            answer.wait(PATIENCE)
            if len(tries) < 3:
                raise ZeroDivisionError

        found = breaker.Breaker(probe)
        found.check()
        found.trip(ValueError())
        found.check()
        for _ in range(5):
            found.trip(TimeoutError('it is silent'))
        self.assertTrue(asked.wait(PATIENCE))
        error = self.assertRaises(exceptions.InventoryUnavailable,
                                  found.check)
        self.assertIn('it is silent', str(error))
        answer.set()
        while found.is_open:
            pass
        found.check()
        # one thread asked, however often it was tripped
        self.assertEqual([0, 1, 2], tries)
        self.assertIn('The database answers again', self.log.output)

    def test_after_a_fork(self) -> None:
        """No thread would close it in the child."""
        never = threading.Event()
        self.addCleanup(never.set)
        found = breaker.Breaker(lambda: never.wait(PATIENCE))
        found.trip(TimeoutError())
        child = os.fork()
        if child == 0:
            os._exit(found.is_open)
        self.assertEqual(0, os.waitpid(child, 0)[1])
        self.assertTrue(found.is_open)


class TestKnownPools(base.TestCase):

    def known(self, inventory: api.Inventory | None = None,
              **which: str) -> bool:
        return (inventory or self.inventory).may_have_pool(**which)

    def test_what_has_a_pool(self) -> None:
        self.pool()
        other = self.new_inventory('other')
        for inventory in (self.inventory, other):
            self.assertTrue(self.known(inventory, network_id=base.NETWORK))
            self.assertTrue(self.known(inventory, subnet_id=base.SUBNET))
            self.assertFalse(self.known(inventory, network_id=OTHER))
            self.assertFalse(self.known(inventory, subnet_id=OTHER))

    def young(self) -> None:
        self.new_inventory('other').create_pool(
            name='young', network_id='young', subnet_id='younger',
            cidr='10.9.0.0/24', ranges=[(base.ip('10.9.0.9'),) * 2])

    def test_new_pool_comes_to_be_known(self) -> None:
        self.pool()
        self.assertFalse(self.known(network_id='young'))
        self.young()
        self.patch(known, 'MAX_AGE', 0)
        self.assertTrue(self.known(network_id='young'))

    def test_deleted_pool_comes_to_be_known(self) -> None:
        self.pool()
        self.assertTrue(self.known(network_id=base.NETWORK))
        self.new_inventory('other').delete_pool('pool')
        self.patch(known, 'MAX_AGE', 0)
        # the one that this process made itself, too
        self.known(network_id=OTHER)
        self.assertFalse(self.known(network_id=base.NETWORK))

    def test_own_pool_is_known_at_once(self) -> None:
        self.patch(known, 'MAX_AGE', 10 ** 6)
        self.assertFalse(self.known(network_id=base.NETWORK))
        self.pool()
        self.assertTrue(self.known(network_id=base.NETWORK))

    def test_claim_tells_of_a_young_pool(self) -> None:
        self.patch(known, 'MAX_AGE', 10 ** 6)
        self.assertFalse(self.known(network_id='young'))
        self.young()
        self.claim(subnet='younger')
        self.assertTrue(self.known(network_id='young'))

    def test_never_read(self) -> None:
        """A pool cannot be excluded."""
        def away() -> frozenset[str]:
            raise exceptions.InventoryUnavailable

        self.assertTrue(known.KnownPools(away).may_have(OTHER))

    def test_not_readable_any_more(self) -> None:
        """What was read last is what is known."""
        self.patch(known, 'MAX_AGE', 0)
        ids: list[frozenset[str]] = [frozenset([base.NETWORK])]
        found = known.KnownPools(lambda: ids.pop())
        for _ in range(3):
            self.assertTrue(found.may_have(base.NETWORK))
            self.assertFalse(found.may_have(OTHER))
        self.assertIn('IndexError', self.log.output)

    def test_read_that_hangs(self) -> None:
        """One thread waits for the database, and nobody for that thread."""
        self.patch(known, 'MAX_AGE', 0)
        self.patch(known, 'PATIENCE', 0.01)
        reads: list[threading.Event] = []
        hangs = threading.Event()
        self.addCleanup(hangs.set)

        def read() -> frozenset[str]:
            reads.append(hangs)
            if len(reads) > 1:
                hangs.wait(PATIENCE)
            return frozenset([base.NETWORK])

        found = known.KnownPools(read)
        while found.may_have(OTHER):
            pass
        answers: list[tuple[bool, bool]] = []
        threads = [threading.Thread(target=lambda: answers.append((
            found.may_have(base.NETWORK), found.may_have(OTHER))))
            for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual([(True, False)] * 50, answers)
        self.assertEqual(2, len(reads))

    def test_after_a_fork(self) -> None:
        """What is known goes with the child; a read under way does not."""
        self.patch(known, 'MAX_AGE', 0)
        self.patch(known, 'PATIENCE', 0.01)
        hangs = threading.Event()
        self.addCleanup(hangs.set)
        parent = os.getpid()
        reads: list[int] = []

        def read() -> frozenset[str]:
            reads.append(os.getpid())
            if len(reads) > 1 and os.getpid() == parent:
                hangs.wait(PATIENCE)
            return frozenset([str(os.getpid())])

        found = known.KnownPools(read)
        while found.may_have(OTHER):
            pass
        found.may_have(OTHER)
        child = os.fork()
        if child == 0:
            known.PATIENCE = PATIENCE
            knows = found.may_have(str(parent)), found.may_have(
                str(os.getpid()))
            os._exit(0 if knows == (False, True) else 1)
        self.assertEqual(0, os.waitpid(child, 0)[1])
