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

"""Since when a DHCP server has to have a host entry as it should.

Revision ID: 0004
Revises: 0003
"""

from alembic import op
import sqlalchemy as sa


revision = '0004'
down_revision = '0003'


# A column that may be empty: what workers of revision 0003 do not notice.
def upgrade() -> None:
    # MySQL commits each change by itself: one that was cut off goes on
    found = sa.inspect(op.get_bind())
    if 'wanted_at' not in {known['name'] for known in found.get_columns(
            'host_entries')}:
        op.add_column('host_entries', sa.Column(
            'wanted_at', sa.BigInteger(), nullable=True))
