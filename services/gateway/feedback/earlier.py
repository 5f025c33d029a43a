"""What was acknowledged before this gateway started, as far as the learner's store knows it.

A feedback id keeps the revision it was first stored with. A gateway that has just started does not know which ids it
acknowledged before; a client that sends one of them again is to get the same answer. So for a short time after the
start, the length of clients' patience, the learner is asked about ids that clients chose, so rarely that it costs
nothing, and never for long. Where it does not answer, the statement goes its usual way: the store keeps the first
revision all the same, and only the number in the answer differs.
"""

from __future__ import annotations

from collections.abc import Callable

from services.gateway.feedback.fate import FeedbackLookup
from services.gateway.tokens import FeedbackClaims
from services.shared.domain.errors import ThumbloopError
from services.shared.limits import TokenBuckets
from services.shared.telemetry.log import get_logger

WINDOW_S = 120.0
"""How long after its start a gateway asks."""
TIMEOUT_S = 0.25
RATE_PER_S = 20.0
BURST = 20
_EVERYBODY = "everybody"


class EarlierRevisions:
    """Finds revisions of the time before the start."""

    def __init__(self, lookup: FeedbackLookup, *, monotonic: Callable[[], float]) -> None:
        self._lookup = lookup
        self._monotonic = monotonic
        self._until = monotonic() + WINDOW_S
        self._budget = TokenBuckets(RATE_PER_S, BURST, 1, monotonic)

    async def find(self, feedback_id: str, *, kind: str, claims: FeedbackClaims) -> int | None:
        """None: not known, not asked, or not answered in time. Never raises."""
        if self._monotonic() > self._until:
            return None
        try:
            self._budget.take(_EVERYBODY)
            fate = await self._lookup.find(
                tenant=claims.tenant,
                feedback_id=feedback_id,
                rater_id=claims.rater_id,
                rollout_id=claims.rollout_id,
                timeout_s=TIMEOUT_S,
            )
        except ThumbloopError:
            return None
        except Exception as error:  # what is asked is a courtesy: no defect in asking may cost a statement
            get_logger().error("earlier_revision_not_asked", exc_info=error)
            return None
        slot = (claims.rater_id, claims.rollout_id, kind)
        return fate.revision if fate is not None and (fate.rater_id, fate.rollout_id, fate.kind) == slot else None
