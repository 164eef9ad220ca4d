"""A headless Chromium, and a gateway with a family to ask and 63 more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from loadtests.servers import Server, gateway, running
from tests.browser.chromium import NoChromiumError, find_chromium
from tests.service.families import sign_model, write_chain, write_family
from variants.profiling import profile_family, save_profile
from variants.repository import Repository

FAMILIES = 64


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of 64 families: `chain`, two exits of one network, and tiny ones of two variants."""
    root = tmp_path_factory.mktemp("many")
    repository = Repository(root)
    write_chain(repository, "chain", 0.5)
    variants = {"quick": (sign_model(), 0.8), "better": (sign_model(1), 0.9)}
    names = [f"family-{number:02d}" for number in range(1, FAMILIES)]
    for name in names:
        write_family(repository, name, variants)
    # They are all alike, so one of them is timed.
    profile = profile_family(repository.open(names[0]))
    for name in names:
        save_profile(repository.open(name), profile.model_copy(update={"family": name}))
    return root


@pytest.fixture(scope="session")
def server(many: Path) -> Iterator[Server]:
    """A gateway with all of them."""
    with running(gateway(many, {"PARETO_SLOTS": "2"})) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for the tests of a module: beyond it, Playwright's event loop would be in the way of others."""
    try:
        chromium = find_chromium()
    except NoChromiumError as error:
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium.path, env=dict(chromium.environment) or None)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and whatever it complained about."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def _console(self, message: ConsoleMessage) -> None:
        # A limit of a millisecond may be refused, and Chromium reports any answer of 4xx by itself.
        if message.type in ("error", "warning") and "status of 429" not in message.text:
            self.complaints.append(message.text)

    def _failed(self, request: Request) -> None:
        # A stream that the page closes itself counts as failed.
        if "/events" not in request.url:
            self.complaints.append(f"{request.url}: {request.failure}")

    def watch(self) -> None:
        """Begin to listen."""
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", self._failed)


@pytest.fixture
def watched(browser: Browser, server: Server) -> Iterator[Watched]:
    """The page of `chain`, open and welcomed, in a window of 1280 by 900; at its end it has not complained."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    found = Watched(context.new_page())
    found.watch()
    found.page.goto(f"{server.url}/?family=chain")
    found.page.locator("#phase[data-phase=ready]").wait_for()
    yield found
    context.close()
    assert [] == found.complaints
