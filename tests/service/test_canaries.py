"""Trials of revisions over a real socket while callers ask all the time: none of them is ever refused or failed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from loadtests.servers import Server, gateway, running
from router.sampling import fraction
from tests.service.conftest import eventually, samples, sign_body
from tests.service.families import sign_model, write_family
from variants.repository import Repository

INFER = "/v2/models/f/infer"
LOAD = "/v2/repository/models/f/load"
FAILS = -10.0
"""A second value on which the revision `failing` has no answer."""
QUICK_RULES = {"canary_share": 0.5, "canary_answers": 20, "canary_regression": 0.5}
"""Some ten comparisons tell a revision that always disagrees from one that never does."""
SLOW = {"canary_usual": 0.8, "canary_slowdown": 4.9}
"""One of which all are slower than a fifth of the old one's is found after some thirteen."""
NEVER_SLOW = {"canary_usual": 0.9, "canary_slowdown": 9.9, "canary_risk": 1e-9}
"""Only a revision of which 99 answers of 100 are slow is: a busy machine must not decide these tests.

Rows of one batch are slow together, four at most. At this risk it takes thirty slow ones, each beside one of the old
revision that is not; and thirty comparisons that agree, or nine that do not.
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The family `f` in revision 1, and those that may be tried beside it."""
    repository = Repository(tmp_path_factory.mktemp("trials"))
    both = {"quick": (sign_model(), 0.8), "best": (sign_model(1), 0.9)}
    revisions: dict[str, dict[str, Any]] = {
        "good": both,
        "opposite": {"quick": (sign_model(opposite=True), 0.8), "best": (sign_model(1, opposite=True), 0.9)},
        "slow": {"quick": (sign_model(300), 0.8)},
        "failing": {"quick": (sign_model(limit=5.0), 0.8), "best": (sign_model(1, limit=5.0), 0.9)},
        "fewer": {"quick": (sign_model(), 0.8)},
        "1": both,
    }
    for revision, variants in revisions.items():
        write_family(repository, "f", variants, revision=revision)
    write_family(repository, "f", both, revision="renamed", labels=("down", "up"))
    repository.activate("f", "1")
    return repository


@pytest.fixture(scope="module", params=["everything", "budget"])
def server(repository: Repository, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A gateway that callers may change, with and without a memory budget."""
    budget = {"PARETO_MEMORY_BUDGET": "8GiB"} if request.param == "budget" else {}
    settings = {"PARETO_ADMIN": "true", "PARETO_SLOTS": "1", "PARETO_FAMILIES__F__MIN_ACCURACY": "0.75"}
    with running(gateway(repository.root, settings | budget)) as one:
        yield one


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """A client; revision 1 serves, and nothing is on trial, before and after."""
    with httpx.Client(base_url=server.url, timeout=60.0) as client:
        yield client
        if trial(client).get("state") in ("running", "passed"):
            client.post("/admin/canaries/f/rollback").raise_for_status()
        load(client, revision="1").raise_for_status()


def load(http: httpx.Client, **parameters: object) -> httpx.Response:
    return http.post(LOAD, json={"parameters": parameters})


def trial(http: httpx.Client) -> dict[str, Any]:
    """How the last trial of `f` stands."""
    told: list[dict[str, Any]] = http.get("/admin/canaries").json()
    return told[0] if told else {}


def ended(http: httpx.Client) -> str:
    """What the trial of `f` comes to."""
    eventually(lambda: trial(http)["state"] != "running", "the trial comes to an end")
    return str(trial(http)["state"])


@contextmanager
def asked_all_the_time(server: Server, second: float = 0.0) -> Iterator[list[tuple[int, str, str | None]]]:
    """What four callers got so far: status, label and revision, as far as it is said."""
    seen: list[tuple[int, str, str | None]] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=60.0) as client:
            while not stop.is_set():
                answer = client.post(INFER, json=sign_body(1.0, second=second))
                label = answer.json()["outputs"][0]["data"][0] if answer.status_code == 200 else answer.text
                seen.append((answer.status_code, label, answer.headers.get("x-revision")))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        yield seen
    finally:
        stop.set()
        for asker in askers:
            asker.join()


def test_a_good_revision_takes_over(server: Server, http: httpx.Client, repository: Repository) -> None:
    """After its answers and comparisons it serves, is active on disk, and no answer but a 200 was given."""
    with asked_all_the_time(server) as seen:
        load(http, revision="good", **QUICK_RULES, **NEVER_SLOW).raise_for_status()
        assert "promoted" == ended(http)
        before = len(seen)
        eventually(lambda: len(seen) > before + 20, "requests flow")
    assert {(200, "yes")} == {one[:2] for one in seen}
    assert {"1", "good"} <= {revision for *_, revision in seen}
    eventually(lambda: repository.active("f") == "good", "it is the active one")
    told = trial(http)
    assert told["answers"] >= 20
    assert (0, "good", "1") == (told["disagreed"], told["revision"], told["serving"])
    assert 'pareto_canary_state{model="f",state="promoted"} 1.0' in http.get("/metrics").text
    with http.stream("GET", "/events?family=f") as page:
        welcome = next(line for line in page.iter_lines() if line.startswith("data: "))
    index = http.post("/v2/repository/index").text
    told_everywhere = [http.get("/metrics").text, http.get("/v2/models/stats").text, index, welcome]
    assert not any("@" in text for text in told_everywhere)


@pytest.mark.parametrize(("revision", "state"), [("opposite", "disagrees"), ("failing", "disagrees"), ("slow", "slow")])
def test_a_bad_revision_is_rolled_back(
    server: Server, http: httpx.Client, repository: Repository, revision: str, state: str
) -> None:
    """One that answers otherwise, one that fails, and one that is slow; all callers are answered, then by the old."""
    second = FAILS if revision == "failing" else 0.0
    rules = {**QUICK_RULES, **(SLOW if state == "slow" else NEVER_SLOW)}
    with asked_all_the_time(server, second) as seen:
        eventually(lambda: len(seen) > 20, "requests flow")
        load(http, revision=revision, **rules).raise_for_status()
        assert state == ended(http)
        after = len(seen) + 20
        eventually(lambda: len(seen) > after, "requests flow")
    assert {200} == {status for status, *_ in seen}
    assert {"yes"} == {label for _, label, by in seen if by != "opposite"}
    assert {"yes"} == {label for _, label, _ in seen[after:]}
    assert repository.active("f") == "1"
    told = trial(http)
    assert (told["fallbacks"] > 0) == (revision == "failing")
    assert f'pareto_canary_state{{model="f",state="{state}"}} 1.0' in http.get("/metrics").text
    # What the new one failed on is told once, as what the caller got.
    assert 0 == samples(http, outcome="failed")


def test_a_shadow_answers_nobody_until_it_is_promoted(
    server: Server, http: httpx.Client, repository: Repository
) -> None:
    """It gets copies, which no counter of requests knows of, passes, and then takes over by hand."""
    with asked_all_the_time(server) as seen:
        rules = {**QUICK_RULES, "canary_answers": 64, "canary_shadow": True, **NEVER_SLOW}
        load(http, revision="good", **rules).raise_for_status()
        assert "passed" == ended(http)
        assert {"1", None} >= {revision for *_, revision in seen}
    before = samples(http, model="f")
    told = http.post("/admin/canaries/f/promote").json()
    assert ("promoted", "good") == (told["state"], repository.active("f"))
    assert 200 == http.post(INFER, json=sign_body(1.0)).status_code
    assert samples(http, model="f") == before + 1


def test_a_bad_shadow_ends_without_anybody_noticing(server: Server, http: httpx.Client) -> None:
    """All labels are the old revision's."""
    with asked_all_the_time(server) as seen:
        load(http, revision="opposite", canary_shadow=True, **QUICK_RULES, **NEVER_SLOW).raise_for_status()
        assert "disagrees" == ended(http)
    assert {(200, "yes")} == {one[:2] for one in seen}
    assert {"1", None} >= {revision for *_, revision in seen}


def test_one_caller_sees_one_revision(http: httpx.Client) -> None:
    """Tenants fall to a side by name; what the new revision has not, or no better answers, the old one gives."""
    load(http, revision="fewer", canary_share=0.5, canary_answers=10**6).raise_for_status()
    tenants = [f"tenant-{number}" for number in range(12)]

    def by(tenant: str, path: str = INFER, **headers: str) -> str | None:
        given = {"x-gateway-inference-fairness-id": tenant, **headers}
        answer = http.post(path, json=sign_body(1.0), headers=given)
        assert answer.status_code == 200
        return answer.headers["x-revision"]

    expected = {tenant: "fewer" if fraction(tenant, "canary") < 0.5 else "1" for tenant in tenants}
    assert {"fewer", "1"} == set(expected.values())
    for _ in range(2):
        assert expected == {tenant: by(tenant) for tenant in tenants}
    drawn = next(tenant for tenant, revision in expected.items() if revision == "fewer")
    assert "1" == by(drawn, "/v2/models/f/versions/best/infer")
    assert "1" == by(drawn, **{"x-slo-min-accuracy": "0.85"})
    assert "fewer" == by(drawn, "/v2/models/f/versions/quick/infer")


def test_rules_change_and_a_trial_is_stopped_by_hand(http: httpx.Client) -> None:
    """The same revision with another share begins to count anew; rolled back, it answers nobody."""
    for share in (0.2, 0.9):
        load(http, revision="good", canary_share=share, canary_answers=10**6).raise_for_status()
        assert (share, "running", 0) == tuple(trial(http)[name] for name in ("share", "state", "answers"))
    for _ in range(30):
        http.post(INFER, json=sign_body(1.0)).raise_for_status()
    assert trial(http)["answers"] > 10
    assert "stopped" == http.post("/admin/canaries/f/rollback").json()["state"]
    assert "x-revision" not in http.post(INFER, json=sign_body(1.0)).headers
    for action in ("promote", "rollback"):
        answer = http.post(f"/admin/canaries/f/{action}")
        assert (404, True) == (answer.status_code, "no trial" in answer.json()["error"])


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"canary_share": 0.1}, "parameters.revision"),
        ({"revision": "good", "canary_share": 2}, "canary_share: expected a fraction"),
        ({"revision": "good", "canary_share": "all"}, "canary_share: expected a number"),
        ({"revision": "good", "canary_answers": 0.5}, "canary_answers: expected a whole number"),
        ({"revision": "good", "canary_speed": 1}, "canary_speed"),
        ({"revision": "1", "canary_share": 0.1}, "serves already"),
        ({"revision": "nobody", "canary_share": 0.1}, "no revision 'nobody'"),
        ({"revision": "renamed", "canary_share": 0.1}, "other labels"),
    ],
)
def test_what_cannot_be_tried_is_a_400_that_says_why(
    http: httpx.Client, parameters: dict[str, object], expected: str
) -> None:
    """And nothing is on trial."""
    answer = load(http, **parameters)
    assert (400, True) == (answer.status_code, expected in answer.json()["error"]), answer.text
    assert "running" != trial(http).get("state")
