"""How fast a ported family's runtimes are beside onnxruntime, with nothing else running (`make bench-runtimes`).

The variants take turns in every round, in an order drawn anew: each answers the same batches of the family's samples,
of the middle size class, for a window of time on one thread. A figure is what the original took in a round over what
the port took in the same one: the median over rounds, and what the middle 80 % of them lie between. With `--against
NAME` it is what that variant took, and originals are compared with it, too: int8 with float32, say. Batches are
collated and decoded as in serving. On a machine whose speed changes, many rounds of short windows say more.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from variants.manifest import FamilyManifest
from variants.preparation import open_preparation
from variants.profiling import batch_work, rows_by_class
from variants.repository import Repository
from variants.runtimes.defaults import unusable
from variants.session import open_file

BATCHES = (1, 4, 16)
DRAWN = 16
"""Different batches that each variant goes through."""


class Cell(NamedTuple):
    """One port and batch: medians of milliseconds by its reference and by the port, the rounds' ratios."""

    port: str
    batch: int
    reference_ms: float
    port_ms: float
    ratios: tuple[float, ...]


def pairs_of(manifest: FamilyManifest, wanted: Sequence[str], against: str = "") -> dict[str, str]:
    """Return by port what it is a port of, for ports of the wanted variants (all if none) that can be opened here.

    With `against`, return it for all of them, and for the wanted variants themselves.
    """
    missing = unusable(manifest)
    if against:
        return {
            variant.name: against
            for variant in manifest.variants
            if variant.name not in {*missing, against}
            and (not wanted or (variant.parity.reference if variant.parity else variant.name) in wanted)
        }
    return {
        variant.name: variant.parity.reference
        for variant in manifest.variants
        if variant.parity is not None
        and variant.name not in missing
        and (not wanted or variant.parity.reference in wanted)
    }


def cells_of(pairs: Mapping[str, str], batch: int, rounds: Sequence[Mapping[str, float]]) -> list[Cell]:
    """Return a cell for each port; `rounds` have the seconds of a batch by variant."""
    return [
        Cell(
            port,
            batch,
            1e3 * statistics.median(taken_s[reference] for taken_s in rounds),
            1e3 * statistics.median(taken_s[port] for taken_s in rounds),
            tuple(taken_s[reference] / taken_s[port] for taken_s in rounds),
        )
        for port, reference in pairs.items()
    ]


def batch_s(work: Callable[[Any], object], batches: Sequence[object], window_s: float) -> float:
    """Return the seconds that a batch takes, all batches answered in turn until the window is over."""
    begun_s, done = time.perf_counter(), 0
    while True:
        work(batches[done % len(batches)])
        done += 1
        if (passed_s := time.perf_counter() - begun_s) >= window_s:
            return passed_s / done


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="sentiment")
    parser.add_argument("--variants", default="", help="NAME,... of originals; default: all that have ports")
    parser.add_argument("--against", default="", help="NAME of what all are compared with; default: its original each")
    parser.add_argument("--batches", type=_rows, default=BATCHES, help="rows, up to the family's largest batch: 1,8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--window", type=float, default=0.2, help="seconds that a variant answers in a round")
    given = parser.parse_args()
    folder = Repository(given.models).open(given.family)
    manifest, preparer = folder.manifest, open_preparation(folder)
    known = [variant.name for variant in manifest.variants]
    if given.against and given.against not in known:
        parser.exit(1, f"{given.family}: --against {given.against}: no such variant, known are {', '.join(known)}\n")
    pairs = pairs_of(manifest, [name for name in given.variants.split(",") if name], given.against)
    if not pairs:
        parser.exit(1, f"{given.family}: no ports of these: `pareto build {given.family} --runtimes all`\n")
    names = sorted({*pairs, *pairs.values()})
    works = {
        name: batch_work(open_file(folder, manifest.variant(name).model), preparer, manifest.variant(name).temperature)
        for name in names
    }
    rows = rows_by_class(folder, preparer)[len(manifest.sizes) // 2]
    random = np.random.default_rng(0)
    cells: list[Cell] = []
    for batch in (size for size in given.batches if size <= manifest.max_batch):
        batches = [[rows[row] for row in random.integers(0, len(rows), batch)] for _ in range(DRAWN)]
        for work in works.values():
            for one in batches:
                work(one)
        rounds = [
            {names[at]: batch_s(works[names[at]], batches, given.window) for at in random.permutation(len(names))}
            for _ in range(given.rounds)
        ]
        cells += cells_of(pairs, batch, rounds)
    _print(cells, f"{given.family}, revision {manifest.revision}, {given.rounds} rounds")


def _rows(text: str) -> tuple[int, ...]:
    sizes = [int(size) if size.isdecimal() else 0 for size in text.split(",")]
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers from 1 on: 1,4,16")
    return tuple(sizes)


def _print(cells: Sequence[Cell], title: str) -> None:
    table = Table("variant", "rows", "reference ms", "its ms", "times as fast", "10 %", "90 %", title=title)
    for cell in sorted(cells):
        ratios = np.quantile(cell.ratios, (0.5, 0.1, 0.9))
        table.add_row(
            cell.port,
            str(cell.batch),
            f"{cell.reference_ms:.3g}",
            f"{cell.port_ms:.3g}",
            *(f"{ratio:.2f}" for ratio in ratios),
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
