"""Life of the gateway: start, serve, drain, stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import uvloop

from services.gateway import collector, scheduling
from services.gateway.wiring import Gateway, build
from services.shared.bus import open_bus
from services.shared.bus.interface import Bus
from services.shared.settings import Settings
from services.shared.telemetry.log import configure, get_logger

DRAIN_TIMEOUT_S = 30.0
"""How long running answers may take to end after SIGTERM."""
STOP_TIMEOUT_S = 8.0
"""How long other requests may take to end: a little more than the log's acknowledgement."""
FLUSH_TIMEOUT_S = 2.0


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT, then ends running answers and returns. Raises Misconfigured."""
    configure(settings.deployment, "gateway")
    scheduling.let_threads_finish_their_turns()
    bus = open_bus(settings.bus)
    try:
        # Its wake-ups from other threads (the HTTP server's, the log's) cost a third of what asyncio's own cost.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, bus, on_built=collector.keep_out_of_the_way))
    finally:
        bus.close()


async def serve(
    settings: Settings, bus: Bus, stop: asyncio.Event | None = None, *, on_built: Callable[[], None] = lambda: None
) -> None:
    """Serves until `stop` is set (by default by SIGTERM or SIGINT). `on_built` is called when everything is made that
    lives as long as the process, before the ports open.
    """
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    gateway = build(settings, bus)
    on_built()
    lives = (gateway.log.run(), gateway.board.run(), gateway.durability.run())
    tasks = [asyncio.create_task(life) for life in lives]
    gateway.access.follower.start()
    gateway.acknowledger.start()
    gateway.orders.start()
    try:
        await gateway.control.start()
        await gateway.public.start()  # last: who sees it open finds everything open
        get_logger().info("gateway_started", url=f"http://{settings.gateway.host}:{settings.gateway.port}/")
        await stop.wait()
    finally:
        await _shut_down(gateway, tasks)


async def _shut_down(gateway: Gateway, tasks: list[asyncio.Task[None]]) -> None:
    """Takes no more requests, ends those that run, hands the log what it has not acknowledged, closes everything."""
    ended = await gateway.admission.drain(DRAIN_TIMEOUT_S)
    await gateway.board.close()
    await gateway.public.stop(STOP_TIMEOUT_S)
    await gateway.control.stop(STOP_TIMEOUT_S)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.to_thread(gateway.orders.stop)
    await asyncio.to_thread(gateway.acknowledger.stop)
    await asyncio.to_thread(gateway.publisher.close, FLUSH_TIMEOUT_S)
    await gateway.durability.close()
    gateway.access_channel.close()
    await asyncio.to_thread(gateway.access.follower.stop)
    for channel in gateway.channels:
        await channel.close()
    get_logger().info("gateway_stopped", all_answers_ended=ended)
