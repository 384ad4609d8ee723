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

"""What captured, changed and hostile notifications become."""

import collections
import datetime
import ipaddress
from typing import Any

import hypothesis
from hypothesis import strategies
import testtools

import tests
from tests import notifications
from vmip_plugin import exceptions
from vmip_plugin.notifications import event
from vmip_plugin.notifications import listener
from vmip_plugin.notifications import neutron
from vmip_plugin.notifications import nova
from vmip_plugin.notifications import nova_versioned


def read(message: notifications.Message) -> event.Event | None:
    body = message.body
    normalise = listener.NORMALISERS.get(body['event_type'])
    return normalise and normalise(
        message.ctxt, body['publisher_id'], body['event_type'],
        body['payload'], body)


def events(scenario: str) -> list[event.Event]:
    return [found for message in notifications.messages(scenario)
            if (found := read(message))]


def line(found: event.Event) -> str:
    return ' '.join([
        found.source, found.kind.value, (found.server_id or '-')[:8],
        *(f'{port.mac}={address}' for port in found.ports
          for _, address in port.addresses)])


def message(scenario: str, event_type: str) -> notifications.Message:
    return next(message for message in notifications.messages(scenario)
                if message.body['event_type'] == event_type)


def neutron_event(event_type: str, payload: object) -> event.Event | None:
    return neutron.normalise({}, 'network.any', event_type, payload, {})


PORT = message('boot-delete', 'port.create.end').body['payload']['port']


class CapturedTestCase(testtools.TestCase):
    """One scenario each."""

    def _check(self, scenario: str) -> None:
        self.assertEqual(notifications.expected(scenario),
                         [line(found) for found in events(scenario)])

    def test_all_scenarios_are_checked(self):
        self.assertEqual(
            [name.replace('-', '_') for name in notifications.SCENARIOS],
            sorted(name.removeprefix('test_scenario_') for name in dir(self)
                   if name.startswith('test_scenario_')))

    def test_scenario_boot_delete(self):
        self._check('boot-delete')

    def test_scenario_delete_while_building(self):
        self._check('delete-while-building')

    def test_scenario_early_deletes(self):
        self._check('early-deletes')

    def test_scenario_interface(self):
        self._check('interface')

    def test_scenario_multi_create(self):
        self._check('multi-create')

    def test_scenario_no_valid_host(self):
        self._check('no-valid-host')

    def test_scenario_own_request_id(self):
        self._check('own-request-id')

    def test_scenario_port_given(self):
        self._check('port-given')

    def test_scenario_reboot_shelve(self):
        self._check('reboot-shelve')

    def test_scenario_spawn_error(self):
        self._check('spawn-error')

    def test_both_formats_of_nova_tell_the_same(self):
        for scenario in notifications.SCENARIOS:
            facts = collections.defaultdict(list)
            for found in events(scenario):
                if found.kind is event.Kind.INTERFACE_ATTACHED:
                    continue    # which only one of them tells
                facts[found.source].append(
                    (found.kind, found.server_id, found.server_name,
                     found.project_id, found.request_id,
                     [(port.mac, port.addresses, port.device_id, port.host)
                      for port in found.ports]))
            self.assertCountEqual(facts['nova'], facts['nova-versioned'])

    def test_one_request_from_the_post_to_the_port(self):
        for scenario in ('boot-delete', 'own-request-id', 'multi-create'):
            asked = {found.request_id for found in events(scenario)
                     if found.kind in (event.Kind.PORT_CREATED,
                                       event.Kind.PORT_UPDATED,
                                       event.Kind.SERVER_CREATED)}
            self.assertEqual(1, len(asked), scenario)
            self.assertNotIn(None, asked)

    def test_a_port_of_a_user_has_no_global_request(self):
        found = events('port-given')[0]
        self.assertIsNone(found.request_id)
        self.assertIsNone(found.server_id)
        self.assertEqual('', found.ports[0].device_id)

    def test_port_in_full(self):
        found = events('boot-delete')[1]
        self.assertEqual(event.Event(
            kind=event.Kind.PORT_UPDATED,
            message_id='0a5e0793-84e8-4c94-8100-d6e9d4417227',
            emitted=datetime.datetime(2026, 11, 22, 1, 11, 19, 448396,
                                      tzinfo=datetime.UTC),
            source='neutron',
            request_id='req-892a53c8-371f-48bd-8e38-020ad1a4a539',
            project_id='bd755348817d41c2b1dc4de2d2c32463',
            server_id='ffff37ef-e230-475a-b009-bbe63c1e673a',
            ports=(event.PortInfo(
                port_id='712e317c-4a44-4fb9-b53b-23eee9ba77a4',
                network_id='2661a0e9-c63f-4a22-b364-f73eb80d6b52',
                mac='fa:16:3e:07:5b:f7',
                addresses=(('075effb1-6d28-4f70-b43a-8bbe8a850288',
                            ipaddress.ip_address('192.0.2.151')),),
                device_id='ffff37ef-e230-475a-b009-bbe63c1e673a',
                device_owner='compute:nova', status='ACTIVE', host='testbed',
                project_id='bd755348817d41c2b1dc4de2d2c32463',
                revision=4),)), found)

    def test_server_in_full(self):
        found = events('boot-delete')[3]
        self.assertEqual(event.Event(
            kind=event.Kind.SERVER_CREATED,
            message_id='728cc138-cb67-4751-bc11-5d5a105d3956',
            emitted=datetime.datetime(2026, 11, 22, 1, 11, 20, 162843,
                                      tzinfo=datetime.UTC),
            source='nova-versioned',
            request_id='req-892a53c8-371f-48bd-8e38-020ad1a4a539',
            project_id='bd755348817d41c2b1dc4de2d2c32463',
            server_id='ffff37ef-e230-475a-b009-bbe63c1e673a',
            server_name='rec-boot',
            ports=(event.PortInfo(
                port_id='712e317c-4a44-4fb9-b53b-23eee9ba77a4',
                mac='fa:16:3e:07:5b:f7',
                addresses=((None, ipaddress.ip_address('192.0.2.151')),),
                device_id='ffff37ef-e230-475a-b009-bbe63c1e673a',
                host='testbed'),)), found)


class NeutronTestCase(testtools.TestCase):
    """Forms that were not recorded."""

    def test_bulk_create(self):
        other = {**PORT, 'id': '00000000-0000-0000-0000-000000000001',
                 'device_id': '', 'project_id': 'other'}
        found = neutron_event('port.create.end', {'ports': [PORT, other]})
        self.assertEqual([PORT['id'], other['id']],
                         [port.port_id for port in found.ports])
        self.assertEqual([PORT['device_id'], None],
                         [port.server_id for port in found.ports])
        self.assertIsNone(found.server_id)
        self.assertIsNone(found.project_id)

    def test_bulk_create_for_one_server(self):
        found = neutron_event('port.create.end', {'ports': [PORT, PORT]})
        self.assertEqual(PORT['device_id'], found.server_id)
        self.assertEqual(PORT['project_id'], found.project_id)

    def test_delete_without_the_port(self):
        for payload in ({'port_id': PORT['id']},
                        {'port_id': PORT['id'], 'port': {}}):
            found = neutron_event('port.delete.end', payload)
            self.assertEqual((event.PortInfo(port_id=PORT['id']),),
                             found.ports)
            self.assertIsNone(found.server_id)

    def test_delete_of_two_ports_at_once(self):
        self.assertRaises(
            event.Malformed, neutron_event, 'port.delete.end',
            {'port_id': '00000000-0000-0000-0000-000000000001', 'port': PORT})

    def test_empty_create(self):
        self.assertRaises(event.Malformed, neutron_event, 'port.create.end',
                          {})

    def test_ports_of_the_network_have_no_server(self):
        for owner in ('network:dhcp', 'network:router_interface'):
            found = neutron_event('port.create.end', {
                'port': {**PORT, 'device_owner': owner}})
            self.assertIsNone(found.server_id)

    def test_device_id_may_be_any_text(self):
        found = neutron_event('port.create.end', {
            'port': {**PORT, 'device_id': 'my printer'}})
        self.assertIsNone(found.server_id)
        self.assertEqual('my printer', found.ports[0].device_id)

    def test_dual_stack_and_no_address(self):
        fixed_ips = [*PORT['fixed_ips'],
                     {**PORT['fixed_ips'][0], 'ip_address': '2001:DB8::1'}]
        found = neutron_event('port.create.end', {
            'port': {**PORT, 'fixed_ips': fixed_ips}})
        self.assertEqual(
            ['192.0.2.151', '2001:db8::1'],
            [str(address) for _, address in found.ports[0].addresses])
        found = neutron_event('port.create.end', {
            'port': {**PORT, 'fixed_ips': []}})
        self.assertEqual((), found.ports[0].addresses)

    def test_hostile_values(self):
        ip = PORT['fixed_ips'][0]
        for change in (
                {'mac_address': 'fa:16:3e:07:5b:f7,192.0.2.1'},
                {'mac_address': 'fa:16:3e:07:5b:f7\n'},
                {'mac_address': None},
                {'id': '../../etc/passwd'},
                {'device_id': 'a\nb'},
                {'device_id': '\x00'},
                {'device_id': '\ud800'},
                {'device_id': 'x' * 256},
                {'revision_number': 2 ** 63},
                {'revision_number': True},
                {'fixed_ips': {}},
                {'fixed_ips': [None]},
                {'fixed_ips': [{**ip, 'ip_address': 5}]},
                {'fixed_ips': [{**ip, 'ip_address': '192.0.2.0/24'}]},
                {'fixed_ips': [{**ip, 'ip_address': 'fe80::1%x,ignore'}]},
                {'fixed_ips': [{**ip, 'subnet_id': 'any'}]}):
            self.assertRaises(
                event.Malformed, neutron_event, 'port.create.end',
                {'port': {**PORT, **change}})

    def test_other_event_types(self):
        self.assertIsNone(neutron_event('port.create.start', None))
        self.assertIsNone(neutron_event('subnet.create.end', None))


class NovaTestCase(testtools.TestCase):
    """Both of Nova's formats."""

    def _versioned(self, change: dict[str, Any]) -> event.Event | None:
        payload = message('boot-delete', 'instance.create.end').body['payload']
        return nova_versioned.normalise(
            {}, 'any', 'instance.create.end', {**payload, **change}, {})

    def _unversioned(self, change: dict[str, Any]) -> event.Event | None:
        payload = message('boot-delete',
                          'compute.instance.create.end').body['payload']
        return nova.normalise({}, 'any', 'compute.instance.create.end',
                              {**payload, **change}, {})

    def test_later_minor_version(self):
        self.assertIsNotNone(self._versioned({'nova_object.version': '1.99'}))

    def test_other_major_version(self):
        error = self.assertRaises(event.Malformed, self._versioned,
                                  {'nova_object.version': '2.0'})
        self.assertEqual('payload has version 2.0, only 1.x is known',
                         str(error))
        for version in ('10.0', '', None, 1.0, []):
            self.assertRaises(event.Malformed, self._versioned,
                              {'nova_object.version': version})

    def test_failure_without_request_spec(self):
        payload = message('no-valid-host',
                          'compute_task.build_instances.error').body['payload']
        data = {**payload['nova_object.data'], 'request_spec': None}
        found = nova_versioned.normalise(
            {}, 'any', 'compute_task.build_instances.error',
            {**payload, 'nova_object.data': data}, {})
        self.assertEqual(data['instance_uuid'], found.server_id)
        self.assertIsNone(found.project_id)

    def test_addresses_of_one_port_stay_together(self):
        ip = {'vif_mac': 'FA:16:3E:00:00:01', 'address': '192.0.2.1'}
        found = self._unversioned({'fixed_ips': [
            ip, {'vif_mac': 'fa:16:3e:00:00:02', 'address': '192.0.2.2'},
            {**ip, 'address': '2001:db8::1'}]})
        self.assertEqual(
            [('fa:16:3e:00:00:01', 2), ('fa:16:3e:00:00:02', 1)],
            [(port.mac, len(port.addresses)) for port in found.ports])

    def test_name_is_a_tenants_text(self):
        for name, kept in (('a\r\nb\x00\ud800', 'a\ufffd\ufffdb\ufffd\ufffd'),
                           ('\N{SNOWMAN}' * 300, '\N{SNOWMAN}' * 255),
                           ('', ''), (None, None)):
            self.assertEqual(
                kept, self._unversioned({'display_name': name}).server_name)
        self.assertRaises(event.Malformed, self._unversioned,
                          {'display_name': {}})

    def test_message_without_context_and_id(self):
        found = self._unversioned({})
        self.assertIsNone(found.request_id)
        self.assertIsNone(found.emitted)
        self.assertEqual('', found.message_id)

    def test_envelope_that_cannot_be_read(self):
        payload = message('boot-delete',
                          'compute.instance.delete.end').body['payload']
        for ctxt, metadata in (
                ({'request_id': 'req-1\n'}, {'timestamp': 'yesterday'}),
                ({'request_id': []}, {'timestamp': 5, 'message_id': {}}),
                ({'global_request_id': 5},
                 {'timestamp': '0001-01-01T00:00:00+23:00'})):
            found = nova.normalise(ctxt, 'any', 'compute.instance.delete.end',
                                   payload, metadata)
            self.assertIsNone(found.request_id)
            self.assertIsNone(found.emitted)
            self.assertEqual('', found.message_id)

    def test_timestamp_with_a_zone(self):
        payload = message('boot-delete',
                          'compute.instance.delete.end').body['payload']
        found = nova.normalise(
            {}, 'any', 'compute.instance.delete.end', payload,
            {'timestamp': '2026-11-22 02:00:00+01:00'})
        self.assertEqual(
            datetime.datetime(2026, 11, 22, 1, tzinfo=datetime.UTC),
            found.emitted)

    def test_other_event_types(self):
        self.assertIsNone(nova.normalise(
            {}, 'any', 'compute.instance.update', None, {}))
        self.assertIsNone(nova_versioned.normalise(
            {}, 'any', 'instance.update', None, {}))

    def test_publishers_do_not_matter(self):
        publishers = {
            message.body['publisher_id'].partition(':')[0]
            for message in notifications.messages('early-deletes')
            if message.body['event_type'] == 'instance.delete.end'}
        self.assertEqual({'nova-api', 'nova-compute', 'nova-conductor'},
                         publishers)


JSON = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers()
    | strategies.floats() | strategies.text()
    | strategies.integers(250, 100000).map('x'.__mul__)
    | strategies.just('\ud800'),
    lambda inner: (strategies.lists(inner, max_size=3)
                   | strategies.dictionaries(strategies.text(), inner,
                                             max_size=3)),
    max_leaves=8)

#: one captured message of each type that concerns us
SAMPLES = list({
    message.body['event_type']: message
    for scenario in notifications.SCENARIOS
    for message in notifications.messages(scenario)
    if message.body['event_type'] in listener.NORMALISERS}.values())


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every key and index inside a payload."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return []
    return [place for key, inner in items
            for place in ((*path, key), *places(inner, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], new: object,
            drop: bool) -> Any:
    """Return a copy of a payload with one place replaced or taken out."""
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) > 1:
        copy[path[0]] = changed(value[path[0]], path[1:], new, drop)
    elif drop:
        del copy[path[0]]
    else:
        copy[path[0]] = new
    return copy


class HostileTestCase(testtools.TestCase):
    """Whatever is in a message, it is read or refused."""

    def _read(self, message: notifications.Message, payload: object,
              ctxt: Any = None, metadata: Any = None) -> None:
        body = message.body
        try:
            found = listener.NORMALISERS[body['event_type']](
                message.ctxt if ctxt is None else ctxt, body['publisher_id'],
                body['event_type'], payload,
                body if metadata is None else metadata)
        except event.Malformed as exc:
            self.assertIsInstance(exc, exceptions.VmipError)
            self.assertLess(len(str(exc)), 5000)
            return
        self.assertIsInstance(found, event.Event)
        # a database and a log can take it
        for text in (found.message_id, found.project_id, found.server_name,
                     *(port.device_id for port in found.ports),
                     *(port.host for port in found.ports)):
            if text is not None:
                self.assertTrue(text.isprintable())
                self.assertLessEqual(len(text), 255)
                text.encode()

    def test_samples_are_complete(self):
        self.assertEqual(len(listener.NORMALISERS), len(SAMPLES))

    @hypothesis.settings(max_examples=tests.examples(500))
    @hypothesis.given(strategies.sampled_from(SAMPLES), JSON,
                      strategies.booleans(), strategies.data())
    def test_one_place_changed(self, message, new, drop, data):
        payload = message.body['payload']
        path = data.draw(strategies.sampled_from(places(payload)))
        self._read(message, changed(payload, path, new, drop))

    @hypothesis.settings(max_examples=tests.examples(200))
    @hypothesis.given(strategies.sampled_from(SAMPLES), JSON)
    def test_any_payload(self, message, payload):
        self._read(message, payload)

    @hypothesis.settings(max_examples=tests.examples(500))
    @hypothesis.given(
        strategies.sampled_from(SAMPLES),
        strategies.dictionaries(strategies.sampled_from(
            ['request_id', 'global_request_id']), JSON),
        strategies.dictionaries(strategies.sampled_from(
            ['message_id', 'timestamp']), JSON))
    def test_any_envelope(self, message, ctxt, metadata):
        self._read(message, message.body['payload'], ctxt, metadata)

    def test_every_key_is_dropped_once(self):
        for message in SAMPLES:
            payload = message.body['payload']
            for path in places(payload):
                self._read(message, changed(payload, path, None, True))
                self._read(message, changed(payload, path, None, False))
