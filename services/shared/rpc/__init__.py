"""gRPC servers and clients alike in every room: who may call, health, reflection, deadlines, rich errors."""

from services.shared.rpc.channel import open_channel, open_sync_channel
from services.shared.rpc.credentials import Credential
from services.shared.rpc.guard import Caller, CallGuard, current_caller
from services.shared.rpc.interceptor import ErrorInterceptor
from services.shared.rpc.options import Transport
from services.shared.rpc.server import RpcServer
from services.shared.rpc.statuses import STATUSES, Status, abort_with, error_from_rpc, status_of

__all__ = [
    "STATUSES",
    "CallGuard",
    "Caller",
    "Credential",
    "ErrorInterceptor",
    "RpcServer",
    "Status",
    "Transport",
    "abort_with",
    "current_caller",
    "error_from_rpc",
    "open_channel",
    "open_sync_channel",
    "status_of",
]
