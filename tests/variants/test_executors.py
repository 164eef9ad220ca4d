"""Slots of one thread against one slot of all threads: both really run, and the recommendation follows the numbers."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from variants.executors import compare_executors, rows_per_s
from variants.preparation import Row
from variants.profiles import ExecutorCell, Executors, load_profile, save_profile
from variants.profiling import profile_family
from variants.repository import RevisionFolder

ROWS: list[Row] = [np.zeros(3)] * 4


def executors(*cells: tuple[float, ...]) -> Executors:
    """Four cores, one cell for each tuple of the rounds' ratios."""
    return Executors(
        cores=4,
        cells=tuple(
            ExecutorCell(variant="any", batch=1, slots_rows_s=1.0, threads_rows_s=1.0, ratios=ratios)
            for ratios in cells
        ),
    )


@pytest.mark.parametrize(
    ("cells", "recommended"),
    [
        ([(1.2, 1.3)], (4, 1)),
        ([(0.5, 0.5), (8.0, 8.0)], (4, 1)),
        ([(0.9, 0.8), (0.9, 0.9)], (1, 4)),
        ([(0.9, 1.1), (0.9, 1.0)], (4, 1)),
    ],
)
def test_one_slot_must_have_been_better_in_every_round(
    cells: list[tuple[float, ...]], recommended: tuple[int, int]
) -> None:
    """Slots are recommended unless the geometric mean over the cells speaks against them each time."""
    found = executors(*cells)
    assert recommended == (found.recommended_slots, found.recommended_threads)


def test_ratios_are_averaged_geometrically() -> None:
    """Half as many and twice as many cancel out, one odd round does not count; the spread is that of the rounds."""
    assert pytest.approx(1.0) == executors((0.5, 0.5), (2.0, 2.0)).ratio
    assert pytest.approx(2.0) == executors((2.0, 0.01, 3.0)).ratio
    assert pytest.approx((0.5, 2.0)) == executors((0.5, 2.0), (0.5, 2.0)).spread
    assert pytest.approx((1.0, 1.0)) == executors((0.5, 2.0), (2.0, 0.5)).spread


def test_works_run_at_the_same_time() -> None:
    """Two works that wait for each other both get on, and the rows of both count."""
    met = threading.Barrier(2)
    seconds = iter([0.0, 0.0, 0.5, 0.5])

    def work(rows: Sequence[Row]) -> None:
        met.wait(10)

    assert 16.0 == rows_per_s([work, work], [ROWS], 0.0, lambda: next(seconds))


def test_a_window_is_filled_with_batches() -> None:
    """A work runs batch after batch until its time is up."""
    seconds = iter([0.0, 1.0, 2.0, 3.0, 4.0])
    ran: list[int] = []
    assert 8 / 3 == rows_per_s([lambda rows: ran.append(len(rows))], [ROWS, ROWS[:1], ROWS[:3]], 3.0, seconds.__next__)
    assert [4, 1, 3] == ran


def test_a_real_family_is_compared_and_the_result_is_kept(tiny: RevisionFolder) -> None:
    """Each cell has its rounds and positive rates; a later profile without a comparison keeps the older one."""
    profile = profile_family(tiny)
    fractions: list[float] = []
    found = compare_executors(tiny, profile, fractions.append, cores=2, window_s=0.001)
    assert found is not None
    assert {"small", "big"} == {cell.variant for cell in found.cells}
    assert 1 == min(cell.batch for cell in found.cells)
    assert 1.0 == fractions[-1]
    save_profile(tiny, profile.model_copy(update={"executors": found}))
    save_profile(tiny, profile)
    loaded = load_profile(tiny)
    assert loaded is not None
    assert found == loaded.executors


def test_one_core_leaves_nothing_to_compare(tiny: RevisionFolder) -> None:
    """There is no recommendation where both forms are the same."""
    assert compare_executors(tiny, profile_family(tiny), cores=1) is None
