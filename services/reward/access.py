"""Who may call what here. Another room of the deployment may call everything; a key needs the scope named."""

from __future__ import annotations

from thumbloop.reward.v1 import reward_pb2

from services.shared.access.method_guard import MethodScopes, Reserved, methods_of
from services.shared.access.scopes import Scope

METHODS: MethodScopes = methods_of(
    reward_pb2.DESCRIPTOR.services_by_name["RewardService"].full_name,
    {"Score": Scope.SCORE, "GetStatus": Reserved.OPERATOR},
)
