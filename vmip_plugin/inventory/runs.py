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

"""What vmip-reclaimer did last, and where it goes on."""

import dataclasses
import datetime

import sqlalchemy as sa
from sqlalchemy import orm

from vmip_plugin.inventory import models
from vmip_plugin.inventory import records
from vmip_plugin.inventory import transactions

Row = models.TaskRow


class Runs(transactions.Transactions):
    """The part of the list that vmip-reclaimer keeps for itself."""

    @transactions.write
    def note_run(self, session: orm.Session, run: records.Run) -> None:
        """Note the last run of a task."""
        values = dataclasses.asdict(run)
        values['error'] = run.error and run.error[:1000]
        if run.error is None:
            values['looked_at'] = run.started_at
        row = session.get(Row, run.name)
        if row is None:
            session.add(Row(**values))
        else:
            for key, value in values.items():
                setattr(row, key, value)

    def runs(self) -> list[records.Run]:
        """Return the last run of every task, by name."""
        names = [field.name for field in dataclasses.fields(records.Run)]
        with self.database.read() as session:
            return [records.Run(**{name: getattr(row, name)
                                   for name in names})
                    for row in session.scalars(
                        sa.select(Row).order_by(Row.name))]

    def looked_at(self, task: str) -> datetime.datetime | None:
        """Return when the last run of a task that did not fail began."""
        with self.database.read() as session:
            return session.scalars(sa.select(Row.looked_at).where(
                Row.name == task)).first()
