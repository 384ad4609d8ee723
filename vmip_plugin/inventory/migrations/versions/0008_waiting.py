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

"""What a pending host entry waits for, and since when.

Revision ID: 0008
Revises: 0007
"""

from alembic import op
import sqlalchemy as sa


revision = '0008'
down_revision = '0007'


# Columns that may be empty: what workers of revision 0007 do not notice.
def upgrade() -> None:
    # MySQL commits each change by itself: one that was cut off goes on
    found = {known['name'] for known in sa.inspect(op.get_bind()).get_columns(
        'host_entries')}
    for column in (
            sa.Column('waiting_for', sa.String(16), nullable=True),
            sa.Column('waiting_since', sa.BigInteger(), nullable=True)):
        if column.name not in found:
            op.add_column('host_entries', column)
