"""Learner and reward room in one process, on real gRPC and a bus in memory, around a tiny model.

The *people* here stand in for gateway and generator: they draw answers from the live policy, as the generator would
record them, and rate them by a taste of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch

from services.embedded.ports import free_port
from services.learner.base_identity import identity_of
from services.learner.main import Ending, make_learner
from services.learner.model.adapter_format import load_adapter
from services.learner.model.policy_model import PolicyModel
from services.learner.model.sampling import sample_answers
from services.learner.model.settings import PolicyModelSettings
from services.learner.ports import ReleaseRow
from services.learner.roles import Ground
from services.learner.state.candidates import SqlCandidates
from services.learner.trainer.status import Phase
from services.learner.trainer.trainer import Trainer
from services.reward.main import make_base, make_room
from services.shared.access import service_credential
from services.shared.bus.interface import OutgoingEvent
from services.shared.bus.memory import MemoryBus
from services.shared.checkpoints import CheckpointStore
from services.shared.contracts.feedback import encode_feedback
from services.shared.contracts.rollouts import encode_rollout
from services.shared.contracts.topics import FEEDBACK, ROLLOUTS, load_topic_pages
from services.shared.domain.release import ReleaseKind
from services.shared.domain.rollout import Rollout
from services.shared.ids import new_id, utc_now
from services.shared.rpc import open_sync_channel
from services.shared.settings import Settings
from services.shared.settings.model import DeploymentSettings, LearnerSettings, ModelSettings, RewardSettings
from services.shared.store.database import Database, open_database
from services.shared.store.migrate import migrate
from services.shared.telemetry.metrics import Metrics
from tests.support.facts import DEPLOYMENT, make_rollout, make_thumb

QUESTIONS = ("How are you today?", "Tell me of the sea.", "What is rice?", "Is it far?", "Who are you?", "Thank you!")
TEMPERATURE = 0.8
TOKENS = 8


def half_loop_settings(folder: Path, model: Path, learner: LearnerSettings, device: str = "cpu") -> Settings:
    port = free_port()
    reward_port = free_port()
    return Settings(
        deployment=DeploymentSettings(name=DEPLOYMENT, data_dir=folder),
        model=ModelSettings(path=str(model), device=device),
        reward=RewardSettings(port=reward_port, learner_address=f"127.0.0.1:{port}"),
        learner=learner.model_copy(update={"port": port, "reward_address": f"127.0.0.1:{reward_port}"}),
    )


class People:
    """Draw answers from the live policy and rate each."""

    def __init__(self, loop: HalfLoop, *, taste: Callable[[tuple[int, ...]], bool], seed: int = 0) -> None:
        self._loop = loop
        self._taste = taste
        self._random = torch.Generator().manual_seed(seed)
        self._model = PolicyModel.from_directory(loop.model_folder, PolicyModelSettings(precision="float32"))
        self._version = ""
        self._numbers = count(1)
        self.liked: list[float] = []
        self.rated = 0

    def chat(self, number: int) -> list[str]:
        """So many rated answers; gives their rollout ids."""
        self._follow()
        prompts = [self._prompt(QUESTIONS[index % len(QUESTIONS)]) for index in range(number)]
        answers = sample_answers(
            self._model.network,
            prompts,
            max_new_tokens=TOKENS,
            temperature=TEMPERATURE,
            end_ids=frozenset(),
            random=self._random,
        )
        names = []
        for prompt, answer in zip(prompts, answers, strict=True):
            name, up = f"r{next(self._numbers):05d}", self._taste(answer.response_ids)
            names.append(name)
            rollout = self._rollout(name, prompt, answer.response_ids, answer.logprobs)
            thumb = replace(make_thumb(f"f-{name}", rollout=name, up=up, rater=rollout.rater_id), accept_time=utc_now())
            self._loop.send(ROLLOUTS, name, encode_rollout(rollout))
            self._loop.send(FEEDBACK, name, encode_feedback(thumb))
        self.rated += number
        self.liked.append(sum(self._taste(answer.response_ids) for answer in answers) / number)
        return names

    def _rollout(
        self, name: str, prompt: tuple[int, ...], response: tuple[int, ...], log_probs: tuple[float, ...]
    ) -> Rollout:
        now = utc_now()
        made = make_rollout(
            name,
            versions=((self._version, len(response)),),
            temperature=TEMPERATURE,
            rater=f"rater-{int(name[1:]) % 20}",
        )
        return replace(
            made,
            prompt_token_ids=prompt,
            response_token_ids=response,
            behaviour_log_probs=log_probs,
            request_time=now,
            first_token_time=now,
            end_time=now,
        )

    def _follow(self) -> None:
        live = self._loop.live()
        if live.version == self._version:
            return
        if live.parent_version:
            folder = self._loop.folder / "people" / live.version
            self._loop.ground.checkpoints.fetch(live.checkpoint_path, live.manifest_sha256, folder)
            load_adapter(self._model, folder)
        self._version = live.version

    def _prompt(self, question: str) -> tuple[int, ...]:
        encoded = self._loop.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True
        )
        return tuple(encoded["input_ids"])


@dataclass(kw_only=True)
class HalfLoop:
    """What a test steers."""

    folder: Path
    model_folder: Path
    settings: Settings
    ground: Ground
    bus: MemoryBus
    ending: Ending
    trainer: Trainer
    tokenizer: Any

    def send(self, topic: str, key: str, value: bytes) -> None:
        self.bus.append(OutgoingEvent(topic=topic, key=key, value=value))

    def live(self, kind: ReleaseKind = ReleaseKind.POLICY) -> ReleaseRow:
        live = self.find_live(kind)
        assert live is not None
        return live

    def find_live(self, kind: ReleaseKind = ReleaseKind.POLICY) -> ReleaseRow | None:
        return SqlCandidates(self.ground.database, clock=utc_now, epoch=0).live(kind)

    async def wait_for(self, condition: Callable[[], bool], *, what: str, within_s: float = 90.0) -> None:
        await _until(condition, self.ending, what=what, within_s=within_s)


@asynccontextmanager
async def running_half_loop(
    folder: Path, model: Path, learner_settings: LearnerSettings, bus: MemoryBus, device: str = "cpu"
) -> AsyncIterator[HalfLoop]:
    """Both rooms, ready; drained at the end."""
    from transformers import AutoTokenizer

    settings = half_loop_settings(folder, model, learner_settings, device)
    with ExitStack() as stack:
        database = _database(settings, stack)
        ground = Ground(
            settings=settings,
            base=identity_of(model),
            database=database,
            bus=bus,
            checkpoints=CheckpointStore(settings.checkpoints_url),
            metrics=Metrics(),
            clock=utc_now,
            new_id=new_id,
        )
        ending = Ending()
        learner = await asyncio.to_thread(make_learner, ground, asyncio.get_running_loop(), ending, stack)
        await learner.start()
        trainer = learner.trainer
        assert trainer is not None
        # transformers loads one model at a time in a process; in a deployment the rooms have one each.
        await _until(lambda: trainer.status.phase is not Phase.STARTING, ending, what="the trainer has a model")
        channel = open_sync_channel(settings.reward.learner_address, credential=service_credential(settings))
        stack.callback(channel.close)
        room = make_room(settings, await asyncio.to_thread(make_base, settings), bus, Metrics(), channel)
        await room.start()
        loop = HalfLoop(
            folder=folder,
            model_folder=model,
            settings=settings,
            ground=ground,
            bus=bus,
            ending=ending,
            trainer=trainer,
            tokenizer=AutoTokenizer.from_pretrained(model),
        )
        try:
            await loop.wait_for(lambda: room.follower.caught_up, what="the reward room is ready")
            yield loop
        finally:
            await room.drain()
            await learner.drain()


async def _until(condition: Callable[[], bool], ending: Ending, *, what: str, within_s: float = 90.0) -> None:
    deadline = asyncio.get_running_loop().time() + within_s
    while not await asyncio.to_thread(condition):
        assert ending.failure is None, ending.failure
        assert asyncio.get_running_loop().time() < deadline, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.02)


def new_bus() -> MemoryBus:
    bus = MemoryBus()
    bus.ensure_topics(load_topic_pages().values())
    return bus


def _database(settings: Settings, stack: ExitStack) -> Database:
    database = open_database(settings.store_url)
    stack.callback(database.close)
    migrate(database)
    return database
