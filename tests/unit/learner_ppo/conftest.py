"""Fixtures of the learner's maths: a policy small enough to compare with the plain way of computing it."""

import pytest
import torch

from services.learner.model.policy_model import PolicyModel
from tests.unit.learner_ppo.tiny import tiny_policy


@pytest.fixture
def model() -> PolicyModel:
    """A policy whose two top layers carry an adapter that already changes something."""
    policy = tiny_policy()
    noise = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.adapter_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    return policy
