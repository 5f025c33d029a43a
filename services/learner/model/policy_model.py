"""The policy, its reference and its critic as one object on one shared trunk.

The *reference policy* is the same model with the adapter off, so there is no second copy. The layers below the lowest
adapter are the same for every version: `prepare` runs them once for a batch of rollouts, and every later pass
(proximal, reference, each epoch) starts from what it kept.

Shapes: `B` rollouts, `N` tokens of a pack, `R` response tokens, `D` hidden size, `V` vocabulary, `C` critic inputs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from services.learner.model.decoder import Decoder, token_entropy, token_kl, token_logprobs
from services.learner.model.packing import Pack, TokenSequence, common_prefix, pack, split_into_packs
from services.learner.model.precision import trunk_dtype
from services.learner.model.randomness import Randomness
from services.learner.model.settings import LoraSettings, PolicyModelSettings
from services.learner.model.value_head import ValueHead, critic_inputs


@dataclass(frozen=True, kw_only=True)
class PreparedBatch:
    """Rollouts with their hidden states below the lowest adapter: the part of the work that no version changes."""

    sequences: tuple[TokenSequence, ...]
    prefix: int
    prefix_hidden_PD: Tensor
    rest_hidden_BND: tuple[Tensor, ...]
    reference_final_BRD: tuple[Tensor, ...] = ()
    """The reference's final hidden states where `with_reference` added them: its logits are one product away."""


@dataclass(frozen=True, kw_only=True)
class TokenOutputs:
    """What the policy says of the response tokens of some rollouts, rollout after rollout."""

    logprobs_R: Tensor
    """Of the tokens that were sampled, under logits divided by the rollout's temperature."""
    entropy_R: Tensor
    """Of the distribution they were sampled from, in nats; never carries a gradient. Empty unless asked for."""
    kl_R: Tensor
    """KL(policy to reference) of that whole distribution, in nats. Empty unless the batch was prepared for it."""
    critic_RC: Tensor
    """Detached inputs of the value head."""
    lengths_B: tuple[int, ...]


class PolicyModel:
    """A frozen base with a LoRA adapter (the policy) and a value head (the critic)."""

    def __init__(
        self, base: PreTrainedModel, settings: PolicyModelSettings, *, safe_point: Callable[[], None] = lambda: None
    ) -> None:
        """Take over `base` (its weights are cast and frozen) and add an adapter that changes nothing yet.

        `safe_point` is called before each pass; it may raise, to end long work early.
        """
        self.settings = settings
        self.safe_point = safe_point
        self.device = torch.device(settings.device)
        self.randomness = Randomness(settings.seed)
        _cast(base, self.device, trunk_dtype(settings.precision, self.device))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.network = _with_adapter(base, settings.lora)
        self.network.eval()
        self._decoder = Decoder(self.network.get_base_model())
        top = settings.lora.top_layers or self._decoder.layers
        self._first_adapted = max(0, self._decoder.layers - top)
        self.value_head = ValueHead(int(base.config.hidden_size)).to(self.device)

    @classmethod
    def from_directory(
        cls, directory: Path, settings: PolicyModelSettings, *, safe_point: Callable[[], None] = lambda: None
    ) -> "PolicyModel":
        """Load a base in Hugging Face format (config and safetensors); nothing is fetched from a network."""
        base = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=trunk_dtype(settings.precision, torch.device(settings.device)),
            attn_implementation="sdpa",
            local_files_only=True,
        )
        return cls(cast(PreTrainedModel, base), settings, safe_point=safe_point)

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The trainable parameters of the policy, by peft's names, in a fixed order."""
        return {name: value for name, value in self.network.named_parameters() if value.requires_grad}

    def reference_policy(self) -> AbstractContextManager[None]:
        """Within this context the model is the reference policy: the adapter is off."""
        return cast("AbstractContextManager[None]", self.network.disable_adapter())

    @torch.no_grad()
    def prepare(self, sequences: Sequence[TokenSequence]) -> PreparedBatch:
        """Run the layers that no adapter touches, once for all passes over these rollouts."""
        prefix = common_prefix([sequence.prompt_ids for sequence in sequences])
        prefix_hidden: Tensor | None = None
        rest_hidden: list[Tensor] = []
        for group in split_into_packs(sequences, prefix, self.settings.pack_tokens):
            self.safe_point()
            members = [sequences[index] for index in group]
            layout = pack(members, prefix, self.device)
            hidden_ND = self._decoder.run(self._decoder.embed(layout.input_N), layout, 0, self._first_adapted)
            prefix_hidden = hidden_ND[:prefix]
            rest_hidden.extend(torch.split(hidden_ND[prefix:], [len(member.input_ids) - prefix for member in members]))
        if prefix_hidden is None:
            raise ValueError("a batch needs at least one rollout")
        return PreparedBatch(
            sequences=tuple(sequences),
            prefix=prefix,
            prefix_hidden_PD=prefix_hidden,
            rest_hidden_BND=tuple(rest_hidden),
        )

    def evaluate(self, batch: PreparedBatch, rows: Sequence[int], *, entropy: bool = False) -> TokenOutputs:
        """Log-probs of the current policy for the rollouts at these rows, in this order, in one pack.

        Keeps the graph unless called under `torch.no_grad()`.
        """
        layout = pack([batch.sequences[row] for row in rows], batch.prefix, self.device)
        final_RD = self._final(batch, rows, layout)
        logits_RV = self._decoder.logits(final_RD, layout.temperature_R)
        kl_R = logits_RV.new_empty(0)
        if batch.reference_final_BRD:
            with torch.no_grad():
                reference_RD = torch.cat([batch.reference_final_BRD[row] for row in rows])
                reference_RV = self._decoder.logits(reference_RD, layout.temperature_R)
            kl_R = token_kl(logits_RV, reference_RV)
        with torch.no_grad():
            critic_RC = critic_inputs(final_RD, self._decoder.embed(layout.target_R), layout.lengths_B)
        return TokenOutputs(
            logprobs_R=token_logprobs(logits_RV, layout.target_R),
            entropy_R=token_entropy(logits_RV) if entropy else logits_RV.new_empty(0),
            kl_R=kl_R,
            critic_RC=critic_RC,
            lengths_B=layout.lengths_B,
        )

    @torch.no_grad()
    def evaluate_all(self, batch: PreparedBatch, *, reference: bool = False) -> TokenOutputs:
        """Log-probs, entropy and critic inputs of the whole batch, without gradient."""
        mode = self.reference_policy() if reference else nullcontext()
        with mode:
            parts = [self.evaluate(batch, rows, entropy=True) for rows in self._packs(batch)]
        return TokenOutputs(
            logprobs_R=torch.cat([part.logprobs_R for part in parts]),
            entropy_R=torch.cat([part.entropy_R for part in parts]),
            kl_R=torch.cat([part.kl_R for part in parts]),
            critic_RC=torch.cat([part.critic_RC for part in parts]),
            lengths_B=tuple(length for part in parts for length in part.lengths_B),
        )

    @torch.no_grad()
    def with_reference(self, batch: PreparedBatch) -> PreparedBatch:
        """The batch with the reference's final hidden states, after which `evaluate` gives the exact KL too."""
        finals: list[Tensor] = []
        with self.reference_policy():
            for rows in self._packs(batch):
                layout = pack([batch.sequences[row] for row in rows], batch.prefix, self.device)
                finals.extend(torch.split(self._final(batch, rows, layout), list(layout.lengths_B)))
        return replace(batch, reference_final_BRD=tuple(finals))

    def _final(self, batch: PreparedBatch, rows: Sequence[int], layout: Pack) -> Tensor:
        """Final hidden states before each response token, from the kept ones upward."""
        self.safe_point()
        hidden_ND = torch.cat([batch.prefix_hidden_PD, *(batch.rest_hidden_BND[row] for row in rows)])
        hidden_ND = self._decoder.run(hidden_ND, layout, self._first_adapted, self._decoder.layers)
        return self._decoder.finish(hidden_ND[layout.predict_R])

    def _packs(self, batch: PreparedBatch) -> Iterator[list[int]]:
        yield from split_into_packs(batch.sequences, batch.prefix, self.settings.pack_tokens)


def _cast(base: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """Moves the model and casts its weights alone: rotary frequencies stay float32, as wherever else the model runs.

    Rounded to bfloat16 they would turn a token at position 1,000 by more than a radian.
    """
    nn.Module.to(base, device=device)
    for weight in base.parameters():
        weight.data = weight.data.to(dtype)


def _with_adapter(base: PreTrainedModel, lora: LoraSettings) -> PeftModel:
    layers = int(base.config.num_hidden_layers)
    top = lora.top_layers or layers
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft says int and takes any number
        target_modules=list(lora.targets),
        layers_to_transform=list(range(max(0, layers - top), layers)),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    network = get_peft_model(base, config)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return cast(PeftModel, network)
