"""Reports of load tests as a person has them: in a real browser, light and dark, on a phone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from loadtests.harness.page.compared import render_comparison
from loadtests.harness.page.page import render
from loadtests.harness.subject import Names
from tests.loadtests.judged import answered, load, member, recorded, subject


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """One page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    members = (member("a-family-with-a-rather-long-name", "20:1,50:2,100:1", 0.5), member("b", "50", 0.5))
    of = subject(*members, tenants=Names.parse(["gold", "free"], "--tenant"))
    runs = [answered(of, of.draw(load(150.0, 20.0), seed), seed=seed, lag_s=0.0002 + 0.001 * seed) for seed in (0, 1)]
    rates = [
        {"rate": 50.0, "standing": "meets", "trials": 2, "attainment": [0.999, 0.99, 1.0]},
        {"rate": 100.0, "standing": "misses", "trials": 3, "attainment": [0.6, 0.5, 0.7]},
        {"rate": 200.0, "standing": "out of reach", "trials": 3, "attainment": None},
    ]
    steady = recorded(of, runs[:1])
    search = recorded(of, runs, "search", {"rate": 100.0, "target": 0.99, "rates": rates})
    spike = recorded(of, runs[:1], "spike", {"begin_s": 5.0, "end_s": 8.0})
    soak = recorded(of, runs[:1], "soak", {"memory": [[float(at), 1e8 + at * 1e6] for at in range(20)]})
    compared, _ = render_comparison((steady, search), ("a.json", "b.json"))
    texts = {"steady": render(steady), "search": render(search), "spike": render(spike), "soak": render(soak)}
    found = {}
    for name, text in {**texts, "compared": compared}.items():
        found[name] = folder / f"{name}.html"
        found[name].write_text(text, encoding="utf-8")
    return found


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
@pytest.mark.parametrize("kind", ["steady", "search", "spike", "soak", "compared"])
def test_it_fits_complains_of_nothing_and_axe_neither(
    browser: Browser, pages: Mapping[str, Path], kind: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    """Nothing scrolls sideways, the console is empty, nothing is loaded, and axe-core has no serious complaint."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url))
    page.goto(pages[kind].as_uri())
    assert [pages[kind].as_uri()] == complaints
    assert width == page.evaluate("document.documentElement.scrollWidth")
    assert page.locator("figure svg").count() >= 5
    page.evaluate("document.head.querySelector('meta[http-equiv]').remove()")
    found = Axe().run(page).response["violations"]
    context.close()
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [] == [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in serious]
