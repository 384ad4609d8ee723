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

"""Addresses that a pool lost without Neutron's own word.

Revision ID: 0006
Revises: 0005
"""

from alembic import op
import sqlalchemy as sa


revision = '0006'
down_revision = '0005'


def upgrade() -> None:
    # MySQL commits each change by itself: one that was cut off goes on
    inspector = sa.inspect(op.get_bind())
    if 'loss_confirmed_until' not in {
            known['name'] for known in inspector.get_columns('addresses')}:
        op.add_column('addresses', sa.Column(
            'loss_confirmed_until', sa.BigInteger(), nullable=True))
    if 'losses' not in inspector.get_table_names():
        op.create_table(
            'losses',
            sa.Column('id', sa.BigInteger().with_variant(
                sa.Integer, 'sqlite'), nullable=False),
            sa.Column('pool_id', sa.String(36), nullable=False),
            sa.Column('at', sa.BigInteger(), nullable=False),
            sa.PrimaryKeyConstraint('id', name='pk_losses'),
            sa.Index('ix_losses_pool_id_at', 'pool_id', 'at'),
            mysql_engine='InnoDB', mysql_charset='utf8mb4',
            mysql_collate='utf8mb4_bin')
