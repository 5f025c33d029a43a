"""`thumbloop policies`: asks the learner over gRPC."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from thumbloop.learner.v1 import learner_pb2, policy_pb2

from services.cli.learner_connection import CALL_TIMEOUT_S, learner
from services.cli.plain import plain
from services.shared.domain.errors import InvalidInput

KINDS = {
    "all": policy_pb2.RELEASE_KIND_UNSPECIFIED,
    "policy": policy_pb2.RELEASE_KIND_POLICY,
    "reward_model": policy_pb2.RELEASE_KIND_REWARD_MODEL,
}
PAGE_SIZE = 200


def fetch_releases(address: str, kind: str, limit: int, data_dir: Path | None = None) -> list[learner_pb2.Release]:
    """Newest first. Raises InvalidInput (kind), Unauthenticated, PermissionDenied, Unavailable (learner away)."""
    if kind not in KINDS:
        raise InvalidInput(f"--kind {kind!r} is unknown; it is one of {', '.join(KINDS)}.")
    releases: list[learner_pb2.Release] = []
    page_token = ""
    with learner(address, data_dir) as stub:
        while len(releases) < limit:
            request = learner_pb2.ListReleasesRequest(
                kind=KINDS[kind], page_size=min(limit - len(releases), PAGE_SIZE), page_token=page_token
            )
            page = stub.ListReleases(request, timeout=CALL_TIMEOUT_S)
            releases.extend(page.releases)
            page_token = page.next_page_token
            if not page_token:
                break
    return releases


def print_releases(address: str, kind: str, limit: int, data_dir: Path | None = None) -> None:
    """A table, a release a row."""
    releases = fetch_releases(address, kind, limit, data_dir)
    table = Table(title="Releases, newest first", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("version", "state", "at", "rollouts", "reward", "KL nats", "up", "gate"):
        table.add_column(column, overflow="fold", no_wrap=column != "gate")
    for release in releases:
        table.add_row(*map(plain, release_cells(release)))
    Console().print(table)


def release_cells(release: learner_pb2.Release) -> tuple[str, ...]:
    """What a person wants to see of a release."""
    state = learner_pb2.ReleaseState.Name(release.state).removeprefix("RELEASE_STATE_").lower()
    verdict = "; ".join(line for line in release.gate_verdict if not line.startswith("ok"))
    return (
        release.version,
        state,
        release.commit_time.ToDatetime().strftime("%H:%M:%S") if release.HasField("commit_time") else "",
        str(release.experiences) if release.experiences else "-",
        metric_cell(release, "reward_mean", "{:+.2f}"),
        metric_cell(release, "kl_per_answer", "{:.2f}"),
        metric_cell(release, "thumbs_up_rate", "{:.0%}"),
        verdict or "passed",
    )


def metric_cell(release: learner_pb2.Release, name: str, form: str) -> str:
    """A metric, or a dash where nothing measured it."""
    return form.format(release.metrics[name]) if name in release.metrics else "-"
