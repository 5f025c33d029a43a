"""Every case of the clip, the truncated weight, the value clip."""

import math

import pytest
import torch

from services.learner.ppo.clipped_loss import policy_loss, value_loss


def _loss_and_gradient(ratio: float, advantage: float, *, behind: float = 0.0) -> tuple[float, float]:
    """Loss and its gradient by the current log-prob of one token; `behind` is log(proximal / behaviour)."""
    current = torch.tensor([math.log(ratio)], requires_grad=True)
    zero = torch.zeros(1)
    outcome = policy_loss(current, zero, zero - behind, torch.tensor([advantage]), clip=0.2, cap=2.0)
    outcome.loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    assert current.grad is not None
    return float(outcome.loss.detach()), float(current.grad)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # good and already far: no more pull
        (0.5, 2.0, -1.0, -1.0),  # good and driven away: pulled back in full
        (1.5, -2.0, 3.0, 3.0),  # bad and more likely: pushed down in full
        (0.5, -2.0, 1.6, 0.0),  # bad and already far: no more push
    ],
)
def test_clip(ratio: float, advantage: float, loss: float, gradient: float) -> None:
    got = _loss_and_gradient(ratio, advantage)
    assert got == pytest.approx((loss, gradient), abs=1e-5)


@pytest.mark.parametrize(("stale", "weight"), [(math.log(0.5), 0.5), (math.log(1.5), 1.5), (math.log(9.0), 2.0)])
def test_behaviour_weight_scales_and_is_truncated(stale: float, weight: float) -> None:
    loss, gradient = _loss_and_gradient(1.0, 1.0, behind=stale)
    assert loss == pytest.approx(-weight, abs=1e-5)
    assert gradient == pytest.approx(-weight, abs=1e-5)


def test_shares_and_moved_kl() -> None:
    ratio = torch.tensor([1.5, 1.0, 0.5, 1.5])
    outcome = policy_loss(
        ratio.log(),
        torch.zeros(4),
        torch.tensor([0.0, -3.0, 0.0, 0.0]),
        torch.tensor([1.0, 1.0, -1.0, -1.0]),
        clip=0.2,
        cap=2.0,
    )
    assert outcome.clipped_share == 0.5
    assert outcome.capped_share == 0.25
    assert outcome.kl_moved == pytest.approx(float((ratio - 1 - ratio.log()).mean()))


def test_value_clip_takes_the_worse_of_the_two() -> None:
    old, returns = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 1.0])
    current = torch.tensor([0.9, 0.2], requires_grad=True)
    loss = value_loss(current, old, returns, clip=0.5)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
    # first: moved past 0.5, so it counts as 0.5 and has no gradient; second: (0.2 - 1)^2, gradient (0.2 - 1) / 2
    assert float(loss.detach()) == pytest.approx(0.25 * (0.5**2 + 0.8**2))
    assert current.grad is not None
    torch.testing.assert_close(current.grad, torch.tensor([0.0, -0.4]))
