"""A policy learner that learns nothing, for tests of everything around learning.

Each update makes a release of other content, of a real adapter's form but a few bytes long, and says of itself what the
gate likes to hear. Claims, scores, checkpoints, candidates and lineage are the real ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from services.learner.trainer.learners import PolicyUpdate, ScoredExperience
from services.shared.checkpoints.adapters import ADAPTER_FILE, ADAPTER_SETTINGS_FILE

STATE_FILE = "trainer/scripted.json"
_MODULE = "scripted"


class ScriptedPolicy:
    """Its whole state is a digest chained over all batches and their number."""

    settings: Mapping[str, Any] = {"algorithm": "scripted"}
    kept_rollouts: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._updates = 0
        self._digest = hashlib.sha256(b"").hexdigest()

    @property
    def state(self) -> tuple[int, str]:
        """Updates since release 0, and the digest over their batches."""
        return self._updates, self._digest

    def reset(self) -> None:
        """Becomes release 0."""
        self._updates, self._digest = 0, hashlib.sha256(b"").hexdigest()

    def restore(self, folder: Path) -> None:
        """Goes on from a release."""
        record = json.loads((folder / STATE_FILE).read_text())
        self._updates, self._digest = int(record["updates"]), str(record["digest"])

    def update(self, batch: Sequence[ScoredExperience]) -> PolicyUpdate:
        """Chains the batch's rollout ids into the digest."""
        chained = hashlib.sha256(self._digest.encode())
        for item in batch:
            chained.update(item.experience.rollout.rollout_id.encode())
        self._updates, self._digest = self._updates + 1, chained.hexdigest()
        return PolicyUpdate(metrics={"updates": float(self._updates)})

    def measure(self, batch: Sequence[ScoredExperience]) -> Mapping[str, float]:
        """As if the policy were the reference still, which it is."""
        return {"finite": 1.0, "kl_per_answer": 0.0, "distinct2_ratio": 1.0, "entropy_ratio": 1.0}

    def forget(self, rollout_ids: Collection[str]) -> None:
        """Keeps nothing of anybody."""

    def save(self, folder: Path) -> Mapping[str, Path]:
        """A rank-1 adapter whose numbers are the digest's bytes, and the state."""
        numbers = np.frombuffer(bytes.fromhex(self._digest), dtype=np.uint8).astype(np.float32)
        adapter, settings, state = folder / ADAPTER_FILE, folder / ADAPTER_SETTINGS_FILE, folder / STATE_FILE
        save_file(
            {f"{_MODULE}.lora_A": numbers[None, :], f"{_MODULE}.lora_B": np.zeros((1, 1), np.float32)}, str(adapter)
        )
        settings.write_text(
            json.dumps({"format": 1, "rank": 1, "alpha": 1.0, "scale": 1.0, "modules": [_MODULE]}) + "\n"
        )
        state.parent.mkdir()
        state.write_text(json.dumps({"updates": self._updates, "digest": self._digest}) + "\n")
        return {ADAPTER_FILE: adapter, ADAPTER_SETTINGS_FILE: settings, STATE_FILE: state}
