"""An engine under test together with releases that it can serve and a way to check its log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.generator.engines.interface import Engine, EngineEvent, EngineFinished, EngineRequest, EngineToken
from services.generator.engines.scripted_language import TOKENS, log_probs_V
from services.shared.domain.rollout import Sampling, VersionSpan
from tests.support.policy_releases import plain_model, recompute_log_probs

VERSIONS = ("v0", "v1", "v2")
PROMPT = tuple(range(65, 85))
LONG_SEEDS = (2, 12, 23)
"""With them v0 of either engine draws 300 tokens after PROMPT, and more: such an answer does not end by itself."""


class Recompute(Protocol):
    def __call__(self, response: Sequence[int], spans: Sequence[VersionSpan], temperature: float) -> list[float]: ...


@dataclass(frozen=True, kw_only=True)
class EngineCase:
    """`releases` maps each of VERSIONS to its folder."""

    engine: Engine
    releases: dict[str, Path]
    recompute: Recompute
    end_token: int

    def go_live(self, version: str) -> None:
        self.engine.stage(version, self.releases[version])
        self.engine.verify(version)
        self.engine.flip(version)


def plain(max_tokens: int = 24, *, temperature: float = 1.0, seed: int | None = None) -> Sampling:
    return Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)


def request(name: str, sampling: Sampling, prompt: tuple[int, ...] = PROMPT) -> EngineRequest:
    return EngineRequest(request_id=name, prompt_token_ids=prompt, sampling=sampling)


async def collect(engine: Engine, asked: EngineRequest) -> tuple[list[EngineToken], EngineFinished]:
    return split([event async for event in engine.submit(asked)])


def split(events: Sequence[EngineEvent]) -> tuple[list[EngineToken], EngineFinished]:
    finished = events[-1]
    assert isinstance(finished, EngineFinished)
    tokens = [event for event in events if isinstance(event, EngineToken)]
    assert len(tokens) == len(events) - 1
    return tokens, finished


def scripted_recompute(response: Sequence[int], spans: Sequence[VersionSpan], temperature: float) -> list[float]:
    previous = [PROMPT[-1], *response[:-1]]
    versions = [span.policy_version for span in spans for _ in range(span.begin, span.end)]
    return [
        log_probs_V(version, before, temperature, 0, 1.0)[TOKENS.index(token)]
        for version, before, token in zip(versions, previous, response, strict=True)
    ]


def model_recompute(model_dir: Path, releases: dict[str, Path]) -> Recompute:
    models = {version: plain_model(model_dir, folder) for version, folder in releases.items()}

    def recompute(response: Sequence[int], spans: Sequence[VersionSpan], temperature: float) -> list[float]:
        return recompute_log_probs(models, prompt=PROMPT, response=response, spans=spans, temperature=temperature)

    return recompute
