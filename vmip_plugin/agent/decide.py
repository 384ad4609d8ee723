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

"""Whether a lease may be released: the whole truth table, and nothing else.

Silence alone frees nothing: a guest that is paused, boots, or filters ARP is
as silent as a dead one. The cloud's word alone frees nothing: a guest that
answers is there. Both must say so, and the cloud twice, some time apart.
"""

import dataclasses
import enum


class Probe(enum.Enum):
    """What came of probing a guest."""

    ANSWERED = 'answered'
    SILENT = 'silent'
    #: the probe could not be sent
    UNSENT = 'unsent'


class Word(enum.Enum):
    """What Nova and Neutron say about a guest."""

    #: at least one of them still has it
    EXISTS = 'exists'
    #: both say that it is not there any more
    GONE = 'gone'
    #: the server is there, shut off
    SHUT_OFF = 'shut off'
    #: they cannot be asked, or were not
    UNKNOWN = 'unknown'
    #: they never had it: it is no guest of this cloud
    STRANGER = 'stranger'


class Verdict(enum.Enum):
    """What to do about a lease."""

    SPARE = 'spare'
    #: note the time: gone, for the first time
    SUSPECT = 'suspect'
    RELEASE = 'release'


@dataclasses.dataclass(frozen=True)
class Decision:
    """A verdict.

    :param reason: a few words for the log.
    :param life: the guest is there, so a former suspicion is void.
    """

    verdict: Verdict
    reason: str
    life: bool = False


#: about a guest that answers
ANSWERS = Decision(Verdict.SPARE, 'the guest answers', life=True)
#: about what the cloud never had
STRANGER = Decision(Verdict.SPARE, 'not a guest of this cloud')
#: about whom no probe gets to
REMOTE = Decision(Verdict.SPARE, 'beyond a relay, where no probe gets to')


def decide(probe: Probe, word: Word, gone_since: float | None, now: float,
           confirm_delay: float, reclaim_shutoff: bool = False,
           remote: bool = False) -> Decision:
    """Decide about one lease.

    :param gone_since: when it was first found gone, with no sign of life
        since; None if it was not. In seconds, on the same clock as ``now``.
    :param confirm_delay: least seconds between the two times.
    :param reclaim_shutoff: a server that is shut off counts as gone.
    :param remote: it was overheard only beyond a relay or router.
    """
    if remote:
        return REMOTE
    if probe is Probe.ANSWERED:
        return ANSWERS
    if word is Word.STRANGER:
        return STRANGER
    if word is Word.UNKNOWN:
        return Decision(Verdict.SPARE, 'the cloud cannot be asked')
    if word is Word.EXISTS:
        return Decision(Verdict.SPARE, 'the guest exists', life=True)
    if word is Word.SHUT_OFF and not reclaim_shutoff:
        return Decision(Verdict.SPARE, 'the guest is shut off', life=True)
    if probe is Probe.UNSENT:
        return Decision(Verdict.SPARE, 'the guest cannot be probed')
    # A time to come is a clock that was set back.
    if gone_since is None or gone_since > now:
        return Decision(Verdict.SUSPECT, f'{word.value} and silent')
    if now - gone_since < confirm_delay:
        return Decision(Verdict.SPARE, 'to be confirmed')
    return Decision(Verdict.RELEASE, f'{word.value} and silent, twice')
