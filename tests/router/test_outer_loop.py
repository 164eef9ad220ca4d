"""The outer loop's rule: when it becomes careful, when it lets go, and that nothing takes it out of bounds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.contract import Hints
from router.outer_loop import FamilyReading, OuterLoop, Readings, Rule, valid_share

RULE = Rule()
TARGETS = {"f": 0.99}
SHARES = st.none() | st.floats(0.0, 1.0)
READING = st.builds(FamilyReading, SHARES, SHARES, SHARES)


def after(*readings: FamilyReading, pressures: tuple[float | None, ...] = ()) -> list[float]:
    """The caution for `f` after each reading."""
    loop = OuterLoop(60.0)
    pressed = pressures or (None,) * len(readings)
    return [
        loop.read(Readings({"f": reading}, pressure), TARGETS, float(now)).caution.get("f", 1.0)
        for now, (reading, pressure) in enumerate(zip(readings, pressed, strict=True))
    ]


@pytest.mark.parametrize(
    ("reading", "rises"),
    [
        (FamilyReading(0.02, 0.02, 0.3), True),
        (FamilyReading(0.02, 0.02, None), True),
        (FamilyReading(0.0101, 0.0101, 0.3), True),
        (FamilyReading(0.02, 0.005, 0.3), False),
        (FamilyReading(0.005, 0.02, 0.3), False),
        (FamilyReading(0.02, 0.02, 0.95), False),
        (FamilyReading(None, 0.02, 0.3), False),
        (FamilyReading(0.02, None, 0.3), False),
        (FamilyReading(0.0, 0.0, 0.0), False),
        (FamilyReading(), False),
    ],
    ids=[
        "both windows burn",
        "nothing known of downgrades",
        "just over the target",
        "only the short one",
        "only the long one",
        "nothing left to give",
        "no short window",
        "no long window",
        "all in time",
        "nothing known",
    ],
)
def test_caution_rises_only_while_both_windows_burn_and_there_is_something_to_give(
    reading: FamilyReading, rises: bool
) -> None:
    """From 1, one reading makes one step or none."""
    assert [RULE.up if rises else 1.0] == after(reading)


def test_caution_rises_to_its_bound_holds_between_and_falls_slowly() -> None:
    """A budget that burns, then one that is spent evenly, then a calm one."""
    burning, even, calm = FamilyReading(0.1, 0.1), FamilyReading(0.008, 0.02), FamilyReading(0.004, 0.02)
    found = after(*[burning] * 10, even, even, calm, *[calm] * 40)
    assert [RULE.most, RULE.most, RULE.most, RULE.most / RULE.down] == pytest.approx(found[9:13])
    assert sorted(found[12:], reverse=True) == found[12:]
    assert 1.0 == found[-1]


def test_overload_lets_caution_go_again() -> None:
    """Where answers are the cheapest variant's, care gives nothing back: the caution falls though the budget burns."""
    found = after(FamilyReading(0.1, 0.1, 0.2), *[FamilyReading(0.5, 0.5, 1.0)] * 5)
    assert RULE.up == found[0]
    assert 1.0 == found[-1]


def test_a_family_that_is_no_longer_known_is_let_go() -> None:
    """Readings without it are followed by less caution, step by step."""
    loop = OuterLoop(60.0)
    loop.read(Readings({"f": FamilyReading(0.1, 0.1)}), TARGETS, 0.0)
    assert {"f": pytest.approx(RULE.up / RULE.down)} == loop.read(Readings({}), TARGETS, 1.0).caution


@pytest.mark.parametrize(("away_s", "remembered"), [(60.0, True), (60.1, False), (10_800.0, False)])
def test_caution_that_was_forgotten_does_not_come_back(away_s: float, remembered: bool) -> None:
    """After an outage longer than advice holds, a calm reading is no reason for any."""
    loop = OuterLoop(60.0)
    burning, calm = (Readings({"f": FamilyReading(share, share, 0.0)}) for share in (0.5, 0.0))
    for now in range(10):
        loop.read(burning, TARGETS, float(now))
    assert remembered == ("f" in loop.read(calm, TARGETS, 9.0 + away_s).caution)


def test_budgets_are_each_familys_own() -> None:
    """The same share of late requests burns a tight target's budget and not a loose one's; others are passed over."""
    loop = OuterLoop(60.0)
    reading = FamilyReading(0.02, 0.02)
    hints = loop.read(Readings(dict.fromkeys("abc", reading)), {"a": 0.99, "b": 0.9}, 5.0)
    assert Hints(5.0, 60.0, {"a": RULE.up}) == hints


@pytest.mark.parametrize(
    ("pressures", "expected"),
    [
        ((0.6, 0.4, 0.2, 0.4), (True, True, False, False)),
        ((0.4, 0.6, None, 0.4), (False, True, False, False)),
    ],
)
def test_pressure_has_hysteresis_and_is_nothing_where_it_is_unknown(
    pressures: tuple[float | None, ...], expected: tuple[bool, ...]
) -> None:
    """Pressed from one half on, until under 0.3 again."""
    found = after(*[FamilyReading()] * len(pressures), pressures=pressures)
    assert [RULE.under_pressure if pressed else 1.0 for pressed in expected] == found


@given(st.lists(st.tuples(READING, SHARES), max_size=60))
def test_whatever_is_read_caution_is_within_its_bounds_and_moves_by_a_step(
    read: list[tuple[FamilyReading, float | None]],
) -> None:
    """Also where readings contradict each other; what pressure adds comes and goes at once."""
    found = after(*[reading for reading, _ in read], pressures=tuple(pressure for _, pressure in read))
    largest = max(RULE.up, RULE.under_pressure)
    for before, now in zip([1.0, *found], found, strict=False):
        assert 1.0 <= now <= RULE.most
        assert now <= before * largest + 1e-12
        assert now >= before / largest - 1e-12


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, True), (1.0, True), (-0.001, False), (1.001, False), (math.nan, False), (math.inf, False)],
)
def test_a_share_is_a_number_from_0_to_1(value: float, expected: bool) -> None:
    """Anything else is no reading."""
    assert expected == valid_share(value)
