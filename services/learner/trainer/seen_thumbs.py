"""Which thumbs a reward model has been trained on.

Senders choose feedback ids, so that an id alone names nothing: a thumb is named by its slot and its id together. What
is kept of that name is a digest, since a release is no place for people's pseudonyms.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from services.learner.ports import RatedExample

_MARK_BYTES = 16


class SeenThumbs:
    """A set of thumbs that can be saved. `thumb in seen` asks it."""

    def __init__(self, examples: Iterable[RatedExample] = ()) -> None:
        self._marks = frozenset(_mark(example) for example in examples)
        self._rollout_ids: frozenset[str] = frozenset()
        self._feedback_ids: frozenset[str] = frozenset()

    @classmethod
    def load(cls, marks: Iterable[str]) -> SeenThumbs:
        """From `saved`."""
        seen = cls()
        seen._marks = frozenset(marks)
        return seen

    @classmethod
    def of_manifest(cls, rollout_ids: Iterable[str], feedback_ids: Iterable[str]) -> SeenThumbs:
        """For a release without a record of its own: thumbs whose rollout and whose id its manifest both names."""
        seen = cls()
        seen._rollout_ids, seen._feedback_ids = frozenset(rollout_ids), frozenset(feedback_ids)
        return seen

    def __contains__(self, example: RatedExample) -> bool:
        named = example.rollout_id in self._rollout_ids and example.feedback_id in self._feedback_ids
        return named or _mark(example) in self._marks

    def saved(self) -> Sequence[str]:
        """JSON values for `load`, always in the same order."""
        return sorted(self._marks)


def _mark(example: RatedExample) -> str:
    name = json.dumps([example.rollout_id, example.rater_id, example.feedback_id])
    return blake2b(name.encode(), digest_size=_MARK_BYTES).hexdigest()
