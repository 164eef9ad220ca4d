"""A live run as one call: the sender in a process of its own, its score read back."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from loadtests.calibration import Pinned
from loadtests.outcomes import Results
from loadtests.report import read_score
from loadtests.scoring import Score
from loadtests.servers import ROOT, Server, pinned
from loadtests.workload import Workload

ATTEMPTS = 3
"""Runs until one is valid: a neighbour's burst should not cost a benchmark."""


class LiveRunError(Exception):
    """A live run gave no score. The message is one line."""


def run_live(
    url: str, models: Path, family: str, workload: Workload, cores: Sequence[int] = (), variant: str | None = None
) -> Score:
    """Send the workload to the server at `url` from a process on these cores; `variant` pins one.

    The score says itself whether it is valid. Raises `LiveRunError` where there is none.
    """
    return run_live_results(url, models, family, workload, cores, variant)[0]


def run_live_results(
    url: str, models: Path, family: str, workload: Workload, cores: Sequence[int] = (), variant: str | None = None
) -> tuple[Score, Results]:
    """As `run_live`, with what became of each request."""
    with tempfile.TemporaryDirectory() as folder:
        report, trace, answers = (Path(folder, name) for name in ("score.json", "workload.npz", "answers.npz"))
        workload.save(trace)
        sender = (sys.executable, "-m", "loadtests.sender", "--url", url)
        options = ("--workload", str(trace), "--report", str(report), "--answers", str(answers))
        of = ("--models", str(models.resolve()), "--family", family, *(("--variant", variant) if variant else ()))
        with pinned(cores):
            done = subprocess.run((*sender, *options, *of), cwd=ROOT, capture_output=True, text=True, check=False)
        try:
            return read_score(report), Results.load(answers)
        except (OSError, KeyError, ValueError):
            said = [line for line in done.stderr.splitlines() if line.strip()]
            why = said[-1] if said else "no message"
            raise LiveRunError(f"no score from the sender (exit code {done.returncode}): {why}") from None


def run_pinned(
    server: Server,
    models: Path,
    family: str,
    workload: Workload,
    cores: Sequence[int],
    variant: str,
    *,
    routed: bool = False,
) -> Pinned:
    """A run for calibration: all requests pinned to one variant. Raises `LiveRunError` where none is valid.

    With `routed` the server's policy is known to answer with that variant: only what is routed is refused undecoded.
    """
    for _ in range(2 * ATTEMPTS):
        server.check()
        loop_s = server.loop_s()
        live, results = run_live_results(server.url, models, family, workload, cores, None if routed else variant)
        if live.valid:
            ways_s = results.latency_s - results.total_s
            return Pinned(variant, workload, live, server.loop_s() - loop_s, ways_s[np.isfinite(ways_s)])
    raise LiveRunError(f"this machine is too busy to calibrate on: {'; '.join(live.faults)}")
