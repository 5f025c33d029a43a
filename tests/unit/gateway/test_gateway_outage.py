"""Which partitions are held to be away, and for how long."""

from __future__ import annotations

from services.gateway.spool.outage import HOLD_S, Outage
from services.gateway.spool.sending import Sent
from services.shared.domain.errors import Busy
from tests.support.feedback_rooms import AWAY, PARTITIONS, rollouts_of
from tests.support.spool import stored_thumb

(A,), (B,), (C,) = (rollouts_of(partition, 1) for partition in range(3))


def outage() -> tuple[Outage, list[float]]:
    now = [100.0]
    return Outage(partitions=PARTITIONS, monotonic=lambda: now[0]), now


def test_a_failure_is_of_its_partition_and_a_success_ends_it() -> None:
    known, _ = outage()
    known.begin(A, AWAY)
    known.begin(B, AWAY)
    known.end(B)
    assert (known.covers(A), known.covers(B), known.covers(C)) == (True, False, False)


def test_it_is_tried_again_when_nobody_has_for_a_while() -> None:
    known, now = outage()
    known.begin(A, AWAY)
    now[0] += HOLD_S - 1
    assert known.covers(A)
    known.begin(A, AWAY)  # somebody has
    now[0] += HOLD_S - 1
    assert known.covers(A)
    now[0] += 2
    assert not known.covers(A)


def test_a_batch_shows_which_partitions_are_there() -> None:
    known, _ = outage()
    known.begin(A, AWAY)
    known.note(
        Sent(
            acknowledged=[stored_thumb("f1", rollout=A)],
            failed=[
                (stored_thumb("f2", rollout=A), TimeoutError()),  # late, where another was taken
                (stored_thumb("f3", rollout=B), AWAY),
                (stored_thumb("f4", rollout=C), Busy("full")),
            ],
        )
    )
    assert (known.covers(A), known.covers(B), known.covers(C)) == (False, True, False)
