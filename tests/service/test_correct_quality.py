"""`correct_quality` over a socket: what audits find is believed, floors keep to it, and loads do not lose it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic

import httpx
import pytest
from pydantic import ValidationError

import service.correction
from router.contract import Slot
from router.policies import policy_named
from router.request import Request
from router.scheduler import Scheduler
from service.piecewise import PiecewiseFamily
from service.residency import Residency
from service.settings import Settings
from tests.service.conftest import eventually
from tests.service.families import write_chain
from tests.service.inprocess import serving
from tests.service.test_audits import INFER, ask, metric, rows_of
from variants.repository import Repository
from variants.session import SessionOptions

believed = partial(metric, name="pareto_variant_believed_quality_ratio")
measured = partial(metric, name="pareto_variant_quality_ratio")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the family `chain`, whose variants agree on about 85 rows of 100."""
    repository = Repository(tmp_path_factory.mktemp("models"))
    write_chain(repository, "chain")
    return repository.root


def variant_for(client: httpx.Client, floor: float, status: int = 200) -> str:
    """Who answers a request that asks for at least so much accuracy."""
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 1.0, 0.0, 0.0]}]}
    answer = client.post(INFER, json=body, headers={"x-slo-min-accuracy": f"{floor:.4f}"})
    assert answer.status_code == status
    return str(answer.headers.get("x-variant", ""))


@pytest.mark.parametrize("budget", [None, "8GiB"], ids=["everything", "budget"])
def test_a_variant_that_drifts_is_believed_less_until_it_does_no_more(
    models: Path, monkeypatch: pytest.MonkeyPatch, budget: str | None
) -> None:
    """It no longer answers who asks for what it was measured at, even after a reload; as it recovers it does again."""
    monkeypatch.setattr(service.correction, "TICK_S", 0.02)
    wanted = Settings(
        models=models, slots=1, audit_share=1.0, drift_s=0.0, correct_quality=True, admin=True, memory_budget=budget
    )
    with serving(wanted, policy_named("fixed:small")) as client:
        ask(client, rows_of(1), prefix="first")
        eventually(lambda: client.get("/v2/models/chain/versions/large/ready").status_code == 200, "all is loaded")
        was = measured(client, variant="small")
        floor = was - 0.005
        assert variant_for(client, floor) == "small"
        rows = rows_of(150, seed=6)
        rows[:, 0] *= 0.1
        ask(client, rows)
        eventually(lambda: believed(client, variant="small") < was - 0.1, "the drift is believed")
        assert (was, 1.0) == pytest.approx((measured(client, variant="small"), believed(client, variant="large")))
        assert variant_for(client, floor) == "large"
        assert variant_for(client, was - 0.4) == "small"
        with client.stream("GET", "/events?family=chain") as page:
            welcome = next(line for line in page.iter_lines() if line.startswith("data: "))
        small, _ = json.loads(welcome.removeprefix("data: "))["family"]["variants"]
        assert small["believed"] < small["quality"] == pytest.approx(was)
        # What is loaded anew is believed as it was measured, until the same revision is looked at again.
        for change in ("unload", "load"):
            client.post(f"/v2/repository/models/chain/{change}").raise_for_status()
        ask(client, rows[:1], prefix="again")
        eventually(lambda: believed(client, variant="small") < was - 0.1, "the drift is believed again")
        ask(client, rows_of(400, seed=7), prefix="sound")
        eventually(lambda: believed(client, variant="small") == pytest.approx(was), "it drifts no more")
        assert variant_for(client, floor) == "small"


def test_audits_must_find_what_is_to_be_corrected() -> None:
    """Corrections without audits would do nothing; the error says what is missing."""
    with pytest.raises(ValidationError, match="set an audit_share above 0"):
        Settings(correct_quality=True)


def test_loads_and_evictions_carry_what_is_believed(models: Path) -> None:
    """A belief comes and goes with requests in flight; variants that are loaded or dropped meanwhile keep to it."""

    async def scenario() -> None:
        piece = PiecewiseFamily(Repository(models), "chain", SessionOptions(), None, stages="auto", cascades=True)
        family = piece.loaded.family
        residency = Residency({"chain": piece}, 8 << 30, (), 1)
        scheduler = Scheduler([piece.family()], [Slot(0)], policy_named("casc"))
        changed = asyncio.Event()

        def tell(change: Callable[[float], None]) -> None:
            change(monotonic())
            changed.set()

        residency.begin(scheduler, tell)

        def state() -> tuple[tuple[int, ...], float]:
            now = scheduler.families["chain"]
            return now.loaded or (), round(now.variants[0].lost, 9)

        async def until(loaded: tuple[int, ...], lost: float) -> None:
            async with asyncio.timeout(20.0):
                while state() != (loaded, lost):
                    changed.clear()
                    await changed.wait()

        try:
            await until((0, 1), 0.0)
            scheduler.submit(Request(1, "chain", (0,), monotonic(), revision=family.revision), monotonic())
            latency = scheduler.latency("chain")
            assert await residency.believe(family, {"small": 0.2})
            assert state() == ((0, 1), 0.2)
            assert scheduler.latency("chain") is latency, "what was learnt of latencies is kept"
            scheduler.cancel(1, monotonic())
            residency.allow(1, ())
            await until((), 0.2)
            residency.allow(8 << 30, ())
            await until((0, 1), 0.2)
            assert await residency.believe(family, {})
            assert state() == ((0, 1), 0.0)
            again = PiecewiseFamily(Repository(models), "chain", SessionOptions(), None, stages="auto", cascades=True)
            assert not await residency.believe(again.loaded.family, {"small": 0.2})
        finally:
            residency.stop()

    asyncio.run(scenario())
