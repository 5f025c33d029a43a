from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from services.shared.domain.errors import Misconfigured
from services.shared.telemetry.catalogue import CATALOGUE
from services.shared.telemetry.catalogue.page import render_page
from services.shared.telemetry.metrics import Metrics

ROOT = Path(__file__).resolve().parents[3]
ROOMS = {"gateway", "generator", "reward", "learner"}


def test_names_follow_prometheus_and_the_house() -> None:
    for name, spec in CATALOGUE.items():
        assert re.fullmatch(r"thumbloop_[a-z0-9_]+", name)
        assert name.endswith("_total") == (spec.kind == "counter"), name
        assert bool(spec.buckets) == (spec.kind == "histogram"), name
        assert list(spec.buckets) == sorted(set(spec.buckets))
        assert set(spec.rooms) <= ROOMS
        assert spec.rooms
        assert spec.unit != "seconds" or name.endswith("_seconds"), name
        assert spec.help.endswith(".")
        assert spec.operator.endswith(".")


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == render_page(), "run: python -m services.shared.telemetry.catalogue > docs/metrics.md"


def test_the_page_names_every_metric_once() -> None:
    page = render_page()
    assert all(page.count(f"`{name}`") == 1 for name in CATALOGUE)
    assert all(line.count(" | ") == 5 for line in page.splitlines() if line.startswith("| `"))


def calls_with_metric_names() -> Iterator[tuple[Path, str, set[str | None]]]:
    for path in sorted((ROOT / "services").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            first = node.args[0]
            is_name = isinstance(first, ast.Constant) and isinstance(first.value, str)
            if node.func.attr in ("increment", "set", "set_only", "observe") and is_name:
                assert isinstance(first, ast.Constant)
                if str(first.value).startswith("thumbloop_"):
                    yield path, str(first.value), {keyword.arg for keyword in node.keywords}


def test_what_the_rooms_count_is_in_the_catalogue_with_these_labels() -> None:
    found = list(calls_with_metric_names())
    assert len(found) >= 5
    for path, name, keywords in found:
        assert name in CATALOGUE, f"{path} uses {name}"
        labels = keywords - {"amount", "value", "within"}
        assert None in labels or labels == set(CATALOGUE[name].labels), f"{path} uses {name} with {labels}"


def test_a_counter_a_gauge_and_a_histogram() -> None:
    metrics = Metrics()
    metrics.increment("thumbloop_gateway_feedback_total", kind="thumb", outcome="accepted")
    metrics.increment("thumbloop_gateway_feedback_total", 2, kind="thumb", outcome="accepted")
    metrics.set("thumbloop_generator_running_responses", 4)
    metrics.observe("thumbloop_gateway_first_token_seconds", 0.015)
    assert metrics.value("thumbloop_gateway_feedback_total", kind="thumb", outcome="accepted") == 3
    assert metrics.value("thumbloop_generator_running_responses") == 4
    page = metrics.render().decode()
    assert 'thumbloop_gateway_first_token_seconds_bucket{le="0.02"} 1.0' in page
    assert 'thumbloop_gateway_first_token_seconds_bucket{le="0.01"} 0.0' in page


def test_a_state_replaces_the_one_before_within_its_kind() -> None:
    metrics = Metrics()
    for kind, version in [("policy", "p-1"), ("reward_model", "rm-1"), ("policy", "p-2")]:
        metrics.set_only("thumbloop_release_info", 1, within=("kind",), kind=kind, version=version)
    assert metrics.value("thumbloop_release_info", kind="policy", version="p-1") is None
    assert metrics.value("thumbloop_release_info", kind="policy", version="p-2") == 1
    assert metrics.value("thumbloop_release_info", kind="reward_model", version="rm-1") == 1


@pytest.mark.parametrize(
    ("name", "labels", "what"),
    [
        ("thumbloop_typing_mistake_total", {}, "catalogue"),
        ("thumbloop_release_flips_total", {}, "labels"),
        ("thumbloop_release_flips_total", {"kind": "policy", "pod": "a"}, "labels"),
        ("thumbloop_generator_running_responses", {}, "gauge"),
    ],
)
def test_mistakes_are_told(name: str, labels: dict[str, str], what: str) -> None:
    with pytest.raises(Misconfigured, match=what):
        Metrics().increment(name, 1, **labels)


def test_processes_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one.set("thumbloop_generator_running_responses", 1)
    assert other.value("thumbloop_generator_running_responses") is None


def test_a_room_has_its_metrics_from_the_start() -> None:
    metrics = Metrics(room="generator")
    assert metrics.value("thumbloop_generator_waiting_responses") == 0
    assert "thumbloop_ingest" not in metrics.render().decode()


def test_they_are_served_until_stopped() -> None:
    metrics = Metrics(room="reward")
    with metrics.serve("127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.port}/metrics"
        assert "thumbloop_reward_batch_seconds" in httpx.get(url, trust_env=False).text
        with pytest.raises(Misconfigured, match=str(server.port)):
            Metrics().serve("127.0.0.1", server.port)
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)
