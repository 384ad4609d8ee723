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

"""The whole truth table."""

import itertools

import testtools

from vmip_plugin.agent import decide

NOW, DELAY = 1000.0, 10.0
#: gone_since, and whether that confirms
SINCE = {None: False, NOW - 9.9: False, NOW: False, NOW + 5: False,
         NOW - 10: True, NOW - 5000: True}


class DecideTest(testtools.TestCase):
    def test_all(self) -> None:
        seen = set()
        for probe, word, since, shutoff in itertools.product(
                decide.Probe, decide.Word, SINCE, (False, True)):
            decision = decide.decide(probe, word, since, NOW, DELAY, shutoff)
            gone = word is decide.Word.GONE or (
                shutoff and word is decide.Word.SHUT_OFF)
            if probe is not decide.Probe.SILENT or not gone:
                expected = decide.Verdict.SPARE
            elif SINCE[since]:
                expected = decide.Verdict.RELEASE
            elif since is None or since > NOW:
                expected = decide.Verdict.SUSPECT
            else:
                expected = decide.Verdict.SPARE
            case = f'{probe} {word} {since} {shutoff}'
            self.assertEqual(expected, decision.verdict, case)
            self.assertEqual(
                probe is decide.Probe.ANSWERED
                or word is decide.Word.EXISTS
                or word is decide.Word.SHUT_OFF and not shutoff,
                decision.life, case)
            self.assertTrue(decision.reason)
            seen.add(decision.verdict)
        self.assertEqual(set(decide.Verdict), seen)
