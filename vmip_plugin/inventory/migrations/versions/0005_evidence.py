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

"""What shows that the holder of an address is gone.

Revision ID: 0005
Revises: 0004
"""

from alembic import op
import sqlalchemy as sa


revision = '0005'
down_revision = '0004'


def upgrade() -> None:
    # MySQL commits each change by itself: one that was cut off goes on
    found = {known['name'] for known in sa.inspect(op.get_bind()).get_columns(
        'addresses')}
    for column in (sa.Column('evidence', sa.String(16), nullable=True),
                   sa.Column('answered_at', sa.BigInteger(), nullable=True)):
        if column.name not in found:
            op.add_column('addresses', column)
