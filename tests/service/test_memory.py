"""Amounts of memory: what settings say, what a container allows, and what is left for models."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.memory import Overhead, budget_bytes, give_back, limit_bytes, parse_budget, resident_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1024", 1024), ("2k", 2000), ("1.5KiB", 1536), ("512MiB", 512 * 1024**2), ("2 GB", 2 * 10**9), ("1Gi", 1024**3)],
)
def test_budgets_in_bytes(text: str, expected: int) -> None:
    """Units of ten and of two, with and without the B, in any case."""
    assert expected == budget_bytes(parse_budget(text))


def test_a_share_is_one_of_the_limit() -> None:
    """Half of what the container may use."""
    assert limit_bytes() // 2 == budget_bytes(parse_budget("50%"))


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "101%", "1TBB", "10 potatoes"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    """The error shows what one looks like."""
    with pytest.raises(ValueError, match=r"expected bytes with a unit .* or a share"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "1000000"}, 1_000_000),
        ({"memory/memory.limit_in_bytes": "2000000"}, 2_000_000),
        ({"memory.max": "max"}, None),
        ({}, None),
    ],
)
def test_the_limit_is_the_containers_or_the_machines(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    """Version 2 or 1 of control groups; where neither says something, all memory there is."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")
    assert (expected or limit_bytes(tmp_path / "nothing")) == limit_bytes(tmp_path)


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1))
def test_the_overhead_is_never_believed_smaller_than_it_is(observations: list[tuple[int, int]]) -> None:
    """It follows a rise at once and a fall by a tenth at a time."""
    overhead = Overhead()
    for resident, models in observations:
        before, now = overhead.bytes, max(0, resident - models)
        believed = overhead.observe(resident, models)
        assert believed >= now
        assert believed >= before * (1 - Overhead.FALL) - 1e-6


def test_freed_memory_is_given_back() -> None:
    """Resident memory after a large allocation was freed is not what it was while it was there."""
    blocks = [bytearray(b"x" * 100_000) for _ in range(1000)]
    full = resident_bytes()
    del blocks
    give_back()
    assert full == 0 or resident_bytes() < full - 50_000_000
