"""Which thumbs are new to the reward model: senders choose feedback ids, and choose the same ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from services.learner.ports import RatedExample
from services.learner.reward_training.settings import RewardTrainingSettings
from services.learner.trainer.heads_learner import PREQUENTIAL_FILE, HeadsLearner
from tests.support.facts import at

FEATURES = 4


def make_learner() -> HeadsLearner:
    return HeadsLearner(RewardTrainingSettings(), feature_count=FEATURES, feature_layout="tiny")


def thumbs(rater: str, rollouts: range) -> list[RatedExample]:
    """A front end that counts each user's feedback from 0 to 4, over and over."""
    examples = []
    for number in rollouts:
        up = number % 2 == 0
        features = np.full(FEATURES, 1.0 if up else -1.0, dtype="<f2")
        examples.append(
            RatedExample(
                rollout_id=f"r{number}",
                feedback_id=str(number % 5),
                rater_id=rater,
                up=up,
                accept_time=at(number),
                features=features.tobytes(),
                feature_layout="tiny",
            )
        )
    return examples


@pytest.fixture
def learner() -> HeadsLearner:
    learner = make_learner()
    assert learner.train(thumbs("a", range(20))) is not None
    return learner


def saved(learner: HeadsLearner, folder: Path) -> Path:
    folder.mkdir()
    learner.save(folder)
    return folder


def test_another_raters_thumbs_under_the_same_ids_are_new_and_are_tested_on(learner: HeadsLearner) -> None:
    others = thumbs("b", range(20, 70))
    assert learner.unseen(others) == 50
    update = learner.train(thumbs("a", range(20)) + others)
    assert update is not None and update.metrics["thumbs_new"] == 50
    assert learner.unseen(others) == 0


@pytest.mark.parametrize("other", [("b", range(20)), ("a", range(100, 120))])
def test_rater_and_rollout_are_part_of_a_thumbs_name(learner: HeadsLearner, other: tuple[str, range]) -> None:
    assert learner.unseen(thumbs("a", range(20))) == 0
    assert learner.unseen(thumbs(*other)) == 20


def test_a_restored_release_knows_what_it_has_seen(learner: HeadsLearner, tmp_path: Path) -> None:
    folder = saved(learner, tmp_path / "release")
    again = make_learner()
    again.restore(folder, rollout_ids=[], feedback_ids=[])
    assert (again.unseen(thumbs("a", range(20))), again.unseen(thumbs("b", range(20)))) == (0, 20)
    assert (
        saved(again, tmp_path / "again").joinpath(PREQUENTIAL_FILE).read_text()
        == (folder / PREQUENTIAL_FILE).read_text()
    )


def test_a_release_holds_no_pseudonym(learner: HeadsLearner, tmp_path: Path) -> None:
    examples = thumbs("a-certain-pseudonym", range(20))
    assert learner.train(examples) is not None
    files = [path for path in saved(learner, tmp_path / "release").rglob("*") if path.is_file()]
    assert files and not any(b"a-certain-pseudonym" in path.read_bytes() for path in files)


def test_a_release_without_that_record_goes_by_its_manifest(learner: HeadsLearner, tmp_path: Path) -> None:
    folder = saved(learner, tmp_path / "release")
    record = json.loads((folder / PREQUENTIAL_FILE).read_text())
    del record["seen"]
    (folder / PREQUENTIAL_FILE).write_text(json.dumps(record))
    mine = thumbs("a", range(20))
    again = make_learner()
    again.restore(
        folder,
        rollout_ids=[example.rollout_id for example in mine],
        feedback_ids=[example.feedback_id for example in mine],
    )
    assert (again.unseen(mine), again.unseen(thumbs("b", range(20, 70)))) == (0, 50)
