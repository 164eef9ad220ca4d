"""Which of the pinned families there is room for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.pins import Pins


def test_those_that_fit_together_are_kept_by_name_and_files_count_once() -> None:
    """Whoever does not fit beside those before it leaves its room to those after it."""
    pins = Pins()
    pinned = {"a": {"a": 40, "shared": 10}, "b": {"b": 60}, "c": {"c": 30, "shared": 10}}
    pins.find(pinned, set(), 85)
    assert frozenset({"a", "c"}) == pins.kept


def test_who_is_in_memory_stays_kept() -> None:
    """It comes before those whose names come first, and stays where there is less room than it takes."""
    pins = Pins()
    pinned = {"a": {"a": 40}, "b": {"b": 60}}
    pins.find(pinned, {"b"}, 85)
    assert frozenset({"b"}) == pins.kept
    pins.find(pinned, {"b"}, 50)
    assert frozenset({"b"}) == pins.kept


def test_who_lacked_room_is_kept_when_there_is_clearly_more() -> None:
    """Room goes up and down by a little all the time."""
    pins = Pins()
    for room_bytes, kept in ((99, False), (101, False), (110, True), (101, True), (99, False)):
        pins.find({"a": {"a": 100}}, set(), room_bytes)
        assert kept == ("a" in pins.kept), room_bytes


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 50)), st.integers(0, 120))
def test_what_is_kept_fits(sizes: dict[str, int], room_bytes: int) -> None:
    """Together; and nobody is left out who would fit beside all that are kept."""
    pins = Pins()
    pins.find({name: {name: size} for name, size in sizes.items()}, set(), room_bytes)
    taken = sum(sizes[name] for name in pins.kept)
    assert taken <= room_bytes
    assert all(taken + sizes[name] > room_bytes for name in sizes.keys() - pins.kept)
