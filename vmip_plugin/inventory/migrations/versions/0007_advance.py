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


"""What a project holds in advance; which history is old.

Revision ID: 0007
Revises: 0006
"""

from alembic import op
import sqlalchemy as sa

revision = '0007'
down_revision = '0006'

_INDEXES = {'addresses': ('ix_addresses_project_id_state',
                          ['project_id', 'state']),
            'history': ('ix_history_at_id', ['at', 'id'])}


def upgrade() -> None:
    # MySQL commits each change by itself: one that was cut off goes on
    known = sa.inspect(op.get_bind())
    if 'queues' not in known.get_table_names():
        op.create_table(
            'queues',
            sa.Column('id', sa.Integer(), nullable=False,
                      autoincrement=False),
            sa.Column('turns', sa.BigInteger(), nullable=False),
            sa.PrimaryKeyConstraint('id', name='pk_queues'),
            mysql_engine='InnoDB', mysql_charset='utf8mb4',
            mysql_collate='utf8mb4_bin')
    for table, (name, columns) in _INDEXES.items():
        if name not in {index['name'] for index in known.get_indexes(table)}:
            op.create_index(name, table, columns)
