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

"""The last runs of vmip-reclaimer's tasks."""

import dataclasses
import datetime

from tests.unit import base
from vmip_plugin.inventory import records


class TestRuns(base.TestCase):

    def run_of(self, name: str, **values: object) -> records.Run:
        return records.Run(**{  # type: ignore[arg-type]
            'name': name, 'host': 'one:1', 'started_at': self.clock.now,
            'ended_at': self.clock.now + datetime.timedelta(seconds=1),
            **values})

    def test_the_last_one(self) -> None:
        self.assertEqual([], self.inventory.runs())
        self.assertIsNone(self.inventory.looked_at('ports'))
        began = self.clock.now
        ports = self.run_of('ports', checked=4, found=3, done=2, spared=1)
        self.inventory.note_run(ports)
        self.clock.forward(10)
        mend = self.run_of('mend', host='two:2')
        self.inventory.note_run(mend)
        self.assertEqual([mend, ports], self.inventory.runs())
        failed = dataclasses.replace(ports, started_at=self.clock.now,
                                     error='x' * 2000)
        self.inventory.note_run(failed)
        self.assertEqual(
            [mend, dataclasses.replace(failed, error='x' * 1000)],
            self.inventory.runs())
        self.assertEqual(began, self.inventory.looked_at('ports'))
        self.assertEqual(self.clock.now, self.inventory.looked_at('mend'))
        again = dataclasses.replace(failed, error=None)
        self.inventory.note_run(again)
        self.assertEqual([mend, again], self.inventory.runs())
        self.assertEqual(self.clock.now, self.inventory.looked_at('ports'))

    def test_rehearsal(self) -> None:
        self.inventory.rehearsal().note_run(self.run_of('ports'))
        self.assertEqual([], self.inventory.runs())
