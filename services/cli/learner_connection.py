"""How commands reach the learner and prove who they are.

With `THUMBLOOP_API_KEY` in the environment a command is that key's (scope admin); else it needs the deployment's
secrets folder, as every room does, and may do everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from thumbloop.learner.v1 import learner_pb2_grpc

from services.shared.access.bearer import bearer
from services.shared.access.service_credential import ServiceCredential
from services.shared.domain.errors import ThumbloopError, Unauthenticated, Unavailable
from services.shared.ids import utc_now
from services.shared.rpc import Credential, error_from_rpc, open_sync_channel
from services.shared.secrets import KeyUse
from services.shared.settings import Settings, load_settings

API_KEY_VARIABLE = "THUMBLOOP_API_KEY"
CALL_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class KeyCredential:
    """An API key that the environment gave."""

    text: str

    def authorization(self) -> str:
        """See `Credential`."""
        return bearer(self.text)


def credential(settings: Settings, data_dir: Path | None) -> Credential:
    """Raises Unauthenticated where there is neither a key nor a secrets folder; makes neither."""
    key = os.environ.get(API_KEY_VARIABLE, "")
    if key:
        return KeyCredential(key)
    folder = settings.secrets_dir if data_dir is None else data_dir / "secrets"
    if not (folder / f"{KeyUse.SERVICE}.json").is_file():
        raise Unauthenticated(
            f"Nothing here proves who you are: {folder} holds no service key. Name the deployment's data folder with "
            f"--data-dir (`thumbloop up` uses .thumbloop/up), or set {API_KEY_VARIABLE} to a key with scope admin."
        )
    return ServiceCredential(folder, clock=utc_now)


def own_tenant(settings: Settings) -> str:
    """Tenant of a command that names none: the settings', or, with a key, "", which the learner takes for the key's."""
    return "" if os.environ.get(API_KEY_VARIABLE) else settings.deployment.tenant


@contextmanager
def learner(address: str, data_dir: Path | None) -> Iterator[learner_pb2_grpc.LearnerServiceStub]:
    """A stub; `address` "" and `data_dir` None mean the settings'. Failed calls are raised as errors for people."""
    settings = load_settings()
    where = address or f"{settings.learner.host}:{settings.learner.port}"
    with open_sync_channel(where, credential=credential(settings, data_dir)) as channel:
        try:
            yield learner_pb2_grpc.LearnerServiceStub(channel)
        except grpc.RpcError as error:
            raise _explained(error_from_rpc(error), where) from error


def _explained(error: ThumbloopError, address: str) -> ThumbloopError:
    if isinstance(error, Unavailable) and error.reason == grpc.StatusCode.UNAVAILABLE.name:
        return Unavailable(f"No learner answers at {address}. Start one (`thumbloop up`) or name it with --address.")
    if isinstance(error, Unauthenticated) and error.reason == "SERVICE_KEY_UNKNOWN":
        return Unauthenticated(
            f"The learner at {address} does not know this credential: it belongs to another deployment. Name the "
            f"deployment's data folder with --data-dir, or set {API_KEY_VARIABLE} to a key with scope admin."
        )
    return error
