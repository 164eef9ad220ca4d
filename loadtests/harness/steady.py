"""The profile `steady`: one load, sent once, held against thresholds."""

from __future__ import annotations

from loadtests.harness.session import Ended, Session
from loadtests.harness.verdict import Wanted, checks_of, verdict
from loadtests.load import Load

DURATION_S = 30.0


def steady(session: Session, load: Load, wanted: Wanted, seed: int) -> Ended:
    """Send the load of that seed. Raises `TraceError` where it cannot be drawn."""
    run = session.send(session.subject.draw(load, seed), "steady", seed, load.rate)
    if run is None:
        return Ended(verdict([], [], interrupted=True))
    checks = checks_of(run.score, wanted, run.accuracy_rests_on)
    return Ended(verdict(checks, run.faults(wanted.attainment), interrupted=session.interrupted))
