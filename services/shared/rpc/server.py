"""A room's gRPC server: its servicers, who may call them, health, reflection, and errors as rich statuses.

Lifecycle, as everywhere: `start` listens, `drain` finishes accepted work, `stop` ends at once. *Serving* is what the
health service says of the room and of each of its services; it starts as not serving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.shared.domain.errors import Misconfigured
from services.shared.rpc.guard import CallGuard, GuardInterceptor
from services.shared.rpc.interceptor import ErrorInterceptor
from services.shared.rpc.options import Transport

Register = Callable[[grpc.aio.Server], None]
"""Adds a servicer, e.g. `lambda server: add_RewardServiceServicer_to_server(servicer, server)`."""


class RpcServer:
    """One listening port. All methods belong to the event loop that `start` ran on."""

    def __init__(
        self,
        host: str,
        port: int,
        register: Sequence[Register],
        service_names: Sequence[str],
        transport: Transport | None = None,
        *,
        guard: CallGuard,
    ) -> None:
        """`port` 0 takes a free one. `service_names` are full names, e.g. "thumbloop.reward.v1.RewardService".

        `guard` decides who may call; health and reflection are open.
        """
        self._host = host
        self._port = port
        self._register = tuple(register)
        self._service_names = tuple(service_names)
        self._transport = transport or Transport()
        self._guard = guard
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens; the asked-for port before `start`."""
        return self._port

    async def start(self) -> None:
        """Listens; health says NOT_SERVING until `set_serving(True)`. Raises Misconfigured where the port is taken."""
        server = grpc.aio.server(
            interceptors=[ErrorInterceptor(), GuardInterceptor(self._guard)], options=self._transport.server_options()
        )
        for register in self._register:
            register(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(
            [*self._service_names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self._port = server.add_insecure_port(f"{host}:{self._port}")
        except RuntimeError as error:
            raise Misconfigured(
                f"Cannot listen on {host}:{self._port}: the port is taken or the address is not this machine's. "
                "Free it, or set another port.",
                reason="PORT_TAKEN",
            ) from error
        await self.set_serving(False)
        await server.start()
        self._server = server

    async def set_serving(self, serving: bool) -> None:
        """What health answers for "" and each service. Without effect once drained."""
        state = health_pb2.HealthCheckResponse
        for name in ("", *self._service_names):
            await self._health.set(name, state.SERVING if serving else state.NOT_SERVING)

    async def drain(self, grace_s: float) -> None:
        """Takes no new calls, lets running ones end, cuts what still runs after `grace_s` seconds. Twice is once.

        A client that watches health counts as a running call.
        """
        await self._health.enter_graceful_shutdown()
        await self._stop(grace_s)

    async def stop(self) -> None:
        """Cuts what runs. Twice is once, also after `drain`."""
        await self._stop(None)

    async def wait_stopped(self) -> None:
        """Returns when the server has ended."""
        if self._server is not None:
            await self._server.wait_for_termination()

    async def _stop(self, grace_s: float | None) -> None:
        if self._server is not None:
            await self._server.stop(grace_s)
