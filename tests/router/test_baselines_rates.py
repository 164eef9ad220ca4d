"""Published rules that measure the rate: what they choose for it, and how they measure."""

from __future__ import annotations

import numpy as np
import pytest

from router.demand import Demand
from router.policies.infaas import Infaas
from router.policies.jellyfish import Jellyfish
from router.policies.model_switching import ModelSwitching
from router.policies.proteus import Proteus, Routes, Segment, assign, hull
from router.policies.queueing import late_share, poisson
from router.policies.ramsis import choices
from router.policies.windows import Kind, Windows, rate_of, rate_step
from router.words import Reason
from tests.queued import FAMILY, chosen, demand, lane, view

KIND = Kind("f", 0)
SECONDS = np.array([[0.001 + 0.001 * b for b in range(1, 9)], [0.005 + 0.005 * b for b in range(1, 9)]])


@pytest.mark.parametrize(("rate", "expected"), [(20.0, 2), (150.0, 1), (400.0, 0), (5000.0, 0)])
def test_model_switching_takes_the_best_variant_that_is_hardly_ever_late(rate: float, expected: int) -> None:
    """`large` is safe at 20 rows/s but not near its capacity of 178, `middle` up to its own of 308."""
    assert expected == ModelSwitching().static_choice(lane([0.1]), rate, 0.1)


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (100.0, (2, 8)),  # 8 rows in 45 ms are 177 a second
        (200.0, (1, 8)),  # 8 in 26 ms are 307
        (400.0, (0, 8)),
        (9999.0, (0, 8)),
    ],
)
def test_jellyfish_takes_the_best_variant_whose_batch_keeps_up(rate: float, expected: tuple[int, int]) -> None:
    """Batches of at most half of the SLO of 100 ms must do 1.05 times the rate."""
    assert expected == Jellyfish().choice(lane([0.1]), rate)


def test_jellyfish_leaves_variants_out_that_take_more_than_half_of_the_slo() -> None:
    """With an SLO of 18 ms `large` (10 ms) is out, and `middle` may do two rows."""
    assert (1, 2) == Jellyfish().choice(lane([0.018], slo_s=0.018), 1.0)


def test_the_late_share_of_a_queue_is_that_of_its_simulation() -> None:
    """The closed form against the same queue driven by random arrivals; beyond capacity everybody is late."""
    seconds = np.array([0.001 + 0.003 * rows for rows in range(1, 9)])
    rng = np.random.default_rng(1)
    for rate, slo_s in ((150.0, 0.012), (220.0, 0.02), (280.0, 0.03)):
        arrivals = np.cumsum(rng.exponential(1.0 / rate, 40_000))
        now, served, late = 0.0, 0, 0
        while served < len(arrivals):
            now = max(now, arrivals[served])
            rows = min(8, int(np.searchsorted(arrivals, now, side="right")) - served)
            now += seconds[rows - 1]
            late += int((now - arrivals[served : served + rows] > slo_s).sum())
            served += rows
        assert late_share(seconds, rate, slo_s) == pytest.approx(late / len(arrivals), rel=0.1)
    assert late_share(seconds, 400.0, 0.05) == 1.0


def test_poisson_chances_sum_to_one_with_the_tail_in_the_last() -> None:
    """Also where the mean lies far beyond what is counted."""
    chances = poisson(np.array([0.5, 900.0]), 8)
    assert np.allclose(chances.sum(axis=-1), 1.0)
    assert chances[0, 0] == pytest.approx(np.exp(-0.5))
    assert chances[1, -1] == pytest.approx(1.0)


def test_ramsis_takes_time_when_alone_and_gives_it_up_under_load() -> None:
    """With little to come a lone row gets the better variant; at a rate that needs full batches of the cheap one, not.

    Where only the cheap variant is on time, it runs at any rate.
    """
    quality = np.array([0.6, 0.9])
    idle = choices(SECONDS, quality, 1.0, 0.1, 32)
    busy = choices(SECONDS, quality, 700.0, 0.1, 32)
    assert idle.shape == (8, 33)
    assert (1, 0) == (idle[0, 32], busy[7, 32])
    assert (0, 0) == (idle[0, 2], busy[0, 2])


def test_infaas_blacklists_a_variant_that_is_slow_and_busy_and_lifts_it_later() -> None:
    """Rows that waited 90 of 100 ms at 400 rows/s are too much for `large`; after a quiet second it is back."""
    rule = Infaas()
    counted = demand(200)
    state, decision = rule.decide(None, view(lane([0.1]), demand=counted), 0.0)
    assert ("large", 1) == chosen(decision)
    for now in (0.5, 1.0, 1.5, 2.0):
        for _ in range(200):
            counted.arrived["f"] += 1
        state, decision = rule.decide(state, view(lane([now + 0.05] * 8), demand=counted), now)
    assert decision.plan is not None
    assert decision.plan.variant < 2
    for now in (4.0, 6.0, 8.0):
        state, decision = rule.decide(state, view(lane([now + 0.1]), demand=counted), now)
    assert ("large", 1) == chosen(decision)


def test_windows_believe_the_last_full_one() -> None:
    """50 rows in half a second are 100 a second, also while the next window counts others; two slots share them."""
    queue, windows = lane([9.0]), Windows(0.5)
    assert windows.roll(view(queue, demand=Demand()), 0.0)
    counted = demand(50)
    assert windows.roll(view(queue, demand=counted), 0.5)
    counted.arrived["f"] += 1000
    assert not windows.roll(view(queue, demand=counted), 0.9)
    assert windows.measured[KIND].rate_per_s == pytest.approx(100.0)
    assert windows.per_slot(view(queue, demand=counted, slots=2), queue) == pytest.approx(50.0)


@pytest.mark.parametrize("rate", [0.0, 1.0, 99.0, 100.0, 3000.0])
def test_rates_are_rounded_up_by_less_than_a_tenth(rate: float) -> None:
    """What is worked out for a step is right for all rates that fall in it."""
    assert max(rate, 0.1) <= rate_of(rate_step(rate)) * (1 + 1e-6) <= 1.11 * max(rate, 0.1)


def test_proteus_buys_the_steepest_steps_first_and_the_last_in_part() -> None:
    """Half a slot is left: all of the first kind goes up for 0.3, half of the second for 0.2 of 0.4."""
    other = Kind("g", 0)
    routes = {KIND: Routes({0: 1.0}), other: Routes({0: 1.0})}
    assign([Segment(other, 1, 0.4, 1.0), Segment(KIND, 1, 0.3, 2.0), Segment(KIND, 2, 0.9, 0.5)], 0.5, routes)
    assert {1: 1.0} == routes[KIND].shares
    assert routes[other].shares == pytest.approx({0: 0.5, 1: 0.5})


def test_proteus_leaves_out_variants_under_the_hull() -> None:
    """A variant on the line's wrong side is never part of the best plan; a dearer and worse one is not either."""
    first, steps = hull(FAMILY, KIND, {0: 0.001, 1: 0.004, 2: 0.005}, 10.0)
    assert (0, [2]) == (first, [step.variant for step in steps])
    assert steps[0].work == pytest.approx(0.04)
    first, steps = hull(FAMILY, KIND, {0: 0.001, 1: 0.0008, 2: 0.005}, 10.0)
    assert (1, [2]) == (first, [step.variant for step in steps])


def test_proteus_routes_rows_in_proportion() -> None:
    """Of eight batches of one row, a quarter's share gets two."""
    routes = Routes({0: 0.75, 1: 0.25})
    for _ in range(8):
        routes.had[routes.next()] += 1
    assert {0: 6, 1: 2} == routes.had


def test_proteus_waits_while_another_row_could_join() -> None:
    """A row of 40 ms waits until two of `large` (15 ms) just fit; full batches and heads that would break run."""
    rule = Proteus()
    state, decision = rule.decide(None, view(lane([0.04]), demand=demand(1)), 0.0)
    assert decision.plan is None
    assert decision.wake_at == pytest.approx(0.025)
    decision = rule.decide(state, view(lane([0.04]), demand=demand(1)), decision.wake_at)[1]
    assert ("large", 1) == chosen(decision)
    assert ("large", 8) == chosen(rule.decide(None, view(lane([0.1] * 8), demand=demand(1)), 0.0)[1])
    assert ("large", 4) == chosen(rule.decide(None, view(lane([0.027] * 5), demand=demand(1)), 0.0)[1])
    assert decision.plan is not None
    assert decision.plan.reason is Reason.MOST_ACCURATE
