"""A whole update: it learns, it is reproducible, it resumes bit for bit, it skips what has no contrast."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from services.learner.model.adapter_format import load_adapter, save_adapter
from services.learner.model.packing import split_into_packs
from services.learner.model.policy_model import PolicyModel
from services.learner.model.training_state import load_training_state, save_training_state
from services.learner.ppo.settings import KlSettings, PpoSettings
from services.learner.ppo.update import PpoUpdate
from tests.unit.learner_ppo.tiny import SEQUENCES, tiny_base, tiny_batch, tiny_policy

SETTINGS = PpoSettings(minibatch_rollouts=2, learning_rate=1e-2, kl=KlSettings(kind="adaptive"))


def _weights(model: PolicyModel) -> torch.Tensor:
    parts = [*model.adapter_parameters().values(), *model.value_head.state_dict().values()]
    return torch.cat([part.detach().flatten() for part in parts])


def _save(update: PpoUpdate, model: PolicyModel, directory: Path) -> None:
    save_adapter(model, directory)
    save_training_state(directory, update.training_state())


def _load(update: PpoUpdate, model: PolicyModel, directory: Path) -> None:
    load_adapter(model, directory)
    load_training_state(directory, update.training_state())


def test_rewarded_answers_become_likelier() -> None:
    model = tiny_policy()
    update = PpoUpdate(model, PpoSettings(minibatch_rollouts=4, learning_rate=1e-2, epochs=2))
    batch = tiny_batch(model, (0.9, -0.9, 0.9, -0.9))
    report = update.run(batch)
    assert not report.skipped
    assert report.steps == 2
    assert report.kl_per_answer == pytest.approx(0.0, abs=1e-5)
    after = torch.split(model.evaluate_all(model.prepare(SEQUENCES)).logprobs_R, [3, 1, 5, 2])
    before = [torch.tensor(rollout.behaviour_logprobs) for rollout in batch.rollouts]
    gains = [float((new - old).mean()) for new, old in zip(after, before, strict=True)]
    assert gains[0] > 0
    assert gains[2] > 0
    assert gains[1] < 0
    assert gains[3] < 0


def test_same_seed_same_loss_and_weights() -> None:
    outcomes = []
    for _ in range(2):
        model = tiny_policy(seed=7)
        report = PpoUpdate(model, SETTINGS).run(tiny_batch(model))
        outcomes.append((report, _weights(model)))
    assert outcomes[0][0] == outcomes[1][0]
    assert torch.equal(outcomes[0][1], outcomes[1][1])


def test_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Update, save, update: the same as update, save, load elsewhere, update."""
    model = tiny_policy()
    update = PpoUpdate(model, SETTINGS)
    update.run(tiny_batch(model))
    _save(update, model, tmp_path)
    other = tiny_policy(seed=99)
    resumed = PpoUpdate(other, SETTINGS)
    _load(resumed, other, tmp_path)
    assert torch.equal(_weights(model), _weights(other))
    batch = tiny_batch(model, (-0.5, 0.7, 0.1, -0.3))
    assert update.run(batch) == resumed.run(batch)
    assert torch.equal(_weights(model), _weights(other))
    assert update.kl_controller.coefficient == resumed.kl_controller.coefficient


def test_a_dear_nat_keeps_the_policy_nearer() -> None:
    """The price holds the policy back; at no price it does not matter where it stands."""
    moved = {}
    for place in ("loss", "reward"):
        for price in (0.0, 5.0):
            model = tiny_policy()
            kl = KlSettings(place=place, coefficient=price)
            update = PpoUpdate(model, PpoSettings(minibatch_rollouts=4, learning_rate=1e-2, epochs=12, clip=0.9, kl=kl))
            update.run(tiny_batch(model))
            prepared = model.with_reference(model.prepare(SEQUENCES))
            moved[place, price] = float(model.evaluate_all(prepared).kl_R.sum())
    assert moved["loss", 5.0] < 0.5 * moved["loss", 0.0]
    assert moved["reward", 0.0] == pytest.approx(moved["loss", 0.0], rel=1e-3)


def test_entropy_bonus_keeps_the_policy_wider() -> None:
    entropies = []
    for coefficient in (0.0, 5.0):
        model = tiny_policy()
        update = PpoUpdate(
            model, PpoSettings(minibatch_rollouts=4, learning_rate=1e-2, epochs=8, entropy_coefficient=coefficient)
        )
        update.run(tiny_batch(model))
        entropies.append(float(model.evaluate_all(model.prepare(SEQUENCES)).entropy_R.mean()))
    assert entropies[1] > entropies[0]


def test_a_stop_is_heard_within_an_update() -> None:
    """Before each pass of each pack, and before each minibatch."""
    heard: list[int] = []
    settings = replace(tiny_policy().settings, pack_tokens=9)
    whole = PolicyModel(tiny_base(), settings)
    batch = tiny_batch(whole)
    whole.safe_point = lambda: heard.append(1)
    PpoUpdate(whole, SETTINGS).run(batch)
    packs = len(split_into_packs(SEQUENCES, 3, settings.pack_tokens))
    assert packs == 3 and len(heard) == 3 * packs + 2

    class Stop(Exception):
        pass

    for last in (1, len(heard) // 2, len(heard)):
        model = PolicyModel(tiny_base(), settings)
        passes = iter(range(1, len(heard) + 1))

        def safe_point(passes: Iterator[int] = passes, last: int = last) -> None:
            if next(passes) == last:
                raise Stop

        model.safe_point = safe_point
        with pytest.raises(Stop):
            PpoUpdate(model, SETTINGS).run(batch)


def test_no_contrast_no_update() -> None:
    model = tiny_policy()
    update = PpoUpdate(model, SETTINGS)
    before = _weights(model)
    report = update.run(tiny_batch(model, (0.5, 0.45, 0.55, 0.5)))
    assert "differ too little" in report.skipped
    assert report.steps == 0
    assert torch.equal(_weights(model), before)


def test_the_critic_explains_what_it_was_fitted_on() -> None:
    """Two of the answers start from the same state and end differently, so even the best critic stays under 1."""
    model = tiny_policy()
    update = PpoUpdate(model, PpoSettings(critic_epochs=200, value_clip=10.0, learning_rate=1e-6))
    batch = tiny_batch(model)
    first = update.run(batch)
    second = update.run(batch)
    assert first.explained_variance == pytest.approx(0.0, abs=1e-6)
    assert second.explained_variance > 0.75
