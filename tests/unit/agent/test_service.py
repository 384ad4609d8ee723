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

"""A check waits until what was overheard before it is stored."""

import pathlib
import sqlite3
import tempfile
import threading
import time
from typing import Any
from unittest import mock

import testtools

from tests.unit.agent import test_store
from vmip_plugin.agent import service
from vmip_plugin import conf as conf_


class SettleTest(testtools.TestCase):

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        path = pathlib.Path(directory.name) / 'vmip.conf'
        path.write_text(f'[agent]\nstore = {directory.name}/agent.sqlite\n')
        conf = conf_.new()
        conf_.parse(conf, ['--config-file', str(path)], 'test')
        cloud: Any = None
        with mock.patch.object(service, 'check_interfaces'):
            self.agent = service.Agent(conf, cloud, None, 'host')
        self.addCleanup(self.agent._store.close)
        self.addCleanup(self.agent._writer.join)
        self.addCleanup(self.agent._stop.set)
        self.agent._writer.start()

    def emit(self, number: int) -> None:
        self.agent._emit(test_store.granted(test_store.ADDRESS + number))

    def test_in_a_flood(self) -> None:
        """What comes later keeps it from nothing."""
        stop = threading.Event()

        def flood() -> None:
            while not stop.wait(0.001):
                self.emit(1)

        flooding = threading.Thread(target=flood)
        flooding.start()
        self.addCleanup(flooding.join)
        self.addCleanup(stop.set)
        time.sleep(0.2)
        self.emit(2)
        with mock.patch.object(service, 'SETTLE', 120):
            self.assertTrue(self.agent._settle())
        self.assertIn(test_store.ADDRESS + 2, {
            lease.address for lease in self.agent.page(None, 10)})

    def test_store_that_cannot_be_written(self) -> None:
        with mock.patch.object(service, 'SETTLE', 0.3), mock.patch.object(
                self.agent._store, 'record',
                side_effect=sqlite3.OperationalError('disk full')):
            self.emit(1)
            self.assertFalse(self.agent._settle())
