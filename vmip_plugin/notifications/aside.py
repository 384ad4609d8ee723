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

"""Notifications that nobody can handle, kept for a person to look at."""

from collections.abc import Mapping
import datetime
import json
import os
import pathlib

from oslo_log import log

LOG = log.getLogger(__name__)

#: Most characters kept of what a message told.
LENGTH = 100_000


class Aside:
    """A folder with a JSON file for each of them, only for its owner to read.

    :param folder: made when it is needed.
    :param limit: most files in it, whichever process wrote them; past that
        the oldest goes. 0: none is kept.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self._folder = pathlib.Path(folder)
        self._limit = limit

    def keep(self, content: Mapping[str, object], why: str) -> None:
        """Keep a message, if that can be done.

        :param content: what oslo.messaging made of it. Its context, which
            may have a token, is no part of that.
        """
        if not self._limit:
            return
        now = datetime.datetime.now(datetime.UTC)
        told = json.dumps(content, default=repr)
        record = {'put_aside': now.isoformat(), 'why': why,
                  'message': (dict(content) if len(told) <= LENGTH
                              else told[:LENGTH])}
        name = f'{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}.json'
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            kept = sorted(self._folder.glob('*.json'))
            for oldest in kept[:max(0, len(kept) - self._limit + 1)]:
                oldest.unlink(missing_ok=True)
            with open(os.open(self._folder / name,
                              os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600),
                      'w', encoding='utf-8') as file:
                json.dump(record, file, indent=2, default=repr)
        except OSError as exc:
            # It must not keep the ones behind it waiting.
            LOG.warning('The notification is not kept: %s: %s: give this '
                        'process the right to write there, or set [listener] '
                        'poison_dir', self._folder, exc.strerror)
