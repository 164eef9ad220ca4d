"""CASC: which answers are kept, and what a whole load makes of it, served by the scheduler in virtual time."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from router.contract import Record
from router.family import Evidence, Family, VariantProfile
from router.latency import LatencyModel, table
from router.memory import Memory
from router.policies.casc import Casc
from router.request import NEVER, Item, Request
from router.words import Escalation, Outcome
from tests import queued
from tests.queued import demand, lane, view
from tests.router.served import serve

ROWS = 2000
SLO_S = 0.05


SMALL = replace(
    queued.FAMILY,
    evidence=Evidence(
        np.arange(1000) < np.array([[600], [750], [900]]),
        np.tile(np.linspace(0.98, 0.41, 1000, dtype=np.float32), (3, 1)),
    ),
)
"""The family of the queues on paper, with more rows held out."""


def kept(given_rows: int, confidence: float, at: int = 0, expected: int = 0) -> bool:
    """Whether an answer is kept after a look at so many waiting rows and so many expected ones."""
    rule = Casc()
    rows = lane([0.1] * given_rows)._replace(family=SMALL)
    state, _ = rule.decide(None, view(rows, demand=demand(expected)), 0.0)
    return rule.keeps(state, SMALL, rows.latency, Item(0, 0.1, 1, 1, 0, 0, 0, 0.0, 0.1, at, confidence), 0.0)


def test_unsure_answers_are_kept_when_time_is_free() -> None:
    """`small` is right on the 60 % of rows of which it is surest, `large` on 90 %."""
    assert kept(1, 0.45)
    assert not kept(1, 0.97)


def test_no_answer_is_kept_when_time_is_dear() -> None:
    """Forty rows wait and fifty more came at once."""
    assert not kept(32, 0.45, expected=50)


def test_the_best_variants_answer_is_final() -> None:
    """However unsure it is."""
    assert not kept(1, 0.41, at=2)


@pytest.mark.parametrize("state", [None, "of another policy"])
def test_nothing_is_kept_without_a_look(state: object) -> None:
    """A rule that has seen nothing knows no price."""
    item = Item(0, 0.1, 1, 1, 0, 0, 0, 0.0, 0.1, 0, 0.45)
    assert not Casc().keeps(state, queued.FAMILY, LatencyModel(queued.FAMILY, 1.0), item, 0.0)


def test_answers_of_models_quicker_than_a_decision_are_final() -> None:
    """Waiting for a better answer would cost more than it gives; those of slower models beside them are still kept."""
    quick = replace(
        SMALL,
        name="quick",
        variants=tuple(
            VariantProfile(slow.name, slow.quality, table((1,), (slow.latency.median_s[0][0] / 100,)))
            for slow in SMALL.variants
        ),
    )
    key = lane([0.1]).key._replace(family="quick")
    rows = lane([0.1])._replace(key=key, family=quick, latency=LatencyModel(quick, 1.0))
    rule, item = Casc(), Item(0, 0.1, 1, 1, 0, 0, 0, 0.0, 0.1, 0, 0.45)
    state, _ = rule.decide(None, view(lane([0.1])._replace(family=SMALL)), 0.0)
    state, _ = rule.decide(state, view(rows), 0.0)
    assert not rule.keeps(state, quick, rows.latency, item, 0.0)
    assert rule.keeps(state, SMALL, LatencyModel(SMALL, 1.0), item, 0.0)


def test_answers_of_variants_off_the_ladder_are_final() -> None:
    """Who is asked for by name only has no place in a cascade."""
    first, middle, last = queued.FAMILY.variants
    worse = VariantProfile("worse", 0.5, middle.latency)
    family = Family("f", (first, worse, last), max_batch=8, evidence=queued.FAMILY.evidence)
    state = Memory(follow=True)
    item = Item(0, 0.1, 1, 1, 0, 0, 0, 0.0, 0.1, 1, 0.41)
    assert not Casc().keeps(state, family, LatencyModel(family, 1.0), item, 0.0)
    assert Casc().keeps(state, family, LatencyModel(family, 1.0), item._replace(at=0), 0.0)


@cache
def family(*, staged: bool = False) -> Family:
    """Five variants of 1 to 10 ms a row, and how each answers on rows of all difficulties."""
    rng = np.random.default_rng(5)
    easy = rng.normal(size=ROWS)
    chance = 1.0 / (1.0 + np.exp(-1.7 * (easy + np.array([[0.7], [1.0], [1.3], [1.6], [2.0]]))))
    correct = rng.random((1, ROWS)) < chance
    names, alone_s = ("a", "b", "c", "d", "e"), (0.001, 0.002, 0.0035, 0.006, 0.010)
    variants = tuple(
        VariantProfile(
            name,
            float(share),
            table((1, 32), (each_s, 0.3 * each_s + 32 * 0.7 * each_s)),
            names[: rung + 1] if staged else (name,),
        )
        for rung, (name, share, each_s) in enumerate(zip(names, correct.mean(axis=1), alone_s, strict=True))
    )
    return Family("f", variants, max_batch=32, evidence=Evidence(correct, chance.astype(np.float32)))


class Outcomes(NamedTuple):
    """What a load came to: expected right answers in time over all requests, answers in time, and the records."""

    worth: float
    on_time: float
    records: tuple[Record, ...]


@cache
def served(
    policy: str, rate: float, *, staged: bool = False, slots: int = 1, seconds: float = 1.5, floor: float = 0.0
) -> Outcomes:
    """Poisson arrivals of one row each, drawn from the evidence; batches take what is profiled."""
    loaded = family(staged=staged)
    evidence = loaded.evidence
    assert evidence is not None
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.exponential(1.0 / rate, int(rate * seconds))).tolist()
    requests = [Request(number, "f", (0,), at, at + SLO_S, NEVER, floor) for number, at in enumerate(arrivals)]
    records = serve(loaded, policy, requests, slots)
    right = 0.0
    for record in records:
        if record.slo_met:
            answered = loaded.index(record.variant)
            assert answered is not None
            right += float(evidence.confidence[answered, record.request_id % ROWS])
    count = len(arrivals)
    return Outcomes(right / count, sum(record.slo_met for record in records) / count, records)


STAGED = pytest.mark.parametrize("staged", [False, True])


@STAGED
@pytest.mark.parametrize("rate", [100.0, 400.0, 700.0])
def test_below_capacity_everything_is_in_time(rate: float, staged: bool) -> None:
    """Up to half of what the quickest variant could do, nobody is refused and nobody is late."""
    assert served("casc", rate, staged=staged).on_time >= 0.995


@pytest.mark.parametrize("rate", [100.0, 250.0, 400.0, 700.0])
def test_stages_make_cascades_pay(rate: float) -> None:
    """More right answers in time than the look-ahead alone, than the short rule, and than every fixed variant."""
    ours = served("casc", rate, staged=True).worth
    for other in ("fluid", "slack-fraction", "fixed:a", "fixed:c", "fixed:e"):
        assert ours > served(other, rate, staged=True).worth


@pytest.mark.parametrize("rate", [100.0, 250.0, 400.0, 700.0])
def test_cascades_that_hardly_pay_cost_hardly_anything(rate: float) -> None:
    """Starting anew, with variants that are right and wrong of themselves: within a hundredth of every other rule."""
    ours = served("casc", rate).worth
    for other in ("fluid", "slack-fraction", "fixed:a", "fixed:c", "fixed:e"):
        assert ours >= served(other, rate).worth - 0.01


@pytest.mark.parametrize("policy", ["casc", "fluid"])
def test_idle_the_answers_are_as_good_as_the_best_variants(policy: str) -> None:
    """At 20 requests a second there is time for all that pays."""
    best = served("fixed:e", 20.0, seconds=10.0).worth
    assert served(policy, 20.0, seconds=10.0).worth >= best - 0.01


def test_the_busier_the_machine_the_fewer_rows_are_answered_again() -> None:
    """The price of time decides: most when there is time for it, none in overload."""
    shares = []
    for rate in (250.0, 400.0, 700.0, 2500.0):
        records = served("casc", rate, staged=True).records
        shares.append(sum(record.escalation is Escalation.ESCALATED for record in records) / len(records))
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5
    assert shares[-1] < 0.05


@STAGED
def test_answers_that_were_kept_go_out_in_time(staged: bool) -> None:
    """A row that has an answer in time is never late, nor refused, for the sake of a better one."""
    outcomes = []
    for rate in (100.0, 400.0, 700.0, 2500.0):
        records = served("casc", rate, staged=staged).records
        waited = [record for record in records if record.escalation in (Escalation.NO_TIME, Escalation.ESCALATED)]
        outcomes.append({record.outcome for record in waited})
    assert outcomes[0] == {Outcome.SERVED}
    assert all(found <= {Outcome.SERVED} for found in outcomes)


@pytest.mark.parametrize("policy", ["casc", "fluid"])
@pytest.mark.parametrize("overload", [1.3, 3.0])
def test_in_overload_the_machine_still_does_what_it_can(policy: str, overload: float) -> None:
    """At least 0.9 of what the quickest variant answers in full batches is answered in time."""
    capacity = 32 / family().variants[0].latency.median_s[0][1]
    assert served(policy, overload * capacity, seconds=0.6).on_time * overload >= 0.9


def test_two_slots_answer_more_rows_right_than_one() -> None:
    """At a load that one slot answers with cheap variants."""
    assert served("casc", 700.0, slots=2).worth > served("casc", 700.0).worth


@pytest.mark.parametrize("policy", ["casc", "fluid"])
def test_a_floor_on_quality_holds_under_any_load(policy: str) -> None:
    """What is answered is answered by a variant of that quality, also in overload."""
    floor = family().variants[2].quality
    for rate in (100.0, 700.0):
        outcome = served(policy, rate, floor=floor)
        assert {record.variant for record in outcome.records if record.slo_met} <= {"c", "d", "e"}
        assert outcome.on_time > 0.3


def test_the_path_of_a_record_ends_with_who_answered() -> None:
    """Each step is better than the one before."""
    names = [variant.name for variant in family().variants]
    for record in served("casc", 400.0, staged=True).records:
        assert record.variant == record.path[-1]
        assert sorted(set(record.path), key=names.index) == list(record.path)
        assert (len(record.path) > 1) == (record.escalation is Escalation.ESCALATED)
