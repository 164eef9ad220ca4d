"""The profile `smoke`: does every family answer, and every variant of it that is asked for by name? Takes seconds.

It measures nothing, so the generator's lag does not matter. Who refuses is asked again, a little later: a cold family
is being loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from loadtests.harness.cargo import Plan, Way
from loadtests.harness.session import Ended, Session
from loadtests.harness.subject import Subject
from loadtests.harness.verdict import Check, verdict
from loadtests.outcomes import Fate
from loadtests.workload import Workload

SLO_S = 30.0
"""Long: what is asked is whether there is an answer, not how soon."""
GAP_S = 0.05
ROUNDS, PAUSE_S = 3, 2.0


@dataclass(frozen=True, slots=True)
class Tried:
    """How one way was answered: `reason` says why not, `variant` who did, and `latency_s` after how long."""

    way: Way
    fate: Fate
    variant: str
    reason: str
    latency_s: float = math.nan


def smoke(session: Session, seed: int) -> Ended:
    """Ask every family once, and every variant once, by one of its rows."""
    left, tried = list(session.subject.ways()), dict[Way, Tried]()
    for number in range(ROUNDS):
        run = session.send(plan_of(session.subject, left, seed + number), f"round {number + 1}", seed + number, None)
        if run is None:
            break
        results = run.ran.results
        for place, way in enumerate(left[: len(run.ran.plan)]):
            outcome = results.fate[place], results.variant[place], results.reason[place]
            tried[way] = Tried(way, *outcome, float(results.latency_s[place]))
        left = [way for way in left if way not in tried or tried[way].fate is Fate.REFUSED]
        if not left or session.interrupted:
            break
        session.pause(PAUSE_S)
    checks = [check_of(tried[way]) for way in session.subject.ways() if way in tried]
    ended = verdict(checks, [], interrupted=session.interrupted or len(checks) < len(session.subject.ways()))
    return Ended(ended, (summary(tried),), {"asked": len(checks)})


def summary(tried: Mapping[Way, Tried]) -> str:
    """How many families and variants gave what was wanted of them."""
    told = []
    for one, many, chosen in (
        ("family", "families", [one for way, one in tried.items() if not way.variant]),
        ("variant asked for by name", "variants asked for by name", [one for way, one in tried.items() if way.variant]),
    ):
        answered = sum(check_of(each).passed is True for each in chosen)
        told.append(f"{answered} of {len(chosen)} {one if len(chosen) == 1 else many} answered")
    return ", ".join(told)


def check_of(tried: Tried) -> Check:
    """A family is answered by some variant, a pinned variant by itself."""
    way = tried.way
    what, wanted = (f"{way.family}/{way.variant}", way.variant) if way.variant else (way.family, "an answer")
    if tried.fate is not Fate.ANSWERED:
        return Check(what, False, f"{tried.fate.replace('_', ' ')}: {tried.reason or 'no reason given'}", wanted)
    after = "" if math.isnan(tried.latency_s) else f" in {tried.latency_s * 1e3:.3g} ms"
    return Check(what, not way.variant or tried.variant == way.variant, f"answered by {tried.variant}{after}", wanted)


def plan_of(subject: Subject, ways: list[Way], seed: int) -> Plan:
    """One request each way, a moment apart, with a row of the family's."""
    rng, every = np.random.default_rng(seed), subject.ways()
    places = {member.served.family: place for place, member in enumerate(subject.members)}
    rows = [len(subject.members[places[way.family]].stock.messages) for way in ways]
    firsts = [subject.first_message(places[way.family]) for way in ways]
    count = len(ways)
    sample = np.array([first + rng.integers(0, own) for first, own in zip(firsts, rows, strict=True)], np.int64)
    work = Workload(
        np.linspace(0.0, (count - 1) * GAP_S, count), np.full(count, SLO_S), sample, f"{count} ways, each asked once"
    )
    way = np.array([every.index(one) for one in ways], np.int64)
    return Plan(work, way, np.full(count, -1, np.int64))
