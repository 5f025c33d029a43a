"""What every engine promises, scripted and real alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.generator.engines.interface import EngineEvent, EngineFinished, EngineToken, spans_of
from services.shared.domain.errors import FailedPrecondition, InvalidInput, Unavailable
from services.shared.domain.rollout import FinishReason, KvHistory, Sampling
from tests.contract.engines.cases import LONG_SEEDS, EngineCase, collect, plain, request, split


async def test_nothing_is_drawn_before_a_version_is_live(case: EngineCase) -> None:
    with pytest.raises(FailedPrecondition):
        case.engine.submit(request("early", plain()))


async def test_a_response_runs_to_its_length(case: EngineCase) -> None:
    await asyncio.to_thread(case.go_live, "v0")
    tokens, finished = await collect(case.engine, request("one", plain(24, seed=3)))
    assert len(tokens) == 24 or tokens[-1].token_id == case.end_token
    assert finished.reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert {token.policy_version for token in tokens} == {"v0"}
    assert all(token.log_prob <= 0 and token.raw_log_prob is not None for token in tokens)
    assert [token.time for token in tokens] == sorted(token.time for token in tokens)


async def test_an_end_token_ends_the_response_and_belongs_to_it(case: EngineCase) -> None:
    await asyncio.to_thread(case.go_live, "v0")
    results = await asyncio.gather(*(collect(case.engine, request(f"r{i}", plain(400, seed=i))) for i in range(12)))
    stopped = [tokens for tokens, finished in results if finished.reason is FinishReason.STOP]
    assert stopped
    for tokens in stopped:
        assert tokens[-1].token_id == case.end_token
        assert case.end_token not in [token.token_id for token in tokens[:-1]]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
async def test_log_probs_are_of_the_distribution_drawn_from(case: EngineCase, temperature: float) -> None:
    await asyncio.to_thread(case.go_live, "v1")
    tokens, _ = await collect(case.engine, request("exact", plain(32, temperature=temperature, seed=1)))
    spans = spans_of(tokens, KvHistory.KEPT)
    ids = [token.token_id for token in tokens]
    assert case.recompute(ids, spans, temperature) == pytest.approx([t.log_prob for t in tokens], abs=1e-3)
    assert case.recompute(ids, spans, 1.0) == pytest.approx([t.raw_log_prob for t in tokens], abs=1e-3)


async def test_a_flip_in_the_middle_of_answers_cuts_none_and_every_log_prob_can_be_recomputed(case: EngineCase) -> None:
    await asyncio.to_thread(case.go_live, "v0")
    case.engine.stage("v1", case.releases["v1"])
    case.engine.verify("v1")
    # An answer that ends by itself before the flip would prove nothing: ask until enough cross it.
    crossed = 0
    for attempt in range(8):
        first, second = ("v0", "v1") if attempt % 2 == 0 else ("v1", "v0")
        streams = [case.engine.submit(request(f"a{attempt}-{i}", plain(200))) for i in range(6)]
        heads: list[list[EngineToken]] = []
        for stream in streams:
            heads.append([event for event in await _take(stream, 5) if isinstance(event, EngineToken)])
        await asyncio.to_thread(case.go_live, second)
        for head, stream in zip(heads, streams, strict=True):
            rest = [event async for event in stream] if len(head) == 5 else []
            if not rest:
                continue
            tokens, finished = split([*head, *rest])
            assert finished.reason in (FinishReason.STOP, FinishReason.LENGTH)
            spans = spans_of(tokens, case.engine.capabilities.kv_at_flip)
            assert [span.policy_version for span in spans] in ([first], [first, second])
            if len(spans) < 2:
                continue
            crossed += 1
            assert (spans[0].begin, spans[-1].end) == (0, len(tokens))
            ids = [token.token_id for token in tokens]
            said = [token.log_prob for token in tokens]
            assert case.recompute(ids, spans, 1.0) == pytest.approx(said, abs=1e-3)
            wrong = tuple(replace(span, policy_version=first) for span in spans)
            far = [abs(a - b) for a, b in zip(case.recompute(ids, wrong, 1.0), said, strict=True)]
            assert max(far[spans[1].begin :]) > 0.05
        if crossed >= 6:
            return
    pytest.fail(f"only {crossed} answers crossed a flip")


async def _take(stream: AsyncIterator[EngineEvent], count: int) -> list[EngineEvent]:
    """The first events, at most `count`; the stream can be read on."""
    taken: list[EngineEvent] = []
    while len(taken) < count and not (taken and isinstance(taken[-1], EngineFinished)):
        taken.append(await anext(stream))
    return taken


async def test_flips_under_load_lose_nothing(case: EngineCase) -> None:
    await asyncio.to_thread(case.go_live, "v0")
    answers = asyncio.gather(*(collect(case.engine, request(f"r{i}", plain(100))) for i in range(16)))
    for version in ("v1", "v2", "v0", "v1"):
        await asyncio.to_thread(case.go_live, version)
        assert case.engine.live_version == version
    for tokens, finished in await answers:
        assert finished.reason in (FinishReason.STOP, FinishReason.LENGTH)
        assert len(tokens) == 100 or tokens[-1].token_id == case.end_token


async def test_a_version_that_was_not_staged_cannot_go_live(case: EngineCase) -> None:
    await asyncio.to_thread(case.go_live, "v0")
    with pytest.raises(FailedPrecondition):
        case.engine.flip("v2")
    assert case.engine.live_version == "v0"


async def test_staging_and_flipping_again_change_nothing(case: EngineCase) -> None:
    for _ in range(2):
        await asyncio.to_thread(case.go_live, "v1")
    assert case.engine.live_version == "v1"


async def test_cancelling_ends_one_request_alone(case: EngineCase) -> None:
    await asyncio.to_thread(case.go_live, "v0")
    asked = [request(f"r{i}", plain(300, seed=seed)) for i, seed in enumerate(LONG_SEEDS)]
    gone = case.engine.submit(asked[0])
    others = [asyncio.create_task(collect(case.engine, one)) for one in asked[1:]]
    seen = await _take(gone, 2)
    case.engine.cancel("r0")
    tokens, finished = split([*seen, *[event async for event in gone]])
    assert finished.reason is FinishReason.CANCELLED
    assert len(tokens) >= 2
    for task in others:
        assert (await task)[1].reason in (FinishReason.STOP, FinishReason.LENGTH)
    case.engine.cancel("r0")
    case.engine.cancel("never seen")


async def test_any_mix_of_sampling_parameters_runs_together(case: EngineCase) -> None:
    await asyncio.to_thread(case.go_live, "v0")
    mixes = [
        Sampling(temperature=0, max_tokens=8),
        Sampling(temperature=0.01, max_tokens=8),
        Sampling(temperature=2, top_k=1, max_tokens=8),
        Sampling(temperature=1, top_p=0.001, max_tokens=8),
        Sampling(temperature=1, top_p=0.5, top_k=3, max_tokens=8, seed=2**63 - 1),
        Sampling(temperature=1, top_k=2**31 - 1, max_tokens=1),
    ]
    answers = await asyncio.gather(*(collect(case.engine, request(f"m{i}", mix)) for i, mix in enumerate(mixes)))
    for mix, (tokens, finished) in zip(mixes, answers, strict=True):
        assert finished.reason in (FinishReason.STOP, FinishReason.LENGTH)
        assert 1 <= len(tokens) <= mix.max_tokens
    sure = [answers[index][0] for index in (0, 2, 3)]
    assert [token.token_id for token in sure[0]] == [token.token_id for token in sure[1]]
    assert [token.token_id for token in sure[0]] == [token.token_id for token in sure[2]]
    assert all(token.log_prob == 0.0 for tokens in sure for token in tokens)


async def test_the_same_seed_draws_the_same_response(case: EngineCase) -> None:
    await asyncio.to_thread(case.go_live, "v0")
    ids = []
    for name in ("first", "second"):
        tokens, _ = await collect(case.engine, request(name, plain(16, seed=7)))
        ids.append([token.token_id for token in tokens])
    other, _ = await collect(case.engine, request("other", plain(16, seed=8)))
    assert ids[0] == ids[1] != [token.token_id for token in other]


@pytest.mark.parametrize(
    ("sampling", "prompt", "field"),
    [
        (plain(500), tuple(range(20)), "sampling.max_tokens"),
        (plain(1), tuple([65] * 600), "messages"),
        (plain(1), (), "messages"),
        (plain(8, temperature=0.001), (65,), "sampling.temperature"),
    ],
)
async def test_what_cannot_be_drawn_is_refused_by_name(
    case: EngineCase, sampling: Sampling, prompt: tuple[int, ...], field: str
) -> None:
    await asyncio.to_thread(case.go_live, "v0")
    with pytest.raises(InvalidInput) as refused:
        case.engine.submit(request("bad", sampling, prompt))
    assert refused.value.field == field
    assert (await collect(case.engine, request("good", plain(4))))[1].reason is not FinishReason.ERROR


async def test_draining_finishes_what_runs_and_takes_no_more(case: EngineCase) -> None:
    await asyncio.to_thread(case.go_live, "v0")
    running = asyncio.create_task(collect(case.engine, request("last", plain(50, seed=1))))
    await asyncio.sleep(0)
    await case.engine.drain(30.0)
    assert running.done() or (await running)[1].reason is not FinishReason.CANCELLED
    with pytest.raises(Unavailable):
        case.engine.submit(request("late", plain()))


async def test_stopping_ends_what_runs_as_cancelled(case: EngineCase) -> None:
    await asyncio.to_thread(case.go_live, "v0")
    stream = case.engine.submit(request("cut", plain(400, seed=2)))
    first = await anext(stream)
    await case.engine.stop()
    _, finished = split([first, *[event async for event in stream]])
    assert finished.reason is FinishReason.CANCELLED
    await case.engine.stop()
