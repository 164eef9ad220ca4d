"""The page over a real socket: its files, its stream, samples to try, and what becomes of it when a replica ends."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.servers import gateway, running
from tests.service.conftest import eventually, sign_body
from tests.service.test_lifecycle import worker_of

Event = tuple[str, dict[str, Any]]


def events(client: httpx.Client, query: str = "") -> Iterator[Event]:
    """The events of the stream, one after the other, until somebody closes it."""
    with client.stream("GET", f"/events{query}") as response:
        assert (200, "text/event-stream; charset=utf-8") == (response.status_code, response.headers["content-type"])
        name = ""
        for line in response.iter_lines():
            kind, _, value = line.partition(": ")
            if kind == "event":
                name = value
            elif kind == "data":
                yield name, json.loads(value)


def test_the_page_is_whole_and_runs_nothing_from_elsewhere(client: httpx.Client) -> None:
    """Every file that the page and its modules name is there, as what it is, and the policy allows nothing else."""
    page = client.get("/")
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in page.headers["content-security-policy"]
    assert not [word for word in ("http://", "https://", "<script>", "style=", "onclick") if word in page.text]
    folder = Path("service/page/static")
    for path in (path for path in folder.iterdir() if path.name != "index.html"):
        answer = client.get(f"/page/{path.name}")
        assert (200, path.read_text()) == (answer.status_code, answer.text)
        assert "nosniff" == answer.headers["x-content-type-options"]
    assert {"DENY", "no-referrer"} == {page.headers["x-frame-options"], page.headers["referrer-policy"]}
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "camera=()" in page.headers["permissions-policy"]
    assert 404 == client.get("/page/index.html").status_code
    assert 404 == client.get("/page/../settings.py").status_code


def test_a_browser_that_has_a_file_is_told_so(client: httpx.Client) -> None:
    """The tag of a file is answered with 304 and no body."""
    tag = client.get("/page/main.js").headers["etag"]
    again = client.get("/page/main.js", headers={"if-none-match": tag})
    assert (304, b"") == (again.status_code, again.content)


def test_bentomls_page_has_moved_beside_it(client: httpx.Client) -> None:
    """The page of the native API answers at /native, and its files are where it looks for them."""
    page = client.get("/native")
    assert 200 == page.status_code
    assert "swagger-ui" in page.text
    assert ("DENY", "nosniff") == (page.headers["x-frame-options"], page.headers["x-content-type-options"])
    assert "script-src 'self';" in page.headers["content-security-policy"]
    assert 200 == client.get("/static_content/swagger-ui-bundle.js").status_code


def test_the_stream_tells_of_requests(client: httpx.Client, server: Any) -> None:
    """A welcome describes the family; the ticks after real requests have them counted, explained and one by one."""
    with httpx.Client(base_url=server.url, timeout=30.0) as other:
        stream = events(client, "?family=sign")
        name, welcome = next(stream)
        assert ("welcome", "ready", "sign") == (name, welcome["phase"], welcome["family"]["name"])
        assert ["quick", "slow"] == [variant["name"] for variant in welcome["family"]["variants"]]
        before = len(welcome["decisions"]) and welcome["decisions"][-1]["number"]
        for _ in range(3):
            other.post("/v2/models/sign/versions/quick/infer", json=sign_body(1.0))
        other.post("/v2/models/sign/infer", json=sign_body(1.0), headers={"x-slo-latency-ms": "0.001"})
        tick = next(said for kind, said in stream if kind == "tick" and _counted(said, before + 4))
        stream.close()  # type: ignore[attr-defined]  # a generator is an iterator with more
    recent = tick["recent"]
    assert recent["paths"]["quick"] >= 3
    assert recent["chosen"]["pinned"] >= 3
    assert recent["refused"]["deadline_infeasible"] >= 1
    newest = {decision["number"]: decision for decision in tick["decisions"]}
    assert ("quick", "pinned") == (newest[before + 1]["variant"], newest[before + 1]["reason"])
    assert ("", False) == (newest[before + 4]["variant"], newest[before + 4]["slo_met"])
    assert tick["families"]["sign"][0] >= 4


def _counted(said: dict[str, Any], number: int) -> bool:
    """Whether the tick has that request, and its second is over."""
    numbers = [decision["number"] for decision in said.get("decisions", ())]
    return (
        number in numbers and said["recent"]["refused_requests"] >= 1 and said["recent"]["paths"].get("quick", 0) >= 3
    )


def test_a_stream_without_a_family_is_about_one_that_is_served(client: httpx.Client) -> None:
    """An unknown name is no fault: the page shows another family."""
    for query in ("", "?family=nobody", "?family=" + "x" * 5000):
        stream = events(client, query)
        assert next(stream)[1]["family"]["name"] in ("digits", "sign", "dented")
        stream.close()  # type: ignore[attr-defined]  # a generator is an iterator with more


def test_head_and_other_methods(client: httpx.Client) -> None:
    """HEAD ends at once, though the stream would not; POST is told what to use."""
    assert (200, b"") == ((head := client.head("/events")).status_code, head.content)
    assert (405, "GET") == ((post := client.post("/events")).status_code, post.headers["allow"])


def test_too_many_tabs_are_told_so(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tabs are bounded: one more is 503, and there is room again when one is closed."""
    from router.policies import policy_named
    from service.settings import Settings
    from tests.service.inprocess import serving

    monkeypatch.setattr("service.page.events.MOST_TABS", 1)
    with serving(Settings(models=models, slots=1), policy_named("casc")) as client:
        stream = events(client)
        next(stream)
        with httpx.Client(base_url=client.base_url) as other:
            assert 503 == other.get("/events").status_code
            stream.close()  # type: ignore[attr-defined]  # a generator is an iterator with more
            eventually(lambda: other.head("/events").status_code == 200 and _opens(other), "there is room again")


def _opens(client: httpx.Client) -> bool:
    with client.stream("GET", "/events") as response:
        return response.status_code == 200


@pytest.mark.parametrize("family", ["digits", "sign"])
def test_a_sample_is_a_request_that_is_answered(client: httpx.Client, family: str) -> None:
    """The body that the page gets for a labelled row is one that the family answers."""
    rows = client.get("/page/samples", params={"family": family}).json()["rows"]
    assert 24 == len(rows)
    if family == "digits":
        assert (8, 64) == (rows[0]["side"], len(rows[0]["pixels"]))
    sample = client.get("/page/sample", params={"family": family, "row": 3})
    length = sample.headers["inference-header-content-length"]
    answer = client.post(
        f"/v2/models/{family}/infer", content=sample.content, headers={"inference-header-content-length": length}
    )
    assert 200 == answer.status_code
    (label,) = next(output["data"] for output in answer.json()["outputs"] if output["name"] == "label")
    assert rows[3]["label"] == label


def test_what_the_page_shows_is_nobodys_to_keep_or_to_take(client: httpx.Client) -> None:
    """No cache stores it, and no page of another site may take it in as a picture or a script."""
    for path in ("/metrics", "/page/samples?family=sign", "/page/sample?family=sign&row=0"):
        headers = client.get(path).headers
        assert ("no-store", "nosniff") == (headers["cache-control"], headers["x-content-type-options"])
        assert "same-origin" == headers["cross-origin-resource-policy"]
    with client.stream("GET", "/events") as stream:
        assert "same-origin" == stream.headers["cross-origin-resource-policy"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/page/samples", 404),
        ("/page/samples?family=nobody", 404),
        ("/page/sample?family=sign&row=40", 404),
        ("/page/sample?family=sign&row=-1", 400),
        ("/page/sample?family=sign", 400),
        ("/page/comparison", 404),
    ],
)
def test_what_is_not_there_is_said_in_one_line(client: httpx.Client, path: str, status: int) -> None:
    """Odd questions have the protocol's error body."""
    answer = client.get(path)
    assert status == answer.status_code
    assert answer.json()["error"]


def test_the_page_can_be_left_out(models: Path, tmp_path: Path) -> None:
    """With `page = false` nothing of it is served; BentoML's page stays."""
    with running(gateway(models, {"PARETO_PAGE": "false"})) as server, httpx.Client(base_url=server.url) as client:
        found = [client.get(path).status_code for path in ("/", "/events", "/page/main.js", "/native")]
    assert [404, 404, 404, 200] == found


def test_open_pages_do_not_keep_a_replica_from_ending(models: Path) -> None:
    """On SIGTERM a stream says that the replica drains, ends, and the server ends with 0."""
    with running(gateway(models, {"PARETO_SLOTS": "1"})) as server, ThreadPoolExecutor(2) as pool:
        process: subprocess.Popen[bytes] = server._process
        with httpx.Client(base_url=server.url, timeout=60.0) as client:
            streams = [events(client) for _ in range(2)]
            assert ["welcome", "welcome"] == [next(stream)[0] for stream in streams]
            rest = [pool.submit(list, stream) for stream in streams]
            worker_of(server).send_signal(signal.SIGTERM)
            assert ["draining", "draining"] == [left.result()[-1][1]["phase"] for left in rest]
            process.send_signal(signal.SIGTERM)
            assert 0 == process.wait(30.0)
