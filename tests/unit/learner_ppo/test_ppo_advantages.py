"""GAE by hand, whitening with its floor, explained variance."""

import pytest
import torch

from services.learner.ppo.advantages import estimate, explained_variance, whiten


def test_two_answers_by_hand() -> None:
    """Answer one has rewards 1, 0, 2 and values .5, 1, -1; answer two has reward 3 and value 4; lambda is one half."""
    got = estimate(torch.tensor([1.0, 0.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, -1.0, 4.0]), [3, 1], 0.5)
    # deltas: 1 + 1 - .5 = 1.5;  0 - 1 - 1 = -2;  2 + 1 = 3.  advantages from the back: 3; -2 + 1.5; 1.5 - .25
    torch.testing.assert_close(got.advantages_R, torch.tensor([1.25, -0.5, 3.0, -1.0]))
    torch.testing.assert_close(got.returns_R, torch.tensor([1.75, 0.5, 2.0, 3.0]))


def test_lambda_one_gives_rewards_to_go_whatever_the_values() -> None:
    rewards = torch.tensor([0.1, -0.2, 0.5, 1.0])
    got = estimate(rewards, torch.tensor([9.0, -3.0, 2.0, 5.0]), [4], 1.0)
    torch.testing.assert_close(got.returns_R, torch.tensor([1.4, 1.3, 1.5, 1.0]))


def test_inputs_are_left_alone() -> None:
    rewards, values = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    estimate(rewards, values, [2], 0.9)
    assert rewards.tolist() == [1.0, 2.0]
    assert values.tolist() == [3.0, 4.0]


def test_whitening_is_over_the_whole_update_and_keeps_small_differences_small() -> None:
    wide, unit = whiten(torch.tensor([3.0, -1.0, 5.0, 1.0]), 0.3)
    assert float(wide.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(wide.std(correction=0)) == pytest.approx(1.0, abs=1e-6)
    assert unit == pytest.approx(5.0**0.5)
    narrow, unit = whiten(torch.tensor([1.03, 0.97]), 0.3)
    assert unit == 0.3
    torch.testing.assert_close(narrow, torch.tensor([0.1, -0.1]))


@pytest.mark.parametrize(
    ("values", "expected"), [([1.0, 2.0, 3.0], 1.0), ([2.0, 2.0, 2.0], 0.0), ([3.0, 2.0, 1.0], -3.0)]
)
def test_explained_variance(values: list[float], expected: float) -> None:
    assert explained_variance(torch.tensor(values), torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(expected)


def test_explained_variance_of_constant_returns_is_zero() -> None:
    assert explained_variance(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])) == 0.0
