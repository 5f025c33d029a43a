"""What a room needs to know its callers, put together from settings."""

from __future__ import annotations

import time
from dataclasses import dataclass

import grpc

from services.shared.access.authenticator import KeyAuthenticator
from services.shared.access.follower import AccessFollower, FetchSnapshot, fetch_from_learner
from services.shared.access.method_guard import MethodGuard, MethodScopes
from services.shared.access.service_credential import ServiceCredential, service_credential
from services.shared.access.snapshot_file import SnapshotFile
from services.shared.ids import utc_now
from services.shared.limits import TokenBuckets
from services.shared.settings import Settings
from services.shared.settings.model import AccessSettings

REMEMBERED_KEYS = 10_000
"""Buckets that are kept at most; one that is dropped is as good as full."""


@dataclass(frozen=True, kw_only=True)
class RoomAccess:
    """The deployment's credential, the keys as this room knows them, and who keeps them new (to be started)."""

    service: ServiceCredential
    keys: KeyAuthenticator
    follower: AccessFollower
    tenant: str
    """The deployment's own."""
    limits: AccessSettings

    def guard(self, methods: MethodScopes) -> MethodGuard:
        """For an `RpcServer`."""
        buckets = TokenBuckets(self.limits.key_requests_per_s, self.limits.key_burst, REMEMBERED_KEYS, time.monotonic)
        return MethodGuard(methods=methods, service=self.service, keys=self.keys, tenant=self.tenant, buckets=buckets)


def follow_access(settings: Settings, *, replica_id: str, learner: grpc.Channel) -> RoomAccess:
    """For a room that asks the learner, over a blocking channel with the service credential. Not started."""
    copy = SnapshotFile(settings.deployment.data_dir / "access" / f"{replica_id}.json")
    return _access(settings, fetch_from_learner(learner, replica_id=replica_id), copy)


def own_access(settings: Settings, fetch: FetchSnapshot) -> RoomAccess:
    """For the learner, which has the keys in its store. Not started."""
    return _access(settings, fetch, None)


def _access(settings: Settings, fetch: FetchSnapshot, copy: SnapshotFile | None) -> RoomAccess:
    follower = AccessFollower(fetch=fetch, interval_s=settings.access.snapshot_interval_s, copy=copy)
    return RoomAccess(
        service=service_credential(settings),
        keys=KeyAuthenticator(snapshot=lambda: follower.snapshot, clock=utc_now),
        follower=follower,
        tenant=settings.deployment.tenant,
        limits=settings.access,
    )
