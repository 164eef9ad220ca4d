"""Pages of tables that are gone are kept for the next ones, no more than is allowed, and never while they are used."""

from __future__ import annotations

import numpy as np
import pytest

from variants.pages import KeptPages

MB = 1_000_000


@pytest.fixture
def pages() -> KeptPages:
    """May keep 10 MB."""
    kept = KeptPages()
    kept.keep_at_most(10 * MB)
    return kept


def test_nothing_is_kept_unless_it_is_allowed() -> None:
    """They go back to the system."""
    kept = KeptPages()
    kept.take(MB)
    assert 0 == kept.bytes


@pytest.mark.parametrize("size_bytes", [4 * MB, 3 * MB + 1, 5 * MB + 1])
def test_kept_pages_are_used_again(pages: KeptPages, size_bytes: int) -> None:
    """Cut or lengthened to what is wanted: what the last user wrote is still in there, and all of it is writable."""
    first = pages.take(4 * MB)
    first[:] = 7
    del first
    assert 4 * MB == pages.bytes
    second = pages.take(size_bytes)
    assert (size_bytes, 0) == (len(second), pages.bytes)
    assert np.all(second[: min(size_bytes, 4 * MB)] == 7)
    second[:] = 8
    assert np.all(second == 8)


def test_a_view_keeps_its_pages_to_itself(pages: KeptPages) -> None:
    """Nobody else writes into a table while something looks up in it, whatever else of it is gone."""
    view = pages.take(4 * MB).view(np.float32).reshape(1000, -1)
    view[:] = 0.5
    assert 0 == pages.bytes
    other = pages.take(4 * MB)
    other[:] = 1
    assert np.all(view == 0.5)
    del view
    assert 4 * MB == pages.bytes


def test_a_look_left_behind_keeps_pages_from_being_moved(pages: KeptPages) -> None:
    """Others are taken from the system then."""
    pages.take(4 * MB)
    (kept,) = pages._kept
    with memoryview(kept) as look:
        other = pages.take(8 * MB)
        other[:] = 1
        assert not any(look[:1000])


def test_no_more_is_kept_than_is_allowed(pages: KeptPages) -> None:
    """Neither of what comes nor of what is there; of what is there, that is used that is closest in size."""
    several = [pages.take(size) for size in (2 * MB, 4 * MB, 8 * MB)]
    del several
    assert pages.bytes <= 10 * MB
    several = [pages.take(size) for size in (2 * MB, 4 * MB)]
    pages.keep_at_most(6 * MB)
    for one in several:
        one[:] = len(one) // MB
    del several, one
    assert 6 * MB == pages.bytes
    assert 4 == pages.take(4 * MB - 1)[0]
    pages.keep_at_most(2 * MB)
    assert 2 * MB == pages.bytes
    pages.keep_at_most(0)
    assert 0 == pages.bytes
