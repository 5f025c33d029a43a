"""A view of a transformers decoder that can run some of its layers.

Works for the Llama family's layout (Llama, SmolLM, Qwen, Mistral): `model.embed_tokens`, `model.layers`, `model.norm`,
`model.rotary_emb`, `lm_head`. Shapes: `N` tokens, `D` hidden size, `R` rows of logits, `V` vocabulary.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from services.learner.model.packing import Pack

_PARTS = ("embed_tokens", "layers", "norm", "rotary_emb")


class Decoder:
    """Runs layers of a causal language model on one packed row."""

    def __init__(self, language_model: nn.Module) -> None:
        body = getattr(language_model, "model", None)
        if body is None or any(not hasattr(body, part) for part in _PARTS):
            raise ValueError(f"the model must have a Llama-like decoder with {', '.join(_PARTS)}")
        self._body = cast(Any, body)
        self._head = cast(nn.Linear, language_model.lm_head)
        self.layers = len(self._body.layers)

    def embed(self, input_N: Tensor) -> Tensor:
        """Token embeddings, shape (N, D), in the trunk's precision."""
        embedded_ND: Tensor = self._body.embed_tokens(input_N)
        return embedded_ND

    def run(self, hidden_ND: Tensor, layout: Pack, first: int, last: int) -> Tensor:
        """Hidden states after layers `first` up to but without `last`."""
        hidden = hidden_ND[None]
        rotary = self._body.rotary_emb(hidden, position_ids=layout.position_N[None])
        mask = layout.mask_NN[None, None]
        for layer in self._body.layers[first:last]:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        return hidden[0]

    def finish(self, hidden_RD: Tensor) -> Tensor:
        """The final norm, after which the head reads."""
        return cast(Tensor, self._body.norm(hidden_RD))

    def logits(self, final_RD: Tensor, temperature_R: Tensor) -> Tensor:
        """Logits divided by each row's temperature, in float32, shape (R, V).

        The division is done on the hidden state, which is V / D times smaller than the logits.
        """
        cooled_RD = (final_RD.float() / temperature_R[:, None]).to(final_RD.dtype)
        return functional.linear(cooled_RD, self._head.weight).float()


def token_logprobs(logits_RV: Tensor, target_R: Tensor) -> Tensor:
    """Log-probs of the targets."""
    return -functional.cross_entropy(logits_RV, target_R, reduction="none")


def token_entropy(logits_RV: Tensor) -> Tensor:
    """Entropy in nats of each row's distribution."""
    logprobs_RV = functional.log_softmax(logits_RV, dim=-1)
    return -(logprobs_RV.exp() * logprobs_RV).sum(dim=-1)


def token_kl(logits_RV: Tensor, reference_logits_RV: Tensor) -> Tensor:
    """KL(policy to reference) of each row's whole distribution, in nats: exact, not estimated from one token."""
    logprobs_RV = functional.log_softmax(logits_RV, dim=-1)
    with torch.no_grad():
        reference_RV = functional.log_softmax(reference_logits_RV, dim=-1)
    return (logprobs_RV.exp() * (logprobs_RV - reference_RV)).sum(dim=-1)
