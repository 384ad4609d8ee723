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


"""Runs Neutron's own tests with its IPAM driver and with ours, and compares.

A test has to end with ours as it ends with Neutron's: passed, skipped or, for
reasons of this machine or of the versions installed, failed. Those of which
that cannot be said are in :data:`UNTOLD`, with the reason.
"""

import argparse
from collections.abc import Sequence
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import subunit
from testtools import testresult

#: What "make test" runs: every test of IPAM itself, and the ports of the DB
#: plugin and of ML2.
SHORT = (r'neutron\.tests\.unit\.ipam\.|\.test_ipam_backend_mixin\.'
         r'|\.TestDbBasePluginIpam\.|\.TestRollback\.|\.TestIpamPorts\.'
         r'|\.TestMl2PortsV2\.')

#: Part of a test's id -> why its end says nothing of an IPAM driver.
UNTOLD = {
    '.test_staledata_error_on_concurrent_object_':
        'two threads race for a row of SQLite\'s, and with either driver, '
        'which has no part in it, the test passes or fails by chance',
}

_DONE = frozenset({'success', 'fail', 'skip', 'xfail', 'uxsuccess'})


class Outcomes(testresult.StreamResult):
    """How each test ended, and what the failed ones said."""

    def __init__(self, say: Any) -> None:
        super().__init__()
        self.status_of: dict[str, str] = {}
        self.said: dict[str, bytes] = {}
        self._say = say

    def status(self, test_id: str | None = None,
               test_status: str | None = None, test_tags: Any = None,
               runnable: bool = True, file_name: str | None = None,
               file_bytes: bytes | None = None, eof: bool = False,
               mime_type: str | None = None, route_code: str | None = None,
               timestamp: Any = None) -> None:
        if test_id is None:
            return
        if file_bytes is not None and file_name == 'traceback':
            self.said[test_id] = self.said.get(test_id, b'') + file_bytes
        if test_status in _DONE:
            self.status_of[test_id] = str(test_status)
            if len(self.status_of) % 100 == 0:
                self._say(f'  {len(self.status_of)} tests')


def run(mode: str, concurrency: int, only: Sequence[str] = (),
        pattern: str | None = None) -> Outcomes:
    """Run the tests in a mode of :mod:`tests.upstream.test_neutron`.

    :param only: the ids of the tests; none: all that match the pattern.
    """
    outcomes = Outcomes(_say)
    with tempfile.TemporaryDirectory(prefix='vmip-upstream-') as folder:
        command = ['stestr', '--test-path', 'tests/upstream', '--repo-url',
                   folder, 'run', '--subunit', '--concurrency',
                   str(concurrency)]
        if only:
            ids = pathlib.Path(folder, 'ids')
            ids.write_text('\n'.join(only) + '\n')
            command += ['--load-list', str(ids)]
        elif pattern:
            command.append(pattern)
        with pathlib.Path(folder, 'errors').open('w+') as errors, \
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, stderr=errors,
                    env={**os.environ, 'VMIP_UPSTREAM': mode,
                         'PYTHONWARNINGS': 'ignore'}) as process:
            subunit.ByteStreamToStreamResult(
                process.stdout, non_subunit_name='stdout').run(outcomes)
            process.wait()
            if not outcomes.status_of:
                errors.seek(0)
                raise SystemExit(f'No test was run:\n{errors.read()}')
    return outcomes


def compare(theirs: Outcomes, ours: Outcomes) -> list[str]:
    """Return the ids of the tests that end otherwise."""
    return sorted(
        test for test in theirs.status_of.keys() | ours.status_of.keys()
        if theirs.status_of.get(test) != ours.status_of.get(test)
        and not any(part in test for part in UNTOLD))


def main() -> int:
    """Return 0 if nothing differs that should not."""
    parser = argparse.ArgumentParser(prog='tests.upstream',
                                     description=__doc__)
    parser.add_argument('--short', action='store_true',
                        help='only a part that takes some minutes')
    parser.add_argument('--concurrency', type=int, default=os.cpu_count())
    args = parser.parse_args()
    pattern = SHORT if args.short else None
    found = {}
    for mode in ('internal', 'vmip', 'pools'):
        _say(f'Neutron\'s tests, IPAM driver: {mode}')
        started = time.monotonic()
        found[mode] = run(mode, args.concurrency, pattern=pattern)
        counts = _counts(found[mode])
        _say(f'  {counts} in {time.monotonic() - started:.0f} s')
    wrong = 0
    for mode in ('vmip', 'pools'):
        tests = compare(found['internal'], found[mode])
        if tests:
            # Some of Neutron's tests depend on time or chance.
            _say(f'{len(tests)} differ with {mode} and are run once more')
            again = {m: run(m, 1, only=tests) for m in ('internal', mode)}
            tests = compare(*again.values())
            for test in tests:
                _explain(mode, test, again['internal'], again[mode])
        wrong += len(tests)
    for part, why in UNTOLD.items():
        _say(f'Not compared: *{part}*: {why}')
    _say(f'{wrong} tests differ' if wrong else
         'Every other test ends with ours as with Neutron\'s own')
    return int(bool(wrong))


def _explain(mode: str, test: str, theirs: Outcomes, ours: Outcomes) -> None:
    _say(f'{test}: {theirs.status_of.get(test)} with internal, '
         f'{ours.status_of.get(test)} with {mode}')
    for outcomes in (theirs, ours):
        _say(outcomes.said.get(test, b'').decode(errors='replace'))


def _counts(outcomes: Outcomes) -> str:
    states = list(outcomes.status_of.values())
    return ', '.join(f'{states.count(state)} {state}'
                     for state in sorted(set(states)))


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == '__main__':
    sys.exit(main())
