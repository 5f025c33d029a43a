"""The packed, split, response-only way of computing gives what the plain forward gives."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from services.learner.model.adapter_format import adapter_tensors, load_adapter, save_adapter
from services.learner.model.packing import common_prefix, pack, split_into_packs
from services.learner.model.policy_model import PolicyModel
from services.learner.model.precision import trunk_dtype
from services.learner.model.sampling import sample_answers
from services.learner.model.settings import LoraSettings, PolicyModelSettings
from tests.unit.learner_ppo.tiny import SEQUENCES, tiny_base, tiny_policy


def _plain_logprobs(network: torch.nn.Module, index: int) -> Tensor:
    """One rollout alone, through the whole model, all logits."""
    sequence = SEQUENCES[index]
    ids = torch.tensor([sequence.prompt_ids + sequence.response_ids])
    logits = network(input_ids=ids).logits[0].float() / sequence.temperature
    start = len(sequence.prompt_ids)
    table = torch.log_softmax(logits[start - 1 : -1], dim=-1)
    return table.gather(1, ids[0, start:, None])[:, 0]


def test_packed_equals_one_by_one(model: PolicyModel) -> None:
    got = model.evaluate_all(model.prepare(SEQUENCES))
    with torch.no_grad():
        expected = torch.cat([_plain_logprobs(model.network, index) for index in range(len(SEQUENCES))])
    torch.testing.assert_close(got.logprobs_R, expected, atol=2e-5, rtol=1e-5)


def test_gradient_of_a_pack_equals_the_plain_gradient(model: PolicyModel) -> None:
    """The shared prefix collects the gradient of every rollout that reads it."""
    rows = [2, 0, 3]
    parameters = list(model.adapter_parameters().values())
    packed = model.evaluate(model.prepare(SEQUENCES), rows).logprobs_R.sum()
    plain = torch.cat([_plain_logprobs(model.network, row) for row in rows]).sum()
    for ours, theirs in zip(
        torch.autograd.grad(packed, parameters), torch.autograd.grad(plain, parameters), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_only_adapter_and_value_head_are_trained(model: PolicyModel) -> None:
    names = set(model.adapter_parameters())
    assert names
    assert all("lora_" in name and (".layers.2." in name or ".layers.3." in name) for name in names)


def test_a_bfloat16_trunk_keeps_its_rotary_frequencies_and_trains_in_float32() -> None:
    settings = PolicyModelSettings(precision="bfloat16", lora=LoraSettings(rank=4, alpha=8.0, top_layers=2))
    policy = PolicyModel(tiny_base(), settings)
    plain = dict(tiny_base().named_buffers())
    kept = {name.removeprefix("base_model.model."): value for name, value in policy.network.named_buffers()}
    assert any("inv_freq" in name for name in kept)
    assert all(torch.equal(kept[name], value) for name, value in plain.items())
    assert {value.dtype for value in policy.adapter_parameters().values()} == {torch.float32}
    frozen = {value.dtype for value in policy.network.parameters() if not value.requires_grad}
    assert frozen == {torch.bfloat16}


def test_reference_is_the_base_whatever_the_adapter_does(model: PolicyModel) -> None:
    prepared = model.prepare(SEQUENCES)
    with torch.no_grad():
        base = tiny_base()
        expected = torch.cat([_plain_logprobs(base, index) for index in range(len(SEQUENCES))])
    torch.testing.assert_close(model.evaluate_all(prepared, reference=True).logprobs_R, expected, atol=2e-5, rtol=1e-5)
    assert not torch.allclose(model.evaluate_all(prepared).logprobs_R, expected, atol=1e-3)


def test_entropy_is_of_the_tempered_distribution(model: PolicyModel) -> None:
    got = model.evaluate_all(model.prepare(SEQUENCES)).entropy_R
    sequence = SEQUENCES[1]
    with torch.no_grad():
        logits = model.network(input_ids=torch.tensor([sequence.prompt_ids])).logits[0, -1]
    expected = torch.distributions.Categorical(logits=logits / sequence.temperature).entropy()  # type: ignore[no-untyped-call]  # torch types none of its distributions
    torch.testing.assert_close(got[len(SEQUENCES[0].response_ids)], expected, atol=1e-5, rtol=1e-5)


def test_exact_kl(model: PolicyModel) -> None:
    """Against torch's own KL of the two sampling distributions, and zero where the adapter is off."""
    prepared = model.with_reference(model.prepare(SEQUENCES))
    sequence = SEQUENCES[1]
    ids = torch.tensor([sequence.prompt_ids])
    with torch.no_grad():
        ours = model.network(input_ids=ids).logits[0, -1] / sequence.temperature
        theirs = tiny_base()(input_ids=ids).logits[0, -1] / sequence.temperature
        expected = torch.nn.functional.kl_div(
            torch.log_softmax(theirs, -1), torch.log_softmax(ours, -1), reduction="sum", log_target=True
        )
    got = model.evaluate(prepared, [1]).kl_R
    assert got.requires_grad
    torch.testing.assert_close(got[0], expected, atol=1e-6, rtol=1e-3)
    with model.reference_policy():
        torch.testing.assert_close(model.evaluate_all(prepared).kl_R, torch.zeros(11), atol=1e-6, rtol=0)


def test_critic_sees_the_sum_of_earlier_answer_tokens_and_no_gradient(model: PolicyModel) -> None:
    got = model.evaluate(model.prepare(SEQUENCES), [0]).critic_RC
    assert not got.requires_grad
    embedding = model.network.get_input_embeddings().weight.detach()
    hidden = embedding.shape[1]
    torch.testing.assert_close(got[0, hidden:], torch.zeros(hidden))
    torch.testing.assert_close(got[2, hidden:], (embedding[7] + embedding[8]) / 32)


def test_packing_layout() -> None:
    assert common_prefix([sequence.prompt_ids for sequence in SEQUENCES]) == 3
    assert common_prefix([(1, 2, 3), (1, 2, 3)]) == 2
    layout = pack(SEQUENCES[:2], 3, torch.device("cpu"))
    assert layout.input_N.tolist() == [1, 5, 9, 20, 7, 8, 33, 34, 35]
    assert layout.position_N.tolist() == [0, 1, 2, 3, 4, 5, 3, 4, 5]
    assert layout.predict_R.tolist() == [3, 4, 5, 8]
    assert layout.mask_NN[7].tolist() == [True, True, True, False, False, False, True, True, False]
    assert split_into_packs(SEQUENCES, 3, 9) == [[0, 1], [2], [3]]


def test_saved_adapter_is_what_a_server_can_merge(model: PolicyModel, tmp_path: Path) -> None:
    """W + scale * B @ A on a fresh base gives the policy; loading gives it back to the trainer."""
    save_adapter(model, tmp_path)
    server, scale = tiny_base(), 8.0 / 4
    tensors = adapter_tensors(model)
    with torch.no_grad():
        for name in {name.rsplit(".", 1)[0] for name in tensors}:
            delta = scale * tensors[f"{name}.lora_B"] @ tensors[f"{name}.lora_A"]
            server.get_parameter(f"{name}.weight").add_(delta)
        merged = torch.cat([_plain_logprobs(server, index) for index in range(len(SEQUENCES))])
    ours = model.evaluate_all(model.prepare(SEQUENCES)).logprobs_R
    torch.testing.assert_close(merged, ours, atol=5e-5, rtol=1e-4)
    fresh = tiny_policy()
    load_adapter(fresh, tmp_path)
    assert torch.equal(fresh.evaluate_all(fresh.prepare(SEQUENCES)).logprobs_R, ours)


def test_sampling_is_seeded_and_its_log_probs_are_the_model_s(model: PolicyModel) -> None:
    prompts = [sequence.prompt_ids for sequence in SEQUENCES]
    state = copy.deepcopy(model.randomness.state())

    def draw() -> list[tuple[int, ...]]:
        answers = sample_answers(
            model.network,
            prompts,
            max_new_tokens=6,
            temperature=0.8,
            end_ids=frozenset(range(0, 97, 7)),
            random=model.randomness.sampling,
        )
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = torch.tensor([prompt + answer.response_ids])
            with torch.no_grad():
                table = torch.log_softmax(model.network(input_ids=ids).logits[0, len(prompt) - 1 : -1] / 0.8, dim=-1)
            expected = table.gather(1, ids[0, len(prompt) :, None])[:, 0]
            torch.testing.assert_close(torch.tensor(answer.logprobs), expected, atol=5e-5, rtol=1e-4)
            assert all(token % 7 for token in answer.response_ids[:-1])
        return [answer.response_ids for answer in answers]

    first = draw()
    assert draw() != first
    model.randomness.load_state(state)
    assert draw() == first


def test_precision() -> None:
    assert trunk_dtype("float32", torch.device("cuda")) is torch.float32
    assert trunk_dtype("auto", torch.device("cuda")) is torch.bfloat16
    assert trunk_dtype("bfloat16", torch.device("cpu")) is torch.bfloat16


def test_a_sequence_without_temperature_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature"):
        type(SEQUENCES[0])(prompt_ids=(1,), response_ids=(2,), temperature=0.0)
