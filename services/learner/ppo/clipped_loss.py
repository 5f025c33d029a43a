"""The policy loss of PPO with three log-probs.

*Behaviour* mu is the policy version that sampled a token, *proximal* the policy at the start of this update, *current*
the one being changed. With advantage A and ratio rho = current / proximal:

    L = -E[ stop_gradient(min(proximal / mu, c)) * min(rho * A, clip(rho, 1 - e, 1 + e) * A) ]

The clip keeps the step near the proximal policy; the truncated weight corrects for tokens that an older version sampled
(decoupled PPO, Hilton et al., arXiv 2110.00641; truncation after Espeholt et al., arXiv 1802.01561).

Shapes: `R` response tokens of a minibatch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PolicyLoss:
    """The loss, to be differentiated, and what it met."""

    loss: Tensor
    clipped_share: float
    """Share of tokens at which the clip took the gradient away."""
    capped_share: float
    """Share of tokens whose weight was truncated at c."""
    kl_moved: float
    """Estimate of KL(proximal to current) per token, in nats: mean of rho - 1 - log rho."""


def policy_loss(
    current_R: Tensor, proximal_R: Tensor, behaviour_R: Tensor, advantages_R: Tensor, *, clip: float, cap: float
) -> PolicyLoss:
    """Mean over the tokens. Log-probs in nats; only `current_R` carries a gradient."""
    weight_R = (proximal_R - behaviour_R).exp().clamp_max(cap).detach()
    log_ratio_R = current_R - proximal_R.detach()
    ratio_R = log_ratio_R.exp()
    plain_R = ratio_R * advantages_R
    bounded_R = ratio_R.clamp(1 - clip, 1 + clip) * advantages_R
    loss = -(weight_R * torch.minimum(plain_R, bounded_R)).mean()
    with torch.no_grad():
        return PolicyLoss(
            loss=loss,
            clipped_share=float((bounded_R < plain_R).float().mean()),
            capped_share=float((weight_R >= cap).float().mean()),
            kl_moved=float((ratio_R - 1 - log_ratio_R).mean()),
        )


def value_loss(current_R: Tensor, old_R: Tensor, returns_R: Tensor, *, clip: float) -> Tensor:
    """Half the mean squared error, clipped: a value that moved further than `clip` gains nothing by moving on."""
    bounded_R = old_R + (current_R - old_R).clamp(-clip, clip)
    return 0.5 * torch.maximum((current_R - returns_R) ** 2, (bounded_R - returns_R) ** 2).mean()
