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

"""URLs that contain a password, checked before any library reads them.

A library that takes a part of a password for a host or a port writes that
part into its errors. So a URL that can be read in two ways is refused here,
and no message has any part of it.
"""

import re

from vmip_plugin import exceptions

_REMEDY = ('special characters in its user and password have to be '
           'percent-encoded: %40 for @, %3A for :, %2F for /, %2C for a comma')

#: The one driver of each kind of database that is tested, and whose time-outs
#: are known.
_DRIVERS = {'mysql': 'mysql+pymysql', 'mariadb': 'mysql+pymysql',
            'postgresql': 'postgresql+psycopg2',
            'postgres': 'postgresql+psycopg2', 'sqlite': 'sqlite'}
#: Other names of those drivers.
_SAME = {'mysql+pymysql', 'mariadb+pymysql', 'postgresql+psycopg2',
         'postgres+psycopg2', 'sqlite+pysqlite'}


def check_database(option: str, text: str) -> str:
    """Check an SQLAlchemy URL.

    :param option: the option's group and name, for the message.
    :returns: the name of the driver that it means, as SQLAlchemy has it:
        that of vmip's extras, whatever SQLAlchemy's default is.
    :raises ConfigError: it is not a URL of a supported database, or can be
        read in two ways.
    """
    scheme, rest = _split(option, text)
    kind, named, _ = scheme.partition('+')
    driver = _DRIVERS.get(kind)
    if driver is None:
        raise exceptions.ConfigError(
            f'{option}: {scheme}:// is not supported: use mysql+pymysql://, '
            'postgresql+psycopg2:// or sqlite://')
    if named and scheme not in _SAME:
        raise exceptions.ConfigError(
            f'{option}: {scheme}:// is not supported: write {driver}://')
    if kind == 'sqlite':
        return driver
    if rest.count('@') > 1:
        raise _ambiguous(option)
    _check_port(option, re.split('[/?]', rest.rpartition('@')[2])[0])
    return driver


def check_coordination(option: str, text: str) -> None:
    """Check a URL of tooz, which :mod:`urllib.parse` reads.

    :param option: the option's group and name, for the message.
    :raises ConfigError: it is not a URL, or can be read in two ways.
    """
    _, rest = _split(option, text)
    authority = _authority(option, rest)
    if authority.count('@') > 1:
        raise _ambiguous(option)
    _check_port(option, authority.rpartition('@')[2])


def check_transport(option: str, text: str) -> None:
    """Check a URL of oslo.messaging, which may name several hosts.

    :param option: the option's group and name, for the message.
    :raises ConfigError: it is not a URL, or can be read in two ways.
    """
    _, rest = _split(option, text)
    hosts = _authority(option, rest).split(',')
    for host in hosts:
        credentials, at, address = host.rpartition('@')
        # A comma in a password looks like another host: one whose
        # credentials are incomplete, or which follows one without any.
        if '@' in credentials or (
                at and (':' not in credentials or '@' not in hosts[0])):
            raise _ambiguous(option)
        _check_port(option, address)


def _split(option: str, text: str) -> tuple[str, str]:
    scheme, separator, rest = text.partition('://')
    if not separator or not re.fullmatch(r'[\w.+-]+', scheme):
        raise exceptions.ConfigError(
            f'{option} is not a URL, such as SCHEME://USER:PASSWORD@HOST/NAME')
    return scheme, rest


def _authority(option: str, rest: str) -> str:
    authority = re.split('[/?#]', rest)[0]
    if '@' in rest[len(authority):] or re.search(
            r'[][]', authority.rpartition('@')[0]):
        raise _ambiguous(option)
    return authority


def _check_port(option: str, address: str) -> None:
    if not re.fullmatch(r'(\[[^]@]*\]|[^]:@[]*)(:[0-9]*)?', address):
        raise _ambiguous(option)


def _ambiguous(option: str) -> exceptions.ConfigError:
    return exceptions.ConfigError(
        f'{option} can be read in more than one way: {_REMEDY}')
