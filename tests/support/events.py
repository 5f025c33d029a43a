"""Arbitrary events (hypothesis strategies), each one that a room may write."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import strategies as st

from services.shared.domain.control import Control, Forget, Pause, Quarantine
from services.shared.domain.events import EventMeta
from services.shared.domain.feedback import BODY_KINDS, Comment, Comparison, Edit, Feedback, FeedbackKind, Rating, Thumb
from services.shared.domain.release import Announcement, AnnouncementReason, ReleaseKind
from services.shared.domain.rollout import (
    ChatMessage,
    FinishReason,
    KvHistory,
    ObjectReference,
    Purpose,
    Role,
    Rollout,
    Sampling,
    VersionSpan,
)
from services.shared.domain.score import Score

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
short = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
sha256s = st.text("0123456789abcdef", min_size=64, max_size=64)
integers = st.integers(0, 2**63 - 1)
times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
temperatures = st.sampled_from([0.0, 0.5, 0.8, 1.0, 1.2, 1.999999]) | st.floats(0, 2, width=32)
log_prob = st.floats(-1e4, 0, width=32)

metas = st.builds(EventMeta, event_id=ids, deployment=ids, tenant=ids, event_time=times, traceparent=short)

samplings = st.builds(
    Sampling,
    temperature=temperatures.map(lambda value: float(f"{value:.6g}")),
    top_p=st.sampled_from([0.1, 0.95, 1.0]),
    top_k=st.integers(0, 1000),
    max_tokens=st.integers(1, 4096),
    stop=st.lists(ids, max_size=4).map(tuple),
    seed=st.none() | integers,
)


@st.composite
def _spans(draw: st.DrawFn, tokens: int) -> tuple[VersionSpan, ...]:
    cuts = sorted(draw(st.sets(st.integers(1, tokens - 1), max_size=3))) if tokens > 1 else []
    edges = [0, *cuts, tokens] if tokens else []
    return tuple(
        VersionSpan(
            policy_version=draw(ids),
            begin=begin,
            end=end,
            kv_history=draw(st.sampled_from(list(KvHistory) if begin == 0 else [KvHistory.KEPT, KvHistory.RECOMPUTED])),
            first_token_time=draw(st.none() | times),
        )
        for begin, end in pairwise(edges)
    )


@st.composite
def _rollouts(draw: st.DrawFn) -> Rollout:
    tokens = draw(st.integers(0, 12))
    one_each = st.lists(log_prob, min_size=tokens, max_size=tokens).map(tuple)
    token_ids = st.integers(0, 200_000)
    return Rollout(
        meta=draw(metas),
        rollout_id=draw(ids),
        conversation_id=draw(ids),
        prompt_id=draw(short),
        group_id=draw(ids),
        purpose=draw(st.sampled_from(Purpose)),
        messages=tuple(draw(st.lists(st.builds(ChatMessage, role=st.sampled_from(Role), content=texts), min_size=1))),
        tokenizer_digest=draw(short),
        template_digest=draw(short),
        prompt_token_ids=tuple(draw(st.lists(token_ids, max_size=12))),
        response_token_ids=tuple(draw(st.lists(token_ids, min_size=tokens, max_size=tokens))),
        behaviour_log_probs=draw(one_each),
        raw_log_probs=draw(st.just(()) | one_each),
        sampling=draw(samplings),
        spans=draw(_spans(tokens)),
        finish_reason=draw(st.sampled_from(FinishReason)),
        request_time=draw(times),
        first_token_time=draw(times) if tokens else None,
        end_time=draw(times),
        canary_id=draw(short),
        rater_id=draw(short),
        response_text=draw(texts),
        overflow=draw(st.none() | st.builds(ObjectReference, path=ids, sha256=sha256s, size=integers)),
    )


rollouts = _rollouts()

bodies = (
    st.builds(Thumb, up=st.booleans())
    | st.builds(Rating, stars=st.integers(1, 5))
    | st.builds(Comparison, rejected_rollout_id=ids.map(lambda value: "other-" + value))
    | st.builds(Edit, text=texts)
    | st.builds(Comment, text=texts)
)


@st.composite
def _feedbacks(draw: st.DrawFn) -> Feedback:
    retracted = draw(st.booleans())
    body = draw(st.none() | bodies if retracted else bodies)
    return Feedback(
        meta=draw(metas),
        feedback_id=draw(ids),
        rollout_id=draw(ids),
        prompt_id=draw(short),
        rater_id=draw(ids),
        kind=draw(st.sampled_from(FeedbackKind)) if body is None else BODY_KINDS[type(body)],
        body=body,
        revision=draw(integers),
        retracted=retracted,
        accept_time=draw(times),
        token_key_id=draw(short),
    )


feedbacks = _feedbacks()


@st.composite
def _scores(draw: st.DrawFn) -> Score:
    values = draw(st.integers(0, 6))
    halves = st.sampled_from([b"\x00\x3c", b"\x00\xb8", b"\x00\x00", b"\xff\x7b"])
    return Score(
        meta=draw(metas),
        rollout_id=draw(ids),
        reward_model_version=draw(ids),
        mean=draw(st.floats(0, 1, width=32)),
        spread=draw(st.floats(0, 1, width=32)),
        terms=tuple(draw(st.dictionaries(ids, st.floats(-2, 2, width=32), max_size=4)).items()),
        reference_log_probs=tuple(draw(st.lists(log_prob, max_size=12))),
        temperature=draw(st.sampled_from([0.0, 0.5, 0.8, 1.2])),
        base_model_digest=draw(short),
        features=b"".join(draw(st.lists(halves, min_size=values, max_size=values))),
        feature_layout=draw(ids),
    )


scores = _scores()

announcements = st.builds(
    Announcement,
    meta=metas,
    kind=st.sampled_from(ReleaseKind),
    epoch=integers,
    sequence=integers,
    version=ids,
    parent_version=short,
    checkpoint_path=st.from_regex(r"\A(policy|reward_model)/[0-9]{1,4}/[a-z0-9-]{1,40}\Z"),
    manifest_sha256=sha256s,
    base_model_digest=short,
    reason=st.sampled_from(AnnouncementReason),
)

id_lists = st.lists(ids, max_size=4).map(tuple)
controls = st.builds(
    Control,
    meta=metas,
    control_id=ids,
    epoch=integers,
    order=st.builds(Forget, rater_id=ids, rollout_ids=id_lists)
    | st.builds(Quarantine, rater_ids=id_lists, feedback_ids=id_lists, reason=texts)
    | st.builds(Pause, paused=st.booleans(), reason=texts),
)
