"""Trials that end amid something else: the scheduler is left with what serves, and nobody loses an answer."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from router.canary import Verdict
from router.scheduler import Scheduler
from router.words import Outcome
from service.canary_control import CanaryControl
from service.canary_trial import State
from service.gateway import Gateway
from service.oip.errors import ProtocolError
from service.reloading import Reloading
from service.repository_control import RepositoryControl
from service.scoped_settings import FamilySettings
from service.settings import Settings
from service.work import Answer
from tests.service.families import sign_model, write_family
from tests.service.trials import ALL, ask, serve, settled, started, state
from variants.repository import Repository, RepositoryError

BUDGETS = pytest.mark.parametrize("budget", [None, "8GiB"])


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The family `f` in revisions 1, 2 and 3, alike and with profiles."""
    root = tmp_path_factory.mktemp("trials")
    repository = Repository(root)
    write_family(repository, "f", {"quick": (sign_model(), 0.8), "slow": (sign_model(20), 0.9)}, revision="1")
    asyncio.run(started(Settings(models=root, slots=1), lambda gateway, canaries, control: _nothing()))
    for revision in ("2", "3", "renamed"):
        shutil.copytree(root / "f" / "1", root / "f" / revision)
        manifest = root / "f" / revision / "family.json"
        text = manifest.read_text(encoding="utf-8").replace('"revision": "1"', f'"revision": "{revision}"')
        manifest.write_text(text.replace('"yes"', '"up"') if revision == "renamed" else text, encoding="utf-8")
    return root


@pytest.fixture
def models(profiled: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    return shutil.copytree(profiled, tmp_path / "models")


async def _nothing() -> None:
    pass


@BUDGETS
def test_requests_at_the_revision_on_trial_get_their_answers_from_it(models: Path, budget: str | None) -> None:
    """Ten that wait and run when it is rolled back are answered by it, the next one by the old one."""

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        del control
        await canaries.start("f", "2", ALL)
        async with asyncio.timeout(20.0):
            # What is not in memory yet is the old one's to answer, and is loaded because somebody asks.
            while (await ask(gateway, "before", "slow"))[1] == "1":
                pass
        flying = [asyncio.create_task(ask(gateway, f"r-{number}", "slow")) for number in range(10)]
        await asyncio.sleep(0)
        canaries.roll_back("f")
        after = await ask(gateway, "late")
        ended = await asyncio.gather(*flying)
        assert {Outcome.SERVED} == {answer.record.outcome for answer, _ in [*ended, after]}
        assert ({"2"}, "1") == ({revision for _, revision in ended}, after[1])
        assert ({"f": "1"}, State.STOPPED) == (await settled(gateway), state(gateway))

    serve(models, budget, scenario)


def test_a_restart_serves_the_old_revision_until_the_new_one_is_promoted(models: Path) -> None:
    """Also where the build of the new one has made it the active one; and so does a plain load after a rollback."""

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        repository = Repository(models)
        repository.activate("f", "2")
        await canaries.start("f", "2", ALL)
        assert "1" == repository.active("f")
        canaries.roll_back("f")
        await control.load("f")
        assert ("1", {"f": "1"}) == (repository.active("f"), await settled(gateway))
        await canaries.start("f", "2", ALL)
        await canaries.promote("f")
        assert ("2", {"f": "2"}) == (repository.active("f"), await settled(gateway))

    serve(models, None, scenario)


async def _load_third(canaries: CanaryControl, control: RepositoryControl) -> None:
    await control.load("f", "3")


async def _load_tried(canaries: CanaryControl, control: RepositoryControl) -> None:
    await control.load("f", "2")


async def _load_again(canaries: CanaryControl, control: RepositoryControl) -> None:
    await control.load("f", again=True)


async def _load_active(canaries: CanaryControl, control: RepositoryControl) -> None:
    await control.load("f")


async def _try_third(canaries: CanaryControl, control: RepositoryControl) -> None:
    await canaries.start("f", "3", ALL)


async def _load_nothing(canaries: CanaryControl, control: RepositoryControl) -> None:
    with pytest.raises(ProtocolError, match="no revision"):
        await control.load("f", "nobody")


async def _try_nothing(canaries: CanaryControl, control: RepositoryControl) -> None:
    with pytest.raises(ProtocolError, match="no revision"):
        await canaries.start("f", "nobody", ALL)


@BUDGETS
@pytest.mark.parametrize(
    ("act", "serving", "trial"),
    [
        (_load_third, "3", ("2", State.STOPPED)),
        (_load_tried, "2", ("2", State.PROMOTED)),
        (_load_again, "1", ("2", State.STOPPED)),
        (_load_active, "1", ("2", State.RUNNING)),
        (_try_third, "1", ("3", State.RUNNING)),
        (_load_nothing, "1", ("2", State.RUNNING)),
        (_try_nothing, "1", ("2", State.RUNNING)),
    ],
)
def test_what_else_is_loaded_ends_a_trial_or_does_not(
    models: Path,
    budget: str | None,
    act: Callable[[CanaryControl, RepositoryControl], Awaitable[None]],
    serving: str,
    trial: tuple[str, State],
) -> None:
    """Requests that come all the while are answered; at most one revision is on trial afterwards."""

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        await canaries.start("f", "2", ALL)
        flying = [asyncio.create_task(ask(gateway, f"r-{number}")) for number in range(10)]
        await asyncio.sleep(0)
        await act(canaries, control)
        ended = await asyncio.gather(*flying)
        assert {Outcome.SERVED} == {answer.record.outcome for answer, _ in ended}
        report = gateway.canaries.reports["f"]
        assert (serving, trial) == (gateway.families["f"].family.revision, (report.revision, report.state))
        assert (report.state is State.RUNNING) == ("f" in gateway.canaries.trials)
        assert (await ask(gateway))[1] == (trial[0] if report.state is State.RUNNING else serving)
        gateway.canaries.end("f", State.STOPPED)
        assert {"f": serving} == await settled(gateway)

    serve(models, budget, scenario)


@BUDGETS
def test_unloading_and_draining_end_trials(models: Path, budget: str | None) -> None:
    """Nothing of a trial is left with the family, and a replica drains with one running."""

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        await canaries.start("f", "2", ALL)
        await control.unload("f")
        assert ({}, {}) == (gateway.canaries.reports, await settled(gateway))
        with pytest.raises(ProtocolError, match="not loaded"):
            await canaries.start("f", "2", ALL)
        await control.load("f", "1")
        await canaries.start("f", "2", ALL)
        flying = [asyncio.create_task(ask(gateway, f"r-{number}", "slow")) for number in range(5)]
        await asyncio.sleep(0)
        await gateway.drain()
        assert {Outcome.SERVED} == {answer.record.outcome for answer, _ in await asyncio.gather(*flying)}

    serve(models, budget, scenario)


def test_an_answer_comes_with_the_revision_that_gave_it(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also to a request that was read for another one and waited for the swap: labels are those of who answered."""

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        waiting: list[asyncio.Task[tuple[Answer, str]]] = []
        quiet = gateway.quiet

        async def asked_meanwhile(family: str) -> bool:
            waiting.append(asyncio.create_task(ask(gateway)))
            await asyncio.sleep(0)
            return await quiet(family)

        monkeypatch.setattr(gateway, "quiet", asked_meanwhile)
        await control.load("f", "renamed")
        answer, revision = await waiting[0]
        assert ("renamed", "renamed") == (revision, answer.record.revision)

    serve(models, None, scenario)


def test_a_trial_that_is_rolled_back_before_its_promotion_is_not_promoted(models: Path) -> None:
    """Whoever is first decides: the verdict comes while something else is loaded, and then somebody rolls back."""

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        await canaries.start("f", "2", ALL)
        trial = gateway.canaries.trials["f"]
        async with control.turn:
            trial.canary.verdict = Verdict.PROMOTED
            canaries._conclude(trial)
            await asyncio.sleep(0)
            canaries.roll_back("f")
        await asyncio.gather(*canaries._concluding)
        assert {"f": "1"} == await settled(gateway)
        assert ("1", State.STOPPED) == (gateway.families["f"].family.revision, state(gateway))

    serve(models, None, scenario)


@pytest.mark.parametrize(("broken", "left"), [("prepare", ("1", State.FAILED)), ("activate", ("2", State.PROMOTED))])
def test_a_promotion_that_fails(models: Path, monkeypatch: pytest.MonkeyPatch, broken: str, left: object) -> None:
    """One that cannot take its place leaves the old one, and says so; one that is only not active serves."""

    def fail(*_: object) -> None:
        raise RepositoryError("read-only")

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        await canaries.start("f", "2", ALL)
        monkeypatch.setattr(Scheduler if broken == "prepare" else Repository, broken, fail)
        trial = gateway.canaries.trials["f"]
        trial.canary.verdict = Verdict.PROMOTED
        canaries._conclude(trial)
        await asyncio.gather(*canaries._concluding)
        assert left == (gateway.families["f"].family.revision, state(gateway))
        assert (broken == "prepare") == ("read-only" in gateway.canaries.reports["f"].why)
        assert Outcome.SERVED is (await ask(gateway))[0].record.outcome

    serve(models, None, scenario)


def test_settings_that_are_read_again_hold_for_the_trial(models: Path) -> None:
    """A margin is told to both; what has the family loaded anew ends the trial."""
    usual = Settings(models=models, slots=1)
    wanted = iter([FamilySettings(margin=2.0), FamilySettings(margin=2.0, load=("quick",))])

    async def scenario(gateway: Gateway, canaries: CanaryControl, control: RepositoryControl) -> None:
        await canaries.start("f", "2", ALL)
        reloading = Reloading(gateway, control, lambda: usual.model_copy(update={"families": {"f": next(wanted)}}))
        await reloading.reload()
        assert State.RUNNING is state(gateway)
        await reloading.reload()
        assert State.STOPPED is state(gateway)
        assert {"f": "1"} == await settled(gateway)

    serve(models, None, scenario)
