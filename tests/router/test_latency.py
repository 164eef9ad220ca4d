"""The latency model: interpolation, planning margin, and learning from what is observed."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.family import Family, VariantProfile
from router.latency import LatencyModel, table
from router.pace import FADE_AFTER_S


def model(*medians: tuple[float, ...], batches: tuple[int, ...] = (1, 4), margin: float = 1.0) -> LatencyModel:
    variants = tuple(VariantProfile(f"v{i}", 0.5 + i / 10, table(batches, row)) for i, row in enumerate(medians))
    return LatencyModel(Family("f", variants, max_batch=8), margin)


@pytest.mark.parametrize(("batch", "seconds"), [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (8, 8.0)], ids=str)
def test_seconds_between_and_beyond_measured_batches_follow_the_line(batch: int, seconds: float) -> None:
    """Batches between two measured ones are interpolated, those beyond the last follow its slope."""
    assert model((1.0, 4.0)).planned_s(0, batch, 0) == pytest.approx(seconds)


def test_the_quickest_answer_is_that_of_the_quickest_variant_and_device() -> None:
    """A row of the smallest size class, measured; of one variant where one is named."""
    slow = VariantProfile("slow", 0.9, table((1, 4), (0.004, 0.01), (0.008, 0.02)))
    quick = VariantProfile("quick", 0.8, table((1, 4), (0.003, 0.01), (0.006, 0.02)))
    assert (0.003, 0.004) == (Family("f", (quick, slow)).quickest_s(), Family("f", (quick, slow)).quickest_s(1))
    there = replace(slow, elsewhere=(("other", table((1, 4), (0.001, 0.002), (0.002, 0.004))),))
    assert (0.001, 0.001, 0.003) == tuple(Family("f", (quick, there)).quickest_s(one) for one in (None, 1, 0))
    alike = Family("f", (quick,))
    assert [0.003, 0.003, 0.02, 0.01] == pytest.approx(
        [alike.quickest_s(rows=rows, slots=slots) for rows, slots in ((1, 1), (1, 2), (8, 1), (8, 2))]
    ), "of many rows, each takes no less than in the batch that makes them cheapest"


def test_a_larger_batch_is_never_planned_shorter() -> None:
    """A measurement that got quicker with the batch is noise and does not make plans shrink."""
    noisy = model((1.0, 0.5))
    assert [noisy.planned_s(0, batch, 0) for batch in (1, 2, 4, 8)] == [1.0, 1.0, 1.0, 1.0]


def test_the_margin_multiplies_every_plan() -> None:
    """Plans are the corrected median times the margin."""
    assert model((1.0, 4.0), margin=1.5).planned_s(0, 4, 0) == pytest.approx(6.0)


def test_clearing_counts_full_batches_and_the_rest() -> None:
    """Ten rows in batches of at most eight cost a batch of eight and one of two."""
    assert model((1.0, 4.0)).clearing_s(0, 10, 0) == pytest.approx(8.0 + 2.0)


@pytest.mark.parametrize(("seconds", "batch"), [(0.5, 0), (1.0, 1), (3.9, 3), (100.0, 5)])
def test_largest_batch_within_a_time(seconds: float, batch: int) -> None:
    """The largest batch that fits, none where a single row does not, never more than asked for."""
    assert model((1.0, 4.0)).largest_batch_within(0, 0, seconds, 5) == batch


def test_economical_batch_stops_where_rows_get_no_cheaper() -> None:
    """Linear cost: one row. Mostly fixed cost: as many as are allowed."""
    both = model((1.0, 4.0), (1.0, 1.1))
    assert [both.economical_batch[variant][0] for variant in (0, 1)] == [1, 8]


@pytest.mark.parametrize("slowdown", [0.5, 1.3, 2.0, 6.0])
def test_a_machine_of_another_speed_is_learnt(slowdown: float) -> None:
    """After 400 batches the plan is within 3 % of what they take, also at six times the profile."""
    learner = model((1.0, 4.0))
    for _ in range(400):
        learner.observe(0, 1, 0, slowdown, slowdown, 0.0)
    assert learner.quickened == pytest.approx(min(1.0, learner.planned_run_s(0, 1, 0)))
    assert learner.planned_s(0, 1, 0) == pytest.approx(slowdown, rel=0.03)


def test_a_straggler_moves_the_plan_by_less_than_a_quarter() -> None:
    """One batch that took a hundred times as long counts for at most three times."""
    learner = model((1.0, 4.0))
    learner.observe(0, 1, 0, 100.0, 100.0, 0.0)
    assert 1.0 < learner.planned_s(0, 1, 0) < 1.25


def test_what_a_batch_costs_beside_the_model_is_learnt_as_seconds() -> None:
    """A hand-over of half a millisecond is added to every plan, not multiplied into it."""
    learner = model((0.001, 0.004))
    for _ in range(400):
        learner.observe(0, 1, 0, 0.001, 0.0015, 0.0)
    assert learner.planned_s(0, 1, 0) == pytest.approx(0.0015, rel=0.01)
    assert learner.planned_s(0, 8, 0) == pytest.approx(0.0085, rel=0.01)
    assert learner.planned_run_s(0, 8, 0) == pytest.approx(0.008, rel=0.01)


def test_a_slow_machine_is_learnt_for_variants_that_did_not_run() -> None:
    """What one variant shows of the machine raises the plans of the others too."""
    learner = model((1.0, 4.0), (2.0, 8.0))
    for _ in range(400):
        learner.observe(0, 1, 0, 2.0, 2.0, 0.0)
    assert learner.correction(1) > 1.2


@pytest.mark.parametrize("spread", [0.1, 0.3, 0.6])
def test_noise_of_one_variant_teaches_nothing_of_the_others(spread: float) -> None:
    """After 50,000 batches of one, which take as long as profiled on average, the others' plans are what they were."""
    learner = model((1.0, 4.0), (2.0, 8.0))
    noise = random.Random(0)
    for _ in range(50_000):
        learner.observe(0, 1, 0, noise.lognormvariate(0.0, spread), 0.0, 0.0)
    assert learner.correction(1) == pytest.approx(1.0, abs=0.2)
    assert learner.correction(0) == pytest.approx(1.0, abs=0.5)


@given(st.lists(st.floats(1e-3, 1e3), max_size=200))
def test_what_one_variant_shows_moves_the_others_by_less(ratios: list[float]) -> None:
    """Whatever its batches took: the others are believed to be faster or slower as it is, and by less."""
    learner = model((1.0, 4.0), (2.0, 8.0))
    for ratio in ratios:
        learner.observe(0, 1, 0, ratio, ratio, 0.0)
    own, other = math.log(learner.correction(0)), math.log(learner.correction(1))
    assert abs(other) <= 0.5 * abs(own) + 1e-9
    assert own * other >= -1e-9


@given(
    st.lists(st.floats(1e-5, 10.0), min_size=2, max_size=2),
    st.lists(st.tuples(st.integers(1, 8), st.floats(1e-6, 100.0)), max_size=50),
)
def test_plans_stay_positive_and_monotone_whatever_is_observed(
    medians: list[float], seen: list[tuple[int, float]]
) -> None:
    """No observation makes a plan zero, negative, infinite or decreasing in the batch."""
    learner = model((medians[0], medians[1]))
    for batch, seconds in seen:
        learner.observe(0, batch, 0, seconds, 2 * seconds, 0.0)
    plans = [learner.planned_s(0, batch, 0) for batch in range(1, 9)]
    assert all(0.0 < plan < float("inf") for plan in plans)
    assert plans == sorted(plans)


def test_what_is_learnt_fades_from_when_it_was_last_confirmed() -> None:
    """After a minute without a pause, in which nobody asks for it, a second of rest takes nothing away."""
    learner = model((1.0, 4.0))
    learner.relax(0.0)
    for second in range(60):
        learner.observe(0, 1, 0, 3.0, 3.0, float(second))
    learnt = learner.correction(0)
    learner.relax(59.0 + FADE_AFTER_S + 0.01)
    assert learner.correction(0) == pytest.approx(learnt, rel=0.02)
    learner.relax(59.0 + FADE_AFTER_S + 10.0)
    assert learner.correction(0) < 1.0 + 0.1 * (learnt - 1.0)


@pytest.mark.parametrize(
    ("rows", "times", "expected"), [(1, 1.0, 2.0), (2, 1.0, 1.25), (4, 1.0, 1.0), (1, 2.0, 4.0), (1, 100.0, 8.0)]
)
def test_rows_in_small_or_slow_batches_stretch(rows: int, times: float, expected: float) -> None:
    """Alone a row takes 2 s, among four 1 s: what it took of late over that, at least 1 and at most `MOST_STRETCH`."""
    variant = VariantProfile("v", 0.5, table((1, 2, 4), (2.0, 2.5, 4.0)))
    learner = LatencyModel(Family("f", (variant,), max_batch=4), 1.0)
    took_s = learner.median_s(0, rows, 0)
    for _ in range(100):
        # What is believed of the machine shall not move: a batch that is slower than its model is slow beside it.
        learner.observe(0, rows, 0, took_s, took_s * times, 0.0)
        learner.overhead_s = 0.0
    assert expected == pytest.approx(learner.stretch, rel=0.01)


def test_a_batch_that_goes_on_says_nothing_of_the_stretch() -> None:
    """It is no row's cheapest answer."""
    learner = model((1.0, 1.1), (2.0, 2.2))
    learner.observe(1, 1, 0, 2.0, 2.0, 0.0, start=0)
    assert 1.0 == learner.stretch


def test_a_stretch_stays_while_nobody_asks() -> None:
    """Whose rows come one by one, minutes apart, is who it is for."""
    learner = model((1.0, 1.1))
    for number in range(50):
        learner.observe(0, 1, 0, 1.0, 1.0, float(number))
    before = learner.stretch
    assert before > 2.0
    for later_s in (0.0, FADE_AFTER_S + 1000.0):
        learner.relax(50.0 + later_s)
    assert before == learner.stretch
