"""Two load tests held against each other: what is said to differ, and what is not sure."""

from __future__ import annotations

from typing import Any

import pytest

from loadtests.harness.comparison import compare
from tests.loadtests.judged import answered, load, recorded, subject


def right_from(first: int) -> dict[str, Any]:
    """The record of a run of eight rows, of which those from the `first` on are always answered correctly in time."""
    of = subject()
    run = answered(of, of.draw(load(), 1), refused=0.0)
    run.__dict__["good"] = run.ran.plan.workload.sample >= first
    return recorded(of, [run])


@pytest.mark.parametrize(("second", "verdict"), [(1, "same"), (7, "worse")])
def test_right_answers_differ_as_surely_as_there_are_rows(second: int, verdict: str) -> None:
    """One of eight rows more tells nothing of other rows, however often all are asked; five of eight do."""
    records = right_from(2), right_from(second)
    found = compare(*records, (records[0]["runs"][0], records[1]["runs"][0]))
    assert found.paired
    assert {"correct in time": verdict, "answered": "same"} == {
        row.name: row.verdict for row in found.rows if row.name in ("correct in time", "answered")
    }


def test_records_without_rows_are_compared_by_blocks() -> None:
    """Those of former versions."""
    records = right_from(2), right_from(1)
    for record in records:
        del record["runs"][0]["rows"]
    (right,) = (
        row
        for row in compare(*records, (records[0]["runs"][0], records[1]["runs"][0])).rows
        if row.name == "correct in time"
    )
    assert "better" == right.verdict
