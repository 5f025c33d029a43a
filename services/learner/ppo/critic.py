"""Fitting the value head: many cheap steps on inputs that the update has computed anyway.

Shapes: `R` response tokens of the update, `C` critic inputs.
"""

import torch
from torch import Tensor

from services.learner.model.value_head import ValueHead
from services.learner.ppo.clipped_loss import value_loss
from services.learner.ppo.settings import PpoSettings


class Critic:
    """The value head with its own optimizer. The trunk is out of its reach, so a step is one small product."""

    def __init__(self, head: ValueHead, settings: PpoSettings) -> None:
        self._head = head
        self._settings = settings
        self.optimizer = torch.optim.Adam(head.parameters(), lr=settings.critic_learning_rate)

    @torch.no_grad()
    def values(self, inputs_RC: Tensor) -> Tensor:
        """Values of the states before each response token, in thumb units."""
        self._head.settle_scale(inputs_RC)
        return self._head(inputs_RC)  # type: ignore[no-any-return]  # a module's call is Any

    def fit(self, inputs_RC: Tensor, old_R: Tensor, returns_R: Tensor) -> float:
        """Take `critic_epochs` full-batch steps of the clipped value loss; return the last loss."""
        last = 0.0
        for _ in range(self._settings.critic_epochs):
            loss = value_loss(self._head(inputs_RC), old_R, returns_R, clip=self._settings.value_clip)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            self.optimizer.step()
            last = float(loss.detach())
        return last
