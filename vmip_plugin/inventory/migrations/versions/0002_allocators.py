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

"""Allocators random and sticky; a history that can be replayed.

Revision ID: 0002
Revises: 0001
"""

from typing import Any

from alembic import op
import sqlalchemy as sa


revision = '0002'
down_revision = '0001'


# Only what workers of revision 0001 do not notice: they and we may serve the
# same list for a while.
def upgrade() -> None:
    _add('pools', 'fresh_index', sa.BigInteger(), nullable=False,
         server_default='0')
    _add('addresses', 'former_name', sa.String(255))
    _add('addresses', 'former_project', sa.String(64))
    index = 'ix_addresses_pool_id_former_name'
    if index not in {found['name'] for found in _inspector().get_indexes(
            'addresses')}:
        op.create_index(index, 'addresses', ['pool_id', 'former_name'])
    _add('history', 'expires_at', sa.BigInteger())
    _add('history', 'hold_name', sa.String(255))
    _add('history', 'hold_project', sa.String(64))
    _add('history', 'hold_until', sa.BigInteger())


def _add(table: str, name: str, kind: sa.types.TypeEngine[Any],
         **options: Any) -> None:
    # MySQL commits each change by itself: one that was cut off goes on
    if name not in {found['name'] for found in _inspector().get_columns(
            table)}:
        op.add_column(table, sa.Column(name, kind, **options))


def _inspector() -> sa.Inspector:
    return sa.inspect(op.get_bind())
