"""What the learner knows of the base model without loading it: name, digest, features, end tokens. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.shared.checkpoints import base_model_digest
from services.shared.checkpoints.models import resolve_model
from services.shared.domain import scripted_language
from services.shared.domain.errors import Misconfigured
from services.shared.reward_heads.features import feature_count, feature_layout
from services.shared.settings import Settings


@dataclass(frozen=True, kw_only=True)
class BaseIdentity:
    """The base model that policy and reward model belong to."""

    name: str
    digest: str
    feature_count: int
    feature_layout: str
    end_ids: frozenset[int]
    folder: Path | None
    """None: scripted, there is none."""


SCRIPTED = BaseIdentity(
    name=scripted_language.BASE_MODEL_NAME,
    digest=scripted_language.BASE_MODEL_DIGEST,
    feature_count=scripted_language.FEATURES,
    feature_layout=scripted_language.FEATURE_LAYOUT,
    end_ids=frozenset({scripted_language.END_TOKEN}),
    folder=None,
)


def base_identity(settings: Settings) -> BaseIdentity:
    """Read from the model's folder; the first time its weights are hashed. Raises Misconfigured."""
    if settings.learner.trainer == "scripted":
        return SCRIPTED
    return identity_of(resolve_model(settings.model))


def identity_of(folder: Path) -> BaseIdentity:
    """The identity of a Hugging Face model folder. Raises Misconfigured where its config.json lacks something."""
    config = json.loads((folder / "config.json").read_text())
    try:
        hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    except KeyError as error:
        raise Misconfigured(
            f"{folder / 'config.json'} has no {error}; name a decoder-only causal language model."
        ) from (error)
    return BaseIdentity(
        name=folder.name,
        digest=base_model_digest(folder),
        feature_count=feature_count(hidden),
        feature_layout=feature_layout(hidden, layers),
        end_ids=_end_ids(folder, config),
        folder=folder,
    )


def _end_ids(folder: Path, config: dict[str, Any]) -> frozenset[int]:
    """Tokens that end a response: the generation config's word goes before the model's."""
    generation = folder / "generation_config.json"
    found = json.loads(generation.read_text()).get("eos_token_id") if generation.is_file() else None
    if found is None:
        found = config.get("eos_token_id")
    if found is None:
        raise Misconfigured(f"{folder} names no eos_token_id in generation_config.json or config.json.")
    return frozenset(found if isinstance(found, list) else [found])
