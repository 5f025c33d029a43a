"""The fold design, scoring by heads that never saw the rollout, and what a release of heads holds."""

from pathlib import Path

import numpy as np
import pytest

from services.shared.reward_heads.features import feature_count, middle_layers
from services.shared.reward_heads.fold_design import BUCKETS, HEADS, LEFT_OUT_BUCKETS, bucket_of, left_out_HB
from services.shared.reward_heads.heads import RewardHeads
from services.shared.reward_heads.scoring import score
from services.shared.reward_heads.storage import load_heads, save_heads

IDS = [f"0190b8a0-0000-7000-8000-{index:012d}" for index in range(900)]


def test_every_head_leaves_out_a_third_and_every_bucket_has_four_judges() -> None:
    assert len(LEFT_OUT_BUCKETS) == HEADS == 16
    assert all(len(set(buckets)) == 3 for buckets in LEFT_OUT_BUCKETS)
    assert len(set(LEFT_OUT_BUCKETS)) == HEADS
    for bucket in range(BUCKETS):
        assert sum(bucket in buckets for buckets in LEFT_OUT_BUCKETS) >= 4
    left_out = left_out_HB(IDS)
    assert left_out.sum(axis=0).min() >= 4
    np.testing.assert_allclose(left_out.mean(axis=1), 1 / 3, atol=0.05)


def test_the_first_twelve_are_the_lines_of_a_plane() -> None:
    """Any two buckets are left out together by exactly one of them."""
    for first in range(BUCKETS):
        for second in range(first):
            assert sum({first, second} <= set(buckets) for buckets in LEFT_OUT_BUCKETS[:12]) == 1


def test_buckets_never_change() -> None:
    """Old releases were trained under this hash: changing it would let heads judge what they were trained on."""
    assert [bucket_of(name) for name in ("a", "b", "0190b8a0-0000-7000-8000-000000000000")] == [6, 1, 1]


def test_release_zero_gives_one_half_and_no_reward() -> None:
    heads = RewardHeads.zero(6)
    scores = score(heads, np.ones((3, 6), dtype=np.float16), IDS[:3])
    assert heads.knows_nothing
    assert scores.mean_B.tolist() == [0.5] * 3
    assert scores.reward_B.tolist() == [0.0] * 3


def _loud_heads() -> RewardHeads:
    """Head h gives logit h to every rollout."""
    zero = RewardHeads.zero(2)
    return RewardHeads(
        weights_HF=zero.weights_HF,
        bias_H=np.arange(HEADS, dtype=np.float32),
        mean_F=zero.mean_F,
        scale_F=zero.scale_F,
    )


def test_only_heads_that_leave_a_rollout_out_judge_it() -> None:
    scores = score(_loud_heads(), np.zeros((1, 2)), IDS[:1], spread_penalty=2.0)
    judges = [head for head in range(HEADS) if bucket_of(IDS[0]) in LEFT_OUT_BUCKETS[head]]
    probabilities = 1 / (1 + np.exp(-np.array(judges, dtype=np.float64)))
    assert scores.mean_B[0] == pytest.approx(probabilities.mean(), abs=1e-6)
    assert scores.spread_B[0] == pytest.approx(probabilities.std(), abs=1e-6)
    assert scores.terms(0) == {
        "thumb": pytest.approx(2 * probabilities.mean() - 1, abs=1e-6),
        "doubt": pytest.approx(-2 * probabilities.std(), abs=1e-6),
    }
    assert scores.reward_B[0] == pytest.approx(sum(scores.terms(0).values()), abs=1e-6)


def test_bad_features_are_refused() -> None:
    heads = RewardHeads.zero(2)
    with pytest.raises(ValueError, match="rollout ids"):
        score(heads, np.zeros((2, 2)), IDS[:1])
    with pytest.raises(ValueError, match="shape"):
        score(heads, np.zeros((1, 3)), IDS[:1])
    with pytest.raises(ValueError, match="NaN"):
        score(heads, np.array([[np.nan, 0.0]]), IDS[:1])


def test_a_release_comes_back_as_it_was(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    heads = RewardHeads(
        weights_HF=random.normal(size=(HEADS, 6)).astype(np.float32),
        bias_H=random.normal(size=HEADS).astype(np.float32),
        mean_F=random.normal(size=6).astype(np.float32),
        scale_F=random.uniform(0.5, 2, size=6).astype(np.float32),
        slope=1.7,
        offset=-0.3,
    )
    features = random.normal(size=(20, 6))
    save_heads(heads, tmp_path)
    again = load_heads(tmp_path)
    np.testing.assert_array_equal(score(again, features, IDS[:20]).mean_B, score(heads, features, IDS[:20]).mean_B)


def test_a_release_of_another_design_is_refused(tmp_path: Path) -> None:
    _, settings = save_heads(RewardHeads.zero(2), tmp_path)
    settings.write_text(settings.read_text().replace('"left_out_buckets": [', '"left_out_buckets": [[0, 1, 8],', 1))
    with pytest.raises(ValueError, match="fold design"):
        load_heads(tmp_path)


def test_feature_layout() -> None:
    assert feature_count(576) == 1728
    assert middle_layers(30) == (10, 20)
