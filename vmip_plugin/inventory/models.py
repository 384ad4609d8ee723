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

"""The tables of the list.

An address has a row only once it was wanted, so a /64 costs nothing until it
is used. A row is one address, and its columns are its one holder: no query
has to find out who of several is the real one.
"""

import datetime
import ipaddress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import orm

from vmip_plugin import types

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


class Instant(sa.types.TypeDecorator[datetime.datetime]):
    """A moment as whole microseconds since 1970, UTC.

    The same on every database; MariaDB's DATETIME would drop fractions.
    """

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime.datetime | None,
                           dialect: Any) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None,
                             dialect: Any) -> datetime.datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


class IPAddress(sa.types.TypeDecorator[types.Address]):
    """An IPv4 (8) or IPv6 (32) address in hexadecimal digits.

    Text of one length per version sorts as the addresses do, on every
    database, and has room for 128 bits.
    """

    impl = sa.String(32)
    cache_ok = True

    def process_bind_param(self, value: types.Address | None,
                           dialect: Any) -> str | None:
        return None if value is None else value.packed.hex()

    def process_result_value(self, value: str | None,
                             dialect: Any) -> types.Address | None:
        if value is None:
            return None
        return ipaddress.ip_address(bytes.fromhex(value))


class Base(orm.DeclarativeBase):
    # Every constraint has a name, so that a later revision can change it.
    metadata = sa.MetaData(naming_convention={
        'uq': 'uniq_%(table_name)s0%(column_0_N_name)s',
        'fk': 'fk_%(table_name)s_%(column_0_N_name)s',
        'pk': 'pk_%(table_name)s',
        'ix': 'ix_%(table_name)s_%(column_0_N_name)s'})
    type_annotation_map = {
        datetime.datetime: Instant,
        types.Address: IPAddress,
    }
    # Names are compared letter for letter on every database.
    __table_args__: Any = {'mysql_engine': 'InnoDB',
                           'mysql_charset': 'utf8mb4',
                           'mysql_collate': 'utf8mb4_bin'}


# SQLite counts up only a column that is called INTEGER.
_Key = sa.BigInteger().with_variant(sa.Integer, 'sqlite')


class Pool(Base):
    """The addresses of one Neutron subnet that vmip hands out."""

    __tablename__ = 'pools'

    id: orm.Mapped[str] = orm.mapped_column(sa.String(36), primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(255), unique=True)
    network_id: orm.Mapped[str] = orm.mapped_column(
        sa.String(36), index=True)
    subnet_id: orm.Mapped[str] = orm.mapped_column(
        sa.String(36), unique=True)
    cidr: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    allocator: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    #: seconds that an address rests after its lease has ended
    reuse_delay: orm.Mapped[int] = orm.mapped_column(sa.Integer)
    #: names of the DHCP servers, in JSON
    dhcp_servers: orm.Mapped[str] = orm.mapped_column(sa.Text)
    created_at: orm.Mapped[datetime.datetime]
    #: how many addresses, in the allocator's order, have a row for certain
    fresh_index: orm.Mapped[int] = orm.mapped_column(
        sa.BigInteger, server_default='0')


class Range(Base):
    """A run of addresses of a pool, first and last included."""

    __tablename__ = 'ranges'

    id: orm.Mapped[int] = orm.mapped_column(_Key, primary_key=True)
    pool_id: orm.Mapped[str] = orm.mapped_column(
        sa.ForeignKey('pools.id', ondelete='CASCADE'), index=True)
    first: orm.Mapped[types.Address]
    last: orm.Mapped[types.Address]
    #: of no use since revision 0002; workers of before still read it
    fresh: orm.Mapped[types.Address | None]


class AddressRow(Base):
    """One address that was wanted at least once, and its holder."""

    __tablename__ = 'addresses'
    __table_args__ = (
        sa.UniqueConstraint('pool_id', 'address',
                            name='uniq_addresses0pool_id0address'),
        # The search for a free address is one step down this index, however
        # full the pool is.
        sa.Index('ix_addresses_pool_id_state_pick_key',
                 'pool_id', 'state', 'pick_key'),
        sa.Index('ix_addresses_state_expires_at', 'state', 'expires_at'),
        sa.Index('ix_addresses_pool_id_former_name',
                 'pool_id', 'former_name'),
        # what a project holds in advance
        sa.Index('ix_addresses_project_id_state', 'project_id', 'state'),
        Base.__table_args__)

    id: orm.Mapped[int] = orm.mapped_column(_Key, primary_key=True)
    pool_id: orm.Mapped[str] = orm.mapped_column(sa.ForeignKey('pools.id'))
    address: orm.Mapped[types.Address]
    #: where it stands among the free ones; -1: in no range
    pick_key: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)
    state: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    #: one more with every change: who saw an older row changes nothing
    generation: orm.Mapped[int] = orm.mapped_column(sa.Integer, default=0)
    changed_at: orm.Mapped[datetime.datetime]
    #: end of a reservation or of the quarantine
    expires_at: orm.Mapped[datetime.datetime | None]
    request_id: orm.Mapped[str | None] = orm.mapped_column(
        sa.String(64), index=True)
    project_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))
    server_id: orm.Mapped[str | None] = orm.mapped_column(
        sa.String(36), index=True)
    server_name: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))
    port_id: orm.Mapped[str | None] = orm.mapped_column(
        sa.String(36), index=True)
    mac: orm.Mapped[str | None] = orm.mapped_column(sa.String(17))
    #: since when Neutron has not known the port
    gone_since: orm.Mapped[datetime.datetime | None] = orm.mapped_column(
        index=True)
    #: what shows that the former holder is gone, while it is ``releasing``
    evidence: orm.Mapped[str | None] = orm.mapped_column(sa.String(16))
    #: when the address last answered on the wire although its holder is gone
    answered_at: orm.Mapped[datetime.datetime | None]
    #: a reservation by hand, kept when its server goes; the name '' is for
    #: any server of the project
    hold_name: orm.Mapped[str | None] = orm.mapped_column(
        sa.String(255), index=True)
    hold_project: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))
    hold_until: orm.Mapped[datetime.datetime | None]
    #: the server that had it last
    former_name: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))
    former_project: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))


class HostEntryRow(Base):
    """What one DHCP server has to have for one address.

    The row is the intent: it is written before the server is and marked done
    after. A done row that wants nothing is deleted.
    """

    __tablename__ = 'host_entries'
    __table_args__ = (
        sa.UniqueConstraint('address_id', 'server',
                            name='uniq_host_entries0address_id0server'),
        sa.Index('ix_host_entries_done_next_try_at', 'done', 'next_try_at'),
        # An id is never given twice: work at hand names its row by it.
        {**Base.__table_args__, 'sqlite_autoincrement': True})

    id: orm.Mapped[int] = orm.mapped_column(_Key, primary_key=True)
    address_id: orm.Mapped[int] = orm.mapped_column(
        sa.ForeignKey('addresses.id', ondelete='CASCADE'))
    server: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    mac: orm.Mapped[str] = orm.mapped_column(sa.String(17))
    hostname: orm.Mapped[str | None] = orm.mapped_column(sa.String(63))
    present: orm.Mapped[bool]
    done: orm.Mapped[bool] = orm.mapped_column(default=False)
    generation: orm.Mapped[int] = orm.mapped_column(sa.Integer, default=0)
    attempts: orm.Mapped[int] = orm.mapped_column(sa.Integer, default=0)
    next_try_at: orm.Mapped[datetime.datetime]
    error: orm.Mapped[str | None] = orm.mapped_column(sa.Text)
    #: when the server had it
    done_at: orm.Mapped[datetime.datetime | None]
    #: when the intent was written; of no row before revision 0004
    wanted_at: orm.Mapped[datetime.datetime | None]
    #: what it waits for (:class:`states.WaitingFor`); NULL: for nothing
    waiting_for: orm.Mapped[str | None] = orm.mapped_column(sa.String(16))
    #: since when it has waited for that
    waiting_since: orm.Mapped[datetime.datetime | None]

    # Every change is a compare and swap on the generation, which only a
    # change of the intent makes grow.
    __mapper_args__: Any = {'version_id_col': generation,
                            'version_id_generator': False}


class HistoryRow(Base):
    """One change of state: who held which address when, and why."""

    __tablename__ = 'history'
    __table_args__ = (
        sa.Index('ix_history_address_at', 'address', 'at'),
        # what is older than it is kept
        sa.Index('ix_history_at_id', 'at', 'id'),
        Base.__table_args__)

    id: orm.Mapped[int] = orm.mapped_column(_Key, primary_key=True)
    pool_id: orm.Mapped[str] = orm.mapped_column(sa.String(36))
    address: orm.Mapped[types.Address]
    at: orm.Mapped[datetime.datetime]
    actor: orm.Mapped[str] = orm.mapped_column(sa.String(64))
    event: orm.Mapped[str] = orm.mapped_column(sa.String(32))
    reason: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    old_state: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    new_state: orm.Mapped[str] = orm.mapped_column(sa.String(16))
    request_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))
    project_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))
    server_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(36))
    server_name: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))
    port_id: orm.Mapped[str | None] = orm.mapped_column(sa.String(36))
    mac: orm.Mapped[str | None] = orm.mapped_column(sa.String(17))
    #: as it was after the change
    expires_at: orm.Mapped[datetime.datetime | None]
    hold_name: orm.Mapped[str | None] = orm.mapped_column(sa.String(255))
    hold_project: orm.Mapped[str | None] = orm.mapped_column(sa.String(64))
    hold_until: orm.Mapped[datetime.datetime | None]


class QueueRow(Base):
    """Where the requests of some projects wait for each other."""

    __tablename__ = 'queues'

    id: orm.Mapped[int] = orm.mapped_column(
        sa.Integer, primary_key=True, autoincrement=False)
    #: changes with every turn
    turns: orm.Mapped[int] = orm.mapped_column(sa.BigInteger)


class TaskRow(Base):
    """The last run of a task of vmip-reclaimer."""

    __tablename__ = 'reclaim_tasks'

    name: orm.Mapped[str] = orm.mapped_column(sa.String(32), primary_key=True)
    #: host and process that ran it
    host: orm.Mapped[str] = orm.mapped_column(sa.String(255))
    started_at: orm.Mapped[datetime.datetime]
    ended_at: orm.Mapped[datetime.datetime]
    checked: orm.Mapped[int] = orm.mapped_column(sa.Integer)
    found: orm.Mapped[int] = orm.mapped_column(sa.Integer)
    done: orm.Mapped[int] = orm.mapped_column(sa.Integer)
    spared: orm.Mapped[int] = orm.mapped_column(sa.Integer)
    #: why it failed
    error: orm.Mapped[str | None] = orm.mapped_column(sa.Text)
    #: start of the last run that did not fail
    looked_at: orm.Mapped[datetime.datetime | None]
