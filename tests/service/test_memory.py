"""Amounts of memory: what settings say, what a container allows, and what is left for models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.memory import (
    PASSES_S,
    Overhead,
    budget_bytes,
    limit_bytes,
    parse_budget,
    resident_bytes,
    resident_together,
)
from service.settings import Settings
from variants.resident import give_back


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1024000", 1024000), ("2000k", 2000000), ("1.5MiB", 1536 * 1024), ("2 GB", 2_000_000_000), ("1Gi", 1 << 30)],
)
def test_budgets_in_bytes(text: str, expected: int) -> None:
    """Units of ten and of two, with and without the B, in any case."""
    assert expected == budget_bytes(parse_budget(text))


def test_a_share_is_one_of_the_limit() -> None:
    """Half of what the container may use."""
    assert limit_bytes() // 2 == budget_bytes(parse_budget("50%"))


@pytest.mark.parametrize("text", ["300", "512.5", " 999999 ", "512b", "5k"])
def test_a_budget_that_holds_nothing_lacks_its_unit(text: str) -> None:
    """Who writes 300 does not mean bytes."""
    with pytest.raises(ValueError, match="expected a megabyte at least, with a unit"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "101%", "1TBB", "10 potatoes"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    """The error shows what one looks like, in the words of the setting."""
    described = Settings.model_fields["memory_budget"].description
    assert described is not None
    assert "a share of the container's limit" in described
    with pytest.raises(ValueError, match=r"expected bytes with a unit .* or a share of the container's limit"):
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
    for now_s, (resident, models) in enumerate(observations):
        before, now = overhead.bytes, max(0, resident - models)
        believed = overhead.observe(resident, models, float(now_s))
        assert believed >= now
        assert believed >= before * (1 - Overhead.FALL) - 1e-6


def test_what_stays_for_seconds_has_not_come_to_go() -> None:
    """More than the least of the last seconds comes and goes; what was there all that time is growth."""
    overhead = Overhead()
    overhead.observe(100, 0, 0.0)
    assert overhead.passing_bytes == 0
    overhead.observe(130, 0, 1.0)
    assert overhead.passing_bytes == 30
    overhead.observe(110, 0, 2.0)
    overhead.observe(130, 0, PASSES_S)
    assert overhead.passing_bytes == 30
    overhead.observe(130, 0, PASSES_S + 0.1)
    assert overhead.passing_bytes == 20, "the least is what was there in between"
    overhead.observe(130, 0, PASSES_S + 2.1)
    assert overhead.passing_bytes == 0
    for number in range(1000):
        overhead.observe(130 + number, 0, 10.0 + number * 1e-6)
    assert overhead.passing_bytes == 999


ROLLUP = "5581-7ffd ---p 00000000 00:00 0      [rollup]\nRss:     90 kB\nPss:      {pss} kB\nPss_File:      {file} kB\n"
STATUS = "Name:\tgateway\nRssAnon:\t      9 kB\nRssFile:\t      {} kB\n"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([(20, 8, 13), (25, 7, 12)], 30 + 15),  # their parts add up to more than either has
        ([(16, 6, 14), (25, 5, 9)], 30 + 14),  # others have parts of the first one's pages of files
        ([(16, 6, 0), (25, 5, 0)], 30 + 11),  # nobody says how many those are
    ],
)
def test_what_processes_share_counts_once(tmp_path: Path, said: Sequence[tuple[int, int, int]], expected: int) -> None:
    """Memory by parts; pages of files too, but no less than one process has: others may share these, and go."""
    for process, (part, of_files, files) in enumerate(said):
        folder = tmp_path / str(process)
        folder.mkdir()
        (folder / "smaps_rollup").write_text(ROLLUP.format(pss=part, file=of_files))
        (folder / "status").write_text(STATUS.format(files))
    assert 1024 * expected == resident_together([0, 1, 2], tmp_path)


def test_where_no_parts_are_told_all_that_is_resident_counts(tmp_path: Path) -> None:
    """For each process: rather too much than too little."""
    for process, pages in ((1, 10), (2, 7)):
        (tmp_path / str(process)).mkdir()
        (tmp_path / str(process) / "statm").write_text(f"90 {pages} 5 1 0 20 0")
    assert 17 * os.sysconf("SC_PAGE_SIZE") == resident_together([1, 2, 3], tmp_path)


def test_a_process_alone_counts_as_it_would_among_others() -> None:
    """Its part of what it shares with nobody is all of it, and libraries count as a whole."""
    assert resident_together([os.getpid()]) == pytest.approx(resident_bytes(), rel=0.2)


def test_freed_memory_is_given_back() -> None:
    """Resident memory after a large allocation was freed is not what it was while it was there."""
    blocks = [bytearray(b"x" * 100_000) for _ in range(1000)]
    full = resident_bytes()
    del blocks
    give_back()
    assert full == 0 or resident_bytes() < full - 50_000_000
