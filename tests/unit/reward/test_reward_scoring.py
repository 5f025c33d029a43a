"""Resident versions and what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.reward.resident_models import ResidentModels
from services.reward.scorer import Scorer
from services.shared.domain.errors import FailedPrecondition, InvalidInput
from services.shared.domain.reward_terms import response_terms, total, with_response_terms
from services.shared.reward_heads.heads import RewardHeads
from tests.unit.reward.reward_world import features_of, heads_that_like, stage

FEATURES = 4


@pytest.fixture
def models() -> ResidentModels:
    return ResidentModels(feature_count=FEATURES, capacity=3)


@pytest.fixture
def scorer(models: ResidentModels) -> Scorer:
    return Scorer(models, feature_count=FEATURES, spread_penalty=0.5)


def test_nothing_scores_before_a_version_is_live(scorer: Scorer) -> None:
    with pytest.raises(FailedPrecondition):
        scorer.judge([features_of(1, 0, 0, 0)], ["r1"])


def test_release_zero_says_one_half_of_everything(models: ResidentModels, scorer: Scorer, tmp_path: Path) -> None:
    version = stage(models, RewardHeads.zero(FEATURES), tmp_path)
    judged = scorer.judge([features_of(1, 0, 0, 0), features_of(0, 9, 0, 0)], ["r1", ""])
    assert judged.reward_model_version == version
    assert [(item.mean, item.spread, total(item.terms)) for item in judged.items] == [(0.5, 0.0, 0.0)] * 2


def test_terms_are_thumb_and_minus_k_times_spread(models: ResidentModels, scorer: Scorer, tmp_path: Path) -> None:
    heads = heads_that_like(0, FEATURES)
    uneven = heads.weights_HF.copy()
    uneven[::2, 0] = -1.0
    stage(
        models,
        RewardHeads(weights_HF=uneven, bias_H=heads.bias_H, mean_F=heads.mean_F, scale_F=heads.scale_F),
        tmp_path,
    )
    item = scorer.judge([features_of(1, 0, 0, 0)], [""]).items[0]
    terms = dict(item.terms)
    assert item.spread > 0.3
    assert terms["thumb"] == pytest.approx(2 * item.mean - 1, abs=1e-6)
    assert terms["spread"] == pytest.approx(-0.5 * item.spread, abs=1e-6)
    # All sixteen vote for a text without an id: half of them say 1/(1+e^-4), half 1/(1+e).
    assert item.mean == pytest.approx((0.982014 + 0.268941) / 2, abs=1e-4)


def test_a_pinned_version_scores_beside_the_live_one(models: ResidentModels, scorer: Scorer, tmp_path: Path) -> None:
    old = stage(models, heads_that_like(0, FEATURES), tmp_path, number=1)
    new = stage(models, heads_that_like(1, FEATURES), tmp_path, number=2)
    item = [features_of(1, 0, 0, 0)]
    assert scorer.judge(item, ["r1"], version=old).items[0].mean > 0.9
    assert scorer.judge(item, ["r1"]).items[0].mean == pytest.approx(0.5)
    assert scorer.judge(item, ["r1"]).reward_model_version == new


def test_room_is_made_for_new_versions_but_never_of_the_live_one(models: ResidentModels, tmp_path: Path) -> None:
    live = stage(models, RewardHeads.zero(FEATURES), tmp_path, number=0)
    others = [stage(models, RewardHeads.zero(FEATURES), tmp_path, number=n, live=False) for n in range(1, 6)]
    assert live in models.versions
    assert models.versions[-1] == others[-1]
    assert len(models.versions) == 3
    with pytest.raises(FailedPrecondition) as caught:
        models.get(others[0])
    assert others[-1] in caught.value.message


def test_heads_of_another_base_are_not_staged(models: ResidentModels, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        stage(models, RewardHeads.zero(FEATURES + 1), tmp_path)
    assert caught.value.reason == "WRONG_FEATURES"
    assert models.live_version == ""


@pytest.mark.parametrize("features", [features_of(1, 2), features_of(1, 2, 3, float("nan")), b"x"])
def test_features_that_are_none_are_refused(
    models: ResidentModels, scorer: Scorer, tmp_path: Path, features: bytes
) -> None:
    stage(models, RewardHeads.zero(FEATURES), tmp_path)
    with pytest.raises(InvalidInput) as caught:
        scorer.judge([features_of(0, 0, 0, 0), features], ["a", "b"])
    assert caught.value.field == "items[1].features"


def test_an_empty_response_is_worth_minus_one_whatever_the_model_says() -> None:
    assert response_terms(" \n") == (("validity", -1.0),)
    assert response_terms("Hello") == ()
    assert total(with_response_terms((("thumb", 0.5), ("validity", -1.0)), "")) == -0.5
    assert with_response_terms((("thumb", 0.5), ("validity", -1.0)), "Hello") == (("thumb", 0.5),)
