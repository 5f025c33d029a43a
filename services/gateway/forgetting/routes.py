"""Routes of the control port: forget a person, and see who has."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from services.gateway.access.control_gate import tenant_meant
from services.gateway.documents import error_documents
from services.gateway.forgetting.service import ForgettingService


class ForgottenBody(BaseModel):
    """The store has let go; everyone else is ordered to."""

    control_id: str = Field(description="The order; ask `GET /v1/controls/{id}` how far it is.")
    rollouts: int = Field(description="Answers deleted from the store.")
    feedback: int = Field(description="Statements deleted from the store.")
    versions: list[str] = Field(
        description="Releases that learned from the person, oldest first. They are kept, and cannot be trained again."
    )


class ProgressBody(BaseModel):
    """How far an order is."""

    control_id: str
    publish_time: datetime | None = Field(description="When Kafka had it; null: not yet.")
    acknowledged_by: list[str] = Field(description="Replicas that carried it out.")
    waiting_for: list[str] = Field(description="The learner and replicas that live, as far as they have not.")


def forgetting_router(service: ForgettingService) -> APIRouter:
    """Whoever comes here was let in before: the whole control port is an administrator's."""
    router = APIRouter(tags=["privacy"], responses=error_documents(400, 401, 403, 404, 409, 503, 504))

    @router.delete("/v1/users/{user:path}", summary="Forget a person", status_code=202)
    async def forget_user(
        request: Request,
        user: Annotated[str, Path(description="As in the chat requests' `user`.")],
        tenant: Annotated[
            str,
            Query(max_length=256, description="Empty: your key's own; with the service credential, the deployment's."),
        ] = "",
        control_id: Annotated[
            str, Query(max_length=64, description="UUIDv7 of the order; the same again is safe. Empty: a new one.")
        ] = "",
    ) -> ForgottenBody:
        """Deletes what they said and were told from the store at once, blocks its return, and orders every replica to
        do the same with its memory, spools and dead letters. Kafka's topics lose it when their retention has passed.
        """
        wanted = tenant_meant(request, tenant, own=service.tenant)
        done = await service.forget(user, tenant=wanted, control_id=control_id)
        return ForgottenBody(
            control_id=done.control_id, rollouts=done.rollouts, feedback=done.feedback, versions=list(done.versions)
        )

    @router.get("/v1/controls/{control_id}", summary="Who has carried out an order")
    async def show_control(control_id: Annotated[str, Path(max_length=64)]) -> ProgressBody:
        """Done when Kafka has it and nobody is waited for."""
        progress = await service.progress(control_id)
        return ProgressBody(
            control_id=progress.control_id,
            publish_time=progress.publish_time,
            acknowledged_by=list(progress.acknowledged_by),
            waiting_for=list(progress.waiting_for),
        )

    return router
