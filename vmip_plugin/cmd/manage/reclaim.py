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

"""vmip-manage reclaim ..."""

import argparse
from collections.abc import Sequence
import datetime
import itertools
import sys
from typing import Any

from cliff import lister
from oslo_config import cfg

from vmip_plugin.cmd import manage
from vmip_plugin.cmd.manage import agents as vmip_agents
from vmip_plugin.cmd.manage import arguments
from vmip_plugin.dhcp import manager
from vmip_plugin.dhcp import work
from vmip_plugin import exceptions
from vmip_plugin.inventory import clock
from vmip_plugin.inventory import records
from vmip_plugin.reclaim import tasks

#: Seconds without any run after which nobody is taken to do the work.
SILENT = 60.0
#: What is put behind the name of this process, which owns nothing.
BY_HAND = ' by hand'

STATUS = ('task', 'state', 'every', 'by', 'started', 'seconds', 'checked',
          'found', 'done', 'spared', 'error')


class Run(lister.Lister):
    """Do all tasks of vmip-reclaimer once, and tell what they came upon.

    It may be run at any time, beside the daemon or without it. An address
    whose port is missing for the first time is noted only, and released by
    the daemon or the next run, [reclaimer] confirm_delay seconds later. The
    exit code is 1 where a task failed.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument(
            '--dry-run', action='store_true',
            help='change nothing; list what would be done, also by the '
                 'agents')
        parser.add_argument(
            '--task', action='append', metavar='NAME',
            help='only this task (repeatable): see "reclaim status"')
        parser.add_argument(
            '--max-releases', type=arguments.count, metavar='N',
            help='most addresses to release; default: [reclaimer] '
                 'max_releases')
        parser.add_argument(
            '--limit', type=arguments.count, metavar='N', default=1000,
            help='most findings to list; the others are counted (default: '
                 '%(default)s)')
        return parser

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        conf = self.app.conf
        if parsed_args.max_releases:
            conf.set_override('max_releases', parsed_args.max_releases,
                              'reclaimer')
        self._found: list[tasks.Finding] = []
        self._limit: int = parsed_args.limit
        self._left_out = 0
        self._failed = False
        cloud = self.app.cloud()
        reclaimer = tasks.Reclaimer(
            conf, inventory, work.Worker(
                conf, inventory, manager.load_drivers(conf), cloud,
                vmip_agents.client(self.app)),
            cloud, patience=None, rehearse=parsed_args.dry_run,
            tell=self._tell, me=tasks.this_process() + BY_HAND)
        todo = _chosen(reclaimer.tasks(), parsed_args.task)
        for number, task in enumerate(todo, 1):
            if sys.stderr.isatty():
                print(f'{number} of {len(todo)}: {task.name}',
                      file=sys.stderr)
            with manage.quiet(work.__name__, tasks.__name__):
                run = reclaimer.run(task)
            self._sum_up(run)
        if parsed_args.dry_run and not parsed_args.task:
            self._ask_agents()
        if self._left_out:
            print(f'{self._left_out} more findings are not listed: --limit',
                  file=sys.stderr)
        return ('task', 'subject', 'action', 'outcome', 'reason'), [
            (f.task, f.subject, f.action, f.outcome, arguments.text(f.reason))
            for f in self._found]

    def _tell(self, finding: tasks.Finding) -> None:
        if len(self._found) < self._limit:
            self._found.append(finding)
        else:
            self._left_out += 1

    def _sum_up(self, run: records.Run) -> None:
        print(f'{run.name}: {run.checked} looked at, {run.found} found, '
              f'{run.done} done, {run.spared} spared', file=sys.stderr)
        if run.error is not None:
            self._failed = True
            self._tell(tasks.Finding(run.name, '', '', 'failed', run.error))

    def _ask_agents(self) -> None:
        """Tell what the agents would do with the leases they overheard."""
        for name, look in vmip_agents.ask_all(
                self.app, lambda client, host: client.look(host)):
            if isinstance(look, Exception):
                self._failed = True
                self._tell(tasks.Finding(
                    'leases', name, '', 'failed',
                    str(look) or type(look).__name__))
                continue
            print(f'leases: {name}: {look.checked} looked at, '
                  f'{look.answered} answered', file=sys.stderr)
            for lease in look.judged:
                self._tell(tasks.Finding(
                    'leases', str(lease.address), 'release',
                    tasks.SPARED if lease.verdict == 'spare'
                    else lease.verdict or '',
                    f'agent {name}: {lease.reason or ""}'))

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or int(self._failed)


class Status(lister.Lister):
    """Show who does the work, and how the last run of each task went.

    The first line is the process that does the work. The exit code is 1
    where a task failed, is late, or was never done.
    """

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[Any, Any]:
        inventory = manage.inventory(self)
        rows = standing(self.app.conf, inventory.runs())
        self._wrong = any(row[1] != 'well' for row in rows)
        return STATUS, rows

    def run(self, parsed_args: argparse.Namespace) -> int:
        return super().run(parsed_args) or int(self._wrong)


def standing(conf: cfg.ConfigOpts, runs: Sequence[records.Run],
             ) -> list[tuple[Any, ...]]:
    """Return :data:`STATUS` of the process and of each task."""
    last = {run.name: run for run in runs}
    return [_owner(runs)] + [
        _row(name, every, last.get(name))
        for name, every in tasks.intervals(conf).items()]


def _owner(runs: Any) -> tuple[Any, ...]:
    last = max((run for run in runs if not run.host.endswith(BY_HAND)),
               key=lambda run: run.ended_at, default=None)
    if last is None:
        return _line('owner', 'never')
    silent = clock.now() - last.ended_at > datetime.timedelta(seconds=SILENT)
    return _line('owner', 'silent' if silent else 'well', '', last.host,
                 arguments.show(last.started_at))


def _row(name: str, every: float, run: records.Run | None
         ) -> tuple[Any, ...]:
    if run is None:
        return _line(name, 'never', every)
    late = clock.now() - run.ended_at > datetime.timedelta(
        seconds=3 * every + SILENT)
    state = 'failed' if run.error else 'late' if late else 'well'
    return _line(
        name, state, every, run.host,
        arguments.show(run.started_at),
        round((run.ended_at - run.started_at).total_seconds(), 1),
        run.checked, run.found, run.done, run.spared,
        arguments.text(run.error))


def _line(*values: Any) -> tuple[Any, ...]:
    """Return a row of all columns; what is not told is left empty."""
    return (*values, *itertools.repeat('', len(STATUS) - len(values)))


def _chosen(todo: list[tasks.Task], names: list[str] | None
            ) -> list[tasks.Task]:
    known = [task.name for task in todo]
    for name in names or ():
        if name not in known:
            raise exceptions.VmipError(
                f'There is no task {name}: ' + ', '.join(known))
    return [task for task in todo if not names or task.name in names]
