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

"""Who answers for an address, on a real network."""

import ipaddress

import testtools

from tests import lab
from vmip_plugin.agent import probe

_MAC = 'fa:16:3e:00:00:07'


class HearTest(testtools.TestCase):
    def test_answers_and_silence(self) -> None:
        with lab.Bridge() as bridge, lab.Namespace() as guest:
            bridge.attach(guest, _MAC)
            for address in ('10.66.1.7/16', '2001:db8::7/64'):
                guest.run('ip', 'addr', 'add', address, 'dev', 'eth0')
            places = {ipaddress.ip_address(one): [('br0', None)] for one in (
                '10.66.1.7', '10.66.1.8', '2001:db8::7', '2001:db8::8')}
            prober = probe.Prober(['br0'], 3, 0.5)
            heard = bridge.inside(lambda: prober.hear(places))
            self.assertEqual([{_MAC}, set(), {_MAC}, set()],
                             list(heard.values()))
            guest.run('ip', 'link', 'set', 'eth0', 'down')
            self.assertEqual([set()] * 4, list(bridge.inside(
                lambda: prober.hear(places)).values()))
