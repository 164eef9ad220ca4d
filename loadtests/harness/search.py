"""The profile `search`: the highest rate at which enough requests are answered in time."""

from __future__ import annotations

import dataclasses

from loadtests.harness.measured import Run
from loadtests.harness.ratesearch import Found, RateSearch, Trial, requests_to_tell
from loadtests.harness.session import Ended, Session
from loadtests.harness.subject import Subject
from loadtests.harness.verdict import Check, Wanted, bound, percent, verdict
from loadtests.load import MOST_REQUESTS, Load

DURATION_S = 10.0
LONGEST_S = 60.0
"""A trial at a low rate lasts longer, so that it tells something, but not longer than that."""
LEAST_PER_S, MOST_PER_S, FIRST_PER_S = 1.0, 100_000.0, 50.0


@dataclasses.dataclass(frozen=True, slots=True)
class SearchOptions:
    """How closely to look, how often to repeat near the edge, and which rate is enough (None: any)."""

    precision: float = 0.05
    repeats: int = 3
    enough: float | None = None


def search(session: Session, load: Load, wanted: Wanted, options: SearchOptions, seed: int) -> Ended:
    """Try rates, beginning with the load's; every trial has a seed of its own. Raises `TraceError`."""
    state = RateSearch(
        wanted.attainment, load.rate or FIRST_PER_S, LEAST_PER_S, MOST_PER_S, options.precision, options.repeats
    )
    least = requests_to_tell(wanted.attainment)
    while (rate := state.next_rate()) is not None and not session.interrupted:
        duration_s = min(max(load.duration_s, min(least / rate, LONGEST_S)), 0.999 * MOST_REQUESTS / rate)
        own = dataclasses.replace(load, rate=rate, duration_s=duration_s)
        number = seed + len(state.trials)
        run = session.send(session.subject.draw(own, number), f"{rate:.4g}/s", number, rate)
        if run is None or run.ran.cut:
            break
        trial = trial_of(run, rate, wanted.attainment)
        state.add(trial)
        why = f" ({trial.fault})" if trial.fault else ""
        session.display.say(f"{rate:.1f}/s: {percent(run.score.attainment)} in time, {state.standing(rate)}{why}")
    found = state.found()
    interrupted = session.interrupted
    return Ended(
        verdict(checks_of(found, wanted, options), faults_of(found, state, options), interrupted=interrupted),
        (sentence(found, wanted, slos_of(session.subject)),),
        details_of(found, state),
    )


def trial_of(run: Run, rate: float, attainment: float) -> Trial:
    """A run as evidence: requests that were not sent because too many were open count as missed, not as invalid."""
    blocks = run.blocks()
    fault = "; ".join(run.generator_faults(attainment))
    return Trial(rate, [block["in_time"] for block in blocks], [block["requests"] for block in blocks], fault)


def slos_of(subject: Subject) -> str:
    """The SLOs of all families, in milliseconds, each mix once."""
    return " or ".join(dict.fromkeys(str(member.mix).removesuffix(":1") for member in subject.members))


def sentence(found: Found, wanted: Wanted, slos: str) -> str:
    """The answer in words."""
    share = bound(wanted.attainment)
    if found.rate is None:
        if found.limit == "generator":
            return "the generator cannot keep up with any rate that was tried: give it a core of its own"
        return f"at no rate that was tried are {share} answered within {slos} ms"
    sure = f"surely at {found.sure_low:.1f}" if found.sure_low is not None else "nowhere with 95 % confidence"
    beyond = {
        "gateway": f"surely not at {found.sure_high:.1f}" if found.sure_high is not None else "beyond that it is close",
        "generator": "beyond that the generator cannot keep up, so the gateway may do more: see --workers",
        "range": "more was not tried",
    }[found.limit]
    at_least = "at least " if found.limit != "gateway" else ""
    return f"{at_least}{found.rate:.1f} requests/s with {share} answered within {slos} ms ({sure}, {beyond})"


def checks_of(found: Found, wanted: Wanted, options: SearchOptions) -> list[Check]:
    """A rate was found, and it is enough."""
    enough = options.enough or 0.0
    text = f"{found.rate:.1f}/s" if found.rate is not None else "none"
    asked = f"at least {enough:g}/s" if enough else "any"
    what = f"highest rate with {bound(wanted.attainment)} in time"
    return [Check(what, found.rate is not None and found.rate >= enough, text, asked)]


def faults_of(found: Found, state: RateSearch, options: SearchOptions) -> list[str]:
    """A generator that could not send enough leaves open what the gateway does; a rate that is enough was sent."""
    if found.limit != "generator" or (found.rate is not None and found.rate >= (options.enough or 0.0)):
        return []
    return [trial.fault for trial in state.trials if trial.fault][-1:]


def details_of(found: Found, state: RateSearch) -> dict[str, object]:
    """The search as JSON has it."""
    rates = sorted({trial.rate for trial in state.trials})
    return {
        "rate": found.rate,
        "sure_low": found.sure_low,
        "sure_high": found.sure_high,
        "limit": found.limit,
        "target": state.target,
        "rates": [
            {
                "rate": rate,
                "standing": state.standing(rate).value,
                "trials": len([trial for trial in state.trials if trial.rate == rate]),
                "attainment": list(state.interval(rate))
                if any(not t.fault for t in state.trials if t.rate == rate)
                else None,
            }
            for rate in rates
        ],
    }
