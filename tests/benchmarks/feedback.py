"""`make bench-feedback`: acknowledged feedback a second of one gateway process on one core, Apache Kafka with acks=all.

Everything is on: the token of each request is real and is checked, the body is checked, the event is encoded, and the
answer comes when Kafka has it. The gateway has one core; Kafka and the load (a process of its own) share the other. In
the same run, on the gateway's core and interleaved with it: a bare kafka-python producer that sends events of the same
size with acks=all, the ceiling of whatever is written around it, and the HTTP server with an application that answers
at once. Then a table of what each step of a request costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvloop
from rich.console import Console
from rich.table import Table

from services.embedded.brokers import ApacheBroker
from services.embedded.ports import free_port
from services.embedded.process import ManagedProcess
from services.shared.bus import open_bus
from services.shared.contracts.topics import load_topic_pages
from services.shared.settings.model import BusSettings
from tests.benchmarks.feedback_steps import Steps, bare_producer_rate, measure_steps
from tests.benchmarks.figures import write_figures

BARE_HTTP = "from tests.benchmarks.feedback_bare_http import main; main()"
RATES = (100, 500, 1_000)
GATEWAY_MOST_PER_S, BARE_HTTP_MOST_PER_S = 10_000, 40_000
"""Requests are made for this rate in a closed loop; a faster server would run out of them, which is an error."""
START_TIMEOUT_S = 120.0
GATEWAY = (
    "from services.gateway.main import run; from services.shared.settings import load_settings; run(load_settings())"
)
AIMS = {"acknowledged_per_s": ">= 3000", "p99_ms_at_1000": "< 50"}

Result = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A process that answers requests."""

    process: ManagedProcess
    port: int
    most_per_s: int


class Bench:
    """A broker, a gateway and loads on it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._cores = sorted(os.sched_getaffinity(0))
        if len(self._cores) < 2:
            raise SystemExit("bench-feedback needs two cores: one for the gateway, one for Kafka and the load.")
        self.broker = ApacheBroker(port=free_port(), data_dir=folder / "kafka")
        with self._on_core(self._cores[1:]):
            stack.callback(self.broker.stop)
            self.broker.start(START_TIMEOUT_S)
        self.bus_settings = BusSettings(bootstrap_servers=self.broker.bootstrap_servers)
        bus = open_bus(self.bus_settings)
        bus.ensure_topics(load_topic_pages().values())
        bus.close()
        self.gateway = self._serve(GATEWAY, GATEWAY_MOST_PER_S, stack)
        self.bare_http = self._serve(BARE_HTTP, BARE_HTTP_MOST_PER_S, stack)

    @property
    def gateway_core(self) -> int:
        """Where the gateway runs, alone."""
        return self._cores[0]

    @property
    def secrets(self) -> Path:
        """The gateway's keys."""
        return self._folder / "secrets"

    def load(self, served: Served, *, rate: float, seconds: float, connections: int = 64) -> Result:
        """One run of the load; `cpu_s` is what the server needed for it. Raises RuntimeError if any request failed."""
        count = int((rate or served.most_per_s) * seconds) + 1
        command = [sys.executable, "-m", "tests.benchmarks.feedback_load", "--secrets", str(self.secrets)]
        command += ["--port", str(served.port), "--rate", str(rate), "--requests", str(count)]
        command += ["--seconds", str(seconds), "--connections", str(connections)]
        with self._on_core(self._cores[1:]):
            load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert load.stdin is not None and load.stdout is not None
        try:
            if load.stdout.readline() != "ready\n":
                raise RuntimeError("the load did not start")
            before = _cpu_s(served)
            load.stdin.write("\n")
            load.stdin.flush()
            result: Result = json.loads(load.stdout.readline())
            result["cpu_s"] = _cpu_s(served) - before
            load.wait(30)
        finally:
            load.kill()
            load.wait()
        what = f"at {rate:.0f}/s" if rate else "closed loop"
        print(f"port {served.port}, {what}: {result['per_s']:.0f}/s, p99 {result['p99_ms']:.1f} ms", flush=True)
        if result["failed"] or not result["left"]:
            raise RuntimeError(f"{result['failed']:.0f} requests failed, {result['left']:.0f} were left: {result}")
        if result["spooled"]:
            raise RuntimeError(
                f"Kafka did not acknowledge {result['spooled']:.0f} events in time, and the spool took them: nothing "
                f"is lost, but this run measures Kafka. Run it while the machine does nothing else. {result}"
            )
        return result

    def _serve(self, program: str, most_per_s: int, stack: ExitStack) -> Served:
        """Starts a server on the gateway's core."""
        port = free_port()
        log = self._folder / f"{port}.log"
        process = ManagedProcess([sys.executable, "-c", program], env=self._env(port), log_path=log)
        with self._on_core(self._cores[:1]):
            stack.callback(process.terminate, 30)
            process.start()
        served = Served(process=process, port=port, most_per_s=most_per_s)
        _wait_alive(served)
        return served

    @contextmanager
    def _on_core(self, cores: list[int]) -> Iterator[None]:
        """Children that are started inside run there."""
        os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self._cores)

    def _env(self, port: int) -> Mapping[str, str]:
        return {
            **os.environ,
            "THUMBLOOP_DEPLOYMENT__DATA_DIR": str(self._folder),
            "THUMBLOOP_DEPLOYMENT__LOG_LEVEL": "error",
            "THUMBLOOP_ACCESS__ANONYMOUS_CHAT": "true",
            "THUMBLOOP_GATEWAY__PORT": str(port),
            "THUMBLOOP_GATEWAY__CONTROL_PORT": str(free_port()),
            "THUMBLOOP_GATEWAY__GENERATOR_ADDRESS": "127.0.0.1:1",
            "THUMBLOOP_GATEWAY__LEARNER_ADDRESS": "127.0.0.1:1",
            "THUMBLOOP_BUS__BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
        }


def _wait_alive(served: Served) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if served.process.returncode is not None or time.monotonic() > deadline:
            raise RuntimeError(f"a server does not serve; its log ends:\n{served.process.log_tail()}")
        try:
            httpx.get(f"http://127.0.0.1:{served.port}/healthz", timeout=1).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.1)


def _cpu_s(served: Served) -> float:
    """Processor time of a process so far, all threads, user and system."""
    fields = Path(f"/proc/{served.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu_us(results: list[Result]) -> float:
    """Processor time of the server for one request, median of runs."""
    return statistics.median(1e6 * result["cpu_s"] / result["acknowledged"] for result in results)


def run(folder: Path, *, seconds: float, rounds: int) -> tuple[dict[str, float], Steps]:
    """All measurements. Raises RuntimeError where anything was not acknowledged."""
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        bench = Bench(folder, stack)
        bench.load(bench.gateway, rate=200, seconds=3)  # warms up both sides
        for rate in RATES:
            result = bench.load(bench.gateway, rate=rate, seconds=seconds)
            figures |= {f"per_s_at_{rate}": result["per_s"], f"p50_ms_at_{rate}": result["p50_ms"]}
            figures |= {f"p99_ms_at_{rate}": result["p99_ms"]}
        ours, bare, http = [], [], []
        for _ in range(rounds):
            ours.append(bench.load(bench.gateway, rate=0, seconds=seconds))
            http.append(bench.load(bench.bare_http, rate=0, seconds=seconds / 2))
            bare.append(bare_producer_rate(bench.bus_settings, core=bench.gateway_core, seconds=seconds / 2))
        figures["acknowledged_per_s"] = statistics.median(result["per_s"] for result in ours)
        figures["p50_ms_closed"] = statistics.median(result["p50_ms"] for result in ours)
        figures["p99_ms_closed"] = statistics.median(result["p99_ms"] for result in ours)
        figures["bare_producer_per_s"] = statistics.median(bare)
        figures["share_of_bare_producer"] = figures["acknowledged_per_s"] / figures["bare_producer_per_s"]
        figures["gateway_cpu_us"] = _cpu_us(ours)
        figures["acknowledged_per_cpu_s"] = 1e6 / figures["gateway_cpu_us"]
        os.sched_setaffinity(0, {bench.gateway_core})
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the gateway has it
            steps = {"HTTP server": _cpu_us(http), **runner.run(measure_steps(bench.bus_settings, bench.secrets))}
    return figures, steps


def show(figures: Mapping[str, float], steps: Steps) -> None:
    """The tables."""
    console = Console()
    rates = Table("load", "acknowledged/s", "p50 ms", "p99 ms", title="One gateway process on one core, acks=all")
    for rate in RATES:
        row = (figures[f"{name}_at_{rate}"] for name in ("per_s", "p50_ms", "p99_ms"))
        rates.add_row(f"open loop, {rate}/s", *(f"{value:.1f}" for value in row))
    closed = (figures[name] for name in ("acknowledged_per_s", "p50_ms_closed", "p99_ms_closed"))
    rates.add_row("closed loop, 64 connections", *(f"{value:.1f}" for value in closed))
    rates.add_row("bare kafka-python producer", f"{figures['bare_producer_per_s']:.1f}", "", "")
    rates.add_row("share of the bare producer", f"{figures['share_of_bare_producer']:.2f}", "", "")
    console.print(rates)
    costs = Table("step", "processor µs a request", title="What a request costs")
    for name, micros in steps.items():
        costs.add_row(name, f"{micros:.0f}")
    rest = figures["gateway_cpu_us"] - sum(steps.values())
    costs.add_row("service, middleware, metrics, switches of threads", f"{rest:.0f}")
    costs.add_row("all of it", f"{figures['gateway_cpu_us']:.0f}")
    console.print(costs)
    console.print(
        "Each request has a rater and a rollout of its own, so that the limits per rater, at their defaults, count it "
        "and let it pass. Ids of statements are the gateway's."
    )


def main() -> None:
    """Runs, prints, keeps the figures of a run in which everything was acknowledged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="closed loop and bare producer, interleaved")
    chosen = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-feedback-") as folder:
        figures, steps = run(Path(folder), seconds=chosen.seconds, rounds=chosen.rounds)
    show(figures, steps)
    figures |= {f"us_{name.lower().replace(' ', '_')}": micros for name, micros in steps.items()}
    print(write_figures("feedback", figures, AIMS, seconds=time.monotonic() - begun))


if __name__ == "__main__":
    main()
