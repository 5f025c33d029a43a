"""The critic: a linear head on the shared trunk, cheap enough to be fitted many times on the same pass.

The value of a state, before response token t, is linear in what the policy's trunk shows there: the final hidden state,
and the sum of the embeddings of the answer's tokens so far. The second part lets it see what the reward model will see
(means over the answer), so it learns quickly which answers are already decided. Its input is detached: the critic's
gradient never reaches the trunk, so it costs no backward pass and cannot disturb the policy.

Shapes: `R` response tokens, `D` hidden size, `C = 2 D` critic inputs.
"""

from typing import cast

import torch
from torch import Tensor, nn

_TOKENS_PER_UNIT = 32.0
"""The sum of embeddings is divided by this many tokens, so that both halves of the input have like sizes."""


class ValueHead(nn.Module):
    """Linear in normalised critic inputs; starts at zero, so an untrained critic says 0 of every state."""

    input_mean: Tensor
    input_scale: Tensor

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * hidden_size, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("input_mean", torch.zeros(2 * hidden_size))
        self.register_buffer("input_scale", torch.zeros(2 * hidden_size))

    def forward(self, inputs_RC: Tensor) -> Tensor:
        """Values in thumb units, shape (R,). Inputs are standardised by mean and scale of the first batch ever seen."""
        scale_C = torch.where(self.input_scale > 0, self.input_scale, torch.ones_like(self.input_scale))
        return cast(Tensor, self.linear((inputs_RC - self.input_mean) / scale_C))[:, 0]

    def settle_scale(self, inputs_RC: Tensor) -> None:
        """Fix mean and scale by the first batch; later calls change nothing, so that old weights keep their meaning."""
        if not torch.any(self.input_scale > 0):
            self.input_mean.copy_(inputs_RC.mean(dim=0))
            self.input_scale.copy_(inputs_RC.std(dim=0).clamp_min(1e-3) * inputs_RC.shape[1] ** 0.5)


def critic_inputs(final_RD: Tensor, embedding_RD: Tensor, lengths_B: tuple[int, ...]) -> Tensor:
    """Final hidden state before each response token, beside the sum of the answer's embeddings before it.

    `embedding_RD` are the embeddings of the response tokens themselves, rollout after rollout.
    """
    sums = [torch.cumsum(part, dim=0) - part for part in torch.split(embedding_RD.float(), list(lengths_B))]
    return torch.cat([final_RD.float(), torch.cat(sums) / _TOKENS_PER_UNIT], dim=1).detach()
