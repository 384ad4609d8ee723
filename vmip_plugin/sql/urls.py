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


def parse(option: str, text: str) -> sa.URL:
    """Return what a URL means, with the driver that is used.

    ``mysql://``, ``mariadb://``, ``postgres://`` and ``postgresql://`` mean
    the driver of vmip's extras, whatever SQLAlchemy's default is.

    :param option: the option's group and name, for the message.
    :raises ConfigError: it is not a URL of a supported database. The message
        has no part of the password.
    """
    driver = urls.check_database(option, text)
    try:
        return sa.make_url(text).set(drivername=driver)
    except (sa_exc.ArgumentError, ValueError):
        # their text may contain a part of the password
        raise exceptions.ConfigError(
            f'{option} is not a URL, such as '
            f'{driver}://USER:PASSWORD@HOST/NAME') from None
