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

"""Notifications of a real Nova and Neutron, one directory a scenario.

Each file is one message as it was on the bus, in the order of its name.
``expected.txt`` has a line for each message that concerns us: wire format,
kind, server (its first eight digits), and MAC=address of its ports.

Recorded from Nova 34.0.0 and Neutron 29.0.0 with ``notification_format =
both``.
"""

import dataclasses
import json
import pathlib
from typing import Any

HERE = pathlib.Path(__file__).parent
SCENARIOS = sorted(path.name for path in HERE.iterdir()
                   if (path / 'expected.txt').exists())


@dataclasses.dataclass(frozen=True)
class Message:
    """A message as oslo.messaging's Notifier put it on the bus."""

    exchange: str
    routing_key: str
    envelope_version: str
    body: dict[str, Any]

    @property
    def ctxt(self) -> dict[str, Any]:
        return {key.removeprefix('_context_'): value
                for key, value in self.body.items()
                if key.startswith('_context_')}

    @property
    def envelope(self) -> dict[str, str]:
        return {'oslo.version': self.envelope_version,
                'oslo.message': json.dumps(self.body)}


def messages(scenario: str) -> list[Message]:
    """Return the messages of a scenario in the order of their arrival."""
    found = []
    for path in sorted((HERE / scenario).glob('*.json')):
        with path.open(encoding='utf-8') as stream:
            record = json.load(stream)
        found.append(Message(record['exchange'], record['routing_key'],
                             record['envelope_version'], record['message']))
    return found


def expected(scenario: str) -> list[str]:
    """Return what the messages of a scenario tell."""
    path = HERE / scenario / 'expected.txt'
    return path.read_text(encoding='utf-8').splitlines()
