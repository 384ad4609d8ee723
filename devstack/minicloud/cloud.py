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

"""The cloud as a whole: up, down, and what is between."""

import base64
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import threading
import time

from minicloud import config
from minicloud.guest import image
from minicloud import kea3
from minicloud import network
from minicloud import packages
from minicloud import process
from minicloud import services
from minicloud import settings

BIN = settings.VENV / 'bin'
ETC = settings.ETC
MODE = settings.STATE / 'mode.json'
# There from the end of "up" to "down".
UP = settings.STATE / 'up'
# Stopped after the others, which would only complain of their absence.
LAST = ('mariadb', 'rabbitmq', 'epmd')
# A purge keeps what was fetched and built.
KEPT = ('guest', 'kea3')

Task = tuple[Iterable[str], Callable[[], None]]


@dataclasses.dataclass(frozen=True)
class Status:
    """One line of the table."""

    name: str
    pid: int | None
    port: int | None
    rss: int
    uptime: float
    # Whether it belongs to the mode that the cloud was brought up in.
    wanted: bool

    @property
    def running(self) -> bool:
        return self.pid is not None


class _Progress:
    """Lines with the seconds since the beginning."""

    def __init__(self) -> None:
        self.begin = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.begin

    def __call__(self, text: str) -> None:
        print(f'[{self.elapsed:6.1f} s] {text}', flush=True)


@contextlib.contextmanager
def _lock(alone: bool = True) -> Iterator[None]:
    """Let one command at a time change the cloud, whatever its checkout.

    :param alone: not beside another checkout's cloud.
    :raises Failure: another checkout's cloud runs.
    """
    settings.RUN.mkdir(parents=True, exist_ok=True)
    with open(settings.RUN / 'lock', 'a') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('another minicloud command is at work; waiting for it',
                  flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for checkout, state in process.strangers() if alone else ():
            # One that was removed cannot stop it itself; any other can.
            program = Path(checkout) / 'devstack/minicloud'
            if not program.exists():
                program = settings.HERE
            raise process.Failure(
                f'the cloud of {checkout} (state in {state}) runs on this '
                'machine, and there can be only one. Stop it with\n'
                f'  VMIP_STATE={state} python3 {program} down')
        yield


def _saved_mode() -> services.Mode | None:
    """Return the mode of the last "up" that no "down" followed."""
    try:
        return services.Mode(**json.loads(MODE.read_text()))
    except FileNotFoundError:
        return None


def _current_mode() -> services.Mode:
    mode = _saved_mode()
    if not mode:
        raise process.Failure('the cloud is not up')
    return mode


def is_up(compute: str, vmip: bool = True, strict: bool = False) -> bool:
    """Return whether "up" would find nothing to do.

    It is asked what runs, not whether its configuration is still the same.
    """
    return (UP.exists()
            and _saved_mode() == services.Mode(compute, vmip, strict)
            and all(row.running for row in status() if row.wanted))


# --- up


def up(compute: str = 'libvirt', vmip: bool = True,
       fresh: bool = False, strict: bool = False) -> None:
    """Bring the cloud up; what is up already stays.

    :param compute: 'libvirt', with real guests, or 'fake'.
    :param vmip: with the plugin.
    :param fresh: forget everything first.
    :param strict: with the plugin's mechanism driver.
    :raises Failure: it does not come up; the services that did stay, to be
        looked at.
    :raises KeyboardInterrupt: and then nothing stays, unless the cloud had
        been up before.
    """
    say = _Progress()
    mode = services.Mode(compute, vmip, strict)
    with _lock():
        process.closing.clear()
        if fresh:
            say('purging')
            _down(purge=True)
        before = UP.exists()
        try:
            _up(mode, say)
        except KeyboardInterrupt:
            process.close()
            if not before:
                say('interrupted: stopping everything')
                _down()
            raise
        UP.touch()
    say(f'up, {settings.STATE}/demorc and clouds.yaml tell how to use it')


def _prepare(say: _Progress) -> None:
    packages.check_root()
    packages.check_venv()
    names = packages.missing()
    if names:
        say(f'installing {" ".join(names)}')
        packages.install()
    image.build()


def install() -> None:
    """Install what tests need and build the guest; start nothing."""
    say = _Progress()
    # A cloud that runs has what it needs.
    with _lock(alone=False):
        process.closing.clear()
        packages.check_root()
        names = packages.missing()
        say(f'packages: {" ".join(names) or "all there"}')
        packages.install()
        say(f'Kea 3: {"there" if kea3.ready() else "fetching it"}')
        kea3.install()
        image.build()
    say('installed')


def _up(mode: services.Mode, say: _Progress) -> None:
    _prepare(say)
    if mode.vmip:
        packages.check_vmip()
    for path in (settings.DHCP1 / 'hosts', settings.TAPS, settings.DONE,
                 settings.STATE / 'glance/images', settings.STATE / 'lock',
                 settings.STATE / 'glance/staging', ETC / 'rabbitmq',
                 settings.STATE / 'glance/tasks', settings.STATE / 'nova',
                 settings.STATE / 'neutron', settings.STATE / 'vmip',
                 settings.STATE / 'rabbitmq', settings.LIBVIRT_SOCKET.parent,
                 *(settings.STATE / f'compute-{name}/instances'
                   for name in (*settings.COMPUTES, 'fake2'))):
        path.mkdir(parents=True, exist_ok=True)
    _configure(mode)
    _stop_unwanted(mode, say)
    settings.write_private(MODE, json.dumps(dataclasses.asdict(mode)))
    specs = [spec for spec in services.table(mode) if not spec.optional]
    tasks = _jobs(mode, say)
    for spec in specs:
        tasks[spec.name] = (spec.after, _starter(spec, say))
    _run_all(tasks)
    for spec in specs:
        service = process.Service(spec.name)
        if not service.process:
            raise _broken(service, 'ended')


def _configure(mode: services.Mode) -> None:
    virt_type = 'qemu'
    if mode.compute == 'libvirt':
        virt_type = image.virt_type()
    config.write(mode.vmip, virt_type, mode.strict)


def _stop_unwanted(mode: services.Mode, say: _Progress) -> None:
    """Stop what runs but is not of the mode: the other compute's."""
    wanted = {spec.name for spec in services.table(mode)}
    extra = set(process.members()) - wanted
    if extra:
        say(f'stopping {", ".join(sorted(extra))}')
    if mode.compute != 'libvirt' and _guests():
        process.stop({'nova-compute'})
        _stop_guests()
    process.stop(extra)


def _run_all(tasks: dict[str, Task]) -> None:
    """Run tasks, each once those before it are done.

    :raises Failure: the first that failed did so.
    """
    futures: dict[str, concurrent.futures.Future[None]] = {}
    ready = threading.Event()

    def work(after: Iterable[str], action: Callable[[], None]) -> None:
        ready.wait()
        for name in after:
            if futures[name].exception():
                raise process.Closing
        action()

    with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
        for name, (after, action) in tasks.items():
            futures[name] = pool.submit(work, after, action)
        ready.set()
        try:
            concurrent.futures.wait(
                futures.values(),
                return_when=concurrent.futures.FIRST_EXCEPTION)
        finally:
            if not all(future.done() for future in futures.values()):
                process.close()
                process.kill({process.JOB})
    errors = [error for future in futures.values()
              if (error := future.exception())]
    for error in errors:
        if not isinstance(error, process.Closing):
            raise error


def _broken(service: process.Service, what: str,
            since: int = 0) -> process.Failure:
    return process.Failure(
        f'service {service.name} {what}, {service.log} ends:\n'
        + process.tail(service.log, since=since))


def _starter(spec: services.Spec, say: _Progress) -> Callable[[], None]:
    return lambda: _start(spec, say)


def _start(spec: services.Spec, say: _Progress) -> None:
    """Start a service, if need be, and wait until it is up.

    :raises Failure: it does not come up.
    """
    service = process.Service(spec.name)
    running = service.process
    if running and service.digest != spec.digest:
        say(f'{spec.name} has another configuration: starting it again')
        process.stop({spec.name})
        running = None
    since = service.log.stat().st_size if service.log.exists() else 0
    child: subprocess.Popen[bytes] | None = None
    if not running:
        # What is left of it if only its main process was killed.
        process.kill({spec.name})
        port = spec.port
        if port and not process.wait_until(lambda: services.is_free(port), 5):
            raise process.Failure(f'service {spec.name} cannot start: '
                                  f'something else listens on port {port}')
        child = service.start(spec.command, spec.env, spec.digest)
        running = service.process
    begin = time.monotonic()
    started = time.time() - (running.uptime if running else 0)
    while not (spec.ready is None or spec.ready(started)):
        if process.closing.is_set():
            raise process.Closing
        if not service.process:
            raise _broken(service, 'ended', since)
        if time.monotonic() - begin > spec.patience:
            raise _broken(
                service, f'is not up after {spec.patience:g} s', since)
        time.sleep(0.2)
    if not service.process:
        raise _broken(service, 'ended', since)
    if child:
        say(f'{spec.name} is up')


def _jobs(mode: services.Mode, say: _Progress) -> dict[str, Task]:
    """Return what has to be done beside the services, and after what."""
    values = settings.values()
    url = values['database_url']
    nova = (ETC / 'nova/nova.conf', ETC / 'nova/nova-cell1.conf')
    seed = (BIN / 'python', settings.HERE / 'seed.py')
    client = {'OS_CLIENT_CONFIG_FILE': str(settings.STATE / 'clouds.yaml')}

    def once(name: str, *actions: Callable[[], None],
             key: str = '') -> Callable[[], None]:
        """Do actions unless they were done, and with the same key."""
        mark = settings.DONE / name

        def action() -> None:
            if mark.exists() and mark.read_text() == key:
                return
            for step in actions:
                step()
            settings.write_private(mark, key)
            say(f'{name} is done')
        return action

    def job(log: str, *command: str | Path,
            extra: dict[str, str] | None = None) -> Callable[[], None]:
        return lambda: process.run(command, log, extra)

    def databases(*names: str) -> Callable[[], None]:
        # One that is there was left half made.
        text = ''.join(f'DROP DATABASE IF EXISTS {name};'
                       f'CREATE DATABASE {name} CHARACTER SET utf8mb4;'
                       for name in names)

        def action() -> None:
            services.sql(text)
        return action

    keystone = ('keystone-manage', '--config-file',
                ETC / 'keystone/keystone.conf')
    endpoint = values['keystone_url']
    source = hashlib.sha256(
        (settings.HERE / 'seed.py').read_bytes()).hexdigest()
    tasks: dict[str, Task] = {
        'mariadb-files': ((), once('mariadb-files', _install_mariadb)),
        'network': ((), network.up),
        'driver': ((), packages.install_driver),
        'db-keystone': (('mariadb',), once(
            'db-keystone', databases('keystone'), _keystone_keys,
            job('db-keystone', *keystone, 'db_sync'),
            job('db-keystone', *keystone, 'bootstrap',
                '--bootstrap-region-id', 'RegionOne',
                '--bootstrap-admin-url', endpoint,
                '--bootstrap-internal-url', endpoint,
                '--bootstrap-public-url', endpoint,
                extra={'OS_BOOTSTRAP_PASSWORD': values['password_admin']}))),
        'db-placement': (('mariadb',), once(
            'db-placement', databases('placement'),
            job('db-placement', 'placement-manage', '--config-file',
                ETC / 'placement/placement.conf', 'db', 'sync'))),
        'db-glance': (('mariadb',), once(
            'db-glance', databases('glance'),
            job('db-glance', 'glance-manage', '--config-file',
                ETC / 'glance/glance-api.conf', 'db_sync'))),
        'db-neutron': (('mariadb', 'driver'), once(
            'db-neutron', databases('neutron'),
            job('db-neutron', 'neutron-db-manage', '--config-file',
                ETC / 'neutron/neutron.conf', '--config-file',
                ETC / 'neutron/ml2_conf.ini', 'upgrade', 'head'))),
        'db-nova': (('mariadb',), once(
            'db-nova', databases('nova_api', 'nova_cell0', 'nova_cell1'),
            job('db-nova', BIN / 'python', settings.HERE / 'nova_db.py',
                f'{url}/nova_cell0', f'{url}/nova_cell1',
                values['transport_url'], *nova))),
        'identity': (('keystone',), once(
            'identity', job(
                'seed', *seed, 'identity', settings.STATE / 'passwords',
                *(f'{name}:{settings.PORTS[name]}'
                  for name in settings.SERVICE_USERS), extra=client),
            key=source)),
        'hosts': (('db-nova',), lambda: _choose_host(mode)),
        'resources': (
            ('identity', 'glance', 'neutron-api', 'nova-api'),
            job('seed', *seed, 'resources', settings.GUEST, extra=client)),
    }
    if mode.vmip:
        tasks['vmip-db'] = ((), job(
            'vmip-db', BIN / 'vmip-manage', '--config-file',
            settings.VMIP_CONF, 'db', 'upgrade'))
    return tasks


def _install_mariadb() -> None:
    data = settings.STATE / 'mariadb'
    shutil.rmtree(data, ignore_errors=True)
    process.run(['mariadb-install-db', '--no-defaults', '--user=root',
                 f'--datadir={data}', '--skip-test-db',
                 '--auth-root-authentication-method=normal'], 'mariadb-files')


def _keystone_keys() -> None:
    """Make Keystone's keys, of the form that "fernet_setup" gives them."""
    for name in ('fernet-keys', 'receipt-keys', 'credential-keys'):
        for number in '01':
            settings.write_private(
                settings.STATE / 'keystone' / name / number,
                base64.urlsafe_b64encode(os.urandom(32)).decode())


def _choose_host(mode: services.Mode) -> None:
    """Let the scheduler take our host only.

    Not by the API: that would try to tell the other host, which is down.
    """
    services.sql(
        'UPDATE nova_cell1.services SET'
        f' disabled = (host <> "{mode.host}"),'
        f' disabled_reason = IF(host <> "{mode.host}", "other profile", NULL)'
        ' WHERE `binary` = "nova-compute"')


# --- down


def _guests() -> list[process.Process]:
    """Return the guests: a pid file of libvirt's alone is not trusted."""
    ours = os.fsencode(settings.STATE / 'compute-libvirt')
    result = []
    for path in (services.LIBVIRT_RUN / 'qemu').glob('*.pid'):
        with contextlib.suppress(OSError, ValueError):
            guest = process.find(int(path.read_text()))
            if guest and ours in Path(
                    f'/proc/{guest.pid}/cmdline').read_bytes():
                result.append(guest)
    return result


def _stop_guests() -> None:
    process.send(_guests(), signal.SIGKILL)
    process.wait_until(lambda: not _guests(), 5)


def down(purge: bool = False) -> None:
    """Stop everything; a cloud that is half up or half down as well.

    :param purge: remove databases and the like, too.
    """
    say = _Progress()
    with _lock():
        _down(purge)
    say('down')


def _down(purge: bool = False) -> None:
    UP.unlink(missing_ok=True)
    names = set(process.members()) | {
        path.stem for path in settings.PID.glob('*.json')}
    # First who would start again what is stopped; the guests after
    # nova-compute, which would otherwise note that they stopped.
    process.kill({process.JOB})
    process.stop(names - {*LAST, 'libvirtd'}, patience=4)
    _stop_guests()
    process.stop(names - set(LAST))
    process.stop(names)
    network.down()
    for path in (services.LIBVIRT_RUN, settings.RUN / 'libvirt',
                 settings.MORE):
        shutil.rmtree(path, ignore_errors=True)
    MODE.unlink(missing_ok=True)
    if purge and settings.STATE.exists():
        for path in settings.STATE.iterdir():
            if path.name in KEPT:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


# --- single services


def _specs(names: Iterable[str]) -> list[services.Spec]:
    known = {spec.name: spec for spec in services.table(_current_mode())}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise process.Failure(f'no service {", ".join(unknown)}; there are: '
                              + ', '.join(known))
    return [known[name] for name in names]


def start(*names: str) -> None:
    """Start services that are stopped."""
    say = _Progress()
    with _lock():
        process.closing.clear()
        _configure(_current_mode())
        for spec in _specs(names):
            _start(spec, say)


def stop(*names: str) -> None:
    """Stop services."""
    with _lock():
        process.stop({spec.name for spec in _specs(names)})


def restart(*names: str) -> None:
    """Stop services and start them."""
    say = _Progress()
    with _lock():
        process.closing.clear()
        _configure(_current_mode())
        specs = _specs(names)
        process.stop({spec.name for spec in specs})
        for spec in specs:
            _start(spec, say)


def kill(*names: str) -> None:
    """SIGKILL services with all their processes."""
    with _lock():
        process.kill({spec.name for spec in _specs(names)})


def status() -> list[Status]:
    """Return how each service is, of this mode and still running."""
    mode = _saved_mode()
    specs = {spec.name: spec for spec in services.table(mode)} if mode else {}
    members = process.members()
    result = []
    for name in [*specs, *sorted(set(members) - set(specs))]:
        main = process.Service(name).process
        spec = specs.get(name)
        result.append(Status(
            name, main.pid if main else None, spec.port if spec else None,
            sum(item.rss for item in members.get(name, [])),
            main.uptime if main else 0,
            spec is not None and not spec.optional))
    guests = _guests()
    for guest in guests:
        result.append(Status('guest', guest.pid, None, guest.rss,
                             guest.uptime, True))
    return result
