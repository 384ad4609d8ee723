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

"""initial

Revision ID: 0001
Revises:
"""

from typing import Any

from alembic import op
import sqlalchemy as sa


revision = '0001'
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), 'sqlite')
_TABLE: dict[str, Any] = {
    'mysql_engine': 'InnoDB',
    'mysql_charset': 'utf8mb4',
    'mysql_collate': 'utf8mb4_bin',
    # MySQL commits each change by itself: one that was cut off goes on
    'if_not_exists': True,
}


def upgrade() -> None:
    op.create_table(
        'history',
        sa.Column('id', _KEY, nullable=False),
        sa.Column('pool_id', sa.String(length=36), nullable=False),
        sa.Column('address', sa.String(length=32), nullable=False),
        sa.Column('at', sa.BigInteger(), nullable=False),
        sa.Column('actor', sa.String(length=64), nullable=False),
        sa.Column('event', sa.String(length=32), nullable=False),
        sa.Column('reason', sa.String(length=255), nullable=False),
        sa.Column('old_state', sa.String(length=16), nullable=False),
        sa.Column('new_state', sa.String(length=16), nullable=False),
        sa.Column('request_id', sa.String(length=64), nullable=True),
        sa.Column('project_id', sa.String(length=64), nullable=True),
        sa.Column('server_id', sa.String(length=36), nullable=True),
        sa.Column('server_name', sa.String(length=255), nullable=True),
        sa.Column('port_id', sa.String(length=36), nullable=True),
        sa.Column('mac', sa.String(length=17), nullable=True),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_history')),
        **_TABLE,
    )
    _index(
        'ix_history_address_at',
        'history',
        ['address', 'at'],
    )

    op.create_table(
        'pools',
        sa.Column('id', sa.String(length=36), nullable=False),
        sa.Column('name', sa.String(length=255), nullable=False),
        sa.Column('network_id', sa.String(length=36), nullable=False),
        sa.Column('subnet_id', sa.String(length=36), nullable=False),
        sa.Column('cidr', sa.String(length=64), nullable=False),
        sa.Column('allocator', sa.String(length=64), nullable=False),
        sa.Column('reuse_delay', sa.Integer(), nullable=False),
        sa.Column('dhcp_servers', sa.Text(), nullable=False),
        sa.Column('created_at', sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_pools')),
        sa.UniqueConstraint('name', name=op.f('uniq_pools0name')),
        sa.UniqueConstraint('subnet_id', name=op.f('uniq_pools0subnet_id')),
        **_TABLE,
    )
    _index('ix_pools_network_id', 'pools', ['network_id'])

    op.create_table(
        'addresses',
        sa.Column('id', _KEY, nullable=False),
        sa.Column('pool_id', sa.String(length=36), nullable=False),
        sa.Column('address', sa.String(length=32), nullable=False),
        sa.Column('pick_key', sa.BigInteger(), nullable=False),
        sa.Column('state', sa.String(length=16), nullable=False),
        sa.Column('generation', sa.Integer(), nullable=False),
        sa.Column('changed_at', sa.BigInteger(), nullable=False),
        sa.Column('expires_at', sa.BigInteger(), nullable=True),
        sa.Column('request_id', sa.String(length=64), nullable=True),
        sa.Column('project_id', sa.String(length=64), nullable=True),
        sa.Column('server_id', sa.String(length=36), nullable=True),
        sa.Column('server_name', sa.String(length=255), nullable=True),
        sa.Column('port_id', sa.String(length=36), nullable=True),
        sa.Column('mac', sa.String(length=17), nullable=True),
        sa.Column('gone_since', sa.BigInteger(), nullable=True),
        sa.Column('hold_name', sa.String(length=255), nullable=True),
        sa.Column('hold_project', sa.String(length=64), nullable=True),
        sa.Column('hold_until', sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ['pool_id'], ['pools.id'], name=op.f('fk_addresses_pool_id')
        ),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_addresses')),
        sa.UniqueConstraint(
            'pool_id', 'address', name='uniq_addresses0pool_id0address'
        ),
        **_TABLE,
    )
    _index('ix_addresses_hold_name', 'addresses', ['hold_name'])
    _index(
        'ix_addresses_pool_id_state_pick_key',
        'addresses',
        ['pool_id', 'state', 'pick_key'],
    )
    _index('ix_addresses_port_id', 'addresses', ['port_id'])
    _index('ix_addresses_request_id', 'addresses', ['request_id'])
    _index('ix_addresses_server_id', 'addresses', ['server_id'])
    _index(
        'ix_addresses_state_expires_at', 'addresses', ['state', 'expires_at']
    )

    op.create_table(
        'ranges',
        sa.Column('id', _KEY, nullable=False),
        sa.Column('pool_id', sa.String(length=36), nullable=False),
        sa.Column('first', sa.String(length=32), nullable=False),
        sa.Column('last', sa.String(length=32), nullable=False),
        sa.Column('fresh', sa.String(length=32), nullable=True),
        sa.ForeignKeyConstraint(
            ['pool_id'],
            ['pools.id'],
            name=op.f('fk_ranges_pool_id'),
            ondelete='CASCADE',
        ),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_ranges')),
        **_TABLE,
    )
    _index('ix_ranges_pool_id', 'ranges', ['pool_id'])

    op.create_table(
        'host_entries',
        sa.Column('id', _KEY, nullable=False),
        sa.Column('address_id', _KEY, nullable=False),
        sa.Column('server', sa.String(length=64), nullable=False),
        sa.Column('mac', sa.String(length=17), nullable=False),
        sa.Column('hostname', sa.String(length=63), nullable=True),
        sa.Column('present', sa.Boolean(), nullable=False),
        sa.Column('done', sa.Boolean(), nullable=False),
        sa.Column('generation', sa.Integer(), nullable=False),
        sa.Column('attempts', sa.Integer(), nullable=False),
        sa.Column('next_try_at', sa.BigInteger(), nullable=False),
        sa.Column('error', sa.Text(), nullable=True),
        sa.Column('done_at', sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ['address_id'],
            ['addresses.id'],
            name=op.f('fk_host_entries_address_id'),
            ondelete='CASCADE',
        ),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_host_entries')),
        sa.UniqueConstraint(
            'address_id', 'server', name='uniq_host_entries0address_id0server'
        ),
        sqlite_autoincrement=True,
        **_TABLE,
    )
    _index(
        'ix_host_entries_done_next_try_at',
        'host_entries',
        ['done', 'next_try_at'],
    )


def _index(name: str, table: str, columns: list[str]) -> None:
    # MySQL knows no CREATE INDEX IF NOT EXISTS
    if name not in {found['name'] for found in sa.inspect(
            op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, columns)
