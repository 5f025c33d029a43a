"""Heads learn a taste from few noisy thumbs, are tested before they are trained, and no rater rules."""

import numpy as np
import pytest

from services.learner.reward_training import reward_trainer
from services.learner.reward_training.prequential import PrequentialReport, PrequentialTest
from services.learner.reward_training.reward_trainer import RewardTrainer
from services.learner.reward_training.settings import RewardTrainingSettings
from services.learner.reward_training.skill_gate import why_no_skill
from services.learner.reward_training.thumbs import Thumb, ThumbTable, capped_weights, table
from services.learner.reward_training.train_heads import _rotate, train_heads
from services.shared.reward_heads.fold_design import left_out_HB
from services.shared.reward_heads.heads import RewardHeads
from services.shared.reward_heads.scoring import score

FEATURES = 60
SETTINGS = RewardTrainingSettings()


def _thumbs(count: int, *, seed: int = 0, noise: float = 0.1, features: int = FEATURES) -> list[Thumb]:
    """Users who like a large first feature, and say the opposite in `noise` of the cases."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(count):
        features_F = random.normal(size=features)
        up = bool(features_F[0] > 0.4) ^ bool(random.random() < noise)
        made.append(Thumb(rollout_id=f"{seed}-{index}", rater=f"rater-{index % 24}", up=up, features_F=features_F))
    return made


def test_heads_learn_the_taste_and_are_calibrated() -> None:
    heads = train_heads(table(_thumbs(300), 0.2), SETTINGS)
    fresh = _thumbs(2000, seed=1)
    test = PrequentialTest(window=2000)
    predicted = score(heads, np.stack([thumb.features_F for thumb in fresh]), [thumb.rollout_id for thumb in fresh])
    test.record(predicted.mean_B.tolist(), [thumb.up for thumb in fresh])
    report = test.report()
    assert report.auroc > 0.75
    assert report.ece < 0.08


def test_a_head_never_learns_from_what_it_leaves_out() -> None:
    """Turning a rollout's thumb round leaves the weights of its judges, on a fixed penalty, exactly as they were."""
    settings = RewardTrainingSettings(penalties=(0.1,), middle_weights=(0.3,))
    thumbs = _thumbs(60)
    turned = [*thumbs]
    turned[7] = Thumb(
        rollout_id=thumbs[7].rollout_id,
        rater=thumbs[7].rater,
        up=not thumbs[7].up,
        features_F=thumbs[7].features_F,
    )
    judges_H = left_out_HB([thumbs[7].rollout_id])[:, 0]
    before, after = (train_heads(table(made, 1.0), settings) for made in (thumbs, turned))
    np.testing.assert_array_equal(before.weights_HF[judges_H], after.weights_HF[judges_H])
    assert np.abs(before.weights_HF[~judges_H] - after.weights_HF[~judges_H]).max() > 1e-4


def test_too_few_thumbs_of_a_sign_give_heads_that_know_nothing() -> None:
    thumbs = [thumb for thumb in _thumbs(40) if not thumb.up]
    assert train_heads(table(thumbs, 0.2), SETTINGS).knows_nothing


def test_the_rotation_is_one_whether_thumbs_or_features_are_more() -> None:
    random = np.random.default_rng(3)
    for shape in ((20, 50), (50, 20)):
        standard = random.normal(size=shape)
        rotated, basis = _rotate(standard)
        assert basis.shape == (20, shape[1])
        np.testing.assert_allclose(basis @ basis.T, np.eye(20), atol=1e-9)
        np.testing.assert_allclose(rotated @ basis, standard, atol=1e-9)


def test_a_backlog_is_tested_in_a_bounded_number_of_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []

    def count(made: ThumbTable, settings: RewardTrainingSettings) -> RewardHeads:
        trained.append(len(made.rollout_ids))
        return RewardHeads.zero(4)

    monkeypatch.setattr(reward_trainer, "train_heads", count)
    RewardTrainer(SETTINGS).cycle(RewardHeads.zero(4), _thumbs(2, features=4), _thumbs(24, seed=1, features=4))
    assert trained == [10, 18, 26]
    trained.clear()
    RewardTrainer(SETTINGS).cycle(RewardHeads.zero(4), [], _thumbs(1000, features=4))
    assert len(trained) == 16 and trained[-1] == 1000


def test_where_much_is_known_few_new_thumbs_make_few_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training costs what all thumbs cost: 48 new ones in chunks of eight would make six of them."""
    trainings = []

    def count(thumbs: ThumbTable, settings: RewardTrainingSettings) -> RewardHeads:
        trainings.append(len(thumbs.rollout_ids))
        return RewardHeads.zero(FEATURES)

    monkeypatch.setattr(reward_trainer, "train_heads", count)
    RewardTrainer(SETTINGS).cycle(RewardHeads.zero(FEATURES), _thumbs(600), _thumbs(48, seed=1))
    assert trainings == [630, 648]


def test_one_rater_is_capped() -> None:
    features = np.zeros(2)
    thumbs = [
        Thumb(rollout_id=str(index), rater="loud" if index < 80 else f"calm-{index}", up=True, features_F=features)
        for index in range(100)
    ]
    weights = capped_weights(thumbs, 0.2)
    assert weights[:80].sum() == pytest.approx(0.2 * weights.sum())
    assert weights[80:].tolist() == [1.0] * 20


def test_with_too_few_raters_all_count_alike() -> None:
    features = np.zeros(2)
    thumbs = [
        Thumb(rollout_id=str(index), rater="a" if index < 9 else "b", up=True, features_F=features)
        for index in range(12)
    ]
    weights = capped_weights(thumbs, 0.2)
    assert weights[:9].sum() == pytest.approx(weights[9:].sum())
    assert weights.sum() > 0


def test_prequential_figures_by_hand() -> None:
    test = PrequentialTest(window=4)
    test.record([0.99, 0.1, 0.4, 0.35, 0.8], [False, False, False, True, True])
    report = test.report()  # the first has left the window; of four pairs three are in order
    assert (report.thumbs_up, report.thumbs_down) == (2, 2)
    assert report.auroc == pytest.approx(0.75)
    assert 0.0 <= report.auroc_low95 < 0.6
    assert report.ece == pytest.approx((0.1 + 0.4 + 0.65 + 0.2) / 4)
    again = PrequentialTest(window=4)
    again.load_state(test.state())
    assert again.report() == report


def test_no_prediction_no_skill() -> None:
    report = PrequentialTest(window=10).report()
    assert (report.auroc, report.auroc_low95) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("ups", "downs", "low", "reason"),
    [(9, 40, 0.9, "9 thumbs of the rarer sign"), (10, 10, 0.6, "lower bound"), (10, 10, 0.61, "")],
)
def test_skill_gate(ups: int, downs: int, low: float, reason: str) -> None:
    report = PrequentialReport(thumbs_up=5, thumbs_down=5, auroc=0.9, auroc_low95=low, ece=0.0)
    why = why_no_skill(report, ups, downs, SETTINGS)
    assert why.startswith(reason) if reason else why == ""


def test_cycles_prove_skill_only_on_thumbs_not_yet_trained_on() -> None:
    trainer = RewardTrainer(SETTINGS)
    thumbs = _thumbs(96)
    first = trainer.cycle(RewardHeads.zero(FEATURES), [], thumbs[:24])
    assert first.tested.thumbs_up + first.tested.thumbs_down <= 16
    assert first.no_skill
    last = first
    for start in (24, 48, 72):
        last = trainer.cycle(last.heads, thumbs[:start], thumbs[start : start + 24])
    assert last.thumbs == 96
    assert last.tested.auroc > 0.6
    random = _thumbs(96, noise=0.5)
    blind = RewardTrainer(SETTINGS).cycle(RewardHeads.zero(FEATURES), [], random)
    assert "lower bound" in blind.no_skill
