"""The chat page in a real browser.

Plan: open the page, ask, read the streamed answer, give a thumb, follow it to the version that learned from it, see a
release arrive, and retry after an error. Pass: everything is seen on the page, nothing is loaded from elsewhere, and
the browser reports no error of its own.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, Request, async_playwright, expect
from thumbloop.gateway.v1 import feedback_pb2
from thumbloop.learner.v1 import learner_pb2, policy_pb2

from services.shared.domain.errors import InvalidInput
from tests.support.gateway import NEXT_VERSION, VERSION, GatewayHarness, until

CHROMIUM = "/usr/bin/chromium"
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
    """The chat page, open; complains afterwards of script errors and of requests to anywhere else."""
    problems: list[str] = []

    def watch(request: Request) -> None:
        if not request.url.startswith((gateway.url, "data:")):
            problems.append(f"asked {request.url}")

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page()
        page.on("request", watch)
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(gateway.url)
        yield page
        await browser.close()
    assert problems == []


async def ask(page: Page, text: str) -> None:
    await page.get_by_label("Message").fill(text)
    await page.keyboard.press("Enter")


async def test_ask_read_thumb_and_follow_it(gateway: GatewayHarness, page: Page) -> None:
    gateway.generator.token_interval_s = 0.1
    await ask(page, "How do I keep a plant?")
    answer = page.get_by_role("article", name="Answer")
    await expect(answer).to_contain_text("Water")
    await expect(answer).to_have_attribute("aria-busy", "true")
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
    await expect(answer).to_contain_text("joined", timeout=10_000)
    gateway.learner.feedback[event.feedback_id].trained_into_through_reward_model.append(NEXT_VERSION)
    await expect(answer).to_contain_text("taught v2", timeout=10_000)
    await up.click()
    await expect(answer).to_contain_text("taken back")
    assert [feedback.retracted for feedback in gateway.bus.feedback] == [False, True]


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
    await expect(live).to_have_text("v2", timeout=10_000)
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
