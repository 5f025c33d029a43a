"""Who dies, in which order, by seeded dice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from services.embedded.plan import ROOMS
from tests.benchmarks.chaos.killer import Strike
from tests.benchmarks.chaos.world import BROKER, VICTIMS

HASTY = 0.2
"""Share of kills that do not wait until the loop has recovered from the one before."""
FLOOR_OF_HUNDRED = 15
"""Of a hundred kills each victim gets at least so many."""
READS_LOG = "learner"
"""Whoever reads the log has what it read; the broker's tail is lost for good where this one was away."""
UNREAD_S = (1.0, 2.0)
"""How long the log grows unread before the broker dies."""


def plan_strikes(kills: int, seed: int, victims: Sequence[str] = VICTIMS) -> list[Strike]:
    """The same seed gives the same strikes; every victim has its share."""
    dice = random.Random(f"{seed}/strikes")
    floor = min(kills // len(victims), kills * FLOOR_OF_HUNDRED // 100)
    order = [*victims] * floor
    order += [dice.choice(victims) for _ in range(kills - len(order))]
    dice.shuffle(order)
    return [_strike(victim, dice) for victim in order]


def plan_broker_strikes(kills: int, of_each_room: int, seed: int) -> list[Strike]:
    """So many of the broker and so many of each room; each of the learner's falls just before one of the broker's, so
    that what this loses of its tail has not been read.
    """
    dice = random.Random(f"{seed}/broker strikes")
    rooms = [room for room in ROOMS if room != READS_LOG] * of_each_room
    turns = [[BROKER]] * (kills - of_each_room) + [[READS_LOG, BROKER]] * of_each_room + [[room] for room in rooms]
    dice.shuffle(turns)
    strikes: list[Strike] = []
    for turn in turns:
        for victim in turn[:-1]:
            strikes.append(replace(_strike(victim, dice), hasty=True, pause_s=dice.uniform(*UNREAD_S)))
        strikes.append(_strike(turn[-1], dice))
    return strikes


def _strike(victim: str, dice: random.Random) -> Strike:
    return Strike(
        victim=victim, pause_s=dice.uniform(0.0, 1.5), away_s=dice.uniform(0.2, 5.0), hasty=dice.random() < HASTY
    )
