"""From rollouts to `scores` events: passes over what has tokens, the rule alone for what has none.

A pass takes so many answers as the model reads in the time that it has: half as many after one that took too long, one
more after each that did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import TimeoutError as PassTimeout

from services.reward.base_model import Answer, BaseModel, PassResult, check
from services.reward.model_lane import ModelLane, QueuedPass
from services.reward.scorer import NO_TOKENS, Judgement, Scorer
from services.shared.domain.errors import DeadlineExceeded, InvalidInput, Unavailable, Unprocessable
from services.shared.domain.events import Clock, EventMeta, NewId
from services.shared.domain.reward_terms import with_response_terms
from services.shared.domain.rollout import Rollout
from services.shared.domain.score import Score
from services.shared.telemetry.log import get_logger

_log = get_logger()


class RolloutScorer:
    """Scores rollouts at the live reward model. Every purpose is scored: KL is measured on gate answers too."""

    def __init__(
        self, base: BaseModel, lane: ModelLane, scorer: Scorer, *, max_batch: int, now: Clock, new_id: NewId
    ) -> None:
        """`max_batch`: answers a pass, at most."""
        self._max_batch = max_batch
        self._batch = max_batch
        self._base = base
        self._lane = lane
        self._scorer = scorer
        self._now = now
        self._new_id = new_id

    def answer_of(self, rollout: Rollout) -> Answer | None:
        """What the base is to read; None where the response has no token. Raises Unprocessable where it cannot."""
        if rollout.overflow is not None and not rollout.prompt_token_ids:
            raise Unprocessable(
                f"rollout {rollout.rollout_id} keeps its tokens in the object store; this release reads events alone",
                reason="OVERFLOW_NOT_READ",
            )
        if not rollout.response_token_ids:
            return None
        answer = Answer(
            prompt_token_ids=rollout.prompt_token_ids,
            response_token_ids=rollout.response_token_ids,
            temperature=rollout.sampling.temperature,
        )
        try:
            check(answer, self._base, name=f"rollout {rollout.rollout_id}")
        except InvalidInput as error:
            raise Unprocessable(error.message, reason=error.reason) from error
        return answer

    def score(self, rollouts: Sequence[tuple[Rollout, Answer | None]], *, timeout_s: float) -> list[Score]:
        """One score each, in order; `timeout_s` is each pass's, from its beginning, and as long it may wait for that.
        Raises Unavailable or Busy where the model is not free so long, DeadlineExceeded where one answer alone takes
        longer.
        """
        answers = [answer for _, answer in rollouts if answer is not None]
        passed = iter(self._passes(answers, timeout_s))
        done = [None if answer is None else next(passed) for _, answer in rollouts]
        judged = self._scorer.judge(
            [result.features for result in done if result is not None],
            [rollout.rollout_id for (rollout, answer) in rollouts if answer is not None],
        )
        judgements = iter(judged.items)
        return [
            self._event(rollout, result, NO_TOKENS if result is None else next(judgements), judged.reward_model_version)
            for (rollout, _), result in zip(rollouts, done, strict=True)
        ]

    def check_model(self, *, timeout_s: float) -> None:
        """Raises what a pass raises over the shortest answer there is, which every model that works can read."""
        self._passes([Answer(prompt_token_ids=(0,), response_token_ids=(0,))], timeout_s)

    def _passes(self, answers: Sequence[Answer], timeout_s: float) -> list[PassResult]:
        """Answers of like length share a pass; results in the order of `answers`."""
        waiting = sorted(range(len(answers)), key=lambda row: answers[row].tokens)
        done: dict[int, PassResult] = {}
        while waiting:
            rows = waiting[: self._batch]
            results = self._pass([answers[row] for row in rows], timeout_s)
            if results is None:
                self._batch = max(1, len(rows) // 2)
                continue
            done.update(zip(rows, results, strict=True))
            waiting = waiting[len(rows) :]
            self._batch = min(self._max_batch, self._batch + 1)
        return [done[row] for row in range(len(answers))]

    def _pass(self, answers: Sequence[Answer], timeout_s: float) -> list[PassResult] | None:
        """None: it took too long, and fewer may not."""
        queued = self._lane.submit(answers, timeout_s=timeout_s)
        if not queued.begun.wait(timeout_s):
            queued.cancel()
            raise Unavailable(f"the model was not free for a pass within {timeout_s:g} s")
        try:
            return queued.result(timeout=timeout_s)
        except PassTimeout:
            _check_fault(queued, len(answers), timeout_s)
            return None

    def _event(self, rollout: Rollout, done: PassResult | None, judgement: Judgement, version: str) -> Score:
        temperature = rollout.sampling.temperature
        return Score(
            meta=EventMeta(
                event_id=self._new_id(),
                deployment=rollout.meta.deployment,
                tenant=rollout.meta.tenant,
                event_time=self._now(),
                traceparent=rollout.meta.traceparent,
            ),
            rollout_id=rollout.rollout_id,
            reward_model_version=version,
            mean=judgement.mean,
            spread=judgement.spread,
            terms=with_response_terms(judgement.terms, rollout.response_text),
            reference_log_probs=done.reference_log_probs if done else (),
            temperature=temperature if temperature > 0 else 1.0,
            base_model_digest=self._base.digest,
            features=done.features if done else b"",
            feature_layout=self._base.feature_layout if done else "",
        )


def _check_fault(late: QueuedPass, size: int, timeout_s: float) -> None:
    """Raises unless fewer answers may do. Of a pass that others shared nothing is known."""
    _log.warning("pass_too_slow", rollouts=size, seconds=timeout_s)
    if size > 1:
        return
    if not late.alone:
        raise Unavailable(f"a pass that others shared took longer than {timeout_s:g} s")
    raise DeadlineExceeded(f"a pass over this rollout alone takes longer than {timeout_s:g} s", reason="TOO_SLOW")
