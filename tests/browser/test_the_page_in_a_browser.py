"""The page as a person has it: in a real browser, with a mouse, with a keyboard, on a phone, with many families."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, expect

from loadtests.servers import Server, gateway, running
from tests.browser.conftest import FAMILIES, Watched
from tests.service.conftest import sign_body
from tests.service.families import sign_model, write_family
from variants.repository import Repository

SERIOUS = ("serious", "critical")


def test_counters_follow_real_requests(watched: Watched, server: Server) -> None:
    """Requests that others send show up in numbers, pictures, reasons and decisions, without a reload."""
    page = watched.page
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        for value in (2.0, 0.1, -3.0):
            client.post("/v2/models/chain/infer", json=sign_body(value), headers={"x-slo-latency-ms": "400"})
        refused = client.post("/v2/models/chain/infer", json=sign_body(1.0), headers={"x-slo-latency-ms": "0.001"})
    assert 429 == refused.status_code
    expect(page.locator("#decisions > li b").first).to_be_visible(timeout=15_000)
    expect(page.locator("#refused")).to_contain_text("deadline_infeasible", timeout=15_000)
    expect(page.locator("#tiles")).to_contain_text("in all")
    expect(page.locator("#legend")).to_contain_text("small")
    expect(page.locator("#frontier svg")).to_have_attribute("aria-label", matching("Share of answers: (small|large)"))
    page.locator("#variants").evaluate("table => (table.closest('details').open = true)")
    expect(page.locator("#variants tbody tr")).to_have_count(2)


def test_a_family_that_nobody_asks_says_so(watched: Watched, server: Server) -> None:
    """No heading stands over nothing: neither over a picture nor over a list."""
    page = watched.page
    page.goto(f"{server.url}/?family=family-63")
    page.locator("#phase[data-phase=ready]").wait_for()
    for picture in ("#mix", "#shares"):
        expect(page.locator(f"{picture} svg")).to_contain_text("no requests in this time")
    for words in ("#why", "#better"):
        expect(page.locator(words)).to_have_text("Nothing was answered in the last seconds.")
    expect(page.locator("#decisions")).to_have_text("No requests yet.")


def matching(pattern: str) -> re.Pattern[str]:
    """A compiled pattern, as Playwright's assertions take it."""
    return re.compile(pattern)


def test_who_tries_it_is_answered(watched: Watched) -> None:
    """A sample is answered with variant, confidence and reason; the slider says its limit and asks again."""
    page = watched.page
    expect(page.locator("#sample option")).to_have_count(24)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer .big")).to_contain_text("sure")
    expect(page.locator("#answer")).to_contain_text("in time")
    page.get_by_label("Answer within").focus()
    page.keyboard.press("Home")
    expect(page.locator("#slo-said")).to_have_text("1 ms")
    expect(page.locator("#tries li").first).to_contain_text("1 ms")


def test_the_page_of_the_native_api_asks_nobody_else(browser: Browser, server: Server) -> None:
    """BentoML's page shows the API and calls it, and its tag manager is neither run nor asked for."""
    context = browser.new_context()
    page, asked, kept = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: kept.append(request.url) if request.failure == "csp" else None)
    page.goto(f"{server.url}/native")
    families = page.locator(".opblock", has_text="families")
    families.locator(".opblock-summary-control").click()
    families.get_by_role("button", name="Try it out").click()
    families.get_by_role("button", name="Execute").click()
    expect(families.locator(".live-responses-table .response").first).to_contain_text("chain")
    assert "undefined" == page.evaluate("typeof dataLayer")
    assert [] == [url for url in asked if not url.startswith((f"{server.url}/", "data:")) and url not in kept]
    context.close()


def test_without_samples_nothing_can_be_tried_and_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    """With `page_samples = false` the page offers no rows and asks for none."""
    write_family(Repository(tmp_path), "f", {"only": (sign_model(), 0.8)})
    with running(gateway(tmp_path, {"PARETO_SLOTS": "1", "PARETO_PAGE_SAMPLES": "false"})) as server:
        context = browser.new_context()
        watched = Watched(context.new_page())
        watched.watch()
        watched.page.goto(server.url)
        expect(watched.page.locator("#answer")).to_have_text("Samples are not shown here.")
        expect(watched.page.locator("#sample")).to_be_hidden()
        expect(watched.page.get_by_role("button", name="Ask")).to_be_disabled()
        context.close()
    assert [] == watched.complaints


def test_dragging_asks_a_few_times_a_second_at_most(watched: Watched) -> None:
    """A hundred steps of the slider in one go are one or two requests, the last one with the last limit."""
    page, sent = watched.page, list[str]()

    def note(request: Request) -> None:
        if "/infer" in request.url:
            sent.append(request.headers["x-slo-latency-ms"])

    expect(page.locator("#sample option")).to_have_count(24)
    page.on("request", note)
    page.locator("#slo").evaluate(
        """slider => { for (let at = 0; at <= 100; at++) {
            slider.value = at; slider.dispatchEvent(new Event("input")); } }"""
    )
    expect(page.locator("#tries li").first).to_contain_text("1.00 s")
    assert len(sent) <= 3
    assert 1000.0 == float(sent[-1])


def test_a_family_is_found_and_chosen_among_many(watched: Watched) -> None:
    """All 64 are listed, the search leaves one, a click shows it; the sort follows the column."""
    page = watched.page
    rows = page.locator("#families tbody tr")
    expect(rows).to_have_count(FAMILIES)
    page.get_by_role("button", name="memory").click()
    expect(page.locator("#families th[aria-sort]")).to_contain_text("memory")
    page.get_by_label("Find").fill("family-17")
    expect(rows).to_have_count(1)
    rows.get_by_role("button").click()
    expect(page).to_have_title("family-17: Pareto Gateway")
    expect(page.locator("#family")).to_have_value("family-17")
    expect(page.locator("#phase")).to_have_text("ready")


def test_many_families_do_not_make_the_page_heavy(watched: Watched, server: Server) -> None:
    """With requests to all 64, ticks go on, no picture is drawn for each, and the page is a bounded tree."""
    page = watched.page
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        for number in range(1, FAMILIES):
            client.post(f"/v2/models/family-{number:02d}/infer", json=sign_body(1.0))
    expect(page.locator("#families tbody td:nth-child(2)", has_text=matching("^0.1$")).first).to_be_visible(
        timeout=15_000
    )
    assert page.evaluate("document.querySelectorAll('svg').length") <= 6
    assert page.evaluate("document.querySelectorAll('*').length") < 2500


def test_the_keyboard_reaches_everything(watched: Watched) -> None:
    """Tab goes through every control once, in order, visibly, and the first stop skips to the content."""
    page = watched.page
    expect(page.locator("#families tbody tr")).to_have_count(FAMILIES)
    wanted = page.evaluate(
        """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
            .filter((one) => one.checkVisibility() && !one.disabled).length"""
    )
    visited: list[str] = []
    while len(visited) <= wanted:
        page.keyboard.press("Tab")
        at = page.evaluate(
            """() => { const one = document.activeElement; if (one === document.body) return null;
                one.dataset.stop ??= String(Math.random());
                return [one.dataset.stop, getComputedStyle(one).outlineStyle, one.textContent.trim().slice(0, 20)]; }"""
        )
        if at is None or at[0] in visited:
            break
        assert "none" != at[1], f"no focus to be seen on {at[2]!r}"
        if not visited:
            assert "To the content" == at[2]
        visited.append(at[0])
    assert wanted == len(visited)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_fits_and_axe_finds_nothing_serious(
    browser: Browser, server: Server, width: int, scheme: Literal["light", "dark"]
) -> None:
    """Nothing scrolls sideways, and axe-core has no serious complaint, at any width in either colour scheme."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{server.url}/?family=chain")
    page.locator("#phase[data-phase=ready]").wait_for()
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer .big")).to_be_visible()
    _open_everything(page)
    assert width == page.evaluate("document.documentElement.scrollWidth")
    found = Axe().run(page).response["violations"]
    context.close()
    assert [] == [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found if one["impact"] in SERIOUS]


COVERED = """async () => {
    const [{ lines }, { Frontier }] = await Promise.all([import("/page/series.js"), import("/page/frontier.js")]);
    const found = [];
    const holds = (box, { x, y }) =>
        x > box.x + 1 && x < box.x + box.width - 1 && y > box.y + 2 && y < box.y + box.height - 2;
    const look = (figure, what) => {
        for (const name of figure.querySelectorAll("text:not(.axis)")) {
            const box = name.getBBox();
            for (const path of figure.querySelectorAll("path[stroke], path.stair")) {
                const length = Math.ceil(path.getTotalLength());
                const steps = Array.from({ length }, (_, at) => path.getPointAtLength(at));
                if (steps.some((point) => holds(box, point))) found.push(`${what}: ${name.textContent}`);
            }
        }
    };
    const figure = () => {
        const made = document.createElement("figure");
        made.className = "chart";
        document.querySelector("main").append(made);
        return made;
    };
    const pairs = [[1, 1], [1, 0.9], [0.9, 1], [0.95, 0.9], [0.9, 0.5], [0.5, 0.45], [0, 0], [0.02, 0]];
    for (const [first, second] of pairs) {
        const chart = figure();
        lines(chart, "", 150, 1, String, [
            { name: "in time", paint: "red", values: Array(120).fill(first) },
            { name: "right", paint: "blue", dashed: true, values: Array(120).fill(second) },
        ]);
        look(chart, `${first}, ${second}`);
    }
    const points = [["L0-fp32", 0.1, 0.766], ["L2-int8", 1.1, 0.789], ["L3-int8", 1.6, 0.828], ["L4-int8", 2.1, 0.843]];
    const variants = points.map(([name, latency_ms, quality]) =>
        ({ name, latency_ms, quality, believed: quality, on_ladder: true, memory_bytes: 1 }));
    const chart = figure(), frontier = new Frontier(chart, document.createElement("table"));
    frontier.begin({ name: "f", variants, not_loaded: [], refused: {} });
    frontier.update({ paths: { "L0-fp32": 10, "L2-int8": 30, "L0-fp32>L4-int8": 40, "L3-int8": 20 } }, {});
    look(chart, "frontier");
    return found;
}"""
"""The names in pictures that stand where a line goes, of levels that are usual and of a frontier with an arc."""


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_name_stands_on_a_line(browser: Browser, server: Server, width: int) -> None:
    """Not on its own, as where all are in time, nor on another one, at any width."""
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.goto(f"{server.url}/?family=chain")
    page.locator("#phase[data-phase=ready]").wait_for()
    covered = page.evaluate(COVERED)
    context.close()
    assert [] == covered


def _open_everything(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")


def test_who_wants_no_motion_has_none(watched: Watched) -> None:
    """With reduced motion nothing is animated."""
    assert "none" == watched.page.evaluate(
        """() => { const arc = document.createElementNS("http://www.w3.org/2000/svg", "path");
            arc.classList.add("arc"); document.querySelector("#frontier svg").append(arc);
            return getComputedStyle(arc).animationName; }"""
    )


def test_a_lost_connection_is_said_and_found_again(watched: Watched) -> None:
    """While the gateway cannot be reached the page says so; when it can, the page goes on by itself."""
    page = watched.page
    page.context.set_offline(True)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#phase")).to_have_attribute("data-phase", "lost", timeout=15_000)
    page.context.set_offline(False)
    expect(page.locator("#phase")).to_have_attribute("data-phase", "ready", timeout=15_000)
    watched.complaints.clear()  # a browser logs every request that fails
