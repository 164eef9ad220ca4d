"""What is to be in memory: within the budget at every step, what is worth most per byte, and no thrashing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.placement import Evict, Load, Loadable, Placement, Spot, Step, Wanted, room_to_spare
from router.popularity import Popularity

SIZES = {f"{name}/{variant}": bytes_ for name in "abcdef" for variant, bytes_ in enumerate((10, 20, 40))} | {
    "shared": 5
}


def wanted(name: str, per_s: float = 1.0, *, shared: bool = False, **changes: object) -> Wanted:
    """A family of three variants of 10, 20 and 40 bytes, 0.8, 0.1 and 0.05 better than the one before."""
    common = ("shared",) if shared else ()
    variants = {index: Loadable((f"{name}/{index}", *common), gain) for index, gain in enumerate((0.8, 0.1, 0.05))}
    return Wanted(name, per_s, variants, {})._replace(**changes)  # type: ignore[arg-type]  # as the test wants it


def size(families: Iterable[Wanted], spots: Iterable[Spot]) -> int:
    by_name = {family.name: family for family in families}
    files = {file for spot in spots for file in by_name[spot.family].variants[spot.variant].files}
    return sum(SIZES[file] for file in files)


def carried_out(steps: Iterable[Step], loaded: Iterable[Spot]) -> set[Spot]:
    now = set(loaded)
    for step in steps:
        if isinstance(step, Load):
            assert step.spot not in now
            now.add(step.spot)
        else:
            now.remove(step.spot)
    return now


@pytest.mark.parametrize(
    ("budget", "families", "loaded", "expected"),
    [
        (70, [wanted("a")], [], [Load(Spot("a", 0)), Load(Spot("a", 1)), Load(Spot("a", 2))]),
        (69, [wanted("a")], [], [Load(Spot("a", 0)), Load(Spot("a", 1))]),
        (9, [wanted("a")], [], []),
        (20, [wanted("a", 9.0), wanted("b")], [], [Load(Spot("a", 0)), Load(Spot("b", 0))]),
        (10, [wanted("a"), wanted("b", 1.2)], [Spot("a", 0)], []),
        (10, [wanted("a"), wanted("b", 2.0)], [Spot("a", 0)], [Evict(Spot("a", 0)), Load(Spot("b", 0))]),
        (10, [wanted("a", pinned=True), wanted("b", 99.0)], [Spot("a", 0)], []),
        (
            10,
            [wanted("a", 9.0), wanted("b", since_s={0: 1.0})],
            [Spot("a", 0)],
            [Evict(Spot("a", 0)), Load(Spot("b", 0))],
        ),
        (10, [wanted("a", in_use=True), wanted("b", 99.0)], [Spot("a", 0)], []),
        (
            40,
            [wanted("a"), wanted("b", since_s={0: 1.0})],
            [Spot("a", 0), Spot("a", 1)],
            [Load(Spot("b", 0))],
        ),
        (
            30,
            [wanted("a"), wanted("b", since_s={0: 1.0})],
            [Spot("a", 0), Spot("a", 1)],
            [Evict(Spot("a", 1)), Load(Spot("b", 0))],
        ),
        (25, [wanted("a"), wanted("b")], [Spot("a", 0), Spot("a", 1), Spot("b", 0)], [Evict(Spot("a", 1))]),
        (
            50,
            [wanted("a", since_s={2: 5.0}), wanted("b", 9.0, since_s={2: 3.0})],
            [Spot("a", 0), Spot("b", 0)],
            [Evict(Spot("a", 0)), Load(Spot("b", 2))],
        ),
    ],
    ids=[
        "all fit",
        "the largest does not",
        "nothing fits",
        "smallest first",
        "hysteresis",
        "worth more",
        "pinned stays",
        "who waits comes first",
        "in use stays",
        "no more than needed is evicted",
        "a larger one goes first",
        "over the budget",
        "the longest waiting first",
    ],
)
def test_plans(budget: int, families: list[Wanted], loaded: list[Spot], expected: list[Step]) -> None:
    """Evictions and loads in their order, for small cases that can be worked out by hand."""
    assert expected == list(Placement().plan(families, SIZES, loaded, (), budget))


def test_a_file_that_variants_share_is_counted_once() -> None:
    """Two variants of 15 bytes, 5 of them shared, fit where 35 bytes are allowed and not where 34 are."""
    family = wanted("a", shared=True)
    assert [[2, 1][budget < 35] for budget in (35, 34)] == [
        len(Placement().plan([family], SIZES, (), (), budget)) for budget in (35, 34)
    ]


def test_by_recency_the_family_asked_for_last_stays() -> None:
    """LRU, to compare with: a rare family that was asked for just now takes the place of a frequent one."""
    families = [wanted("a", 99.0, last_s=1.0), wanted("b", 0.1, last_s=2.0, since_s={0: 2.0}), wanted("c", last_s=1.5)]
    steps = Placement(order="recency").plan(families, SIZES, [Spot("a", 0), Spot("c", 0)], (), 20)
    assert (Evict(Spot("a", 0)), Load(Spot("b", 0))) == steps


FAMILIES = st.lists(
    st.builds(
        wanted,
        st.sampled_from("abcdef"),
        st.floats(0.0, 100.0),
        shared=st.booleans(),
        since_s=st.dictionaries(st.integers(0, 2), st.floats(0.0, 9.0), max_size=1),
        in_use=st.booleans(),
        pinned=st.sampled_from([False, False, True]),
    ),
    max_size=6,
    unique_by=lambda family: family.name,
)
SPOTS = st.sets(st.builds(Spot, st.sampled_from("abcdef"), st.integers(0, 2)))


def _known(families: list[Wanted], spots: Iterable[Spot]) -> set[Spot]:
    return {spot for spot in spots if spot.family in {family.name for family in families}}


@given(families=FAMILIES, spots=SPOTS, loading=SPOTS, budget=st.integers(0, 300), spare=st.integers(0, 60))
def test_the_budget_holds_at_every_step(
    families: list[Wanted], spots: set[Spot], loading: set[Spot], budget: int, spare: int
) -> None:
    """No load goes over it; what is over it from before only shrinks; what is being loaded is never evicted."""
    loading = _known(families, loading)
    loaded = _known(families, spots) - loading
    now = loaded | loading
    for step in Placement().plan(families, SIZES, loaded, loading, budget, spare):
        now = carried_out([step], now)
        assert isinstance(step, Evict) or size(families, now) <= budget
        assert loading <= now


@given(
    families=FAMILIES,
    spots=SPOTS,
    budget=st.integers(0, 300),
    spare=st.integers(0, 60),
    factors=st.lists(st.floats(1.0, 1.25), min_size=6),
)
def test_a_plan_that_was_carried_out_is_not_revised(
    families: list[Wanted], spots: set[Spot], budget: int, spare: int, factors: list[float]
) -> None:
    """Made anew it is empty. Where all was loaded by its worth, it is so for arrivals that have changed by a quarter.

    What a load for somebody who waits has put in another's place may go back for less.
    """
    loaded = _known(families, spots)
    after = carried_out(Placement().plan(families, SIZES, loaded, (), budget, spare), loaded)
    assert () == Placement().plan(families, SIZES, after, (), budget, spare)
    calm = [family._replace(since_s={}, in_use=False) for family in families]
    settled = carried_out(Placement().plan(calm, SIZES, (), (), budget, spare), set())
    other = [family._replace(per_s=family.per_s * factor) for family, factor in zip(calm, factors, strict=False)]
    assert () == Placement().plan(other, SIZES, settled, (), budget, spare)


@pytest.mark.parametrize(
    ("budget", "smallest", "expected"),
    [
        (25, [{"a": 10}, {"b": 15}], 0.0),
        (24, [{"a": 10}, {"b": 15}], 0.0),
        (150, [{"a": 10}, {"b": 15}, {"c": 140}], 15.0),
        (149, [{"a": 10}, {"b": 15}, {"c": 140}], 10.0),
        (30, [{"a": 10, "shared": 5}, {"b": 15, "shared": 5}], 0.0),
        (0, [], 0.0),
    ],
    ids=["all fit", "all too large", "a tenth", "more than a tenth", "shared files count once", "nobody"],
)
def test_room_to_spare(budget: int, smallest: list[dict[str, int]], expected: float) -> None:
    """For the largest of those that take a tenth at most, where not all fit."""
    assert expected == room_to_spare(smallest, budget)


def test_room_to_spare_stays_where_the_budget_moves_a_little() -> None:
    """Eleven families of 10: at each step of the budget, down and up again."""
    smallest = [{f"f{number}": 10} for number in range(11)]
    found, spare = [], None
    for budget in (110, 109, 110, 105, 104, 109, 110, 104, 99, 96, 99, 94, 99, 100):
        spare = room_to_spare(smallest, budget, spare)
        found.append(spare)
    assert [0, 0, 0, 0, 10, 10, 0, 10, 10, 10, 10, 0, 0, 10] == found


@given(
    sizes=st.lists(st.integers(1, 40), max_size=12),
    budget=st.integers(1, 400),
    share=st.floats(0.951, 1.0),
    before=st.none() | st.integers(0, 40),
)
def test_room_to_spare_does_not_swing(sizes: list[int], budget: int, share: float, before: int | None) -> None:
    """Whatever it was before, it comes to rest between two budgets that are nearly the same."""
    smallest = [{str(number): size} for number, size in enumerate(sizes)]
    spare: float | None = before
    found = []
    for turn in range(12):
        spare = room_to_spare(smallest, budget * (share if turn % 2 else 1.0), spare)
        found.append(spare)
    assert 1 == len(set(found[6:]))


@given(families=FAMILIES, spots=SPOTS, budget=st.integers(0, 300), spare=st.integers(0, 60))
def test_room_is_left_for_who_comes_next(families: list[Wanted], spots: set[Spot], budget: int, spare: int) -> None:
    """What is in memory for its value alone leaves the room to spare; who waits now may use it."""
    loaded = _known(families, spots)
    after = carried_out(Placement().plan(families, SIZES, loaded, (), budget, spare), loaded)
    by_value = {
        Spot(family.name, variant)
        for family in families
        for variant in family.variants
        if variant not in family.since_s and not (variant == 0 and (family.pinned or family.in_use))
    }
    if after & by_value:
        assert size(families, after) <= max(budget - spare, 0)


def test_who_waits_needs_no_eviction_first() -> None:
    """The load comes before what makes room again."""
    families = [wanted("a", 9.0), wanted("b", since_s={0: 1.0})]
    steps = Placement().plan(families, SIZES, [Spot("a", 0), Spot("a", 1)], (), 40, 10)
    assert (Load(Spot("b", 0)), Evict(Spot("a", 1))) == steps


@given(families=FAMILIES, spots=SPOTS, budget=st.integers(0, 300))
def test_what_must_stay_stays(families: list[Wanted], spots: set[Spot], budget: int) -> None:
    """Pinned families keep their smallest; a family in use loses it to nobody who just would be nice to have.

    A family that keeps a larger variant keeps its smallest, unless requests wait for the larger one.
    """
    loaded = _known(families, spots)
    after = carried_out(Placement().plan(families, SIZES, loaded, (), budget), loaded)
    for family in families:
        smallest, larger = Spot(family.name, 0), {Spot(family.name, 1), Spot(family.name, 2)}
        if family.pinned and smallest in loaded:
            assert smallest in after
        elif smallest in loaded - after:
            needed = {Spot(family.name, variant) for variant in family.since_s}
            assert not (after & larger) - needed


@pytest.mark.parametrize(("after_s", "expected"), [(0.0, 0.1), (100.0, 0.1 / 2.718281828459045), (1e6, 0.0)])
def test_popularity_fades(after_s: float, expected: float) -> None:
    """Ten rows remembered for 100 s are a tenth of a row a second, and after that time a 1/e of it."""
    popularity = Popularity(100.0)
    popularity.observe("f", 10, 5.0)
    assert expected == pytest.approx(popularity.per_s("f", 5.0 + after_s))
    assert 0.0 == popularity.per_s("g", 5.0)


def test_quiet_families_keep_their_order() -> None:
    """While nobody asks, the ratio of two rates stays what it was, so that nothing is loaded for nothing."""
    popularity = Popularity(100.0)
    rates: Mapping[float, float] = {}
    popularity.observe("f", 10, 0.0)
    popularity.observe("g", 5, 30.0)
    rates = {now: popularity.per_s("f", now) / popularity.per_s("g", now) for now in (30.0, 300.0)}
    assert rates[30.0] == pytest.approx(rates[300.0])
