"""What is planned for families beyond the budget, by their sizes alone: nothing is opened."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.family import Family, VariantProfile
from router.latency import table
from router.placement import Evict, Load, Loadable, Spot, Step
from router.roster import Cold, Missing
from service.appraisal import MOST_RIVALS, Appraisal
from service.footprint import OwnFootprint
from service.memory import PASSES_S, Overhead
from service.model_room import ModelRoom
from service.room_words import lack_said, room_said

MB = 1_000_000
ELSE_BYTES = 50 * MB


class Sized:
    """A family of one variant that takes so much, as `PiecewiseFamily` is asked for it."""

    batch_bytes = revised = 0

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.openings = ((0, size),)
        self.believed = (VariantProfile("only", 0.9, table((1, 4), (0.001, 0.004))),)
        self.loaded = SimpleNamespace(family=Family(name, self.believed, sizes=(16,), max_batch=4))
        self.preparer = SimpleNamespace(warm=lambda: False)
        self.paths: dict[str, tuple[()]] = {}
        self.bytes = {f"{name}/only": size}
        self.open_tokenizer: dict[str, int] = {}

    def opening_bytes(self, _: str) -> int:
        return self.openings[0][1]

    def size_opening(self, name: str) -> int:
        return self.size(name) + self.opening_bytes(name)

    def loadable(self) -> dict[int, Loadable]:
        return {0: Loadable(tuple(self.bytes), 0.9)}

    def keys(self, _: str) -> tuple[str, ...]:
        return tuple(self.bytes)

    def size(self, _: str) -> int:
        return sum(self.bytes.values())

    def sizes(self, _: int) -> dict[str, int]:
        return dict(self.bytes)


class Measured(OwnFootprint):
    """What the families in memory take, and so much else."""

    def __init__(self, families: Iterable[Sized]) -> None:
        super().__init__()
        self.else_bytes = ELSE_BYTES
        self.may_keep = self.kept = 0
        self._families = tuple(families)

    @property
    def kept_bytes(self) -> int:
        return self.kept

    def keep_at_most(self, most_bytes: int) -> None:
        self.may_keep = most_bytes

    def resident_bytes(self) -> int:
        taken = {file: size for family in self._families if family.paths for file, size in family.bytes.items()}
        opened = {file: size for family in self._families for file, size in family.open_tokenizer.items()}
        return self.else_bytes + self.kept + sum((taken | opened).values())


def appraisal_of(families: list[Sized], room_bytes: int, footprint: Measured | None = None) -> Appraisal:
    """With so much room for models and for what opening one takes for a moment."""
    pieces: Any = {family.name: family for family in families}
    return Appraisal(ModelRoom(pieces, ELSE_BYTES + room_bytes, (), 2, footprint or Measured(families)), 2)


def settled(appraisal: Appraisal, families: list[Sized]) -> list[Step]:
    """Carry out plans up to their first load until nothing is left to do, as `Residency` does; what was done."""
    by_name = {family.name: family for family in families}
    done: list[Step] = []
    while steps := appraisal.plan({}, frozenset()):
        for step in steps:
            done.append(step)
            if isinstance(step, Load):
                by_name[step.spot.family].paths["only"] = ()
                break
            del by_name[step.spot.family].paths["only"]
        assert len(done) < 10 * len(families), f"it goes on for ever: {done[-4:]}"
    return done


def test_while_nobody_asks_memory_comes_to_rest() -> None:
    """A load lets another family be thought of, which is larger: what was loaded does not go for that."""
    families = [Sized(f"f{number}", 10 * MB) for number in range(MOST_RIVALS + 12)] + [Sized("larger", 14 * MB)]
    appraisal = appraisal_of(families, 155 * MB)
    assert all(isinstance(step, Load) for step in settled(appraisal, families))
    in_memory = sum(family.size("only") for family in families if family.paths)
    assert 155 * MB - 14 * MB - 14 * MB - 10 * MB < in_memory <= 155 * MB - 14 * MB - 14 * MB


def test_who_asks_for_what_is_too_large_makes_nothing_go() -> None:
    """Its requests are refused; what is in memory stays there, and goes on being loaded."""
    families = [Sized(f"f{number}", 10 * MB) for number in range(10)]
    large = Sized("large", 70 * MB)
    appraisal = appraisal_of([*families, large], 115 * MB)
    settled(appraisal, [*families, large])
    assert [True] * 10 == [bool(family.paths) for family in families]
    for _ in range(2):
        assert () == appraisal.plan({"large": Cold(1, 0.0, (Missing(0),))}, frozenset())
        assert not appraisal.room.can_load("large", Missing(0), ())
    families[3].paths.clear()
    assert (Load(Spot("f3", 0)),) == appraisal.plan({"large": Cold(1, 0.0, (Missing(0),))}, frozenset())


def test_a_tokenizer_that_a_request_has_opened_counts_once() -> None:
    """Its family, which fits with it, is loaded for the rows that wait; of one that does not fit it takes room."""
    family, large, other = wordy("wordy", 12 * MB), wordy("large", 70 * MB), Sized("other", 10 * MB)
    appraisal = appraisal_of([family], 23 * MB)
    family.open_tokenizer = {"tokenizer:wordy": 8 * MB}
    cold = {"wordy": Cold(1, 0.0, (Missing(0),))}
    assert (Load(Spot("wordy", 0)),) == appraisal.plan(cold, frozenset())
    family.paths["only"] = ()
    assert () == appraisal.plan({}, frozenset({"wordy"}))
    appraisal = appraisal_of([large, other], 25 * MB)
    large.open_tokenizer = {"tokenizer:large": 8 * MB}
    assert () == appraisal.plan({"large": Cold(1, 0.0, (Missing(0),))}, frozenset())
    large.open_tokenizer = {}
    assert [Load(Spot("other", 0))] == settled(appraisal, [large, other])


def wordy(name: str, size: int) -> Sized:
    """A family with a tokenizer of 8 MB, which takes 2 MB to be opened."""
    family = Sized(name, size)
    family.openings = ((0, 2 * MB),)
    family.bytes[f"tokenizer:{name}"] = 8 * MB
    return family


def test_a_tokenizer_that_nobody_waits_with_leaves_its_family_what_it_needs() -> None:
    """A plan falls between the opening of it and the request that it was opened for: the family fits as before."""
    family = wordy("wordy", 12 * MB)
    appraisal = appraisal_of([family], 23 * MB)
    family.open_tokenizer = {"tokenizer:wordy": 8 * MB}
    assert () == tuple(step for step in appraisal.plan({}, frozenset()) if isinstance(step, Evict))
    assert (False, False) == (appraisal.room.lacks_room("wordy"), appraisal.room.is_futile)
    cold = {"wordy": Cold(1, 0.0, (Missing(0),))}
    assert (Load(Spot("wordy", 0)),) == appraisal.plan(cold, frozenset())


def test_who_asks_for_what_is_too_large_costs_others_nothing() -> None:
    """Its tokenizer is opened for each of its requests; nothing that is in memory goes for that."""
    families, large = [Sized(f"f{number}", 10 * MB) for number in range(4)], wordy("large", 70 * MB)
    for family in families:
        family.openings = ((0, 2 * MB),)
    appraisal = appraisal_of([*families, large], 49 * MB)
    settled(appraisal, [*families, large])
    assert all(family.paths for family in families)
    for _ in range(3):
        large.open_tokenizer = {"tokenizer:large": 8 * MB}
        assert () == appraisal.plan({"large": Cold(1, 0.0, (Missing(0),))}, frozenset())
        assert () == appraisal.plan({}, frozenset())
        large.open_tokenizer = {}
        assert () == appraisal.plan({}, frozenset())


def test_who_lacks_room_is_told_by_the_room_there_is() -> None:
    """Alone, beside what is pinned, and whatever was believed a moment ago."""
    small, large = Sized("small", 10 * MB), Sized("large", 38 * MB)
    large.openings = small.openings = ((0, 0),)
    footprint = Measured([small, large])
    appraisal = appraisal_of([small, large], 40 * MB, footprint)
    for more, pinned, lacking in ((0, (), False), (3, (), True), (0, (), False), (0, ("small",), True), (0, (), False)):
        footprint.else_bytes = ELSE_BYTES + more * MB
        appraisal.room.pinned = frozenset(pinned)
        appraisal.room._overhead = Overhead()
        appraisal.plan({}, frozenset())
        assert (False, lacking) == (appraisal.room.lacks_room("small"), appraisal.room.lacks_room("large", "only"))
    assert not appraisal.room.lacks_room("nobody")
    assert not appraisal.room.lacks_room("small", "of the revision before")


def test_room_that_is_taken_for_a_moment_is_hoped_for() -> None:
    """A family that fits without it waits, and is loaded soon after it is there again; a larger one has no hope."""
    small, large = Sized("small", 25 * MB), Sized("large", 45 * MB)
    large.openings = small.openings = ((0, 0),)
    footprint = Measured([small, large])
    appraisal = appraisal_of([small, large], 30 * MB, footprint)
    appraisal.plan({}, frozenset())
    footprint.else_bytes += 10 * MB
    waits = {name: Cold(1, 0.0, (Missing(0),)) for name in ("small", "large")}
    assert () == appraisal.plan(waits, frozenset())
    assert [False, False] == [appraisal.room.can_load(name, Missing(0), ()) for name in waits]
    assert [True, False] == [appraisal.room.may_come_to_fit(name, Missing(0)) for name in waits]
    assert [False, True] == [appraisal.room.lacks_room(name) for name in waits]
    footprint.else_bytes -= 10 * MB
    plans = 1
    while not appraisal.plan(waits, frozenset()):
        plans += 1
        assert plans < 10
    assert not appraisal.room.may_come_to_fit("nobody", Missing(0))
    # What more is used for seconds is used for good.
    footprint.else_bytes += 10 * MB
    now_s = monotonic()
    appraisal.plan({}, frozenset(), now_s)
    assert appraisal.room.may_come_to_fit("small", Missing(0))
    appraisal.plan({}, frozenset(), now_s + PASSES_S + 0.1)
    assert not appraisal.room.may_come_to_fit("small", Missing(0))
    assert appraisal.room.lacks_room("small")


def test_who_is_pinned_and_does_not_fit_keeps_nobody_else_out() -> None:
    """It is served like who is not pinned: others are loaded, and it is kept again when there is clearly more room."""
    small, large = Sized("small", 10 * MB), Sized("large", 45 * MB)
    large.openings = small.openings = ((0, 0),)
    footprint = Measured([small, large])
    appraisal = appraisal_of([small, large], 40 * MB, footprint)
    appraisal.room.pinned = frozenset({"large"})
    assert (Load(Spot("small", 0)),) == appraisal.plan({}, frozenset())
    assert [False, True] == [appraisal.room.lacks_room(name) for name in ("small", "large")]
    assert frozenset() == appraisal.room.kept
    appraisal.room.budget_bytes += 6 * MB
    appraisal.plan({}, frozenset())
    assert frozenset() == appraisal.room.kept, "a little more is not clearly more"
    appraisal.room.budget_bytes += 6 * MB
    assert (Load(Spot("large", 0)),) == appraisal.plan({}, frozenset())[:1]
    assert frozenset({"large"}) == appraisal.room.kept
    assert appraisal.room.lacks_room("small"), "there is no room beside who is kept"


@given(
    sizes=st.lists(st.integers(5, 30), min_size=2, max_size=6),
    state=st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from([None, 0.0, 1.0, 2.0])), min_size=6),
    room=st.integers(5, 150),
)
def test_who_waits_is_loaded_as_by_a_whole_plan(
    sizes: list[int], state: list[tuple[bool, bool, float | None]], room: int
) -> None:
    """Where it is plain what to begin with, the families in memory are not weighed; a plan that weighs begins alike."""
    families = [Sized(f"f{number}", size * MB) for number, size in enumerate(sizes)]
    cold, pinned = {}, set()
    for family, (is_in_memory, is_pinned, since_s) in zip(families, state, strict=False):
        family.openings = ((0, MB),)
        if is_in_memory:
            family.paths["only"] = ()
        elif since_s is not None:
            cold[family.name] = Cold(1, since_s, (Missing(0),))
        if is_pinned:
            pinned.add(family.name)

    def planned(*, whole: bool) -> tuple[Step, ...]:
        appraisal = appraisal_of(families, room * MB)
        appraisal.room.pinned = frozenset(pinned)
        with pytest.MonkeyPatch.context() as patched:
            if whole:
                patched.setattr(appraisal, "_at_once", lambda *_: None)
            return appraisal.plan(cold, frozenset())

    at_once, whole = planned(whole=False), planned(whole=True)
    assert at_once in (whole, whole[:1])
    if cold and len(at_once) == 1 < len(whole):
        assert isinstance(at_once[0], Load)
        assert at_once[0].spot.family in cold


def test_what_goes_is_kept_in_the_room_that_is_left_free() -> None:
    """For the next cold family, and no more of it than is free; it is not taken for what others use."""
    families = [Sized(f"f{number}", 10 * MB) for number in range(20)]
    for family in families:
        family.openings = ((0, MB),)
    footprint = Measured(families)
    appraisal = appraisal_of(families, 111 * MB, footprint)
    settled(appraisal, families)
    appraisal.room.keep_freed()
    assert (10, 10 * MB) == (sum(bool(family.paths) for family in families), footprint.may_keep)
    footprint.kept = 10 * MB
    assert () == appraisal.plan({}, frozenset())
    cold = next(family for family in families if not family.paths)
    assert (Load(Spot(cold.name, 0)),) == appraisal.plan({cold.name: Cold(1, 0.0, (Missing(0),))}, frozenset())
    cold.paths["only"], footprint.kept = (), 0
    appraisal.room.keep_freed()
    assert 0 == footprint.may_keep
    appraisal.room.keep_freed(something_goes=True)
    assert 10 * MB == footprint.may_keep


def test_where_all_fit_nothing_is_kept_of_what_goes() -> None:
    """No room is left free then."""
    families = [Sized(f"f{number}", 10 * MB) for number in range(3)]
    footprint = Measured(families)
    appraisal = appraisal_of(families, 60 * MB, footprint)
    settled(appraisal, families)
    footprint.may_keep = -1
    appraisal.room.keep_freed(something_goes=True)
    assert 0 == footprint.may_keep


def test_what_is_pinned_is_not_said_to_be_left() -> None:
    """Who is refused beside it is told of the rest."""
    small, large = Sized("small", 10 * MB), Sized("large", 25 * MB)
    large.openings = small.openings = ((0, 0),)
    appraisal = appraisal_of([small, large], 30 * MB)
    appraisal.room.pinned = frozenset({"large"})
    appraisal.plan({}, frozenset())
    piece: Any = small
    told = lack_said(appraisal.room, piece, Missing(0))
    assert "only takes 10.0 MB, the budget leaves 5.0 MB for models beside what is pinned" == told


def test_a_little_less_room_costs_no_family() -> None:
    """Where all are in memory and one no longer fits beside one that is opened; with clearly less, two go."""
    families = [Sized(f"f{number}", 10 * MB) for number in range(11)]
    footprint = Measured(families)
    appraisal = appraisal_of(families, 120 * MB, footprint)
    assert 11 == len(settled(appraisal, families))
    footprint.else_bytes += MB
    assert [] == settled(appraisal, families)
    footprint.else_bytes += 5 * MB
    assert [True, True] == [isinstance(step, Evict) for step in settled(appraisal, families)]


def test_less_room_costs_nobody_while_the_budget_holds() -> None:
    """Where none is kept for the next family, none goes for room to open one; passed, so many go that there is."""
    families = [Sized(f"f{number}", 30 * MB) for number in range(3)]
    footprint = Measured(families)
    appraisal = appraisal_of(families, 130 * MB, footprint)
    assert 3 == len(settled(appraisal, families))
    for more in (20, 19):
        footprint.else_bytes += more * MB
        assert [] == settled(appraisal, families)
    footprint.else_bytes += 2 * MB
    assert [True, True] == [isinstance(step, Evict) for step in settled(appraisal, families)]


def test_room_for_the_next_one_is_made_again_while_the_budget_holds() -> None:
    """Where not all fit, a request for a cold family finds room, and what it took of that is made free after it."""
    families = [Sized(f"f{number}", 10 * MB) for number in range(20)]
    appraisal = appraisal_of(families, 130 * MB)
    settled(appraisal, families)
    (cold, *_) = [family for family in families if not family.paths]
    before = sum(bool(family.paths) for family in families)
    assert Load(Spot(cold.name, 0)) == appraisal.plan({cold.name: Cold(1, 0.0, (Missing(0),))}, frozenset())[0]
    cold.paths["only"] = ()
    assert [True] == [isinstance(step, Evict) for step in settled(appraisal, families)]
    assert before == sum(bool(family.paths) for family in families)


def test_families_without_room_are_named() -> None:
    """Their number, the first three with what each takes as it is opened, and what is left; nothing where all fit."""
    families = [Sized(f"f{number}", 10 * MB) for number in range(5)] + [Sized("small", 1 * MB)]
    appraisal = appraisal_of(families, 5 * MB)
    appraisal.plan({}, frozenset())
    named = "f0 (takes 20.0 MB), f1 (takes 20.0 MB), f2 (takes 20.0 MB), ..."
    said = f"memory_budget leaves 4.0 MB for models: not even the smallest variant fits of 5 families: {named}"
    assert said == room_said(appraisal.room)
    appraisal.room.budget_bytes += 95 * MB
    appraisal.plan({}, frozenset())
    assert "memory_budget leaves 90.0 MB for models" == room_said(appraisal.room)


def test_it_is_known_whether_anything_could_be_loaded() -> None:
    """Nobody is served where nothing is in memory and nothing fits; who is loaded on demand is."""
    families = [Sized("large", 40 * MB), Sized("small", 10 * MB)]
    appraisal = appraisal_of(families, 15 * MB)

    def is_futile() -> bool:
        appraisal.plan({}, frozenset())
        return appraisal.room.is_futile

    assert is_futile()
    appraisal.room.budget_bytes += 6 * MB
    assert not is_futile()
    families[1].paths["only"] = ()
    appraisal.room.budget_bytes -= 6 * MB
    assert not is_futile()
    families[1].paths.clear()
    assert is_futile()


def test_what_was_too_large_is_loaded_when_there_is_room_again() -> None:
    """At once for who asks; and for its own sake where there is clearly enough."""
    large = Sized("large", 49 * MB)
    appraisal = appraisal_of([large], 97 * MB)
    assert () == appraisal.plan({}, frozenset())
    appraisal.room.budget_bytes += 2 * MB
    assert () == appraisal.plan({}, frozenset())
    load = (Load(Spot("large", 0)),)
    assert load == appraisal.plan({"large": Cold(1, 0.0, (Missing(0),))}, frozenset())
    appraisal.room.budget_bytes -= 2 * MB
    assert () == appraisal.plan({}, frozenset())
    appraisal.room.budget_bytes += 10 * MB
    assert load == appraisal.plan({}, frozenset())


def test_the_last_in_memory_stays_within_the_budget() -> None:
    """Where there is no more room to load anything, what serves goes on; it goes where the budget is passed with it."""
    small, large = Sized("small", 10 * MB), Sized("large", 12 * MB)
    footprint = Measured([small, large])
    appraisal = appraisal_of([small, large], 36 * MB, footprint)
    assert {"small", "large"} == {step.spot.family for step in settled(appraisal, [small, large])}
    footprint.else_bytes += 20 * MB
    assert [Evict(Spot("large", 0))] == settled(appraisal, [small, large])
    assert not appraisal.room.is_futile
    assert "small (takes" not in room_said(appraisal.room)
    footprint.else_bytes += 7 * MB
    assert [Evict(Spot("small", 0))] == settled(appraisal, [small, large])
    appraisal.plan({}, frozenset())
    assert appraisal.room.is_futile
