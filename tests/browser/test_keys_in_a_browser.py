"""A gateway that wants API keys, in a real browser: its own page, and a page of another site."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from loadtests.servers import Server, gateway, running
from tests.browser.test_the_page_in_a_browser import SERIOUS
from tests.service.families import sign_model, write_family
from variants.repository import Repository

KEY, READER = "page-key-0123456789abcdef", "reader-key-0123456789abcdef"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and writes no log."""

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the name that it has above
        """Write nothing."""


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two other origins with an empty page each."""
    folder = tmp_path_factory.mktemp("site")
    folder.joinpath("index.html").write_text("<!doctype html><title>another site</title>")
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [f"http://127.0.0.1:{server.server_port}" for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, sites: list[str]) -> Iterator[Server]:
    """A gateway with a key for its page and one that may not ask models; pages of the first other site may ask it."""
    models = tmp_path_factory.mktemp("models")
    write_family(Repository(models), "sign", {"quick": (sign_model(), 0.8)})
    keys = f"page {KEY} role=infer,read; reader {READER} role=read"
    settings = {"PARETO_SLOTS": "1", "PARETO_API_KEYS": keys, "PARETO_CORS_ORIGINS": sites[0]}
    with running(gateway(models, settings)) as server:
        yield server


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that remembers nothing."""
    made = browser.new_context(viewport={"width": 360, "height": 800})
    yield made
    made.close()


def show(page: Page, key: str) -> None:
    """Type a key into the form."""
    page.get_by_label("API key", exact=True).fill(key)
    page.get_by_role("button", name="Use it").click()


def test_the_page_asks_for_a_key_and_works_with_it(guarded: Server, context: BrowserContext) -> None:
    """Without one nothing is shown; with it all of it works, after a reload too, until it is forgotten."""
    page, addresses = context.new_page(), list[str]()
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(guarded.url)
    form = page.locator("#key")
    expect(form).to_be_visible()
    expect(page.locator("#phase")).to_have_text("an API key is needed")
    assert 360 == page.evaluate("document.documentElement.scrollWidth")
    found = Axe().run(page).response["violations"]
    assert [] == [one["id"] for one in found if one["impact"] in SERIOUS]
    show(page, "wrong-key-0123456789abcdef")
    expect(page.locator("#key-said")).to_contain_text("a valid API key is needed")
    show(page, KEY)
    expect(page.locator("#phase")).to_have_text("ready")
    expect(form).to_be_hidden()
    page.reload()
    expect(page.locator("#phase")).to_have_text("ready")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer .big")).to_contain_text("sure")
    expect(page.locator("#decisions > li b").first).to_be_visible(timeout=15_000)
    assert [] == [address for address in addresses if KEY in address]
    assert ["", 0, []] == [*page.evaluate("[document.cookie, localStorage.length]"), context.cookies()]
    assert KEY not in page.content()
    page.get_by_role("button", name="Forget the API key").click()
    expect(form).to_be_visible()


def test_another_tab_has_to_be_told_the_key_again(guarded: Server, context: BrowserContext) -> None:
    """It stays in the tab where it was typed."""
    first, second = context.new_page(), context.new_page()
    first.goto(guarded.url)
    show(first, KEY)
    expect(first.locator("#phase")).to_have_text("ready")
    second.goto(guarded.url)
    expect(second.locator("#key")).to_be_visible()


def test_a_key_that_may_only_read_shows_the_page_and_is_told_what_it_lacks(
    guarded: Server, context: BrowserContext
) -> None:
    """Trying it is refused with the role that is missing, and the form is there for a better key."""
    page = context.new_page()
    page.goto(guarded.url)
    show(page, READER)
    expect(page.locator("#phase")).to_have_text("ready")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer")).to_contain_text("does not have the role infer")
    expect(page.locator("#key-said")).to_contain_text("does not have the role infer")
    show(page, KEY)
    expect(page.locator("#phase")).to_have_text("ready")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer .big")).to_contain_text("sure")


ASK = """async ([url, key]) => {
    const inputs = [{ name: "x", shape: [1, 4], datatype: "FP32", data: [1, 0, 0, 0] }];
    const headers = { authorization: `Bearer ${key}`, "content-type": "application/json", "x-slo-latency-ms": "500" };
    try {
        const options = { method: "POST", headers, body: JSON.stringify({ inputs }) };
        const answer = await fetch(`${url}/v2/models/sign/infer`, options);
        return [answer.status, answer.headers.get("x-variant")];
    } catch (error) { return [error.name, null]; }
}"""


def test_pages_of_other_sites_may_ask_where_a_setting_names_them(
    guarded: Server, context: BrowserContext, sites: list[str]
) -> None:
    """With a key they read the answer and its headers, without one the refusal; other sites read nothing."""
    told = []
    for site in sites:
        page = context.new_page()
        page.goto(site)
        told += [page.evaluate(ASK, [guarded.url, key]) for key in (KEY, "none")]
    assert [[200, "quick"], [401, None], ["TypeError", None], ["TypeError", None]] == told


def test_no_other_page_can_have_it_in_a_frame(guarded: Server, context: BrowserContext, sites: list[str]) -> None:
    """Neither the page nor BentoML's one is drawn into somebody else's, where clicks could be stolen."""
    page = context.new_page()
    page.goto(sites[0])
    page.evaluate(
        """url => { const frame = document.createElement("iframe");
            frame.src = url; document.body.append(frame); }""",
        guarded.url,
    )
    expect(page.frame_locator("iframe").locator("h1")).to_have_count(0)
    assert [] == [frame.url for frame in page.frames if frame.url.startswith(guarded.url)]
