"""Is a service ready? Asked the way an orchestrator asks: gRPC health, or GET /readyz."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

Probe = Callable[[], bool]


def grpc_ready(port: int, *, timeout_s: float = 1.0) -> bool:
    """True when the health service says SERVING."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def http_ready(url: str, *, timeout_s: float = 1.0) -> bool:
    """True when /readyz answers 200."""
    try:
        return httpx.get(f"{url}/readyz", timeout=timeout_s).status_code == 200
    except httpx.HTTPError:
        return False


def probes(ports: Mapping[str, int]) -> dict[str, Probe]:
    """One probe a room."""
    return {
        "learner": lambda: grpc_ready(ports["learner"]),
        "reward": lambda: grpc_ready(ports["reward"]),
        "generator": lambda: grpc_ready(ports["generator"]),
        "gateway": lambda: http_ready(f"http://127.0.0.1:{ports['gateway']}"),
    }
