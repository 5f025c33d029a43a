"""Which rollouts each head leaves out: a fixed design, so that every process agrees without talking.

A rollout falls by a hash of its id into one of nine *buckets*. A head leaves out three buckets, a third of the
rollouts, and is fitted on the rest; a rollout is only ever scored by the heads that leave its bucket out
(*cross-fitting*), so that no head judges an answer whose thumb it has seen.

The buckets are the nine points of the affine plane of order three. Heads 0 to 11 leave out its twelve lines: every
point lies on exactly four of them, and two points share exactly one, so any two rollouts of different buckets
disagree about most of their judges. Heads 12 to 15 leave out four triples that are not lines, the first three of
which split the plane.
"""

import hashlib
from collections.abc import Sequence
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

BUCKETS: Final = 9
HEADS: Final = 16
_HASH_PERSON: Final = b"thumbloop-folds"


def _is_line(points: tuple[int, ...]) -> bool:
    """Three points of the plane over the integers modulo 3 are on a line just when they sum to zero."""
    return sum(p // 3 for p in points) % 3 == 0 and sum(p % 3 for p in points) % 3 == 0


LEFT_OUT_BUCKETS: Final[tuple[tuple[int, ...], ...]] = (
    *(points for points in combinations(range(BUCKETS), 3) if _is_line(points)),
    (0, 1, 3),
    (2, 4, 8),
    (5, 6, 7),
    (0, 4, 5),
)
"""For each head the three buckets whose rollouts it is never fitted on."""


def bucket_of(rollout_id: str) -> int:
    """The bucket, 0 to 8, of a rollout; the same on every machine and in every release."""
    digest = hashlib.blake2b(rollout_id.encode(), digest_size=8, person=_HASH_PERSON).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def left_out_HB(rollout_ids: Sequence[str]) -> NDArray[np.bool_]:
    """True where head H leaves rollout B out, that is, may score it and must not be fitted on it."""
    bucket_out_HK = np.zeros((HEADS, BUCKETS), dtype=np.bool_)
    for head, buckets in enumerate(LEFT_OUT_BUCKETS):
        bucket_out_HK[head, list(buckets)] = True
    buckets_B = np.array([bucket_of(rollout_id) for rollout_id in rollout_ids], dtype=np.intp)
    left_out: NDArray[np.bool_] = bucket_out_HK[:, buckets_B]
    return left_out
