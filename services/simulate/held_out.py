"""Answers to the held-out prompts, drawn from the generator as it serves (gRPC `Generate`, purpose GATE).

They run beside users' requests, get no feedback token and are never trained on; but they are recorded like any other
rollout, so that log-probs and versions come from the system itself.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from thumbloop.generator.v1 import generator_pb2, generator_pb2_grpc, rollout_pb2
from thumbloop.shared.v1 import meta_pb2

from services.shared.ids import new_id
from services.shared.rpc import Credential, open_channel

ANSWER_TIMEOUT_S = 120.0
CONCURRENT = 16


@dataclass(frozen=True, kw_only=True)
class HeldOutAnswer:
    """One answer, wholly by one version."""

    prompt: str
    rollout_id: str
    policy_version: str
    text: str
    behaviour_log_probs: tuple[float, ...]


async def draw_held_out(
    *,
    address: str,
    credential: Credential,
    prompts: tuple[str, ...],
    temperature: float,
    max_tokens: int,
    tenant: str = "default",
) -> list[HeldOutAnswer]:
    """One answer a prompt; an answer that a flip made of two versions is drawn again, once. Raises grpc.RpcError."""
    slots = asyncio.Semaphore(CONCURRENT)
    async with open_channel(address, credential=credential) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)

        async def one(prompt: str) -> HeldOutAnswer | None:
            async with slots:
                for _ in range(2):
                    answer = await _draw(stub, prompt, temperature, max_tokens, tenant)
                    if answer is not None:
                        return answer
            return None

        answers = await asyncio.gather(*(one(prompt) for prompt in prompts))
    return [answer for answer in answers if answer is not None]


async def _draw(
    stub: generator_pb2_grpc.GeneratorServiceAsyncStub, prompt: str, temperature: float, max_tokens: int, tenant: str
) -> HeldOutAnswer | None:
    """None: more than one version drew it."""
    request = generator_pb2.GenerateRequest(
        rollout_id=new_id(),
        tenant=tenant,
        purpose=rollout_pb2.PURPOSE_GATE,
        messages=[meta_pb2.ChatMessage(role=meta_pb2.ROLE_USER, content=prompt)],
        sampling=meta_pb2.SamplingParameters(temperature=temperature, top_p=1.0, max_tokens=max_tokens),
    )
    text = ""
    finished = None
    async for part in stub.Generate(request, timeout=ANSWER_TIMEOUT_S):
        if part.HasField("delta"):
            text += part.delta.text
        elif part.HasField("finished"):
            finished = part.finished
    if finished is None or len({span.policy_version for span in finished.spans}) != 1:
        return None
    return HeldOutAnswer(
        prompt=prompt,
        rollout_id=request.rollout_id,
        policy_version=finished.spans[0].policy_version,
        text=text,
        behaviour_log_probs=tuple(finished.behaviour_log_probs),
    )
