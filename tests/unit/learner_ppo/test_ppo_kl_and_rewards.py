"""KL price, rewards per token, and the rules for small batches."""

import pytest
import torch

from services.learner.ppo.batch import PpoBatch, TrainingRollout
from services.learner.ppo.kl_controller import AdaptiveKl, FixedKl, RisingKl, make_kl_controller
from services.learner.ppo.rewards import mean_terms, token_rewards
from services.learner.ppo.settings import KlSettings
from services.learner.ppo.small_batches import CriticTrust, has_contrast


def _rollout(name: str, reference: tuple[float, ...], terms: dict[str, float]) -> TrainingRollout:
    return TrainingRollout(
        rollout_id=name,
        prompt_ids=(1,),
        response_ids=tuple(range(len(reference))),
        temperature=1.0,
        behaviour_logprobs=reference,
        reference_logprobs=reference,
        reward_terms=terms,
    )


def test_adaptive_price_follows_the_error_and_is_bounded() -> None:
    controller = AdaptiveKl(0.1, target_nats=4.0, horizon_rollouts=480.0)
    controller.observe(4.0, 48)
    assert controller.coefficient == pytest.approx(0.1)
    controller.observe(5.0, 48)
    assert controller.coefficient == pytest.approx(0.1 * (1 + 0.25 * 0.1))
    before = controller.coefficient
    controller.observe(400.0, 48)
    assert controller.coefficient == pytest.approx(before * 1.05)
    controller.observe(0.0, 48)
    assert controller.coefficient == pytest.approx(before * 1.05 * 0.95)


def test_adaptive_state_goes_on_where_it_was() -> None:
    first, second = (make_kl_controller(KlSettings(kind="adaptive", coefficient=0.1)) for _ in range(2))
    first.observe(9.0, 48)
    second.load_state(first.state())
    assert second.coefficient == first.coefficient > 0.1


def test_fixed_price_never_moves() -> None:
    controller = make_kl_controller(KlSettings(kind="fixed", coefficient=0.05))
    assert isinstance(controller, FixedKl)
    controller.observe(100.0, 48)
    assert controller.coefficient == 0.05


def test_rewards_by_token() -> None:
    rollouts = (
        _rollout("a", (-1.0, -2.0), {"thumb": 0.5, "doubt": -0.1}),
        _rollout("b", (-3.0,), {"thumb": -1.0}),
    )
    got = token_rewards(torch.tensor([-0.5, -2.5, -1.0]), rollouts, 0.1)
    torch.testing.assert_close(got.kl_R, torch.tensor([0.5, -0.5, 2.0]))
    torch.testing.assert_close(got.terminal_R, torch.tensor([0.0, 0.4, -1.0]))
    torch.testing.assert_close(got.total_R, torch.tensor([-0.05, 0.45, -1.2]))
    torch.testing.assert_close(got.kl_B, torch.tensor([0.0, 2.0]))
    assert mean_terms(rollouts) == {"thumb": pytest.approx(-0.25), "doubt": pytest.approx(-0.05)}


def test_contrast() -> None:
    assert has_contrast([0.5, -0.5], 0.15)
    assert not has_contrast([0.5, 0.55, 0.45], 0.15)
    assert not has_contrast([0.5], 0.0)


def test_critic_is_dropped_after_three_failures_and_comes_back() -> None:
    trust = CriticTrust(patience=3)
    assert [trust.judge(value) for value in (0.2, -0.1, -0.1, -0.1, -0.5, 0.0, -0.1)] == [
        True, True, True, False, False, True, True,
    ]  # fmt: skip
    again = CriticTrust(patience=3)
    for value in (-1.0, -1.0):
        trust.judge(value)
    again.load_state(trust.state())
    assert not again.judge(-1.0)


def test_a_batch_refuses_what_cannot_be_learned_from() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PpoBatch(rollouts=())
    one = _rollout("a", (-1.0,), {})
    with pytest.raises(ValueError, match="twice"):
        PpoBatch(rollouts=(one, one))
    with pytest.raises(ValueError, match="finite"):
        _rollout("b", (float("nan"),), {})
    with pytest.raises(ValueError, match="2 response tokens but 1 behaviour"):
        TrainingRollout(
            rollout_id="c",
            prompt_ids=(1,),
            response_ids=(1, 2),
            temperature=1.0,
            behaviour_logprobs=(-1.0,),
            reference_logprobs=(-1.0, -1.0),
        )


def test_the_rising_price_grows_past_its_target_and_steps_shorten_before() -> None:
    controller = make_kl_controller(KlSettings(kind="rising", coefficient=0.1, target_nats=3.0))
    assert isinstance(controller, RisingKl)
    for nats, price, pressure in ((0.0, 0.1, 1), (1.8, 0.1, 1), (2.7, 0.1, 2.25), (6.0, 0.4, 100 / 9), (1.5, 0.1, 1)):
        controller.observe(nats, 48)
        assert controller.coefficient == pytest.approx(price)
        assert controller.pressure == pytest.approx(pressure)
    controller.observe(6.0, 48)
    resumed = make_kl_controller(KlSettings(kind="rising", coefficient=0.1, target_nats=3.0))
    resumed.load_state(controller.state())
    assert resumed.coefficient == controller.coefficient
