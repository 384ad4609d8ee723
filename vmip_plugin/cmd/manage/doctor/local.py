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

"""Points of this host: files, the list and what it tells, DHCP servers."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
import datetime
import difflib
from importlib import metadata
import os
import re
import stat
import threading

from keystoneauth1 import exceptions as ksa_exc
from keystoneauth1 import loading
from oslo_config import cfg

from vmip_plugin.cmd.manage import agents
from vmip_plugin.cmd.manage import arguments
from vmip_plugin.cmd.manage.doctor import point
from vmip_plugin.cmd.manage import reclaim
from vmip_plugin.cmd import status
from vmip_plugin.conf import dhcp as dhcp_conf
from vmip_plugin.dhcp import base as dhcp
from vmip_plugin.dhcp import manager
from vmip_plugin.hooks import manager as hooks
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records
from vmip_plugin.inventory import states

Finding = point.Finding
WaitingFor = states.WaitingFor
#: options by section, all in lower case and with underscores
Known = Mapping[str, Mapping[str, cfg.Opt]]

#: Seconds between the clocks at which reservations begin to end too early.
CLOCK_WARNING, CLOCK_FAIL = 1.0, 10.0
#: Part of a pool that should be free.
FREE = 0.1
#: Seconds after which somebody should have seen to what is due.
OVERDUE = 60.0
#: Most addresses that one point names.
MOST_NAMED = 10

# libraries whose options belong into vmip.conf, as in the sample
_NAMESPACES = ('vmip', 'oslo.log', 'oslo.messaging', 'oslo.policy')


def configuration(context: point.Context) -> Iterator[Finding]:
    # first: its errors do not show a line that may have a password
    try:
        point.read(context.config_file)
    except point.NotChecked as exc:
        yield Finding.fail(context.config_file, str(exc))
        return
    context.inventory   # noqa: B018  (reads and checks every value)
    yield Finding.ok(context.config_file)


def options(context: point.Context) -> Iterator[Finding]:
    sections = point.read(context.config_file)
    known = _known(context.conf)
    wrong = False
    for section, values in sections.items():
        group = _normal(section)
        if group not in known:
            wrong = True
            yield Finding.warning(
                f'[{section}]', 'no such section is known',
                _meant(group, known))
            continue
        for name in values:
            if _normal(name) not in known[group]:
                wrong = True
                yield Finding.warning(
                    f'[{section}] {name}', 'no such option is known there',
                    _meant(_normal(name), known[group]))
    if not wrong:
        yield Finding.ok(context.config_file)


def rights(context: point.Context) -> Iterator[Finding]:
    path = context.config_file
    mode = os.stat(path).st_mode
    if mode & stat.S_IWOTH:
        yield Finding.fail(path, 'everybody may write it', f'chmod o-w {path}')
    known = _known(context.conf)
    secret = sorted({
        f'[{section}] {name}'
        for section, values in point.read(path).items()
        for name, found in values.items()
        if _is_secret(known.get(_normal(section), {}).get(_normal(name)),
                      found[-1])})
    if mode & stat.S_IROTH and secret:
        yield Finding.warning(
            path, f'everybody may read it, and it has {", ".join(secret)}',
            f'chown root:vmip {path}; chmod 0640 {path}; and make the users '
            f'of nova-api and neutron-server members of the group vmip')
    elif not mode & stat.S_IWOTH:
        yield Finding.ok(path)


def plugins(context: point.Context) -> Iterator[Finding]:
    hooks.Hooks(context.conf)
    manager.load_drivers(context.conf)
    yield Finding.ok(', '.join((*context.conf.reserve.hooks,
                                *context.conf.dhcp.servers)))


def database(context: point.Context) -> Iterator[Finding]:
    found = context.inventory.database
    found.revision()
    yield Finding.ok(found.engine.dialect.name)


def schema(context: point.Context) -> Iterator[Finding]:
    found = context.inventory.database
    behind = found.behind()
    if behind:
        yield Finding.fail('', behind)
    else:
        yield Finding.ok('', found.revision() or '')


def clocks(context: point.Context) -> Iterator[Finding]:
    apart = context.inventory.database.skew()
    if apart is None:
        yield Finding.ok('', 'the list is a file: no clock but this host\'s '
                             'counts')
        return
    text = (f'the database\'s clock and this host\'s are {apart:.1f} seconds '
            f'apart')
    if apart > CLOCK_FAIL:
        yield Finding.fail('', text)
    elif apart > CLOCK_WARNING:
        yield Finding.warning('', text)
    else:
        yield Finding.ok('', text)


def pools(context: point.Context) -> Iterator[Finding]:
    """Names that nothing answers to: as "vmip-status upgrade check"."""
    result = status.Checks(context.conf).pools()
    if result.code is status.Code.FAILURE:
        yield Finding.fail('', result.details)
    elif result.code is status.Code.WARNING:
        yield Finding.warning('', result.details)
    found = [pool for pool, _ in context.inventory.pools()]
    for pool in found:
        if not pool.dhcp_servers:
            yield Finding.warning(
                pool.name, 'no DHCP server is told of its addresses',
                f'vmip-manage pool set {pool.name} --dhcp-server NAME')
    if result.code is status.Code.SUCCESS and all(
            pool.dhcp_servers for pool in found):
        yield Finding.ok(', '.join(pool.name for pool in found))


def space(context: point.Context) -> Iterator[Finding]:
    found = context.inventory.pools()
    if not found:
        raise point.NotChecked('there is no pool')
    for pool, usage in found:
        size = sum(count for state, count in usage.items()
                   if state != 'outside')
        text = f'{usage["free"]} of {size} addresses are free'
        if usage['free'] == 0:
            yield Finding.fail(pool.name, text)
        elif usage['free'] < FREE * size:
            yield Finding.warning(pool.name, text)
        else:
            yield Finding.ok(pool.name, text)


def servers(context: point.Context) -> Iterator[Finding]:
    drivers = manager.load_drivers(context.conf)
    if not drivers:
        raise point.NotChecked('[dhcp] servers names none')
    answers: dict[str, list[str] | Exception] = {}

    def ask(driver: dhcp.DHCPDriver) -> None:
        answers[driver.name] = agents.within(
            context.options.timeout, driver.check)

    # at the same time: one that hangs keeps no other waiting
    threads = [threading.Thread(target=ask, args=(driver,), daemon=True)
               for driver in drivers.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in drivers:
        answer = answers[name]
        if isinstance(answer, Exception):
            yield Finding.fail(name, str(answer) or type(answer).__name__)
        elif answer:
            for complaint in answer:
                yield Finding.fail(name, complaint)
        else:
            yield Finding.ok(name)


def work(context: point.Context) -> Iterator[Finding]:
    by_server: dict[str, list[records.EntryStatus]] = defaultdict(list)
    for entry in context.inventory.entries(pending=True):
        by_server[entry.server].append(entry)
    now = clock.now()
    for server, found in sorted(by_server.items()):
        yield from _answering(server, found)
        late = now - min(entry.next_try_at for entry in found)
        failed = [entry for entry in found if entry.error
                  and entry.waiting_for is not WaitingFor.WIRE]
        if late > datetime.timedelta(seconds=OVERDUE):
            yield Finding.fail(
                server, f'{len(found)} host entries are still to be written '
                f'or removed, and since {late.total_seconds():.0f} seconds '
                f'nobody has tried', 'start vmip-reclaimer; if it runs, see '
                '"vmip-manage reclaim status" and its log')
        elif failed:
            worst = max(failed, key=lambda entry: entry.attempts)
            since = (f' since {arguments.show(worst.waiting_since)}'
                     if worst.waiting_for else
                     f' after {worst.attempts} tries')
            yield Finding.warning(
                server, f'{len(failed)} host entries could not be written or '
                f'removed; {worst.address}{since}: {worst.error}')
        else:
            yield Finding.ok(server, f'{len(found)} are just to be done')
    if not by_server:
        yield Finding.ok('', 'nothing is left to do')


def _answering(server: str, found: Sequence[records.EntryStatus],
               ) -> Iterator[Finding]:
    """Name the addresses that are given to nobody as they answer."""
    answering = sorted((entry for entry in found
                        if entry.waiting_for is WaitingFor.WIRE),
                       key=lambda entry: entry.waiting_since or clock.now())
    for entry in answering[:MOST_NAMED]:
        more = len(answering) - MOST_NAMED
        yield Finding.warning(
            server, f'{entry.address} is given to nobody: it answers on the '
            f'wire since {arguments.show(entry.waiting_since)} although '
            f'{entry.mac} no longer has it' + (
                f'; the same of {more} others'
                if more > 0 and entry is answering[MOST_NAMED - 1] else ''),
            f'find who answers ("ip neighbour show {entry.address}" on a host '
            'of that network shows the MAC) and have it shut off or its '
            'address changed; a guest that answers for addresses which are '
            'not its own needs port security. The address is free within '
            'a minute of its silence')


def reclaimer(context: point.Context) -> Iterator[Finding]:
    for row in reclaim.standing(context.conf, context.inventory.runs()):
        task = dict(zip(reclaim.STATUS, row, strict=True))
        since = f'; the last run began at {task["started"]} UTC' if task[
            'started'] else ''
        match task['state']:
            case 'well':
                yield Finding.ok(task['task'], task['by'])
            case 'never' if task['task'] != 'owner':
                yield Finding.warning(task['task'], 'it was never done')
            case 'failed':
                yield Finding.fail(task['task'], f'{task["error"]}{since}')
            case state:
                yield Finding.fail(task['task'], {
                    'never': 'no vmip-reclaimer has ever done anything',
                    'silent': f'{task["by"]} does nothing any more',
                }.get(state, state) + since)


def _normal(name: str) -> str:
    return name.lower().replace('-', '_')


def _known(conf: cfg.ConfigOpts) -> Known:
    """Return every option that this installation knows."""
    found: dict[str, dict[str, cfg.Opt]] = defaultdict(dict)

    def add(group: str, opt: cfg.Opt) -> None:
        for name in (opt.name, opt.dest):
            found[_normal(group)][_normal(name)] = opt
        for old in opt.deprecated_opts:
            found[_normal(old.group or group)][
                _normal(old.name or opt.name)] = opt

    for namespace in _NAMESPACES:
        for entry in metadata.entry_points(group='oslo.config.opts',
                                           name=namespace):
            for group, opts in entry.load()():
                for opt in opts:
                    add(str(getattr(group, 'name', group) or 'DEFAULT'), opt)
    for entry in metadata.entry_points(group=hooks.NAMESPACE):
        for opt in entry.load().OPTS:
            add(f'hook:{entry.name}', opt)
    if conf.cloud.auth_type:
        try:
            for opt in loading.get_auth_plugin_conf_options(
                    conf.cloud.auth_type):
                add('cloud', opt)
        except ksa_exc.NoMatchingPlugin:
            pass    # the point "keystone" tells it
    if conf.cloud.auth_section:
        found[_normal(conf.cloud.auth_section)].update(found['cloud'])
    for name in conf.dhcp.servers:
        group = dhcp_conf.server_group(name)
        kind = dhcp_conf.register_server(conf, name).driver
        found[_normal(group)] = {
            **found[dhcp_conf.server_group('name')],
            **found[_normal(dhcp_conf.server_group(kind))]}
    named = {_normal(dhcp_conf.server_group(name))
             for name in conf.dhcp.servers}
    return {group: opts for group, opts in found.items()
            if not group.startswith(dhcp_conf.server_group(''))
            or group in named}


def _meant(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f'did you mean {close[0]}? Otherwise remove it' if close else (
        'remove it, or see the names in the documentation')


def _is_secret(opt: cfg.Opt | None, value: str) -> bool:
    if opt is None or not opt.secret or not value:
        return False
    # of a URL only the password is one
    return '://' not in value or re.search(
        r'://.*[^/,]*:[^@/,]+@', value) is not None


POINTS = (
    point.Point(
        'configuration', configuration,
        'mend the file; --config-file names another one'),
    point.Point(
        'options', options, 'remove it, or see the names in the '
        'documentation', ('configuration',)),
    point.Point('rights', rights, 'chmod 0640', ('configuration',)),
    point.Point(
        'plugins', plugins, 'do what the finding says, or take it out of '
        '[reserve] hooks or [dhcp] servers', ('configuration',)),
    point.Point(
        'database', database, 'start the database, or mend [database] '
        'connection', ('configuration',)),
    point.Point('schema', schema, 'vmip-manage db upgrade', ('database',)),
    point.Point(
        'clocks', clocks, 'let a time service such as chrony set the clock '
        'of each host', ('database',)),
    point.Point(
        'pools', pools, 'make the pool, or change it, as the finding says',
        ('schema',)),
    point.Point(
        'space', space, 'add addresses with "vmip-manage pool set --range"; '
        'see who has them with "vmip-manage address list"', ('schema',)),
    point.Point(
        'dhcp', servers, 'do what the finding says; "vmip-manage dhcp doctor" '
        'looks again', ('plugins',)),
    point.Point(
        'work', work, 'mend what the finding names, then "vmip-manage dhcp '
        'sync"; see "vmip-manage dhcp list --pending"', ('schema',)),
    point.Point(
        'reclaimer', reclaimer, 'start vmip-reclaimer, or see its log and '
        '"vmip-manage reclaim status"', ('schema',)),
)
