"""Anyone may ask: by text, tokens or features, at the live version or at a pinned one.

Plan: two reward models are released one after the other. A client that knows only reflection scores a text; stubs
score tokens and their features; bad requests are sent.
Pass: features give the same judgement as the tokens they came from; the pinned older version answers beside the live
one; each bad request gets its own code, names the field and says how to mend it.
"""

from __future__ import annotations

import dataclasses

import grpc
import pytest
from thumbloop.reward.v1 import reward_pb2, reward_pb2_grpc
from thumbloop.shared.v1 import meta_pb2

from services.shared.domain.errors import FailedPrecondition, InvalidInput
from services.shared.domain.scripted_language import FEATURES
from services.shared.reward_heads.heads import RewardHeads
from services.shared.rpc import error_from_rpc
from tests.integration.reward.reward_process import RewardProcess, zero_heads
from tests.support.patience import eventually
from tests.support.reflection_client import ReflectionClient

SERVICE = "thumbloop.reward.v1.RewardService"


def likes_a() -> RewardHeads:
    """Heads that like the letter "a", whose class is its code modulo the number of features."""
    heads = zero_heads()
    weights = heads.weights_HF.copy()
    weights[:, ord("a") % FEATURES] = 8.0
    return dataclasses.replace(heads, weights_HF=weights)


def test_scoring_over_grpc(reward: RewardProcess) -> None:
    old = reward.release(zero_heads())
    reward.start()
    reward.wait_ready()
    stub = reward_pb2_grpc.RewardServiceStub(reward.channel)
    new = reward.release(likes_a())
    status = eventually(
        lambda: found if (found := _status(stub)).live_version == new else None, within_s=30, what="the new version"
    )
    assert set(status.resident_versions) == {old, new}
    assert (status.epoch, status.sequence, status.stage_error) == (2, 2, "")
    _by_reflection(reward.channel)
    _features_say_what_tokens_said(stub, old, new)
    _bad_requests(stub)


def _status(stub: reward_pb2_grpc.RewardServiceStub) -> reward_pb2.GetStatusResponse:
    return stub.GetStatus(reward_pb2.GetStatusRequest(), timeout=5)


def _by_reflection(channel: grpc.Channel) -> None:
    client = ReflectionClient(channel)
    assert SERVICE in client.services()
    messages = [{"content": "What letter?"}]
    answer = client.call(
        SERVICE,
        "Score",
        {
            "items": [
                {"text": {"messages": messages, "response": "aaaa"}},
                {"text": {"messages": messages, "response": "bbbb"}},
                {"text": {"messages": messages, "response": ""}},
            ]
        },
    )
    liked, indifferent, empty = answer["scores"]
    assert liked["mean"] > 0.99
    assert indifferent["mean"] == 0.5
    assert len(liked["reference_log_probs"]) == 4
    assert {term["name"]: term["value"] for term in empty["terms"]} == {"validity": -1.0}


def _features_say_what_tokens_said(stub: reward_pb2_grpc.RewardServiceStub, old: str, new: str) -> None:
    tokens = reward_pb2.ScoredTokens(prompt_token_ids=[1, 2], response_token_ids=[ord("a"), ord("b")], temperature=0.8)
    first = stub.Score(
        reward_pb2.ScoreRequest(items=[reward_pb2.ScoreItem(rollout_id="r1", tokens=tokens)]), timeout=10
    )
    assert first.reward_model_version == new
    item = reward_pb2.ScoreItem(rollout_id="r1", features=first.scores[0].features)
    again = stub.Score(reward_pb2.ScoreRequest(items=[item]), timeout=10)
    assert again.scores[0].mean == first.scores[0].mean
    assert not again.scores[0].reference_log_probs
    pinned = stub.Score(reward_pb2.ScoreRequest(items=[item], reward_model_version=old), timeout=10)
    assert (pinned.reward_model_version, pinned.scores[0].mean) == (old, 0.5)


def _bad_requests(stub: reward_pb2_grpc.RewardServiceStub) -> None:
    user = meta_pb2.ChatMessage(role=meta_pb2.ROLE_USER, content="Hello")
    text = reward_pb2.ScoredText(messages=[user], response="Hi")
    good = reward_pb2.ScoreItem(text=text)
    silent = reward_pb2.ScoreItem(text=reward_pb2.ScoredText(response="Hi"))
    strange = reward_pb2.ScoreItem(tokens=reward_pb2.ScoredTokens(prompt_token_ids=[1], response_token_ids=[2**31]))
    cases: list[tuple[list[reward_pb2.ScoreItem], str, type[Exception], str]] = [
        ([], "", InvalidInput, "items"),
        ([good] * 257, "", InvalidInput, "items"),
        ([good, reward_pb2.ScoreItem()], "", InvalidInput, "items[1]"),
        ([silent], "", InvalidInput, "items[0].text.messages"),
        ([good, strange], "", InvalidInput, "items[1].tokens"),
        ([reward_pb2.ScoreItem(features=b"xyz")], "", InvalidInput, "items[0].features"),
        ([good], "rm-0001-000009-00000000", FailedPrecondition, "reward_model_version"),
    ]
    for items, version, kind, field in cases:
        with pytest.raises(grpc.RpcError) as caught:
            stub.Score(reward_pb2.ScoreRequest(items=items, reward_model_version=version), timeout=10)
        error = error_from_rpc(caught.value)
        assert isinstance(error, kind), (field, error)
        assert error.field == field
        assert len(error.message) > 20
