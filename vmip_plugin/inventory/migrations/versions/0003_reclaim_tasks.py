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

"""What vmip-reclaimer did last.

Revision ID: 0003
Revises: 0002
"""

from alembic import op
import sqlalchemy as sa


revision = '0003'
down_revision = '0002'


# A table and an index: what workers of revision 0002 do not notice.
def upgrade() -> None:
    # MySQL commits each change by itself: one that was cut off goes on
    found = sa.inspect(op.get_bind())
    index = 'ix_addresses_gone_since'
    if index not in {known['name'] for known in found.get_indexes(
            'addresses')}:
        op.create_index(index, 'addresses', ['gone_since'])
    if found.has_table('reclaim_tasks'):
        return
    op.create_table(
        'reclaim_tasks',
        sa.Column('name', sa.String(32), nullable=False),
        sa.Column('host', sa.String(255), nullable=False),
        sa.Column('started_at', sa.BigInteger(), nullable=False),
        sa.Column('ended_at', sa.BigInteger(), nullable=False),
        sa.Column('checked', sa.Integer(), nullable=False),
        sa.Column('found', sa.Integer(), nullable=False),
        sa.Column('done', sa.Integer(), nullable=False),
        sa.Column('spared', sa.Integer(), nullable=False),
        sa.Column('error', sa.Text(), nullable=True),
        sa.Column('looked_at', sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint('name', name='pk_reclaim_tasks'),
        mysql_engine='InnoDB', mysql_charset='utf8mb4',
        mysql_collate='utf8mb4_bin')
