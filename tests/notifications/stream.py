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

"""The recorded stream as often as it is wanted, each time another cloud's."""

import dataclasses
import functools
import hashlib
import json
import re
import uuid

from tests import notifications

_UUID = re.compile(r'[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}')
_MAC = re.compile(r'fa:16:3e(?::[0-9a-f]{2}){3}')
_ADDRESS = re.compile(r'192\.0\.2\.([0-9]+)')


@dataclasses.dataclass(frozen=True)
class Port:
    """A port that the stream tells of; server_id '': made before it."""

    id: str
    mac: str
    address: str
    server_id: str
    project_id: str


@functools.cache
def _texts(scenario: str) -> tuple[tuple[notifications.Message, str], ...]:
    return tuple((message, json.dumps(message.body))
                 for message in notifications.messages(scenario))


def messages(copy: int, *scenarios: str) -> list[notifications.Message]:
    """Return a copy of scenarios, by default all, with ids of its own.

    :param copy: less than 5000; 0: what was recorded.
    """
    found = []
    for number, scenario in enumerate(scenarios or notifications.SCENARIOS):
        # what one scenario gave back another one got
        network = copy * 10 + number
        for message, text in _texts(scenario):
            body = message.body
            if copy:
                text = _UUID.sub(lambda m: _uuid(copy, m[0]), text)
                text = _MAC.sub(lambda m: _mac(copy, m[0]), text)
                text = _ADDRESS.sub(
                    lambda m, network=network: _address(network, m[1]), text)
                body = json.loads(text)
                # oslo.messaging drops what it has seen
                body['_unique_id'] = uuid.uuid5(
                    uuid.UUID(int=copy), body['_unique_id']).hex
            found.append(dataclasses.replace(message, body=body))
    return found


def ports(stream: list[notifications.Message]) -> list[Port]:
    """Return the ports that were made in a stream, as they were made."""
    return [
        Port(port['id'], port['mac_address'],
             port['fixed_ips'][0]['ip_address'], port['device_id'],
             port['project_id'])
        for message in stream
        if message.body['event_type'] == 'port.create.end'
        for port in [message.body['payload']['port']]]


@functools.lru_cache(10000)
def _uuid(copy: int, old: str) -> str:
    return str(uuid.uuid5(uuid.UUID(int=copy), old))


def _mac(copy: int, old: str) -> str:
    # in one copy no two are the same, nor with another copy's
    number = hashlib.sha256(f'{copy} {old}'.encode()).hexdigest()
    return 'fa:16:' + ':'.join(number[i:i + 2] for i in (0, 2, 4, 6))


def _address(network: int, last: str) -> str:
    return f'10.{network >> 8}.{network & 255}.{last}'
