"""What trials go by: whose requests fall back, which variants are compared, and what a request to load asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson
import pytest

from router.agreement import corrected
from router.canary import Trial
from router.contract import Record
from router.words import Outcome, Reason
from service.canary_trial import counterpart
from service.hidden_families import Unmasked, falls_back, hidden_name, is_hidden, model_of
from service.load_request import LoadRequest, read_load_request
from tests.queued import FAMILY
from tests.service.test_feedback import answered

RECORD = answered(1).record


@pytest.mark.parametrize(
    ("outcome", "reason", "expected"),
    [
        (Outcome.SERVED, Reason.BEST_VALUE, False),
        (Outcome.SERVED_LATE, Reason.LATE, False),
        (Outcome.FAILED, Reason.EXECUTOR_ERROR, True),
        (Outcome.FAILED, Reason.SHUTDOWN, False),
        (Outcome.REJECTED_INFEASIBLE, Reason.DEADLINE_INFEASIBLE, True),
        (Outcome.REJECTED_INFEASIBLE, Reason.NOT_LOADED, True),
        (Outcome.REJECTED_FULL, Reason.BACKLOG_FULL, True),
        (Outcome.REJECTED_QUOTA, Reason.QUOTA, False),
        (Outcome.EXPIRED, Reason.TIMEOUT, False),
        (Outcome.CANCELLED, Reason.CLIENT_GONE, False),
    ],
)
def test_what_falls_back_is_told_of_once(outcome: Outcome, reason: Reason, expected: bool) -> None:
    """The revision's own faults fall back, the caller's doing does not; observers read the model's name."""
    seen: list[Record] = []

    class Observer:
        def observe(self, records: Sequence[Record], _: object) -> None:
            seen.extend(records)

    hidden = hidden_name("f", "2", 7)
    record = RECORD._replace(family=hidden, outcome=outcome, reason=reason)
    public = record._replace(family="f")
    Unmasked([Observer()]).observe([record, public], [])
    assert (expected, [public] * (1 if expected else 2)) == (falls_back(record), seen)
    assert ("f", True, False) == (model_of(hidden), is_hidden(hidden), is_hidden("f"))


@pytest.mark.parametrize(
    ("loaded", "name", "quality", "expected"),
    [
        ((0, 1, 2), "large", 0.1, "large"),
        ((0, 1), "large", 0.9, "middle"),
        ((0, 2), "other", 0.7, "small"),
        ((), "large", 0.9, None),
    ],
)
def test_a_counterpart_has_the_same_name_or_the_nearest_quality(
    loaded: tuple[int, ...], name: str, quality: float, expected: str | None
) -> None:
    """Of what is loaded, as it was measured, whatever it is believed to have lost since."""
    like = replace(FAMILY.variants[0], name=name, quality=quality)
    assert expected == counterpart(FAMILY.with_loaded(loaded), like)
    believed = corrected(FAMILY, {"large": 0.3, "middle": 0.15})
    assert expected == counterpart(believed.with_loaded(loaded), like)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, LoadRequest()),
        ({"revision": "2", "unload_dependents": True}, LoadRequest("2")),
        ({"revision": "2", "canary_share": 0.1}, LoadRequest("2", Trial(0.1))),
        (
            {"revision": "2", "canary_shadow": True, "canary_answers": 5},
            LoadRequest("2", Trial(shadow=True, answers=5)),
        ),
    ],
)
def test_what_a_load_request_asks_for(parameters: dict[str, object], expected: LoadRequest) -> None:
    """With any rule of a trial, one is to begin; what is not said is as `Trial` has it."""
    assert expected == read_load_request(orjson.dumps({"parameters": parameters}))
