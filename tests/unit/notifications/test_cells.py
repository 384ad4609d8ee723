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

"""Cells, and clouds, with exchanges and topics of their own."""

import collections
import itertools
import time
from unittest import mock
import uuid

import oslo_messaging

from tests import notifications
from tests.unit.notifications import test_listener
from vmip_plugin.notifications import event

Kind = event.Kind


class TestCells(test_listener.ListenerTestCase):

    def send(self, exchange: str, topic: str, event_type: str) -> None:
        """Send a recorded message as a service of a cell would."""
        message = next(m for m in notifications.messages('boot-delete')
                       if m.body['event_type'] == event_type)
        self.conf.set_override('control_exchange', exchange)
        oslo_messaging.Notifier(
            oslo_messaging.get_notification_transport(self.conf), 'any',
            driver='messaging', topics=[topic]).info(
                message.ctxt, event_type, message.body['payload'])

    def test_all_are_heard(self) -> None:
        exchanges = [uuid.uuid4().hex for _ in range(4)]
        for option, value in (
                ('neutron_exchanges', exchanges[:2]),
                ('nova_exchanges', exchanges[2:]),
                ('topics', ['notifications', 'cell2']),
                ('versioned_topics', ['versioned', 'cell2_versioned'])):
            self.conf.set_override(option, value, 'listener')
        heard: list[Kind] = []
        target = self.new(mock.Mock(handle=lambda events: heard.extend(
            found.kind for found in events)))
        target.start()
        self.addCleanup(target.wait)
        self.addCleanup(target.stop)
        for exchange, topic in itertools.product(
                exchanges, ('notifications', 'cell2', 'nobodys')):
            self.send(exchange, topic,
                      'port.create.end' if exchange in exchanges[:2]
                      else 'compute.instance.delete.end')
        for exchange, topic in itertools.product(
                exchanges, ('versioned', 'cell2_versioned')):
            self.send(exchange, topic, 'instance.create.end')
        deadline = time.monotonic() + 60
        while len(heard) < 12 and time.monotonic() < deadline:
            time.sleep(0.01)
        # Neutron has no versioned notifications, and nobodys is nobody's
        self.assertEqual(
            {Kind.PORT_CREATED: 4, Kind.SERVER_DELETED: 4,
             Kind.SERVER_CREATED: 4},
            dict(collections.Counter(heard)))
