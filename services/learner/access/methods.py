"""Who may call what here. Another room of the deployment may call everything; a key must be an admin's.

With scope ADMIN alone stand methods that reach one tenant: each request names it, or an id that its caller was told.
A method that is missing here is closed to everyone.
"""

from __future__ import annotations

from thumbloop.learner.v1 import learner_pb2

from services.shared.access.method_guard import MethodScopes, Reserved, methods_of
from services.shared.access.scopes import Scope

METHODS: MethodScopes = methods_of(
    learner_pb2.DESCRIPTOR.services_by_name["LearnerService"].full_name,
    {
        "GetStatus": Reserved.OPERATOR,
        "Pause": Reserved.OPERATOR,
        "Resume": Reserved.OPERATOR,
        "GetFeedback": Scope.ADMIN,
        "ListReleases": Reserved.OPERATOR,
        "GetRelease": Reserved.OPERATOR,
        "AcknowledgeRelease": Reserved.ROOMS,
        "AcknowledgeControl": Reserved.ROOMS,
        "FindStoredFeedback": Reserved.ROOMS,
        "FindStoredRollouts": Reserved.ROOMS,
        "CreateApiKey": Scope.ADMIN,
        "RevokeApiKey": Scope.ADMIN,
        "ListApiKeys": Scope.ADMIN,
        "GetAccessSnapshot": Reserved.ROOMS,
        "ForgetUser": Scope.ADMIN,
        "GetControl": Scope.ADMIN,
    },
)
