"""The goals that the routing is held to, each with what was measured and whether it is met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from loadtests.paired import Difference
from loadtests.routing_table import BEST_STATIC, RunTable, is_static
from loadtests.suite import SUITE, Trace

RIVALS = ("slackfit", "infaas", "model-switching", "proteus", "cascadeserve")
"""Published rules that have to be beaten by `RIVAL_MARGIN`, each with and without early drop as far as it was run."""
RIVAL_MARGIN = 0.02
STATIC_MARGIN = 0.015
WORST_TRACE = 0.005
OURS = ("casc", "fluid", "fastest", "most-accurate")
"""Rules that are not baselines: our own, and the two extremes, which stand as static variants already."""
ATTAINMENT_GAP = 0.002
CALM_ATTAINMENT = 0.995
GOODPUT = 0.95
AGREEMENT = 0.01


class Goal(NamedTuple):
    """`met` is None where it was not measured."""

    text: str
    measured: str
    met: bool | None


def goals(
    table: RunTable,
    subject: str,
    capacity_per_s: float,
    extra: Sequence[Trace] = (),
    twin: RunTable | None = None,
) -> list[Goal]:
    """Every goal for one policy. `capacity_per_s` is the fastest variant's, `twin` the simulation of live runs."""
    traces = {trace.name: trace for trace in (*SUITE, *extra)}
    names = [name for name in table.traces if name in traces]
    found = [_rival(table, subject, rival) for rival in RIVALS]
    found.append(
        _beaten(f"at least {STATIC_MARGIN * 100:g} points over best static", table, subject, BEST_STATIC, STATIC_MARGIN)
    )
    found.append(_worst_trace(table, subject, table.suite))
    found.append(
        _on_every(
            "attainment within 0.2 points of `fastest` on every trace",
            names,
            lambda trace: _minus(table, subject, "fastest", trace, "attainment"),
            -ATTAINMENT_GAP,
        )
    )
    found.append(
        _on_every(
            "attainment at least 99.5 % where CV² ≤ 2, load ≤ 0.8 and SLO ≥ 5x",
            [name for name in names if traces[name].calm],
            lambda trace: table.mean(subject, trace, "attainment"),
            CALM_ATTAINMENT,
            signed=False,
        )
    )
    found.append(
        _on_every(
            "goodput at least 95 % of capacity from 1.1x to 3x",
            [name for name in names if traces[name].goodput],
            lambda trace: _over(table.mean(subject, trace, "goodput_per_s"), capacity_per_s),
            GOODPUT,
            signed=False,
        )
    )
    if twin is not None:
        found.append(_agreement(table, twin))
    return found


def percent(share: float, *, signed: bool = False) -> str:
    """A share in percent or a difference in points, two decimals."""
    return f"{share * 100.0:+.2f}" if signed else f"{share * 100.0:.2f} %"


def interval(difference: Difference) -> str:
    """A difference in points with its interval."""
    text = percent(difference.mean, signed=True)
    return f"{text} [{difference.low * 100.0:+.2f}, {difference.high * 100.0:+.2f}]"


def _rival(table: RunTable, subject: str, rival: str) -> Goal:
    """Against the better of a rule and its lazy form."""
    forms = [form for form in (rival, f"{rival}:lazy") if table.difference(form, subject) is not None]
    best = max(forms, key=lambda form: table.suite_mean(form) or 0.0, default=rival)
    return _beaten(f"at least {RIVAL_MARGIN * 100:g} points over {best}", table, subject, best, RIVAL_MARGIN)


def _beaten(text: str, table: RunTable, subject: str, other: str, margin: float) -> Goal:
    difference = table.difference(subject, other)
    if difference is None:
        return Goal(text, "not run", None)
    return Goal(text, interval(difference), difference.mean >= margin)


def _worst_trace(table: RunTable, subject: str, traces: Sequence[str]) -> Goal:
    text = "never more than 0.5 points under the best baseline of a trace"
    worst: tuple[float, str, str] | None = None
    for trace in traces:
        ours = table.mean(subject, trace)
        for policy in table.policies:
            theirs = table.mean(policy, trace)
            if policy.split(":")[0] in OURS or ours is None or theirs is None:
                continue
            worst = min(worst or (2.0, "", ""), (ours - theirs, trace, policy))
    if worst is None:
        return Goal(text, "not run", None)
    return Goal(text, f"{percent(worst[0], signed=True)} ({worst[1]}, {worst[2]})", worst[0] >= -WORST_TRACE)


def _on_every(
    text: str, traces: Sequence[str], value: Callable[[str], float | None], least: float, *, signed: bool = True
) -> Goal:
    values = [(found, trace) for trace in traces if (found := value(trace)) is not None]
    if not values:
        return Goal(text, "not run", None)
    worst, trace = min(values)
    return Goal(text, f"worst of {len(values)}: {percent(worst, signed=signed)} ({trace})", worst >= least)


def _agreement(table: RunTable, twin: RunTable) -> Goal:
    text = "simulated effective accuracy within 1 point of the live one on every trace"
    gaps = []
    for policy in (*table.policies, *(name for name in table.runs if is_static(name))):
        for trace in table.traces:
            live, simulated = table.mean(policy, trace), twin.mean(policy, trace)
            if live is not None and simulated is not None:
                gaps.append((abs(simulated - live), simulated - live, trace, policy))
    if not gaps:
        return Goal(text, "not run", None)
    worst, signed, trace, policy = max(gaps)
    mean = sum(gap[0] for gap in gaps) / len(gaps)
    within = sum(gap[0] <= AGREEMENT for gap in gaps)
    measured = f"worst {percent(signed, signed=True)} ({trace}, {policy}), mean {percent(mean)}, "
    return Goal(text, f"{measured}{within} of {len(gaps)} within", worst <= AGREEMENT)


def _minus(table: RunTable, policy: str, other: str, trace: str, measure: str) -> float | None:
    ours, theirs = table.mean(policy, trace, measure), table.mean(other, trace, measure)
    return None if ours is None or theirs is None else ours - theirs


def _over(value: float | None, whole: float) -> float | None:
    return None if value is None else value / whole
