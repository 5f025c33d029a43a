"""Keys across the whole deployment.

Plan: the scripted loop with keys required; `thumbloop keys` makes a chat and a score key; a chat over HTTP, `Generate`
and `Score` over gRPC with them; another tenant's administrator lists keys; then the chat key is revoked by command.
Pass: each door opens to its scope alone, and to nothing that the rooms alone may say; the revoked key is refused at
every door within seconds, and no other is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from thumbloop.generator.v1 import generator_pb2_grpc, rollout_pb2
from thumbloop.reward.v1 import reward_pb2, reward_pb2_grpc
from thumbloop.shared.v1 import meta_pb2

from services.cli.learner_connection import API_KEY_VARIABLE
from services.embedded.plan import EmbeddedPlan, choose_ports
from services.embedded.supervisor import Supervisor
from services.shared.domain.errors import PermissionDenied, ThumbloopError, Unauthenticated
from services.shared.rpc import error_from_rpc, open_sync_channel
from tests.integration.loop.conftest import SCRIPTED
from tests.support.access import KeyCredential
from tests.support.generator_room import generate_request
from tests.support.patience import eventually

CALL_S = 10.0


@pytest.fixture
def closed_loop(broker_choice: str, tmp_path: Path) -> Iterator[Supervisor]:
    overrides = {**SCRIPTED, "access": {"anonymous_chat": False, "snapshot_interval_s": 0.3}}
    ports = choose_ports(prefer_defaults=False)
    supervisor = Supervisor(EmbeddedPlan(data_dir=tmp_path, ports=ports, broker=broker_choice, overrides=overrides))
    try:
        supervisor.start()
        yield supervisor
    finally:
        supervisor.stop()


class People:
    """Those who hold keys to one deployment, and its operator."""

    def __init__(self, plan: EmbeddedPlan) -> None:
        self._plan = plan

    def operate(self, *words: str) -> str:
        """`thumbloop WORDS`, which must succeed; gives what it prints."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: str, key: str = "") -> subprocess.CompletedProcess[str]:
        """`thumbloop WORDS`, with the deployment's secrets or with `key`."""
        here = ["--address", f"127.0.0.1:{self._plan.ports['learner']}", "--data-dir", str(self._plan.data_dir)]
        return subprocess.run(
            [sys.executable, "-m", "services.cli", *words, *here],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "COLUMNS": "200", API_KEY_VARIABLE: key},
            check=False,
        )

    def chat(self, key: str) -> int:
        """HTTP status of a question; 0: nobody there."""
        body = {"model": "thumbloop", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
        try:
            answer = httpx.post(
                f"{self._plan.page_url}/v1/chat/completions",
                json=body,
                headers={"Authorization": f"Bearer {key}"},
                timeout=CALL_S,
            )
        except httpx.TransportError:
            return 0
        return answer.status_code

    def generate(self, key: str, **changes: Any) -> str:
        """ "ok", or the reason of the refusal."""
        request = generate_request(**{"rater_id": "", **changes})

        def call(channel: grpc.Channel) -> None:
            list(generator_pb2_grpc.GeneratorServiceStub(channel).Generate(request, timeout=CALL_S))

        return self._call("generator", key, call)

    def score(self, key: str) -> str:
        """ "ok", or the reason of the refusal."""
        text = reward_pb2.ScoredText(
            messages=[meta_pb2.ChatMessage(role=meta_pb2.ROLE_USER, content="Hi")], response="Hello."
        )
        request = reward_pb2.ScoreRequest(items=[reward_pb2.ScoreItem(text=text)])
        return self._call("reward", key, lambda c: reward_pb2_grpc.RewardServiceStub(c).Score(request, timeout=CALL_S))

    def _call(self, room: str, key: str, call: Any) -> str:
        with open_sync_channel(f"127.0.0.1:{self._plan.ports[room]}", credential=KeyCredential(key)) as channel:
            try:
                call(channel)
            except grpc.RpcError as error:
                known: ThumbloopError = error_from_rpc(error)
                assert isinstance(known, (Unauthenticated, PermissionDenied)), known
                return known.reason
        return "ok"


@pytest.mark.embedded_alone
def test_keys_open_their_doors_until_they_are_revoked(closed_loop: Supervisor) -> None:
    people = People(closed_loop.plan)
    chat = people.operate("keys", "create", "web", "--scopes", "chat", "--bare").strip()
    score = people.operate("keys", "create", "lab", "--scopes", "score", "--expires", "1d", "--bare").strip()
    eventually(lambda: people.chat(chat) == 200, within_s=60, what="the gateway knows the chat key")
    eventually(lambda: people.generate(chat) == "ok", within_s=60, what="the generator knows the chat key")
    eventually(lambda: people.score(score) == "ok", within_s=60, what="reward knows the score key")
    wrong = ("WRONG_SCOPE", "WRONG_SCOPE", 403)
    eventually(
        lambda: (people.generate(score), people.score(chat), people.chat(score)) == wrong,
        within_s=60,
        what="each key is known at every door, and refused where it may not enter",
    )
    assert people.generate(chat, tenant="umbrella") == "WRONG_TENANT"
    assert people.generate(chat, tenant="") == "ok"
    for forged in ({"rater_id": "alice"}, {"canary_id": "c"}, {"purpose": rollout_pb2.PURPOSE_GATE}):
        assert people.generate(chat, **forged) == "ROOMS_ONLY"
    assert (people.generate("none"), people.score("none"), people.chat("none")) == (
        "API_KEY_MALFORMED",
        "API_KEY_MALFORMED",
        401,
    )
    listed = people.operate("keys", "list")
    key_id = chat.split("_")[1]
    assert re.search(rf"{key_id}.*web.*chat.*live", listed) and chat not in listed
    admin = people.operate("keys", "create", "acme-admin", "--scopes", "admin", "--tenant", "acme", "--bare").strip()
    eventually(lambda: people.run("keys", "list", key=admin).returncode == 0, within_s=60, what="the key is known")
    own = people.run("keys", "list", key=admin).stdout
    assert "acme-admin" in own and key_id not in own, "it names no tenant, and sees its own alone"
    assert "is revoked" in people.operate("keys", "revoke", key_id)
    refusals = (401, "API_KEY_UNKNOWN", "ok")
    eventually(
        lambda: (people.chat(chat), people.generate(chat), people.score(score)) == refusals,
        within_s=60,
        what="the revoked key is refused at every door, and the other one is not",
    )
