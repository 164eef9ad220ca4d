"""What a family takes in memory whose smallest variant is loaded, and what of it is the tokenizer that copies share.

`python -m loadtests.cold_bytes [--models models] [--family sentiment] [--families 12]` opens copies of a family one
after the other, as a gateway with a memory budget does, and reads the process's resident memory after each: once with
tokenizers shared, once with one for each family, each in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

import service.lazy_preparer
from loadtests.cold_workload import family_names, write_copies
from service.memory import resident_bytes
from service.piecewise import PiecewiseFamily
from variants.preparation import open_preparation
from variants.repository import Repository, RepositoryError
from variants.resident import give_back
from variants.session import SessionOptions

MB = 1e6


def grown(models: Path, family: str, count: int, *, shared: bool) -> list[float]:
    """Bytes by which memory grew with each copy but the first, which brings what all need."""
    if not shared:
        setattr(service.lazy_preparer, "open_shared", open_preparation)  # noqa: B010 - a name of that module's own
    with tempfile.TemporaryDirectory() as folder:
        write_copies(Repository(models), family, Path(folder), names := family_names(count))
        repository = Repository(Path(folder))
        pieces = [
            PiecewiseFamily(repository, name, SessionOptions(threads=1), None, stages="off", cascades=False)
            for name in names
        ]
        after = []
        for piece in pieces:
            variant = piece.loaded.family.variants[next(iter(piece.loadable()))].name
            piece.hold(variant, piece.open(variant))
            give_back()
            after.append(resident_bytes())
    return [later - before for before, later in pairwise(after)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print. Ends with one line where the family cannot be read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--family", default="sentiment")
    parser.add_argument("--families", type=int, default=12, help="copies, at least 3")
    options = parser.parse_args(arguments)
    table = Table("tokenizers", "MB a family", "least", "most")
    try:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            for shared in (False, True):
                given = (options.models, options.family, options.families)
                bytes_each = pool.apply(grown, given, {"shared": shared})
                values = [statistics.fmean(bytes_each), min(bytes_each), max(bytes_each)]
                table.add_row("shared" if shared else "own", *(f"{value / MB:.1f}" for value in values))
    except (RepositoryError, OSError) as error:
        sys.exit(f"cold_bytes: {error}")
    Console().print(table)


if __name__ == "__main__":
    main()
