"""`thumbloop policies`: asks the learner over gRPC."""

from __future__ import annotations

import grpc
from rich.console import Console
from rich.table import Table
from thumbloop.learner.v1 import learner_pb2, learner_pb2_grpc, policy_pb2

from services.shared.domain.errors import InvalidInput, Unavailable
from services.shared.rpc.statuses import error_from_rpc
from services.shared.settings import load_settings

KINDS = {
    "all": policy_pb2.RELEASE_KIND_UNSPECIFIED,
    "policy": policy_pb2.RELEASE_KIND_POLICY,
    "reward_model": policy_pb2.RELEASE_KIND_REWARD_MODEL,
}
CALL_TIMEOUT_S = 5.0
PAGE_SIZE = 200


def learner_address() -> str:
    """Where the learner listens by the settings."""
    learner = load_settings().learner
    return f"{learner.host}:{learner.port}"


def fetch_releases(address: str, kind: str, limit: int) -> list[learner_pb2.Release]:
    """Newest first. Raises InvalidInput (kind), Unavailable (learner away)."""
    if kind not in KINDS:
        raise InvalidInput(f"--kind {kind!r} is unknown; it is one of {', '.join(KINDS)}.")
    releases: list[learner_pb2.Release] = []
    page_token = ""
    with grpc.insecure_channel(address) as channel:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        while len(releases) < limit:
            request = learner_pb2.ListReleasesRequest(
                kind=KINDS[kind], page_size=min(limit - len(releases), PAGE_SIZE), page_token=page_token
            )
            try:
                page = stub.ListReleases(request, timeout=CALL_TIMEOUT_S)
            except grpc.RpcError as error:
                raise _explain(error, address) from error
            releases.extend(page.releases)
            page_token = page.next_page_token
            if not page_token:
                break
    return releases


def _explain(error: grpc.RpcError, address: str) -> Exception:
    known = error_from_rpc(error)
    if isinstance(known, Unavailable):
        return Unavailable(f"No learner answers at {address}. Start one (`thumbloop up`) or name it with --address.")
    return known


def print_releases(address: str, kind: str, limit: int) -> None:
    """A table, a release a row."""
    releases = fetch_releases(address or learner_address(), kind, limit)
    table = Table(title="Releases, newest first")
    for column in ("version", "state", "committed", "trained on", "reward", "KL nats", "thumbs up", "gate"):
        table.add_column(column, overflow="fold")
    for release in releases:
        table.add_row(*release_cells(release))
    Console().print(table)


def release_cells(release: learner_pb2.Release) -> tuple[str, ...]:
    """What a person wants to see of a release."""
    state = learner_pb2.ReleaseState.Name(release.state).removeprefix("RELEASE_STATE_").lower()
    verdict = "; ".join(line for line in release.gate_verdict if not line.startswith("ok"))
    return (
        release.version,
        state,
        release.commit_time.ToDatetime().strftime("%H:%M:%S") if release.HasField("commit_time") else "",
        f"{release.experiences} rollouts" if release.experiences else "-",
        metric_cell(release, "reward_mean", "{:+.2f}"),
        metric_cell(release, "kl_per_answer", "{:.2f}"),
        metric_cell(release, "thumbs_up_rate", "{:.0%}"),
        verdict or "passed",
    )


def metric_cell(release: learner_pb2.Release, name: str, form: str) -> str:
    """A metric, or a dash where nothing measured it."""
    return form.format(release.metrics[name]) if name in release.metrics else "-"
