"""A process's metrics: made from the catalogue, kept in a registry of their own, handed out by constructor.

Names that the catalogue lacks, wrong kinds and wrong labels are errors at the first use, so that a test finds them.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Self, TypeVar
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server

from services.shared.domain.errors import Misconfigured
from services.shared.telemetry.catalogue import CATALOGUE, MetricSpec

Instrument = Counter | Gauge | Histogram
_I = TypeVar("_I", Counter, Gauge, Histogram)
_J = TypeVar("_J", Counter, Histogram)
_CLASSES: dict[str, type[Counter] | type[Gauge] | type[Histogram]] = {
    "counter": Counter,
    "gauge": Gauge,
    "histogram": Histogram,
}


class Metrics:
    """Counts, sets and observes by name. Safe from any thread."""

    def __init__(self, registry: CollectorRegistry | None = None, room: str = "") -> None:
        """With a `room`, that room's metrics exist from the start (those without labels at 0), else at first use."""
        self.registry = registry or CollectorRegistry()
        self._instruments: dict[str, Instrument] = {}
        self._used: dict[tuple[str, ...], Counter | Histogram] = {}
        """Counters and histograms by name and labels as they were given, which are never removed; so each is checked
        and looked up once, not at every event."""
        self._lock = threading.Lock()
        for spec in CATALOGUE.values():
            if room in spec.rooms:
                self._instrument(spec)

    def increment(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Adds to a counter. `labels` are exactly those of the catalogue."""
        self._labelled(name, Counter, labels).inc(amount)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Sets a gauge."""
        instrument = self._find(name, Gauge, labels)
        (instrument.labels(**labels) if labels else instrument).set(value)

    def set_only(self, name: str, value: float, *, within: tuple[str, ...] = (), **labels: str) -> None:
        """Sets a gauge and removes its other label sets that agree on the labels named in `within`.

        For states and versions: `set_only("thumbloop_release_info", 1, within=("kind",), kind="policy", version=v)`.
        """
        instrument = self._find(name, Gauge, labels)
        for sample in next(iter(instrument.collect())).samples:
            if sample.labels != labels and all(sample.labels[label] == labels[label] for label in within):
                instrument.remove(*(sample.labels[label] for label in CATALOGUE[name].labels))
        instrument.labels(**labels).set(value)

    def remove(self, name: str, **labels: str) -> None:
        """Takes a label set of a gauge away, which this process has nothing to say of any more. Twice is once."""
        instrument = self._find(name, Gauge, labels)
        with suppress(KeyError):
            instrument.remove(*(labels[label] for label in CATALOGUE[name].labels))

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Adds an observation to a histogram."""
        self._labelled(name, Histogram, labels).observe(value)

    def value(self, name: str, **labels: str) -> float | None:
        """The present value of a counter or gauge; None where it has none. For tests and status pages."""
        found = self.registry.get_sample_value(name, labels)
        return None if found is None else float(found)

    def render(self) -> bytes:
        """All of them in Prometheus' text format, for a room that has an HTTP server of its own."""
        return generate_latest(self.registry)

    def serve(self, host: str, port: int) -> MetricsServer:
        """Serves /metrics in a thread until the handle is stopped. Raises Misconfigured where the port is taken."""
        try:
            server, thread = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise Misconfigured(
                f"Cannot serve metrics on {host}:{port}: {error}. Free the port, or set another `metrics_port`.",
                reason="PORT_TAKEN",
            ) from error
        return MetricsServer(server, thread)

    def _labelled(self, name: str, cls: type[_J], labels: dict[str, str]) -> _J:
        used = (name, *labels, *labels.values())
        known = self._used.get(used)
        if isinstance(known, cls):
            return known
        instrument = self._find(name, cls, labels)
        child: _J = instrument.labels(**labels) if labels else instrument
        self._used[used] = child
        return child

    def _find(self, name: str, cls: type[_I], labels: dict[str, str]) -> _I:
        spec = CATALOGUE.get(name)
        if spec is None:
            raise Misconfigured(f"No metric {name!r} in the catalogue (services/shared/telemetry/catalogue).")
        if _CLASSES[spec.kind] is not cls:
            raise Misconfigured(f"{name} is a {spec.kind}; it cannot be used as a {cls.__name__.lower()}.")
        if set(labels) != set(spec.labels):
            raise Misconfigured(f"{name} has the labels {list(spec.labels)}, not {sorted(labels)}.")
        instrument = self._instrument(spec)
        assert isinstance(instrument, cls)
        return instrument

    def _instrument(self, spec: MetricSpec) -> Instrument:
        with self._lock:
            if spec.name not in self._instruments:
                self._instruments[spec.name] = _make(spec, self.registry)
            return self._instruments[spec.name]


class MetricsServer:
    """A running /metrics endpoint."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port = int(server.server_port)

    def stop(self) -> None:
        """Closes the port. Twice is once."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(timeout=5.0)
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _make(spec: MetricSpec, registry: CollectorRegistry) -> Instrument:
    if spec.kind == "counter":
        return Counter(spec.name, spec.help, spec.labels, registry=registry)
    if spec.kind == "gauge":
        return Gauge(spec.name, spec.help, spec.labels, registry=registry)
    return Histogram(spec.name, spec.help, spec.labels, registry=registry, buckets=spec.buckets)
