"""The demo's day: its traffic, what became of it so far, and what one fixed variant would have made of it.

A day of traffic is pressed into a few minutes: a sine from night to noon and back, and in the afternoon a burst. The
gateway is judged live, on labelled rows. Nobody can send the same arrivals to every fixed variant as well, so those are
simulated (`loadtests.simulator`) with this machine's profile, and so is the gateway once more, for the like of it.
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.outcomes import Fate, Results
from loadtests.samples import Samples
from loadtests.sender import Sender, read_answer
from loadtests.traces import Shape, arrivals
from loadtests.whatif import Setup, predict
from loadtests.workload import SloMix, Workload
from variants.fingerprint import available_cores

NIGHT_TO_NOON = 7.0
NOON, BURST = 0.8, 2.2
"""Rates at noon and in the burst, as shares of what the most accurate variant alone could answer: at noon it just about
could, in the burst it could not."""
BURST_AT, BURST_LASTS = 0.68, 0.09
"""When the burst comes and how long it lasts, as shares of the day."""
FELL_BEHIND = 0.1
"""How far the live attainment may be below the simulated twin's, as a share of all arrivals, before that is said."""
LOOK_EVERY_S = 0.2
"""How soon a simulation that nobody wants any more is given up."""
MOST_PER_S = 1200.0
"""Whatever the models could do: generator and event loop share the machine with them."""
SLO_SHARES = ((0.4, 0.3), (1.0, 0.5), (3.0, 0.2))
"""SLOs as multiples of the family's own, and the share of requests that has each."""


def slo_mix(slo_s: float) -> SloMix:
    """What the requests of the day want, around the family's own SLO."""
    return SloMix(tuple(slo_s * part for part, _ in SLO_SHARES), tuple(share for _, share in SLO_SHARES))


def noon_rate(setup: Setup) -> float:
    """Requests per second at noon: `NOON` of what the best variant does in economical batches on all slots."""
    family = setup.family
    table = family.variants[family.ladder[-1]].latency
    middle = len(family.sizes) // 2
    row_s = min(s / batch for batch, s in zip(table.batches, table.median_s[middle], strict=True))
    return min(NOON * setup.machine.slots / row_s, MOST_PER_S * NOON / BURST)


def day(setup: Setup, duration_s: float, seed: int = 1, rate: float | None = None) -> Workload:
    """The workload of the demo. `rate` per second at noon, by default `noon_rate`."""
    rng = np.random.default_rng(seed)
    noon = rate or noon_rate(setup)
    mean = noon * (1.0 + NIGHT_TO_NOON) / (2.0 * NIGHT_TO_NOON)
    base_s = arrivals("diurnal", mean, duration_s, Shape(peak_ratio=NIGHT_TO_NOON), rng)
    burst_s = arrivals("poisson", noon * BURST / NOON - noon / 2.0, BURST_LASTS * duration_s, Shape(), rng)
    arrival_s = np.sort(np.concatenate((base_s, BURST_AT * duration_s + burst_s)))
    mix = slo_mix(setup.default_slo_s)
    return Workload.draw(arrival_s, mix, len(setup.samples), rng, f"a day in {duration_s:g} s, SLO {mix.said}")


@dataclass(frozen=True, slots=True)
class Tallied:
    """Requests by the second in which they were due, int64 [seconds]: answered in time, and correctly in time."""

    correct: NDArray[np.int64]
    in_time: NDArray[np.int64]

    def until(self, second: int) -> dict[str, list[int]]:
        """The first seconds, for JSON."""
        return {"correct": self.correct[:second].tolist(), "in_time": self.in_time[:second].tolist()}


def tallied(workload: Workload, label: NDArray[np.int64], results: Results, seconds: int) -> Tallied:
    """Count results by second; `label` int64 [m] has the true labels of the samples."""
    in_time = (results.fate == Fate.ANSWERED) & (results.latency_s <= workload.slo_s)
    correct = in_time & (results.label == label[workload.sample])
    second = np.minimum(workload.arrival_s.astype(np.int64), seconds - 1)
    return Tallied(
        np.bincount(second[correct], minlength=seconds).astype(np.int64),
        np.bincount(second[in_time], minlength=seconds).astype(np.int64),
    )


def lower_rate(workload: Workload, twin: Tallied, live: Tallied, noon: float) -> float | None:
    """Half the rate at noon (`noon`, per second) where the live run fell far behind its simulated twin, else None."""
    behind = float(twin.in_time.sum() - live.in_time.sum()) / len(workload)
    return float(f"{noon / 2.0:.2g}") if behind > FELL_BEHIND else None


def simulated(
    setup: Setup, workload: Workload, seconds: int, stopping: Callable[[], bool] = lambda: False
) -> Iterator[tuple[str, Tallied]]:
    """What the setup's own policy makes of the day, and every variant of the ladder alone after it, cheapest first.

    Ends early, and at once, where it is `stopping`.
    """
    names = [setup.family.variants[index].name for index in setup.family.ladder]
    # The gateway's policy weighs most, so it takes longest and goes first.
    policies = (setup.policy, *(f"fixed:{name}" for name in names))
    processes = max(1, min(len(policies), int(available_cores())))
    # Leaving this kind of pool ends what still runs in it.
    with get_context("spawn").Pool(processes, _leave_ctrl_c_to_the_parent) as pool:
        running = [pool.apply_async(_simulated, (setup, workload, seconds, policy)) for policy in policies]
        for policy, done in zip(policies, running, strict=True):
            while not done.ready():
                if stopping():
                    return
                done.wait(LOOK_EVERY_S)
            yield policy, done.get()


def _simulated(setup: Setup, workload: Workload, seconds: int, policy: str) -> Tallied:
    own = dataclasses.replace(setup, policy=policy)
    forecast = predict(own, [workload], 1, lambda: None)
    return tallied(workload, setup.samples.label, forecast.first, seconds)


def _leave_ctrl_c_to_the_parent() -> None:
    """A terminal's Ctrl-C reaches every process; only the parent knows what to say of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Scorer:
    """Reads the answers of a run that goes on, those that have come since it was last asked."""

    def __init__(self, sender: Sender, workload: Workload, samples: Samples) -> None:
        self._sender = sender
        self._workload = workload
        self._label = samples.label
        self._index_of = {label: index for index, label in enumerate(samples.labels)}
        self._arrival_s = workload.arrival_s.tolist()
        self._unread = list(range(len(workload)))
        self.results = Results.pending(len(workload))

    def read(self, elapsed_s: float) -> None:
        """Take in the answers to requests that were due by then."""
        left = []
        for place, index in enumerate(self._unread):
            if self._arrival_s[index] > elapsed_s:
                left += self._unread[place:]
                break
            seen = self._sender.seen[index]
            if seen is None:
                left.append(index)
                continue
            latency_s = seen[0] - self._sender.started_s - self._arrival_s[index]
            self.results.take(index, read_answer(seen[1], self._index_of), latency_s)
        self._unread = left

    def tallied(self, seconds: int) -> Tallied:
        """Everything read so far."""
        return tallied(self._workload, self._label, self.results, seconds)


def comparison(
    workload: Workload, seconds: int, runs: dict[str, Tallied], live: Tallied, until: int, policy: str
) -> dict[str, Any]:
    """What the gateway's page shows: counts by second, the live ones `until` a second. `runs` are from `simulated`."""
    second = np.minimum(workload.arrival_s.astype(np.int64), seconds - 1)
    return {
        "arrivals": np.bincount(second, minlength=seconds).tolist(),
        "live": live.until(until),
        "simulated": runs[policy].until(seconds) if policy in runs else None,
        "fixed": {
            name.removeprefix("fixed:"): run.until(seconds)
            for name, run in runs.items()
            if name.startswith("fixed:") and name != policy
        },
        "done": until >= seconds,
    }
