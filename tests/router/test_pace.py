"""How fast a device is: what the batches of all families on it show together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.family import Family, VariantProfile
from router.latency import LatencyModel, table
from router.pace import FADE_AFTER_S, LEAST_PACE, MOST_PACE, Pace, Paces


def model(name: str, paces: Paces, device: str = "") -> LatencyModel:
    """One variant that takes a second a row."""
    family = Family(name, (VariantProfile("only", 0.9, table((1, 4), (1.0, 4.0))),), max_batch=4)
    return LatencyModel(family, 1.0, paces, device)


def test_what_families_show_together_a_new_one_knows() -> None:
    """Forty families of which each has run twice, at twice the time: none could know by itself."""
    paces = Paces()
    for number in range(40):
        one = model(str(number), paces)
        for turn in range(2):
            one.observe(0, 1, 0, 2.0, 2.0, 0.01 * (2 * number + turn))
    assert 1.5 < model("new", paces).planned_s(0, 1, 0) <= 2.0
    alone = model("alone", Paces())
    for turn in range(2):
        alone.observe(0, 1, 0, 2.0, 2.0, 0.01 * turn)
    assert alone.planned_s(0, 1, 0) < 1.2


def test_a_family_that_waits_plans_with_what_others_have_shown() -> None:
    """Its own batches are not needed for that, only that it is looked at."""
    paces = Paces()
    waits, runs = model("waits", paces), model("runs", paces)
    waits.relax_idle(0.0)
    for turn in range(100):
        runs.observe(0, 1, 0, 2.0, 2.0, 0.001 * turn)
    waits.relax_idle(0.05)
    assert waits.planned_s(0, 1, 0) == pytest.approx(paces.of("").factor)
    assert waits.planned_s(0, 1, 0) > 1.1


def test_devices_have_a_pace_each() -> None:
    """What makes one of them slow need not touch another."""
    paces = Paces()
    narrow = model("f", paces, "narrow")
    for turn in range(100):
        narrow.observe(0, 1, 0, 2.0, 2.0, 0.001 * turn)
    assert 1.0 == paces.of("wide").factor == model("g", paces, "wide").planned_s(0, 1, 0)
    assert paces.of("narrow").factor > 1.1


def test_one_whose_profile_is_wrong_misleads_others_by_little_and_not_for_long() -> None:
    """It takes five times as long as profiled, all the time; what another one has run itself counts for more."""
    paces = Paces()
    wrong, right = model("wrong", paces), model("right", paces)
    for turn in range(300):
        wrong.observe(0, 1, 0, 5.0, 5.0, 0.01 * turn)
    assert model("new", paces).planned_s(0, 1, 0) < 1.6
    for turn in range(300, 400):
        wrong.observe(0, 1, 0, 5.0, 5.0, 0.01 * turn)
        right.observe(0, 1, 0, 1.0, 1.0, 0.01 * turn)
    assert right.planned_s(0, 1, 0) == pytest.approx(1.0, rel=0.1)
    assert wrong.planned_s(0, 1, 0) == pytest.approx(5.0, rel=0.1)


def test_it_is_forgotten_once_nothing_runs() -> None:
    """What is refused because the machine was slow would never show that it is not any more."""
    pace = Pace()
    for turn in range(100):
        pace.learn(1.02, 0.01 * turn)
    learnt = pace.factor
    pace.fade(0.99 + FADE_AFTER_S)
    assert learnt == pace.factor
    pace.fade(0.99 + FADE_AFTER_S + 1.0)
    assert learnt**0.5 == pytest.approx(pace.factor)
    pace.fade(60.0)
    assert pytest.approx(1.0, abs=1e-6) == pace.factor


@given(st.lists(st.tuples(st.floats(0.9, 1.1), st.floats(0.0, 10.0), st.booleans()), max_size=300))
def test_it_stays_within_its_bounds(steps: list[tuple[float, float, bool]]) -> None:
    """Whatever is observed, and whenever it is looked at."""
    pace = Pace()
    for times, now, learns in steps:
        if learns:
            pace.learn(times, now)
        else:
            pace.fade(now)
        assert LEAST_PACE <= pace.factor <= MOST_PACE
