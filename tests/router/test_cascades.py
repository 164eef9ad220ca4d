"""Cascades: gains on held-out rows, from which confidence on they pay, and the operating points that result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from router.cascades import PRICES, WORTH_KEEPING, Cascades, Prices, decreasing, upper_hull
from router.family import Evidence, Family, VariantProfile
from router.latency import table

Floats = NDArray[np.float64]

ROWS = 500
FIRST_S = np.array([0.001, 0.004, 0.010])
STEP_S = np.array([[0.0, 0.004, 0.010], [0.0, 0.0, 0.010], [0.0, 0.0, 0.0]])

values = st.integers(1, 12).flatmap(lambda n: arrays(np.float64, n, elements=st.floats(-1.0, 1.0)))


def family(correct: NDArray[np.bool_], confidence: Floats) -> Family:
    """Variants of these answers; their qualities are those of the rows, made strictly rising."""
    shares = np.maximum.accumulate(correct.mean(axis=1)) + 1e-6 * np.arange(len(correct))
    variants = tuple(
        VariantProfile(f"v{rung}", float(share), table((1, 8), (0.001 * (rung + 1), 0.004 * (rung + 1))))
        for rung, share in enumerate(shares)
    )
    return Family("f", variants, max_batch=8, evidence=Evidence(correct, confidence.astype(np.float32)))


def drawn(seed: int, rungs: int = 3, rows: int = ROWS, *, ties: bool = False) -> Family:
    """Variants whose confidence is about their chance to be right on rows of all difficulties."""
    rng = np.random.default_rng(seed)
    easy = rng.normal(size=rows)
    chance = 1.0 / (1.0 + np.exp(-1.5 * (easy + np.arange(rungs)[:, None])))
    confidence = np.clip(chance + rng.normal(scale=0.05, size=chance.shape), 0.01, 1.0)
    return family(rng.random(chance.shape) < chance, np.round(confidence, 1 if ties else 9))


def followed(cascades: Cascades, prices: Prices, evidence: Evidence, at: int) -> tuple[Floats, Floats]:
    """Row by row and step by step: mean further seconds and quality of rows that start at each rung."""
    rungs, rows = evidence.correct.shape
    later_s, quality = np.zeros(rungs), np.zeros(rungs)
    bins = [cascades.bins_of(rung, evidence.confidence[rung]) for rung in range(rungs)]
    for start in range(rungs):
        for row in range(rows):
            rung, spent_s = start, 0.0
            while True:
                net = {
                    other: prices.gain[at, rung, other, bins[rung][row]] - prices.price[at] * STEP_S[rung, other]
                    for other in range(rung + 1, rungs)
                }
                best = max(net, key=lambda other: net[other], default=rung)
                if not net or net[best] <= 0.0:
                    break
                spent_s += STEP_S[rung, best]
                rung = best
            later_s[start] += spent_s / rows
            quality[start] += evidence.correct[rung, row] / rows
    return later_s, quality


@given(values, st.data())
def test_decreasing_never_rises_and_keeps_the_weighted_sum(given_values: Floats, data: st.DataObject) -> None:
    """Pooling replaces rows by their mean: the sum over all rows stays."""
    weights = data.draw(arrays(np.float64, len(given_values), elements=st.floats(0.1, 10.0)))
    found = decreasing(given_values, weights)
    assert np.all(np.diff(found) <= 1e-12)
    assert found @ weights == pytest.approx(given_values @ weights)


@given(values)
def test_decreasing_leaves_what_already_falls(given_values: Floats) -> None:
    """What is monotone is its own nearest monotone sequence."""
    falling = np.sort(given_values)[::-1]
    assert falling.tolist() == decreasing(falling, np.ones(len(falling))).tolist()


@given(values, st.data())
def test_decreasing_is_the_nearest_such_sequence(given_values: Floats, data: st.DataObject) -> None:
    """No other falling sequence has a smaller weighted squared distance."""
    weights = data.draw(arrays(np.float64, len(given_values), elements=st.floats(0.1, 10.0)))
    other = np.sort(data.draw(arrays(np.float64, len(given_values), elements=st.floats(-1.0, 1.0))))[::-1]
    found = decreasing(given_values, weights)
    assert weights @ (found - given_values) ** 2 <= weights @ (other - given_values) ** 2 + 1e-9


def test_an_empty_bin_takes_the_place_of_its_neighbours() -> None:
    """A weight of nothing pulls nobody."""
    assert [0.3, 0.3, 0.2] == decreasing(np.array([0.0, 0.3, 0.2]), np.array([0.0, 1.0, 1.0])).tolist()


@given(st.lists(st.tuples(st.floats(0.001, 10.0), st.floats(0.0, 1.0)), min_size=1, max_size=12))
def test_the_hull_is_concave_and_above_all_points(points: list[tuple[float, float]]) -> None:
    """From (0, 0) on it rises ever less steeply, ends at the best value, and touches only given points."""
    cost, value = np.array(points).T
    seconds, quality = upper_hull(cost, value)
    assert (seconds[0], quality[0]) == (0.0, 0.0)
    assert quality[-1] == max(0.0, value.max())
    assert np.all(np.diff(seconds) > 0.0)
    assert np.all(np.diff(quality) > 0.0)
    slopes = np.diff(quality) / np.diff(seconds)
    assert np.all(np.diff(slopes) <= 1e-6 * slopes[:-1])
    assert np.all(np.interp(cost, seconds, quality) >= value - 1e-6)
    assert set(zip(seconds[1:].tolist(), quality[1:].tolist(), strict=True)) <= set(points)


def test_a_variant_right_exactly_when_sure_gains_only_where_it_is_unsure() -> None:
    """The unsure half is all wrong, and all right at the better variant: it gains 1, the sure half nothing."""
    right = np.stack([np.arange(100) < 50, np.ones(100, np.bool_)])
    sure = np.stack([np.linspace(0.99, 0.40, 100), np.full(100, 0.99)])
    cascades = Cascades(family(right, sure))
    prices = cascades.prices(FIRST_S[:2], STEP_S[:2, :2])
    assert cascades.bins == 4
    at = prices.index(100.0)
    assert [1.0, 1.0, 0.0, 0.0] == prices.gain[at, 0, 1].tolist()
    median = float(np.median(sure[0].astype(np.float32)))
    assert (prices.go[at, 0, 1], prices.keep[at, 0]) == (pytest.approx(median), pytest.approx(median))
    # Half of the rows go on, and then all are right.
    assert (prices.later_s[at, 0], prices.quality[at, 0]) == (pytest.approx(0.002), pytest.approx(1.0))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_going_on_is_rarer_the_dearer_time_is(seed: int, ties: bool) -> None:
    """At the highest price nobody goes on; limits and further seconds only fall on the way there."""
    prices = Cascades(drawn(seed, ties=ties)).prices(FIRST_S, STEP_S)
    assert not prices.go[-1].any()
    assert not prices.later_s[-1].any()
    assert np.all(np.diff(prices.price) > 0.0)
    assert np.all(np.diff(prices.gain, axis=0) <= 1e-12)
    assert np.all(prices.keep[1:] <= prices.keep[:-1])


@pytest.mark.parametrize("seed", range(3))
def test_at_the_lowest_price_every_bin_that_gains_goes_on(seed: int) -> None:
    """There the dearest step costs no more than the least gain worth keeping an answer for."""
    cascades = Cascades(drawn(seed))
    prices = cascades.prices(FIRST_S, STEP_S)
    assert prices.price[0] * STEP_S.max() <= WORTH_KEEPING + 1e-12
    for v1, v2 in ((0, 1), (0, 2), (1, 2)):
        for place in range(cascades.bins):
            gains = prices.gain[0, v1, v2, place] > prices.price[0] * STEP_S[v1, v2]
            middle = (np.array([0.0, *cascades.edges[v1]]) + np.array([*cascades.edges[v1], 1.0]))[place] / 2
            assert gains == (middle < prices.go[0, v1, v2])


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("at", [0, PRICES // 3, PRICES // 2, PRICES - 1])
@pytest.mark.parametrize(("rungs", "off"), [(2, 1e-9), (3, 0.01)])
def test_seconds_and_quality_are_those_of_the_rule_followed_row_by_row(
    rungs: int, off: float, at: int, ties: bool
) -> None:
    """Each held-out row is taken from exit to exit by hand: exact for one step, nearly so for two."""
    drawn_family = drawn(7, rungs, ties=ties)
    cascades = Cascades(drawn_family)
    prices = cascades.prices(FIRST_S[:rungs], STEP_S[:rungs, :rungs])
    assert drawn_family.evidence is not None
    later_s, quality = followed(cascades, prices, drawn_family.evidence, at)
    assert later_s.tolist() == pytest.approx(prices.later_s[at].tolist(), abs=off * STEP_S.max())
    assert quality.tolist() == pytest.approx(prices.quality[at].tolist(), abs=off)


def test_the_limit_of_a_bin_divides_confidences_as_the_bins_do() -> None:
    """A row goes on by its confidence exactly where its bin does."""
    drawn_family = drawn(3)
    cascades = Cascades(drawn_family)
    prices = cascades.prices(FIRST_S, STEP_S)
    assert drawn_family.evidence is not None
    at = prices.index(30.0)
    confidences = drawn_family.evidence.confidence[0].tolist()
    for confidence, place in zip(confidences, cascades.bins_of(0, confidences), strict=True):
        net = prices.gain[at, 0, 2, place] - prices.price[at] * STEP_S[0, 2]
        assert (net > 0.0) == (confidence < prices.go[at, 0, 2])


def test_the_chance_to_go_on_from_the_next_variant_counts() -> None:
    """The middle variant is no better, but knows which rows the last one has to answer."""
    rows = np.arange(400)
    wrong = rows < 100
    right = np.stack([~wrong, ~wrong, np.ones(400, np.bool_)])
    # The first is unsure of half of the rows, the second of the wrong quarter alone.
    sure = np.stack([np.where(rows < 200, 0.5, 0.9), np.where(wrong, 0.5, 0.9), np.full(400, 0.9)])
    cascades = Cascades(family(right, sure))
    step_s = np.array([[0.0, 0.001, 0.010], [0.0, 0.0, 0.010], [0.0, 0.0, 0.0]])
    prices = cascades.prices(FIRST_S, step_s)
    at = prices.index(50.0)
    price = prices.price[at]
    (unsure,) = cascades.bins_of(0, [0.5])
    # Half of the rows that the first is unsure of gain 1 less the price of the last step.
    assert prices.gain[at, 0, 1, unsure] == pytest.approx(0.5 * (1.0 - price * 0.010))
    assert prices.later_s[at, 0] == pytest.approx(0.5 * 0.001 + 0.25 * 0.010)
    assert prices.quality[at, 0] == pytest.approx(1.0)


def test_many_rows_of_the_least_confidence_still_count_the_chance_to_go_on() -> None:
    """Ties leave the lowest bins empty; the rows above them are none the worse for it."""
    rows = np.arange(400)
    right = rows >= np.array([[300], [300], [0]])
    sure = np.tile(np.where(rows < 300, 0.5, 0.9), (3, 1))
    prices = Cascades(family(right, sure)).prices(FIRST_S, STEP_S)
    assert np.all(prices.gain[0, 0, 1, :10] > 0.9)


def test_quality_of_rows_that_go_on_is_never_had_for_a_first_answer() -> None:
    """Where steps are so cheap that going on pays at any price, the first corner has their seconds in it."""
    cascades = Cascades(drawn(5))
    prices = cascades.prices(np.array([0.010, 0.011, 0.012]), STEP_S / 100.0)
    assert prices.later_s[-1, 0] > 0.0
    seconds, quality = prices.hull(0)
    assert seconds[1] > 0.010
    assert quality[1] > prices.alone[0] == cascades.quality[0]


def test_the_hull_starts_at_the_lowest_variant_allowed() -> None:
    """With a floor the cheapest point is the floor's variant, and the end is the best of all."""
    cascades = Cascades(drawn(2))
    prices = cascades.prices(FIRST_S, STEP_S)
    for lowest in range(3):
        seconds, quality = prices.hull(lowest)
        assert seconds[1] >= FIRST_S[lowest]
        assert quality[-1] == pytest.approx(max(cascades.quality[lowest:].max(), prices.quality[:, lowest:].max()))


@pytest.mark.parametrize("follow", [True, False])
def test_without_evidence_or_the_wish_there_are_no_cascades(follow: bool) -> None:
    """Rows are answered once; qualities are those of the profiles."""
    known = drawn(1)
    bare = known if not follow else Family(known.name, known.variants, max_batch=8)
    cascades = Cascades(bare, follow=follow)
    prices = cascades.prices(FIRST_S, STEP_S)
    assert [variant.quality for variant in bare.variants] == pytest.approx(prices.quality[0].tolist())
    assert not prices.go.any()
    assert not prices.keep.any()
    assert not prices.later_s.any()


def test_one_variant_alone_has_one_point() -> None:
    """There is nothing to go on to."""
    prices = Cascades(drawn(1, rungs=1)).prices(FIRST_S[:1], STEP_S[:1, :1])
    seconds, quality = prices.hull(0)
    assert (len(seconds), seconds[1], quality[1]) == (2, pytest.approx(0.001), pytest.approx(prices.alone[0]))
    assert not prices.keep.any()


@pytest.mark.parametrize(("price", "index"), [(0.0, 0), (1e9, PRICES - 1)])
def test_prices_off_the_grid_take_its_end(price: float, index: int) -> None:
    """A price of nothing is the lowest, any excess the highest."""
    assert index == Cascades(drawn(1)).prices(FIRST_S, STEP_S).index(price)


@given(st.floats(1e-3, 1e4))
def test_a_price_takes_the_nearest_of_the_grid(price: float) -> None:
    """Nearest in the ratio of prices."""
    prices = Cascades(drawn(1, rows=50)).prices(FIRST_S, STEP_S)
    distance = np.abs(np.log(prices.price / price))
    assert distance[prices.index(price)] == pytest.approx(distance.min())
