"""What is loaded changes while requests wait and run: nobody is lost, and nobody is answered by what is not loaded."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router.contract import Poll, Record, Slot
from router.family import Evidence, Family, VariantProfile
from router.latency import table
from router.limits import Limits
from router.policies import policy_named
from router.request import NEVER, Request
from router.roster import COLD_SHARE, Missing
from router.scheduler import Scheduler
from router.words import Outcome, Reason, WhenCold, WhenLate

FAMILY = Family(
    "f",
    (
        VariantProfile("small", 0.7, table((1, 8), (0.001, 0.008))),
        VariantProfile("middle", 0.8, table((1, 8), (0.004, 0.030))),
        VariantProfile("large", 0.9, table((1, 8), (0.010, 0.080))),
    ),
    max_batch=8,
)
COLD = FAMILY.with_loaded(())


def scheduler(family: Family = FAMILY, policy: str = "slack-fraction", backlog_rows: int = 100) -> Scheduler:
    return Scheduler([family], [Slot(0)], policy_named(policy), Limits(backlog_rows), {"f": 1.0})


def request(number: int, slo_s: float = 0.1, **changes: object) -> Request:
    base = Request(number, "f", (0,), 0.0, slo_s, NEVER)
    return base._replace(**changes)  # type: ignore[arg-type]  # field types are the caller's business in a test


def load(driven: Scheduler, loaded: tuple[int, ...], now: float) -> None:
    driven.replace(driven.prepare(driven.families["f"].with_loaded(loaded)), now)


def finish(driven: Scheduler, now: float) -> list[Record]:
    """Run everything that waits, each batch in no time."""
    records: list[Record] = []
    while True:
        poll = driven.poll(now)
        records += poll.records
        for dispatch in poll.dispatches:
            driven.complete(dispatch.batch_id, now)
        if not poll.dispatches:
            return records


@pytest.mark.parametrize(
    ("loaded", "ladder"),
    [(None, (0, 1, 2)), ((), ()), ((1,), (1,)), ((2, 0, 2), (0, 2)), ((0, 1, 2), (0, 1, 2))],
)
def test_the_ladder_has_the_rungs_that_are_loaded(loaded: tuple[int, ...] | None, ladder: tuple[int, ...]) -> None:
    """By default all are; the rungs worth loading stay the same."""
    family = FAMILY if loaded is None else FAMILY.with_loaded(loaded)
    assert (ladder, (0, 1, 2)) == (family.ladder, family.rungs)


def test_an_index_that_is_no_variant_cannot_be_loaded() -> None:
    """The error says what was asked for."""
    with pytest.raises(ValueError, match=r"family f: loaded \(0, 3\), but there are 3 variants"):
        FAMILY.with_loaded((0, 3))


def test_nothing_is_loaded_for_an_audit() -> None:
    """One that comes while its variant is not loaded is refused, and so is one from which it is taken away."""
    s = scheduler(FAMILY.with_loaded((0,)))
    audit = request(1, deadline_s=NEVER, pinned="large", audit=True)
    s.submit(audit, 0.0)
    load(s, (0, 2), 0.0)
    s.submit(audit._replace(id=2), 0.0)
    load(s, (0,), 0.0)
    assert [(1, Reason.NOT_LOADED), (2, Reason.NOT_LOADED)] == [(r.request_id, r.reason) for r in s.poll(0.0).records]
    assert 0 == s.cold_rows


@pytest.mark.parametrize(
    "policy", ["slack-fraction", "casc", "fluid", "fixed:large", "most-accurate", "infaas", "proteus"]
)
def test_a_cold_request_waits_for_a_load_and_is_answered_late(policy: str) -> None:
    """Its SLO of 0.1 s is lost when a variant is loaded after 5 s, but it is answered, though it wanted shed."""
    s = scheduler(COLD, policy)
    s.submit(request(1, when_late=WhenLate.SHED), 0.0)
    assert Poll((), (), (), NEVER) == s.poll(0.0)
    assert {"f": (1, 0.0, ((0, 0.0, False),))} == dict(s.cold())
    load(s, (1,), 5.0)
    (record,) = finish(s, 5.0) or finish(s, 5.2)
    assert (Outcome.SERVED_LATE, "middle", {}) == (record.outcome, record.variant, dict(s.cold()))


@pytest.mark.parametrize(("when_cold", "outcomes"), [(WhenCold.REFUSE, [Reason.NOT_LOADED]), (WhenCold.WAIT, [])])
def test_a_cold_family_waits_or_refuses_as_it_is_set(when_cold: WhenCold, outcomes: list[Reason]) -> None:
    """A family that is not to wait says at once that nothing is loaded."""
    s = scheduler(replace(COLD, when_cold=when_cold))
    s.submit(request(1), 0.0)
    assert outcomes == [record.reason for record in s.poll(0.0).records]


@pytest.mark.parametrize(
    ("terms", "missing"),
    [({"min_quality": 0.85}, (2,)), ({"pinned": "middle"}, (1,)), ({}, None), ({"pinned": "no"}, None)],
)
def test_what_only_an_unloaded_variant_may_answer_waits_for_it(
    terms: dict[str, object], missing: tuple[int, ...] | None
) -> None:
    """A floor or a pin that the loaded variant does not satisfy names what is to be loaded."""
    s = scheduler(FAMILY.with_loaded((0,)))
    s.submit(request(1, 0.1, **terms), 0.0)
    waits = s.cold().get("f")
    assert missing == (tuple(wants.variant for wants in waits.missing) if waits else None)
    if missing:
        load(s, (0, *missing), 1.0)
    (record,) = finish(s, 1.0 if missing else 0.0)
    answered = record.outcome in (Outcome.SERVED, Outcome.SERVED_LATE)
    assert answered == ("no" not in terms.values())


def test_waiting_rows_take_what_is_left_when_theirs_is_unloaded() -> None:
    """A row whose cheapest variant goes is answered by the next one, and a pinned one waits for a load."""
    s = scheduler()
    s.submit(request(1, 0.5), 0.0)
    (running,) = s.poll(0.0).dispatches
    s.submit(request(2, 0.5), 0.0)
    s.submit(request(3, 0.5, pinned="small"), 0.0)
    load(s, (2,), 0.0)
    assert {"f": (1, 0.0, ((0, 0.0, True),))} == dict(s.cold())
    s.complete(running.batch_id, 0.01)
    assert [(1, running.variant), (2, "large")] == sorted((r.request_id, r.variant) for r in finish(s, 0.01))
    load(s, (0, 2), 0.02)
    assert [(3, "small")] == [(r.request_id, r.variant) for r in finish(s, 0.02)]


def test_cold_rows_leave_room_for_others() -> None:
    """Rows that wait for a load take half of the backlog; the next is refused, and warm ones are not."""
    other = replace(FAMILY, name="g")
    s = Scheduler([COLD, other], [Slot(0)], policy_named("fluid"), Limits(10))
    for number in range(6):
        s.submit(request(number, 9.0), 0.0)
    s.submit(request(6, 9.0, family="g"), 0.0)
    poll = s.poll(0.0)
    assert [(5, Reason.BACKLOG_FULL)] == [(record.request_id, record.reason) for record in poll.records]
    assert (int(COLD_SHARE * 10), 1) == (s.cold_rows, len(poll.dispatches))


@pytest.mark.parametrize("ending", ["timeout", "cancel", "give up", "shutdown", "remove"])
def test_a_cold_request_has_one_outcome_whatever_happens(ending: str) -> None:
    """It times out, its caller leaves, the load fails, the server stops, the family goes: each time one record."""
    s = scheduler(COLD)
    s.submit(request(1, timeout_s=2.0), 0.0)
    assert 2.0 == s.poll(0.0).wake_at
    now = 2.0 if ending == "timeout" else 1.0
    if ending == "cancel":
        s.cancel(1, now)
    elif ending == "give up":
        s.refuse_cold("f", Missing(0), now)
    elif ending == "shutdown":
        s.abandon_all(now)
    elif ending == "remove":
        s.remove("f", now)
    (record,) = s.poll(now).records
    reasons = {"timeout": Reason.TIMEOUT, "cancel": Reason.CLIENT_GONE, "shutdown": Reason.SHUTDOWN}
    assert (reasons.get(ending, Reason.NOT_LOADED), 0, 0) == (record.reason, s.unfinished, s.queued_rows)


def test_what_is_learnt_of_latencies_outlives_a_change_of_what_is_loaded() -> None:
    """A slow machine is still known to be slow after another variant is loaded."""
    s = scheduler(FAMILY.with_loaded((0,)))
    for number in range(40):
        s.submit(request(number, NEVER), 0.0)
        for dispatch in s.poll(0.0).dispatches:
            s.complete(dispatch.batch_id, 0.0, run_s=0.002 * len(dispatch.items))
    before = s.latency("f").correction(0)
    load(s, (0, 1), 0.0)
    assert before == s.latency("f").correction(0) > 1.5


def test_another_revision_waits_for_the_old_ones_requests() -> None:
    """While one has no outcome a change is refused; then the new revision answers."""
    s = scheduler()
    newer = replace(FAMILY, revision="2", variants=FAMILY.variants[1:], loaded=None)
    s.submit(request(1), 0.0)
    with pytest.raises(ValueError, match="family f: requests of revision 1 have no outcome yet"):
        s.replace(s.prepare(newer), 0.0)
    finish(s, 0.001)
    s.replace(s.prepare(newer), 0.001)
    s.submit(request(2, 0.1, min_quality=0.75), 0.001)
    (record,) = finish(s, 0.002)
    assert ("2", Outcome.SERVED) == (record.revision, record.outcome)


def test_a_family_may_come_and_go() -> None:
    """One that is added has its own margin; one that is removed is unknown; one that runs cannot be removed."""
    s = scheduler(policy="casc")
    s.replace(s.prepare(replace(FAMILY, name="g"), margin=1.3), 0.0)
    assert 1.3 == s.latency("g").margin
    s.submit(request(1, family="g"), 0.0)
    (dispatch,) = s.poll(0.0).dispatches
    with pytest.raises(ValueError, match="family g: a batch of it runs"):
        s.remove("g", 0.0)
    s.complete(dispatch.batch_id, 0.001)
    s.remove("g", 0.001)
    s.submit(request(2, family="g"), 0.001)
    assert [(1, Outcome.SERVED), (2, Outcome.REJECTED_INFEASIBLE)] == [
        (r.request_id, r.outcome) for r in s.poll(0.001).records
    ]


@pytest.mark.parametrize("left", [(0,), (1, 2)])
def test_a_kept_answer_goes_out_when_nothing_better_is_left(left: tuple[int, ...]) -> None:
    """Whether the better variants are unloaded or the one that answered: what there is is sent, at once."""
    evidence = Evidence(np.ones((3, 4), np.bool_), np.ones((3, 4), np.float32))
    s = scheduler(replace(FAMILY, evidence=evidence), "early-exit")
    s.submit(request(1, 0.9), 0.0)
    (dispatch,) = s.poll(0.0).dispatches
    kept = s.complete(dispatch.batch_id, 0.001, confidences=[0.1])
    assert ("small", [0], 1) == (dispatch.variant, kept, s.queued_rows)
    load(s, left, 0.001)
    (record,) = s.poll(0.001).records
    assert ("small", Outcome.SERVED, 0) == (record.variant, record.outcome, s.queued_rows)
