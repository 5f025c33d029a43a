"""The embedded reward model as the cycle sees it: sixteen heads, their test, and the thumbs they have seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from services.learner.ports import RatedExample
from services.learner.reward_training.reward_trainer import RewardTrainer
from services.learner.reward_training.settings import RewardTrainingSettings
from services.learner.reward_training.skill_gate import why_no_skill
from services.learner.reward_training.thumbs import Thumb
from services.learner.trainer.learners import RewardUpdate
from services.learner.trainer.seen_thumbs import SeenThumbs
from services.shared.reward_heads.heads import RewardHeads
from services.shared.reward_heads.storage import load_heads, save_heads

PREQUENTIAL_FILE = "trainer/prequential.json"


class HeadsLearner:
    """Holds one version of the heads. Thumbs of another feature layout are left out."""

    def __init__(
        self,
        settings: RewardTrainingSettings,
        *,
        feature_count: int,
        feature_layout: str,
        safe_point: Callable[[], None] = lambda: None,
    ) -> None:
        """`safe_point` is called between the fits of a training; after what it raises, restore."""
        self._settings = settings
        self._feature_count = feature_count
        self._feature_layout = feature_layout
        self._safe_point = safe_point
        self._trainer = RewardTrainer(settings, safe_point)
        self._heads = RewardHeads.zero(feature_count)
        self._seen = SeenThumbs()
        self._ups = self._downs = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        """Training settings and the features' layout."""
        return {**_json_values(asdict(self._settings)), "feature_layout": self._feature_layout}

    def reset(self) -> None:
        """Becomes release 0."""
        self._trainer = RewardTrainer(self._settings, self._safe_point)
        self._heads = RewardHeads.zero(self._feature_count)
        self._seen = SeenThumbs()
        self._ups = self._downs = 0

    def restore(self, folder: Path, *, rollout_ids: Sequence[str], feedback_ids: Sequence[str]) -> None:
        """Becomes a release written by `save`."""
        trainer = RewardTrainer(self._settings, self._safe_point)
        record = json.loads((folder / PREQUENTIAL_FILE).read_text())
        trainer.prequential.load_state([(float(p), bool(up)) for p, up in record["window"]])
        self._heads = load_heads(folder)
        self._trainer = trainer
        marks = record.get("seen")
        self._seen = SeenThumbs.of_manifest(rollout_ids, feedback_ids) if marks is None else SeenThumbs.load(marks)
        self._ups, self._downs = int(record["ups"]), int(record["downs"])

    def unseen(self, examples: Sequence[RatedExample]) -> int:
        """How many of these thumbs it has not been trained on."""
        return sum(self._usable(example) and example not in self._seen for example in examples)

    def train(self, examples: Sequence[RatedExample]) -> RewardUpdate | None:
        """Tests on the unseen, oldest first, then trains on all; what was retracted since is no longer among them."""
        usable = [example for example in examples if self._usable(example)]
        known: list[Thumb] = []
        new: list[Thumb] = []
        for example in usable:
            (known if example in self._seen else new).append(_thumb(example))
        if not new:
            return None
        cycle = self._trainer.cycle(self._heads, known, new)
        if cycle.heads.knows_nothing:
            return None
        self._heads = cycle.heads
        self._seen = SeenThumbs(usable)
        self._ups = sum(example.up for example in usable)
        self._downs = len(usable) - self._ups
        return RewardUpdate(
            rollout_ids=tuple(dict.fromkeys(example.rollout_id for example in usable)),
            feedback_ids=tuple(example.feedback_id for example in usable),
            metrics={
                "auroc": cycle.tested.auroc,
                "auroc_low95": cycle.tested.auroc_low95,
                "ece": cycle.tested.ece,
                "thumbs": float(len(usable)),
                "thumbs_new": float(len(new)),
                "thumbs_up_rate": self._ups / len(usable),
            },
        )

    def no_skill(self) -> str:
        """Why PPO must wait; empty where the heads have proved skill."""
        return why_no_skill(self._trainer.prequential.report(), self._ups, self._downs, self._settings)

    def tested(self) -> tuple[float, float] | None:
        """Prequential AUROC and its lower 95% bound; None before both signs were met."""
        report = self._trainer.prequential.report()
        return (report.auroc, report.auroc_low95) if report.thumbs_up and report.thumbs_down else None

    def save(self, folder: Path) -> Mapping[str, Path]:
        """Heads for whoever scores, the prequential record with what has been seen for whoever goes on training."""
        arrays, settings = save_heads(self._heads, folder)
        window = folder / PREQUENTIAL_FILE
        window.parent.mkdir()
        record = {
            "window": self._trainer.prequential.state(),
            "ups": self._ups,
            "downs": self._downs,
            "seen": self._seen.saved(),
        }
        window.write_text(json.dumps(record) + "\n")
        return {arrays.name: arrays, settings.name: settings, PREQUENTIAL_FILE: window}

    def _usable(self, example: RatedExample) -> bool:
        return example.feature_layout == self._feature_layout and len(example.features) == 2 * self._feature_count


def _thumb(example: RatedExample) -> Thumb:
    return Thumb(
        rollout_id=example.rollout_id,
        rater=example.rater_id,
        up=example.up,
        features_F=np.frombuffer(example.features, dtype="<f2"),
    )


def _json_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
