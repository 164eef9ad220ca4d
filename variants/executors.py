"""Do the cores serve more rows as slots of one thread each, or as one slot in which all threads work on one batch?

Slots waste nothing on dividing a batch, but share caches and memory bandwidth; which wins depends on the model and the
machine, so it is measured: in turns, with the collation and decoding that serve, all cores busy in both forms.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import numpy as np

from router.latency import LatencyModel
from variants.fingerprint import available_cores
from variants.preparation import Row, open_preparation
from variants.profiles import ExecutorCell, Executors, FamilyProfile, to_router_family
from variants.profiling import batch_work, rows_by_class
from variants.revision import RevisionFolder
from variants.session import SessionOptions, open_file
from variants.timing import Progress, Work

ROUNDS = 5
WINDOW_S = 0.1
"""Seconds that one form serves in one round."""
DRAWN_BATCHES = 16
"""Different batches that each thread goes through in turn."""


def compare_executors(
    folder: RevisionFolder,
    profile: FamilyProfile,
    progress: Progress | None = None,
    *,
    cores: int | None = None,
    window_s: float = WINDOW_S,
) -> Executors | None:
    """Compare both forms for the cheapest, the middle and the most accurate variant, alone and in economical batches.

    Of the profiled variants those that are loaded by default count, or all where none is. Rows are of the middle size
    class. `cores` defaults to those this process may use; with one there is nothing to compare: None. Each form
    serves for `window_s` at a time: some seconds in all. Raises `RepositoryError`, `ModelLoadError` as `profile_family`
    does.
    """
    cores = cores or max(1, int(available_cores()))
    if cores == 1:
        return None
    preparer = open_preparation(folder)
    rows = rows_by_class(folder, preparer)[len(folder.manifest.sizes) // 2]
    cells: list[ExecutorCell] = []
    chosen = _chosen(folder, profile)
    for done, (name, batch) in enumerate(chosen):
        variant = folder.manifest.variant(name)
        one, many = (
            batch_work(
                open_file(folder, variant.model, SessionOptions(threads=threads, slots=cores // threads)),
                preparer,
                variant.temperature,
            )
            for threads in (1, cores)
        )
        cells.append(_compare(name, batch, rows, [one] * cores, [many], window_s))
        if progress is not None:
            progress((done + 1) / len(chosen))
    return Executors(cores=cores, cells=tuple(cells))


def _chosen(folder: RevisionFolder, profile: FamilyProfile) -> list[tuple[str, int]]:
    """Return the variants and batches to compare on."""
    manifest = folder.manifest
    loaded = [variant.name for variant in manifest.variants if variant.load_by_default]
    names = [name for name in loaded if name in profile.variants] or list(profile.variants)
    family = to_router_family(manifest, profile, names)
    # Above the cheapest batch for a row, batches only add waiting; up to there they are what serving makes under load.
    economical = LatencyModel(family).economical_batch
    by_cost = range(len(family.variants))
    best = max(by_cost, key=lambda index: family.variants[index].quality)
    indices = sorted({0, best, len(by_cost) // 2})
    middle = len(manifest.sizes) // 2
    return [
        (family.variants[index].name, batch) for index in indices for batch in sorted({1, economical[index][middle]})
    ]


def _compare(
    name: str, batch: int, rows: Sequence[Row], slots: Sequence[Work], threads: Sequence[Work], window_s: float
) -> ExecutorCell:
    random = np.random.default_rng(0)
    batches = [[rows[row] for row in random.integers(0, len(rows), batch)] for _ in range(DRAWN_BATCHES)]
    for works in (slots, threads):
        rows_per_s(works, batches, 0.0)
    measured: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        # Whoever goes first may find a warmer or a quieter machine.
        if number % 2:
            by_threads, by_slots = rows_per_s(threads, batches, window_s), rows_per_s(slots, batches, window_s)
        else:
            by_slots, by_threads = rows_per_s(slots, batches, window_s), rows_per_s(threads, batches, window_s)
        measured.append((by_slots, by_threads))
    return ExecutorCell(
        variant=name,
        batch=batch,
        slots_rows_s=statistics.median(by_slots for by_slots, _ in measured),
        threads_rows_s=statistics.median(by_threads for _, by_threads in measured),
        ratios=tuple(by_slots / by_threads for by_slots, by_threads in measured),
    )


def rows_per_s(
    works: Sequence[Work],
    batches: Sequence[Sequence[Row]],
    window_s: float,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Run every work in a thread of its own, all at the same time, for at least one batch and `window_s` seconds.

    Return the rows a second of all together.
    """
    together = threading.Barrier(len(works))

    def serve(work: Work) -> float:
        together.wait()
        begun_s = clock()
        rows = 0
        for batch in cycle(batches):
            work(batch)
            rows += len(batch)
            passed_s = clock() - begun_s
            if passed_s >= window_s:
                break
        return rows / passed_s

    with ThreadPoolExecutor(len(works)) as pool:
        return sum(pool.map(serve, works))
