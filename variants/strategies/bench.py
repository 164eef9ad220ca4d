"""What a network costs and how good it is, measured as it would be served: exported, in a session, row by row."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from variants.frontier import ParetoPoint
from variants.session import Session, open_session
from variants.timing import Cell, TimingPlan, Work, measure
from variants.training.export import export_model
from variants.training.model import Model, accuracy
from variants.training.rows import Rows

Footprint = Literal["latency", "size"]
"""Seconds that one row takes, or bytes of the exported file."""

ROWS_TIMED = 64
TIMING = TimingPlan(batches=(1,), least=30, most=400, cell_s=0.05, total_s=60.0)


@dataclass(frozen=True, slots=True)
class Cost:
    """The median of the seconds that one row takes on one core of this machine, and the bytes of the exported file."""

    latency_s: float
    size_bytes: int

    def of(self, footprint: Footprint) -> float:
        """Return the chosen one."""
        return self.latency_s if footprint == "latency" else float(self.size_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """Measures networks on `rows`, of which the first are those that latency is measured on, one at a time."""

    rows: Rows
    timing: TimingPlan = TIMING

    def costs(self, models: Mapping[str, Model]) -> dict[str, Cost]:
        """Return the cost of each network; all are measured in turns, so that noise hits them alike."""
        with tempfile.TemporaryDirectory(prefix="pareto-bench-") as folder:
            files = {name: Path(folder) / f"{number}.onnx" for number, name in enumerate(models)}
            for name, model in models.items():
                export_model(model, files[name])
            sizes = {name: path.stat().st_size for name, path in files.items()}
            works: list[Mapping[str, Work]] = [
                {name: partial(_run, open_session(files[name]), tuple(model.example))} for name, model in models.items()
            ]
            few = range(min(ROWS_TIMED, len(self.rows)))
            alone: list[Any] = [
                [values.numpy() for values in self.rows.take(slice(row, row + 1)).inputs] for row in few
            ]
            seconds = measure(works, [alone], (1,), self.timing, lambda _: None)
        return {name: Cost(float(np.median(seconds[Cell(name, 0, 1)])), sizes[name]) for name in models}

    def points(self, models: Mapping[str, Model]) -> dict[str, ParetoPoint]:
        """Return each network as a point: accuracy on the rows with its standard error, and its cost."""
        costs = self.costs(models)
        points = {}
        for name, model in models.items():
            quality = accuracy(model.module, self.rows)
            error = math.sqrt(quality * (1 - quality) / len(self.rows))
            points[name] = ParetoPoint(name, quality, costs[name].latency_s, costs[name].size_bytes, error)
        return points


def _run(session: Session, names: tuple[str, ...], rows: Any) -> Any:
    inputs = (np.concatenate(values) for values in zip(*rows, strict=True))
    return session.run(dict(zip(names, inputs, strict=True)))
