"""What people say of answers, drawn so that it meets: few slots, few ids, few revisions; and what of it holds.

The model is a set: it knows no order of arrival. Of each slot it has one statement for each id, with the revision of
the id's first acceptance and the strongest of what was said under it; the greatest holds the slot.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator

from services.shared.domain.feedback import (
    Comment,
    Comparison,
    Edit,
    Feedback,
    FeedbackBody,
    FeedbackKind,
    Rating,
    Thumb,
)
from tests.support.facts import make_feedback

Slot = tuple[str, str, str]
"""Rater, rollout, kind."""
Statement = tuple[int, bool, str, str]
"""Revision, retracted, digest, id: what decides, in this order."""

KINDS = (
    *(FeedbackKind.THUMB, FeedbackKind.RATING) * 3,
    *(FeedbackKind.COMPARISON, FeedbackKind.EDIT, FeedbackKind.COMMENT),
)
"""Mostly two of them."""
RATERS = ("ann", "ann", "bob")
ROLLOUTS = ("r1", "r1", "r1", "r2", "never-comes")

BODIES: dict[FeedbackKind, tuple[FeedbackBody, ...]] = {
    FeedbackKind.THUMB: (Thumb(up=True), Thumb(up=False)),
    FeedbackKind.RATING: (Rating(stars=1), Rating(stars=2)),
    FeedbackKind.COMPARISON: (Comparison(rejected_rollout_id="other-1"), Comparison(rejected_rollout_id="other-2")),
    FeedbackKind.EDIT: (Edit(text=""), Edit(text="better"), Edit(text="best")),
    FeedbackKind.COMMENT: (Comment(text=""), Comment(text="hm")),
}


def remarks(draw: random.Random, numbers: Iterator[int]) -> list[Feedback]:
    """Two to five statements on one slot or two; `numbers` name their events."""
    slots = [(draw.choice(RATERS), draw.choice(ROLLOUTS), draw.choice(KINDS)) for _ in range(draw.randint(1, 2))]
    return [_remark(draw, *draw.choice(slots), event=f"said-{next(numbers)}") for _ in range(draw.randint(2, 5))]


def _remark(draw: random.Random, rater: str, rollout: str, kind: FeedbackKind, *, event: str) -> Feedback:
    retracted = draw.random() < 0.3
    return make_feedback(
        f"{kind}-{draw.choice('abc')}",
        rollout=rollout,
        kind=kind,
        body=None if retracted and draw.random() < 0.5 else draw.choice(BODIES[kind]),
        rater=rater,
        seconds=draw.choice([0, 1, 300, 301]),
        revision=draw.randint(1, 3),
        retracted=retracted,
        event=event,
    )


def slot_of(said: Feedback) -> Slot:
    """Where it was said."""
    return (said.rater_id, said.rollout_id, said.kind.value)


def statements(said: Iterable[Feedback]) -> dict[Slot, list[Statement]]:
    """Of each slot, one for each id."""
    by_id: dict[tuple[Slot, str], list[Feedback]] = {}
    for each in said:
        by_id.setdefault((slot_of(each), each.feedback_id), []).append(each)
    found: dict[Slot, list[Statement]] = {}
    for (slot, name), mine in by_id.items():
        revision = min((each.accept_time, each.meta.event_id, each.revision) for each in mine)[2]
        retracted, digest = max((each.retracted, each.digest) for each in mine)
        found.setdefault(slot, []).append((revision, retracted, digest, name))
    return found


def met(said: Iterable[Feedback]) -> Counter[str]:
    """How many slots several ids contend for, in how many the revision does not decide, and how many are empty
    because the greatest is a retraction; and ids under which different things were said.
    """
    counts: Counter[str] = Counter()
    listed = list(said)
    for found in statements(listed).values():
        first, *others = sorted(found, reverse=True)
        counts["slots contested"] += bool(others)
        counts["slots tied"] += bool(others) and first[0] == others[0][0]
        counts["slots retracted"] += first[1]
    words: dict[tuple[Slot, str], set[tuple[int, bool, str]]] = {}
    for each in listed:
        words.setdefault((slot_of(each), each.feedback_id), set()).add((each.revision, each.retracted, each.digest))
    counts["ids said twice"] = sum(len(different) > 1 for different in words.values())
    return counts
