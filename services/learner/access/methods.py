"""Who may call what here. Another room of the deployment may call everything; a key must be an admin's.

A method that is missing here is closed to everyone.
"""

from __future__ import annotations

from thumbloop.learner.v1 import learner_pb2

from services.shared.access.method_guard import MethodScopes, methods_of
from services.shared.access.scopes import Scope

METHODS: MethodScopes = methods_of(
    learner_pb2.DESCRIPTOR.services_by_name["LearnerService"].full_name,
    {
        "GetStatus": Scope.ADMIN,
        "Pause": Scope.ADMIN,
        "Resume": Scope.ADMIN,
        "GetFeedback": Scope.ADMIN,
        "ListReleases": Scope.ADMIN,
        "GetRelease": Scope.ADMIN,
        "AcknowledgeRelease": Scope.ADMIN,
        "AcknowledgeControl": Scope.ADMIN,
        "FindStoredFeedback": Scope.ADMIN,
        "CreateApiKey": Scope.ADMIN,
        "RevokeApiKey": Scope.ADMIN,
        "ListApiKeys": Scope.ADMIN,
        "GetAccessSnapshot": Scope.ADMIN,
        "ForgetUser": Scope.ADMIN,
        "GetControl": Scope.ADMIN,
    },
)
