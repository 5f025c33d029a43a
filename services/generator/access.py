"""Who may call what here. Another room of the deployment may call everything; a key needs the scope named."""

from __future__ import annotations

from thumbloop.generator.v1 import generator_pb2

from services.shared.access.method_guard import MethodScopes, methods_of
from services.shared.access.scopes import Scope

METHODS: MethodScopes = methods_of(
    generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name,
    {"Generate": Scope.CHAT, "GetStatus": Scope.ADMIN},
)
