"""LearnerService: converts, asks the store in a thread, converts back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc, policy_pb2

from services.learner.access.key_table import ApiKeyTable
from services.learner.access.servicer import AccessMethods
from services.learner.forgetting.forgetting import Forgetting
from services.learner.forgetting.servicer import ForgettingMethods
from services.learner.ports import ReleaseRow
from services.learner.service.messages import fate_to_proto, release_to_proto, status_to_proto
from services.learner.service.queries import LearnerQueries
from services.learner.state.acknowledgements import Acknowledgements, ReleaseAcknowledgement
from services.learner.state.pausing import Pausing
from services.learner.state.queries.stored_feedback import FeedbackReference
from services.shared.contracts.feedback import feedback_kind_from_proto
from services.shared.contracts.policies import release_kind_from_proto
from services.shared.contracts.rollout_progress import rollout_progress_to_proto
from services.shared.domain.errors import InvalidInput

SERVICE_NAME = learner_pb2.DESCRIPTOR.services_by_name["LearnerService"].full_name


class TrainerStatus(Protocol):
    """What the trainer says of itself; `reward_auroc*` None: too few thumbs."""

    @property
    def phase(self) -> str:
        """What it does."""

    @property
    def waiting_reason(self) -> str:
        """Why the policy does not learn; empty: it does."""

    @property
    def reward_auroc(self) -> float | None:
        """Prequential."""

    @property
    def reward_auroc_low95(self) -> float | None:
        """Lower end of its 95% interval."""


class LearnerServicer(AccessMethods, ForgettingMethods, learner_pb2_grpc.LearnerServiceServicer):
    """Errors of the domain are turned into statuses by the server's interceptor."""

    def __init__(
        self,
        *,
        queries: LearnerQueries,
        acknowledgements: Acknowledgements,
        pausing: Pausing,
        trainer_status: Callable[[], TrainerStatus],
        read_manifest: Callable[[ReleaseRow], str],
        epoch: int,
        forgetting: Forgetting,
        keys: ApiKeyTable,
        on_keys_changed: Callable[[], None] = lambda: None,
        on_replica: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`read_manifest` gives a release's manifest as JSON text; it may block."""
        AccessMethods.__init__(self, keys=keys, on_keys_changed=on_keys_changed, on_replica=on_replica)
        ForgettingMethods.__init__(self, forgetting)
        self._queries = queries
        self._acknowledgements = acknowledgements
        self._pausing = pausing
        self._trainer_status = trainer_status
        self._read_manifest = read_manifest
        self._epoch = epoch

    async def GetStatus(self, request: learner_pb2.GetStatusRequest, context: Any) -> learner_pb2.GetStatusResponse:
        """See the proto."""
        message = status_to_proto(await asyncio.to_thread(self._queries.status))
        trainer = self._trainer_status()
        message.epoch = self._epoch
        message.paused = await asyncio.to_thread(lambda: self._pausing.paused)
        message.phase = str(trainer.phase)
        message.waiting_reason = trainer.waiting_reason
        if trainer.reward_auroc is not None:
            message.reward_auroc = trainer.reward_auroc
        if trainer.reward_auroc_low95 is not None:
            message.reward_auroc_low95 = trainer.reward_auroc_low95
        return message

    async def Pause(self, request: learner_pb2.PauseRequest, context: Any) -> learner_pb2.PauseResponse:
        """See the proto."""
        await asyncio.to_thread(self._pausing.set, True, reason=request.reason)
        return learner_pb2.PauseResponse(paused=True)

    async def Resume(self, request: learner_pb2.ResumeRequest, context: Any) -> learner_pb2.ResumeResponse:
        """See the proto."""
        await asyncio.to_thread(self._pausing.set, False, reason="")
        return learner_pb2.ResumeResponse(paused=False)

    async def GetFeedback(
        self, request: learner_pb2.GetFeedbackRequest, context: Any
    ) -> learner_pb2.GetFeedbackResponse:
        """See the proto."""
        _require("tenant", request.tenant)
        _require("feedback_id", request.feedback_id)
        fate = await asyncio.to_thread(
            self._queries.feedback,
            tenant=request.tenant,
            feedback_id=request.feedback_id,
            rater_id=request.rater_id,
            rollout_id=request.rollout_id,
        )
        return fate_to_proto(fate)

    async def FindStoredFeedback(
        self, request: learner_pb2.FindStoredFeedbackRequest, context: Any
    ) -> learner_pb2.FindStoredFeedbackResponse:
        """See the proto."""
        _require("tenant", request.tenant)
        references = [_reference(index, message) for index, message in enumerate(request.references)]
        stored = await asyncio.to_thread(self._queries.stored_feedback, tenant=request.tenant, references=references)
        return learner_pb2.FindStoredFeedbackResponse(stored=stored)

    async def FindStoredRollouts(
        self, request: learner_pb2.FindStoredRolloutsRequest, context: Any
    ) -> learner_pb2.FindStoredRolloutsResponse:
        """See the proto."""
        _require("tenant", request.tenant)
        found = await asyncio.to_thread(
            self._queries.stored_rollouts, tenant=request.tenant, rollout_ids=list(request.rollout_ids)
        )
        return learner_pb2.FindStoredRolloutsResponse(progress=[rollout_progress_to_proto(one) for one in found])

    async def ListReleases(
        self, request: learner_pb2.ListReleasesRequest, context: Any
    ) -> learner_pb2.ListReleasesResponse:
        """See the proto."""
        every = request.kind == policy_pb2.RELEASE_KIND_UNSPECIFIED
        page = await asyncio.to_thread(
            self._queries.releases,
            kind=None if every else release_kind_from_proto(request.kind),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return learner_pb2.ListReleasesResponse(
            releases=[release_to_proto(view) for view in page.releases], next_page_token=page.next_page_token
        )

    async def GetRelease(self, request: learner_pb2.GetReleaseRequest, context: Any) -> learner_pb2.GetReleaseResponse:
        """See the proto."""
        _require("version", request.version)
        view, rollout_ids = await asyncio.to_thread(self._queries.release, request.version)
        manifest = await asyncio.to_thread(self._read_manifest, view.release)
        return learner_pb2.GetReleaseResponse(
            release=release_to_proto(view), rollout_ids=rollout_ids, manifest_json=manifest
        )

    async def AcknowledgeRelease(
        self, request: learner_pb2.AcknowledgeReleaseRequest, context: Any
    ) -> learner_pb2.AcknowledgeReleaseResponse:
        """See the proto."""
        said = ReleaseAcknowledgement(
            replica_id=request.replica_id,
            kind=release_kind_from_proto(request.kind),
            epoch=request.epoch,
            sequence=request.sequence,
            version=request.version,
            stage_error=request.stage_error,
        )
        await asyncio.to_thread(self._acknowledgements.release, said)
        return learner_pb2.AcknowledgeReleaseResponse()

    async def AcknowledgeControl(
        self, request: learner_pb2.AcknowledgeControlRequest, context: Any
    ) -> learner_pb2.AcknowledgeControlResponse:
        """See the proto."""
        await asyncio.to_thread(
            self._acknowledgements.control, replica_id=request.replica_id, control_id=request.control_id
        )
        return learner_pb2.AcknowledgeControlResponse()


def _reference(index: int, message: learner_pb2.FeedbackReference) -> FeedbackReference:
    field = f"references[{index}]"
    for name in ("rollout_id", "rater_id", "feedback_id"):
        _require(f"{field}.{name}", getattr(message, name))
    return FeedbackReference(
        rollout_id=message.rollout_id,
        rater_id=message.rater_id,
        kind=feedback_kind_from_proto(message.kind, f"{field}.kind"),
        feedback_id=message.feedback_id,
    )


def _require(field: str, value: str) -> None:
    if not value:
        raise InvalidInput(f"{field} is empty; it is required.", field=field)
