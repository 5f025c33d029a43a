"""The chat page in a real browser.

Plan: open the page, ask, read the streamed answer, give a thumb, follow it to the version that learned from it, see a
release arrive, and retry after an error. Pass: everything is seen on the page, nothing is loaded from elsewhere, and
the browser reports no error of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Request, Route, async_playwright, expect
from thumbloop.gateway.v1 import feedback_pb2
from thumbloop.learner.v1 import learner_pb2, policy_pb2

from services.shared.access import Scope
from services.shared.domain.errors import InvalidInput
from services.shared.domain.feedback import Thumb
from tests.support.access import live_key
from tests.support.gateway import NEXT_VERSION, VERSION, GatewayHarness, running_gateway, until

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
EXPECT_WITHIN_MS = 30_000
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
async def page(gateway: GatewayHarness) -> AsyncIterator[Page]:
    """The chat page of a gateway where everyone may chat, open."""
    async with opened(gateway) as page:
        yield page


@asynccontextmanager
async def opened(gateway: GatewayHarness) -> AsyncIterator[Page]:
    """The chat page; complains afterwards of script errors and of requests to anywhere else."""
    problems: list[str] = []

    def watch(request: Request) -> None:
        if not request.url.startswith((gateway.url, "data:")):
            problems.append(f"asked {request.url}")

    expect.set_options(timeout=EXPECT_WITHIN_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page()
        page.on("request", watch)
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(gateway.url)
        yield page
        await browser.close()
    assert problems == []


async def test_where_a_key_is_needed_the_page_asks_for_it(tmp_path: Path) -> None:
    """It chats, rates and watches releases with a key; it asks again when the key is revoked; a reload keeps it."""
    minted, key = live_key(Scope.CHAT)
    async with (
        running_gateway(tmp_path, access={"anonymous_chat": False}, keys=[key]) as gateway,
        opened(gateway) as page,
    ):
        field, use = page.get_by_label("API key"), page.get_by_role("button", name="Use this key")
        await field.fill("tl_wrong")
        await use.click()
        await expect(page.get_by_role("alert")).to_contain_text("is no API key of Thumbloop")
        await field.fill(minted.text)
        await use.click()
        await expect(field).to_have_count(0)
        await expect(page.locator(".live")).to_contain_text("answering now")
        await page.reload()
        await ask(page, "How do I keep a plant?")
        answer = page.get_by_role("article", name="Answer")
        await expect(answer).to_contain_text("Water it when dry.")
        await answer.get_by_label("Good answer").click()
        await expect(answer).to_contain_text("received")
        gateway.learner.keys = []

        async def gone() -> bool:
            headers = {"Authorization": f"Bearer {minted.text}"}
            return (await gateway.http.get("/v1/models", headers=headers)).status_code == 401

        await until(gone, what="the key to be refused")
        await ask(page, "And a cactus?")
        await expect(field).to_be_visible()


async def ask(page: Page, text: str) -> None:
    await page.get_by_label("Message").fill(text)
    await page.keyboard.press("Enter")


async def test_ask_read_thumb_and_follow_it(gateway: GatewayHarness, page: Page) -> None:
    gateway.generator.hold_after_words = 2
    await ask(page, "How do I keep a plant?")
    answer = page.get_by_role("article", name="Answer")
    await expect(answer).to_contain_text("Water it")
    await expect(answer).to_have_attribute("aria-busy", "true")
    gateway.generator.go_on.set()
    await expect(answer).to_contain_text("Water it when dry.")
    await expect(answer.locator(".version")).to_have_text("v1")
    up = answer.get_by_label("Good answer")
    await up.click()
    await expect(answer).to_contain_text("received")
    await expect(up).to_have_attribute("aria-pressed", "true")
    (event,) = gateway.bus.feedback
    gateway.learner.feedback[event.feedback_id] = learner_pb2.GetFeedbackResponse(
        feedback_id=event.feedback_id,
        state=learner_pb2.FEEDBACK_STATE_JOINED,
        rollout_id=event.rollout_id,
        rater_id=event.rater_id,
        kind=feedback_pb2.FEEDBACK_KIND_THUMB,
        revision=event.revision,
    )
    await expect(answer).to_contain_text("joined")
    gateway.learner.feedback[event.feedback_id].trained_into_through_reward_model.append(NEXT_VERSION)
    await expect(answer).to_contain_text("taught v2")
    await up.click()
    await expect(answer).to_contain_text("taken back")
    assert [feedback.retracted for feedback in gateway.bus.feedback] == [False, True]


async def test_a_mind_is_changed_taken_back_and_sent_again(gateway: GatewayHarness, page: Page) -> None:
    """Up, then down instead, then down again takes it back; what could not be sent goes again under its own id."""
    await ask(page, "How do I keep a plant?")
    answer = page.get_by_role("article", name="Answer")
    up, down = answer.get_by_label("Good answer"), answer.get_by_label("Bad answer")
    await up.click()
    await expect(answer).to_contain_text("received")
    await down.click()
    await expect(down).to_have_attribute("aria-pressed", "true")
    await expect(up).to_have_attribute("aria-pressed", "false")
    await expect(answer).to_contain_text("received")
    await down.click()
    await expect(answer).to_contain_text("taken back")
    await expect(down).to_have_attribute("aria-pressed", "false")
    said = gateway.bus.feedback
    assert [(event.body, event.retracted) for event in said] == [
        (Thumb(up=True), False),
        (Thumb(up=False), False),
        (Thumb(up=False), True),
    ]
    assert len({event.feedback_id for event in said}) == 3
    assert said[0].revision < said[1].revision < said[2].revision

    sent: list[Any] = []

    async def refuse(route: Route) -> None:
        sent.append(route.request.post_data_json)
        await route.abort()

    await page.route("**/v1/feedback", refuse)
    await up.click()
    await expect(answer).to_contain_text("not sent")
    await page.unroute("**/v1/feedback")
    await answer.get_by_role("button", name="send again").click()
    await expect(answer).to_contain_text("received")
    last = gateway.bus.feedback[-1]
    assert (last.feedback_id, last.revision) == (sent[0]["feedback_id"], sent[0]["revision"])
    assert last.revision > said[2].revision


async def test_a_release_is_seen_while_one_chats(gateway: GatewayHarness, page: Page) -> None:
    live = page.locator(".live .version")
    await expect(live).to_have_text("v1")
    gateway.generator.flip_to = NEXT_VERSION
    await ask(page, "How do I keep a plant?")
    await expect(page.get_by_role("article", name="Answer")).to_contain_text("changed mid-answer")
    release = learner_pb2.Release(
        version=NEXT_VERSION, kind=policy_pb2.RELEASE_KIND_POLICY, state=learner_pb2.RELEASE_STATE_PUBLISHED
    )
    release.publish_time.FromSeconds(int(time.time()))
    release.metrics["kl_per_answer"] = 1.25
    gateway.learner.releases.append(release)
    gateway.generator.version = NEXT_VERSION
    await expect(live).to_have_text("v2")
    shown = page.locator(".release")
    await expect(shown).to_contain_text("live")
    await expect(shown).to_contain_text("1.3")


async def test_an_error_is_told_and_asked_again(gateway: GatewayHarness, page: Page) -> None:
    gateway.generator.failures = [InvalidInput("too long for the engine")]
    await ask(page, "How do I keep a plant?")
    await expect(page.get_by_role("alert")).to_contain_text("too long for the engine")
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_role("article", name="Answer")).to_contain_text("Water it when dry.")
    assert len(gateway.generator.requests) == 2


async def test_stop_cancels_the_answer(gateway: GatewayHarness, page: Page) -> None:
    gateway.generator.words, gateway.generator.token_interval_s = ("and ",) * 400, 0.05
    await ask(page, "Go on.")
    await expect(page.get_by_role("article", name="Answer")).to_contain_text("and and")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_role("article", name="Answer")).to_contain_text("stopped")
    await until(lambda: gateway.generator.running == 0, what="the generator to stop")


async def test_the_documentation_works_offline(gateway: GatewayHarness, page: Page) -> None:
    await page.goto(f"{gateway.url}/docs")
    await expect(page.get_by_role("heading", name="Thumbloop API")).to_be_visible()
    await expect(page.locator("#app")).to_contain_text("/v1/chat/completions")
    assert VERSION and (await gateway.http.get("/openapi.json")).status_code == 200
