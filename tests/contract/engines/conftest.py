from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from services.generator.engines.continuous_batching import ContinuousBatchingEngine
from services.generator.engines.interface import Engine
from services.generator.engines.scripted import ScriptedEngine
from services.shared.domain.scripted_language import END_TOKEN
from services.shared.ids import utc_now
from tests.contract.engines.cases import VERSIONS, EngineCase, model_recompute, scripted_recompute
from tests.support.policy_releases import write_adapter
from tests.support.tiny_model import build_tiny_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    """v0 is the base model, v1 and v2 have different adapters in different layers."""
    root = tmp_path_factory.mktemp("releases")
    (root / "v0").mkdir()
    write_adapter(root / "v1", tiny_model, seed=1, size=0.3, layers=2)
    write_adapter(root / "v2", tiny_model, seed=2, size=0.3, layers=1)
    return {version: root / version for version in VERSIONS}


@pytest.fixture(params=["scripted", "continuous-batching"])
async def case(
    request: pytest.FixtureRequest, tiny_model: Path, releases: dict[str, Path], device: str
) -> AsyncIterator[EngineCase]:
    engine: Engine
    if request.param == "scripted":
        engine = ScriptedEngine(clock=utc_now, interval_s=0.001, context_tokens=512)
        built = EngineCase(engine=engine, releases=releases, recompute=scripted_recompute, end_token=END_TOKEN)
    else:
        engine = ContinuousBatchingEngine(
            model_dir=tiny_model, clock=utc_now, device=device, context_tokens=512, max_batch_tokens=64
        )
        built = EngineCase(
            engine=engine, releases=releases, recompute=model_recompute(tiny_model, releases), end_token=2
        )
    await engine.start()
    yield built
    await engine.stop()
