"""Load reports are what ORCA's readers parse."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.orca import load_report

COUNTS = st.integers(0, 10_000)


def test_the_json_form() -> None:
    """`JSON ` and an object with the field names of ORCA's load report."""
    assert load_report("json", 1, 4, 7) == (
        b'JSON {"application_utilization":0.25,"named_metrics":{"queued_rows":7,"busy_slots":1}}'
    )


def test_the_text_form() -> None:
    """`TEXT ` and pairs, in which a named metric carries the map's name."""
    assert load_report("text", 1, 4, 7) == (
        b"TEXT application_utilization=0.25, named_metrics.queued_rows=7, named_metrics.busy_slots=1"
    )


@given(busy=COUNTS, idle=COUNTS, queued=COUNTS)
def test_both_forms_say_the_same(busy: int, idle: int, queued: int) -> None:
    """Whatever the load, the pairs of the text are the numbers of the object, and the share is in [0, 1]."""
    slots = busy + idle + 1
    told = json.loads(load_report("json", busy, slots, queued).removeprefix(b"JSON "))
    pairs = load_report("text", busy, slots, queued).decode().removeprefix("TEXT ").split(", ")
    read = {name: float(value) for name, value in (pair.split("=") for pair in pairs)}
    named = {f"named_metrics.{name}": float(value) for name, value in told["named_metrics"].items()}
    assert read == {"application_utilization": told["application_utilization"], **named}
    assert 0.0 <= read["application_utilization"] <= 1.0


@pytest.mark.parametrize(("load_format", "slots"), [("bin", 1), ("", 1), ("json", 0)])
def test_what_cannot_be_told_is_refused(load_format: str, slots: int) -> None:
    """A format that is not ORCA's and a replica without slots are errors of the program."""
    with pytest.raises(ValueError, match="expected"):
        load_report(load_format, 0, slots, 0)
