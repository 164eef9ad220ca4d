"""Profiles come from the session that serves, keep to their shape and are only believed where they belong."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.contract import Evidence
from variants.evidence import read_evidence
from variants.fingerprint import available_cores, machine_fingerprint
from variants.preparation import Row
from variants.profiles import FamilyProfile, VariantTable, load_profile, save_profile, to_router_family
from variants.profiling import longest_chains, profile_family
from variants.repository import RevisionFolder
from variants.session import ModelLoadError
from variants.timing import (
    Cell,
    Progress,
    TimingPlan,
    Work,
    elapsed_s,
    isotonic,
    measure,
    quantiles,
    rows_for_class,
    running_s,
    usual_spread,
)


class ScriptedMachine:
    """Variants that take exactly `base + per_row * batch` seconds of a clock that only they move."""

    def __init__(self, **costs: tuple[float, float]) -> None:
        self.now_s = 0.0
        self.runs: list[tuple[str, int]] = []
        self.works = {name: self._work(name, *cost) for name, cost in costs.items()}

    def clock(self) -> float:
        return self.now_s

    def stopwatch(self, work: Work, rows: Sequence[Row]) -> tuple[float, object]:
        begun_s = self.now_s
        made = work(rows)
        return self.now_s - begun_s, made

    def measure(self, progress: Progress = lambda _: None) -> dict[Cell, list[float]]:
        return measure(
            [{name: work} for name, work in self.works.items()],
            [[np.arange(3)] * 4],
            [3],
            PLAN,
            progress,
            self.stopwatch,
            self.clock,
        )

    def _work(self, name: str, base_s: float, per_row_s: float) -> Work:
        def run(rows: Sequence[Row]) -> None:
            self.runs.append((name, len(rows)))
            self.now_s += base_s + per_row_s * len(rows)

        return run


PLAN = TimingPlan(batches=(1, 4), least=2, most=10, cell_s=0.1, total_s=5.0)


def test_every_cell_is_measured_as_often_as_its_budget_buys() -> None:
    """Cheap cells get the most samples, dear ones the least, and the seconds are what the runs took."""
    fractions: list[float] = []
    found = ScriptedMachine(cheap=(0.001, 0.001), dear=(0.0, 0.2)).measure(fractions.append)
    assert {
        Cell("cheap", 0, 1): 10,
        Cell("cheap", 0, 4): 10,
        Cell("dear", 0, 1): 2,
        Cell("dear", 0, 4): 2,
    } == {cell: len(seconds) for cell, seconds in found.items()}
    assert pytest.approx([0.8, 0.8]) == found[Cell("dear", 0, 4)]
    assert (1.0, sorted(fractions)) == (fractions[-1], fractions)


def test_measuring_is_brief_when_the_time_is_spent() -> None:
    """When everything is slower than planned, what is left gets its least number of samples."""
    found = ScriptedMachine(slow=(3.0, 0.0), quick=(0.001, 0.0)).measure()
    assert {2} == {len(seconds) for seconds in found.values()}


def test_variants_take_turns() -> None:
    """Between two samples of one variant's cell every other variant has its turn."""
    machine = ScriptedMachine(a=(0.001, 0.0), b=(0.001, 0.0), c=(0.001, 0.0))
    machine.measure()
    after_warm_up = machine.runs[3:]
    assert len(after_warm_up) == 3 * 2 * PLAN.most
    for turn in range(0, len(after_warm_up), 3):
        assert {"a", "b", "c"} == {name for name, _ in after_warm_up[turn : turn + 3]}


def test_stages_share_a_turn() -> None:
    """A chain is measured as often as a graph of the same cost; each stage gets what the one before it gave."""
    machine = ScriptedMachine(alone=(0.018, 0.0), early=(0.008, 0.0), late=(0.01, 0.0))
    taken: list[int] = []

    def early(rows: Sequence[Row]) -> int:
        machine.works["early"](rows)
        return len(rows)

    def late(given: int) -> None:
        taken.append(given)
        machine.works["late"]([])

    chain: dict[str, Work] = {"early": early, "late": late}
    paths = [{"alone": machine.works["alone"]}, chain]
    found = measure(paths, [[np.arange(3)] * 4], [3], PLAN, lambda _: None, machine.stopwatch, machine.clock)
    assert {5} == {len(seconds) for seconds in found.values()}
    assert pytest.approx([0.01] * 5) == found[Cell("late", 0, 4)]
    assert {1, 4} == set(taken)
    names = [name for name, _ in machine.runs]
    assert all("late" == names[index + 1] for index, name in enumerate(names) if name == "early")


@pytest.mark.parametrize(
    ("chains", "longest"),
    [
        ([(), ("a",), ("a", "b"), ("a", "b")], [("a", "b")]),
        ([("a", "b"), ("a", "c"), ("d",), ("a",)], [("a", "b"), ("a", "c"), ("d",)]),
        ([()], []),
    ],
)
def test_chains_that_begin_a_longer_one_are_run_with_it(
    chains: list[tuple[str, ...]], longest: list[tuple[str, ...]]
) -> None:
    """What is left covers every stage once for each way to reach it."""
    assert longest == longest_chains(chains)


def test_waiting_is_not_running() -> None:
    """A batch during which the thread waited counts for less than the time that passed."""
    waited = threading.Event()
    running, _ = running_s(lambda _: waited.wait(0.05), [])
    elapsed, _ = elapsed_s(lambda _: waited.wait(0.05), [])
    assert running < elapsed


@given(st.lists(st.integers(3, 40), min_size=1, max_size=30), st.integers(0, 2))
def test_rows_of_a_size_class_have_its_lengths(lengths: list[int], size_class: int) -> None:
    """Whatever samples there are, a class has at least sixteen rows, all within it, real ones unchanged."""
    sizes = (8, 16, 32)
    rows = [np.array([101, *range(length - 2), 102], dtype=np.int64) for length in lengths]
    below = (0, 8, 16)[size_class]
    found = rows_for_class(rows, sizes, size_class)
    assert len(found) >= 16
    assert all(below < len(row) <= sizes[size_class] for row in found)
    real = [row.tolist() for row in rows if below < len(row) <= sizes[size_class]]
    assert real == [row.tolist() for row in found[: len(real)]]
    assert {(101, 102)} == {(int(row[0]), int(row[-1])) for row in found if len(row) > 2}


SECONDS = st.floats(1e-6, 10.0)


@given(st.lists(st.tuples(SECONDS, st.integers(1, 50)), min_size=1, max_size=12))
def test_isotonic_regression(cells: list[tuple[float, int]]) -> None:
    """The result never falls, keeps the weighted mean and leaves sorted values alone."""
    values, weights = [value for value, _ in cells], [weight for _, weight in cells]
    found = isotonic(values, weights)
    assert np.all(np.diff(found) >= 0.0)
    assert pytest.approx(np.average(values, weights=weights)) == np.average(found, weights=weights)
    assert sorted(values) == isotonic(sorted(values), weights)


@given(st.lists(st.lists(SECONDS, min_size=1, max_size=40), min_size=1, max_size=6), st.floats(1.0, 3.0))
def test_quantiles_are_ordered(samples: list[list[float]], spread: float) -> None:
    """Neither median nor tail falls with the batch, and the tail is never below the median."""
    medians, tails = quantiles(samples, [spread] * len(samples))
    assert np.all(np.diff(medians) >= 0.0)
    assert np.all(np.diff(tails) >= 0.0)
    assert np.all(np.array(tails) >= np.array(medians))


def test_a_tail_of_few_samples_is_borrowed() -> None:
    """A cell of two samples takes the family's spread, one of a hundred its own 95th percentile."""
    many = [1.0] * 90 + [2.0] * 10
    assert ([1.0, 4.0], [2.0, 6.0]) == quantiles([many, [4.0, 4.0]], spreads=[9.0, 1.5])
    assert 2.0 == usual_spread([many, [7.0, 8.0]])
    assert 1.0 == usual_spread([[7.0, 8.0]])


@pytest.mark.parametrize("family", ["tiny", "words"])
def test_a_profile_of_a_real_family(family: str, request: pytest.FixtureRequest) -> None:
    """Every variant has a positive, monotone table of every size class and of the batches the family runs."""
    folder: RevisionFolder = request.getfixturevalue(family)
    fractions: list[float] = []
    profile = profile_family(folder, progress=fractions.append)
    assert {variant.name for variant in folder.manifest.variants} == set(profile.variants)
    for name, table in profile.variants.items():
        assert ((1, 4) if family == "tiny" else (1, 4, 16)) == table.batches
        assert len(folder.manifest.sizes) == len(table.median_s)
        assert np.all(np.diff(table.median_s, axis=1) >= 0.0)
        assert table.memory_bytes >= folder.file(folder.manifest.variant(name).model_file).stat().st_size
    assert 1.0 == fractions[-1]


def test_stages_are_profiled_with_the_variants_that_use_them(chained_words: RevisionFolder) -> None:
    """Every stage of a named variant's chain has a table of the same shape; a variant without a chain brings none."""
    profile = profile_family(chained_words, ["sum", "other"])
    assert {"sum", "other"} == set(profile.variants)
    assert {"words-0", "words-1"} == set(profile.stages)
    for table in profile.stages.values():
        assert (profile.variants["sum"].batches, 2) == (table.batches, len(table.median_s))
    assert {"words-0"} == set(profile_family(chained_words, ["half"]).stages)
    assert {} == profile_family(chained_words, ["other"]).stages


def test_a_full_profile_has_every_batch(tiny: RevisionFolder) -> None:
    """The full mode measures all powers of two up to the family's largest batch, of the named variants only."""
    profile = profile_family(tiny, ["big"], mode="full")
    assert {"big": (1, 2, 4, 8)} == {name: table.batches for name, table in profile.variants.items()}


def test_a_model_that_cannot_be_opened_is_named(tiny: RevisionFolder) -> None:
    """Profiling a variant whose file is damaged raises with the file."""
    tiny.file("big/model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelLoadError, match=r"big/model\.onnx"):
        profile_family(tiny)


def test_a_saved_profile_is_loaded_and_verifies(tiny: RevisionFolder) -> None:
    """A profile is read back as it was, lies beside the manifest and does not disturb the files it lists."""
    profile = profile_family(tiny)
    save_profile(tiny, profile)
    assert profile == load_profile(tiny)
    assert [f"{machine_fingerprint().digest}.json"] == [path.name for path in (tiny.path / "profiles").iterdir()]
    assert {} == tiny.verify()


def test_profiling_one_variant_keeps_the_others(tiny: RevisionFolder) -> None:
    """Saving a profile of one variant replaces its table and leaves those of the others."""
    both = profile_family(tiny)
    save_profile(tiny, both)
    big = profile_family(tiny, ["big"])
    save_profile(tiny, big)
    loaded = load_profile(tiny)
    assert loaded is not None
    assert {"small": both.variants["small"], "big": big.variants["big"]} == loaded.variants


def test_a_profile_of_another_kind_of_machine_is_not_used(tiny: RevisionFolder) -> None:
    """A profile of other threads, another revision or no valid JSON is as if there were none."""
    assert load_profile(tiny) is None
    profile = profile_family(tiny)
    save_profile(tiny, profile)
    assert load_profile(tiny, threads=2) is None
    path = tiny.path / "profiles" / f"{profile.fingerprint}.json"
    foreign = {**json.loads(path.read_text()), "revision": "2"}
    for content in (json.dumps(foreign), path.read_text()[:100], ""):
        path.write_text(content)
        assert load_profile(tiny) is None


def test_the_router_gets_the_cheapest_first(words: RevisionFolder, tiny: RevisionFolder) -> None:
    """Variants are ordered by one row of the middle size class and carry what the manifest measured."""
    profile = profile_family(tiny)
    slow = profile.variants["small"].model_copy(update={"median_s": ((1.0, 2.0),), "tail_s": ((2.0, 4.0),)})
    profile = profile.model_copy(update={"variants": {**profile.variants, "small": slow}})
    family = to_router_family(tiny.manifest, profile, ["small", "big"])
    assert ["big", "small"] == [variant.name for variant in family.variants]
    assert (0.7, ((1.0, 2.0),), True) == (
        family.variants[1].quality,
        family.variants[1].latency.median_s,
        family.variants[1].batch_invariant,
    )
    assert ("tiny", "1", 8, (1,)) == (family.name, family.revision, family.max_batch, family.sizes)
    assert ["big"] == [variant.name for variant in to_router_family(tiny.manifest, profile, ["big"]).variants]
    assert (4, 8) == to_router_family(words.manifest, profile_family(words), ["sum"]).sizes


def slowed(profile: FamilyProfile, **factors: float) -> FamilyProfile:
    """The profile with stages that take exactly 1 s a row, times a factor; tails twice that."""

    def table(name: str, factor: float) -> VariantTable:
        one = profile.stages[name]
        median_s = tuple(tuple(factor * batch for batch in one.batches) for _ in one.median_s)
        tail_s = tuple(tuple(2 * seconds for seconds in row) for row in median_s)
        return one.model_copy(update={"median_s": median_s, "tail_s": tail_s})

    stages = {name.replace("_", "-"): factor for name, factor in factors.items()}
    return profile.model_copy(update={"stages": {name: table(name, factor) for name, factor in stages.items()}})


def test_a_staged_variant_is_its_chain(chained_words: RevisionFolder) -> None:
    """It takes the sum of its stages, goes on where another one ends, and the order follows the sums."""
    profile = slowed(profile_family(chained_words), words_0=1.0, words_1=3.0)
    names = ["sum", "other", "half"]
    family = to_router_family(chained_words.manifest, profile, names, staged=True)
    assert ["other", "half", "sum"] == [variant.name for variant in family.variants]
    other, half, whole = family.variants
    assert (("whole",), ("words-0",), ("words-0", "words-1")) == (other.stages, half.stages, whole.stages)
    assert ((1.0, 4.0, 16.0), (4.0, 16.0, 64.0)) == (half.latency.median_s[1], whole.latency.median_s[1])
    assert (8.0, 32.0, 128.0) == whole.latency.tail_s[0]
    assert (1, 0) == (family.first_stage(1, 2), family.first_stage(0, 2))
    assert sum(table.memory_bytes for table in profile.stages.values()) == whole.memory_bytes
    unstaged = to_router_family(chained_words.manifest, profile, names)
    assert {("whole",)} == {variant.stages for variant in unstaged.variants}


def test_a_chain_without_a_profile_is_run_whole(chained_words: RevisionFolder) -> None:
    """Where a stage was not measured, its variants are whole graphs; only batches that all stages have count."""
    profile = slowed(profile_family(chained_words), words_0=1.0, words_1=3.0)
    short = profile.stages["words-0"]
    short = short.model_copy(
        update={
            "batches": (1, 16),
            "median_s": tuple((row[0], row[2]) for row in short.median_s),
            "tail_s": tuple((row[0], row[2]) for row in short.tail_s),
        }
    )
    mixed = profile.model_copy(update={"stages": {**profile.stages, "words-0": short}})
    (whole,) = to_router_family(chained_words.manifest, mixed, ["sum"], staged=True).variants
    assert ((1, 16), (4.0, 64.0)) == (whole.latency.batches, whole.latency.median_s[0])
    bare = profile.model_copy(update={"stages": {"words-0": short}})
    family = to_router_family(chained_words.manifest, bare, ["sum", "half"], staged=True)
    assert {"sum": ("whole",), "half": ("words-0",)} == {variant.name: variant.stages for variant in family.variants}


def test_evidence_follows_the_order_of_the_family(tiny: RevisionFolder) -> None:
    """Whatever the order of the names given, the evidence is asked for in the family's own."""
    profile = profile_family(tiny)
    slow = profile.variants["small"].model_copy(update={"median_s": ((1.0, 2.0),), "tail_s": ((2.0, 4.0),)})
    profile = profile.model_copy(update={"variants": {**profile.variants, "small": slow}})
    asked: list[Sequence[str]] = []

    def evidence(names: Sequence[str]) -> Evidence | None:
        asked.append(names)
        return read_evidence(tiny, names)

    family = to_router_family(tiny.manifest, profile, ["small", "big"], evidence=evidence)
    assert [["big", "small"]] == asked
    assert family.evidence is not None
    assert (2, 10) == family.evidence.correct.shape
    assert to_router_family(tiny.manifest, profile, ["small", "big"]).evidence is None


def test_a_profile_without_stages_is_still_read(tiny: RevisionFolder) -> None:
    """Files from before stages were measured load, with none."""
    profile = profile_family(tiny)
    save_profile(tiny, profile)
    path = tiny.path / "profiles" / f"{profile.fingerprint}.json"
    older = {name: value for name, value in json.loads(path.read_text()).items() if name not in ("stages", "executors")}
    path.write_text(json.dumps(older))
    loaded = load_profile(tiny)
    assert loaded is not None
    assert ({}, None, profile.variants) == (loaded.stages, loaded.executors, loaded.variants)


def test_a_profile_must_be_rectangular(tiny: RevisionFolder) -> None:
    """A table that lacks a batch in one size class is not a profile."""
    fields = profile_family(tiny, ["big"]).model_dump()
    fields["variants"]["big"]["tail_s"] = ((0.1,),)
    with pytest.raises(ValueError, match="one row a size class"):
        FamilyProfile.model_validate(fields)


def test_the_fingerprint_tells_machines_apart() -> None:
    """The same machine has the same fingerprint, another number of threads another one; people can read it."""
    one, two = machine_fingerprint(1), machine_fingerprint(2)
    assert one == machine_fingerprint(1)
    assert one.digest != two.digest
    assert "onnxruntime" in one.description
    assert f"{available_cores():g} cores" in one.description


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, np.inf),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, np.inf),
        ({}, np.inf),
    ],
)
def test_quotas_of_control_groups_are_read(tmp_path: Path, files: dict[str, str], cores: float) -> None:
    """Both versions of control groups tell the quota; without one there is no bound."""
    from variants.fingerprint import _quota_cores

    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cores == _quota_cores(tmp_path)
