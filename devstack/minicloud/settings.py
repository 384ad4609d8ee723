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

"""Where everything is: paths, ports and names, each in one place."""

import os
from pathlib import Path
import secrets
import tempfile

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
VENV = Path(os.environ.get('VMIP_VENV') or CHECKOUT / '.venv')
STATE = Path(os.environ.get('VMIP_STATE') or CHECKOUT / '.minicloud')
LEASE_TIME = os.environ.get('VMIP_LEASE_TIME') or '10m'

# Sockets have short names, and the lock is the same for every checkout.
RUN = Path('/run/vmip-minicloud')
LIBVIRT_SOCKET = RUN / 'libvirt/libvirt-sock'

ETC = STATE / 'etc'
LOG = STATE / 'log'
PID = STATE / 'pid'
DONE = STATE / 'done'
GUEST = STATE / 'guest'
DHCP1 = STATE / 'dhcp1'
TAPS = STATE / 'taps'
MORE = STATE / 'more'
VMIP_CONF = ETC / 'vmip/vmip.conf'

# None is the usual port of its service: a real one may run here as well.
PORTS = {
    'keystone': 15000,
    'glance': 19292,
    'placement': 18778,
    'nova': 18774,
    'neutron': 19696,
    'mariadb': 13306,
    'rabbitmq': 15673,
    'epmd': 14369,
    'rabbitmq_dist': 25674,
}

# The wire of each physical network.
BRIDGES = {'physnet1': 'vmbr1', 'physnet2': 'vmbr2'}
DHCP_NETNS = 'vmdhcp1'
DHCP_CIDR = '192.0.2.2/24'
GATEWAY_CIDR = '192.0.2.1/24'
# Network namespaces that play a guest have names that begin so.
GUEST_NETNS_PREFIX = 'vmg-'

COMPUTES = ('libvirt', 'fake')
SERVICE_USERS = ('placement', 'glance', 'neutron', 'nova')
USERS = ('admin', 'demo', 'demo2', 'vmip', *SERVICE_USERS)


def write_private(path: Path, text: str) -> None:
    """Put text into a file at once; only root can read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent)
    with open(fd, 'w') as new:
        new.write(text)
    os.replace(name, path)


def passwords() -> dict[str, str]:
    """Return the password of each user; they are made up only once."""
    path = STATE / 'passwords'
    known = {}
    if path.exists():
        known = dict(line.split('=', 1)
                     for line in path.read_text().splitlines())
    names = (*USERS, 'mariadb', 'rabbitmq', 'erlang_cookie')
    missing = [name for name in names if name not in known]
    if missing:
        known |= {name: secrets.token_hex(12) for name in missing}
        write_private(path, ''.join(f'{name}={value}\n'
                                    for name, value in known.items()))
    return known


def values() -> dict[str, str]:
    """Return what the placeholders of the templates stand for."""
    words = passwords()
    result = {
        'checkout': CHECKOUT, 'here': HERE, 'venv': VENV, 'state': STATE,
        'run': RUN, 'etc': ETC, 'log': LOG, 'dhcp1': DHCP1, 'taps': TAPS,
        'vmip_conf': VMIP_CONF, 'libvirt_socket': LIBVIRT_SOCKET,
        'keystone_url': f'http://127.0.0.1:{PORTS["keystone"]}/v3',
        'database_url': f'mysql+pymysql://root:{words["mariadb"]}'
                        f'@127.0.0.1:{PORTS["mariadb"]}',
        'transport_url': f'rabbit://openstack:{words["rabbitmq"]}'
                         f'@127.0.0.1:{PORTS["rabbitmq"]}/',
    }
    result |= {f'password_{name}': value for name, value in words.items()}
    result |= {f'port_{name}': value for name, value in PORTS.items()}
    result |= {f'bridge_{name}': value for name, value in BRIDGES.items()}
    return {name: str(value) for name, value in result.items()}
