"""Tables of prices in step with learnt latencies: scaled together, made anew where variants drift apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cascades import PRICES, Cascades
from router.demand import DemandKey
from router.family import Evidence, Family, VariantProfile
from router.latency import LatencyModel, table
from router.worth import DRIFT, RECHECK_S, TIMES_ABOVE, Offer, Table
from tests.queued import FAMILY

KEY = DemandKey("f", -1, 0, 0)


def made(slo_s: float = 0.1) -> Table:
    return Table(Cascades(FAMILY), LatencyModel(FAMILY, 1.0), 0, slo_s, 0.0)


def observe(table: Table, variants: tuple[int, ...], times: float, batches: int = 300) -> None:
    """Batches of these variants take so many times what is profiled."""
    for number in range(batches):
        for variant in variants:
            seconds = times * table.latency.median_s(variant, 1, 0)
            table.latency.observe(variant, 1, 0, seconds, seconds, 0.001 * number)


def test_first_answers_are_planned_in_batches_that_fit_a_third_of_the_slo() -> None:
    """Of 1 + b, 2 + 3 b and 5 + 5 b ms, 8, 3 and 1 rows fit 12 ms."""
    expected = [TIMES_ABOVE * seconds for seconds in (0.009 / 8, 0.011 / 3, 0.010)]
    assert expected == pytest.approx(made(0.036).prices.first_s.tolist())


def test_one_row_is_planned_where_none_fits() -> None:
    """Under an SLO of 3 ms no batch fits a third of it."""
    assert [TIMES_ABOVE * seconds for seconds in (0.002, 0.005, 0.010)] == pytest.approx(made(0.003).prices.first_s)


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize(("slo_s", "batch"), [(0.01, 1), (0.061, 3), (0.1, 5), (1.0, 8)])
def test_going_on_is_planned_in_batches_that_fit_a_third_of_the_slo(slo_s: float, batch: int, staged: bool) -> None:
    """All rows go on because `small` is always wrong: anew at the price of a first answer, or by what a stage adds."""
    small, _, large = FAMILY.variants
    # By stages the same 5 + 5 b ms come on top of the 1 + b of `small`.
    whole = VariantProfile("deep", 0.9, table((1, 8), (0.012, 0.054)), ("a", "b"))
    answers = Evidence(np.tile([[False], [True]], 100), np.full((2, 100), 0.5, np.float32))
    family = Family("f", (small, whole if staged else large), max_batch=8, evidence=answers)
    prices = Table(Cascades(family), LatencyModel(family, 1.0), 0, slo_s, 0.0).prices
    times = 1.0 if staged else TIMES_ABOVE
    assert prices.later_s[0, 0] == pytest.approx(times * (0.005 + 0.005 * batch) / batch)


def test_going_on_by_shared_stages_costs_what_they_add() -> None:
    """`middle` begins with `small`, `large` is a network of its own."""
    table = made()
    assert [0.003, 0.010, 0.010] == pytest.approx([table.step_s(0, 1, 1), table.step_s(0, 2, 1), table.step_s(1, 2, 1)])


def test_a_common_slowdown_scales_seconds_and_makes_nothing_anew() -> None:
    """Twice as slow: the same table, dearer hulls, and a price of time that reads half as high."""
    table = made()
    prices, index = table.prices, table.index(50.0)
    observe(table, (0, 1, 2), 2.0)
    assert table.refresh(1.0)
    assert table.prices is prices
    assert table.scale == pytest.approx(2.0, rel=0.02)
    assert index == table.index(50.0 / table.scale)
    assert table.offers(KEY, index)[0].later_s == pytest.approx(table.scale * prices.later_s[index, 0])


def test_a_variant_that_drifts_from_the_others_prices_the_known_rules_anew() -> None:
    """Only `large` is twice as slow: the same rules at new seconds, in the units in which they were first made."""
    table = made()
    prices = table.prices
    observe(table, (2,), 2.0)
    observe(table, (0, 1), 1.0)
    seconds = np.array([table.latency.planned_s(variant, 8, 0) for variant in range(3)])
    assert seconds.max() / seconds.min() > (1.0 + DRIFT) * 0.045 / 0.009
    assert table.refresh(1.0)
    times = seconds / (0.009, 0.026, 0.045)
    assert table.scale == pytest.approx(np.prod(times) ** (1 / 3))
    for variant in (0, 2):
        batch = table.latency.largest_batch_within(variant, 0, 0.1 / 3.0, 8)
        expected_s = TIMES_ABOVE * table.latency.planned_s(variant, batch, 0) / batch
        assert table.scale * table.prices.first_s[variant] == pytest.approx(expected_s)
    assert table.prices.price.tolist() == prices.price.tolist()
    assert table.prices.moves is prices.moves
    # Seen from `small`, of which the seconds are as before, `large` is for fewer rows at a price of today.
    before, after = prices.go[made().index(30.0), 0, 2], table.prices.go[table.index(30.0), 0, 2]
    assert after < before
    assert not table.refresh(2.0)


def test_seconds_that_drift_back_bring_the_first_table_back() -> None:
    """However often it was priced anew in between, it stays in the same units."""
    table = made()
    prices = table.prices
    for number, times in enumerate((2.0, 0.5, 3.0, 1.0)):
        for _ in range(5):
            observe(table, (2,), times)
            observe(table, (0, 1), 1.0)
        table.refresh(1.0 + number)
    assert table.scale == pytest.approx(1.0, rel=0.05)
    assert table.prices.first_s == pytest.approx(prices.first_s, rel=0.05)
    assert np.allclose(table.prices.go, prices.go, atol=0.05)


@pytest.mark.parametrize(("slo_s", "follows"), [(0.036, True), (0.099, False), (0.07, False), (0.3, True)])
def test_a_table_follows_the_slo(slo_s: float, follows: bool) -> None:
    """Made for 100 ms: batches are those of another SLO from half as much more or a third less on."""
    table = made(0.1)
    assert follows == table.refresh(1.0, slo_s)
    assert table.prices.first_s == pytest.approx(made(slo_s if follows else 0.1).prices.first_s)
    assert table.scale == 1.0
    assert not table.refresh(2.0, slo_s)


def test_a_table_that_follows_the_slo_keeps_to_seconds_as_learnt() -> None:
    """Three times as slow, and then for 39 ms: batches that fit a third of it at today's seconds."""
    table = made(0.1)
    observe(table, (0, 1, 2), 3.0)
    table.refresh(1.0)
    assert table.refresh(2.0, 0.039)
    # Of 3 + 3 b ms three rows fit 13 ms, of 6 + 9 b and of 15 + 15 b none does.
    expected = [TIMES_ABOVE * 3.0 * seconds for seconds in (0.004 / 3, 0.005, 0.010)]
    assert expected == pytest.approx((table.scale * table.prices.first_s).tolist(), rel=0.02)


def test_nothing_new_is_no_change_and_is_looked_for_seldom() -> None:
    """Within a quarter of a second, and without a change of a hundredth, hulls stay as they are."""
    table = made()
    assert not table.refresh(RECHECK_S)
    observe(table, (0, 1, 2), 2.0)
    assert not table.refresh(RECHECK_S + 0.9 * RECHECK_S)
    assert table.refresh(2 * RECHECK_S)


def test_the_scale_follows_back_to_the_profile() -> None:
    """A slow spell that ends leaves the table as it was."""
    table = made()
    observe(table, (0, 1, 2), 1.5)
    table.refresh(1.0)
    observe(table, (0, 1, 2), 1.0)
    assert table.refresh(2.0)
    assert table.scale == pytest.approx(1.0, rel=0.02)


@pytest.mark.parametrize("at", [0, 16, PRICES - 1])
def test_offers_expect_what_follows_a_first_answer_at_that_price(at: int) -> None:
    """Quality and further seconds are those of the rule at the price, for every variant, cheapest first."""
    table = made()
    observe(table, (0, 1, 2), 1.3)
    table.refresh(1.0)
    offers, prices = table.offers(KEY, at), table.prices
    assert [0, 1, 2] == [offer.variant for offer in offers]
    assert prices.quality[at] == pytest.approx([offer.quality for offer in offers])
    assert table.scale * prices.later_s[at] == pytest.approx([offer.later_s for offer in offers])


def test_offers_follow_the_seconds_as_learnt() -> None:
    """What is kept of them is forgotten when the scale changes and when rules are priced anew."""
    table = made()
    index = table.index(20.0)
    first = table.offers(KEY, index)
    observe(table, (0, 1, 2), 2.0)
    assert first is table.offers(KEY, index)
    assert table.refresh(1.0)
    scaled = table.offers(KEY, index)
    assert [2.0 * offer.later_s for offer in first] == pytest.approx([offer.later_s for offer in scaled], rel=0.02)
    observe(table, (2,), 4.0)
    observe(table, (0, 1), 2.0)
    assert table.refresh(2.0)
    assert table.offers(KEY, index)[0].later_s > 1.1 * scaled[0].later_s


def test_a_floor_leaves_the_variants_from_there_on() -> None:
    """What is below the lowest allowed variant is not on offer, and has no part in the hull."""
    table = made()
    assert table.offers(KEY, 3)[1:] == table.offers(KEY._replace(lowest=1), 3)
    seconds, _ = table.hull(1, pinned=False)
    assert seconds[1] >= table.prices.first_s[1]


def test_variants_off_the_ladder_are_on_offer_only_by_name() -> None:
    """`worse` is as dear as `middle` and answers worse: offers skip it, and bear the numbers of the family."""
    small, middle, large = FAMILY.variants
    evidence = FAMILY.evidence
    assert evidence is not None
    order = [0, 1, 1, 2]
    family = Family(
        "f",
        (small, VariantProfile("worse", 0.5, middle.latency), middle, large),
        max_batch=8,
        evidence=Evidence(evidence.correct[order], evidence.confidence[order]),
    )
    table = Table(Cascades(family), LatencyModel(family, 1.0), 0, 0.1, 0.0)
    assert [0, 2, 3] == [offer.variant for offer in table.offers(KEY, 0)]
    assert [2, 3] == [offer.variant for offer in table.offers(KEY._replace(lowest=2), 0)]
    assert [Offer(1, 0.5, 0.0)] == table.offers(KEY._replace(pinned=1, lowest=1), 0)


def test_a_pinned_variant_is_the_only_offer_and_answers_once() -> None:
    """Its hull is one point, its quality that of the profile."""
    table = made()
    assert [Offer(1, 0.75, 0.0)] == table.offers(KEY._replace(pinned=1, lowest=1), 0)
    seconds, quality = table.hull(1, pinned=True)
    assert ([0.0, 0.75], 2) == (quality.tolist(), len(seconds))
    assert seconds[1] == pytest.approx(TIMES_ABOVE * 0.026 / 8)


SLOW = made()
"""As learnt on a machine that takes three times as long."""
observe(SLOW, (0, 1, 2), 3.0)
SLOW.refresh(1.0)
SCALES = pytest.mark.parametrize("table", [made(), SLOW], ids=["profiled", "slow"])


@SCALES
def test_a_price_of_the_table_has_its_own_index(table: Table) -> None:
    """There and back, and dearer the further up."""
    prices = [table.price(at) for at in range(PRICES)]
    assert list(range(PRICES)) == [table.index(price) for price in prices]
    assert prices == sorted(prices)
    assert prices == pytest.approx((table.prices.price / table.scale).tolist())


@SCALES
@given(price=st.floats(1e-3, 1e6))
def test_a_price_takes_the_nearest_of_the_table(table: Table, price: float) -> None:
    """Nearest in the ratio of prices of today."""
    distance = np.abs(np.log([table.price(at) / price for at in range(PRICES)]))
    assert distance[table.index(price)] == pytest.approx(distance.min())


@pytest.mark.parametrize(("price", "index"), [(0.0, 0), (1e-300, 0), (1e9, PRICES - 1)])
def test_prices_off_the_table_take_its_end(price: float, index: int) -> None:
    """A price of nothing is the lowest, any excess the highest."""
    assert index == made().index(price)


@given(st.lists(st.floats(0.0, 1.0, width=32), min_size=1, max_size=60), st.lists(st.floats(0.0, 1.0), max_size=9))
def test_the_bin_of_one_confidence_is_that_of_many(held_out: list[float], others: list[float]) -> None:
    """Also where bins are empty, and on the edges between them."""
    rows = np.array(held_out * 50, dtype=np.float32)
    evidence = Evidence(np.ones((3, len(rows)), np.bool_), np.tile(rows, (3, 1)))
    cascades = Cascades(Family("f", FAMILY.variants, max_batch=8, evidence=evidence))
    asked = [*held_out, *cascades.edges[1].tolist(), *others]
    assert cascades.bins_of(1, asked).tolist() == [cascades.bin_of(1, confidence) for confidence in asked]


def test_a_hull_ends_at_the_best_that_rows_can_be_given() -> None:
    """All to the best variant at once, or by a cascade that costs less."""
    table = made()
    seconds, quality = table.hull(0, pinned=False)
    assert quality[-1] >= 0.9
    assert np.all(np.diff(quality) / np.diff(seconds) > 0.0)


def test_a_pinned_row_costs_what_is_planned_for_it_whatever_the_scale() -> None:
    """Its hull is in the table's units as all others are, so that the scale is not counted twice."""
    table = made()
    observe(table, (0, 1, 2), 2.0)
    assert table.refresh(1.0)
    assert table.scale == pytest.approx(2.0, rel=0.02)
    cost, _ = table.hull(2, pinned=True)
    assert table.scale * cost[1] == pytest.approx(TIMES_ABOVE * table.row_s(2))
