"""What else holds for requests holds for those of a trial: quotas, timeouts, drains, rollbacks in time, advice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from router.canary import Canary, Trial, Verdict
from router.contract import Dispatch, Hints, Record
from router.request import Origin
from router.sampling import fraction
from router.words import Outcome
from service.canary_control import CanaryControl
from service.canary_trial import State
from service.gateway import Gateway
from service.hidden_families import hinted
from service.oip.errors import ProtocolError
from service.oip.terms import TermDefaults, Terms
from service.repository_control import RepositoryControl
from service.running import RunningBatches
from service.settings import Settings
from tests.service.families import sign_model, write_family
from tests.service.trials import started
from variants.repository import Repository

FAILS = -10.0
"""A second value on which the revision `failing` has no answer."""
ALL = Trial(share=0.999, answers=10**6)
DEFAULTS = TermDefaults(10.0, 30.0)

Scenario = Callable[[Gateway, CanaryControl, RepositoryControl], Awaitable[None]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family `f`: revisions 1 and 2 are sound, `failing` fails on some rows.

    `slow` takes a tenth of a second at least; to load it takes ten seconds on a slow machine.
    """
    repository = Repository(tmp_path_factory.mktemp("trials"))
    models = {"failing": sign_model(limit=5.0), "slow": sign_model(4000), "1": sign_model(), "2": sign_model()}
    for revision, model in models.items():
        write_family(repository, "f", {"quick": (model, 0.8)}, revision=revision)
    repository.activate("f", "1")
    return repository.root


def serve(scenario: Scenario, models: Path, **settings: Any) -> None:
    """Run a scenario with a gateway that is ready."""
    asyncio.run(started(Settings(models=models, slots=1, **settings), scenario))


async def ask(
    gateway: Gateway, name: str = "one", *, tenant: str = "", timeout_s: float = 30.0, slo_s: float | None = 10.0
) -> Record:
    """The record of one row on which `failing` fails."""
    terms = Terms(slo_s, timeout_s, 0.0, 0, DEFAULTS.when_late, tenant or DEFAULTS.tenant, "default")
    rows = {"x": np.array([[1, FAILS, 0, 0]], np.float32)}
    answer, _ = await gateway.intake.infer("f", rows, terms, monotonic(), None, None, Origin(name))
    return answer.record


@pytest.mark.parametrize("quota", [{"rate": 0.001, "burst": 1}, {"rate": 0.001, "burst": 2}, {"concurrency": 1}])
def test_a_failure_of_the_trial_costs_its_tenant_nothing(models: Path, quota: dict[str, float]) -> None:
    """The old revision answers though the quota is used up, by this one request; it counts once."""

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        await canaries.start("f", "failing", ALL)
        for _ in range(int(quota.get("burst", 3))):
            record = await ask(gateway, tenant="t")
            assert (Outcome.SERVED, "1") == (record.outcome, record.revision)
        assert gateway.canaries.reports["f"].fallbacks == int(quota.get("burst", 3))
        expected = Outcome.SERVED if "concurrency" in quota else Outcome.REJECTED_QUOTA
        assert expected is (await ask(gateway, tenant="t")).outcome

    serve(scenario, models, tenants={"t": quota})


def test_a_revision_whose_callers_do_not_wait_for_it_is_slow(models: Path) -> None:
    """All of its requests time out while it computes; nothing of it is ever answered, and still it is rolled back."""
    rules = Trial(share=0.5, answers=10**6, usual=0.8, slowdown=4.9)

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        await canaries.start("f", "slow", rules)
        names = [f"r-{number}" for number in range(400)]
        drawn = {name: fraction(name, "canary") < rules.share for name in names}
        old = iter([name for name in names if not drawn[name]])
        for _ in range(100):
            await ask(gateway, next(old))
        for name in [name for name in names if drawn[name]][:60]:
            if gateway.canaries.reports["f"].state is State.RUNNING:
                await ask(gateway, next(old))
                assert Outcome.EXPIRED is (await ask(gateway, name, slo_s=None, timeout_s=0.05)).outcome
        assert State.SLOW is gateway.canaries.reports["f"].state

    serve(scenario, models)


@pytest.mark.parametrize(("serving", "tried", "share"), [("slow", "1", 1e-9), ("1", "slow", 0.999)])
def test_both_revisions_are_held_to_account_for_who_gives_up(
    models: Path, monkeypatch: pytest.MonkeyPatch, serving: str, tried: str, share: float
) -> None:
    """A call that its caller ends, as gRPC's do, while either of them computes."""
    started_batch = RunningBatches.start

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        await control.load("f", serving)
        await canaries.start("f", tried, Trial(share=share, answers=10**6))
        begun, given_up = asyncio.Event(), asyncio.get_running_loop().create_future()

        def start(running: RunningBatches, dispatches: Sequence[Dispatch]) -> Any:
            begun.set()
            return started_batch(running, dispatches)

        monkeypatch.setattr(RunningBatches, "start", start)
        monkeypatch.setattr(Canary, "gave_up", lambda _, new, seconds: given_up.set_result((new, seconds > 0.0)))
        call = asyncio.create_task(ask(gateway, slo_s=None))
        async with asyncio.timeout(60.0):
            await begun.wait()
            call.cancel()
            assert (tried == "slow", True) == await given_up
        await control.load("f", "1")

    serve(scenario, models)


def test_a_drain_waits_for_who_falls_back(models: Path) -> None:
    """What was taken in before it, and fails at the revision on trial afterwards, is answered by the old one."""

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        await canaries.start("f", "failing", ALL)
        flying = [asyncio.create_task(ask(gateway, f"r-{number}")) for number in range(10)]
        await asyncio.sleep(0)
        await gateway.drain()
        assert [(Outcome.SERVED, "1")] * 10 == [(one.outcome, one.revision) for one in await asyncio.gather(*flying)]
        with pytest.raises(ProtocolError, match="draining"):
            await ask(gateway)

    serve(scenario, models)


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("budget", [None, "8GiB"])
def test_a_rollback_while_the_revision_is_promoted_is_heeded(
    models: Path, monkeypatch: pytest.MonkeyPatch, budget: str | None, by_hand: bool
) -> None:
    """Reading it takes long under a budget; what is rolled back meanwhile neither serves nor becomes active."""

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        await canaries.start("f", "2", ALL)
        read = control._read

        async def read_too_long(name: str, revision: str) -> Any:
            found = await read(name, revision)
            canaries.roll_back("f")
            return found

        monkeypatch.setattr(control, "_read", read_too_long)
        if by_hand:
            with pytest.raises(ProtocolError, match="no trial of f runs any more"):
                await canaries.promote("f")
        else:
            trial = gateway.canaries.trials["f"]
            trial.canary.verdict = Verdict.PROMOTED
            canaries._conclude(trial)
            await asyncio.gather(*canaries._concluding)
        await asyncio.gather(*gateway.canaries.retiring)
        assert gateway.scheduler is not None
        assert {"f": "1"} == {name: family.revision for name, family in gateway.scheduler.families.items()}
        assert ("1", "1") == (gateway.families["f"].family.revision, gateway.reader.repository.active("f"))
        assert State.STOPPED is gateway.canaries.reports["f"].state
        assert Outcome.SERVED is (await ask(gateway)).outcome

    serve(scenario, models, memory_budget=budget)


def test_advice_for_a_model_holds_for_its_revision_on_trial(models: Path) -> None:
    """Both what is in force when the trial begins and what comes later."""
    later = Hints(monotonic(), 600.0, {"f": 3.0, "g": 1.0}, {"f": 0.5}, {"g": 2.0})

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        scheduler = gateway.scheduler
        assert scheduler is not None

        def cautions() -> list[float]:
            hints = scheduler._viewer.fresh_hints(monotonic())
            assert hints is not None
            return [hints.caution[name] for name in ("f", hidden)]

        reader = SimpleNamespace(hints=Hints(monotonic(), 600.0, {"f": 2.0}), stop=lambda: None)
        monkeypatched: Any = gateway
        monkeypatched.outer_loop = reader
        await canaries.start("f", "failing", ALL)
        (hidden,) = gateway.canaries.families
        assert [2.0, 2.0] == cautions()
        gateway.advise(later)
        assert [3.0, 3.0] == cautions()
        assert hinted(later, [hidden]).floors == {"f": 0.5, hidden: 0.5}
        assert hinted(later, [hidden]).weights == {"g": 2.0}
        assert hinted(later, []) is later

    serve(scenario, models)


def test_no_label_is_new_and_all_is_told_once(models: Path) -> None:
    """Ten requests that fail at the trial are ten in every counter, under the model's name."""

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        await canaries.start("f", "failing", ALL)
        await asyncio.gather(*(ask(gateway, f"r-{number}") for number in range(10)))
        text = gateway.metrics.exposition().decode()
        assert "@" not in text
        counted = [line for line in text.splitlines() if line.startswith("pareto_requests_total{")]
        assert 10.0 == sum(float(line.rsplit(" ", 1)[1]) for line in counted)
        assert not [one for one in gateway.statistics.counters() if one.fail.count]

    serve(scenario, models)


def test_nobody_waits_for_a_load_of_the_revision_on_trial(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has not in memory the old one answers at once, though the trial draws everybody."""

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        residency = gateway.residency
        assert residency is not None
        await ask(gateway)
        await canaries.start("f", "2", ALL)
        (hidden,) = gateway.canaries.families
        async with residency._stepping:
            await residency.moves.in_thread(lambda: None)
        # As if there were no room for it beside the old one.
        wanted = residency.appraisal.plan
        monkeypatch.setattr(residency.appraisal, "plan", lambda cold, busy: ())
        await residency.moves.evict(hidden, ["quick"])
        record = await ask(gateway)
        assert (Outcome.SERVED, "1", False) == (record.outcome, record.revision, record.cold)
        monkeypatch.setattr(residency.appraisal, "plan", wanted)
        async with asyncio.timeout(20.0):
            while (await ask(gateway)).revision == "1":
                pass

    serve(scenario, models, memory_budget="8GiB")
