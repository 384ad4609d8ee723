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

"""The truth table of the documentation, against the real SDK over HTTP.

Every row is a guest that was first found gone long ago, so that nothing but
what the row says spares it now.
"""

from collections.abc import Callable
import functools
import pathlib
import re

import testtools

from tests.unit.agent import openstack
from tests.unit.agent import test_guests
from vmip_plugin.agent import decide
from vmip_plugin.agent import guests

DOCUMENT = pathlib.Path(__file__).parents[3] / 'doc/source/agent.rst'
MAC, PORT, SERVER = test_guests.MAC, 'port', 'server'
SPARE, SUSPECT, RELEASE = decide.Verdict
NOW = 10000.0

_ROWS: dict[str, tuple[decide.Verdict, Callable[['Case'], None]]] = {}


class Case:
    """One guest, silent and unknown to the cloud unless a row says else."""

    def __init__(self, api: openstack.OpenStack) -> None:
        self.api = api
        self.cloud = api.cloud()
        self.lease = test_guests.lease(gone_since=1.0)
        self.probe = decide.Probe.SILENT
        self.shutoff = False
        # a token that is good, until a row takes it
        self.cloud.sees_all_projects()

    def there(self, status: str) -> None:
        self.api.add(PORT, MAC, SERVER)
        self.api.servers[SERVER] = status

    def verdict(self) -> decide.Verdict:
        found = guests.Guests(self.cloud, self.shutoff)
        word = found.words([self.lease])[self.lease.key]
        return decide.decide(
            self.probe, word, self.lease.gone_since, NOW, 10.0,
            self.shutoff, self.lease.remote).verdict


Row = Callable[[Case], None]


def row(verdict: decide.Verdict) -> Callable[[Row], Row]:
    """Note a row of the table."""
    def note(function: Row) -> Row:
        _ROWS[function.__name__] = verdict, function
        return function
    return note


def _status(name: str, *statuses: str) -> None:
    for number, status in enumerate(statuses):
        _ROWS[f'{name} {number}' if number else name] = (
            SPARE, functools.partial(Case.there, status=status))


_status('paused', 'PAUSED')
_status('suspended', 'SUSPENDED')
_status('shelved', 'SHELVED', 'SHELVED_OFFLOADED')
_status('rebooting', 'REBOOT', 'HARD_REBOOT', 'REBUILD', 'RESCUE')
_status('booting', 'BUILD')
_status('resizing', 'RESIZE', 'VERIFY_RESIZE', 'REVERT_RESIZE')
_status('migrating', 'MIGRATING')
_status('in_error', 'ERROR', 'UNKNOWN')
_status('soft_deleted', 'SOFT_DELETED')
_status('arp_filtered', 'ACTIVE')
_status('shut_off', 'SHUTOFF')


@row(RELEASE)
def deleted(case: Case) -> None:
    pass


@row(SUSPECT)
def deleted_first_time(case: Case) -> None:
    case.lease = test_guests.lease(gone_since=None)


@row(SPARE)
def deleted_just_now(case: Case) -> None:
    case.lease = test_guests.lease(gone_since=NOW - 5)


@row(SPARE)
def deleted_but_answers(case: Case) -> None:
    case.probe = decide.Probe.ANSWERED


@row(SPARE)
def not_probed(case: Case) -> None:
    case.probe = decide.Probe.UNSENT


@row(SPARE)
def beyond_a_relay(case: Case) -> None:
    case.lease = test_guests.lease(remote=True, gone_since=1.0)


@row(RELEASE)
def shut_off_reclaimed(case: Case) -> None:
    case.there('SHUTOFF')
    case.shutoff = True


@row(SPARE)
def paused_with_reclaim_shutoff(case: Case) -> None:
    case.there('PAUSED')
    case.shutoff = True


@row(SPARE)
def port_without_server(case: Case) -> None:
    case.api.add(PORT, MAC, '', owner='')


@row(SPARE)
def port_got_another_mac(case: Case) -> None:
    case.api.add(PORT, 'fa:16:3e:00:00:77', '', owner='')


@row(SPARE)
def server_without_port(case: Case) -> None:
    case.api.servers[SERVER] = 'ACTIVE'


@row(RELEASE)
def address_moved(case: Case) -> None:
    case.api.add('other', 'fa:16:3e:00:00:77', 'other')
    case.api.servers['other'] = 'ACTIVE'


@row(SPARE)
def port_moved(case: Case) -> None:
    case.api.add(PORT, MAC, 'other')
    case.api.servers['other'] = 'ACTIVE'


@row(SPARE)
def printer(case: Case) -> None:
    case.lease = test_guests.lease(port_id=None, server_id=None,
                                   gone_since=1.0)


@row(SPARE)
def router(case: Case) -> None:
    case.api.add('gateway', MAC, 'router', 'network:router_gateway')
    found = guests.Guests(case.cloud).identify([case.lease])
    assert found == {case.lease.key: None}
    printer(case)


@row(SPARE)
def neutron_down(case: Case) -> None:
    case.api.broken['network'] = 503, b''


@row(SPARE)
def nova_down(case: Case) -> None:
    case.api.broken['compute'] = 503, b''


@row(SPARE)
def keystone_down(case: Case) -> None:
    case.api.revoke()
    case.api.broken['identity'] = 503, b''


@row(SPARE)
def proxy_says_404(case: Case) -> None:
    case.api.broken['network'] = 404, b'<html>not found</html>'


@row(RELEASE)
def token_expired(case: Case) -> None:
    case.api.revoke()


@row(SPARE)
def token_refused(case: Case) -> None:
    case.api.revoke()
    case.api.broken['identity'] = 401, {'error': {'code': 401}}


@row(SPARE)
def empty_list(case: Case) -> None:
    case.api.networks.clear()


@row(SPARE)
def another_cloud(case: Case) -> None:
    case.api.networks = {'another'}
    case.api.add('theirs', 'fa:16:3e:00:00:77', 'theirs')


@row(SPARE)
def empty_list_of_neutron_only(case: Case) -> None:
    case.api.networks.clear()
    case.api.servers[SERVER] = 'ACTIVE'


@row(SPARE)
def not_admin(case: Case) -> None:
    case.api.roles = ['member']
    case.cloud = case.api.cloud()


class TruthTest(testtools.TestCase):
    def test_rows(self) -> None:
        for name, (expected, arrange) in _ROWS.items():
            with openstack.OpenStack() as api:
                case = Case(api)
                arrange(case)
                self.assertEqual(expected, case.verdict(), name)

    def test_every_row_can_be_released(self) -> None:
        # What spares is what the row says: the same guest goes without it.
        with openstack.OpenStack() as api:
            self.assertEqual(RELEASE, Case(api).verdict())

    def test_documentation_has_them(self) -> None:
        text = DOCUMENT.read_text()
        table = text[text.index('.. truth table'):]
        told = {match[1]: match[2] for match in re.finditer(
            r'\* - ``(\w+)``\n     - .*\n(?:       .*\n)*     - (\w+)\n',
            table)}
        here = {name: verdict.value for name, (verdict, _) in _ROWS.items()
                if ' ' not in name}
        self.assertEqual(here, told)
