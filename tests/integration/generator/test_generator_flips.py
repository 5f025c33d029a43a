"""Releases under load.

Plan: clients ask without pause while ten releases are announced one after another, each when the one before is live.
Pass: no request is refused, no answer is cut, every rollout's spans cover its tokens, and there are answers that
crossed a flip, whose log-probs are those of the versions that their spans name.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.generator.engines.scripted_language import TOKENS, log_probs_V
from services.shared.bus.interface import Bus
from services.shared.domain.rollout import FinishReason, KvHistory, Rollout
from services.shared.domain.scripted_language import END_TOKEN
from tests.support.generator_room import generate_request, generator_room

RELEASES = 10
CLIENTS = 12


async def test_flips_under_load_refuse_and_cut_nothing(any_bus: Bus, tmp_path: Path) -> None:
    async with generator_room(any_bus, tmp_path, interval_s=0.002) as generator:
        over = asyncio.Event()
        asked: list[str] = []

        async def client(number: int) -> None:
            while not over.is_set():
                request = generate_request(f"Client {number}, question {len(asked)}?", max_tokens=60, seed=None)
                asked.append(request.rollout_id)
                await generator.answer(request)

        clients = [asyncio.create_task(client(number)) for number in range(CLIENTS)]
        for _ in range(RELEASES):
            version = await generator.release()
            answer = await generator.answer(generate_request())
            assert answer.started.policy_version == version
        over.set()
        await asyncio.gather(*clients)
        rollouts = await generator.rollouts(len(asked) + RELEASES)
        assert set(asked) <= rollouts.keys()
    for rollout in rollouts.values():
        _check(rollout)
    crossed = [rollout for rollout in rollouts.values() if len(rollout.spans) > 1]
    assert crossed
    assert generator.metrics.value("thumbloop_release_flips_total", kind="policy") == RELEASES + 1


def _check(rollout: Rollout) -> None:
    length = len(rollout.response_token_ids)
    assert rollout.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
    assert length == rollout.sampling.max_tokens or rollout.response_token_ids[-1] == END_TOKEN
    assert rollout.spans[0].kv_history is KvHistory.FRESH
    assert all(span.kv_history is KvHistory.KEPT for span in rollout.spans[1:])
    versions = [span.policy_version for span in rollout.spans for _ in range(span.begin, span.end)]
    previous = (rollout.prompt_token_ids[-1], *rollout.response_token_ids)
    for index, (version, token) in enumerate(zip(versions, rollout.response_token_ids, strict=True)):
        true = log_probs_V(version, previous[index], 1.0, 0, 1.0)[TOKENS.index(token)]
        assert abs(true - rollout.behaviour_log_probs[index]) < 1e-5
