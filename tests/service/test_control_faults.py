"""What goes wrong while families are loaded, unloaded and set anew keeps nothing else from what it should do."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from router.scheduler import Scheduler
from service.gateway import Gateway
from service.oip.errors import ProtocolError
from service.page.samples import Samples
from service.paths import PathOpener
from service.reloading import Reloading
from service.repository_control import RepositoryControl
from service.scoped_settings import FamilySettings
from service.settings import Settings
from tests.service.controlled import fail, serve, served, started
from tests.service.families import sign_model, write_family
from variants.repository import Repository
from variants.session import ModelLoadError

NAMES = ("a", "b", "c")
BUDGETS = pytest.mark.parametrize("budget", [None, "8GiB"])


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three families of two variants with profiles; `a` has a second revision."""
    root = tmp_path_factory.mktemp("faults")
    repository = Repository(root)
    for name in NAMES:
        write_family(repository, name, {"quick": (sign_model(), 0.8), "slow": (sign_model(1), 0.9)})
    asyncio.run(started(Settings(models=root, slots=1), lambda gateway: _nothing()))
    first = repository.active("a")
    shutil.copytree(root / "a" / first, root / "a" / "second")
    manifest = root / "a" / "second" / "family.json"
    text = manifest.read_text(encoding="utf-8").replace(f'"revision": "{first}"', '"revision": "second"')
    manifest.write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def models(profiled: Path, tmp_path: Path) -> Path:
    """A copy of them that a test may change."""
    return shutil.copytree(profiled, tmp_path / "models")


async def _nothing() -> None:
    pass


@BUDGETS
def test_a_family_that_cannot_be_loaded_keeps_none_from_its_settings(models: Path, budget: str | None) -> None:
    """Those before and after it are set anew; it keeps its own, and is tried again at the next reload."""
    usual = Settings(models=models, slots=1, memory_budget=budget)
    wanted = [{name: ("nobody",) if name == "b" else ("quick",) for name in NAMES}] * 2 + [
        dict.fromkeys(NAMES, ("quick",))
    ]
    read = (
        usual.model_copy(update={"families": {name: FamilySettings(load=load) for name, load in one.items()}})
        for one in wanted
    )

    async def scenario(gateway: Gateway) -> None:
        both = ("quick", "slow")
        assert dict.fromkeys(NAMES, both) == served(gateway)
        reloading = Reloading(gateway, RepositoryControl(gateway, lambda: None), lambda: next(read))
        for _ in range(2):
            with pytest.raises(ProtocolError, match=r"'b'.*nobody"):
                await reloading.reload()
            assert {"a": ("quick",), "b": both, "c": ("quick",)} == served(gateway)
            assert None is gateway.settings.load_of("b")
        assert ["families.b.load"] == orjson.loads(await reloading.reload())["applied"]
        assert dict.fromkeys(NAMES, ("quick",)) == served(gateway)

    serve(models, budget, scenario)


def test_a_revision_that_cannot_be_made_active_serves_and_is_said(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks at what is served is told of it all the same; asking again makes it the active one."""

    async def scenario(gateway: Gateway) -> None:
        changes: list[str] = []
        control = RepositoryControl(gateway, lambda: changes.append(gateway.families["a"].family.revision))
        with monkeypatch.context() as patch:
            patch.setattr(Repository, "activate", fail)
            with pytest.raises(ProtocolError, match=r"'second' serves.*ACTIVE.*read-only") as caught:
                await control.load("a", "second")
        assert (500, ["second"]) == (caught.value.status, changes)
        other = gateway.settings.model_copy(update={"families": {"a": FamilySettings(load=("quick",))}})
        await Reloading(gateway, control, lambda: other).reload()
        assert (["second"] * 2, {"quick"}) == (changes, set(gateway.families["a"].paths))
        await control.load("a", "second")
        assert "second" == Repository(models).active("a")

    serve(models, None, scenario)


@BUDGETS
def test_a_floor_holds_at_once(models: Path, budget: str | None) -> None:
    """The family's least accuracy is read at every use: nothing is loaded anew for it."""
    usual = Settings(models=models, slots=1, memory_budget=budget)
    floored = usual.model_copy(update={"families": {"a": FamilySettings(min_accuracy=0.85)}})

    async def scenario(gateway: Gateway) -> None:
        before = gateway.families["a"]
        assert gateway.defaults("a").min_accuracy == 0.0
        control = RepositoryControl(gateway, fail)
        said = orjson.loads(await Reloading(gateway, control, lambda: floored).reload())
        assert {"applied": ["families.a.min_accuracy"], "needs_restart": []} == said
        assert (before, 0.85) == (gateway.families["a"], gateway.defaults("a").min_accuracy)

    serve(models, budget, scenario)


@pytest.mark.parametrize(("broken", "left"), [({"quick"}, ["slow"]), ({"quick", "slow"}, [])])
def test_a_variant_that_cannot_be_opened_makes_room_for_the_next(
    models: Path, monkeypatch: pytest.MonkeyPatch, broken: set[str], left: list[str]
) -> None:
    """Under a budget the next variant is opened; where none can be, the answer says so and the old ones serve on."""

    async def scenario(gateway: Gateway) -> None:
        control = RepositoryControl(gateway, lambda: None)
        before = gateway.families["a"]
        real = PathOpener.open

        def opens(opener: PathOpener, variant: Any) -> Any:
            if variant.name in broken:
                raise ModelLoadError("no such operator")
            return real(opener, variant)

        monkeypatch.setattr(PathOpener, "open", opens)
        if left:
            await control.load("a", again=True)
            assert (left, broken) == (list(gateway.families["a"].paths), set(gateway.families["a"].refused))
        else:
            with pytest.raises(ProtocolError, match=r"none of its variants.*no such operator") as caught:
                await control.load("a", again=True)
            assert (400, before) == (caught.value.status, gateway.families["a"])

    serve(models, "8GiB", scenario)


@BUDGETS
def test_a_family_in_use_is_not_unloaded(models: Path, monkeypatch: pytest.MonkeyPatch, budget: str | None) -> None:
    """A batch that begins at the last moment: 503, and the family is served on."""

    def in_use(*_: object) -> None:
        raise ValueError("a batch of it runs")

    async def scenario(gateway: Gateway) -> None:
        monkeypatch.setattr(Scheduler, "remove", in_use)
        with pytest.raises(ProtocolError) as caught:
            await RepositoryControl(gateway, lambda: None).unload("a")
        assert (503, 1.0, True) == (caught.value.status, caught.value.retry_after_s, "a" in gateway.families)
        assert "a" == gateway.loaded("a").name

    serve(models, budget, scenario)


@BUDGETS
def test_scheduler_and_gateway_change_together(
    models: Path, monkeypatch: pytest.MonkeyPatch, budget: str | None
) -> None:
    """Whenever anything else may run, both have the same families in the same revisions."""
    seen: list[bool] = []

    async def scenario(gateway: Gateway) -> None:
        assert gateway.scheduler is not None
        scheduler, residency = gateway.scheduler, gateway.residency

        def compare() -> None:
            ours = {name: loaded.family.revision for name, loaded in gateway.families.items()}
            seen.append(ours == {name: family.revision for name, family in scheduler.families.items()})

        if residency is not None:
            real = residency.moves.in_thread

            async def in_thread(work: Callable[[], Any]) -> Any:
                compare()
                return await real(work)

            monkeypatch.setattr(residency.moves, "in_thread", in_thread)
        control = RepositoryControl(gateway, compare)
        await control.load("a", "second")
        await control.unload("b")
        await control.load("b")
        assert gateway.feed is not None
        assert gateway.feed.welcome("b")["family"]["revision"] == gateway.families["b"].family.revision

    serve(models, budget, scenario)
    assert {True} == set(seen)


def test_page_and_metrics_outlive_a_family(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the scheduler no longer has is left out, and the rest is told."""

    async def scenario(gateway: Gateway) -> None:
        assert gateway.feed is not None
        scheduler = gateway.scheduler
        assert scheduler is not None
        families, latency = scheduler.families, scheduler.latency
        scheduler.remove("a", 0.0)
        assert {"quick", "slow"} == set(gateway.feed.tick("a")["latency_ms"])
        monkeypatch.setattr(Scheduler, "families", families)
        text = gateway.metrics.exposition().decode()
        assert 'pareto_latency_correction_ratio{model="b"' in text
        assert 'pareto_latency_correction_ratio{model="a"' not in text
        with pytest.raises(KeyError):
            latency("a")

    serve(models, None, scenario)


def test_samples_are_those_of_the_served_revision(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read of the revision before is not shown for the new one; switched off, nothing is."""
    opened: list[str | None] = []
    real = Repository.open

    async def scenario(gateway: Gateway) -> None:
        samples = Samples(gateway)
        first = gateway.families["a"].family.revision
        await samples.listed("a")
        await RepositoryControl(gateway, lambda: None).load("a", "second")

        def spied(repository: Repository, family: str, revision: str | None = None) -> Any:
            opened.append(revision)
            return real(repository, family, revision)

        monkeypatch.setattr(Repository, "open", spied)
        for _ in range(2):
            await samples.listed("a")
            await samples.request("a", 0)
        assert (["second"], True) == (opened, first != "second")
        gateway.apply(gateway.settings.model_copy(update={"page_samples": False}))
        for asked in (samples.listed("a"), samples.request("a", 0)):
            with pytest.raises(ProtocolError, match="page_samples"):
                await asked

    serve(models, None, scenario)


def test_a_budget_that_holds_nothing_is_told(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once at the start, and once after each reload that changes it; such a replica is not to be sent requests."""
    beginning = "nothing to serve: memory_budget leaves "
    told_welcome: list[bool] = []

    def errors() -> list[str]:
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        return [line for line in said if line.startswith(beginning)]

    async def scenario(gateway: Gateway) -> None:
        (told,) = errors()
        assert "leaves 0.0 MB for models: not even the smallest variant fits of 3 families: a (takes " in told
        said = gateway.unavailable()
        assert (503, False) == (said.status, gateway.is_welcoming)
        assert "nothing to serve: no family can be loaded within memory_budget, see the log" == said.message
        assert gateway.residency is not None
        gateway.residency.changed = lambda: told_welcome.append(gateway.is_welcoming)
        for budget, count in (("2MiB", 2), ("2MiB", 2), ("8GiB", 2), ("1MiB", 3)):
            wanted = partial(gateway.settings.model_copy, update={"memory_budget": budget})
            await Reloading(gateway, RepositoryControl(gateway, lambda: None), wanted).reload()
            # What is in memory goes first, and serves until then.
            for _ in range(2):
                await gateway.residency._step({})
            assert (count, budget == "8GiB") == (len(errors()), gateway.is_welcoming)
        assert [True, False] == told_welcome

    with caplog.at_level(logging.INFO, "pareto.residency"):
        serve(models, "1MiB", scenario)
