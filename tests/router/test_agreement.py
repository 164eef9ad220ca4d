"""Agreement: intervals that hold, drift that is found and not imagined, and what is believed after it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.agreement import Agreement, Expected, Rules, Share, corrected, expected_agreement, wilson
from router.family import Evidence, Family, VariantProfile
from router.latency import table
from router.sampling import fraction

TABLE = table((1,), (0.001,))
RULES = Rules(window_s=1000.0, margin=0.02, hold_s=60.0)


def family(evidence: Evidence | None) -> Family:
    return Family("f", (VariantProfile("small", 0.75, TABLE), VariantProfile("large", 0.85, TABLE)), evidence=evidence)


def drifting(rate: float, answers: int, seed: int = 0, expected: float = 0.9) -> list[bool]:
    """After each of these answers, one a second, which agree at that rate: does it drift?"""
    agreement = Agreement(("1", "large"), Expected(expected, 2000), RULES)
    random = np.random.default_rng(seed)
    found = []
    for second in range(answers):
        agreement.observe(bool(random.random() < rate), float(second))
        found.append(agreement.reading(float(second)).drifts)
    return found


@pytest.mark.parametrize(
    ("hits", "trials", "z", "expected"),
    [
        (8, 10, 1.96, (0.4902, 0.9433)),
        (0, 10, 1.96, (0.0, 0.2775)),
        (10, 10, 1.96, (0.7225, 1.0)),
        (0, 0, 1.96, (0, 1)),
    ],
)
def test_wilsons_interval(hits: int, trials: int, z: float, expected: tuple[float, float]) -> None:
    """As in tables of the score interval."""
    assert wilson(hits, trials, z) == pytest.approx(expected, abs=1e-4)


@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_holds_its_share(hits: int, trials: int) -> None:
    """Within [0, 1], and narrower the more is known."""
    hits = min(hits, trials)
    low, high = wilson(hits, trials)
    assert 0.0 <= low <= hits / trials + 1e-12
    assert hits / trials - 1e-12 <= high <= 1.0
    wider = wilson(hits / 4, trials / 4)
    assert high - low <= wider[1] - wider[0]


def test_the_truth_is_in_the_interval_as_often_as_it_says() -> None:
    """Of two thousand samples of 200 each, 99 in 100 intervals hold the true share."""
    hits = np.random.default_rng(1).binomial(200, 0.93, 2000)
    held = [low <= 0.93 <= high for low, high in (wilson(int(found), 200) for found in hits)]
    assert 0.98 <= np.mean(held) <= 1.0


def test_old_comparisons_count_less() -> None:
    """After one time constant they count for 1/e, and the share is that of what is left."""
    share = Share(10.0)
    share.add(0, 100, 0.0)
    share.add(50, 50, 10.0)
    hits, trials = share.at(10.0)
    assert [hits, trials] == pytest.approx([50.0, 50.0 + 100.0 / np.e])
    assert Share(10.0).at(5.0) == (0.0, 0.0)


def test_a_variant_that_agrees_less_drifts_after_a_while() -> None:
    """Three quarters instead of nine tenths: found within ten minutes, and not before it has lasted for one."""
    found = drifting(0.75, 600)
    assert found[-1]
    assert not any(found[:60])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [0.9, 0.89])
def test_chance_is_no_drift(seed: int, rate: float) -> None:
    """As expected, or off by less than the margin: three thousand looks find nothing."""
    assert not any(drifting(rate, 3000, seed))


def test_without_expectation_nothing_drifts_and_agreement_is_told() -> None:
    """A family without evidence has agreement all the same."""
    agreement = Agreement(("1", "large"), None, RULES)
    for second in range(200):
        agreement.observe(second % 2 == 0, float(second))
    reading = agreement.reading(500.0)
    assert (reading.expected, reading.drifts) == (None, False)
    assert reading.low < 0.5 < reading.high


def test_drift_ends_with_its_cause() -> None:
    """Once it agrees as expected for long, it drifts no more."""
    agreement = Agreement(("1", "large"), Expected(0.9, 2000), RULES)
    for second in range(600):
        agreement.observe(second % 2 == 0, float(second))
    assert agreement.reading(600.0).drifts
    for second in range(600, 8000):
        agreement.observe(second % 10 != 0, float(second))
    assert not agreement.reading(8000.0).drifts


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [(np.array([[0, 1, 2, 0], [0, 1, 0, 0]]), Expected(0.75, 4)), (None, None)],
)
def test_expected_agreement_is_that_of_the_evidence(
    predicted: np.typing.NDArray[np.int64] | None, expected: Expected | None
) -> None:
    """The share of its rows that both variants answered alike, wrong ones too; nothing where answers are not kept."""
    correct = np.array([[True, True, False, True], [True, True, False, False]])
    evidence = Evidence(correct, np.full((2, 4), 0.9, np.float32), predicted)
    assert expected_agreement(family(evidence), "small", "large") == expected
    assert expected_agreement(family(evidence), "nobody", "large") is None
    assert expected_agreement(family(None), "small", "large") is None


@given(st.floats(0.0, 1.0))
def test_a_family_is_corrected_with_its_evidence(lost: float) -> None:
    """Quality and share of right rows fall by what is lost, of that variant alone, and never below nothing."""
    correct = np.arange(200) < np.array([[150], [170]])
    evidence = Evidence(correct, np.tile(np.linspace(0.99, 0.4, 200, dtype=np.float32), (2, 1)))
    before = family(evidence)
    after = corrected(before, {"small": lost})
    assert after.variants[1] == before.variants[1]
    assert after.variants[0].quality == pytest.approx(max(0.0, 0.75 - lost))
    assert after.evidence is not None
    assert after.evidence.correct.mean(axis=1) == pytest.approx([max(0.0, 0.75 - lost), 0.85], abs=0.0051)
    assert corrected(before, {}) is before


def test_a_name_falls_where_it_always_fell() -> None:
    """A tenth of the names lies under a tenth, another purpose draws others, and nothing changes between processes."""
    names = [f"request-{number}" for number in range(20_000)]
    drawn = {name for name in names if fraction(name, "audit") < 0.1}
    other = {name for name in names if fraction(name, "canary") < 0.1}
    assert len(drawn) == pytest.approx(2000, abs=200)
    assert len(drawn & other) == pytest.approx(200, abs=60)
    assert fraction("request-1", "audit") == pytest.approx(0.9772, abs=1e-4)
    assert 0.0 <= min(fraction(name, "audit") for name in names)
