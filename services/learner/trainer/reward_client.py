"""Asks the reward room for scores at a pinned reward model, from features alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import grpc
from thumbloop.reward.v1 import reward_pb2, reward_pb2_grpc

from services.shared.domain.errors import Busy, DeadlineExceeded, FailedPrecondition, ThumbloopError, Unavailable
from services.shared.domain.reward_terms import Terms
from services.shared.rpc.statuses import error_from_rpc

Judgement = tuple[float, float, Terms]
"""Mean, spread, terms."""

_ITEMS_A_CALL = 256
_LATER = (FailedPrecondition, Busy, Unavailable, DeadlineExceeded)
"""May pass by itself: the version is still being staged, the room is full or starting."""


class GrpcRewardScorer:
    """A `RewardScorer` over a blocking channel."""

    def __init__(
        self,
        channel: grpc.Channel,
        *,
        call_timeout_s: float = 15.0,
        retry_s: float = 0.25,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`sleep` may raise, to end a wait early."""
        self._stub = reward_pb2_grpc.RewardServiceStub(channel)
        self._call_timeout_s = call_timeout_s
        self._retry_s = retry_s
        self._sleep = sleep
        self._clock = clock

    def rescore(
        self, items: Sequence[tuple[str, bytes]], *, reward_model_version: str, timeout_s: float
    ) -> list[Judgement]:
        """See `RewardScorer.rescore`."""
        deadline = self._clock() + timeout_s
        judgements: list[Judgement] = []
        for start in range(0, len(items), _ITEMS_A_CALL):
            request = reward_pb2.ScoreRequest(
                items=[
                    reward_pb2.ScoreItem(rollout_id=rollout_id, features=features)
                    for rollout_id, features in items[start : start + _ITEMS_A_CALL]
                ],
                reward_model_version=reward_model_version,
            )
            judgements.extend(_judgements(self._call(request, deadline, timeout_s)))
        return judgements

    def _call(self, request: reward_pb2.ScoreRequest, deadline: float, timeout_s: float) -> reward_pb2.ScoreResponse:
        while True:
            remaining = deadline - self._clock()
            try:
                return self._stub.Score(request, timeout=max(0.1, min(self._call_timeout_s, remaining)))
            except grpc.RpcError as error:
                cause = error_from_rpc(error)
                if not isinstance(cause, _LATER):
                    raise cause from error
                if self._clock() + self._retry_s >= deadline:
                    raise _gave_up(request.reward_model_version, timeout_s, cause) from error
            self._sleep(self._retry_s)


def _gave_up(version: str, timeout_s: float, cause: ThumbloopError) -> Unavailable:
    return Unavailable(
        f"the reward room did not score at {version} within {timeout_s:g} s: {cause.message}",
        reason="NOT_SCORED",
        retry_after=1.0,
    )


def _judgements(response: reward_pb2.ScoreResponse) -> list[Judgement]:
    return [
        (score.mean, score.spread, tuple((term.name, term.value) for term in score.terms)) for score in response.scores
    ]
