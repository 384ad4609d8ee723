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

"""The table of the agent's store, and how it came to be.

``PRAGMA user_version`` says how many of the steps a file has had.
"""

_FIRST = """
CREATE TABLE lease (
    address TEXT NOT NULL,
    mac TEXT NOT NULL,
    interface TEXT NOT NULL,
    vlan INTEGER,
    dhcp_server TEXT,
    dhcp_server_mac TEXT,
    client_id BLOB,
    lease_seconds INTEGER,
    confirmed INTEGER NOT NULL DEFAULT 0,
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    port_id TEXT,
    server_id TEXT,
    looked_at REAL,
    gone_since REAL,
    tries INTEGER NOT NULL DEFAULT 0,
    released_at REAL,
    PRIMARY KEY (address, mac)
);
CREATE INDEX lease_mac ON lease (mac);
CREATE INDEX lease_client ON lease (client_id);
CREATE INDEX lease_eviction ON lease (
    port_id IS NOT NULL OR server_id IS NOT NULL, confirmed, last_seen);
"""

_VERDICTS = """
ALTER TABLE lease ADD COLUMN verdict TEXT;
ALTER TABLE lease ADD COLUMN reason TEXT;
ALTER TABLE lease ADD COLUMN decided_at REAL;
"""

_NETWORK = 'ALTER TABLE lease ADD COLUMN network_id TEXT'

_REMOTE = """
ALTER TABLE lease ADD COLUMN remote INTEGER NOT NULL DEFAULT 0;
DROP INDEX lease_eviction;
CREATE INDEX lease_eviction ON lease (
    remote DESC, port_id IS NOT NULL OR server_id IS NOT NULL, confirmed,
    last_seen);
"""

_DHCPV6 = """
ALTER TABLE lease ADD COLUMN server_duid BLOB;
ALTER TABLE lease ADD COLUMN iaid INTEGER;
"""

#: in which run of the host gone_since and released_at were noted
_BOOT = 'CREATE TABLE boot (id TEXT NOT NULL)'

MIGRATIONS = (_FIRST, _VERDICTS, _NETWORK, _REMOTE, _DHCPV6, _BOOT)
