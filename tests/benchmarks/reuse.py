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

"""From the delete of a server to the next one's lease of its address."""

import argparse
import statistics
import time

from minicloud import netns_guest

from tests.benchmarks import base
from tests.cloud import harness
from tests.cloud import story


def add_sizes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--rounds', type=int, default=5,
                        help='reuse: deletes with and without notifications '
                             '(default: %(default)s each)')


def run(args: argparse.Namespace) -> None:
    """Fake compute; namespaces with a real DHCP client play the guests."""
    report = base.Report('reuse')
    harness.minicloud.up('fake')
    told = story.Story(harness.Cloud(), lambda line: None)
    told.prepare()
    for title, stopped in (('with notification', ()),
                           ('without', ('vmip-listener',))):
        taken = []
        lease_time = 0
        for number in range(1, args.rounds + 1):
            seconds, lease_time = _round(told, stopped)
            taken.append(seconds)
            base.say(f'reuse: {title}, {number} of {args.rounds}: '
                     f'{seconds:.1f} s')
        for figure, value in (('median', statistics.median(taken)),
                              ('max', max(taken))):
            report.add(f'delete to reuse, {title}, {figure}', value, 's',
                       'waiting for the lease to end', lease_time)
    report.end()


def _round(told: story.Story, stopped: tuple[str, ...]
           ) -> tuple[float, int]:
    """Return the seconds, and those of the lease that stood in the way."""
    cloud = told.cloud
    told.create('reuse-1')
    server = told.active('reuse-1')
    port = cloud.port(server.id)
    address = port.fixed_ips[0]['ip_address']
    with netns_guest.NetnsGuest(port.mac_address) as guest:
        lease = guest.wait_lease(60)
        assert lease.address == address
    harness.minicloud.stop(*stopped)
    deleted = time.time()
    cloud.sdk().compute.delete_server(server.id)
    told.given_back(address, port.mac_address, deleted, 120)
    harness.minicloud.start(*stopped)
    told.create('reuse-2')
    server = told.active('reuse-2')
    port = cloud.port(server.id)
    assert port.fixed_ips[0]['ip_address'] == address
    with netns_guest.NetnsGuest(port.mac_address) as guest:
        again = guest.wait_lease(60)
        assert again.address == address
        seconds = again.at - deleted
    cloud.forget_servers()
    return seconds, int(lease.lease)
