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

"""The services: what runs, how it is started and when it is up."""

from collections.abc import Callable
import dataclasses
import functools
import hashlib
import http.client
import os
from pathlib import Path
import socket
import subprocess
import time

from minicloud import settings

LOCALHOST = '127.0.0.1'
BIN = settings.VENV / 'bin'
ETC = settings.ETC
# Guests' pid files, as libvirt writes them.
LIBVIRT_RUN = settings.RUN / 'libvirt-state'


@dataclasses.dataclass(frozen=True)
class Mode:
    """What of the cloud is to run."""

    compute: str = 'libvirt'
    vmip: bool = True
    # The plugin's strict mode: no port before its host entry.
    strict: bool = False

    @property
    def host(self) -> str:
        return f'mini-{self.compute}'


# Gets the time of the start, in seconds since 1970.
Check = Callable[[float], bool]


@dataclasses.dataclass(frozen=True)
class Spec:
    """One service."""

    name: str
    command: tuple[str | Path, ...]
    # Other services, and the jobs of cloud.py, that have to be done before.
    after: tuple[str, ...] = ()
    ready: Check | None = None
    env: dict[str, str] = dataclasses.field(default_factory=dict)
    # Files it reads at its start: if one changes, it is started again.
    files: tuple[Path, ...] = ()
    port: int | None = None
    # Seconds it has to come up.
    patience: float = 300
    # Only "start" starts it, not "up".
    optional: bool = False

    @property
    def digest(self) -> str:
        total = hashlib.sha256(repr((self.command, self.env)).encode())
        for path in self.files:
            total.update(path.read_bytes())
        return total.hexdigest()


def is_free(port: int) -> bool:
    """Return whether nobody listens on a port."""
    try:
        socket.create_connection((LOCALHOST, port), 1).close()
    except OSError:
        return True
    return False


def listens(port: int) -> Check:
    return lambda _started: not is_free(port)


def answers(port: int, path: str = '/') -> Check:
    """Check that an API answers, in whatever words."""
    def check(_started: float) -> bool:
        connection = http.client.HTTPConnection(LOCALHOST, port, timeout=20)
        try:
            connection.request('GET', path)
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
    return check


def appears(path: Path) -> Check:
    """Check that a file, which an earlier run may have left, is new."""
    def check(started: float) -> bool:
        return path.exists() and path.stat().st_mtime >= started
    return check


def sql(statement: str) -> list[str]:
    """Run SQL statements; return the lines of the answer.

    :raises CalledProcessError: it failed.
    """
    return subprocess.run(
        ['mariadb', '--no-defaults', '-h', LOCALHOST, '-u', 'root',
         '-P', str(settings.PORTS['mariadb']), '-N', '-B', '-e', statement],
        env={**os.environ, 'MYSQL_PWD': settings.passwords()['mariadb']},
        capture_output=True, text=True, check=True).stdout.splitlines()


def _database(_started: float) -> bool:
    try:
        return sql('SELECT 1') == ['1']
    except subprocess.CalledProcessError:
        return False


def reports(binary: str, host: str, database: str) -> Check:
    """Check that a service of Nova without a port told of itself.

    It does so when it takes messages, and nova-compute is of use only when
    the scheduler has found it, too.
    """
    mapped = '' if binary != 'nova-compute' else (
        ' AND host IN (SELECT host FROM nova_api.host_mappings)')

    def check(started: float) -> bool:
        since = time.strftime('%F %T', time.gmtime(started))
        return sql(
            f'SELECT COUNT(*) FROM {database}.services WHERE deleted = 0'
            f' AND `binary` = "{binary}" AND host = "{host}"'
            f' AND updated_at > "{since}"{mapped}') != ['0']
    return check


def _uwsgi(port: int, module: str, *more: str) -> tuple[str | Path, ...]:
    return (
        BIN / 'uwsgi', '--need-app', '--master', '--lazy-apps',
        '--enable-threads', '--die-on-term', '--disable-logging',
        '--buffer-size', '65535', '--home', settings.VENV,
        # Else clients that keep connections see them reset now and then.
        '--add-header', 'Connection: close',
        '--http-socket', f'{LOCALHOST}:{port}',
        '--module', f'{module}:application', *more)


def table(mode: Mode) -> list[Spec]:
    """Return the services that run in a mode."""
    ports = settings.PORTS
    # Read by Nova's and Neutron's processes if the plugin is in them.
    vmip_env = {'VMIP_CONFIG': str(settings.VMIP_CONF)}
    vmip_files = (settings.VMIP_CONF,) if mode.vmip else ()
    vmip_jobs = ('vmip-db',) if mode.vmip else ()
    neutron = (ETC / 'neutron/neutron.conf', ETC / 'neutron/ml2_conf.ini')
    nova = ETC / 'nova/nova.conf'
    # Nova waits for a Keystone that is away, and ends where its user is not
    # there yet.
    nova_needs = ('db-nova', 'rabbitmq', 'identity')
    cell1 = ETC / 'nova/nova-cell1.conf'

    def compute(name: str) -> tuple[Path, ...]:
        return (nova, ETC / 'nova/nova-compute.conf',
                ETC / f'nova/nova-compute-{name}.conf')

    mariadb = settings.STATE / 'mariadb'
    rabbitmq = settings.STATE / 'rabbitmq'
    dhcp1 = settings.DHCP1

    def configured(name: str, *files: Path) -> tuple[str | Path, ...]:
        words: list[str | Path] = [BIN / name]
        for path in files:
            words += ['--config-file', path]
        return tuple(words)

    specs = [
        Spec('mariadb', (
            'mariadbd', '--no-defaults', '--user=root',
            f'--datadir={mariadb}', f'--bind-address={LOCALHOST}',
            f'--port={ports["mariadb"]}',
            f'--socket={settings.RUN}/mariadb.sock',
            f'--pid-file={settings.RUN}/mariadb.pid',
            f'--init-file={ETC}/mariadb/init.sql', '--max-connections=600',
            # A test's cloud may lose a second of work in a crash.
            '--innodb-flush-log-at-trx-commit=0', '--skip-name-resolve'),
            after=('mariadb-files',), ready=_database,
            files=(ETC / 'mariadb/init.sql',), port=ports['mariadb']),
        Spec('epmd', ('epmd', '-address', LOCALHOST,
                      '-port', str(ports['epmd'])),
             ready=listens(ports['epmd']), port=ports['epmd']),
        Spec('rabbitmq', ('/usr/lib/rabbitmq/bin/rabbitmq-server',),
             after=('epmd',), ready=listens(ports['rabbitmq']), env={
                 'HOME': str(rabbitmq),
                 'ERL_EPMD_ADDRESS': LOCALHOST,
                 'ERL_EPMD_PORT': str(ports['epmd']),
                 'RABBITMQ_NODENAME': 'minicloud@localhost',
                 'RABBITMQ_DIST_PORT': str(ports['rabbitmq_dist']),
                 'RABBITMQ_CONFIG_FILE': f'{ETC}/rabbitmq/rabbitmq.conf',
                 'RABBITMQ_MNESIA_BASE': f'{rabbitmq}/mnesia',
                 'RABBITMQ_LOG_BASE': f'{rabbitmq}/log',
                 'RABBITMQ_LOGS': '-',
                 'RABBITMQ_ENABLED_PLUGINS_FILE': f'{rabbitmq}/plugins',
                 # The virtual machine takes the place of the script, which
                 # would start another one to stop it.
                 'RUNNING_UNDER_SYSTEMD': '1',
                 'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS':
                     '-kernel inet_dist_use_interface {127,0,0,1}'
                     ' -start_epmd false +sbwt none +S 2:2',
             }, files=(ETC / 'rabbitmq/rabbitmq.conf',),
             port=ports['rabbitmq']),
        Spec('keystone', _uwsgi(ports['keystone'], 'keystone.wsgi.api',
                                '--processes', '2'),
             after=('db-keystone',),
             ready=answers(ports['keystone'], '/v3'),
             env={'OS_KEYSTONE_CONFIG_DIR': f'{ETC}/keystone'},
             files=(ETC / 'keystone/keystone.conf',), port=ports['keystone']),
        Spec('placement', _uwsgi(ports['placement'], 'placement.wsgi.api'),
             after=('db-placement',), ready=answers(ports['placement']),
             env={'OS_PLACEMENT_CONFIG_DIR': f'{ETC}/placement'},
             files=(ETC / 'placement/placement.conf',),
             port=ports['placement']),
        Spec('glance', _uwsgi(ports['glance'], 'glance.wsgi.api',
                              '--threads', '2'),
             after=('db-glance',), ready=answers(ports['glance']),
             env={'OS_GLANCE_CONFIG_DIR': f'{ETC}/glance'},
             files=(ETC / 'glance/glance-api.conf',), port=ports['glance']),
        Spec('neutron-api', _uwsgi(ports['neutron'], 'neutron.wsgi.api',
                                   '--processes', '2'),
             after=('db-neutron', 'rabbitmq', 'driver', *vmip_jobs),
             ready=answers(ports['neutron']), env={
                 'OS_NEUTRON_CONFIG_DIR': f'{ETC}/neutron',
                 'OS_NEUTRON_CONFIG_FILES': 'neutron.conf;ml2_conf.ini',
                 **vmip_env},
             files=(*neutron, *vmip_files), port=ports['neutron']),
        Spec('neutron-rpc', configured('neutron-rpc-server', *neutron),
             after=('db-neutron', 'rabbitmq', 'driver', *vmip_jobs),
             env=vmip_env, files=(*neutron, *vmip_files)),
        Spec('nova-api', _uwsgi(ports['nova'], 'nova.wsgi.osapi_compute',
                                '--processes', '2'),
             after=(*nova_needs, *vmip_jobs), ready=answers(ports['nova']),
             env={'OS_NOVA_CONFIG_DIR': f'{ETC}/nova', **vmip_env},
             files=(nova, ETC / 'nova/api-paste.ini', *vmip_files),
             port=ports['nova']),
        Spec('nova-conductor', configured('nova-conductor', nova, cell1),
             after=nova_needs, files=(nova, cell1),
             ready=reports('nova-conductor', 'minicloud', 'nova_cell1')),
        Spec('nova-scheduler', configured('nova-scheduler', nova),
             after=nova_needs, files=(nova,),
             ready=reports('nova-scheduler', 'minicloud', 'nova_cell0')),
        Spec('nova-compute', configured('nova-compute',
                                        *compute(mode.compute)),
             after=('hosts', 'identity', 'placement', 'rabbitmq',
                    'neutron-api',
                    *(('libvirtd',) if mode.compute == 'libvirt' else ())),
             ready=reports('nova-compute', mode.host, 'nova_cell1'),
             files=compute(mode.compute)),
        Spec('bridger', ('/usr/bin/python3', settings.HERE / 'bridger.py',
                         settings.TAPS), after=('network',),
             files=(settings.HERE / 'bridger.py',)),
        Spec('dnsmasq1', (
            'ip', 'netns', 'exec', settings.DHCP_NETNS, 'dnsmasq',
            '--keep-in-foreground', '--conf-file=/dev/null', '--port=0',
            '--interface=eth0', '--bind-interfaces', '--user=root',
            '--dhcp-authoritative', '--dhcp-ignore=tag:!known',
            '--dhcp-ignore-clid',
            '--dhcp-no-override', '--dhcp-lease-max=10000',
            '--log-dhcp', f'--log-facility={settings.LOG}/dnsmasq1.log',
            '--dhcp-range=192.0.2.0,static,255.255.255.0,'
            + settings.LEASE_TIME,
            '--dhcp-option=option:router,192.0.2.1',
            f'--dhcp-hostsdir={dhcp1}/hosts',
            f'--dhcp-leasefile={dhcp1}/leases',
            f'--pid-file={dhcp1}/dnsmasq.pid'), after=('network',),
            ready=appears(dhcp1 / 'dnsmasq.pid')),
        Spec('wire1', ('tcpdump', '-Z', 'root', '-n', '-U', '-i',
                       settings.BRIDGES['physnet1'],
                       '-w', settings.LOG / 'wire1.pcap',
                       'udp and (port 67 or port 68)'), after=('network',)),
    ]
    if mode.compute == 'libvirt':
        specs.append(Spec('libvirtd', (
            'unshare', '--mount', '--uts', '--propagation', 'private', 'sh',
            settings.HERE / 'libvirtd.sh', ETC / 'libvirt', LIBVIRT_RUN,
            settings.STATE / 'libvirt'),
            ready=appears(settings.LIBVIRT_SOCKET),
            files=(settings.HERE / 'libvirtd.sh', ETC / 'libvirt/qemu.conf',
                   ETC / 'libvirt/libvirtd.conf')))
    else:
        # To move servers to.
        specs.append(Spec(
            'nova-compute2', (BIN / 'python', '-P',
                              settings.HERE / 'compute.py',
                              *configured('', *compute('fake2'))[1:]),
            ready=reports('nova-compute', f'{mode.host}2', 'nova_cell1'),
            files=(*compute('fake2'),
                   settings.HERE / 'virt/minicloud_moody.py'),
            optional=True))
    if mode.vmip:
        for name in ('vmip-listener', 'vmip-reclaimer', 'vmip-agent'):
            specs.append(Spec(
                name, configured(name, settings.VMIP_CONF), env=vmip_env,
                after=('vmip-db', 'identity', 'rabbitmq', 'neutron-api',
                       'nova-api', 'network'), files=vmip_files))
    return specs


@functools.cache
def names() -> frozenset[str]:
    """Return the services of every mode."""
    return frozenset(spec.name for compute in settings.COMPUTES
                     for spec in table(Mode(compute)))
