"""Few noisy measurements: who is measured how often and in which order, and what is believed of the result."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from variants.preparation import Row
from variants.timing import (
    Cell,
    Progress,
    TimingPlan,
    Work,
    elapsed_s,
    isotonic,
    measure,
    percentile_99,
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

    def measure(
        self,
        progress: Progress = lambda _: None,
        rows: Sequence[Row] = (np.arange(3),) * 4,
        prepares: Collection[str] = (),
    ) -> dict[Cell, list[float]]:
        return measure(
            [{name: work} for name, work in self.works.items()],
            [rows],
            [3],
            PLAN,
            progress,
            self.stopwatch,
            self.clock,
            prepares=prepares,
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


@pytest.mark.parametrize(("prepares", "slowest_s", "samples"), [(["shaped"], 0.009, 10), ([], 0.109, 2)])
def test_what_a_runtime_prepares_for_a_shape_is_not_measured(
    prepares: list[str], slowest_s: float, samples: int
) -> None:
    """A model that takes long for the first batch of each length is timed with a later one, and as often as others."""
    machine = ScriptedMachine(steady=(0.009, 0.0), shaped=(0.009, 0.0))
    seen: set[int] = set()
    run = machine.works["shaped"]

    def shaped(rows: Sequence[Row]) -> None:
        longest = max(len(row) for row in rows)
        machine.now_s += 0.0 if longest in seen else 0.1
        seen.add(longest)
        run(rows)

    machine.works["shaped"] = shaped
    found = machine.measure(rows=[np.arange(length) for length in range(1, 9)], prepares=prepares)
    alone = found[Cell("shaped", 0, 1)]
    assert pytest.approx(slowest_s) == max(alone)
    assert (samples, 10) == (len(alone), len(found[Cell("steady", 0, 1)]))


def test_measuring_is_brief_when_the_time_is_spent() -> None:
    """When everything is slower than planned, what is left gets its least number of samples."""
    found = ScriptedMachine(slow=(3.0, 0.0), quick=(0.006, 0.0)).measure()
    assert {2} == {len(seconds) for seconds in found.values()}


def test_cheap_cells_keep_some_samples_when_the_time_is_spent() -> None:
    """A tenth of a cell's seconds still buys a cheap variant more than the least."""
    found = ScriptedMachine(slow=(3.0, 0.0), quick=(0.0019, 0.0)).measure()
    assert (2, 5) == (len(found[Cell("slow", 0, 4)]), len(found[Cell("quick", 0, 4)]))


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
    """A cell of two samples takes the smaller and the family's spread, one of a hundred its own 95th percentile."""
    many = [1.0] * 90 + [2.0] * 10
    assert ([1.0, 4.0], [2.0, 6.0]) == quantiles([many, [9.0, 4.0]], spreads=[9.0, 1.5])
    assert 2.0 == usual_spread([many, [7.0, 8.0]])
    assert 1.0 == usual_spread([[7.0, 8.0]])


@pytest.mark.parametrize(("samples", "expected"), [(99, None), (100, 0.0098), (1000, 0.0989)])
def test_a_99th_percentile_needs_a_hundred_samples(samples: int, expected: float | None) -> None:
    """With fewer there is none, rather than the largest of few; it is never below the 95th."""
    cell = [milliseconds / 10_000 for milliseconds in range(samples)]
    found = percentile_99(cell, tail_s=0.0)
    assert (None if expected is None else pytest.approx(expected, abs=1e-4)) == found
    assert (None if expected is None else 7.0) == percentile_99(cell, tail_s=7.0)
