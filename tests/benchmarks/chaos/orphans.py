"""Which kill explains an orphan: one that may have taken along the rollout of an answer that broke off.

An answer that broke off by itself, since the gateway died or the link was reset, leaves a generator that learns of it
at once and then makes the rollout safe: Kafka has it, or the disk, at the latest after
`generator.rollout_ack_timeout_s`. Past that no death takes it along. A whole answer ends when its rollout is safe.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.benchmarks.chaos.blows import KILL, Blow
from tests.benchmarks.chaos.links import ANSWERS_COME_BY
from tests.benchmarks.chaos.statements import Answer

VICTIM = "generator"
SAFE_WITHIN_S = 3.0
"""From the generator's learning that the answer broke off: its time for Kafka (2 s), and one for disk and machine.

Clients and killer share a process and its clock. A kill is noted when it has been done, a moment late, which the second
covers; an answer's end is noted when the client sees it, and never before it was.
"""


def explains_orphan(answer: Answer, blows: Iterable[Blow]) -> Blow | None:
    """The kill that may have taken along the answer's rollout. None: it must not be lost."""
    if answer.complete:
        return None
    all_blows = list(blows)
    until = _learned_at(answer, all_blows) + SAFE_WITHIN_S
    kills = [blow for blow in all_blows if blow.what == KILL and blow.target == VICTIM]
    near = [kill for kill in kills if answer.asked_at <= kill.at <= until]
    return min(near, key=lambda one: abs(one.at - answer.ended_at), default=None)


def _learned_at(answer: Answer, blows: Iterable[Blow]) -> float:
    """When the generator knew at the latest that nobody listens: where the link was cut or slow, once it was healed."""
    healed = [
        blow.until
        for blow in blows
        if blow.what != KILL and blow.target == ANSWERS_COME_BY and blow.at <= answer.ended_at <= blow.until
    ]
    return max(healed, default=answer.ended_at)
