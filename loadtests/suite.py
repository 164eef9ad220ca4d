"""The suite of traces that policies are compared on: rates relative to a machine's capacity, SLOs to its slowest model.

So the same suite asks the same of a quick family and of a slow one, live and simulated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from loadtests.machine import Machine
from loadtests.samples import Samples
from loadtests.traces import Seconds, Shape, TraceError, arrivals, recorded
from loadtests.workload import SloMix, Workload
from router.family import Family
from router.latency import LatencyModel

Yardstick = Literal["fastest", "middle", "best"]
RECORDED = "csv"

_FIVE = ((5.0, 1.0),)
_MIXED = ((2.0, 1 / 3), (5.0, 1 / 3), (20.0, 1 / 3))
_LONGEST_BATCH = 0.5
"""Of the common SLO: longer batches do not count where the capacity is measured."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One kind of load.

    The mean rate is `load` times the capacity of the `of` variant on the ladder. `slos` has pairs of an SLO, in units
    of what the most accurate variant is planned to take for one row of the largest size, and its weight. `live`: also
    part of the shorter suite. `goodput`: sustained overload, judged by its goodput and left out of suite means.
    """

    name: str
    process: str
    load: float
    of: Yardstick = "fastest"
    shape: Shape = field(default_factory=Shape)
    slos: tuple[tuple[float, float], ...] = _FIVE
    live: bool = False
    goodput: bool = False
    path: Path | None = None

    @property
    def calm(self) -> bool:
        """Whether next to every request should be answered in time: steady, below capacity, no tight SLO."""
        steady = self.process == "poisson" or (self.process == "gamma" and self.shape.cv2 <= 2.0)
        return steady and self.of == "fastest" and self.load <= 0.8 and min(self.slos)[0] >= 5.0


SUITE = (
    Trace("poisson middle 0.3", "poisson", 0.3, "middle"),
    Trace("poisson middle 0.7", "poisson", 0.7, "middle", live=True),
    Trace("poisson middle 1.0", "poisson", 1.0, "middle"),
    Trace("poisson middle 1.2", "poisson", 1.2, "middle", live=True),
    Trace("poisson 0.6", "poisson", 0.6, live=True),
    Trace("poisson 0.8", "poisson", 0.8, live=True),
    Trace("poisson 0.95", "poisson", 0.95),
    Trace("poisson 1.2", "poisson", 1.2),
    Trace("gamma CV2 2", "gamma", 0.6, shape=Shape(cv2=2.0)),
    Trace("gamma CV2 4", "gamma", 0.5, shape=Shape(cv2=4.0), live=True),
    Trace("gamma CV2 8", "gamma", 0.5, shape=Shape(cv2=8.0), live=True),
    Trace("burst CV2 4", "burst", 0.6, shape=Shape(cv2=4.0)),
    Trace("burst CV2 8", "burst", 0.6, shape=Shape(cv2=8.0), live=True),
    Trace("ramp", "ramp", 0.55, shape=Shape(peak_ratio=4.5), live=True),
    Trace("on/off 1 s", "onoff", 0.625, shape=Shape(peak_ratio=7.33, period_s=2.0), live=True),
    Trace("on/off 200 ms", "onoff", 0.725, shape=Shape(peak_ratio=8.67, period_s=0.4)),
    Trace("diurnal", "diurnal", 0.5, shape=Shape(peak_ratio=5.0), live=True),
    Trace("mixed SLOs", "poisson", 0.6, slos=_MIXED, live=True),
    Trace("mixed SLOs, CV2 4", "gamma", 0.5, shape=Shape(cv2=4.0), slos=_MIXED),
    Trace("overload 1.1", "poisson", 1.1, goodput=True),
    Trace("overload 1.5", "poisson", 1.5, goodput=True),
    Trace("overload 2", "poisson", 2.0, goodput=True, live=True),
    Trace("overload 3", "poisson", 3.0, goodput=True),
)
QUICK = ("poisson middle 0.7", "gamma CV2 4", "on/off 1 s", "mixed SLOs", "overload 2")
"""Names of the traces of the shortest suite: one of each kind."""


class Yardsticks(NamedTuple):
    """What rates and SLOs are relative to: requests per second by yardstick, and `slo_s`, one slow row in seconds."""

    per_s: dict[Yardstick, float]
    slo_s: float


def traces_named(names: Sequence[str]) -> tuple[Trace, ...]:
    """Traces of the suite in its order; `live`, `quick` and `all` name whole suites. Raises `TraceError`."""
    wanted: set[str] = set()
    by_name = {trace.name: trace for trace in SUITE}
    for name in names:
        if name == "live":
            wanted |= {trace.name for trace in SUITE if trace.live}
        elif name == "quick":
            wanted |= set(QUICK)
        elif name == "all":
            wanted |= set(by_name)
        elif name in by_name:
            wanted.add(name)
        else:
            raise TraceError(f"traces: expected all, live, quick or one of {', '.join(by_name)}; got {name!r}")
    return tuple(trace for trace in SUITE if trace.name in wanted)


def recorded_trace(path: Path, load: float) -> Trace:
    """A recording, rescaled to a mean load of the fastest variant's capacity; each seed plays another part of it."""
    return Trace(path.stem, RECORDED, load, live=True, path=path)


def measure(family: Family, samples: Samples, machine: Machine) -> Yardsticks:
    """Capacities of a machine for the samples' mix of sizes, each variant in the batches in which it is quickest."""
    model = LatencyModel(family)
    ladder = family.ladder
    slo_s = model.planned_s(ladder[-1], 1, len(family.sizes) - 1)
    rungs: dict[Yardstick, int] = {"fastest": ladder[0], "middle": ladder[len(ladder) // 2], "best": ladder[-1]}
    longest_s = _LONGEST_BATCH * _FIVE[0][0] * slo_s
    return Yardsticks({name: _per_s(family, samples, machine, rung, longest_s) for name, rung in rungs.items()}, slo_s)


def _per_s(family: Family, samples: Samples, machine: Machine, variant: int, longest_s: float) -> float:
    """Rows per second, all slots busy. Noise is log-normal, whose mean is above its median."""
    model = LatencyModel(family)
    slower = machine.slowdown * math.exp(machine.noise**2 / 2.0)
    slower *= 1.0 + machine.stragglers * (machine.straggler_factor - 1.0)
    row_s = []
    for size_class in range(len(family.sizes)):
        seconds = [model.median_s(variant, batch, size_class) * slower for batch in range(1, family.max_batch + 1)]
        fitting = [(s + machine.batch_s) / (index + 1) for index, s in enumerate(seconds) if s <= longest_s]
        row_s.append(min(fitting, default=seconds[0] + machine.batch_s))
    mean_s = float(np.array(row_s)[samples.size_class].mean())
    return 1.0 / max((mean_s + machine.interference * machine.request_s) / machine.slots, machine.request_s)


def draw(trace: Trace, yardsticks: Yardsticks, duration_s: float, seed: int, samples: int) -> Workload:
    """The workload of a trace and a seed: all policies get the same. Raises `TraceError` where it cannot be drawn."""
    rng = np.random.default_rng([seed, *trace.name.encode()])
    rate = trace.load * yardsticks.per_s[trace.of]
    if trace.path is not None:
        arrival_s = _part(recorded(trace.path, rate), duration_s, rng)
    else:
        arrival_s = arrivals(trace.process, rate, duration_s, trace.shape, rng)
    slo_ms = [f"{factor * yardsticks.slo_s * 1000.0:.3f}:{weight:.6f}" for factor, weight in trace.slos]
    mix = SloMix.parse(",".join(slo_ms))
    return Workload.draw(arrival_s, mix, samples, rng, f"{trace.name}: {rate:.0f}/s, SLO {mix.said}, seed {seed}")


def _part(times_s: Seconds, duration_s: float, rng: np.random.Generator) -> Seconds:
    """A random stretch of a recording, the whole of a shorter one; starts at 0."""
    start_s = rng.uniform(0.0, max(0.0, float(times_s[-1]) - duration_s))
    part = times_s[(times_s >= start_s) & (times_s < start_s + duration_s)] - start_s
    if len(part) == 0:
        raise TraceError("trace: a stretch of the recording has no arrivals; raise the duration")
    return part
