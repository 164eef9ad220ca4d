"""The profile `spike`: an even load, a burst on top of it, and how long the gateway takes to be itself again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from loadtests.harness.cargo import Plan
from loadtests.harness.session import Ended, Session
from loadtests.harness.subject import Subject
from loadtests.harness.uncertainty import share_interval
from loadtests.harness.verdict import Check, Wanted, bound, checks_of, percent, verdict
from loadtests.load import Load
from loadtests.traces import Seconds, TraceError

DURATION_S = 30.0
BURST_AT = 1.0 / 3.0
"""When the burst begins, as a share of the duration."""
WINDOW_S, WINDOW_REQUESTS = 0.5, 20
"""Recovery is told by windows so long, or longer where they have too few requests to tell anything."""


@dataclass(frozen=True, slots=True)
class SpikeOptions:
    """The burst is `factor` times the base rate for `burst_s` seconds; recovery may take `recovery_s`."""

    factor: float = 4.0
    burst_s: float = 5.0
    recovery_s: float = 5.0


def spike(session: Session, load: Load, wanted: Wanted, options: SpikeOptions, seed: int) -> Ended:
    """Send base and burst. Raises `TraceError` where they cannot be drawn."""
    plan, begin_s, end_s = plan_of(session.subject, load, options, seed)
    run = session.send(plan, "spike", seed, load.rate)
    if run is None:
        return Ended(verdict([], [], interrupted=True))
    arrival_s = run.ran.plan.workload.arrival_s
    recovered_s = recovery_s(arrival_s, run.in_time, end_s, load.duration_s, wanted.attainment)
    phases = {
        "before": arrival_s < begin_s,
        "burst": (arrival_s >= begin_s) & (arrival_s < end_s),
        "after": arrival_s >= end_s + (recovered_s or 0.0),
    }
    shares = {name: float(run.in_time[mine].mean()) if mine.any() else None for name, mine in phases.items()}
    checks = [
        _share_check("answered in time before the burst", shares["before"], wanted.attainment),
        recovery_check(recovered_s, options.recovery_s),
        _share_check(
            "answered in time after recovery", shares["after"] if recovered_s is not None else None, wanted.attainment
        ),
        # Of the whole, only what does not depend on the burst.
        *(
            check
            for check in checks_of(run.score, wanted, run.accuracy_rests_on)
            if check.what in ("lost", "correct in time")
        ),
    ]
    during = percent(shares["burst"]) if shares["burst"] is not None else "-"
    line = f"during the burst ({options.factor:g} x for {options.burst_s:g} s) {during} answered in time"
    details = {"begin_s": begin_s, "end_s": end_s, "recovery_s": recovered_s, "attainment": shares}
    faults = run.faults(wanted.attainment)
    return Ended(verdict(checks, faults, interrupted=session.interrupted), (line,), details)


def plan_of(subject: Subject, load: Load, options: SpikeOptions, seed: int) -> tuple[Plan, float, float]:
    """Base and burst as one plan, and when the burst begins and ends. Raises `TraceError`."""
    begin_s = BURST_AT * load.duration_s
    end_s = begin_s + options.burst_s
    if load.rate is None or load.trace is not None:
        raise TraceError("spike: brings its own burst: give --rate for the base, no --trace")
    if end_s + WINDOW_S > load.duration_s:
        raise TraceError(
            f"spike: a burst of {options.burst_s:g} s leaves no time to recover within {load.duration_s:g} s"
        )
    rng = np.random.default_rng(seed)
    base_s, called = load.arrive(rng)
    more = replace(load, rate=load.rate * (options.factor - 1.0), duration_s=options.burst_s)
    burst_s, _ = more.arrive(rng)
    arrival_s: Seconds = np.sort(np.concatenate((base_s, begin_s + burst_s)))
    return (
        subject.of(arrival_s, f"{called}, {options.factor:g} times that for {options.burst_s:g} s", rng),
        begin_s,
        end_s,
    )


def recovery_s(
    arrival_s: Seconds, in_time: NDArray[np.bool_], end_s: float, duration_s: float, target: float
) -> float | None:
    """Seconds from the end of a burst until the last window that is surely below the target has passed.

    0.0 where there is none, None where the very last window still is below: it has not recovered while it was watched.
    """
    after = int((arrival_s >= end_s).sum())
    rest_s = duration_s - end_s
    if not after:
        return None
    window_s = max(WINDOW_S, rest_s * WINDOW_REQUESTS / after)
    windows = max(1, int(rest_s / window_s))
    edges_s = end_s + np.linspace(0.0, rest_s, windows + 1)
    below = _surely_below(arrival_s, in_time, edges_s, target)
    if not any(below):
        return 0.0
    last = max(place for place, one in enumerate(below) if one)
    return None if last == windows - 1 else float(edges_s[last + 1] - end_s)


def _surely_below(arrival_s: Seconds, in_time: NDArray[np.bool_], edges_s: Seconds, target: float) -> Sequence[bool]:
    """Of each window, whether the upper bound of the share in time is below the target."""
    found = []
    for low_s, high_s in pairwise(edges_s.tolist()):
        mine = (arrival_s >= low_s) & (arrival_s < high_s)
        found.append(bool(mine.any()) and share_interval([int(in_time[mine].sum())], [int(mine.sum())]).high < target)
    return found


def recovery_check(found_s: float | None, most_s: float) -> Check:
    """It recovered soon enough."""
    text = f"{found_s:.1f} s" if found_s is not None else "not while it was watched"
    return Check("recovery", found_s is not None and found_s <= most_s, text, f"at most {most_s:g} s")


def _share_check(what: str, share: float | None, least: float) -> Check:
    text = percent(share) if share is not None else "nothing to judge"
    return Check(what, share is not None and share >= least, text, f"at least {bound(least)}")
