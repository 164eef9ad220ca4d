"""What a look-ahead remembers: the shortest SLO, what misses taught, weights, hulls, and how much of it."""

from __future__ import annotations

import math

import pytest

from router.contract import Hints
from router.demand import Demand
from router.family import Family, VariantProfile
from router.fluid import Budget
from router.latency import LatencyModel, table
from router.memory import FORECAST_S, LEAST_TRUST, MERGE_S, MET_GAIN, MISS_COST, Memory
from router.outlook import kind_of
from router.request import NEVER, Request
from router.view import Lane, View
from router.worth import RECHECK_S
from tests.queued import demand, lane, sized, view


def look(memory: Memory, given_view: View, now: float = 0.0) -> float:
    """The price that a policy sees which remembers, with a moderate reserve."""
    assert memory.look(given_view, given_view.lanes, None, Budget(0.9, 0.6, 0.4), now).price == memory.price
    return memory.price


def test_looks_are_repeatable() -> None:
    """The same state gives the same numbers, whatever the memory has seen before."""
    fresh, used = Memory(follow=True), Memory(follow=True)
    given_view = view(lane([0.05] * 9 + [0.09] * 3), sized([0.07] * 5, 1), demand=demand(20))
    look(used, view(lane([0.02] * 3), demand=given_view.demand), now=-1.0)
    assert look(fresh, given_view) == pytest.approx(look(used, given_view))
    assert fresh.price > 0.0
    for some in given_view.lanes:
        kind = kind_of(some)
        assert fresh.given(kind, fresh.price) == pytest.approx(used.given(kind, used.price))


def test_time_has_no_price_in_an_idle_machine_and_a_high_one_in_a_full_queue() -> None:
    """One row in 100 ms can be given everything; forty cannot."""
    prices = [look(Memory(follow=True), view(lane([0.1] * rows))) for rows in (1, 8, 16, 40)]
    assert prices[0] == 0.0
    assert prices == sorted(prices)
    assert prices[-1] > prices[1] > 0.0


def test_expected_arrivals_raise_the_price_as_soon_as_the_forecast_is_read_again() -> None:
    """The same queue, and two hundred more rows to come; nobody hears of them within some milliseconds."""
    memory, queue = Memory(follow=True), lane([0.1] * 4)
    quiet, busy = view(queue), view(queue, demand=demand(200))
    alone = look(memory, quiet)
    assert alone == look(memory, busy, now=0.9 * FORECAST_S)
    assert alone < look(memory, busy, now=1.1 * FORECAST_S)


def first_s(memory: Memory, some: Lane, now: float) -> list[float]:
    """What the table of a lane plans for a first answer of each variant."""
    found: list[float] = memory.table_of(some, now).prices.first_s.tolist()
    return found


@pytest.mark.parametrize(
    ("tight", "patient", "expected_s"), [(50, 0, 0.012), (50, 50, 0.012), (1, 99, 0.3), (0, 100, 0.3)]
)
def test_tables_follow_the_shortest_usual_slo(tight: int, patient: int, expected_s: float) -> None:
    """Made for 100 ms; what follows asks for 12 or 300. One in a hundred is not usual."""
    memory, counted, first = Memory(follow=True), Demand(), lane([0.1])
    look(memory, view(first))
    for number in range(tight + patient):
        slo_s = 0.012 if number < tight else 0.3
        counted.observe(Request(number, "f", (0,), 1.0, 1.0 + slo_s, NEVER), 0, 1.0)
    some = lane([1.3], slo_s=0.3)._replace(latency=first.latency)
    for now in (1.0, 2.0):
        look(memory, view(some, demand=counted), now)
    made_for = Memory(follow=True)
    assert first_s(made_for, lane([1.3], slo_s=expected_s), 0.0) == pytest.approx(first_s(memory, some, 2.0))
    assert memory.shortest_s == pytest.approx(expected_s)


def test_one_request_with_a_long_slo_does_not_stretch_the_look() -> None:
    """Of a thousand requests one asked for ten seconds: once it is answered, nobody plans that far."""
    for odd_s in (0.1, 10.0):
        counted, memory = Demand(), Memory(follow=True)
        for number in range(1000):
            now = number / 500.0
            slo_s = odd_s if number == 500 else 0.1
            counted.observe(Request(number, "f", (0,), now, now + slo_s, NEVER), 0, now)
        look(memory, view(kept=(lane([2.05], at=0),), demand=counted), now=2.0)
        assert (memory.shortest_s, memory.longest_s) == pytest.approx((0.1, 0.1))
        look(memory, view(lane([9.0], slo_s=10.0), demand=counted), now=2.1)
        assert memory.longest_s == 10.0, "but who waits is seen"


def test_misses_are_answered_with_less_planned_time() -> None:
    """What the rule trusts in falls with every miss, as far as that goes, rises again slowly, and makes time dearer."""
    memory, queue = Memory(follow=True), view(lane([0.1] * 15))
    calm = look(memory, queue)
    assert memory.trust == 1.0
    missed = queue._replace(missed=50)
    assert look(memory, missed) > calm
    assert memory.trust == pytest.approx(1.0 - 50 * MISS_COST)
    one_in_so_many = round(MISS_COST / MET_GAIN)
    look(memory, missed._replace(met=one_in_so_many * 20, missed=70))
    assert memory.trust == pytest.approx(1.0 - 50 * MISS_COST), "where it settles"
    look(memory, missed._replace(met=one_in_so_many * 20, missed=100_000))
    assert memory.trust == LEAST_TRUST
    look(memory, missed._replace(met=1_000_000, missed=100_000))
    assert memory.trust == 1.0


def test_hulls_follow_the_seconds_as_learnt() -> None:
    """A machine that takes twice as long gives rows twice the seconds for the same."""
    memory, some = Memory(follow=True), sized([9.0], slo_s=9.0)
    kind = kind_of(some)
    look(memory, view(some))
    before_s, before = memory.given(kind, 0.0)
    for number in range(300):
        for variant in (0, 1):
            seconds = 2.0 * some.latency.median_s(variant, 1, 0)
            some.latency.observe(variant, 1, 0, seconds, seconds, 0.001 * number)
    look(memory, view(some), now=1.1 * max(RECHECK_S, MERGE_S))
    assert memory.given(kind, 0.0) == pytest.approx((2.0 * before_s, before), rel=0.02)


def test_a_family_that_counts_more_gets_more_of_the_time() -> None:
    """Time goes where it adds most: both families see the same price, in qualities that are weighed."""
    both = view(lane([0.1] * 8), sized([0.1] * 8))
    found = []
    for weight in (1.0, 4.0):
        memory = Memory(follow=True)
        look(memory, both._replace(hints=Hints(0.0, weights={"f": weight})))
        assert memory.weight("f") == weight
        found.append([memory.given(kind_of(some), memory.price)[0] for some in both.lanes])
    (f_s, s_s), (weighed_f_s, weighed_s_s) = found
    assert weighed_f_s > f_s
    assert weighed_s_s < s_s


def test_weights_are_followed_from_look_to_look() -> None:
    """Advice that comes, and that becomes too old."""
    memory, full = Memory(follow=True), view(sized([0.1] * 20))
    plain = look(memory, full)
    assert 4.0 * plain == pytest.approx(look(memory, full._replace(hints=Hints(0.0, weights={"s": 4.0}))))
    assert plain == look(memory, full)


def test_kinds_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """One size class after the other: what is remembered stays bounded, and holds for what is asked."""
    most = 64
    monkeypatch.setattr("router.memory.MOST_KINDS", most)
    family = Family(
        "s",
        (VariantProfile("quick", 0.6, table((1, 8), *[(0.001, 0.008)] * 200)),),
        sizes=tuple(range(1, 201)),
        max_batch=8,
    )
    memory, latency = Memory(follow=True), LatencyModel(family, 1.0)
    for size_class in range(200):
        some = sized([9.0 + size_class], size_class)._replace(family=family, latency=latency)
        look(memory, view(some), now=size_class * 2 * FORECAST_S)
        assert len(memory._hulls.of) <= most + 2
        assert memory.given(kind_of(some), 0.0)[1] == 0.6


def test_a_family_that_is_always_wrong_can_be_looked_at() -> None:
    """A quality of nothing has no slope; its rows are worth nothing, and time is free."""
    useless = Family("s", (VariantProfile("none", 0.0, table((1, 8), (0.001, 0.008))),), max_batch=8)
    some = sized([0.1])._replace(family=useless, latency=LatencyModel(useless, 1.0))
    assert look(Memory(follow=True), view(some)) <= 1e-3


def test_a_family_that_counts_nothing_can_be_looked_at() -> None:
    """A weight of zero leaves a family a price of its own."""
    memory = Memory(follow=True)
    found = look(memory, view(lane([0.1] * 30))._replace(hints=Hints(0.0, weights={"f": 0.0})))
    assert math.isfinite(found / memory.weight("f"))
