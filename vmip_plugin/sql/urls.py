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

"""SQLAlchemy's URLs, as operators write them."""

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from vmip_plugin.conf import urls
from vmip_plugin import exceptions

#: The one driver of each kind of database that is tested, and whose time-outs
#: are known.
_DRIVERS = {'mysql': 'mysql+pymysql', 'mariadb': 'mysql+pymysql',
            'postgresql': 'postgresql+psycopg2',
            'postgres': 'postgresql+psycopg2', 'sqlite': 'sqlite'}
#: SQLAlchemy's own names of those drivers.
_SAME = {'mysql+pymysql', 'mariadb+pymysql', 'postgresql+psycopg2',
         'postgres+psycopg2', 'sqlite+pysqlite'}


def parse(option: str, text: str) -> sa.URL:
    """Return what a URL means, with the driver that is used.

    ``mysql://``, ``mariadb://``, ``postgres://`` and ``postgresql://`` mean
    the driver of vmip's extras, whatever SQLAlchemy's default is.

    :param option: the option's group and name, for the message.
    :raises ConfigError: it is not a URL of a supported database. The message
        has no part of the password.
    """
    urls.check_database(option, text)
    scheme = text.partition('://')[0]
    kind, named, _ = scheme.partition('+')
    driver = _DRIVERS.get(kind)
    if driver is None:
        raise exceptions.ConfigError(
            f'{option}: {scheme}:// is not supported: use mysql+pymysql://, '
            'postgresql+psycopg2:// or sqlite://')
    if named and scheme not in _SAME:
        raise exceptions.ConfigError(
            f'{option}: {scheme}:// is not supported: write {driver}://')
    try:
        return sa.make_url(text).set(drivername=driver)
    except (sa_exc.ArgumentError, ValueError):
        # their text may contain a part of the password
        raise exceptions.ConfigError(
            f'{option} is not a URL, such as '
            f'{driver}://USER:PASSWORD@HOST/NAME') from None
