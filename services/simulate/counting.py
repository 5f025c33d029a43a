"""From what a run left behind to its figures: the clients' journal on one side, store and checkpoints on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.learner.state.queries.thumb_to_token import ThumbTimes
from services.shared.checkpoints import CheckpointStore
from services.shared.checkpoints.adapters import ADAPTER_FILE
from services.shared.store.database import Database
from services.simulate.guard import load_calibration
from services.simulate.held_out import HeldOutAnswer
from services.simulate.journal import Journal, read_thumbs
from services.simulate.learner_view import LearnerView
from services.simulate.measure import (
    NEVER_S,
    Delays,
    Estimate,
    approvals,
    delays,
    distinct_2,
    gain,
    kl_per_answer,
    share,
)
from services.simulate.store_reader import PublishedPolicy, feedback_ids, log_prob_pairs
from services.simulate.tastes import Taste

MIN_RELEASES = 3
MIN_ANSWERS_A_RELEASE = 20
MIN_HELD_OUT = 96
MAX_KL_NATS = 6.0
MIN_DISTINCT2_RATIO = 0.8

Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a run brought in, before it is counted. Times are seconds since 1970."""

    before: list[HeldOutAnswer]
    after: list[HeldOutAnswer]
    journal: Journal
    started_at: float
    thumbs_stopped_at: float
    view: LearnerView | None


def learning_figures(observed: Observed, taste: Taste, database: Database, model_path: Path) -> Figures:
    """Approval before and after under taste and guard, its gain, KL and distinct-2."""
    from services.simulate.guard.scorer import GuardScorer  # torch: only when a run is counted

    before, after = observed.before, observed.after
    scorer = GuardScorer(model_path)
    thresholds = load_calibration().thresholds
    judged = [
        approvals(
            taste,
            [answer.text for answer in answers],
            scorer.statistics([(answer.prompt, answer.text) for answer in answers]),
            thresholds,
        )
        for answers in (before, after)
    ]
    first, second, gained = share(judged[0]), share(judged[1]), gain(*judged)
    kl = kl_of(after, database)
    distinct = [distinct_2([answer.text for answer in answers]) for answers in (before, after)]
    return {
        "approval_before": first.value,
        "approval_before_se": first.standard_error,
        "approval_after": second.value,
        "approval_after_se": second.standard_error,
        "approval_gain": gained.value,
        "approval_gain_low95": gained.low95,
        "taste_before": share([taste.likes(answer.text) for answer in before]).value,
        "taste_after": share([taste.likes(answer.text) for answer in after]).value,
        "held_out_answers_before": float(len(before)),
        "held_out_answers_after": float(len(after)),
        "kl_per_answer": kl.value,
        "kl_per_answer_se": kl.standard_error,
        "distinct2_before": distinct[0],
        "distinct2_after": distinct[1],
        "distinct2_ratio": distinct[1] / distinct[0],
    }


def kl_of(answers: Sequence[HeldOutAnswer], database: Database) -> Estimate:
    """Of the answers whose reference log-probs the store has. Raises ValueError when it has none."""
    pairs = log_prob_pairs(database, [answer.rollout_id for answer in answers])
    return kl_per_answer([pair[0] for pair in pairs.values()], [pair[1] for pair in pairs.values()])


def missing_feedback(observed: Observed, database: Database) -> list[str]:
    """Ids of thumbs that were acknowledged and are not in the store."""
    stored = feedback_ids(database)
    return sorted(t.feedback_id for t in read_thumbs(observed.journal.path) if t.feedback_id not in stored)


def flow_figures(observed: Observed, missing: Sequence[str]) -> Figures:
    """What the clients counted, and how much of it the store has."""
    counts = observed.journal.counts
    return {
        "answers": float(counts.answers),
        "refused_requests": float(counts.refused),
        "cut_responses": float(counts.cut),
        "refused_thumbs": float(counts.thumbs_refused),
        "feedback_acknowledged": float(counts.thumbs_acknowledged),
        "feedback_in_store": float(counts.thumbs_acknowledged - len(missing)),
    }


def delay_figures(times: Sequence[ThumbTimes]) -> Figures:
    """Thumb-to-token of all thumbs; those that never got there count as 1e9."""
    to_token, to_rm = quantiles([t.to_token_s for t in times]), quantiles([t.to_reward_model_s for t in times])
    return {
        "thumb_to_token_p50_s": to_token.p50_s,
        "thumb_to_token_p99_s": to_token.p99_s,
        "thumb_to_token_censored_share": to_token.never_share,
        "thumb_to_rm_p50_s": to_rm.p50_s,
        "thumb_to_rm_p99_s": to_rm.p99_s,
    }


def quantiles(seconds: Sequence[float]) -> Delays:
    """`delays`, where NEVER_S is without end, and no thumb at all counts as never."""
    if not seconds:
        return Delays(p50_s=NEVER_S, p99_s=NEVER_S, never_share=1.0, n=0)
    return delays([None if value >= NEVER_S else value for value in seconds])


def release_rows(policies: Sequence[PublishedPolicy], checkpoints: CheckpointStore) -> list[dict[str, object]]:
    """A row a published policy, with the digest of its adapter as the manifest has it."""
    rows: list[dict[str, object]] = []
    for policy in policies:
        manifest = checkpoints.read_manifest(policy.checkpoint_path, policy.manifest_sha256)
        adapter = manifest.files.get(ADAPTER_FILE)
        rows.append(
            {
                "version": policy.version,
                "adapter_sha256": adapter.sha256 if adapter else "",
                "manifest_sha256": policy.manifest_sha256,
                "publish_time": policy.publish_time.isoformat(),
                "user_answers": policy.user_answers,
                "metrics": policy.metrics,
            }
        )
    return rows


def judge_run(
    figures: Figures,
    releases: Sequence[Mapping[str, object]],
    exit_codes: Mapping[str, int],
    restarts: Mapping[str, int],
) -> dict[str, bool]:
    """What must hold for the loop to have closed. Releases count when users got enough answers from them."""
    served = [
        row for row in releases if row["adapter_sha256"] and int(str(row["user_answers"])) >= MIN_ANSWERS_A_RELEASE
    ]
    distinct = {row["adapter_sha256"] for row in served}
    return {
        f"at least {MIN_RELEASES} releases, each with {MIN_ANSWERS_A_RELEASE} answers of users": len(served)
        >= MIN_RELEASES,
        "each release another sha256": len(distinct) == len(served),
        "enough held-out answers": min(figures["held_out_answers_before"], figures["held_out_answers_after"])
        >= MIN_HELD_OUT,
        "the gain's lower 95% bound is above 0": figures["approval_gain_low95"] > 0,
        f"KL at most {MAX_KL_NATS} nats per answer": figures["kl_per_answer"] <= MAX_KL_NATS,
        f"distinct-2 at least {MIN_DISTINCT2_RATIO} of the base's": figures["distinct2_ratio"] >= MIN_DISTINCT2_RATIO,
        "no request refused": figures["refused_requests"] == 0,
        "no answer cut": figures["cut_responses"] == 0,
        "every acknowledged thumb is in the store": figures["feedback_acknowledged"]
        == figures["feedback_in_store"]
        > 0,
        "a served token learned from thumbs": figures["thumb_to_token_p50_s"] < NEVER_S,
        "nothing died and all ended in good order": not any(restarts.values()) and not any(exit_codes.values()),
    }
