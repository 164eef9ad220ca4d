"""What serving a variant takes beside time: memory, loading, seconds of the processor.

Each variant is measured in a process of its own, started for it and gone afterwards: resident memory of one that has
opened other models before tells little, and the most that it ever had tells nothing. The process opens the model as
serving does and answers the largest batches that the family allows.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from variants.manifest import MANIFEST_FILE, FamilyManifest
from variants.measurements import ServingFootprint
from variants.preparation import Row, open_preparation
from variants.profiling import batch_work, rows_by_class
from variants.resident import forget_the_peak, peak_bytes
from variants.revision import RevisionFolder
from variants.session import SessionOptions, open_file
from variants.timing import Work

BATCH = 16
ROUNDS = 5
"""Of largest batches: in the first few, how much memory the allocator holds on to differs from run to run."""
ENOUGH_S = 0.2
"""Seconds of answering behind a figure of the processor's seconds."""
LIMIT_S = 300.0


class FootprintError(Exception):
    """The process that measures a variant failed. The message is one line."""


def measure_footprint(folder: RevisionFolder, variant: str, options: SessionOptions | None = None) -> ServingFootprint:
    """Serve a variant in a process of its own and return what that took. Raises `FootprintError`."""
    options = options or SessionOptions()
    command = [sys.executable, "-m", __name__, str(folder.path), variant, str(options.threads), str(int(options.arena))]
    # The process imports this package from where this one did, wherever it was started.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path}
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=environment, check=False)
    except subprocess.TimeoutExpired as error:
        raise FootprintError(f"{variant}: its footprint took longer than {LIMIT_S:.0f} s") from error
    if ended.returncode != 0:
        said = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
        raise FootprintError(f"{variant}: its footprint could not be measured: {said[0][:300]}")
    return ServingFootprint.model_validate_json(ended.stdout)


def serve_alone(folder: RevisionFolder, variant: str, options: SessionOptions) -> ServingFootprint:
    """Measure this process while it opens and serves the variant: for a process that has opened no model before."""
    preparer = open_preparation(folder)
    classes = rows_by_class(folder, preparer)
    manifest = folder.manifest
    large, middle = classes[-1], classes[len(classes) // 2]
    before_bytes = psutil.Process().memory_info().rss
    forget_the_peak()
    session = open_file(folder, manifest.variant(variant).model, options)
    loaded_bytes = psutil.Process().memory_info().rss
    work = batch_work(session, preparer, manifest.variant(variant).temperature)
    for _ in range(ROUNDS):
        work(_batch(large, manifest.max_batch))
    most_bytes = max(peak_bytes(), loaded_bytes)
    batch = min(BATCH, manifest.max_batch)
    return ServingFootprint(
        loaded_bytes=max(0, loaded_bytes - before_bytes),
        peak_bytes=max(0, most_bytes - before_bytes),
        process_peak_bytes=most_bytes,
        largest_batch=manifest.max_batch,
        load_s=session.load_s,
        cpu_s_alone=_cpu_s_of_a_row(work, middle, 1),
        cpu_s_batched=_cpu_s_of_a_row(work, middle, batch),
        batch=batch,
    )


def _cpu_s_of_a_row(
    work: Work, rows: Sequence[Row], batch: int, clock: Callable[[], float] = time.process_time
) -> float:
    """Return the process's seconds of the processor per row, all its threads together."""
    answered, begun_s = 0, clock()
    while True:
        work(_batch(rows, batch, answered))
        answered += batch
        if (passed_s := clock() - begun_s) >= ENOUGH_S:
            return passed_s / answered


def _batch(rows: Sequence[Row], batch: int, start: int = 0) -> list[Row]:
    return [rows[(start + number) % len(rows)] for number in range(batch)]


def main(arguments: Sequence[str]) -> None:
    """Print the footprint of `FOLDER VARIANT THREADS ARENA` as JSON."""
    path, variant, threads, arena = arguments
    manifest = FamilyManifest.model_validate_json((Path(path) / MANIFEST_FILE).read_bytes())
    options = SessionOptions(threads=int(threads), arena=bool(int(arena)))
    print(serve_alone(RevisionFolder(Path(path), manifest), variant, options).model_dump_json())  # noqa: T201 - to its parent


if __name__ == "__main__":
    main(sys.argv[1:])
