"""Three gateways behind HAProxy with the shipped configuration: nothing is lost, whatever becomes of one of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import httpx
import numpy as np
import pytest

from loadtests import fleet_load, haproxy
from loadtests.fetch import Answer, fetch
from loadtests.fleet import DOWN, UP, Fleet, answered_by, fleet
from loadtests.fleet_load import Generator, Sent, poisson
from loadtests.haproxy import Counted
from loadtests.outcomes import Fate
from loadtests.samples import Samples, read_samples
from loadtests.servers import Server
from tests.service.conftest import sign_body
from tests.service.families import sign_model, write_family
from variants.repository import Repository

RATE = 100.0
PATIENT_S = 20.0
"""The SLO: a machine that is busy with other things refuses nobody for want of time."""
QUICK, SLOW = (f"/v2/models/sign/versions/{variant}/infer" for variant in ("quick", "slow"))
ENVIRONMENT = {
    "PARETO_SLOTS": "1",
    "PARETO_LAME_DUCK_S": "2",
    "PARETO_ACCESS_LOG_SHARE": "1",
    "PARETO_LOG_FORMAT": "json",
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, Samples]:
    repository = Repository(tmp_path_factory.mktemp("models"))
    write_family(repository, "sign", {"quick": (sign_model(), 0.8), "slow": (sign_model(300), 0.9)})
    return repository, read_samples(repository.open("sign"))


@pytest.fixture(scope="module")
def three(samples: tuple[Repository, Samples]) -> Iterator[Fleet]:
    """Three replicas; a test that ends one starts it again, and does not wait for it."""
    if not haproxy.is_installed():
        pytest.skip(haproxy.NOT_INSTALLED)
    with fleet(samples[0].root, 3, ENVIRONMENT) as running:
        yield running


@pytest.fixture
def whole(three: Fleet) -> Fleet:
    """All three replicas, as the balancer sees it too."""
    three.wait_for(UP)
    return three


def load(on: Fleet, rows: Samples, name: str) -> AbstractContextManager[Sent]:
    """Load on the quick variant."""
    return fleet_load.load(on, rows, name, RATE, PATIENT_S, "quick")


def asked(front: Server, name: str, rows: int = 1, path: str = SLOW) -> Answer:
    """One request, on the slow path of tens of milliseconds a row; head and body are sent one after the other."""
    body = json.dumps(sign_body(*[1.0] * rows)).encode()
    headers = {"x-request-id": name, "x-gateway-inference-objective": "batch"}
    return fetch(f"{front.url}{path}", body, headers, timeout_s=60.0)


def test_each_request_is_answered_by_one_replica(whole: Fleet, samples: tuple[Repository, Samples]) -> None:
    """All have work, nothing is asked twice, and names that callers give arrive."""
    with load(whole, samples[1], "even-") as sent:
        whole.wait_until(lambda: sent.sender.sent >= 300, "300 requests are sent")
    assert {200} == set(sent.statuses.values())
    shares = [{name for name in answered_by(replica.server) if name.startswith("even-")} for replica in whole.replicas]
    assert set(sent.statuses) == set().union(*shares)
    assert sum(len(share) for share in shares) == len(sent.statuses)
    assert all(len(share) > len(sent.statuses) / 6 for share in shares)


def test_the_fewest_in_flight_are_next(whole: Fleet) -> None:
    """HAProxy has the rule of `loadtests/balanced.py`: idle replicas take turns, busy ones are passed over."""
    idle, beside = ([f"{kind}-{number}" for number in range(6)] for kind in ("idle", "beside"))
    for name in idle:
        assert 200 == asked(whole.front.server, name, path=QUICK).status
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(asked, whole.front.server, "beside-long", 24)
        whole.wait_until(lambda: any(_unfinished(one.server) for one in whole.replicas), "one of them is busy")
        (busy,) = (replica.name for replica in whole.replicas if _unfinished(replica.server))
        for name in beside:
            assert 200 == asked(whole.front.server, name, path=QUICK).status
        assert not long.done()
    whole.wait_until(lambda: {*idle, *beside} <= _servers(whole).keys(), "all of them are logged")
    servers = _servers(whole)
    assert [3, 3] == [len({servers[name] for name in turn}) for turn in (idle[:3], idle[3:])]
    assert {replica.name for replica in whole.replicas} - {busy} == {servers[name] for name in beside}


def test_who_has_no_name_gets_one_and_operators_ask_replicas(whole: Fleet) -> None:
    """A request without an id is found in logs under the one in its answer; what concerns one replica is not there."""
    with httpx.Client(base_url=whole.front.server.url, timeout=30.0) as client:
        name = client.post("/v2/models/sign/infer", json=sign_body(1.0)).headers["x-request-id"]
        whole.wait_until(lambda: any(name in answered_by(one.server) for one in whole.replicas), "it is in a log")
        for path in ("/metrics", "/admin/reload", "/v2/repository/models/sign/unload"):
            assert 404 == client.post(path).status_code
        assert 200 == client.get("/v2/models/sign").status_code


def test_a_replica_that_was_taken_out_is_sent_nothing(whole: Fleet, samples: tuple[Repository, Samples]) -> None:
    """A measured load goes where each request is to go: to HAProxy, which spares one replica, or to that directly."""
    first, _, third = whole.replicas
    workload = poisson(RATE, 1.0, PATIENT_S, samples[1], 1)
    to = np.arange(len(workload)) % 2
    places = [(at.address, at.port) for at in (whole.front.server, first.server)]
    before, third_before = whole.front.counted(), len(answered_by(third.server))
    first_before = len(answered_by(first.server))
    whole.front.take_out({first.name, third.name})
    try:
        with Generator(samples[1]) as generator:
            results, _ = generator.send(workload, places, to, "quick")
    finally:
        whole.front.take_out(set())
    assert {Fate.ANSWERED} == set(results.fate)
    assert Counted(handed=int((to == 0).sum()), repeated=0, moved=0) == whole.front.counted().since(before)
    whole.wait_until(lambda: len(answered_by(first.server)) - first_before == to.sum(), "it logged what came directly")
    assert third_before == len(answered_by(third.server))


def test_a_killed_replica_takes_nothing_with_it(whole: Fleet, samples: tuple[Repository, Samples]) -> None:
    """What it held is answered by others, once; what it answered is answered; and nobody sees an error."""
    victim, before = whole.replicas[1], whole.front.counted()
    long = [f"killed-long-{number}" for number in range(6)]
    with load(whole, samples[1], "killed-") as sent, ThreadPoolExecutor(len(long)) as pool:
        answers = [pool.submit(asked, whole.front.server, name, 12) for name in long]
        whole.wait_until(lambda: all(_unfinished(one.server) for one in whole.replicas), "each replica holds one")
        victim.kill()
        whole.wait_for(DOWN, victim)
        sent.sender.enough = True
        assert [200] * len(long) == [answer.result().status for answer in answers]
    counted = whole.front.counted().since(before)
    victim_answered = {line["request_id"] for line in whole.front.log() if line["server"] == victim.name}
    victim.restart()
    statuses = sent.statuses
    assert {200} == set(statuses.values())
    assert 0 == sent.sender.repeated
    ours = {*statuses, *long}
    elsewhere = [n for one in (whole.replicas[0], whole.replicas[2]) for n in answered_by(one.server) if n in ours]
    again = {line["request_id"] for line in whole.front.log() if line["retries"] != "0"} & ours
    assert {1} == set(Counter(elsewhere).values())
    assert ours == set(elsewhere) | (victim_answered & ours)
    assert again <= set(elsewhere)
    # What it held may have been one of the load's alone.
    assert 0 < len(again) <= counted.moved


def test_restarts_one_after_the_other_lose_nothing(whole: Fleet, samples: tuple[Repository, Samples]) -> None:
    """All requests are answered at the first attempt while every replica ends, with 0, and comes back."""
    before = whole.front.counted()
    with load(whole, samples[1], "rolled-") as sent:
        for replica in whole.replicas:
            assert 0 == replica.stop()
            replica.restart()
            replica.server.wait_until_ready()
            whole.wait_for(UP, replica)
    statuses = sent.statuses
    assert {200} == set(statuses.values())
    assert 0 == sent.sender.repeated
    assert Counted(handed=len(statuses), repeated=0, moved=0) == whole.front.counted().since(before)


def test_what_a_pulled_cable_cuts_off_is_answered_elsewhere(whole: Fleet) -> None:
    """A machine that is gone without a word is noticed, and what was sent to it is sent again."""
    if whole.shared:
        pytest.skip(f"replicas share one network: {whole.shared}")
    victim = whole.replicas[2]
    names = [f"pulled-{number}" for number in range(3)]
    with ThreadPoolExecutor(len(names)) as pool:
        answers = [pool.submit(asked, whole.front.server, name, 64) for name in names]
        whole.wait_until(lambda: all(_unfinished(one.server) for one in whole.replicas), "each replica holds one")
        victim.machine.pull()
        try:
            assert [200] * len(names) == [answer.result().status for answer in answers]
        finally:
            victim.machine.plug()
    lines = {line["request_id"]: line for line in whole.front.log() if line["request_id"] in names}
    assert ["+1", "0", "0"] == sorted(line["retries"] for line in lines.values())


def _servers(on: Fleet) -> dict[str, str]:
    """Who answered, by request id, as far as the balancer has logged it."""
    return {line["request_id"]: line["server"] for line in on.front.log()}


def _unfinished(server: Server) -> float:
    """Requests without an outcome at one replica."""
    text = fetch(f"{server.url}/metrics").body.decode()
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("pareto_unfinished_requests "))
